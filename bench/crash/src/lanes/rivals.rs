//! One writer id on two connections, as when a writer was started again and its predecessor is not
//! gone: each set-up shuts the other connection out, again and again, over lost connections and
//! over kills.
//!
//! Both send the same events under the same numbers; only the key of an event tells which set-up
//! it was sent behind. The checker judges that nothing is stored twice, left out or out of order,
//! and nothing acknowledged is lost. The lane adds what only the keys show: behind a set-up nothing
//! of an older one is stored, and what a set-up tells is the end of a whole block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use thalweg_checker::id::{Segment as SegmentName, Writer as Author};
use thalweg_checker::payload::Event;
use thalweg_checker::record::{Discipline, Happened};

use crate::claim::{ensure, ensure_eq};
use crate::dice::{Dice, mix};
use crate::history::History;
use crate::lane::{Done, Lane, Verified, join_all};
use crate::store::{EVENT_COUNT, Route};
use crate::wire::Trouble;
use crate::witness::Witness;

use super::{Growth, writers};

mod rival;

use rival::Rival;

/// The segment is replaced by a new one when it is longer.
const LENGTH_MAX: i64 = 512 << 10;

/// The first and the last number that are stored with a key.
type ByKey = BTreeMap<u32, (u64, u64)>;

/// One set-up of the writer.
#[derive(Clone, Copy, Debug)]
struct Sitting {
    /// Moment before it was sent.
    asked: u64,
    /// Moment after its answer was taken, and the last number that it told.
    answered: Option<(u64, u64)>,
}

/// What both connections know of the present segment.
#[derive(Debug, Default)]
struct Ledger {
    /// Moments so far; they order what one thread saw before another acted.
    clock: u64,
    /// The sitting `n` marks its events with the key `n + 1`; ordered by `asked`.
    sittings: Vec<Sitting>,
    /// Numbers at which a block ended that may be stored.
    ends: BTreeSet<u64>,
}

impl Ledger {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A set-up is about to be sent; gives the key of what is sent behind it.
    fn ask(&mut self) -> u32 {
        let asked = self.tick();
        self.sittings.push(Sitting { asked, answered: None });
        u32::try_from(self.sittings.len()).expect("far below 2^32 set-ups")
    }

    /// A set-up told this number.
    fn answer(&mut self, key: u32, told: u64) -> Result<(), Trouble> {
        let is_end = told == 0 || self.ends.contains(&told);
        ensure!(is_end, "{told} is told to be the last number and ends no block");
        let at = self.tick();
        self.sittings[key as usize - 1].answered = Some((at, told));
        Ok(())
    }

    /// Judges the first and the last number that are stored with a key.
    fn judge(&self, key: u32, (first, last): (u64, u64)) -> Result<(), Trouble> {
        let sitting = (key as usize).checked_sub(1).and_then(|index| self.sittings.get(index));
        let answered = sitting.and_then(|sitting| sitting.answered);
        let Some((at, told)) = answered else {
            return Err(Trouble::wrong(format!(
                "{first} to {last} are stored with key {key}, whose set-up was not answered"
            )));
        };
        ensure!(first > told, "{first} is stored with key {key}, whose set-up told {told}");
        let newer = self.sittings.partition_point(|sitting| sitting.asked < at);
        let least = self.sittings[newer..]
            .iter()
            .filter_map(|sitting| sitting.answered)
            .min_by_key(|(_, told)| *told);
        let limit = least.map_or(u64::MAX, |(_, told)| told);
        ensure!(
            last <= limit,
            "{last} is stored with key {key}, and a newer set-up told {limit} to be the last"
        );
        Ok(())
    }
}

/// One segment of the lane, shared by its two connections.
struct Stage {
    name: String,
    author: u64,
    history: Arc<History>,
    ledger: Mutex<Ledger>,
}

