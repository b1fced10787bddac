//! Durable frames in order: the contract between a shard and its journal.
//!
//! One journal serves all containers of a shard. A frame is the unit of durability: its operations
//! are durable together or not at all. Frames become durable in the order submitted.

use std::time::Duration;

use bytes::Bytes;

use crate::fault::Fault;
use crate::frame::SealedFrame;
use crate::id::ContainerId;
use crate::position::{ContainerEpoch, FileId, FrameNumber, JournalAddress};
use crate::time::Instant;

/// What happened in the journal since the last poll.
#[derive(Debug)]
pub enum JournalEvent {
    /// This frame and every earlier one are durable.
    Durable {
        /// The newest durable frame.
        through: FrameNumber,
    },
    /// What [`Journal::fetch`] asked for: the whole frame as submitted, its checksums verified; or
    /// why not ([`FaultClass::Corrupt`](crate::fault::FaultClass::Corrupt) names file and offset).
    Fetched {
        /// The frame's address.
        address: JournalAddress,
        /// Its bytes, header included.
        frame: Result<Bytes, Fault>,
    },
    /// A write or sync failed: no later frame will ever be reported durable. The shard drops
    /// whatever was not durable, closes its connections and calls [`Journal::recover`] again.
    Failed {
        /// What failed.
        fault: Fault,
    },
}

/// One frame found in recovery.
#[derive(Debug)]
pub enum Recovered {
    /// A good frame.
    Frame {
        /// Where it lies.
        address: JournalAddress,
        /// Its number.
        number: FrameNumber,
        /// Its bytes, header included, checksums verified.
        bytes: Bytes,
    },
    /// A frame that was acknowledged and cannot be read any more. The containers that may have had
    /// operations in it must refuse to serve.
    Damaged {
        /// Which containers; empty when that is not known: all of them.
        containers: Vec<ContainerId>,
        /// What is wrong, naming file and offset.
        fault: Fault,
    },
}

/// Result of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The epoch that this opening raised, durable.
    pub epoch: ContainerEpoch,
    /// The number that the next submitted frame will have.
    pub next_frame: FrameNumber,
    /// Where this recovery began to visit frames; `None` when there was none. A recovery that does
    /// not begin later meets the same damage again.
    pub visited_from: Option<JournalAddress>,
    /// Unacknowledged bytes that were cut from the tail.
    pub tail_cut_bytes: u64,
}

/// Durable frames in order. Calls do not block, recovery excepted; completions arrive by
/// [`poll`](Self::poll).
pub trait Journal {
    /// Takes the journal over from whoever had it; once, before the first
    /// [`recover`](Self::recover). Gives how long its former owner may still answer: `recover` must
    /// not be called earlier. Nothing to do, and no time, where a lock keeps other owners away.
    ///
    /// # Errors
    /// When the device fails.
    fn claim(&mut self) -> Result<Duration, Fault> {
        Ok(Duration::ZERO)
    }

    /// Whether at `now`, read just before, nobody else can have taken the journal over and looked
    /// at it. What is answered while this says no may be old; it must wait.
    fn is_owner(&self, now: Instant) -> bool {
        let _ = now;
        true
    }

    /// Finds the end of the journal, cuts what was not acknowledged, makes a new epoch durable and
    /// readies the journal for [`submit`](Self::submit). Every frame from the newest recorded
    /// replay position on is given to `visit`, oldest first. Blocks. Called once at start, and
    /// again after [`JournalEvent::Failed`]; then nothing that was not reported durable comes back.
    ///
    /// # Errors
    /// When no journal can be served at all: not readable, another format, fenced by a newer epoch.
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered)) -> Result<Opened, Fault>;

    /// Reads the frames from `from` to the end once more, oldest first, after
    /// [`recover`](Self::recover). Blocks.
    ///
    /// # Errors
    /// When the device fails.
    fn replay(
        &mut self,
        from: JournalAddress,
        visit: &mut dyn FnMut(Recovered),
    ) -> Result<(), Fault>;

    /// Writes a frame. `replay_from` is the oldest frame that a recovery will need once this frame
    /// is durable (`None`: this very frame). Fills the frame's header and returns where the frame
    /// lies and its final bytes, which the caller may serve reads from once it is durable.
    ///
    /// # Panics
    /// When [`can_submit`](Self::can_submit) said no.
    fn submit(
        &mut self,
        frame: SealedFrame,
        replay_from: Option<JournalAddress>,
        now: Instant,
    ) -> (JournalAddress, Bytes);

    /// Whether a frame of `frame_bytes` (header and padding included) can be taken now: the number
    /// of frames in flight and the prepared space decide.
    fn can_submit(&self, frame_bytes: u64) -> bool;

    /// Bytes that can still be journaled before the budget or the disk is exhausted; files that
    /// are being prepared do not count.
    fn room_bytes(&self) -> u64;

    /// Reads a frame back; it arrives as [`JournalEvent::Fetched`].
    fn fetch(&mut self, address: JournalAddress);

    /// Says which files are still needed: every file from `replay_from` on, and those for which
    /// `is_referenced` says so. The others are recycled.
    fn trim(&mut self, replay_from: JournalAddress, is_referenced: &dyn Fn(FileId) -> bool);

    /// Moves what happened into `events`: durability in order, fetches as they complete. Starts the
    /// journal's own work that is due (beacon, preparing files).
    fn poll(&mut self, now: Instant, events: &mut Vec<JournalEvent>);

    /// When [`poll`](Self::poll) must be called even if nothing completes.
    fn next_deadline(&self) -> Option<Instant>;

    /// Frames submitted and not yet durable.
    fn frames_in_flight(&self) -> usize;
}
