//! One writer: numbers its events, keeps blocks in flight, resumes exactly.

use std::collections::BTreeSet;

use bytes::BytesMut;
use thalweg_wire::{Command, NO_EVENT_NUMBER};

use crate::rig::dice::Dice;
use crate::rig::payload::Mark;
use crate::rig::store::Store;
use crate::rig::wire::{Lost, Wire};

use super::{Chain, Done, Stored, breathe, writer_id};

/// Blocks in flight.
const WINDOW: usize = 24;

/// A writer and its journal.
pub(crate) struct Writer {
    author: u64,
    /// Index of the segment it appends to.
    at: usize,
    /// For each segment of the chain up to `at`: serial of the last event before it.
    bases: Vec<u64>,
    /// Every event up to this serial is acknowledged.
    acknowledged: u64,
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
    pub(crate) fn new(author: u64, dice: Dice) -> Self {
        let ends = BTreeSet::from([0]);
        Self { author, at: 0, bases: vec![0], acknowledged: 0, ends, dice }
    }

    fn base(&self) -> u64 {
        self.bases[self.at]
    }

    /// Appends until the server is gone.
    pub(crate) fn run(&mut self, chain: &Chain, store: &mut Store) {
        loop {
            match self.session(chain, store) {
                Err(Lost::Closed) => return,
                Err(Lost::Silent) => panic!("writer {}: no acknowledgement", self.author),
                Ok(Turn::Again) => {}
                Ok(Turn::Sealed) => {
                    if self.move_on(chain, store).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// What the server says is durable, checked against what it acknowledged before.
    fn set_up(&mut self, wire: &mut Wire, name: &str) -> Result<(), Lost> {
        let id = writer_id(self.author, self.at);
        let last = match wire.set_up(name, id)? {
            Command::AppendSetup(it) => it.last_event_number,
            other => panic!("{name}: {other:?} to the set-up of writer {}", self.author),
        };
        self.learn(name, last);
        Ok(())
    }

    /// Takes in the last stored event number of the present segment.
    fn learn(&mut self, name: &str, last: i64) {
        let stored = if last == NO_EVENT_NUMBER { 0 } else { last };
        let stored = u64::try_from(stored).unwrap_or_else(|_| panic!("{name}: number {last}"));
        let serial = self.base() + stored;
        assert!(
            serial >= self.acknowledged,
            "{name}: writer {} was acknowledged up to {}, and {serial} is told to be the last",
            self.author,
            self.acknowledged
        );
        assert!(
            self.ends.contains(&serial),
            "{name}: writer {}: {serial} is told to be the last and ends no block",
            self.author
        );
        self.acknowledged = serial;
        self.ends = BTreeSet::from([serial]);
    }

    fn session(&mut self, chain: &Chain, store: &mut Store) -> Result<Turn, Lost> {
        let name = chain.lock()[self.at].name.clone();
        let id = writer_id(self.author, self.at);
        let mut wire = store.session(&name)?;
        self.set_up(&mut wire, &name)?;
        let mut sent = self.acknowledged;
        let mut in_flight = 0;
        // Some sessions are cut short with blocks under way, as by a broken network.
        let mut blocks_left = if self.dice.one_in(3) { self.dice.range(5..200) } else { u64::MAX };
        let window = 1 + usize::try_from(self.dice.below(WINDOW as u64)).expect("small");
        loop {
            while in_flight < window && blocks_left > 0 {
                let events = if self.dice.one_in(4) { self.dice.range(2..40) } else { 1 };
                let mut data = BytesMut::new();
                for serial in sent + 1..=sent + events {
                    Mark::new(self.author, serial).frame(&mut data);
                }
                sent += events;
                self.ends.insert(sent);
                let number = i64::try_from(sent - self.base()).expect("small");
                wire.append(id, data.freeze(), number, i32::try_from(events).expect("small"))?;
                in_flight += 1;
                blocks_left -= 1;
            }
            if blocks_left == 0 {
                wire.cut();
                return Ok(Turn::Again);
            }
            match wire.receive()? {
                Command::DataAppended(it) => {
                    let number = u64::try_from(it.event_number).expect("ours are positive");
                    let serial = self.base() + number;
                    let answered = self.ends.range(self.acknowledged + 1..=serial).count();
                    assert!(
                        self.ends.contains(&serial) && answered > 0,
                        "{name}: {it:?} to writer {}, acknowledged up to {}, sent up to {sent}",
                        self.author,
                        self.acknowledged
                    );
                    let before = i64::try_from(self.acknowledged - self.base()).expect("small");
                    assert_eq!(it.previous_event_number.max(0), before, "{name}: previous number");
                    in_flight -= answered;
                    self.acknowledged = serial;
                    self.ends = self.ends.split_off(&serial);
                    let segment = &mut chain.lock()[self.at];
                    let end = it.current_segment_write_offset;
                    segment.length_min = segment.length_min.max(end);
                    segment.boundaries.push(end);
                }
                Command::SegmentIsSealed(it) => {
                    assert_eq!(it.segment.as_str(), name, "name in SegmentIsSealed");
                    let asked = chain.lock()[self.at].sealed;
                    assert!(asked != Done::No, "{name} is sealed, which nobody asked for");
                    return Ok(Turn::Sealed);
                }
                other => panic!("{name}: {other:?} to writer {}", self.author),
            }
        }
    }

    /// Learns what is stored in the sealed segment for good and goes to its successor.
    fn move_on(&mut self, chain: &Chain, store: &mut Store) -> Result<(), Lost> {
        let name = chain.lock()[self.at].name.clone();
        let mut wire = store.session(&name)?;
        let before = self.acknowledged;
        self.set_up(&mut wire, &name)?;
        assert_eq!(
            self.acknowledged, before,
            "{name}: writer {} was told of the seal before all that is stored was acknowledged",
            self.author
        );
        self.bases.push(self.acknowledged);
        chain.lock()[self.at].writers_left += 1;
        self.at += 1;
        while chain.newest() < self.at {
            // The steward makes the successor, unless the server is gone; then asking tells.
            breathe();
            store.info(&name)?;
        }
        Ok(())
    }

    /// Compares what is stored with what was acknowledged and sent. `last_number` asks the server
    /// for the last number of a writer id in a segment.
    pub(crate) fn verify(
        &mut self,
        stored: &[Stored],
        mut last_number: impl FnMut(usize, u128) -> i64,
    ) {
        let author = self.author;
        for (index, segment) in stored.iter().enumerate() {
            let mut serials = Vec::new();
            let mine = segment.marks.iter().filter(|mark| mark.author == author);
            serials.extend(mine.map(|mark| mark.serial));
            if index > self.at {
                assert!(serials.is_empty(), "writer {author} was never on segment {index}");
                continue;
            }
            if !segment.is_there {
                continue;
            }
            for pair in serials.windows(2) {
                assert_eq!(pair[1], pair[0] + 1, "writer {author}, segment {index}: next serial");
            }
            let base = self.bases[index];
            let number = last_number(index, writer_id(author, index));
            let told = base + u64::try_from(number.max(0)).expect("not negative");
            if let (Some(first), Some(last)) = (serials.first(), serials.last()) {
                assert!(*first > base, "writer {author}: {first} is in segment {index} too");
                if segment.is_whole {
                    assert_eq!(*first, base + 1, "writer {author}: first in segment {index}");
                }
                assert_eq!(*last, told, "writer {author}, segment {index}: last number");
            } else if segment.is_whole {
                assert_eq!(told, base, "writer {author}, segment {index}: number of no event");
            }
            if index < self.at {
                let next = self.bases[index + 1];
                assert_eq!(told, next, "writer {author}: last in segment {index}, sealed");
            } else {
                self.learn(&format!("segment {index}"), number);
            }
        }
    }
}
