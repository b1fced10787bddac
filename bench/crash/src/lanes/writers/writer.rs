//! One writer: numbers its events, keeps blocks in flight, resumes exactly.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;
use thalweg_checker::id::{OperationId, Segment as SegmentName, SessionId, Writer as Author};
use thalweg_checker::record::{Operation, Outcome, Refusal};
use thalweg_wire::{Command, NO_EVENT_NUMBER};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::Dice;
use crate::history::History;
use crate::store::{Route, Store};
use crate::wire::{Trouble, Wire};

use super::{Chain, Done, breathe, count, event, writer_id};

/// Most blocks in flight.
const WINDOW: usize = 12;
/// Most bytes in flight: much less than a server takes in without looking.
const FLIGHT_BYTES: u64 = 256 << 10;
/// Ends of blocks that are kept as places to truncate at.
const BOUNDARIES: usize = 64;

/// A writer and what it knows.
pub(super) struct Writer {
    pub(super) author: u64,
    /// Index of the segment it appends to.
    pub(super) at: usize,
    /// For each segment of the chain up to `at`: serial of the last event before it.
    pub(super) bases: Vec<u64>,
    /// Every event up to this serial is acknowledged.
    pub(super) acknowledged: u64,
    /// Serials of events at which a block ended that may have been stored.
    ends: BTreeSet<u64>,
    /// Blocks that were sent on the present connection and not answered, oldest first.
    blocks: VecDeque<Block>,
    dice: Dice,
}

enum Turn {
    /// The connection is to be made anew.
    Again,
    /// The segment is sealed.
    Sealed,
}

impl Writer {
    pub(super) fn new(author: u64, dice: Dice) -> Self {
        let ends = BTreeSet::from([0]);
        let blocks = VecDeque::new();
        Self { author, at: 0, bases: vec![0], acknowledged: 0, ends, blocks, dice }
    }

    pub(super) fn base(&self) -> u64 {
        self.bases[self.at]
    }

