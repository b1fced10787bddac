//! A segment that grows by appends, by merged transactions, alone and in batches, and by events too
//! large for one append, which go through transient segments.
//!
//! Checked: the segment holds, in the order of the acknowledgements, exactly what was appended and
//! merged, each transaction whole, once and contiguous; an unanswered merge happened or its source
//! is still there, whole; an attribute that is changed with a merge changes with it; what was
//! merged or aborted is gone.

use std::collections::{BTreeMap, HashSet};

use bytes::{Bytes, BytesMut};
use thalweg_wire::{Command, NO_EVENT_NUMBER, NULL_ATTRIBUTE_VALUE};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::{Dice, mix};
use crate::lane::{Lane, Verified};
use crate::lanes::Growth;
use crate::payload::{LARGE, Mark};
use crate::store::{Route, Store};
use crate::wire::{Trouble, Wire};

mod check;
mod merge;

/// The segment is truncated when it holds more.
fn length_max(growth: Growth) -> i64 {
    match growth {
        Growth::Short => 512 << 10,
        Growth::Long => 5 << 20,
    }
}
/// Transactions open at a time.
const OPEN_MAX: usize = 6;
/// An attribute of the parent that counts the merges that change it.
const MERGES: u128 = 0x4D45_5247_4553_0000_0000_0000_0000_0001;

struct Transaction {
    name: String,
    marks: Vec<Mark>,
    /// A merge was asked for without an answer: it may be sealed.
    is_closed: bool,
}

impl Transaction {
    fn writer_id(&self) -> u128 {
        self.name.bytes().fold(5, |id: u128, byte| id.wrapping_mul(0x0100_0193) ^ u128::from(byte))
            & (u128::MAX >> 1)
    }
}

/// What was asked for and not answered.
#[derive(Clone, Debug)]
enum Asked {
    Append(Vec<Mark>),
    Large(Vec<Mark>),
    Open(u64),
    Write(u64, Vec<Mark>),
    /// The transactions; whether the attribute changes with it.
    Merge(Vec<u64>, bool),
    Abort(u64),
    Truncate(usize),
}

/// The lane.
pub(crate) struct Transactions {
    number: u64,
    growth: Growth,
    parent: String,
    is_created: bool,
    /// Start offset and the events from there on.
    start: i64,
    marks: Vec<Mark>,
    /// Events appended to the parent itself, in its whole life.
    appended: u64,
    /// Value of the attribute that merges change.
    merges: i64,
    /// Last serial given.
    serial: u64,
    /// By their number.
    open: BTreeMap<u64, Transaction>,
    next: u64,
    /// Names that must not exist any more, the newest.
    gone: Vec<String>,
    asked: Option<Asked>,
    dice: Dice,
}

fn bytes_of(marks: &[Mark]) -> i64 {
    marks.iter().map(|mark| mark.framed_bytes()).sum()
}

fn framed(marks: &[Mark]) -> Bytes {
    let mut data = BytesMut::new();
    for mark in marks {
        mark.frame(&mut data);
    }
    data.freeze()
}

/// The connection for appends and the writers set up on it.
struct Sessions {
    wire: Wire,
    set_up: HashSet<u128>,
}

impl Transactions {
    pub(crate) fn new(number: u64, growth: Growth, dice: Dice) -> Self {
        Self {
            number,
            growth,
            parent: format!("crash/transactions-{number}/0.#epoch.0"),
            is_created: false,
            start: 0,
            marks: Vec::new(),
            appended: 0,
            merges: NULL_ATTRIBUTE_VALUE,
            serial: 0,
            open: BTreeMap::new(),
            next: 0,
            gone: Vec::new(),
            asked: None,
            dice,
        }
    }

    fn length(&self) -> i64 {
        self.start + bytes_of(&self.marks)
    }

    fn fresh(&mut self, author: u64, count: u64) -> Vec<Mark> {
        let author = author + 700_000 + self.number;
        let first = self.serial + 1;
        self.serial += count;
        (first..=self.serial).map(|serial| Mark::new(author, serial)).collect()
    }

    fn some_open(&mut self) -> Option<u64> {
        let numbers: Vec<u64> = self.open.keys().copied().collect();
        if numbers.is_empty() {
            return None;
        }
        Some(numbers[usize::try_from(self.dice.below(numbers.len() as u64)).expect("small")])
    }

    fn change(&mut self, store: &mut Store) -> Result<(), Trouble> {
        if !self.is_created {
            store.create(&self.parent)?;
            self.is_created = true;
        }
        let wire = store.session(&self.parent)?;
        let mut sessions = Sessions { wire, set_up: HashSet::new() };
        loop {
            match self.dice.below(20) {
                0..=5 => self.append(&mut sessions)?,
                6 | 7 if self.open.len() < OPEN_MAX => self.begin(store)?,
                8..=13 => self.write(&mut sessions)?,
                14 | 15 => self.merge_one(store)?,
                16 => self.merge_some(store)?,
                17 => self.abort(store)?,
                18 if self.dice.one_in(3) => self.append_large(store)?,
                19 if bytes_of(&self.marks) > length_max(self.growth) => self.truncate(store)?,
                _ => {}
            }
        }
    }

    /// One block to the parent.
    fn append(&mut self, sessions: &mut Sessions) -> Result<(), Trouble> {
        let count = self.dice.range(1..8);
        let marks = self.fresh(0, count);
        let parent = self.parent.clone();
        self.asked = Some(Asked::Append(marks.clone()));
        let id = u128::from(mix(self.number + 900)) << 64 | 9;
        let end = sessions.append(&parent, id, self.appended, &marks)?;
        self.appended += count;
        self.marks.extend(marks);
        self.asked = None;
        ensure_eq!(end, self.length(), "{parent}: length after an append");
        Ok(())
    }

