//! One transaction: what it wrote aside, which end was asked for, and what was told of it.

use bytes::BytesMut;
use thalweg_checker::id::{OperationId, Segment as SegmentName, SessionId, Writer as Author};
use thalweg_checker::payload::Event;
use thalweg_checker::record::{Operation, Outcome, Part, Refusal};
use thalweg_control::proto::TxnId;
use thalweg_wire::Command;

use crate::claim::{ensure, ensure_eq, wrong};
use crate::controller::{EndOutcome, State};
use crate::dice::mix;
use crate::history::History;
use crate::store::Store;
use crate::wire::{Trouble, Wire};

/// An end that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Commit,
    Abort,
}

/// What was asked of the controller about the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// Without an answer.
    Open(Wish, OperationId),
    /// It was told that it will be so.
    Accepted(Wish),
    /// It was told that it has ended the other way, or will.
    Refused(Wish),
}

/// What is written aside for one segment.
pub(super) struct Aside {
    /// The segment of the stream.
    pub(super) segment: String,
    /// The segment beside it.
    pub(super) aside: String,
    /// Events sent, and events acknowledged or told by a set-up. One block at most lies between.
    sent: u64,
    stored: u64,
    wire: Option<Wire>,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {} of {} stored", self.aside, self.stored, self.sent)
    }
}

impl Aside {
    pub(super) fn new(aside: String, segment: String) -> Self {
        Self { segment, aside, sent: 0, stored: 0, wire: None }
    }
}

/// A transaction that the controller told to have begun.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: TxnId,
    author: Author,
    pub(super) parts: Vec<Aside>,
    pub(super) asked: Asked,
    /// Its lease is short, so it may end by itself.
    pub(super) is_left: bool,
    /// It ended by itself: there is nothing to write to any more.
    is_gone: bool,
}

fn event(author: Author, number: u64) -> Event {
    let length = 30 + mix(author.0 ^ number.rotate_left(20)) % 400;
    let length = usize::try_from(length).expect("small");
    Event::new(author, i64::try_from(number).expect("small"), length)
}

impl Transaction {
    pub(super) fn new(id: TxnId, author: Author, parts: Vec<Aside>) -> Self {
        Self { id, author, parts, asked: Asked::Nothing, is_left: false, is_gone: false }
    }

    /// Whether it takes events, as far as anybody knows.
    pub(super) fn is_open(&self) -> bool {
        self.asked == Asked::Nothing && !self.is_gone
    }

    /// The end that was asked for.
    pub(super) fn wish(&self) -> Option<Wish> {
        match self.asked {
            Asked::Nothing => None,
            Asked::Open(wish, _) | Asked::Accepted(wish) | Asked::Refused(wish) => Some(wish),
        }
    }

    fn writer_id(&self) -> u128 {
        u128::from(mix(self.author.0)) << 64 | 11
    }

    pub(super) fn disconnect(&mut self) {
        for part in &mut self.parts {
            part.wire = None;
        }
    }

