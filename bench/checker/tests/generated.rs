//! Long histories of a right server, made from a seed, and what becomes of them when one thing in
//! them is changed: every such change must be noticed. The server made here is a few lines; it does
//! what a right one does, at once or never, and its clients are unlucky.

use std::collections::BTreeMap;

use thalweg_checker::id::{Attribute, Key, OperationId, Segment, SessionId, Value, Writer};
use thalweg_checker::payload::mix;
use thalweg_checker::record::{
    AttributeCondition, Data, Discipline, Entry, Happened, KeyCondition, Operation, Outcome,
    ProcessEvent, Put, Refusal, Run,
};
use thalweg_checker::{Checker, Summary, Violation};

const EVENT_BYTES: u32 = 60;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0) % bound
    }
}

/// A right server with one segment and one table, and all that its clients know.
struct World {
    dice: Dice,
    history: Vec<Happened>,
    id: u64,
    session: u64,
    stored: Vec<Run>,
    length: u64,
    start: u64,
    next: BTreeMap<u64, i64>,
    attribute: Option<i64>,
    table: BTreeMap<u64, (u64, i64)>,
    version: i64,
}

fn segment() -> Segment {
    Segment::new("scope/stream/0")
}

fn table() -> Segment {
    Segment::new("scope/table")
}

