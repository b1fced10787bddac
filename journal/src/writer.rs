//! Records on their way to disk: the chain of headers, what is in flight, what is durable.
//!
//! Composes headers, keeps the order in which durability is reported, and knows when a beacon is
//! due. Does no input or output. Every record carries the checksum of the header before it, the
//! newest record known durable, and the replay position; all three only grow.

use std::collections::VecDeque;
use std::time::Duration;

use thalweg_core::env::device::OperationToken;
use thalweg_core::frame::ContainerMask;
use thalweg_core::position::{ContainerEpoch, FileId, FrameNumber, JournalAddress};
use thalweg_core::rare::{self, Point};
use thalweg_core::time::Instant;

use crate::counters::Counters;
use crate::layout::{
    Checksum, FileStart, Owner, RecordHeader, RecordKind, Sequence, payload_checksum,
};

/// Something written and not known durable.
#[derive(Debug)]
struct InFlight {
    token: OperationToken,
    is_done: bool,
    file: FileId,
    item: Item,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    FileHeader,
    Record(RecordHeader),
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) file: FileId,
    pub(crate) block: u32,
    /// Size of the file in blocks.
    pub(crate) blocks: u32,
}

/// State of the chain that a recovery hands over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainEnd {
    pub(crate) next: Sequence,
    pub(crate) last_frame: FrameNumber,
    pub(crate) checksum: Checksum,
    pub(crate) containers: ContainerMask,
    pub(crate) replay: Option<JournalAddress>,
}

/// The records of one opening.
#[derive(Debug)]
pub(crate) struct Writer {
    owner: Owner,
    pub(crate) epoch: ContainerEpoch,
    pub(crate) tail: Tail,
    next: Sequence,
    last_frame: FrameNumber,
    last_checksum: Checksum,
    last_containers: ContainerMask,
    /// Every record up to this one is durable.
    pub(crate) durable_upto: Sequence,
    in_flight: VecDeque<InFlight>,
    frames_in_flight: usize,
    /// Newest replay position told, by a frame or by a trim.
    replay: Option<JournalAddress>,
    /// Replay positions in the last two durable records, the older first. Files before the older
    /// one may go: if the newest record is damaged, recovery falls back to the one before.
    recorded: [Option<JournalAddress>; 2],
    /// A durable frame that no record tells to be durable yet.
    owes_beacon: bool,
    beacon_at: Option<Instant>,
    /// A trim waits for its replay position to be recorded.
    pub(crate) wants_record: bool,
}

impl Writer {
    pub(crate) fn new(owner: Owner, epoch: ContainerEpoch, tail: Tail, end: ChainEnd) -> Self {
        Self {
            owner,
            epoch,
            tail,
            next: end.next,
            last_frame: end.last_frame,
            last_checksum: end.checksum,
            last_containers: end.containers,
            durable_upto: end.next.before(),
            in_flight: VecDeque::new(),
            frames_in_flight: 0,
            replay: end.replay,
            recorded: [end.replay; 2],
            owes_beacon: false,
            beacon_at: None,
            wants_record: false,
        }
    }

    /// Number that the next frame must have.
    pub(crate) fn next_frame(&self) -> FrameNumber {
        self.last_frame.next()
    }

