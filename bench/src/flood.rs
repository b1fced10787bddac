//! Floods: what established writers keep of their rate while others misuse the server, how much
//! memory the server takes meanwhile, and whether everything closes by itself afterwards.
//!
//! Many connections are open, some of them write at a fixed rate. Then each kind of attack is
//! switched on and off by turns, so that the host's noise meets both; the ratio of the acknowledged
//! rates is the result. Attacks run on threads of their own beside the writers' one. Last comes
//! three times the load that the server can take.

mod attack;
mod wire;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use thalweg_wire::Command;

use crate::locate::{Locator, Place, spread};
use crate::process::ProcessId;
use crate::record::{Summary, Table};
use attack::{Attack, AttackCounts};
use wire::Wire;
use writers::Writers;

/// Blocks of a writer under way, to find those with which the server does best.
const WINDOWS: [u64; 5] = [2, 4, 8, 16, 32];

/// Settings of the floods.
#[derive(Clone, Debug, Serialize)]
pub struct Flood {
    /// Connections open all the time, writers included. Default 10,000.
    pub connections: usize,
    /// Writers among them, each on a connection of its own. Default 1,000.
    pub writers: usize,
    /// Events per second of all writers. Default 50,000.
    pub events_per_second: u64,
    /// Payload bytes of an event. Default 100.
    pub event_bytes: usize,
    /// Length of a slice with or without an attack. Default 6 s.
    pub slice: Duration,
    /// Slices with each attack, and as many without. Default 3.
    pub slices: usize,
    /// Attempts of the connection flood. Default 50,000.
    pub attempts: u64,
    /// Writer ids of the flood of writer ids. Default 2,000,000.
    pub writer_ids: u64,
    /// Least part of their rate that writers must keep, in per cent. Default 90.
    pub keep_percent: u64,
    /// Least part of the best rate under three times the load, in per cent. Default 80.
    pub overload_percent: u64,
    /// The server's memory budget; resident memory may be a quarter more. 0: not judged.
    pub memory_bytes: u64,
    /// How long everything may take to close by itself. Default 90 s.
    pub settle: Duration,
}

impl Default for Flood {
    fn default() -> Self {
        Self {
            connections: 10_000,
            writers: 1_000,
            events_per_second: 50_000,
            event_bytes: 100,
            slice: Duration::from_secs(6),
            slices: 3,
            attempts: 50_000,
            writer_ids: 2_000_000,
            keep_percent: 90,
            overload_percent: 80,
            memory_bytes: 0,
            settle: Duration::from_secs(90),
        }
    }
}

/// One kind of attack.
#[derive(Clone, Debug, Serialize)]
pub struct FloodRow {
    /// Which.
    pub attack: &'static str,
    /// Events acknowledged per second in the slices without it.
    pub before: Vec<f64>,
    /// And with it.
    pub during: Vec<f64>,
    /// What the attackers did.
    pub attempts: u64,
    /// How often they were closed or refused.
    pub closed: u64,
    /// Highest resident memory of the server by its end, bytes.
    pub resident_peak: u64,
}

impl FloodRow {
    /// Mean rate with the attack by mean rate without.
    pub fn kept(&self) -> f64 {
        mean(&self.during) / mean(&self.before).max(1.0)
    }

