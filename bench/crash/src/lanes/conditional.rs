//! Clients that compete for the tail of one segment with conditional appends.
//!
//! Checked: an append that was acknowledged lies exactly at the offset it was conditional on; a
//! refused one lies nowhere; one without an answer lies there if and only if the set-up of its
//! writer tells its number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use thalweg_wire::{Command, ConditionalAppend, FramedEvent};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::{Dice, mix};
use crate::lane::{Lane, Verified, join_all};
use crate::lanes::Growth;
use crate::payload::{Mark, parse};
use crate::store::{Route, Store};
use crate::wire::{Answer, Trouble, Wire};

/// The segment is replaced by a new one when it is longer.
fn length_max(growth: Growth) -> i64 {
    match growth {
        Growth::Short => 256 << 10,
        Growth::Long => 4 << 20,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Stored,
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    offset: i64,
    outcome: Outcome,
}

struct Client {
    author: u64,
    /// Number of the last attempt, over all segments of the lane.
    last: u64,
    /// Attempts on the present segment.
    attempts: HashMap<u64, Attempt>,
    dice: Dice,
}

/// The lane.
pub(crate) struct Conditional {
    clients: Vec<Client>,
    /// Which segment of the lane is in use.
    generation: u64,
    is_created: bool,
    growth: Growth,
    dice: Dice,
}

impl Conditional {
    pub(crate) fn new(clients: u64, growth: Growth, mut dice: Dice) -> Self {
        let client = |number| Client {
            author: 500_000 + number,
            last: 0,
            attempts: HashMap::new(),
            dice: dice.split(number),
        };
        Self {
            clients: (0..clients).map(client).collect(),
            growth,
            generation: 0,
            is_created: false,
            dice: dice.split(99),
        }
    }

    fn segment(&self) -> String {
        format!("crash/conditional/{}.#epoch.0", self.generation)
    }
}

impl Client {
    fn writer_id(&self) -> u128 {
        u128::from(mix(self.author)) << 64 | u128::from(self.author)
    }

    fn run(&mut self, segment: &str, tail: &AtomicI64, store: &mut Store) -> Result<(), Trouble> {
        let mut wire = store.session(segment)?;
        match wire.set_up(segment, self.writer_id())? {
            Command::AppendSetup(_) => {}
            other => wrong!("{segment}: {other:?} to a set-up"),
        }
        loop {
            // Whoever looks at the shared tail competes; sometimes the guess is stale on purpose.
            let offset = tail.load(Ordering::Relaxed);
            // A negative offset would be no condition.
            let offset = if offset > 0 && self.dice.one_in(50) { offset - 1 } else { offset };
            self.last += 1;
            let mark = Mark::new(self.author, self.last);
            let unknown = Attempt { offset, outcome: Outcome::Unknown };
            self.attempts.insert(self.last, unknown);
            let reply = self.append(&mut wire, mark, offset)?;
            let end = offset + mark.framed_bytes();
            let outcome = match reply {
                Command::DataAppended(it) => {
                    ensure_eq!(it.current_segment_write_offset, end, "{segment}: length after");
                    tail.fetch_max(end, Ordering::Relaxed);
                    Outcome::Stored
                }
                Command::ConditionalCheckFailed(_) => {
                    let info = store
                        .info(segment)?
                        .ok_or_else(|| Trouble::wrong(format!("{segment} is gone")))?;
                    let length = info.write_offset;
                    ensure!(length != offset, "{segment}: refused at its length {length}");
                    tail.fetch_max(length, Ordering::Relaxed);
                    Outcome::Refused
                }
                other => wrong!("{segment}: {other:?} to a conditional append"),
            };
            self.attempts.insert(self.last, Attempt { offset, outcome });
        }
    }

    /// Both commands that append conditionally, at random.
    fn append(&mut self, wire: &mut Wire, mark: Mark, expected_offset: i64) -> Answer {
        let writer_id = self.writer_id();
        let event_number = i64::try_from(mark.serial).expect("small");
        if self.dice.one_in(2) {
            return wire.append_at(writer_id, mark.framed(), event_number, expected_offset);
        }
        wire.ask(|request_id| {
            let event = FramedEvent::new(&mark.payload());
            ConditionalAppend { writer_id, event_number, expected_offset, event, request_id }.into()
        })
    }
}

impl Lane for Conditional {
    fn name(&self) -> String {
        "conditional".to_owned()
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        let segment = self.segment();
        let mut store = Store::new(route);
        if !self.is_created {
            store.create(&segment)?;
            self.is_created = true;
        }
        let Some(info) = store.info(&segment)? else { wrong!("{segment} is gone") };
        let tail = AtomicI64::new(info.write_offset);
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for client in &mut self.clients {
                let (tail, segment) = (&tail, segment.as_str());
                threads
                    .push(scope.spawn(move || client.run(segment, tail, &mut Store::new(route))));
            }
            join_all(threads)
        })
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        let segment = self.segment();
        let mut store = Store::new(route);
        let Some(info) = store.info(&segment)? else {
            ensure!(!self.is_created, "{segment} is gone");
            return Ok(Verified::default());
        };
        self.is_created = true;
        let length = info.write_offset;
        let data = store.read_all(&segment, 0, length)?;
        let found = parse(&segment, 0, &data)?;
        let mut stored = HashMap::new();
        for (offset, mark) in &found {
            let again = stored.insert(*mark, *offset);
            ensure!(again.is_none(), "{segment}: {mark:?} is at {again:?} and at {offset}");
        }
        for client in &mut self.clients {
            let last = store.attribute(&segment, client.writer_id())?;
            for (serial, attempt) in &mut client.attempts {
                let place = stored.remove(&Mark::new(client.author, *serial));
                let what = format!("{segment}: {serial} of {}, {attempt:?}", client.author);
                match attempt.outcome {
                    Outcome::Stored => ensure_eq!(place, Some(attempt.offset), "{what}"),
                    Outcome::Refused => ensure_eq!(place, None, "{what}"),
                    Outcome::Unknown => {
                        let is_told = last == i64::try_from(*serial).expect("small");
                        ensure_eq!(place.is_some(), is_told, "{what}, last number {last}");
                        ensure!(place.is_none_or(|place| place == attempt.offset), "{what}");
                        attempt.outcome =
                            if place.is_some() { Outcome::Stored } else { Outcome::Refused };
                    }
                }
            }
        }
        ensure!(stored.is_empty(), "{segment} holds what nobody appended: {stored:?}");
        // In a journal that is full it does not grow, and nothing else lets go of as many files.
        let is_over = self.growth == Growth::Long && self.dice.one_in(8);
        if length > length_max(self.growth) || is_over {
            ensure!(store.delete(&segment)?, "{segment} was gone");
            self.generation += 1;
            self.is_created = false;
            for client in &mut self.clients {
                client.attempts.clear();
            }
        }
        Ok(Verified { items: found.len() as u64, bytes: length.unsigned_abs() })
    }
}
