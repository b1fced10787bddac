//! A journal in memory, for tests of the engine and of what is built on it.
//!
//! It keeps the contract of [`Journal`] and lets a test decide what a disk decides: when frames
//! become durable, which of those that did not survive a crash, which frames can be read back.
//! Files exist only as numbers: trimmed ones lose their frames, and reading one that is gone is a
//! fault.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::env::journal::{Journal, JournalEvent, Opened, Recovered};
use crate::fault::{Fault, FaultClass};
use crate::frame::SealedFrame;
use crate::id::ContainerId;
use crate::position::{BLOCK_BYTES, ContainerEpoch, FileId, FrameNumber, JournalAddress};
use crate::time::Instant;

/// See the module's comment. A crash is [`crash`](Self::crash), followed by
/// [`recover`](Journal::recover) as at any start.
#[derive(Debug)]
pub struct MemoryJournal {
    file_blocks: u32,
    frames_in_flight_max: usize,
    epoch: ContainerEpoch,
    frames: BTreeMap<JournalAddress, Stored>,
    next_number: FrameNumber,
    /// Where the next frame goes.
    file: FileId,
    block: u32,
    durable_through: FrameNumber,
    told_through: FrameNumber,
    is_held: bool,
    events: Vec<JournalEvent>,
    damaged: BTreeSet<JournalAddress>,
    room_bytes: u64,
    place_bytes: u64,
    fetch_count: u64,
}

#[derive(Debug)]
struct Stored {
    number: FrameNumber,
    bytes: Bytes,
    /// As told at submission; `None` for the frame itself.
    replay_from: Option<JournalAddress>,
    containers: crate::frame::ContainerMask,
}

impl MemoryJournal {
    /// An empty journal with files of `file_blocks` blocks; a larger frame gets a file of its own.
    pub fn new(file_blocks: u32) -> Self {
        Self {
            file_blocks,
            frames_in_flight_max: 4,
            epoch: ContainerEpoch(0),
            frames: BTreeMap::new(),
            next_number: FrameNumber(1),
            file: FileId(1),
            block: 0,
            durable_through: FrameNumber(0),
            told_through: FrameNumber(0),
            is_held: false,
            events: Vec::new(),
            damaged: BTreeSet::new(),
            room_bytes: u64::MAX,
            place_bytes: u64::MAX,
            fetch_count: 0,
        }
    }

    /// From now on frames become durable only by [`make_durable`](Self::make_durable), or, when
    /// `is_held` is false, at the next poll.
    pub fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Makes the oldest `count` frames in flight durable.
    pub fn make_durable(&mut self, count: u64) {
        let newest = FrameNumber(self.next_number.0 - 1);
        self.durable_through = newest.min(FrameNumber(self.durable_through.0 + count));
    }

    /// The process ends: of the frames in flight the oldest `survivors` are on disk all the same,
    /// the others are gone. What was not polled is lost.
    pub fn crash(&mut self, survivors: u64) {
        self.make_durable(survivors);
        let last = self.durable_through;
        self.frames.retain(|_, frame| frame.number <= last);
        self.events.clear();
    }

    /// Makes a frame unreadable, as rot would.
    pub fn damage(&mut self, address: JournalAddress) {
        assert!(self.frames.contains_key(&address), "the frame is there");
        self.damaged.insert(address);
    }

    /// Addresses of all frames that are kept, oldest first.
    pub fn addresses(&self) -> Vec<JournalAddress> {
        self.frames.keys().copied().collect()
    }

    /// Bytes of all frames that are kept.
    pub fn stored_bytes(&self) -> u64 {
        self.frames.keys().map(|address| address.frame_bytes()).sum()
    }

    /// How often [`fetch`](Journal::fetch) was called.
    pub fn fetch_count(&self) -> u64 {
        self.fetch_count
    }

    /// What [`room_bytes`](Journal::room_bytes) tells.
    pub fn set_room_bytes(&mut self, room_bytes: u64) {
        self.room_bytes = room_bytes;
    }

    /// Size of the largest frame that it takes.
    pub fn set_place_bytes(&mut self, place_bytes: u64) {
        self.place_bytes = place_bytes;
    }

    /// Reports a failed write: no frame in flight becomes durable any more.
    pub fn fail(&mut self) {
        let fault = Fault::new(FaultClass::Device, "write of a journal file in memory");
        self.events.push(JournalEvent::Failed { fault });
    }

    fn read(&self, address: JournalAddress) -> Result<Bytes, Fault> {
        if self.damaged.contains(&address) {
            return Err(damage_at(address));
        }
        match self.frames.get(&address) {
            Some(frame) => Ok(frame.bytes.clone()),
            None => Err(Fault::new(FaultClass::Corrupt, format!("{address}: no such frame"))),
        }
    }