fn key(index: u64) -> Key {
    Key::new(&format!("key {index}"))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            dice: Dice(seed),
            history: Vec::new(),
            id: 0,
            session: 1,
            stored: Vec::new(),
            length: 0,
            start: 0,
            next: BTreeMap::new(),
            attribute: None,
            table: BTreeMap::new(),
            version: 0,
        };
        for segment in [segment(), table()] {
            let id = world.invoke(Operation::Create { segment });
            world.ok(id, Outcome::Done);
        }
        for writer in 1..=4 {
            world.next.insert(writer, 1);
            world.history.push(Happened::Writer {
                segment: segment(),
                writer: Writer(writer),
                discipline: Discipline::Dense { first: 1 },
                continues: None,
            });
        }
        world
    }

    fn invoke(&mut self, operation: Operation) -> OperationId {
        self.id += 1;
        let (id, session) = (OperationId(self.id), SessionId(self.session));
        self.history.push(Happened::Invoke { id, session, operation });
        id
    }

    fn ok(&mut self, id: OperationId, outcome: Outcome) {
        self.history.push(Happened::Ok { id, outcome });
    }

    fn set_up(&mut self, writer: u64) {
        let id = self.invoke(Operation::SetUp { segment: segment(), writer: Writer(writer) });
        let last = Some(self.next[&writer] - 1).filter(|last| *last > 0);
        self.ok(id, Outcome::SetUp { last });
    }

    fn append(&mut self) {
        let writer = 1 + self.dice.below(4);
        let first = self.next[&writer];
        let count = 1 + self.dice.below(5) as u32;
        let bytes = u64::from(count * EVENT_BYTES);
        let (segment, name) = (segment(), Writer(writer));
        let id = self.invoke(Operation::Append { segment, writer: name, first, count, bytes });
        let is_lost = self.dice.below(12) == 0;
        if !is_lost || self.dice.below(2) == 0 {
            self.stored.push(Run { writer: name, first, count, bytes: EVENT_BYTES, key: 0 });
            self.length += bytes;
            self.next.insert(writer, first + i64::from(count));
        }
        if is_lost {
            self.history.push(Happened::Info { id });
            self.session += 1;
            self.set_up(writer);
        } else {
            let length = Some(self.length);
            self.ok(id, Outcome::Appended { length, previous: None });
        }
    }

    fn read(&mut self, offset: u64) -> u64 {
        let id = self.invoke(Operation::Read { segment: segment(), offset });
        let mut at = 0;
        let mut runs = Vec::new();
        for run in &self.stored {
            let end = at + run.all_bytes();
            if end > offset && runs.len() < 40 {
                let skipped = offset.saturating_sub(at) / u64::from(EVENT_BYTES);
                let (first, count) = (run.first + skipped as i64, run.count - skipped as u32);
                runs.push(Run { first, count, ..*run });
            }
            at = end;
        }
        let end = offset + runs.iter().map(Run::all_bytes).sum::<u64>();
        self.ok(id, Outcome::Read { data: Data::Runs(runs), ends: false, tail: false });
        end
    }

    /// Offset of a block that is not truncated, early or late.
    fn boundary(&mut self) -> u64 {
        let index = self.dice.below(self.stored.len() as u64 + 1) as usize;
        let offset: u64 = self.stored[..index].iter().map(Run::all_bytes).sum();
        offset.max(self.start)
    }

    fn change_attribute(&mut self) {
        let (segment, attribute) = (segment(), Attribute(3));
        let is_wrong = self.dice.below(4) == 0;
        let expected = if is_wrong { Some(-5) } else { self.attribute };
        let value = Some(self.attribute.unwrap_or(0) + 1);
        let condition = AttributeCondition::Is(expected);
        let id = self.invoke(Operation::AttributeUpdate { segment, attribute, condition, value });
        if is_wrong {
            self.history.push(Happened::Fail { id, refusal: Refusal::ConditionFailed });
        } else {
            self.attribute = value;
            if self.dice.below(10) == 0 {
                self.history.push(Happened::Info { id });
            } else {
                self.ok(id, Outcome::Done);
            }
        }
        self.read_attribute();
    }

    fn read_attribute(&mut self) {
        let (segment, attribute) = (segment(), Attribute(3));
        let id = self.invoke(Operation::AttributeRead { segment, attribute });
        let value = self.attribute;
        self.ok(id, Outcome::Attribute { value });
    }

    fn put(&mut self) {
        let keys = [self.dice.below(5), 5 + self.dice.below(5)];
        let count = 1 + self.dice.below(2) as usize;
        let value = self.id;
        let put = |index: &u64| {
            let version = self.table.get(index).map(|(_, version)| *version);
            let condition = version.map_or(KeyCondition::Absent, KeyCondition::Version);
            Put { key: key(*index), value: Value(value), condition }
        };
        let entries: Vec<Put> = keys[..count].iter().map(put).collect();
        let id = self.invoke(Operation::TableUpdate { segment: table(), entries });
        let mut versions = Vec::new();
        for index in &keys[..count] {
            self.version += 1 + self.dice.below(3) as i64;
            versions.push(self.version);
            self.table.insert(*index, (value, self.version));
        }
        if self.dice.below(10) == 0 {
            self.history.push(Happened::Info { id });
        } else {
            self.ok(id, Outcome::Versions { versions });
        }
        self.read_table();
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(index, (value, version)): (&u64, &(u64, i64))| Entry {
            key: key(*index),
            value: Value(*value),
            version: *version,
        };
        self.table.iter().map(entry).collect()
    }

    fn read_table(&mut self) {
        let operation = if self.dice.below(2) == 0 {
            Operation::TableIterate { segment: table(), prefix: String::new() }
        } else {
            Operation::TableRead { segment: table(), keys: (0..10).map(key).collect() }
        };
        let id = self.invoke(operation);
        let entries = self.entries();
        self.ok(id, Outcome::Entries { entries });
    }

    fn end_process(&mut self) {
        let kinds = [ProcessEvent::Killed, ProcessEvent::PowerCut, ProcessEvent::Stopped];
        let kind = kinds[self.dice.below(3) as usize];
        self.history.push(Happened::Process(kind));
        self.history.push(Happened::Process(ProcessEvent::Restarted));
        self.session += 1;
        (1..=4).for_each(|writer| self.set_up(writer));
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0..20 => self.append(),
            20..26 => {
                let offset = self.boundary();
                self.read(offset);
            }
            26..29 => self.describe(),
            29..33 => self.change_attribute(),
            33..37 => self.put(),
            37 if self.dice.below(4) == 0 => {
                let offset = self.boundary() / 8 / u64::from(EVENT_BYTES) * u64::from(EVENT_BYTES);
                let offset = offset.max(self.start);
                let id = self.invoke(Operation::Truncate { segment: segment(), offset });
                self.ok(id, Outcome::Done);
                self.start = offset;
            }
            38 => self.end_process(),
            _ => {}
        }
    }

    fn describe(&mut self) {
        let id = self.invoke(Operation::Info { segment: segment() });
        let (length, start) = (self.length, self.start);
        self.ok(id, Outcome::Info { length, start, sealed: false });
    }

    /// Reads everything back, so that nothing stays unseen.
    fn read_all(&mut self) {
        let mut offset = self.start;
        while offset < self.length {
            offset = self.read(offset);
        }
        self.history.push(Happened::ReadBack { segment: segment(), length: self.length });
    }
}

