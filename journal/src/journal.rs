//! A journal in service: the contract of `core::env::journal` over the parts of this crate.
//!
//! Owns the order of things: what a completed operation belongs to, when a file is full, what a
//! failed write ends. After a failed write or sync nothing is reported durable any more, until
//! `recover` begins another incarnation.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use thalweg_core::canary::{self, Canary};
use thalweg_core::env::device::{Device, DeviceEvent};
use thalweg_core::env::journal::{self, JournalEvent, Opened, Recovered};
use thalweg_core::fault::Fault;
use thalweg_core::frame::{ContainerMask, SealedFrame};
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, FileId, JournalAddress};
use thalweg_core::rare::{self, Point};
use thalweg_core::time::Instant;

use crate::claim::Claim;
use crate::config::{Config, ConfigError, blocks_of, reserve_blocks};
use crate::counters::Counters;
use crate::fetch::{self, Fetch, Fetches};
use crate::files::{
    Files, LiveFile, Situation, fault_of, header_block, journal_name, usable_bytes, zero_block,
};
use crate::layout::{BLOCK, FileHeader, Owner, RecordHeader, RecordKind, Sequence};
use crate::port::{Port, Purpose, purpose_of};
use crate::writer::{Tail, Writer};

/// The journal of one shard. Lives on the shard's thread; made once, recovered at start and after
/// each failure.
#[derive(Debug)]
pub struct Journal<D> {
    pub(crate) port: Port<D>,
    pub(crate) config: Config,
    pub(crate) owner: Owner,
    pub(crate) files: Files,
    pub(crate) writer: Option<Writer>,
    pub(crate) state: State,
    pub(crate) fetches: Fetches,
    pub(crate) counters: Counters,
    /// The epoch that this process raised last.
    pub(crate) epoch: Option<ContainerEpoch>,
    /// First record that this process knows must not come back; told to the next recovery.
    pub(crate) cut_from: Option<Sequence>,
    pub(crate) claim: Claim,
    /// Files that a write or sync failed on, while this process lives.
    pub(crate) poisoned: BTreeSet<FileId>,
    /// Files that nothing refers to and that go as soon as that is safe on disk.
    pub(crate) condemned: BTreeSet<FileId>,
    /// First record behind what the last recovery found.
    pub(crate) recovered_end: Sequence,
    arrived: Vec<DeviceEvent>,
}

/// What the journal does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not recovered.
    Closed,
    /// Takes frames.
    Open,
    /// A write failed; only reads go on.
    Poisoned,
}

/// Whether a record may use the end of a file that is kept for the journal itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserve {
    Keep,
    Use,
}

