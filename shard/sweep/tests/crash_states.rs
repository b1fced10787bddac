//! Crash states of the real device adapters: what they asked of the kernel is replayed, and every
//! state that a power cut could leave is recovered by the journal and the engine.
//!
//! `THALWEG_CRASH_STATES` sets how many different states are recovered; the default is a few
//! seconds' worth.

use std::collections::BTreeSet;
use std::time::Duration;

use thalweg_journal::Journal;
use thalweg_journal::memory::{MemoryDevice, MemoryDisk, Random};
use thalweg_sweep::real::{ADAPTERS, Adapter, record};
use thalweg_sweep::reference::Reference;
use thalweg_sweep::run::Runner;
use thalweg_sweep::scenarios;
use thalweg_sweep::script::Script;
use thalweg_sweep::state::{Image, Replay, fingerprint};
use thalweg_sweep::world::{Closed, World};

const STATES: u64 = 3_000;
const CAPACITY: u64 = 16 << 20;

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What was met, to show that the machine was not idle.
#[derive(Debug, Default)]
struct Totals {
    moments: u64,
    drawn: u64,
    recovered: u64,
    lost_unacknowledged: u64,
    kept_unacknowledged: u64,
    crashes_in_recovery: u64,
    went_on: u64,
}

fn boot(disk: &MemoryDisk, script: &Script) -> Result<World<Journal<MemoryDevice>>, String> {
    let journal = Journal::new(disk.device(), script.tuning.journal());
    let journal = journal.map_err(|error| error.to_string())?;
    World::boot(journal, None, &script.tuning).map_err(|fault| fault.to_string())
}

/// Recovers one state and checks everything that must hold.
fn check(
    script: &Script,
    reference: &Reference,
    image: Image,
    (acked, sent): (usize, usize),
    seed: u64,
    totals: &mut Totals,
) -> Result<(), String> {
    let mut random = Random(seed);
    let disk = MemoryDisk::holding(random.number(), CAPACITY, image);
    if random.one_in(3) {
        // A crash in the recovery, and power lost again.
        disk.set_fuse(Some(random.below(60)));
        totals.crashes_in_recovery += u64::from(boot(&disk, script).is_err());
        disk.set_fuse(None);
        disk.cut_power();
    }
    let mut runner = Runner::new(script, Some(reference), boot(&disk, script)?, None);
    (runner.acked, runner.sent) = (acked, sent);
    runner.find_place()?;
    let at = runner.acked;
    totals.kept_unacknowledged += u64::from(at > acked);
    totals.lost_unacknowledged += u64::from(at < sent);
    drop(runner.world.kill());
    // What was served once must be there after another power cut.
    disk.cut_power();
    let mut runner = Runner::new(script, Some(reference), boot(&disk, script)?, None);
    (runner.acked, runner.sent) = (at, at);
    runner.find_place().map_err(|error| format!("second recovery: {error}"))?;
    if !random.one_in(4) {
        return Ok(());
    }
    // Writing goes on, and what is acknowledged then survives too.
    runner.stand_at(at);
    let until = (at + 1 + random.below(6) as usize).min(script.steps.len());
    while runner.sent < until {
        let step = runner.step();
        step.map_err(|Closed| describe(&mut runner, &disk))?;
    }
    if random.one_in(2) {
        let settled = runner.settle();
        settled.map_err(|Closed| describe(&mut runner, &disk))?;
    }
    if random.one_in(3) {
        runner.world.rest(Duration::from_millis(15));
    }
    let (acked, sent) = (runner.acked, runner.sent);
    totals.went_on += u64::from(acked > at);
    drop(runner.world.kill());
    disk.cut_power();
    let mut runner = Runner::new(script, Some(reference), boot(&disk, script)?, None);
    (runner.acked, runner.sent) = (acked, sent);
    runner.find_place().map_err(|error| format!("third recovery: {error}"))
}

/// Why writing does not go on.
fn describe(runner: &mut Runner<'_, Journal<MemoryDevice>>, disk: &MemoryDisk) -> String {
    let (sent, shard) = (runner.sent, runner.world.shard());
    let (fault, counters) = (shard.fault().cloned(), shard.counters().clone());
    format!("does not go on at step {sent}: {fault:?} {counters:?} {:?}", disk.files())
}

/// Every crash state of a trace, up to `budget` different ones.
fn explore(
    adapter: Adapter,
    script: &Script,
    reference: &Reference,
    budget: u64,
    totals: &mut Totals,
) {
    let notes = record(adapter, script, reference)
        .unwrap_or_else(|error| panic!("{} on {adapter:?}: {error}", script.name));
    let mut replay = Replay::default();
    let moments = notes.iter().filter(|note| replay.take(note)).count() as u64;
    let mut replay = Replay::default();
    let mut known = BTreeSet::new();
    let mut random = Random(0xC4A5 ^ script.name.len() as u64 ^ adapter as u64);
    let mut moment = 0;
    for (line, note) in notes.iter().enumerate() {
        if !replay.take(note) {
            continue;
        }
        moment += 1;
        // Moments share the budget; one with few states leaves its share to those behind it.
        let due = (budget * moment).div_ceil(moments);
        let range = (replay.acked, replay.sent);
        let missing = due.saturating_sub(known.len() as u64);
        let mut images = replay.exhaustive();
        images.extend((0..4 * missing).map(|_| replay.random(&mut random)));
        totals.drawn += images.len() as u64;
        for image in images {
            if known.len() as u64 >= due {
                break;
            }
            if !known.insert((fingerprint(&image), range)) {
                continue;
            }
            totals.recovered += 1;
            let seed = random.number();
            if let Err(error) = check(script, reference, image, range, seed, totals) {
                panic!("{} on {adapter:?}, note {line}, seed {seed}: {error}", script.name);
            }
        }
    }
    totals.moments += moments;
}

/// F2, F3, F4, F5, F7: at every moment of every script, on both kinds of durable write and on
/// ordinary calls, whatever a power cut leaves of the calls that were not safe, everything
/// acknowledged is recovered exactly, what is served once stays, and writing goes on.
#[test]
fn every_crash_state_of_the_real_device_recovers_what_was_acknowledged() {
    let budget = number_from("THALWEG_CRASH_STATES").unwrap_or(STATES);
    let scripts = scenarios::all();
    let runs = (scripts.len() * ADAPTERS.len()) as u64;
    let mut totals = Totals::default();
    for script in &scripts {
        let reference = Reference::of(script);
        for adapter in ADAPTERS {
            explore(adapter, script, &reference, budget.div_ceil(runs), &mut totals);
        }
    }
    println!("{totals:?}");
    assert!(totals.recovered >= budget * 9 / 10, "{totals:?}");
    assert!(totals.kept_unacknowledged > 0 && totals.lost_unacknowledged > 0, "{totals:?}");
    assert!(totals.crashes_in_recovery > 0 && totals.went_on > 0, "{totals:?}");
}