    fn begin(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let number = self.next;
        self.next += 1;
        let id = u128::from(mix(number)) << 64 | u128::from(self.number << 32 | number);
        let name = format!("{}#transaction.{id:032x}", self.parent);
        let transaction = Transaction { name: name.clone(), marks: Vec::new(), is_closed: false };
        self.open.insert(number, transaction);
        self.asked = Some(Asked::Open(number));
        ensure!(store.create(&name)?, "{name} exists before it is made");
        self.asked = None;
        Ok(())
    }

    /// One block to a transaction.
    fn write(&mut self, sessions: &mut Sessions) -> Result<(), Trouble> {
        let Some(number) = self.some_open().filter(|it| !self.open[it].is_closed) else {
            return Ok(());
        };
        let count = self.dice.range(1..20);
        let marks = self.fresh(10_000, count);
        self.asked = Some(Asked::Write(number, marks.clone()));
        let transaction = &self.open[&number];
        let before = transaction.marks.len() as u64;
        let id = transaction.writer_id();
        let end = sessions.append(&transaction.name, id, before, &marks)?;
        let transaction = self.open.get_mut(&number).expect("it is open");
        transaction.marks.extend(marks);
        let name = &transaction.name;
        ensure_eq!(end, bytes_of(&transaction.marks), "{name}: length after an append");
        self.asked = None;
        Ok(())
    }

    fn abort(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let Some(number) = self.some_open() else { return Ok(()) };
        self.asked = Some(Asked::Abort(number));
        let name = self.open[&number].name.clone();
        ensure!(store.delete(&name)?, "{name} was gone before it was aborted");
        self.forget(number);
        self.asked = None;
        Ok(())
    }

    fn truncate(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let half = self.marks.len() / 2;
        self.asked = Some(Asked::Truncate(half));
        let offset = self.start + bytes_of(&self.marks[..half]);
        store.truncate(&self.parent, offset)?;
        self.drop_front(half);
        self.asked = None;
        Ok(())
    }

    fn drop_front(&mut self, count: usize) {
        self.start += bytes_of(&self.marks[..count]);
        self.marks.drain(..count);
    }

    /// A transaction ended; its name must not exist any more.
    fn forget(&mut self, number: u64) -> Vec<Mark> {
        let transaction = self.open.remove(&number).expect("it was open");
        self.gone.push(transaction.name);
        if self.gone.len() > 20 {
            self.gone.remove(0);
        }
        transaction.marks
    }

    /// An event too large for one append: written aside in chunks, then merged. Sometimes the
    /// connection is cut before the merge, and the segment goes with it.
    fn append_large(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let marks = self.fresh(LARGE, 1);
        let parent = self.parent.clone();
        let writer_id = u128::from(mix(self.serial)) << 64 | 11;
        let mut wire = store.session(&parent)?;
        let name = merge::create_transient(&mut wire, &parent, writer_id)?;
        match wire.set_up(&name, writer_id)? {
            Command::AppendSetup(it) => {
                ensure_eq!(it.last_event_number, NO_EVENT_NUMBER, "{name}: a new segment");
            }
            other => wrong!("{name}: {other:?} to a set-up"),
        }
        let data = framed(&marks);
        let mut at = 0;
        for (number, chunk) in data.chunks(200 << 10).enumerate() {
            let number = i64::try_from(number).expect("small");
            let chunk = data.slice_ref(chunk);
            let bytes = i64::try_from(chunk.len()).expect("small");
            match wire.append_at(writer_id, chunk, number, at)? {
                Command::DataAppended(it) => ensure_eq!(it.event_number, number, "{name}"),
                other => wrong!("{name}: {other:?} to a conditional append"),
            }
            at += bytes;
        }
        if self.dice.one_in(4) {
            wire.cut();
            return merge::await_absence(store, &name);
        }
        self.asked = Some(Asked::Large(marks.clone()));
        let end = merge::merge_on(&mut wire, &parent, &name)?;
        self.marks.extend(marks);
        ensure_eq!(end, self.length(), "{parent}: length after a large event");
        self.gone.push(name);
        self.asked = None;
        Ok(())
    }
}

impl Sessions {
    /// One block, acknowledged; gives the length of the segment then. `before` is the number of
    /// the writer's last event there, 0 for none.
    fn append(
        &mut self,
        segment: &str,
        writer_id: u128,
        before: u64,
        marks: &[Mark],
    ) -> Result<i64, Trouble> {
        let before = i64::try_from(before).expect("small");
        if self.set_up.insert(writer_id) {
            match self.wire.set_up(segment, writer_id)? {
                Command::AppendSetup(it) => {
                    ensure_eq!(it.last_event_number.max(0), before, "{segment}: last number");
                }
                other => wrong!("{segment}: {other:?} to a set-up"),
            }
        }
        let count = i32::try_from(marks.len()).expect("small");
        let last = before + i64::from(count);
        self.wire.append(writer_id, framed(marks), last, count)?;
        match self.wire.receive()? {
            Command::DataAppended(it) => {
                ensure_eq!(it.event_number, last, "{segment}: number acknowledged");
                Ok(it.current_segment_write_offset)
            }
            other => wrong!("{segment}: {other:?} to an append"),
        }
    }
}

impl Lane for Transactions {
    fn name(&self) -> String {
        format!("transactions {}", self.number)
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        self.change(&mut Store::new(route))
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        let mut store = Store::new(route);
        let verified = self.check(&mut store)?;
        // In a journal that is full nothing but this lets go of what the segment keeps.
        if self.growth == Growth::Long && !self.marks.is_empty() && self.dice.one_in(8) {
            self.truncate(&mut store)?;
        }
        Ok(verified)
    }
}
