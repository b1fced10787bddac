//! The engine of one shard: its containers, the open frame, the caches. Being built: the signatures
//! are final, the bodies follow.

use bytes::Bytes;

use crate::env::journal::{Opened, Recovered};
use crate::fault::Fault;
use crate::frame::SealedFrame;
use crate::id::{ContainerId, ShardId, Token};
use crate::limits::Limits;
use crate::position::{FileId, FrameNumber, JournalAddress};
use crate::request::{CloseReason, Effect, Peer, Request};
use crate::time::{Instant, Now};

/// A shard's state machine. Lives on the shard's thread; made again after a journal failure.
#[derive(Debug)]
pub struct Engine {
    shard: ShardId,
    containers: Vec<ContainerId>,
    limits: Limits,
}

impl Engine {
    /// An engine that has not recovered yet; `containers` are those of this shard.
    pub fn new(shard: ShardId, containers: &[ContainerId], limits: Limits) -> Self {
        Self { shard, containers: containers.to_vec(), limits }
    }

    /// First pass of recovery: what [`Journal::recover`](crate::env::journal::Journal::recover)
    /// visits, in order.
    pub fn recovered(&mut self, found: Recovered) {
        drop(found);
    }

    /// After the first pass: where the second has to begin; `None` when there is nothing to replay.
    pub fn replay_start(&self) -> Option<JournalAddress> {
        None
    }

    /// Second pass of recovery: what [`Journal::replay`](crate::env::journal::Journal::replay)
    /// visits, in order.
    pub fn replayed(&mut self, found: Recovered) {
        drop(found);
    }

    /// Ends recovery. From here on requests are served; damaged containers announce themselves with
    /// [`Effect::Halt`].
    pub fn open(&mut self, opened: Opened, now: Now, effects: &mut Vec<Effect>) {
        let _ = (opened, now, effects);
    }

    /// Handles one request. It is answered exactly once, now or later.
    pub fn request(
        &mut self,
        now: Now,
        container: ContainerId,
        token: Token,
        request: Request,
        effects: &mut Vec<Effect>,
    ) {
        let _ = (now, container, request);
        effects.push(Effect::Close { token, reason: CloseReason::Unavailable });
    }

    /// A connection is gone: its sessions end, its parked reads are forgotten, its transient segments
    /// are deleted.
    pub fn connection_closed(&mut self, now: Now, peer: Peer, effects: &mut Vec<Effect>) {
        let _ = (now, peer, effects);
    }

    /// A frame asked for with [`Effect::Fetch`] arrived, or not.
    pub fn fetched(
        &mut self,
        now: Now,
        address: JournalAddress,
        frame: Result<Bytes, Fault>,
        effects: &mut Vec<Effect>,
    ) {
        let _ = (now, address, frame, effects);
    }

    /// Does what is due at `now`: gives up reads that were parked too long.
    pub fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let _ = (now, effects);
    }

    /// When [`tick`](Self::tick) is due, if nothing else happens first.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Size in bytes, header and padding included, of the oldest frame not handed out yet: sealed
    /// ones first, then the open one if it holds an operation.
    pub fn next_frame_bytes(&self) -> Option<u64> {
        None
    }

    /// Hands out the oldest frame not handed out yet, sealing the open one if it is that.
    pub fn seal_frame(&mut self) -> Option<SealedFrame> {
        None
    }

    /// The journal took frame `number`: it lies at `address`, and `bytes` is its final content. Must
    /// follow each [`seal_frame`](Self::seal_frame), in the same order.
    pub fn submitted(&mut self, number: FrameNumber, address: JournalAddress, bytes: Bytes) {
        let _ = (number, address, bytes);
    }

    /// All frames up to `through` are durable: releases what waited for them.
    pub fn durable(&mut self, now: Now, through: FrameNumber, effects: &mut Vec<Effect>) {
        let _ = (now, through, effects);
    }

    /// Bytes of operations accepted and not durable yet.
    pub fn accepted_bytes(&self) -> usize {
        0
    }

    /// The oldest frame that a recovery needs; `None` when none before the next one to be submitted.
    /// To be asked right before each submission.
    pub fn replay_position(&self) -> Option<JournalAddress> {
        None
    }

    /// Whether a live segment has bytes in this journal file.
    pub fn is_referenced(&self, file: FileId) -> bool {
        let _ = (file, self.shard, &self.containers, &self.limits);
        true
    }
}
