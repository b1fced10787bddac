//! A journal on a [`MemoryDisk`] together with what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use thalweg_core::env::journal::{Journal as _, JournalEvent, Opened, Recovered};
use thalweg_core::fault::Fault;
use thalweg_core::frame::{ContainerMask, FRAME_HEADER_BYTES, SealedFrame, aligned_memory};
use thalweg_core::id::ContainerId;
use thalweg_core::position::{BLOCK_BYTES, FileId, FrameNumber, JournalAddress};
use thalweg_core::time::Instant;

use crate::memory::{MemoryDevice, MemoryDisk, Random};
use crate::{Canary, Config, Journal};

/// A frame as it was submitted.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) address: JournalAddress,
    pub(super) bytes: Bytes,
}

/// A disk, a journal on it, and the frames that were written.
pub(super) struct World {
    pub(super) disk: MemoryDisk,
    pub(super) config: Config,
    pub(super) journal: Journal<MemoryDevice>,
    pub(super) random: Random,
    pub(super) now: Instant,
    /// Every frame of the chain as far as this process knows, by number.
    pub(super) written: BTreeMap<FrameNumber, Written>,
    /// Newest frame reported durable.
    pub(super) durable: FrameNumber,
    pub(super) next: FrameNumber,
    /// Replay position told with each submission: the oldest frame that is wanted back.
    pub(super) replay_from: Option<FrameNumber>,
    pub(super) failures: Vec<Fault>,
    pub(super) fetched: Vec<(JournalAddress, Result<Bytes, Fault>)>,
    /// Damage that the last recovery reported.
    pub(super) damaged: Vec<(Vec<ContainerId>, Fault)>,
    /// Chances in a thousand of failing writes and reads.
    weather: (u64, u64),
    /// Frames that the last recovery gave.
    pub(super) found: Vec<FrameNumber>,
    /// Files that are told to be referenced.
    pub(super) pinned: BTreeSet<FileId>,
}

pub(super) fn tiny() -> Config {
    Config {
        directory: 0xD1CE,
        file_bytes: 64 << 10,
        journal_bytes_max: 16 * (64 << 10),
        prepare_write_bytes: 16 << 10,
        recovery_read_bytes: 16 << 10,
        recovery_reads: 3,
        ..Config::default()
    }
}

impl World {
    pub(super) fn new(seed: u64, config: Config) -> Self {
        let disk = MemoryDisk::new(seed, u64::MAX);
        let mut journal = Journal::new(disk.device(), config.clone()).expect("settings are legal");
        journal.claim().expect("nothing fails yet");
        Self {
            journal,
            disk,
            config,
            random: Random(seed ^ 0xA5A5),
            now: Instant(0),
            written: BTreeMap::new(),
            durable: FrameNumber(0),
            next: FrameNumber(1),
            replay_from: None,
            failures: Vec::new(),
            fetched: Vec::new(),
            damaged: Vec::new(),
            weather: (0, 0),
            found: Vec::new(),
            pinned: BTreeSet::new(),
        }
    }

    /// A world whose journal is open.
    pub(super) fn open(seed: u64, config: Config) -> Self {
        let mut world = Self::new(seed, config);
        world.recover().expect("an empty directory opens");
        world
    }

    pub(super) fn with_canary(mut self, canary: Canary) -> Self {
        self.config.canary = Some(canary);
        self.restart();
        self
    }

    /// A new process on the same disk.
    pub(super) fn restart(&mut self) {
        self.disk.kill();
        self.journal =
            Journal::new(self.disk.device(), self.config.clone()).expect("settings are legal");
        self.journal.claim().expect("a claim is tried often enough");
    }

    pub(super) fn cut_power(&mut self) {
        self.failures.clear();
        self.disk.cut_power();
        self.restart();
    }

    pub(super) fn kill(&mut self) {
        self.failures.clear();
        self.restart();
    }

    /// Recovers and checks what is found against what was written. Damage is collected; frames may
    /// then be missing.
    pub(super) fn recover(&mut self) -> Result<Opened, Fault> {
        let mut found: Vec<(FrameNumber, Written)> = Vec::new();
        let mut damaged = Vec::new();
        let opened = self.journal.recover(&mut |recovered| match recovered {
            Recovered::Frame { address, number, bytes } => {
                found.push((number, Written { address, bytes }));
            }
            Recovered::Damaged { containers, fault } => damaged.push((containers, fault)),
        })?;
        self.damaged = damaged;
        if !self.failures.is_empty() {
            let last = found.last().map_or(FrameNumber(0), |(number, _)| *number);
            assert!(last <= self.durable, "a frame that failed came back in the same process");
            self.failures.clear();
        }
        self.check_found(&found);
        self.found = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(opened.next_frame, self.next, "numbering goes on without a gap");
        Ok(opened)
    }