impl<D: Device> Journal<D> {
    /// A journal in the directory of `device`. Touches nothing before `recover`.
    ///
    /// # Errors
    /// When a setting is out of its bounds.
    pub fn new(device: D, config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            port: Port::new(device),
            owner: Owner { directory: config.directory, shard: config.shard },
            files: Files::new(&config),
            writer: None,
            state: State::Closed,
            fetches: Fetches::default(),
            counters: Counters::default(),
            epoch: None,
            claim: Claim::new(config.exclusion),
            cut_from: None,
            poisoned: BTreeSet::new(),
            condemned: BTreeSet::new(),
            recovered_end: Sequence(1),
            arrived: Vec::new(),
            config,
        })
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device, for its owner's own controls. Nothing may be queued on it.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.port.device
    }

    /// Bytes of all files, prepared ones included.
    pub fn disk_bytes(&self) -> u64 {
        self.files.total_bytes
    }

    pub(crate) fn situation(&self, now: Instant) -> Situation {
        Situation { owner: self.owner, epoch: self.epoch.unwrap_or_default(), now }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("an open journal has a writer")
    }

    /// Blocks left at the tail.
    fn tail_blocks(&self, reserve: Reserve) -> u32 {
        let Some(tail) = self.writer.as_ref().map(|writer| writer.tail) else { return 0 };
        let kept = if reserve == Reserve::Keep { reserve_blocks(tail.blocks) } else { 0 };
        tail.blocks.saturating_sub(tail.block + kept)
    }

    /// Whether `blocks` blocks can be placed at the tail or in the next file.
    fn has_place(&self, blocks: u64, reserve: Reserve) -> bool {
        let next = self.files.ready.front();
        u64::from(self.tail_blocks(reserve)) >= blocks
            || next.is_some_and(|next| usable_bytes(next.bytes) / BLOCK_BYTES >= blocks)
    }

    /// Makes sure that the tail has room for `blocks`, going on in the next file when it has not.
    fn make_room(&mut self, blocks: u64, reserve: Reserve) {
        let next = self.files.ready.front();
        let may_roll = next.is_some_and(|next| usable_bytes(next.bytes) / BLOCK_BYTES >= blocks);
        let has_room = u64::from(self.tail_blocks(reserve)) >= blocks;
        if has_room && !(may_roll && rare::maybe(Point::RollFile)) {
            return;
        }
        let next = self.files.ready.pop_front().expect("the next file is ready");
        let writer = self.writer.as_mut().expect("an open journal has a writer");
        let start = writer.file_start();
        let header = FileHeader {
            owner: self.owner,
            file: next.id,
            epoch: writer.epoch,
            file_bytes: next.bytes,
            start: Some(start),
        };
        let block = header_block(&header);
        let token = self.port.start(Purpose::Record, |device, token| {
            device.write_durable(next.handle, 0, block, token);
        });
        writer.header_submitted(token, next.id);
        writer.tail = Tail { file: next.id, block: 1, blocks: blocks_of(next.bytes) };
        let file = LiveFile {
            handle: next.handle,
            bytes: next.bytes,
            start: Some((start, writer.epoch)),
            reads: 0,
            is_spent: false,
        };
        self.files.live.insert(next.id, file);
    }

    /// Submits a record's bytes, whose header is filled in.
    fn write_record(&mut self, header: RecordHeader, bytes: Bytes) {
        let address = header.address;
        let handle = self.files.live[&address.file()].handle;
        let offset = address.file_offset();
        if canary::has(Canary::SyncBesideWrites) {
            self.port.start(Purpose::Record, |device, token| {
                device.write(handle, offset, bytes, token);
            });
            let token =
                self.port.start(Purpose::Record, |device, token| device.sync(handle, token));
            return self.writer().record_submitted(token, header);
        }
        let is_short =
            canary::has(Canary::ShortWriteIgnored) && header.sequence.0.is_multiple_of(16);
        let written = if is_short { bytes.len() / 2 / BLOCK * BLOCK } else { bytes.len() };
        let bytes = if written > 0 { bytes.slice(..written) } else { bytes };
        let token = self.port.start(Purpose::Record, |device, token| {
            #[cfg(any(test, feature = "canary"))]
            if self.config.has(crate::Canary::AckBeforeSync) {
                return device.write(handle, offset, bytes, token);
            }
            device.write_durable(handle, offset, bytes, token);
        });
        self.writer().record_submitted(token, header);
    }

    /// Writes an empty record that tells what is durable and where a replay begins.
    fn write_beacon(&mut self, now: Instant) {
        if !self.has_place(1, Reserve::Use) {
            return self.writer().postpone_beacon(now);
        }
        self.make_room(1, Reserve::Use);
        let mut block = zero_block();
        let writer = self.writer();
        writer.wants_record = false;
        let replay = writer.replay();
        let header =
            writer.compose(RecordKind::Beacon, 0, ContainerMask::default(), replay, &mut block);
        self.write_record(header, block.freeze());
    }

    fn write_completed(&mut self, event: &DeviceEvent) -> Option<Fault> {
        let writer = self.writer.as_mut()?;
        let is_believed = canary::has(Canary::SyncRetriedAfterError);
        let is_durable = event.outcome.is_ok() || is_believed;
        let file = writer.completed(event.token, is_durable)?;
        if is_durable {
            return None;
        }
        let error = event.outcome.as_ref().err()?;
        self.poisoned.insert(file);
        if let Some(live) = self.files.live.get_mut(&file) {
            live.is_spent = true;
        }
        Some(fault_of("write", &journal_name(file), error))
    }

    fn fetch_completed(&mut self, event: DeviceEvent, events: &mut Vec<JournalEvent>) {
        let Some(fetch) = self.fetches.in_flight.remove(&event.token) else { return };
        let address = fetch.address;
        let frame = fetch::check(event.outcome, self.owner, address, self.verifies_payload());
        if !fetch.is_second && rare::maybe(Point::ReadAgain) {
            return self.read_frame(address, true);
        }
        if let Err(fault) = &frame
            && !fetch.is_second
        {
            tracing::warn!(%fault, "frame is read once more");
            return self.read_frame(address, true);
        }
        self.files.read_ended(address.file());
        match &frame {
            Ok(_) => self.counters.rereads += u64::from(fetch.is_second),
            Err(fault) => {
                self.counters.damaged += 1;
                tracing::error!(%fault, "frame cannot be read");
            }
        }
        events.push(JournalEvent::Fetched { address, frame });
    }

    fn read_frame(&mut self, address: JournalAddress, is_second: bool) {
        let handle = self.files.handle_of(address.file()).expect("a file stays while it is read");
        let length = usize::try_from(address.frame_bytes()).expect("a frame fits memory");
        let token = self.port.start(Purpose::Fetch, |device, token| {
            device.read(handle, address.file_offset(), length, token);
        });
        self.fetches.in_flight.insert(token, Fetch { address, is_second });
    }

    pub(crate) fn verifies_payload(&self) -> bool {
        #[cfg(any(test, feature = "canary"))]
        if self.config.has(crate::Canary::SkipPayloadChecksum) {
            return false;
        }
        true
    }

    /// Retires condemned files that no recovery can ask for any more; asks for a record when only
    /// that is missing.
    fn retire_condemned(&mut self) {
        if rare::maybe(Point::RetireLate) {
            return;
        }
        let Some(writer) = self.writer.as_mut() else { return };
        let needed = writer.oldest_needed();
        let safe: Vec<FileId> = self.condemned.range(..needed).copied().collect();
        for id in safe {
            self.condemned.remove(&id);
            self.files.retire(id);
        }
        writer.wants_record |= !self.condemned.is_empty();
    }

    /// Work of the journal's own that is due.
    fn work(&mut self, now: Instant) {
        if self.state != State::Open {
            return;
        }
        self.claim.look(&mut self.port, now);
        // What is begun while others may own the directory is harmless, but must not go on.
        if !self.claim.is_valid(now) {
            return;
        }
        self.retire_condemned();
        if self.writer().is_beacon_due(now) {
            self.write_beacon(now);
        }
        let situation = self.situation(now);
        self.files.start_work(&mut self.port, situation);
    }
}