    /// Connects for appends, and learns what of the block that was not answered is stored: all of
    /// it or nothing. What is missing is sent again, as a client does before it commits.
    pub(super) fn reconnect(&mut self, store: &mut Store) -> Result<(), Trouble> {
        if !self.is_open() {
            return Ok(());
        }
        let writer_id = self.writer_id();
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            if part.wire.is_some() {
                continue;
            }
            let mut wire = store.session(&part.aside)?;
            let told = match wire.set_up(&part.aside, writer_id)? {
                Command::AppendSetup(it) => it.last_event_number.max(0).unsigned_abs(),
                Command::WrongHost(_) => return Err(Trouble::Closed),
                Command::NoSuchSegment(_) if self.is_left => {
                    self.is_gone = true;
                    return Ok(());
                }
                other => wrong!("{other:?} to a set-up of {part:?}"),
            };
            let is_right = told == part.stored || told == part.sent;
            ensure!(is_right, "{told} events are told to be stored of {part:?}");
            (part.stored, part.wire) = (told, Some(wire));
            if part.stored < part.sent {
                self.send(at)?;
            }
        }
        Ok(())
    }

    /// Writes so many events aside for one of the segments; gives how many were acknowledged.
    pub(super) fn write(
        &mut self,
        store: &mut Store,
        at: usize,
        events: u64,
    ) -> Result<u64, Trouble> {
        self.reconnect(store)?;
        if !self.is_open() {
            return Ok(0);
        }
        self.parts[at].sent += events;
        self.send(at)
    }

    /// Sends what is not stored, as one block.
    fn send(&mut self, at: usize) -> Result<u64, Trouble> {
        let (author, writer_id) = (self.author, self.writer_id());
        let part = &mut self.parts[at];
        let Some(wire) = &mut part.wire else { return Err(Trouble::Closed) };
        let events = part.sent - part.stored;
        let mut data = BytesMut::new();
        for number in part.stored..part.sent {
            event(author, number).encode(&mut data);
        }
        let last = i64::try_from(part.sent).expect("small");
        let count = i32::try_from(events).expect("small");
        wire.append(writer_id, data.freeze(), last, count)?;
        match wire.receive()? {
            Command::DataAppended(it) => {
                ensure_eq!(it.event_number, last, "{}: number acknowledged", part.aside);
                part.stored = part.sent;
                Ok(events)
            }
            Command::NoSuchSegment(_) | Command::SegmentIsSealed(_) if self.is_left => {
                self.is_gone = true;
                Ok(0)
            }
            other => wrong!("{other:?} to an append to {part:?}"),
        }
    }

    /// An end is about to be asked for.
    pub(super) fn ask(&mut self, history: &History, wish: Wish) -> Result<(), Trouble> {
        if let Asked::Open(_, before) = self.asked {
            history.unknown(before)?;
        }
        let operation = match wish {
            Wish::Commit => Operation::Commit { parts: self.announced()? },
            Wish::Abort => Operation::Abort { transaction: self.author },
        };
        let id = history.invoke(SessionId::default(), operation)?;
        self.asked = Asked::Open(wish, id);
        Ok(())
    }

    /// What the commit brings.
    fn announced(&self) -> Result<Vec<Part>, Trouble> {
        let mut parts = Vec::new();
        for part in &self.parts {
            ensure_eq!(part.stored, part.sent, "events stored before the commit of {part:?}");
            parts.push(Part {
                transaction: self.author,
                segment: SegmentName::new(&part.segment),
                count: u32::try_from(part.stored).expect("small"),
                source: None,
            });
        }
        Ok(parts)
    }

    /// The end that was asked for was promised.
    pub(super) fn was_accepted(&mut self, history: &History) -> Result<(), Trouble> {
        let Asked::Open(wish, id) = self.asked else { return Ok(()) };
        self.asked = Asked::Accepted(wish);
        history.ok(id, Outcome::Done)
    }

    /// The end that was asked for was refused, which only the other end can be the reason for.
    pub(super) fn was_refused(
        &mut self,
        history: &History,
        told: EndOutcome,
    ) -> Result<(), Trouble> {
        let Asked::Open(wish, id) = self.asked else { return Ok(()) };
        ensure!(self.is_left && wish == Wish::Commit, "{told:?} to the {wish:?} of {self:?}");
        self.asked = Asked::Refused(wish);
        history.fail(id, Refusal::ConditionFailed)
    }

    /// Compares what the controller says with what it said before, and with what was asked.
    pub(super) fn check(&self, state: State) -> Result<(), Trouble> {
        let may_abort = self.is_left || self.wish() == Some(Wish::Abort);
        let is_right = match (self.asked, state) {
            (_, State::Unknown) => false,
            (_, State::Open) if self.is_gone => false,
            (Asked::Accepted(Wish::Commit), _) => {
                matches!(state, State::Committing | State::Committed)
            }
            (Asked::Accepted(Wish::Abort) | Asked::Refused(_), _) => {
                matches!(state, State::Aborting | State::Aborted)
            }
            (Asked::Nothing | Asked::Open(..), State::Open) => true,
            (_, State::Committing | State::Committed) => self.wish() == Some(Wish::Commit),
            (_, State::Aborting | State::Aborted) => may_abort,
        };
        ensure!(is_right, "the controller says {state:?} of {self:?}");
        Ok(())
    }

    /// The controller told how it ended.
    pub(super) fn has_ended(&mut self, history: &History, state: State) -> Result<(), Trouble> {
        match (self.asked, state) {
            (Asked::Open(Wish::Commit, _), State::Committed)
            | (Asked::Open(Wish::Abort, _), State::Aborted) => self.was_accepted(history),
            (Asked::Accepted(_), _) => Ok(()),
            (asked, _) => {
                // Its lease, or the end of the stream, has aborted it.
                if let Asked::Open(_, id) = asked {
                    history.fail(id, Refusal::ConditionFailed)?;
                }
                let abort = Operation::Abort { transaction: self.author };
                let id = history.invoke(SessionId::default(), abort)?;
                history.ok(id, Outcome::Done)
            }
        }
    }
}