impl Stage {
    fn new(generation: u64, history: &Arc<History>) -> Self {
        Self {
            name: format!("crash/rivals/{generation}.#epoch.0"),
            author: 600_000 + generation,
            history: history.clone(),
            ledger: Mutex::default(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no thread of the lane panics with it")
    }

    fn segment(&self) -> SegmentName {
        SegmentName::new(&self.name)
    }

    fn writer_id(&self) -> u128 {
        u128::from(mix(self.author)) << 64 | u128::from(self.author)
    }

    fn event(&self, number: u64, key: u32) -> Event {
        Event { key, ..writers::event(self.author, number) }
    }
}

/// The lane.
pub(crate) struct Rivals {
    stage: Stage,
    generation: u64,
    is_created: bool,
    growth: Growth,
    rivals: [Rival; 2],
    acknowledged: AtomicU64,
    reconnects: AtomicU64,
    dice: Dice,
}

impl Rivals {
    pub(crate) fn new(history: &Arc<History>, growth: Growth, mut dice: Dice) -> Self {
        Self {
            stage: Stage::new(0, history),
            generation: 0,
            is_created: false,
            growth,
            rivals: [Rival::new(dice.split(0)), Rival::new(dice.split(1))],
            acknowledged: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            dice: dice.split(2),
        }
    }

    fn create(&mut self, route: &Route) -> Result<(), Trouble> {
        if self.is_created {
            return Ok(());
        }
        let mut store = Witness::new(route, &self.stage.history);
        // One that was asked for and not answered may be there, or still come.
        store.create(&self.stage.name)?;
        self.is_created = true;
        self.stage.history.note(Happened::Writer {
            segment: self.stage.segment(),
            writer: Author(self.stage.author),
            discipline: Discipline::Dense { first: 1 },
            continues: None,
        })
    }

    /// Reads the whole segment; gives its events, and the first and last number of each key.
    fn read_back(&self, store: &mut Witness<'_>, length: i64) -> Result<(u64, ByKey), Trouble> {
        let (mut events, mut keys) = (0, ByKey::new());
        store.read_whole(&self.stage.name, length.unsigned_abs(), |run| {
            let (first, last) = (run.first.unsigned_abs(), run.last().unsigned_abs());
            keys.entry(run.key).or_insert((first, last)).1 = last;
            events += u64::from(run.count);
        })?;
        Ok((events, keys))
    }
}

impl Lane for Rivals {
    fn name(&self) -> String {
        "one writer id on two connections".to_owned()
    }

    fn resumes(&self) -> bool {
        true
    }

    fn wants_proxy(&self) -> bool {
        true
    }

    fn done(&self) -> Done {
        Done {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
        }
    }

    /// One connection goes through the proxy, where there is one, so that what it sends arrives
    /// late; the other does not.
    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        let near = Route { addresses: route.server.clone(), ..route.clone() };
        self.create(&near)?;
        let [first, second] = &mut self.rivals;
        let (stage, acknowledged, reconnects) = (&self.stage, &self.acknowledged, &self.reconnects);
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for (rival, route) in [(first, &near), (second, route)] {
                let counts = (acknowledged, reconnects);
                threads.push(scope.spawn(move || rival.run(stage, route, counts)));
            }
            join_all(threads)
        })
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        let history = self.stage.history.clone();
        let mut store = Witness::new(route, &history);
        let name = self.stage.name.clone();
        if !self.is_created {
            // It may have been created without an answer; nobody wrote to it.
            let length = store.info(&name)?.map_or(0, |info| info.write_offset);
            ensure_eq!(length, 0, "{name}: length, and nobody wrote to it");
            return Ok(Verified::default());
        }
        // Both connections are shut out from here on.
        let mut wire = store.store.session(&name)?;
        let told = rival::set_up(&self.stage, &mut wire, history.session())?.told;
        let Some(info) = store.info(&name)? else {
            return Err(Trouble::wrong(format!("{name} is gone")));
        };
        let length = info.write_offset;
        let (events, keys) = self.read_back(&mut store, length)?;
        ensure_eq!(events, told, "{name}: events, against the number told last");
        let counted = store.store.attribute(&name, EVENT_COUNT)?.max(0).unsigned_abs();
        ensure_eq!(counted, told, "{name}: count of events");
        for (key, numbers) in keys {
            self.stage.ledger().judge(key, numbers)?;
        }
        // In a journal that is full it does not grow, and nothing else lets go of its files.
        let is_over = self.growth == Growth::Long && self.dice.one_in(8);
        if is_over || length > LENGTH_MAX {
            ensure!(store.delete(&name)?, "{name} was gone");
            self.generation += 1;
            self.stage = Stage::new(self.generation, &history);
            self.is_created = false;
        }
        Ok(Verified { items: events, bytes: length.unsigned_abs() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger of two set-ups, the second asked for after the first was answered.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let first = ledger.ask();
        ledger.answer(first, 0).expect("nothing is stored");
        ledger.ends.extend([5, 9]);
        let second = ledger.ask();
        ledger.answer(second, 5).expect("a block ends there");
        ledger
    }

    /// Shows that what an older connection stored behind a newer set-up is seen by its key.
    #[test]
    fn what_an_older_connection_stores_behind_a_newer_set_up_is_seen() {
        let ledger = ledger();
        ledger.judge(1, (1, 5)).expect("before the second set-up");
        ledger.judge(2, (6, 9)).expect("behind the second set-up");
        ledger.judge(1, (1, 9)).expect_err("the older one behind the newer");
        ledger.judge(2, (5, 9)).expect_err("what was stored before");
        ledger.judge(3, (10, 10)).expect_err("nobody's");
    }

    /// Shows that half a block is seen by the number that a set-up tells.
    #[test]
    fn a_set_up_that_tells_half_a_block_is_seen() {
        let mut ledger = ledger();
        let third = ledger.ask();
        ledger.answer(third, 7).expect_err("no block ends there");
    }

    /// Shows that of two set-ups under way at a time either may be the newer one.
    #[test]
    fn set_ups_at_the_same_time_may_be_in_either_order() {
        let mut ledger = ledger();
        let (third, fourth) = (ledger.ask(), ledger.ask());
        ledger.answer(fourth, 5).expect("a block ends there");
        ledger.answer(third, 9).expect("a block ends there");
        ledger.judge(fourth, (6, 9)).expect("the fourth was the older one");
    }
}
