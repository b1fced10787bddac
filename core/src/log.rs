//! The frames of a shard between an operation and its durability: the open one, those sealed and
//! not handed out, those the journal has and did not report durable.
//!
//! Every operation is written here once, into the open frame. Numbers are given when a frame is
//! opened, one after the other; frames are handed out, submitted and reported durable in that
//! order, which is asserted. A frame holds at most `frame_bytes`; an operation that does not fit
//! into what is left seals it, and one larger than a whole frame gets a frame of its own.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::frame::{ContainerMask, FRAME_HEADER_BYTES, SealedFrame};
use crate::id::ContainerId;
use crate::operation::NEXT_FIELD_POSITION;
use crate::position::{BLOCK_BYTES, FrameNumber};
use crate::slab::SlabPool;

const BLOCK: usize = BLOCK_BYTES as usize;

/// Where an operation was written: the frame and its position in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) frame: FrameNumber,
    pub(crate) position: u32,
}

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct FrameLog {
    slabs: SlabPool,
    frame_bytes: usize,
    /// Number of the open frame, or of the next one to be opened.
    open_number: FrameNumber,
    open: Option<OpenFrame>,
    /// With the bytes of each that are upkeep.
    sealed: VecDeque<(SealedFrame, u64)>,
    /// Handed out or submitted and not durable: operation bytes, oldest first.
    in_flight: VecDeque<InFlight>,
    accepted_bytes: usize,
    /// See [`upkeep_bytes`](Self::upkeep_bytes).
    upkeep_bytes: u64,
    durable_through: FrameNumber,
    submitted_through: FrameNumber,
}

#[derive(Debug)]
struct OpenFrame {
    memory: BytesMut,
    /// Most bytes it may hold; within the capacity of `memory`.
    bytes_max: usize,
    containers: ContainerMask,
    /// Of operations that are parts of checkpoints.
    checkpoint_bytes: usize,
    /// To be handed out even without an operation.
    is_wanted: bool,
}

impl OpenFrame {
    fn is_due(&self) -> bool {
        self.is_wanted || self.memory.len() > FRAME_HEADER_BYTES
    }

    /// What of it is checkpoints: all of it when it holds nothing else.
    fn upkeep_bytes(&self, frame_bytes: usize) -> u64 {
        let holds_work = self.memory.len() > FRAME_HEADER_BYTES + self.checkpoint_bytes;
        (if holds_work { self.checkpoint_bytes } else { frame_bytes }) as u64
    }
}

#[derive(Debug)]
struct InFlight {
    number: FrameNumber,
    operation_bytes: usize,
    upkeep_bytes: u64,
}

impl FrameLog {
    /// Frames of at most `frame_bytes` out of slabs of `slab_bytes`.
    pub(crate) fn new(frame_bytes: usize, slab_bytes: usize) -> Self {
        assert!(frame_bytes >= BLOCK, "a frame has at least a block");
        assert!(frame_bytes.is_multiple_of(BLOCK), "a frame is whole blocks");
        assert!(frame_bytes <= slab_bytes, "a frame fits a slab");
        Self {
            slabs: SlabPool::new(slab_bytes),
            frame_bytes,
            open_number: FrameNumber(1),
            open: None,
            sealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            accepted_bytes: 0,
            upkeep_bytes: 0,
            durable_through: FrameNumber(0),
            submitted_through: FrameNumber(0),
        }
    }

    /// The first frame to be opened gets the number `next`; all before it are durable.
    pub(crate) fn start(&mut self, next: FrameNumber) {
        assert!(self.accepted_bytes == 0, "nothing was written before");
        assert!(next > FrameNumber(0), "frames are numbered from 1");
        self.open_number = next;
        self.durable_through = FrameNumber(next.0 - 1);
        self.submitted_through = self.durable_through;
    }

