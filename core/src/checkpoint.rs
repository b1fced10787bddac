//! Checkpoints: a snapshot of a container in its own log, so that recovery need not go back
//! further, and the journal can be trimmed.
//!
//! A snapshot is encoded in one go right after a submission, preferably when no accepted operation
//! is outside a submitted frame; then its parts go into the following frames, at most one per
//! frame, so that appends are not held up. When the last part is durable, the oldest frame that was
//! not submitted at the snapshot becomes the container's replay position. A container writes
//! checkpoints also when nothing in it changed, as others work: its last one would keep old journal
//! files alive.
//! One that never held an operation writes none and needs no frame. Byte tables: `docs/formats.md`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::container::{Container, ContainerState, Shared};
use crate::index::{Extent, Origin};
use crate::limits::Limits;
use crate::operation::{CheckpointPart, Operation, put_attributes, put_kind, put_name};
use crate::position::{FileId, FrameNumber, JournalAddress, SequenceNumber};
use crate::rare::{self, Point};
use crate::request::SegmentKind;
use crate::segment::Segment;

/// First field of a snapshot.
pub(crate) const SNAPSHOT_FORMAT: u16 = 1;
pub(crate) const FLAG_TRANSIENT: u16 = 1;
pub(crate) const FLAG_SEALED: u16 = 2;

/// The oldest frame that recovery needs for a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplayFrom {
    /// None: nothing was ever recorded.
    #[default]
    Nothing,
    /// One whose address is not known yet.
    Frame(FrameNumber),
    At(JournalAddress),
}

/// How far a container's checkpoints are.
#[derive(Debug, Default)]
pub(crate) struct CheckpointState {
    replay_from: ReplayFrom,
    /// [`Shared::work_bytes`] when the last snapshot was taken.
    begun_at: u64,
    /// Size of the last snapshot.
    last_bytes: u64,
    /// The next snapshot is due at once.
    is_hastened: bool,
    running: Option<Running>,
}

/// A snapshot whose parts are not all durable.
#[derive(Debug)]
struct Running {
    snapshot: SequenceNumber,
    replay_from: FrameNumber,
    /// Of `replay_from`, once it is submitted.
    address: Option<JournalAddress>,
    /// What is not written yet.
    rest: Bytes,
    next_part: u32,
    part_count: u32,
    written_in: Option<FrameNumber>,
}

impl CheckpointState {
    /// What recovery found.
    pub(crate) fn recovered(replay_from: ReplayFrom, begun_at: u64, last_bytes: u64) -> Self {
        Self { replay_from, begun_at, last_bytes, is_hastened: false, running: None }
    }

    /// An operation was recorded in `frame`.
    pub(crate) fn needs(&mut self, frame: FrameNumber) {
        if self.replay_from == ReplayFrom::Nothing {
            self.replay_from = ReplayFrom::Frame(frame);
        }
    }

    /// A frame got its address.
    pub(crate) fn submitted(&mut self, number: FrameNumber, address: JournalAddress) {
        if self.replay_from == ReplayFrom::Frame(number) {
            self.replay_from = ReplayFrom::At(address);
        }
        if let Some(running) = &mut self.running
            && running.replay_from == number
        {
            running.address = Some(address);
        }
    }

    /// Frames up to `through` are durable.
    pub(crate) fn durable(&mut self, through: FrameNumber) {
        let is_complete = |running: &Running| {
            running.rest.is_empty() && running.written_in.is_some_and(|frame| frame <= through)
        };
        if let Some(running) = self.running.take_if(|running| is_complete(running)) {
            let address = running.address.expect("a durable frame was submitted");
            if let ReplayFrom::At(earlier) = self.replay_from {
                assert!(address >= earlier, "the replay position only grows");
            }
            self.replay_from = ReplayFrom::At(address);
        }
    }

    /// The container is damaged: a recovery must begin no later than the one that found this out.
    pub(crate) fn hold(&mut self, visited_from: Option<JournalAddress>) {
        let own = self.replay_position();
        let held = visited_from.map(|from| own.map_or(from, |own| own.min(from)));
        self.replay_from = held.map_or(self.replay_from, ReplayFrom::At);
    }

    /// Makes a snapshot due if it would let go of a file older than `newest`.
    pub(crate) fn hasten(&mut self, newest: FileId) {
        self.is_hastened = self.replay_position().is_some_and(|position| position.file() < newest);
    }

    /// The oldest frame needed, if it has an address.
    pub(crate) fn replay_position(&self) -> Option<JournalAddress> {
        match self.replay_from {
            ReplayFrom::At(address) => Some(address),
            // Not submitted: the next frame to be submitted is not behind it.
            ReplayFrom::Nothing | ReplayFrom::Frame(_) => None,
        }
    }

    /// Whether a snapshot should be taken, when `work_bytes` were written in all.
    fn is_due(&self, limits: &Limits, work_bytes: u64, is_settled: bool) -> bool {
        if self.running.is_some() || self.replay_from == ReplayFrom::Nothing {
            return false;
        }
        if rare::maybe(Point::CheckpointNow) {
            return true;
        }
        if self.is_hastened {
            return is_settled;
        }
        // Four times the snapshot: a container's checkpoints take at most a fifth of the journal.
        let interval = limits.checkpoint_interval_bytes.max(4 * self.last_bytes);
        let grown = work_bytes - self.begun_at;
        grown >= interval && (is_settled || grown >= 2 * interval)
    }
}