    fn visit(&self, from: Option<JournalAddress>, visit: &mut dyn FnMut(Recovered)) {
        let from = from.unwrap_or_else(|| JournalAddress::new(FileId(0), 0, 1));
        for (&address, frame) in self.frames.range(from..) {
            if self.damaged.contains(&address) {
                let mask = frame.containers;
                let containers =
                    (0..64).map(ContainerId).filter(|id| mask.may_contain(*id)).collect();
                visit(Recovered::Damaged { containers, fault: damage_at(address) });
            } else {
                let bytes = frame.bytes.clone();
                visit(Recovered::Frame { address, number: frame.number, bytes });
            }
        }
    }
}

fn damage_at(address: JournalAddress) -> Fault {
    Fault::new(FaultClass::Corrupt, format!("{address}: checksum mismatch"))
}

impl Journal for MemoryJournal {
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered)) -> Result<Opened, Fault> {
        let survivors = 0;
        self.crash(survivors);
        self.epoch.0 += 1;
        self.next_number = self.durable_through.next();
        self.told_through = self.durable_through;
        // What was cut is not written over: a new file keeps addresses of different frames apart.
        self.file.0 += 1;
        self.block = 0;
        let newest = self.frames.iter().rev().find(|(address, _)| !self.damaged.contains(address));
        let from = newest.map(|(&address, frame)| frame.replay_from.unwrap_or(address));
        self.visit(from, visit);
        Ok(Opened {
            epoch: self.epoch,
            next_frame: self.next_number,
            visited_from: from.or(self.frames.keys().next().copied()),
            tail_cut_bytes: 0,
        })
    }

    fn replay(
        &mut self,
        from: JournalAddress,
        visit: &mut dyn FnMut(Recovered),
    ) -> Result<(), Fault> {
        self.visit(Some(from), visit);
        Ok(())
    }

    fn submit(
        &mut self,
        frame: SealedFrame,
        replay_from: Option<JournalAddress>,
        _now: Instant,
    ) -> (JournalAddress, Bytes) {
        assert!(self.can_submit(frame.bytes.len() as u64), "the journal takes the frame");
        assert!(frame.number == self.next_number, "frames come in order");
        assert!((frame.bytes.len() as u64).is_multiple_of(BLOCK_BYTES), "a frame is whole blocks");
        assert!(frame.bytes.as_ptr().align_offset(BLOCK_BYTES as usize) == 0, "memory is aligned");
        let blocks = (frame.bytes.len() as u64 / BLOCK_BYTES) as u32;
        if self.block > 0 && self.block + blocks > self.file_blocks {
            self.file.0 += 1;
            self.block = 0;
        }
        let address = JournalAddress::new(self.file, self.block, blocks);
        self.block += blocks;
        let mut bytes = frame.bytes;
        bytes[..8].copy_from_slice(&frame.number.0.to_le_bytes());
        let bytes = bytes.freeze();
        let (number, containers) = (frame.number, frame.containers);
        let stored = Stored { number, bytes: bytes.clone(), replay_from, containers };
        self.frames.insert(address, stored);
        self.next_number = number.next();
        (address, bytes)
    }

    fn can_submit(&self, frame_bytes: u64) -> bool {
        self.frames_in_flight() < self.frames_in_flight_max && frame_bytes <= self.place_bytes
    }

    fn room_bytes(&self) -> u64 {
        self.room_bytes
    }

    fn fetch(&mut self, address: JournalAddress) {
        self.fetch_count += 1;
        // A copy: what is read back does not share memory with what was written.
        let frame = self.read(address).map(|bytes| Bytes::copy_from_slice(&bytes));
        self.events.push(JournalEvent::Fetched { address, frame });
    }

    fn trim(&mut self, replay_from: JournalAddress, is_referenced: &dyn Fn(FileId) -> bool) {
        self.frames.retain(|address, _| {
            address.file() >= replay_from.file() || is_referenced(address.file())
        });
    }

    fn poll(&mut self, _now: Instant, events: &mut Vec<JournalEvent>) {
        if !self.is_held {
            self.make_durable(u64::MAX / 2);
        }
        if self.durable_through > self.told_through {
            self.told_through = self.durable_through;
            events.push(JournalEvent::Durable { through: self.durable_through });
        }
        events.append(&mut self.events);
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn frames_in_flight(&self) -> usize {
        (self.next_number.0 - 1 - self.told_through.0) as usize
    }
}