    /// Writes one operation of exactly `bytes` bytes.
    pub(crate) fn write(
        &mut self,
        container: ContainerId,
        bytes: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Place {
        self.frame_for(bytes);
        let open = self.open.as_mut().expect("it was opened if it was not");
        let position = open.memory.len();
        encode(&mut open.memory);
        assert!(open.memory.len() == position + bytes, "an operation has the size it announced");
        open.containers.insert(container);
        self.accepted_bytes += bytes;
        Place {
            frame: self.open_number,
            position: u32::try_from(position).expect("a frame has less than 4 GiB"),
        }
    }

    /// Writes an operation that is part of a checkpoint, of exactly `bytes` bytes.
    pub(crate) fn write_checkpoint(
        &mut self,
        container: ContainerId,
        bytes: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Place {
        let place = self.write(container, bytes, encode);
        self.open.as_mut().expect("it was just written to").checkpoint_bytes += bytes;
        place
    }

    /// The frame that an operation of `bytes` bytes will go to when it is written next.
    pub(crate) fn frame_for(&mut self, bytes: usize) -> FrameNumber {
        if self.open.as_ref().is_none_or(|open| open.memory.len() + bytes > open.bytes_max) {
            self.open_for(bytes);
        }
        self.open_number
    }

    /// Makes the append operation at `position` of the open frame point to the next one of its
    /// segment, `distance` bytes on.
    pub(crate) fn link(&mut self, frame: FrameNumber, position: u32, distance: u32) {
        assert!(frame == self.open_number, "only the open frame can be patched");
        let open = self.open.as_mut().expect("the frame holds an operation");
        let field = position as usize + NEXT_FIELD_POSITION;
        open.memory[field..field + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// Size of the oldest frame not handed out, padding included.
    pub(crate) fn next_frame_bytes(&self) -> Option<u64> {
        if let Some((frame, _)) = self.sealed.front() {
            return Some(frame.bytes.len() as u64);
        }
        let open = self.open.as_ref().filter(|open| open.is_due())?;
        Some(open.memory.len().next_multiple_of(BLOCK) as u64)
    }

    /// Makes sure that there is a frame to hand out, if need be one without an operation: its
    /// header records the replay position.
    pub(crate) fn want_frame(&mut self) {
        self.frame_for(0);
        self.open.as_mut().expect("it was opened if it was not").is_wanted = true;
    }

    /// Seals the open frame if it holds anything, so that the next operation opens another.
    pub(crate) fn seal_early(&mut self) {
        self.seal_open();
    }

    /// Hands out the oldest frame not handed out.
    pub(crate) fn seal_frame(&mut self) -> Option<SealedFrame> {
        if self.sealed.is_empty() {
            self.seal_open();
        }
        let (frame, upkeep_bytes) = self.sealed.pop_front()?;
        self.in_flight.push_back(InFlight {
            number: frame.number,
            operation_bytes: frame.operation_bytes as usize,
            upkeep_bytes,
        });
        Some(frame)
    }

    /// The journal has the frame.
    pub(crate) fn submitted(&mut self, number: FrameNumber) {
        assert!(number == self.submitted_through.next(), "frames are submitted in order");
        let frame = self.in_flight.iter().find(|frame| frame.number == number);
        self.upkeep_bytes += frame.expect("a frame is handed out first").upkeep_bytes;
        self.submitted_through = number;
    }

    /// Everything up to `through` is durable.
    pub(crate) fn durable(&mut self, through: FrameNumber) {
        assert!(through <= self.submitted_through, "only submitted frames become durable");
        while self.in_flight.front().is_some_and(|frame| frame.number <= through) {
            let frame = self.in_flight.pop_front().expect("it was looked at");
            self.accepted_bytes -= frame.operation_bytes;
        }
        self.durable_through = self.durable_through.max(through);
    }

    /// The newest frame that is durable, with every earlier one.
    pub(crate) fn durable_through(&self) -> FrameNumber {
        self.durable_through
    }

    /// The oldest frame whose address is not known: everything accepted so far that is in no
    /// submitted frame is in this one or a later one.
    pub(crate) fn first_unsubmitted(&self) -> FrameNumber {
        self.submitted_through.next()
    }

    /// Number of the open frame, or of the next one to be opened.
    pub(crate) fn open_number(&self) -> FrameNumber {
        self.open_number
    }

    /// Whether every operation is in a frame whose address is known.
    pub(crate) fn is_all_submitted(&self) -> bool {
        self.next_frame_bytes().is_none() && self.submitted_through.next() == self.open_number
    }

    /// Bytes of submitted frames that are there for checkpoints or for nothing but a header: what a
    /// journal grows by when nobody asks for anything.
    pub(crate) fn upkeep_bytes(&self) -> u64 {
        self.upkeep_bytes
    }

    /// Bytes of operations that the journal does not have.
    pub(crate) fn unsubmitted_bytes(&self) -> usize {
        let in_flight: usize = self.in_flight.iter().map(|frame| frame.operation_bytes).sum();
        self.accepted_bytes - in_flight
    }

    /// Bytes of operations that are not durable.
    pub(crate) fn accepted_bytes(&self) -> usize {
        self.accepted_bytes
    }

    fn open_for(&mut self, operation_bytes: usize) {
        self.seal_open();
        let needed = FRAME_HEADER_BYTES + operation_bytes;
        // Less than an eighth of a frame at the end of a slab is not worth a small frame.
        let mut memory = self.slabs.take(needed.max(self.frame_bytes / 8).next_multiple_of(BLOCK));
        let bytes_max = if needed > self.frame_bytes {
            needed
        } else {
            (memory.capacity() / BLOCK * BLOCK).min(self.frame_bytes)
        };
        assert!(bytes_max <= memory.capacity(), "a frame stays in its memory");
        memory.resize(FRAME_HEADER_BYTES, 0);
        let containers = ContainerMask::default();
        self.open = Some(OpenFrame {
            memory,
            bytes_max,
            containers,
            checkpoint_bytes: 0,
            is_wanted: false,
        });
    }

    fn seal_open(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        if !open.is_due() {
            // Opened for an operation that turned out larger than what is left of it.
            open.memory.clear();
            self.slabs.give_back(open.memory);
            return;
        }
        let operation_bytes = open.memory.len() - FRAME_HEADER_BYTES;
        let frame_bytes = open.memory.len().next_multiple_of(BLOCK);
        let upkeep_bytes = open.upkeep_bytes(frame_bytes);
        open.memory.resize(frame_bytes, 0);
        let bytes = open.memory.split();
        self.slabs.give_back(open.memory);
        let frame = SealedFrame {
            number: self.open_number,
            bytes,
            operation_bytes: u32::try_from(operation_bytes).expect("a frame has less than 4 GiB"),
            containers: open.containers,
        };
        self.sealed.push_back((frame, upkeep_bytes));
        self.open_number = self.open_number.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &mut FrameLog, bytes: usize) -> Place {
        log.write(ContainerId(3), bytes, |out| out.resize(out.len() + bytes, 9))
    }

    /// Shows that an operation that does not fit seals the frame, and an oversized one stands
    /// alone.
    #[test]
    fn operations_go_to_frames_that_hold_them() {
        let mut log = FrameLog::new(8192, 16384);
        log.start(FrameNumber(5));
        assert_eq!(log.next_frame_bytes(), None);
        assert_eq!(write(&mut log, 100).position, 128);
        assert_eq!(write(&mut log, 8192 - 228).frame, FrameNumber(5));
        assert_eq!(write(&mut log, 16).frame, FrameNumber(6));
        assert_eq!(write(&mut log, 100_000).frame, FrameNumber(7));
        assert_eq!(write(&mut log, 16).frame, FrameNumber(8));
        let sizes: Vec<usize> =
            std::iter::from_fn(|| log.seal_frame()).map(|frame| frame.bytes.len()).collect();
        assert_eq!(sizes, [8192, 4096, 100_128usize.next_multiple_of(4096), 4096]);
        assert_eq!(log.accepted_bytes(), 100 + 8192 - 228 + 16 + 100_000 + 16);
        for number in 5..9 {
            log.submitted(FrameNumber(number));
        }
        log.durable(FrameNumber(8));
        assert_eq!(log.accepted_bytes(), 0);
    }

    /// Shows that a frame without an operation is handed out when it is wanted, and only then.
    #[test]
    fn an_empty_frame_is_handed_out_only_when_wanted() {
        let mut log = FrameLog::new(4096, 4096);
        log.start(FrameNumber(1));
        log.frame_for(0);
        assert_eq!(log.next_frame_bytes(), None);
        assert!(log.seal_frame().is_none());
        log.want_frame();
        assert_eq!(log.next_frame_bytes(), Some(4096));
        let frame = log.seal_frame().expect("it is wanted");
        assert_eq!(
            (frame.number, frame.operation_bytes, frame.bytes.len()),
            (FrameNumber(1), 0, 4096)
        );
        assert_eq!(write(&mut log, 10).frame, FrameNumber(2));
    }

    /// Shows that used memory does not shine through: header and padding are zero.
    #[test]
    fn header_and_padding_are_zero_in_reused_memory() {
        let mut log = FrameLog::new(4096, 4096);
        for number in 1..6 {
            write(&mut log, 500 * number);
            let frame = log.seal_frame().expect("an operation was written");
            let end = FRAME_HEADER_BYTES + 500 * number;
            assert!(frame.bytes[..FRAME_HEADER_BYTES].iter().all(|&byte| byte == 0));
            assert!(frame.bytes[FRAME_HEADER_BYTES..end].iter().all(|&byte| byte == 9));
            assert!(frame.bytes[end..].iter().all(|&byte| byte == 0));
        }
    }

    /// Shows that nothing becomes durable that the journal never got.
    #[test]
    #[should_panic(expected = "only submitted frames become durable")]
    fn unsubmitted_frames_cannot_become_durable() {
        let mut log = FrameLog::new(4096, 4096);
        write(&mut log, 10);
        drop(log.seal_frame());
        log.durable(FrameNumber(1));
    }
}
