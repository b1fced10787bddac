//! What is done to a server under load: frozen, cut off, killed, stopped, started again.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use thalweg_checker::record::ProcessEvent;

use crate::process::Server;
use crate::proxy::Partition;
use crate::totals::Restart;

use super::{Ended, Ending, Run, RunError, START_MAX, STOP_MAX, Switches};

impl Run {
    /// From a running server under load to its successor under load.
    pub(super) fn disturb(
        &mut self,
        mut server: Server,
        switches: &Switches,
    ) -> Result<(Server, Ended), RunError> {
        let begin = Instant::now();
        let (from, to) = self.options.load_ms;
        let load = self.dice.millis(from..to);
        while begin.elapsed() < load {
            let quiet = self.dice.millis(20..250).min(load.saturating_sub(begin.elapsed()));
            pass(quiet, switches)?;
            self.disturb_once(&mut server, switches)?;
        }
        server.check_alive()?;
        let how = self.end(&mut server)?;
        let load = begin.elapsed();
        switches.server.stop();
        drop(server);
        let event = if how == Ending::Stop { ProcessEvent::Stopped } else { ProcessEvent::Killed };
        self.tell(event)?;
        if let Some(at_rest) = self.options.at_rest {
            at_rest(&self.home.server());
        }
        let (server, restart, kills_in_recovery) = self.start_through_kills()?;
        // Those that can resume do so on the new server: they resend what was not acknowledged.
        let resume = self.dice.millis(40..250);
        pass(resume, switches)?;
        if !self.proxies.is_empty() {
            for proxy in &self.proxies {
                proxy.set_partition(Partition::NONE);
            }
        }
        Ok((server, Ended { how, load, kills_in_recovery, restart }))
    }

    /// Sometimes one fault that the server lives through.
    fn disturb_once(&mut self, server: &mut Server, switches: &Switches) -> Result<(), RunError> {
        match self.dice.below(8) {
            0 => {
                server.signal(Signal::STOP)?;
                let frozen = self.dice.millis(5..150);
                let passed = pass(frozen, switches);
                server.signal(Signal::CONT)?;
                self.totals.freezes += 1;
                passed
            }
            1 | 2 if !self.proxies.is_empty() => {
                let proxy = self.dice.index(self.proxies.len());
                for _ in 0..self.dice.range(1..4) {
                    let partition = match self.dice.below(3) {
                        0 => Partition::BOTH,
                        1 => Partition { to_server: true, to_client: false },
                        _ => Partition { to_server: false, to_client: true },
                    };
                    self.proxies[proxy].set_partition(partition);
                    let cut = self.dice.millis(5..80);
                    let passed = pass(cut, switches);
                    self.proxies[proxy].set_partition(Partition::NONE);
                    passed?;
                    let healed = self.dice.millis(1..30);
                    pass(healed, switches)?;
                }
                Ok(())
            }
            3 if !self.proxies.is_empty() => {
                let proxy = self.dice.index(self.proxies.len());
                self.proxies[proxy].reset_all();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends the server in one of the ways.
    fn end(&mut self, server: &mut Server) -> Result<Ending, RunError> {
        let how = self.options.endings[self.dice.index(self.options.endings.len())];
        match how {
            Ending::Stop => {
                let time = server.terminate(STOP_MAX)?;
                self.totals.stopped(time);
            }
            Ending::KillFrozen => {
                server.signal(Signal::STOP)?;
                server.kill()?;
                self.totals.kills += 1;
            }
            Ending::Kill => {
                server.kill()?;
                self.totals.kills += 1;
            }
        }
        Ok(how)
    }

    /// Starts the server. Sometimes a start is killed too, while it recovers or just after:
    /// recovery must not depend on being finished.
    fn start_through_kills(&mut self) -> Result<(Server, Restart, u64), RunError> {
        let mut kills = 0;
        // Told before the start: whatever is asked from here on is asked of the successor.
        self.tell(ProcessEvent::Restarted)?;
        while self.dice.one_in(5) {
            let mut server = Server::launch(&self.settings)?;
            thread::sleep(self.dice.millis(0..150));
            match server.kill() {
                Ok(()) => {}
                Err(error) if error.is_locked_out() => {
                    self.totals.starts_refused += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.tell(ProcessEvent::Killed)?;
            self.tell(ProcessEvent::Restarted)?;
            kills += 1;
        }
        self.totals.kills += kills;
        self.totals.kills_in_recovery += kills;
        let journal_bytes = self.home.journal_bytes();
        let begin = Instant::now();
        let server = self.start(begin)?;
        let restart = Restart { journal_bytes, seconds: begin.elapsed().as_secs_f64() };
        self.totals.restarts.push(restart);
        Ok((server, restart, kills))
    }

    /// Starts the server until it serves, as a supervisor does it: a start is refused while the
    /// kernel holds the lock of a killed server, as every second start must be.
    fn start(&mut self, begin: Instant) -> Result<Server, RunError> {
        loop {
            let mut server = Server::launch(&self.settings)?;
            match server.wait_ready(START_MAX) {
                Ok(_) => return Ok(server),
                Err(error) if error.is_locked_out() && begin.elapsed() < START_MAX => {
                    self.totals.starts_refused += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Lets a time pass, or less when a lane fails.
fn pass(time: Duration, switches: &Switches) -> Result<(), RunError> {
    let begin = Instant::now();
    loop {
        switches.check()?;
        let left = time.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}