    /// Lowest and highest ratio of a slice with it to the slice before.
    pub fn spread(&self) -> (f64, f64) {
        let ratios = self.during.iter().zip(&self.before).map(|(with, without)| with / without);
        ratios.fold((f64::MAX, 0.0), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
    }
}

/// The outcome of the floods.
#[derive(Clone, Debug, Serialize)]
pub struct FloodResult {
    /// By attack, in order.
    pub rows: Vec<FloodRow>,
    /// Rate of the writers without a schedule, with enough under way to keep the server busy.
    pub peak: f64,
    /// Rate when three times as much is under way.
    pub overloaded: f64,
    /// Sockets of the server with all connections open, before and after the floods.
    pub sockets: (usize, usize),
    /// Time until everything that attackers left was closed.
    pub settled_after: Duration,
    /// Highest resident memory, bytes.
    pub resident_peak: u64,
}

impl Summary for FloodResult {
    fn table(&self) -> Table {
        let columns =
            ["attack", "before/s", "during/s", "kept", "slices", "attempts", "closed", "memory"];
        let mut table = Table::new(&columns);
        for row in &self.rows {
            let (low, high) = row.spread();
            table.row(vec![
                row.attack.to_owned(),
                format!("{:.0}", mean(&row.before)),
                format!("{:.0}", mean(&row.during)),
                format!("{:.1} %", 100.0 * row.kept()),
                format!("{:.2} to {:.2}", low, high),
                row.attempts.to_string(),
                row.closed.to_string(),
                format!("{} MiB", row.resident_peak >> 20),
            ]);
        }
        table.row(vec![
            "three times the load".to_owned(),
            format!("{:.0}", self.peak),
            format!("{:.0}", self.overloaded),
            format!("{:.1} %", 100.0 * self.overloaded / self.peak.max(1.0)),
            String::new(),
            String::new(),
            String::new(),
            format!("{} MiB", self.resident_peak >> 20),
        ]);
        table
    }
}

/// Writes some data that stay.
fn fill(place: &Place) -> anyhow::Result<()> {
    let mut wire = Wire::greeted(&place.address)?;
    wire.set_up(&place.segment, 1)?;
    for number in 1..=8 {
        let reply = wire.ask(&attack::append(1, &bytes::Bytes::from(vec![7; 1 << 20]), number))?;
        ensure!(matches!(reply, Command::DataAppended(_)), "{}: {reply:?}", place.segment);
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Flood {
    /// Runs all of it and judges it.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        server: Option<ProcessId>,
    ) -> anyhow::Result<FloodResult> {
        ensure!(self.connections >= self.writers, "writers are among the connections");
        let server = server.context("floods need the server's process")?;
        let places = spread(locator, name, self.writers.clamp(1, 64))?;
        let history = spread(locator, &format!("{name}-history"), 4)?;
        wire::create_all(&places)?;
        wire::create_all(&history)?;
        for place in &history {
            fill(place)?;
        }
        let idle = self.open_idle(&places)?;
        let mut writers = Writers::open(&places, self)?;
        eprintln!("{} connections are open, {} write", self.connections, self.writers);
        writers.run(self.slice)?;
        let sockets = server.sockets()?;
        let mut rows = Vec::new();
        for attack in Attack::ALL {
            rows.push(self.flood(attack, (&places, &history), &mut writers, server)?);
        }
        let settled_after = self.settle(server, sockets)?;
        let after = server.sockets()?;
        let (peak, overloaded) = self.overload(&mut writers)?;
        drop(idle);
        let result = FloodResult {
            rows,
            peak,
            overloaded,
            sockets: (sockets, after),
            settled_after,
            resident_peak: server.resident_bytes_peak()?,
        };
        self.judge(&result)?;
        Ok(result)
    }

    /// The best rate that the server gives, and what is left of it when three times as much is sent
    /// whether it is acknowledged or not. Best and overload are measured by turns.
    fn overload(&self, writers: &mut Writers) -> anyhow::Result<(f64, f64)> {
        let (mut best, mut window) = (0.0, WINDOWS[0]);
        for candidate in WINDOWS {
            let rate = writers.saturate(self.slice / 2, candidate)?;
            eprintln!("{candidate} blocks of each writer under way: {rate:.0} events/s");
            if rate > best {
                (best, window) = (rate, candidate);
            }
        }
        let (mut peaks, mut overloads) = (Vec::new(), Vec::new());
        for _ in 0..self.slices.max(1) {
            peaks.push(writers.saturate(self.slice, window)?);
            overloads.push(writers.overload(self.slice, 3.0 * best)?);
            writers.finish(self.settle)?;
        }
        eprintln!("at best {peaks:.0?} events/s, three times as much sent: {overloads:.0?}");
        Ok((mean(&peaks), mean(&overloads)))
    }

    fn open_idle(&self, places: &[Place]) -> anyhow::Result<Vec<Wire>> {
        let count = self.connections - self.writers;
        (0..count).map(|index| Wire::greeted(&places[index % places.len()].address)).collect()
    }

    fn flood(
        &self,
        attack: Attack,
        places: (&[Place], &[Place]),
        writers: &mut Writers,
        server: ProcessId,
    ) -> anyhow::Result<FloodRow> {
        let counts = Arc::new(AttackCounts::default());
        let (mut before, mut during) = (Vec::new(), Vec::new());
        for _ in 0..self.slices {
            before.push(writers.run(self.slice)?);
            let stop = Arc::new(AtomicBool::new(false));
            let threads = attack.start(self, places, &stop, &counts);
            // What is slower now must not count as less: a rate is judged once it is steady.
            let rate = writers.run(self.slice / 4).and_then(|_| writers.run(self.slice));
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("an attacker panicked"))??;
            }
            during.push(rate?);
            writers.run(self.slice / 4)?;
        }
        let row = FloodRow {
            attack: attack.name(),
            before,
            during,
            attempts: counts.attempts.load(Ordering::Relaxed),
            closed: counts.closed.load(Ordering::Relaxed),
            resident_peak: server.resident_bytes_peak()?,
        };
        let (kept, peak) = (100.0 * row.kept(), row.resident_peak >> 20);
        let (attempts, closed) = (row.attempts, row.closed);
        eprintln!(
            "{}: {kept:.1} % kept, {attempts} attempts, {closed} closed, {peak} MiB",
            row.attack
        );
        Ok(row)
    }

    /// Waits until the server has no more sockets than before the floods.
    fn settle(&self, server: ProcessId, sockets: usize) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        while server.sockets()? > sockets {
            ensure!(
                begin.elapsed() < self.settle,
                "{} sockets are open {:?} after the floods, {sockets} were before",
                server.sockets()?,
                self.settle
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(begin.elapsed())
    }

    fn judge(&self, result: &FloodResult) -> anyhow::Result<()> {
        println!("{}", result.table().markdown());
        for row in &result.rows {
            ensure!(
                100.0 * row.kept() >= self.keep_percent as f64,
                "{}: writers kept {:.1} % of their rate, less than {} %",
                row.attack,
                100.0 * row.kept(),
                self.keep_percent
            );
        }
        ensure!(
            100.0 * result.overloaded >= self.overload_percent as f64 * result.peak,
            "under three times the load {:.0} of {:.0} events/s were left, less than {} %",
            result.overloaded,
            result.peak,
            self.overload_percent
        );
        let bound = self.memory_bytes + self.memory_bytes / 4;
        ensure!(
            self.memory_bytes == 0 || result.resident_peak <= bound,
            "{} MiB were resident, the budget and a quarter are {} MiB",
            result.resident_peak >> 20,
            bound >> 20
        );
        Ok(())
    }
}