fn history(seed: u64, steps: usize) -> Vec<Happened> {
    let mut world = World::new(seed);
    (0..steps).for_each(|_| world.step());
    world.read_table();
    world.read_attribute();
    world.describe();
    world.read_all();
    world.history
}

fn judge(history: &[Happened]) -> Result<Summary, Violation> {
    let mut checker = Checker::new();
    history.iter().try_for_each(|happened| checker.take(happened.clone()))?;
    checker.finish()
}

/// One way to break a history: what it is, and the change if the record is of the kind to be
/// changed.
type Break = (&'static str, fn(&Happened, &mut Dice) -> Option<Happened>);

fn with_outcome(
    happened: &Happened,
    change: impl FnOnce(&mut Outcome) -> bool,
) -> Option<Happened> {
    let mut happened = happened.clone();
    let Happened::Ok { outcome, .. } = &mut happened else { return None };
    change(outcome).then_some(happened)
}

fn with_runs(happened: &Happened, change: impl FnOnce(&mut Vec<Run>) -> bool) -> Option<Happened> {
    with_outcome(happened, |outcome| match outcome {
        Outcome::Read { data: Data::Runs(runs), .. } if runs.len() > 1 => change(runs),
        _ => false,
    })
}

fn with_entries(
    happened: &Happened,
    change: impl FnOnce(&mut Vec<Entry>) -> bool,
) -> Option<Happened> {
    with_outcome(happened, |outcome| match outcome {
        Outcome::Entries { entries } if !entries.is_empty() => change(entries),
        _ => false,
    })
}

/// All the ways.
const BREAKS: &[Break] = &[
    ("an event is left out", |happened, dice| {
        with_runs(happened, |runs| {
            let at = dice.below(runs.len() as u64 - 1) as usize;
            runs[at].first += 1;
            runs[at].count -= 1;
            if runs[at].count == 0 {
                runs.remove(at);
            }
            true
        })
    }),
    ("two blocks change places", |happened, dice| {
        with_runs(happened, |runs| {
            let at = dice.below(runs.len() as u64 - 1) as usize;
            runs.swap(at, at + 1);
            runs[at] != runs[at + 1]
        })
    }),
    ("a block is there twice", |happened, dice| {
        with_runs(happened, |runs| {
            let at = dice.below(runs.len() as u64) as usize;
            runs.insert(at, runs[at]);
            true
        })
    }),
    ("an event has another number", |happened, dice| {
        with_runs(happened, |runs| {
            let at = dice.below(runs.len() as u64) as usize;
            runs[at].first += 1;
            true
        })
    }),
    ("an event has another writer", |happened, dice| {
        with_runs(happened, |runs| {
            let at = dice.below(runs.len() as u64) as usize;
            runs[at].writer = Writer(1 + runs[at].writer.0 % 4);
            true
        })
    }),
    ("bytes are wrong", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::Read { data, .. } => {
                *data = Data::Wrong { at: 0 };
                true
            }
            _ => false,
        })
    }),
    ("a length is too small", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            // More than one lost block, of which nobody knows.
            Outcome::Info { length, .. } if *length > 2_400 => {
                *length -= 1_200;
                true
            }
            _ => false,
        })
    }),
    ("an acknowledgement names another end", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::Appended { length: Some(length), .. } => {
                *length += 60;
                true
            }
            _ => false,
        })
    }),
    ("a set-up tells one less", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::SetUp { last: Some(last) } => {
                *last -= 1;
                true
            }
            _ => false,
        })
    }),
    ("a set-up tells far more", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::SetUp { last: Some(last) } => {
                *last += 1_000;
                true
            }
            _ => false,
        })
    }),
    ("an attribute has another value", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::Attribute { value: Some(value) } => {
                *value -= 1;
                true
            }
            _ => false,
        })
    }),
    ("a key is left out", |happened, dice| {
        with_entries(happened, |entries| {
            entries.remove(dice.below(entries.len() as u64) as usize);
            true
        })
    }),
    ("a key has another value", |happened, dice| {
        with_entries(happened, |entries| {
            let at = dice.below(entries.len() as u64) as usize;
            entries[at].value.0 += 1;
            true
        })
    }),
    ("a key has another version", |happened, dice| {
        with_entries(happened, |entries| {
            let at = dice.below(entries.len() as u64) as usize;
            entries[at].version -= 1;
            true
        })
    }),
    ("a version is not above the ones before", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::Versions { versions } if versions[0] > 10 => {
                versions[0] -= 10;
                true
            }
            _ => false,
        })
    }),
    ("it is sealed", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::Info { sealed, .. } => {
                *sealed = true;
                true
            }
            _ => false,
        })
    }),
    ("it starts elsewhere", |happened, _| {
        with_outcome(happened, |outcome| match outcome {
            Outcome::Info { start, .. } => {
                *start += 100_000;
                true
            }
            _ => false,
        })
    }),
    ("it is missing", |happened, _| match happened {
        Happened::Ok { id, outcome: Outcome::Info { .. } | Outcome::Read { .. } } => {
            Some(Happened::Fail { id: *id, refusal: Refusal::NoSuchSegment })
        }
        _ => None,
    }),
    ("a condition failed that held", |happened, _| match happened {
        Happened::Ok { id, outcome: Outcome::Versions { .. } } => {
            Some(Happened::Fail { id: *id, refusal: Refusal::ConditionFailed })
        }
        _ => None,
    }),
];