impl Shared {
    /// Journal bytes but for checkpoints: were those counted, the checkpoints of several containers
    /// would make one another due without end.
    fn work_bytes(&self) -> u64 {
        self.journal_bytes - self.log.upkeep_bytes()
    }
}

impl Container {
    /// Takes a snapshot if one is due. Returns whether it did.
    pub(crate) fn begin_checkpoint(&mut self, shared: &mut Shared) -> bool {
        let first_unsubmitted = shared.log.first_unsubmitted();
        let is_settled = shared.log.is_all_submitted();
        let is_due = self.checkpoint.is_due(&shared.limits, shared.work_bytes(), is_settled);
        if self.state != ContainerState::Serving || !is_due {
            return false;
        }
        let replay_from = match self.checkpoint.replay_from {
            // Older frames hold other containers' operations only.
            ReplayFrom::Frame(first) => first,
            ReplayFrom::Nothing | ReplayFrom::At(_) => first_unsubmitted,
        };
        let rest = self.encode_snapshot();
        let part_bytes = shared.limits.checkpoint_part_bytes;
        let part_count = rest.len().div_ceil(part_bytes);
        self.checkpoint.is_hastened = false;
        self.checkpoint.begun_at = shared.work_bytes();
        self.checkpoint.last_bytes = rest.len() as u64;
        self.checkpoint.running = Some(Running {
            snapshot: self.sequence_number,
            replay_from,
            address: None,
            rest,
            next_part: 0,
            part_count: u32::try_from(part_count).expect("memory holds fewer parts"),
            written_in: None,
        });
        true
    }

    /// Writes the next part of a snapshot, if the open frame has none of this container yet.
    pub(crate) fn write_checkpoint_part(&mut self, shared: &mut Shared) {
        let Some(running) = &mut self.checkpoint.running else { return };
        if running.rest.is_empty() || running.written_in == Some(shared.log.open_number()) {
            return;
        }
        let length = running.rest.len().min(shared.limits.checkpoint_part_bytes);
        let mut part = CheckpointPart {
            snapshot: running.snapshot,
            frames_back: 0,
            index: running.next_part,
            count: running.part_count,
            bytes: running.rest.split_to(length),
        };
        let operation_bytes = Operation::Checkpoint(part.clone()).encoded_bytes();
        let frame = shared.log.frame_for(operation_bytes);
        if part.index == 0 {
            part.frames_back = frame.0 - running.replay_from.0;
        }
        running.next_part += 1;
        running.written_in = Some(frame);
        assert!(running.next_part <= running.part_count, "a snapshot has the parts it announced");
        self.sequence_number = self.sequence_number.next();
        let (id, sequence_number) = (self.id, self.sequence_number);
        let place = shared.log.write_checkpoint(id, operation_bytes, |out| {
            Operation::Checkpoint(part).encode(id, sequence_number, None, out);
        });
        assert!(place.frame == frame, "an operation goes to the frame that was named");
    }

    /// The whole accepted state.
    pub(crate) fn encode_snapshot(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u16_le(SNAPSHOT_FORMAT);
        out.put_u64_le(self.next_segment);
        put_count(self.segments.all().len(), &mut out);
        for segment in self.segments.all() {
            encode_segment(segment, &mut out);
        }
        out.freeze()
    }
}

fn encode_segment(segment: &Segment, out: &mut BytesMut) {
    let table = segment.table.as_deref();
    let kind = table
        .map_or(SegmentKind::Stream, |table| SegmentKind::Table { key_length: table.key_length() });
    let transient = if segment.is_transient { FLAG_TRANSIENT } else { 0 };
    let sealed = if segment.is_sealed { FLAG_SEALED } else { 0 };
    out.put_u64_le(segment.id.0);
    put_kind(kind, out);
    out.put_u16_le(transient | sealed);
    put_name(&segment.name, out);
    out.put_u64_le(segment.start_offset.0);
    out.put_u64_le(segment.length.0);
    out.put_i64_le(segment.last_modified);
    put_attributes(&segment.attributes.all(), out);
    put_count(segment.index.extents().len(), out);
    for extent in segment.index.extents() {
        encode_extent(extent, out);
    }
    put_count(segment.index.origins().len(), out);
    for origin in segment.index.origins() {
        encode_origin(origin, out);
    }
    if let Some(table) = table {
        table.encode_snapshot(out);
    }
}

fn encode_extent(extent: &Extent, out: &mut BytesMut) {
    out.put_u64_le(extent.offset.0);
    out.put_u64_le(extent.frame.to_bits());
    out.put_u32_le(extent.position);
    out.put_u32_le(extent.length);
}

fn encode_origin(origin: &Origin, out: &mut BytesMut) {
    out.put_u64_le(origin.start.0);
    out.put_u64_le(origin.end.0);
    out.put_u64_le(origin.segment.0);
    out.put_u64_le(origin.base.0);
}

fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(count).expect("memory holds fewer"));
}
