//! One of the two connections: it is set up, sends what follows the number that it was told, with
//! blocks in flight and pauses in which the other takes over, until it is shut out.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::thread;

use bytes::{Bytes, BytesMut};
use thalweg_checker::id::{OperationId, SessionId, Writer as Author};
use thalweg_checker::record::{Operation, Outcome, Refusal};
use thalweg_wire::{Command, DataAppended, NO_EVENT_NUMBER};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::Dice;
use crate::lanes::writers::count;
use crate::store::{Route, Store};
use crate::wire::{Trouble, Wire};

use super::Stage;

/// Most blocks in flight.
const WINDOW: usize = 8;

/// One connection of the writer, again and again.
pub(super) struct Rival {
    dice: Dice,
}

/// A set-up that was answered.
pub(super) struct Seat {
    /// The last number stored.
    pub(super) told: u64,
    key: u32,
    session: SessionId,
}

/// A block that was sent and not answered.
struct Block {
    id: OperationId,
    last: u64,
}

/// A sitting in progress.
struct Sender<'a> {
    stage: &'a Stage,
    wire: Wire,
    seat: Seat,
    /// Last number known to be stored.
    known: u64,
    /// Length of the segment at the last acknowledgement.
    length: Option<i64>,
    blocks: VecDeque<Block>,
    acknowledged: &'a AtomicU64,
}

enum Turn {
    /// It may go on.
    On,
    /// Another set-up came: the server says so, or refuses a condition that held.
    ShutOut,
}

/// Sets the writer up on a connection.
pub(super) fn set_up(stage: &Stage, wire: &mut Wire, session: SessionId) -> Result<Seat, Trouble> {
    let (name, history) = (&stage.name, &stage.history);
    let writer = Author(stage.author);
    let key = stage.ledger().ask();
    let id = history.invoke(session, Operation::SetUp { segment: stage.segment(), writer })?;
    let last = match wire.set_up(name, stage.writer_id()) {
        Ok(Command::AppendSetup(it)) => it.last_event_number,
        // Nobody owns the segment while the server starts.
        Ok(Command::WrongHost(_)) => {
            history.fail(id, Refusal::Unavailable)?;
            return Err(Trouble::Closed);
        }
        Ok(other) => wrong!("{name}: {other:?} to a set-up"),
        Err(trouble) => {
            history.unknown(id)?;
            return Err(trouble);
        }
    };
    let last = (last != NO_EVENT_NUMBER).then_some(last);
    let Ok(told) = u64::try_from(last.unwrap_or(0)) else { wrong!("{name}: number {last:?}") };
    stage.ledger().answer(key, told)?;
    history.ok(id, Outcome::SetUp { last })?;
    Ok(Seat { told, key, session })
}

impl Rival {
    pub(super) fn new(dice: Dice) -> Self {
        Self { dice }
    }

    /// Sits down again and again until it is stopped.
    pub(super) fn run(
        &mut self,
        stage: &Stage,
        route: &Route,
        (acknowledged, reconnects): (&AtomicU64, &AtomicU64),
    ) -> Result<(), Trouble> {
        let mut store = Store::new(route);
        loop {
            if let Err(trouble) = self.sit(stage, &mut store, acknowledged) {
                count(reconnects, 1);
                route.lost(trouble, &mut store)?;
            }
            if route.stop.is_stopped() {
                return Ok(());
            }
            // The other one's turn, or not: nothing waits for it.
            thread::sleep(self.dice.millis(0..15));
        }
    }

    fn sit(
        &mut self,
        stage: &Stage,
        store: &mut Store,
        acknowledged: &AtomicU64,
    ) -> Result<(), Trouble> {
        let mut wire = store.session(&stage.name)?;
        let seat = set_up(stage, &mut wire, stage.history.session())?;
        let known = seat.told;
        let blocks = VecDeque::new();
        let mut sender = Sender { stage, wire, seat, known, length: None, blocks, acknowledged };
        let end = self.send_some(&mut sender);
        for block in sender.blocks.drain(..) {
            // It was stored or not; the next set-up tells.
            stage.history.unknown(block.id)?;
        }
        end
    }

    fn send_some(&mut self, sender: &mut Sender<'_>) -> Result<(), Trouble> {
        let window = 1 + self.dice.index(WINDOW);
        let mut left = self.dice.range(1..40);
        let mut rounds = self.dice.below(4);
        loop {
            while left > 0 && sender.blocks.len() < window {
                sender.send(self.dice.range(1..60))?;
                left -= 1;
            }
            if sender.blocks.is_empty() {
                if rounds == 0 {
                    return Ok(());
                }
                // Long enough for the other to sit down: what is sent then must not be stored.
                thread::sleep(self.dice.millis(0..20));
                rounds -= 1;
                left = self.dice.range(1..6);
                let is_conditional = self.dice.one_in(3);
                if let (true, Turn::ShutOut) = (is_conditional, sender.send_on_condition()?) {
                    return Ok(());
                }
                continue;
            }
            // Some hang up with blocks under way.
            if self.dice.one_in(100) {
                return Ok(());
            }
            if let Turn::ShutOut = sender.take_answer()? {
                return Ok(());
            }
        }
    }
}

