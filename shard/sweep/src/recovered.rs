//! One state of a disk, recovered: what was acknowledged is there and nothing else, a second
//! recovery says the same, and writing goes on.

use std::time::Duration;

use thalweg_journal::Journal;
use thalweg_journal::memory::{MemoryDevice, MemoryDisk, Random};

use crate::reference::Reference;
use crate::run::Runner;
use crate::script::Script;
use crate::state::Image;
use crate::world::{Closed, World};

/// Room on the disk in memory.
const CAPACITY: u64 = 16 << 20;

/// What was met, to show that a machine was not idle.
#[derive(Debug, Default)]
pub struct Totals {
    /// States recovered.
    pub recovered: u64,
    /// Of these, such that something sent and not acknowledged was gone.
    pub lost_unacknowledged: u64,
    /// Such that something not acknowledged was there.
    pub kept_unacknowledged: u64,
    /// Recoveries that power left in the middle.
    pub crashes_in_recovery: u64,
    /// States after which more was written, acknowledged and recovered again.
    pub went_on: u64,
}

/// Starts a process on a disk in memory.
///
/// # Errors
/// When it does not start.
pub fn boot(disk: &MemoryDisk, script: &Script) -> Result<World<Journal<MemoryDevice>>, String> {
    let journal = Journal::new(disk.device(), script.tuning.journal());
    let journal = journal.map_err(|error| error.to_string())?;
    World::boot(journal, None, &script.tuning).map_err(|fault| fault.to_string())
}

/// Recovers one state and checks everything that must hold. `acked` and `sent` steps at that
/// moment.
///
/// # Errors
/// What does not hold.
pub fn check(
    script: &Script,
    reference: &Reference,
    image: Image,
    (acked, sent): (usize, usize),
    seed: u64,
    totals: &mut Totals,
) -> Result<(), String> {
    totals.recovered += 1;
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
    let (fault, counters) = (shard.fault().cloned(), *shard.counters());
    format!("does not go on at step {sent}: {fault:?} {counters:?} {:?}", disk.files())
}