impl<D: Device> journal::Journal for Journal<D> {
    fn claim(&mut self) -> Result<Duration, Fault> {
        self.claim_first()
    }

    fn is_owner(&self, now: Instant) -> bool {
        self.claim.is_valid(now)
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered)) -> Result<Opened, Fault> {
        self.recover_journal(visit)
    }

    fn replay(
        &mut self,
        from: JournalAddress,
        visit: &mut dyn FnMut(Recovered),
    ) -> Result<(), Fault> {
        self.replay_journal(from, visit)
    }

    fn submit(
        &mut self,
        frame: SealedFrame,
        replay_from: Option<JournalAddress>,
        now: Instant,
    ) -> (JournalAddress, Bytes) {
        let _ = now;
        let SealedFrame { number, mut bytes, operation_bytes, containers } = frame;
        let size = bytes.len() as u64;
        assert!(self.can_submit(size), "a frame is submitted only when it can be");
        assert!(size > 0 && size.is_multiple_of(BLOCK_BYTES), "a frame is whole blocks");
        assert_eq!(number, self.writer().next_frame(), "frames are submitted in order");
        self.make_room(size / BLOCK_BYTES, Reserve::Keep);
        let writer = self.writer();
        let header =
            writer.compose(RecordKind::Frame, operation_bytes, containers, replay_from, &mut bytes);
        let bytes = bytes.freeze();
        self.write_record(header, bytes.clone());
        (header.address, bytes)
    }

    fn can_submit(&self, frame_bytes: u64) -> bool {
        self.state == State::Open
            && self.frames_in_flight() < self.config.frames_in_flight_max
            && self.has_place(frame_bytes.div_ceil(BLOCK_BYTES), Reserve::Keep)
    }

    fn room_bytes(&self) -> u64 {
        if self.state != State::Open {
            return 0;
        }
        u64::from(self.tail_blocks(Reserve::Keep)) * BLOCK_BYTES + self.files.prepared_bytes()
    }

    fn fetch(&mut self, address: JournalAddress) {
        self.counters.fetches += 1;
        match self.files.live.get_mut(&address.file()) {
            Some(file) if address.first_block() + address.blocks() <= file.blocks() => {
                file.reads += 1;
                self.read_frame(address, false);
            }
            _ => self.fetches.refused.push((address, fetch::absent(address))),
        }
    }

    fn trim(&mut self, replay_from: JournalAddress, is_referenced: &dyn Fn(FileId) -> bool) {
        if self.state != State::Open {
            return;
        }
        let writer = self.writer();
        writer.note_replay(Some(replay_from));
        let end = replay_from.file().min(writer.tail.file);
        let free = self.files.live.range(..end).map(|(&id, _)| id).filter(|&id| !is_referenced(id));
        self.condemned.extend(free);
        self.retire_condemned();
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<JournalEvent>) {
        for (address, fault) in self.fetches.refused.drain(..) {
            events.push(JournalEvent::Fetched { address, frame: Err(fault) });
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        self.port.poll(&mut arrived);
        let mut failed = None;
        for event in arrived.drain(..) {
            match purpose_of(event.token) {
                Some(Purpose::Record) => failed = self.write_completed(&event).or(failed),
                Some(Purpose::Fetch) => self.fetch_completed(event, events),
                Some(Purpose::Files) => {
                    let (token, outcome) = (event.token, event.outcome);
                    self.files.completed(&mut self.port, token, outcome, now, &mut self.counters);
                }
                Some(Purpose::Claim) => failed = failed.or(self.claim.looked(event)),
                Some(Purpose::Recovery) | None => {}
            }
        }
        self.arrived = arrived;
        if self.state == State::Open {
            let after = self.config.beacon_after;
            let writer = self.writer.as_mut().expect("an open journal has a writer");
            if let Some(through) = writer.settle(now, after, &mut self.counters) {
                events.push(JournalEvent::Durable { through });
            }
            if let Some(fault) = failed {
                tracing::error!(%fault, "journal write failed: nothing more is acknowledged");
                self.counters.poisonings += 1;
                self.state = State::Poisoned;
                events.push(JournalEvent::Failed { fault });
            }
        }
        self.work(now);
        // What was queued since the last turn goes too, should the driver of turns not have done
        // it.
        self.port.device.flush();
    }

    fn next_deadline(&self) -> Option<Instant> {
        // While it looks whose the directory is, nothing else is due.
        if self.state != State::Open || self.claim.is_looking() {
            return None;
        }
        let beacon = self.writer.as_ref().and_then(Writer::beacon_deadline);
        [beacon, self.files.retry_at].into_iter().flatten().min()
    }

    fn frames_in_flight(&self) -> usize {
        self.writer.as_ref().map_or(0, Writer::frames_in_flight)
    }
}