impl Sender<'_> {
    fn data(&self, first: u64, last: u64) -> Bytes {
        let mut data = BytesMut::new();
        for number in first..=last {
            self.stage.event(number, self.seat.key).encode(&mut data);
        }
        data.freeze()
    }

    fn send(&mut self, events: u64) -> Result<(), Trouble> {
        let before = self.blocks.back().map_or(self.known, |block| block.last);
        let last = before + events;
        let data = self.data(before + 1, last);
        let append = Operation::Append {
            segment: self.stage.segment(),
            writer: Author(self.stage.author),
            first: number(before + 1),
            count: u32::try_from(events).expect("below 60"),
            bytes: data.len() as u64,
        };
        // Known before it is sent: it may be stored whatever becomes of the connection.
        self.stage.ledger().ends.insert(last);
        let id = self.stage.history.invoke(self.seat.session, append)?;
        self.blocks.push_back(Block { id, last });
        let events = i32::try_from(events).expect("below 60");
        self.wire.append(self.stage.writer_id(), data, number(last), events)
    }

    /// Takes in one answer to the blocks in flight.
    fn take_answer(&mut self) -> Result<Turn, Trouble> {
        let name = &self.stage.name;
        match self.wire.receive()? {
            Command::DataAppended(it) => self.acknowledge(&it).map(|()| Turn::On),
            Command::InvalidEventNumber(it) => {
                let refused = |block: &Block| number(block.last) == it.event_number;
                let Some(at) = self.blocks.iter().position(refused) else {
                    wrong!("{name}: {it:?}, and no such block is in flight");
                };
                let block = self.blocks.remove(at).expect("it was found there");
                self.stage.history.fail(block.id, Refusal::Stale)?;
                self.await_close().map(|()| Turn::ShutOut)
            }
            other => wrong!("{name}: {other:?} to an append"),
        }
    }

    /// A connection that was shut out must be closed.
    fn await_close(&mut self) -> Result<(), Trouble> {
        match self.wire.receive() {
            Err(Trouble::Closed) => Ok(()),
            Err(trouble) => Err(trouble),
            Ok(other) => wrong!("{}: {other:?} behind InvalidEventNumber", self.stage.name),
        }
    }

    /// One acknowledgement, which may stand for several blocks.
    fn acknowledge(&mut self, it: &DataAppended) -> Result<(), Trouble> {
        let name = &self.stage.name;
        let previous = it.previous_event_number.max(0);
        ensure_eq!(previous, number(self.known), "{name}: number acknowledged before");
        let is_end = self.blocks.iter().any(|block| number(block.last) == it.event_number);
        ensure!(is_end, "{name}: {} is acknowledged and in no flight", it.event_number);
        let mut previous = Some(previous);
        while let Some(block) = self.blocks.pop_front() {
            let is_told = number(block.last) == it.event_number;
            let length = is_told.then_some(it.current_segment_write_offset.unsigned_abs());
            let outcome = Outcome::Appended { length, previous: previous.take() };
            self.stage.history.ok(block.id, outcome)?;
            count(self.acknowledged, block.last - self.known);
            self.known = block.last;
            if is_told {
                break;
            }
        }
        self.length = Some(it.current_segment_write_offset);
        Ok(())
    }

    /// The next event, on the condition that nobody appended since the last acknowledgement.
    fn send_on_condition(&mut self) -> Result<Turn, Trouble> {
        let Some(expected) = self.length else { return Ok(Turn::On) };
        let (name, history) = (&self.stage.name, &self.stage.history);
        let last = self.known + 1;
        let data = self.data(last, last);
        let bytes = data.len() as u64;
        let append = Operation::ConditionalAppend {
            segment: self.stage.segment(),
            writer: Author(self.stage.author),
            number: number(last),
            expected: expected.unsigned_abs(),
            bytes,
        };
        self.stage.ledger().ends.insert(last);
        let id = history.invoke(self.seat.session, append)?;
        let reply = self.wire.append_at(self.stage.writer_id(), data, number(last), expected);
        match reply {
            Ok(Command::DataAppended(it)) => {
                self.blocks.push_back(Block { id, last });
                self.acknowledge(&it).map(|()| Turn::On)
            }
            Ok(Command::ConditionalCheckFailed(_)) => {
                // Only what follows a newer set-up can have come in between.
                history.fail(id, Refusal::ConditionFailed)?;
                Ok(Turn::ShutOut)
            }
            Ok(Command::InvalidEventNumber(_)) => {
                history.fail(id, Refusal::Stale)?;
                self.await_close().map(|()| Turn::ShutOut)
            }
            Ok(other) => wrong!("{name}: {other:?} to a conditional append"),
            Err(trouble) => {
                history.unknown(id)?;
                Err(trouble)
            }
        }
    }
}

/// An event number as the wire and the history write it.
fn number(number: u64) -> i64 {
    i64::try_from(number).expect("far below 2^63")
}