    /// Sequence of the next record.
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.next
    }

    pub(crate) fn frames_in_flight(&self) -> usize {
        self.frames_in_flight
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Start of a file in which the chain goes on with the next record.
    pub(crate) fn file_start(&self) -> FileStart {
        FileStart {
            first: self.next,
            first_frame: self.last_frame.next(),
            durable_upto: self.durable_upto,
            previous_checksum: self.last_checksum,
        }
    }

    /// A replay position was told. Positions only grow; a late one is ignored.
    pub(crate) fn note_replay(&mut self, position: Option<JournalAddress>) {
        self.replay = self.replay.max(position);
    }

    /// Oldest file that a recovery may still need, whichever of the last two durable records it
    /// finds.
    pub(crate) fn oldest_needed(&self) -> FileId {
        self.recorded[0].map_or(FileId(0), JournalAddress::file)
    }

    /// Places `blocks` blocks at the tail and fills the header in `bytes`. The chain moves on.
    ///
    /// # Panics
    /// When the file has no room for it.
    pub(crate) fn compose(
        &mut self,
        kind: RecordKind,
        operation_bytes: u32,
        containers: ContainerMask,
        replay: Option<JournalAddress>,
        bytes: &mut [u8],
    ) -> RecordHeader {
        let blocks = u32::try_from(bytes.len() / crate::layout::BLOCK).expect("a frame is small");
        assert!(self.tail.block + blocks <= self.tail.blocks, "a record fits its file");
        if kind == RecordKind::Frame {
            self.last_frame = self.last_frame.next();
        }
        // What was told before, by a trim, holds for this record too.
        let replay = replay.map(|position| self.replay.map_or(position, |old| old.max(position)));
        let header = RecordHeader {
            owner: self.owner,
            kind,
            address: JournalAddress::new(self.tail.file, self.tail.block, blocks),
            epoch: self.epoch,
            sequence: self.next,
            frame: self.last_frame,
            durable_upto: self.durable_upto,
            replay,
            containers,
            previous_containers: self.last_containers,
            operation_bytes,
            payload_checksum: payload_checksum(bytes),
            previous_checksum: self.last_checksum,
        };
        assert!(header.durable_upto < header.sequence, "nothing is durable before it is written");
        self.last_checksum = header.encode(bytes);
        self.last_containers = containers;
        self.next = self.next.next();
        self.tail.block += blocks;
        self.note_replay(Some(header.replay_address()).filter(|_| kind == RecordKind::Frame));
        // This record tells everything durable so far.
        self.owes_beacon = false;
        header
    }

    /// The replay position for a record of the journal's own.
    pub(crate) fn replay(&self) -> Option<JournalAddress> {
        self.replay
    }

    pub(crate) fn record_submitted(&mut self, token: OperationToken, header: RecordHeader) {
        self.frames_in_flight += usize::from(header.kind == RecordKind::Frame);
        let file = header.address.file();
        self.in_flight.push_back(InFlight {
            token,
            is_done: false,
            file,
            item: Item::Record(header),
        });
    }

    pub(crate) fn header_submitted(&mut self, token: OperationToken, file: FileId) {
        self.in_flight.push_back(InFlight { token, is_done: false, file, item: Item::FileHeader });
    }

    /// A write ended; gives the file it went to.
    pub(crate) fn completed(&mut self, token: OperationToken, is_durable: bool) -> Option<FileId> {
        let entry = self.in_flight.iter_mut().find(|entry| entry.token == token)?;
        entry.is_done = is_durable;
        Some(entry.file)
    }

    /// The opening record is durable.
    pub(crate) fn opened(&mut self, header: &RecordHeader) {
        assert!(self.in_flight.is_empty(), "nothing is in flight before the opening");
        self.durable_upto = header.sequence;
        self.recorded = [Some(header.replay_address()); 2];
    }

    /// Moves `durable_upto` over everything that is durable without a gap; gives the newest frame
    /// among it.
    pub(crate) fn settle(
        &mut self,
        now: Instant,
        beacon_after: Duration,
        counters: &mut Counters,
    ) -> Option<FrameNumber> {
        let mut newest = None;
        while self.in_flight.front().is_some_and(|entry| entry.is_done) {
            let entry = self.in_flight.pop_front().expect("there is a front");
            counters.syncs += 1;
            let Item::Record(header) = entry.item else { continue };
            assert_eq!(header.sequence, self.durable_upto.next(), "durable in order");
            self.durable_upto = header.sequence;
            self.recorded = [self.recorded[1], Some(header.replay_address())];
            if header.kind == RecordKind::Frame {
                self.frames_in_flight -= 1;
                counters.frames += 1;
                counters.frame_bytes += header.address.frame_bytes();
                newest = Some(header.frame);
                self.owes_beacon = true;
                self.beacon_at = Some(now.after(beacon_after));
            } else {
                counters.beacons += 1;
            }
        }
        newest
    }

    /// Whether a beacon is to be written now.
    pub(crate) fn is_beacon_due(&self, now: Instant) -> bool {
        self.is_idle()
            && (self.wants_record
                || (self.owes_beacon && self.beacon_at.is_some_and(|at| at <= now))
                || (self.owes_beacon && rare::maybe(Point::BeaconNow)))
    }

    /// There is no place for a beacon: tried again in a second.
    pub(crate) fn postpone_beacon(&mut self, now: Instant) {
        self.beacon_at = Some(now.after(Duration::from_secs(1)));
    }

    /// When a beacon becomes due.
    pub(crate) fn beacon_deadline(&self) -> Option<Instant> {
        self.beacon_at.filter(|_| self.owes_beacon && self.is_idle())
    }
}
