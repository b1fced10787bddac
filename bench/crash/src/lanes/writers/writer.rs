//! One writer: numbers its events, keeps blocks in flight, resumes exactly.

use std::collections::BTreeSet;

use bytes::BytesMut;
use thalweg_wire::{Command, NO_EVENT_NUMBER};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::Dice;
use crate::payload::Mark;
use crate::store::{Route, Store};
use crate::wire::{Trouble, Wire};

use super::{Chain, Done, breathe, count, writer_id};

/// Most blocks in flight.
const WINDOW: usize = 24;
/// Most bytes in flight: much less than a server takes in without looking.
const FLIGHT_BYTES: i64 = 1 << 20;
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
        Self { author, at: 0, bases: vec![0], acknowledged: 0, ends, dice }
    }

    pub(super) fn base(&self) -> u64 {
        self.bases[self.at]
    }

    /// Appends until it is stopped.
    pub(super) fn run(&mut self, chain: &Chain, route: &Route) -> Result<(), Trouble> {
        let mut store = Store::new(route);
        loop {
            let end = match self.session(chain, &mut store) {
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

    /// What the server says is durable, checked against what it acknowledged before.
    pub(super) fn set_up(&mut self, wire: &mut Wire, name: &str) -> Result<(), Trouble> {
        let id = writer_id(self.author, self.at);
        let last = match wire.set_up(name, id)? {
            Command::AppendSetup(it) => it.last_event_number,
            // Nobody owns the segment while the server starts.
            Command::WrongHost(_) => return Err(Trouble::Closed),
            other => wrong!("{name}: {other:?} to the set-up of writer {}", self.author),
        };
        self.learn(name, last)
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
        self.set_up(&mut wire, &name)?;
        let mut flight = Flight { sent: self.acknowledged, blocks: 0, bytes: 0 };
        // Some sessions are cut short with blocks under way, as by a broken network.
        let mut blocks_left = if self.dice.one_in(3) { self.dice.range(5..200) } else { u64::MAX };
        let window = 1 + self.dice.index(WINDOW);
        loop {
            while flight.blocks < window && flight.bytes < FLIGHT_BYTES && blocks_left > 0 {
                self.send_block(&mut wire, &mut flight)?;
                blocks_left -= 1;
            }
            if blocks_left == 0 {
                wire.cut();
                return Ok(Turn::Again);
            }
            match wire.receive()? {
                Command::DataAppended(it) => {
                    let number = (it.previous_event_number, it.event_number);
                    self.acknowledge(chain, &name, number, &mut flight)?;
                    let segment = &mut chain.lock()[self.at];
                    let end = it.current_segment_write_offset;
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
                    return Ok(Turn::Sealed);
                }
                other => wrong!("{name}: {other:?} to writer {}", self.author),
            }
        }
    }

    fn send_block(&mut self, wire: &mut Wire, flight: &mut Flight) -> Result<(), Trouble> {
        let events = match self.dice.below(4) {
            0 => 1,
            1 => self.dice.range(2..20),
            _ => self.dice.range(20..300),
        };
        let mut data = BytesMut::new();
        for serial in flight.sent + 1..=flight.sent + events {
            Mark::new(self.author, serial).frame(&mut data);
        }
        flight.sent += events;
        flight.blocks += 1;
        flight.bytes += i64::try_from(data.len()).expect("a length in memory");
        // Known before it is sent: it may be stored whatever becomes of the connection.
        self.ends.insert(flight.sent);
        let number = i64::try_from(flight.sent - self.base()).expect("far below 2^63");
        let id = writer_id(self.author, self.at);
        wire.append(id, data.freeze(), number, i32::try_from(events).expect("below 300"))
    }

    /// Takes in an acknowledgement, which may stand for several blocks.
    fn acknowledge(
        &mut self,
        chain: &Chain,
        name: &str,
        (previous, number): (i64, i64),
        flight: &mut Flight,
    ) -> Result<(), Trouble> {
        let (author, known) = (self.author, self.acknowledged);
        let Ok(told) = u64::try_from(number) else { wrong!("{name}: {number} acknowledged") };
        let serial = self.base() + told;
        ensure!(
            self.ends.contains(&serial) && serial > known,
            "{name}: {number} acknowledged to writer {author}, {known} before, {} sent",
            flight.sent
        );
        let answered = self.ends.range(known + 1..=serial).count();
        let before = i64::try_from(known - self.base()).expect("far below 2^63");
        ensure_eq!(previous.max(0), before, "{name}: previous number");
        flight.blocks -= answered;
        if flight.blocks == 0 {
            flight.bytes = 0;
        } else {
            // By the mean, which is all that a bound needs.
            let blocks = i64::try_from(flight.blocks + answered).expect("a small number");
            flight.bytes -= flight.bytes / blocks * i64::try_from(answered).expect("small");
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
        self.set_up(&mut wire, &name)?;
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
        chain.lock()[self.at].writers_left += 1;
        self.at += 1;
        Ok(())
    }
}

/// What was sent and not acknowledged.
struct Flight {
    /// Serial of the last event sent.
    sent: u64,
    blocks: usize,
    bytes: i64,
}