    fn check_found(&mut self, found: &[(FrameNumber, Written)]) {
        for (number, got) in found {
            let wanted = self.written.get(number).expect("what was never written is not found");
            assert_eq!(got.address, wanted.address, "frame {number:?}");
            assert!(got.bytes == wanted.bytes, "frame {number:?} is changed");
        }
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "frames come in order");
        let last = found.last().map_or(FrameNumber(0), |(number, _)| *number);
        if self.damaged.is_empty() {
            assert!(
                found.windows(2).all(|pair| pair[0].0.next() == pair[1].0),
                "frames are missing"
            );
            assert!(
                last >= self.durable,
                "frame {:?} was acknowledged, {last:?} is last",
                self.durable
            );
            if let Some(from) = self.replay_from.filter(|&from| from <= self.durable) {
                assert!(
                    found.first().expect("frames are there").0 <= from,
                    "replay begins too late"
                );
            }
        }
        // What was not found is cut and must never come back.
        let last = last.max(self.durable);
        self.written.retain(|&number, _| number <= last);
        self.durable = last;
        self.next = last.next();
    }

    /// Makes a frame of `blocks` blocks with random content for one container.
    pub(super) fn frame(&mut self, blocks: usize, container: ContainerId) -> SealedFrame {
        let size = blocks * BLOCK_BYTES as usize;
        let operation_bytes = size - FRAME_HEADER_BYTES - self.random.below(2000) as usize;
        let mut bytes = aligned_memory(size);
        bytes.resize(FRAME_HEADER_BYTES, 0);
        while bytes.len() < FRAME_HEADER_BYTES + operation_bytes {
            let word = self.random.number().to_le_bytes();
            let rest = FRAME_HEADER_BYTES + operation_bytes - bytes.len();
            bytes.extend_from_slice(&word[..rest.min(8)]);
        }
        bytes.resize(size, 0);
        let mut containers = ContainerMask::default();
        containers.insert(container);
        SealedFrame {
            number: self.next,
            bytes,
            operation_bytes: u32::try_from(operation_bytes).expect("small"),
            containers,
        }
    }

    /// Submits a frame if the journal takes one; says whether it did.
    pub(super) fn submit(&mut self, blocks: usize) -> bool {
        self.submit_for(blocks, ContainerId(3))
    }

    pub(super) fn submit_for(&mut self, blocks: usize, container: ContainerId) -> bool {
        if !self.journal.can_submit(blocks as u64 * BLOCK_BYTES) {
            return false;
        }
        let frame = self.frame(blocks, container);
        let number = frame.number;
        let replay = match self.replay_from {
            None => None,
            Some(from) => self.written.get(&from).map(|written| written.address),
        };
        let (address, bytes) = self.journal.submit(frame, replay, self.now);
        if self.replay_from.is_some_and(|from| from == number) {
            assert_eq!(replay, None);
        }
        self.written.insert(number, Written { address, bytes });
        self.next = number.next();
        true
    }

    /// Sets the chances in a thousand that writes and reads fail.
    pub(super) fn set_weather(&mut self, writes: u64, reads: u64) {
        self.weather = (writes, reads);
        self.disk.set_failures(writes, reads);
    }

    /// Whether nothing fails at present.
    pub(super) fn disk_is_calm(&self) -> bool {
        self.weather == (0, 0)
    }

    /// One poll, a little later.
    pub(super) fn poll(&mut self) {
        self.now = self.now.after(Duration::from_micros(100));
        let mut events = Vec::new();
        self.journal.poll(self.now, &mut events);
        for event in events {
            match event {
                JournalEvent::Durable { through } => {
                    assert!(self.failures.is_empty(), "nothing is durable after a failure");
                    assert!(through > self.durable && through < self.next);
                    self.durable = through;
                }
                JournalEvent::Fetched { address, frame } => self.fetched.push((address, frame)),
                JournalEvent::Failed { fault } => self.failures.push(fault),
            }
        }
    }

    /// Polls until every frame is durable.
    pub(super) fn settle(&mut self) {
        while self.journal.frames_in_flight() > 0 && self.failures.is_empty() {
            self.poll();
        }
    }

    /// Polls through so much silence that everything due has been done.
    pub(super) fn rest(&mut self) {
        for _ in 0..400 {
            self.poll();
        }
    }

    /// Submits a frame, waiting for room.
    ///
    /// # Panics
    /// When there is none for long.
    pub(super) fn write(&mut self, blocks: usize) {
        for _ in 0..20_000 {
            if self.submit(blocks) {
                return;
            }
            self.poll();
        }
        panic!("no room for a frame: {:?}", self.disk.files());
    }

    /// Lets go of everything before the frame `from`.
    pub(super) fn trim(&mut self, from: FrameNumber) {
        let address = self.written[&from].address;
        self.replay_from = Some(from);
        let pinned = self.pinned.clone();
        self.journal.trim(address, &|file| pinned.contains(&file));
    }

    /// A durable frame that must still be readable.
    pub(super) fn any_kept(&mut self) -> Option<Written> {
        let oldest = self.replay_from.and_then(|from| self.written.get(&from))?.address.file();
        let kept: Vec<&Written> = self
            .written
            .range(..=self.durable)
            .map(|(_, written)| written)
            .filter(|written| {
                let file = written.address.file();
                file >= oldest || self.pinned.contains(&file)
            })
            .collect();
        let index = self.random.below(kept.len().max(1) as u64) as usize;
        kept.get(index).map(|&written| written.clone())
    }

    /// Reads a frame back.
    pub(super) fn fetch(&mut self, address: JournalAddress) -> Result<Bytes, Fault> {
        self.journal.fetch(address);
        loop {
            self.poll();
            if let Some(index) = self.fetched.iter().position(|(of, _)| *of == address) {
                return self.fetched.swap_remove(index).1;
            }
        }
    }
}