/// Long histories of a right server are accepted.
#[test]
fn long_good_histories_are_accepted() {
    for seed in 0..30 {
        match judge(&history(seed, 1_500)) {
            Ok(summary) => {
                assert!(summary.found > 500, "seed {seed}: {summary}");
                assert_eq!(summary.given_up, 0, "seed {seed}: {summary}");
            }
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
}

/// Each way to break a long history is noticed, wherever it strikes.
#[test]
fn every_broken_history_is_rejected() {
    let mut tried = 0;
    for seed in 0..12 {
        let good = history(seed, 600);
        let mut dice = Dice(seed + 1_000);
        for (what, change) in BREAKS {
            let candidates: Vec<(usize, Happened)> = good
                .iter()
                .enumerate()
                // The first answer after a lost change may tell the state before it.
                .filter(|(at, _)| *at < 2 || !matches!(good[at - 2], Happened::Info { .. }))
                .filter_map(|(at, happened)| Some((at, change(happened, &mut dice)?)))
                .collect();
            assert!(!candidates.is_empty(), "seed {seed}: nowhere to try that {what}");
            for _ in 0..6 {
                let (at, broken) = &candidates[dice.below(candidates.len() as u64) as usize];
                let mut bad = good.clone();
                bad[*at] = broken.clone();
                tried += 1;
                let verdict = judge(&bad);
                assert!(
                    verdict.is_err(),
                    "seed {seed}: {what} at {at} of {}: {:?} became {broken:?}",
                    good.len(),
                    good[*at]
                );
            }
        }
    }
    assert_eq!(tried, 12 * 6 * BREAKS.len());
}

/// An acknowledged event that no reader finds any more is missed, whichever it is.
#[test]
fn an_acknowledged_event_that_is_cut_off_is_missed() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        (0..200).for_each(|_| world.step());
        while world.stored.is_empty() {
            world.append();
        }
        // The last block is lost in a kill and nobody is told so before everything is read back.
        let mut bad = world.history.clone();
        bad.push(Happened::Process(ProcessEvent::Killed));
        bad.push(Happened::Process(ProcessEvent::Restarted));
        let lost = world.stored.pop().expect("there is one");
        world.length -= lost.all_bytes();
        world.history = bad;
        world.read_all();
        let verdict = judge(&world.history);
        let invariant = verdict.as_ref().err().map(|violation| violation.invariant);
        let is_seen = matches!(invariant, Some("S1" | "S9"));
        // A last block that was never acknowledged nor read may be lost.
        let was_known = world.history.iter().any(|happened| {
            let Happened::Ok { outcome: Outcome::Appended { length, .. }, .. } = happened else {
                return false;
            };
            length.is_some_and(|length| length > world.length)
        });
        assert!(is_seen || !was_known, "seed {seed}: {verdict:?}");
    }
}