    /// Appends until it is stopped.
    pub(super) fn run(&mut self, chain: &Chain, route: &Route) -> Result<(), Trouble> {
        let mut store = Store::new(route);
        loop {
            let end = self.session(chain, &mut store);
            // Whatever was not answered may have been stored.
            for block in self.blocks.drain(..) {
                chain.history.unknown(block.id)?;
            }
            let end = match end {
                Ok(Turn::Sealed) => self.move_on(chain, &mut store),
                Ok(Turn::Again) => Ok(()),
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = end {
                count(&chain.tally.reconnects, 1);
                route.lost(trouble, &mut store)?;
            }
        }
    }

    /// What the server says is durable, checked against what it acknowledged before. Gives the name
    /// of the connection in the history.
    pub(super) fn set_up(
        &mut self,
        wire: &mut Wire,
        history: &History,
        name: &str,
    ) -> Result<SessionId, Trouble> {
        let session = history.session();
        let (segment, author) = (SegmentName::new(name), Author(self.author));
        let set_up = Operation::SetUp { segment, writer: author };
        let operation = history.invoke(session, set_up)?;
        let last = match wire.set_up(name, writer_id(self.author, self.at)) {
            Ok(Command::AppendSetup(it)) => it.last_event_number,
            // Nobody owns the segment while the server starts.
            Ok(Command::WrongHost(_)) => {
                history.fail(operation, Refusal::Unavailable)?;
                return Err(Trouble::Closed);
            }
            Ok(other) => wrong!("{name}: {other:?} to the set-up of writer {}", self.author),
            Err(trouble) => {
                history.unknown(operation)?;
                return Err(trouble);
            }
        };
        self.learn(name, last)?;
        let last = (self.acknowledged > self.base()).then_some(number(self.acknowledged));
        history.ok(operation, Outcome::SetUp { last })?;
        Ok(session)
    }

    /// Takes in the last stored event number of the present segment.
    fn learn(&mut self, name: &str, last: i64) -> Result<(), Trouble> {
        let stored = if last == NO_EVENT_NUMBER { 0 } else { last };
        let Ok(stored) = u64::try_from(stored) else { wrong!("{name}: number {last}") };
        let serial = self.base() + stored;
        let (author, known) = (self.author, self.acknowledged);
        ensure!(
            serial >= known,
            "{name}: writer {author} was acknowledged up to {known}, and {serial} is told to be \
             the last"
        );
        ensure!(
            self.ends.contains(&serial),
            "{name}: writer {author}: {serial} is told to be the last and ends no block"
        );
        self.acknowledged = serial;
        self.ends = BTreeSet::from([serial]);
        Ok(())
    }

    fn session(&mut self, chain: &Chain, store: &mut Store) -> Result<Turn, Trouble> {
        let name = chain.lock()[self.at].name.clone();
        let mut wire = store.session(&name)?;
        let session = self.set_up(&mut wire, &chain.history, &name)?;
        let mut sender = Sender { session, segment: SegmentName::new(&name), bytes: 0 };
        // Some sessions are cut short with blocks under way, as by a broken network.
        let mut blocks_left = if self.dice.one_in(3) { self.dice.range(5..200) } else { u64::MAX };
        let window = 1 + self.dice.index(WINDOW);
        loop {
            while self.blocks.len() < window && sender.bytes < FLIGHT_BYTES && blocks_left > 0 {
                self.send_block(&mut wire, chain, &mut sender)?;
                blocks_left -= 1;
            }
            if blocks_left == 0 {
                wire.cut();
                return Ok(Turn::Again);
            }
            match wire.receive()? {
                Command::DataAppended(it) => {
                    let told = (it.previous_event_number, it.event_number);
                    let end = it.current_segment_write_offset;
                    self.acknowledge(chain, &mut sender, told, end)?;
                    let segment = &mut chain.lock()[self.at];
                    segment.length_min = segment.length_min.max(end);
                    if segment.boundaries.len() >= BOUNDARIES {
                        segment.boundaries.remove(0);
                    }
                    segment.boundaries.push(end);
                }
                Command::SegmentIsSealed(it) => {
                    ensure_eq!(it.segment.as_str(), name, "name in SegmentIsSealed");
                    let asked = chain.lock()[self.at].sealed;
                    ensure!(asked != Done::No, "{name} is sealed, which nobody asked for");
                    for block in self.blocks.drain(..) {
                        chain.history.fail(block.id, Refusal::Sealed)?;
                    }
                    return Ok(Turn::Sealed);
                }
                other => wrong!("{name}: {other:?} to writer {}", self.author),
            }
        }
    }

    fn send_block(
        &mut self,
        wire: &mut Wire,
        chain: &Chain,
        sender: &mut Sender,
    ) -> Result<(), Trouble> {
        let events = match self.dice.below(4) {
            0 => 1,
            1 => self.dice.range(2..20),
            _ => self.dice.range(20..300),
        };
        let before = self.blocks.back().map_or(self.acknowledged, |block| block.last);
        let last = before + events;
        let mut data = BytesMut::new();
        for serial in before + 1..=last {
            event(self.author, serial).encode(&mut data);
        }
        let bytes = data.len() as u64;
        let append = Operation::Append {
            segment: sender.segment.clone(),
            writer: Author(self.author),
            first: number(before + 1),
            count: u32::try_from(events).expect("below 300"),
            bytes,
        };
        // Known before it is sent: it may be stored whatever becomes of the connection.
        let id = chain.history.invoke(sender.session, append)?;
        self.blocks.push_back(Block { id, last, bytes });
        self.ends.insert(last);
        sender.bytes += bytes;
        let told = number(last - self.base());
        let id = writer_id(self.author, self.at);
        wire.append(id, data.freeze(), told, i32::try_from(events).expect("below 300"))
    }

    /// Takes in an acknowledgement, which may stand for several blocks; `end` is where the last of
    /// them ends.
    fn acknowledge(
        &mut self,
        chain: &Chain,
        sender: &mut Sender,
        (previous, told): (i64, i64),
        end: i64,
    ) -> Result<(), Trouble> {
        let (author, known, base) = (self.author, self.acknowledged, self.base());
        let name = sender.segment.as_str();
        let Ok(told) = u64::try_from(told) else { wrong!("{name}: {told} acknowledged") };
        let serial = base + told;
        let is_end = self.blocks.iter().any(|block| block.last == serial);
        ensure!(is_end, "{name}: {told} acknowledged to writer {author}, {known} before");
        let before = number(known - base);
        ensure_eq!(previous.max(0), before, "{name}: previous number of writer {author}");
        let mut previous = Some(number(known));
        while let Some(block) = self.blocks.pop_front() {
            let length = (block.last == serial).then_some(end.unsigned_abs());
            let outcome = Outcome::Appended { length, previous: previous.take() };
            chain.history.ok(block.id, outcome)?;
            sender.bytes -= block.bytes;
            if block.last == serial {
                break;
            }
        }
        count(&chain.tally.acknowledged, serial - known);
        self.acknowledged = serial;
        self.ends = self.ends.split_off(&serial);
        Ok(())
    }

    /// Learns what is stored in the sealed segment for good and goes to its successor.
    fn move_on(&mut self, chain: &Chain, store: &mut Store) -> Result<(), Trouble> {
        let name = chain.lock()[self.at].name.clone();
        let mut wire = store.session(&name)?;
        let before = self.acknowledged;
        self.set_up(&mut wire, &chain.history, &name)?;
        ensure_eq!(
            self.acknowledged,
            before,
            "{name}: writer {} was told of the seal before all that is stored was acknowledged",
            self.author
        );
        while chain.newest() <= self.at {
            // The steward makes the successor.
            if store.is_stopped() {
                return Err(Trouble::Stopped);
            }
            breathe();
        }
        self.bases.push(self.acknowledged);
        chain.introduce(self.author, self.at + 1, &self.bases)?;
        chain.lock()[self.at].writers_left += 1;
        self.at += 1;
        Ok(())
    }
}

/// An event number as the wire and the history write it.
fn number(serial: u64) -> i64 {
    i64::try_from(serial).expect("far below 2^63")
}

/// A block that was sent and not answered.
struct Block {
    id: OperationId,
    /// Serial of its last event.
    last: u64,
    bytes: u64,
}

/// The present connection of a writer.
struct Sender {
    session: SessionId,
    segment: SegmentName,
    /// Bytes of the blocks that were sent and not answered.
    bytes: u64,
}
