//! The kill loop: the real daemon on a real disk under mixed work, killed at random moments.
//!
//! Each [`Lane`] works on segments of its own and remembers, in the memory of this test, every
//! effect that was acknowledged, and what was asked and not answered. After each kill the daemon is
//! started again on the same directory, and each lane reads all of it back: what was acknowledged
//! must be there, what was not answered must be there wholly or not at all, and nothing else may be
//! there. Then the work goes on, on the same segments.
//!
//! `THALWEG_KILLS` (5) and `THALWEG_SHARDS` (2) set the size, `THALWEG_SINGLE_PORT=1` lets all
//! shards share a port, `THALWEG_SEED` repeats a run as far as a run with threads and a disk can be
//! repeated.

use std::thread;
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
#[path = "../rig/mod.rs"]
mod rig;

mod attributes;
mod conditional;
mod recreate;
mod segment_table;
mod transactions;
mod writers;

use rig::dice::{Dice, seed};
use rig::server::{Server, Settings};

/// What a lane read back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verified {
    /// Events, or entries of tables.
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Verified {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
    }
}

/// One kind of work with its journal of what was acknowledged.
pub(crate) trait Lane: Send {
    /// What it is, for messages.
    fn name(&self) -> String;

    /// Works until the server is gone.
    fn work(&mut self, ports: &[u16]);

    /// Reads everything back and compares; panics on what must not be. What was unknown is known
    /// afterwards.
    fn verify(&mut self, ports: &[u16]) -> Verified;
}

fn lanes(dice: &mut Dice) -> Vec<Box<dyn Lane>> {
    let mut lanes: Vec<Box<dyn Lane>> = Vec::new();
    for number in 0..2 {
        lanes.push(Box::new(writers::Writers::new(number, 3, dice.split(number))));
        lanes.push(Box::new(transactions::Transactions::new(number, dice.split(number))));
        lanes.push(Box::new(segment_table::SegmentTable::new(number, dice.split(number))));
    }
    lanes.push(Box::new(conditional::Conditional::new(2, dice.split(3))));
    lanes.push(Box::new(recreate::Recreate::new(dice.split(4))));
    lanes.push(Box::new(attributes::Attributes::new(dice.split(5))));
    lanes
}

/// Lets all lanes work until `end` has ended the server.
fn work_until(lanes: &mut [Box<dyn Lane>], server: &mut Server, end: impl FnOnce(&mut Server)) {
    let ports = server.ports();
    thread::scope(|scope| {
        for lane in lanes {
            let ports = &ports;
            let name = lane.name();
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, move || lane.work(ports))
                .expect("a thread for each lane");
        }
        end(server);
    });
}

fn verify_all(lanes: &mut [Box<dyn Lane>], ports: &[u16]) -> Verified {
    let mut all = Verified::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for lane in lanes {
            let name = format!("verify {}", lane.name());
            let thread = thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, move || lane.verify(ports))
                .expect("a thread for each lane");
            threads.push(thread);
        }
        for thread in threads {
            all += thread.join().expect("what was acknowledged is there");
        }
    });
    all
}

/// Sometimes the next start is killed too, while it recovers or just after: recovery must not
/// depend on being finished.
fn start_through_kills(settings: &Settings, dice: &mut Dice) -> (Server, Duration, u64) {
    let mut kills = 0;
    while dice.one_in(4) {
        let mut server = Server::launch(settings);
        thread::sleep(Duration::from_millis(dice.below(120)));
        server.kill();
        kills += 1;
    }
    let mut server = Server::launch(settings);
    let time = server.wait_ready();
    (server, time, kills)
}

/// Shows that no kill under mixed work loses, doubles, reorders or alters anything acknowledged,
/// and that what was not acknowledged happened wholly or not at all.
#[test]
fn every_acknowledged_effect_survives_kills() {
    let kills = rig::setting("THALWEG_KILLS", 5);
    let shards = rig::setting("THALWEG_SHARDS", 2);
    let mut dice = Dice::new(seed());
    let home = tempfile::tempdir().expect("a temporary directory");
    let shards = u16::try_from(shards).expect("a small number");
    let mut settings = Settings::new(home.path(), shards);
    if rig::setting("THALWEG_SINGLE_PORT", 0) == 1 {
        settings = settings.single_port();
    }
    let mut lanes = lanes(&mut dice);
    let mut server = Server::start(&settings);
    let mut total = Verified::default();
    for kill in 1..=kills {
        let load = Duration::from_millis(dice.range(1000..3000));
        work_until(&mut lanes, &mut server, |server| {
            thread::sleep(load);
            server.kill();
        });
        let (started, restart, nested) = start_through_kills(&settings, &mut dice);
        server = started;
        let begin = Instant::now();
        let verified = verify_all(&mut lanes, &server.ports());
        total += verified;
        println!(
            "kill {kill:3}: after {:4} ms of load, {nested} more kills in recovery, restart {} ms; \
             {} events and entries, {} KiB verified in {} ms",
            load.as_millis(),
            restart.as_millis(),
            verified.items,
            verified.bytes >> 10,
            begin.elapsed().as_millis()
        );
        assert!(verified.items > 0, "nothing was written between two kills");
    }
    let (status, _) = server.terminate(Duration::from_secs(10));
    assert!(status.success(), "SIGTERM without load: {status}");
    println!("{kills} kills: {} events and entries verified, nothing wrong", total.items);
}

/// Shows that SIGTERM under load ends the process with status 0 within 10 s, and that everything
/// acknowledged until then is there after the next start.
#[test]
fn a_stop_under_load_loses_nothing() {
    let mut dice = Dice::new(seed());
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings::new(home.path(), 2);
    let mut lanes = lanes(&mut dice);
    let mut server = Server::start(&settings);
    work_until(&mut lanes, &mut server, |server| {
        thread::sleep(Duration::from_millis(1000));
        let (status, time) = server.terminate(Duration::from_secs(10));
        assert!(status.success(), "SIGTERM under load: {status}; log:\n{}", server.log());
        println!("SIGTERM under load: ended in {} ms", time.as_millis());
    });
    let server = Server::start(&settings);
    let verified = verify_all(&mut lanes, &server.ports());
    assert!(verified.items > 0, "nothing was written");
    println!("{} events and entries verified after the stop", verified.items);
}
