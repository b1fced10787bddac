//! The engine of one shard: its containers, the frames they share, and the inputs that drive them.
//!
//! Every input is handled to its end before the next; what must happen outside is pushed to
//! `effects`. Nothing here decides about a segment: containers do. What this file keeps true:
//! inputs reach the container they are for, frames become durable in order, and no container serves
//! before recovery ended. After a failure of the journal the engine is dropped and a new one
//! recovers.

use bytes::Bytes;

use crate::cache::{HistoryCache, TailCache};
use crate::container::{Container, ContainerState, Shared};
use crate::env::journal::{Opened, Recovered};
use crate::fault::Fault;
use crate::fetch::Fetches;
use crate::frame::SealedFrame;
use crate::holdings::Holdings;
use crate::id::{ContainerId, ShardId, Token};
use crate::index::FileReferences;
use crate::limits::{CONTAINERS_MAX, Limits};
use crate::log::FrameLog;
use crate::position::{FileId, FrameNumber, JournalAddress};
use crate::read::empty;
use crate::recovery::Recovery;
use crate::request::{CloseReason, Effect, Peer, Refusal, Request};
use crate::tail::ParkedReads;
use crate::time::{Instant, Now};

/// A shard's state machine. Lives on the shard's thread; made again after a journal failure.
#[derive(Debug)]
pub struct Engine {
    shard: ShardId,
    containers: Vec<Container>,
    shared: Shared,
    newest_file: FileId,
    /// A damaged container may have bytes in any file.
    keeps_all_files: bool,
    /// Until [`open`](Self::open).
    recovery: Option<Recovery>,
}

impl Engine {
    /// An engine that has not recovered yet; `containers` are those of this shard.
    ///
    /// # Panics
    /// When there are more than [`CONTAINERS_MAX`] containers, one is named twice, or a limit is
    /// impossible: a frame is whole blocks and fits a slab, a checkpoint part is not empty.
    pub fn new(shard: ShardId, containers: &[ContainerId], limits: Limits) -> Self {
        assert!(containers.len() <= usize::from(CONTAINERS_MAX), "too many containers");
        assert!(limits.checkpoint_part_bytes > 0, "a checkpoint part is not empty");
        for (index, container) in containers.iter().enumerate() {
            assert!(!containers[..index].contains(container), "a container is named once");
        }
        let shared = Shared {
            log: FrameLog::new(limits.frame_bytes, limits.slab_bytes),
            tail: TailCache::new(limits.tail_cache_bytes),
            history: HistoryCache::new(limits.history_cache_bytes),
            files: FileReferences::default(),
            parked: ParkedReads::default(),
            fetches: Fetches::default(),
            journal_bytes: 0,
            limits,
        };
        let named = containers.iter().enumerate();
        let containers: Vec<Container> =
            named.map(|(number, id)| Container::new(*id, number)).collect();
        let recovery = Some(Recovery::new(containers.len()));
        Self {
            shard,
            containers,
            shared,
            newest_file: FileId::default(),
            keeps_all_files: false,
            recovery,
        }
    }

    /// First pass of recovery: what [`Journal::recover`](crate::env::journal::Journal::recover)
    /// visits, in order. Also warms the cache with the newest frames.
    ///
    /// # Panics
    /// After [`replayed`](Self::replayed) or [`open`](Self::open).
    pub fn recovered(&mut self, found: Recovered) {
        let recovery = self.recovery.as_mut().expect("recovery is not over");
        match found {
            Recovered::Frame { address, number, bytes } => {
                recovery.frame(number, address, &bytes, |id| place(&self.containers, id));
                self.newest_file = self.newest_file.max(address.file());
                self.shared.tail.push(address, bytes);
            }
            Recovered::Damaged { containers, fault } => recovery.damage(containers, fault),
        }
    }

    /// After the first pass: where the second has to begin; `None` when there is nothing to replay.
    pub fn replay_start(&self) -> Option<JournalAddress> {
        self.recovery.as_ref().and_then(Recovery::replay_start)
    }

    /// Second pass of recovery: what [`Journal::replay`](crate::env::journal::Journal::replay)
    /// visits, in order.
    ///
    /// # Panics
    /// After [`open`](Self::open).
    pub fn replayed(&mut self, found: Recovered) {
        let recovery = self.recovery.as_mut().expect("recovery is not over");
        recovery.end_first_pass(&mut self.containers, &mut self.shared);
        match found {
            Recovered::Frame { address, bytes, .. } => {
                let numbers: &[Container] = &self.containers;
                let ids: Vec<ContainerId> = numbers.iter().map(|container| container.id).collect();
                let number_of = |id| ids.iter().position(|held| *held == id);
                let (containers, shared) = (&mut self.containers, &mut self.shared);
                recovery.replay(address, &bytes, containers, shared, number_of);
            }
            Recovered::Damaged { containers, fault } => recovery.damage(containers, fault),
        }
    }

    /// Ends recovery. From here on requests are served; damaged containers announce themselves with
    /// [`Effect::Halt`]. Everything replayed counts as durable.
    ///
    /// # Panics
    /// When it was called before.
    pub fn open(&mut self, opened: Opened, now: Now, effects: &mut Vec<Effect>) {
        let mut recovery = self.recovery.take().expect("an engine is opened once");
        recovery.end_first_pass(&mut self.containers, &mut self.shared);
        self.keeps_all_files = !recovery.end(&mut self.containers);
        self.shared.log.start(opened.next_frame);
        for container in &mut self.containers {
            container.settle(&mut self.shared);
            container.epoch = opened.epoch;
            if let ContainerState::Damaged(fault) = &container.state {
                container.checkpoint.hold(opened.visited_from);
                effects.push(Effect::Halt { container: container.id, fault: fault.clone() });
            } else {
                container.delete_transients(&mut self.shared, now);
            }
        }
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
        match place(&self.containers, container) {
            Some(number) => {
                self.containers[number].request(&mut self.shared, now, token, request, effects);
            }
            None => effects.push(match request.segment() {
                Some(segment) => {
                    let segment = segment.clone();
                    Effect::Reply { token, reply: Err(Refusal::WrongContainer { segment }) }
                }
                None => Effect::Close { token, reason: CloseReason::Unavailable },
            }),
        }
    }

    /// A connection is gone: its sessions end, its parked reads are forgotten, its transient
    /// segments are deleted.
    pub fn connection_closed(&mut self, now: Now, peer: Peer, effects: &mut Vec<Effect>) {
        while let Some((id, read)) = self.shared.parked.take_of(peer) {
            self.containers[read.container].unpark(read.segment, id);
        }
        self.shared.fetches.forget(peer);
        for container in &mut self.containers {
            container.end_sessions(peer);
            if container.state == ContainerState::Serving {
                container.delete_transients_of(&mut self.shared, now, peer);
            }
        }
        // Whatever this leads to waits for its frame.
        let _ = effects;
    }

    /// A frame asked for with [`Effect::Fetch`] arrived, or not: then whoever waits for bytes of it
    /// is closed. Its file may have been released since, if nothing refers to it any more.
    pub fn fetched(
        &mut self,
        now: Now,
        address: JournalAddress,
        frame: Result<Bytes, Fault>,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self.shared.fetches.end(address);
        let is_there = match frame {
            Ok(bytes) => {
                self.shared.history.insert(address, bytes);
                true
            }
            Err(_) => false,
        };
        for read in waiting {
            let container = &mut self.containers[read.container];
            if is_there || !container.is_readable(&read) {
                container.resume_read(&mut self.shared, now, read, effects);
            } else {
                let reason = CloseReason::Unavailable;
                effects.push(Effect::Close { token: read.token, reason });
            }
        }
    }

    /// Does what is due at `now`: answers reads that were parked too long, with nothing.
    pub fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((id, read)) = self.shared.parked.expired(now.monotonic) {
            self.containers[read.container].unpark(read.segment, id);
            effects.push(Effect::Reply { token: read.token, reply: Ok(empty(read, true)) });
        }
    }

    /// When [`tick`](Self::tick) is due, if nothing else happens first.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.shared.parked.next_deadline()
    }

    /// Size in bytes, header and padding included, of the oldest frame not handed out yet: sealed
    /// ones first, then the open one if it holds an operation. May become `Some` by
    /// [`submitted`](Self::submitted) alone, when a checkpoint is due.
    pub fn next_frame_bytes(&self) -> Option<u64> {
        self.shared.log.next_frame_bytes()
    }

    /// Hands out the oldest frame not handed out yet, sealing the open one if it is that.
    pub fn seal_frame(&mut self) -> Option<SealedFrame> {
        self.shared.log.seal_frame()
    }

    /// The journal took frame `number`: it lies at `address`, and `bytes` is its final content.
    /// Must follow each [`seal_frame`](Self::seal_frame), in the same order. Continues checkpoints.
    ///
    /// # Panics
    /// When the order is broken.
    pub fn submitted(&mut self, number: FrameNumber, address: JournalAddress, bytes: Bytes) {
        assert!(
            address.frame_bytes() == bytes.len() as u64,
            "a frame is as long as its address says"
        );
        self.shared.log.submitted(number);
        self.shared.journal_bytes += bytes.len() as u64;
        self.shared.tail.push(address, bytes);
        self.newest_file = address.file();
        for container in &mut self.containers {
            container.submitted(number, address, &mut self.shared.files);
        }
        self.continue_checkpoints();
    }

    fn continue_checkpoints(&mut self) {
        // One snapshot at a time: encoding it takes time in which nobody is served.
        for container in &mut self.containers {
            if container.begin_checkpoint(&mut self.shared) {
                break;
            }
        }
        for container in &mut self.containers {
            container.write_checkpoint_part(&mut self.shared);
        }
    }

    /// The journal is short of room: takes a snapshot of each container, one a call, that holds the
    /// replay position in an older file than the newest frame's, however little was written since
    /// its last. To be called again when nothing is in flight, for as long as room is short. May
    /// lead to a frame to be submitted.
    pub fn hasten_checkpoints(&mut self) {
        for container in &mut self.containers {
            container.checkpoint.hasten(self.newest_file);
        }
        self.continue_checkpoints();
    }

    /// Makes sure that there is a frame to submit, if need be an empty one, so that the present
    /// replay position is recorded.
    pub fn want_frame(&mut self) {
        self.shared.log.want_frame();
    }

    /// File of the newest frame submitted or recovered; file 0 before the first.
    pub fn newest_file(&self) -> FileId {
        self.newest_file
    }

    /// All frames up to `through` are durable: releases what waited for them.
    ///
    /// # Panics
    /// When a frame was never submitted.
    pub fn durable(&mut self, now: Now, through: FrameNumber, effects: &mut Vec<Effect>) {
        self.shared.log.durable(through);
        for container in &mut self.containers {
            container.durable(&mut self.shared, now, effects);
        }
    }

    /// Bytes of operations accepted and not durable yet.
    pub fn accepted_bytes(&self) -> usize {
        self.shared.log.accepted_bytes()
    }

    /// Bytes of operations accepted that are in no submitted frame: the journal must take them yet.
    pub fn unsubmitted_bytes(&self) -> usize {
        self.shared.log.unsubmitted_bytes()
    }

    /// Memory of what clients make the shard remember, bytes, estimated: segments with their
    /// attributes and entries, append sessions, parked reads.
    pub fn state_bytes(&self) -> usize {
        let containers = self.containers.iter().map(Container::memory_bytes).sum::<usize>();
        containers + self.shared.parked.len() * PARKED_READ_MEMORY_BYTES
    }

    /// The oldest frame that a recovery needs: the minimum over all containers of the oldest frame
    /// that may hold an operation outside the container's newest durable checkpoint. `None` when no
    /// frame submitted so far is needed: the next one to be submitted is the oldest. To be asked
    /// right before each submission. Only grows; stands still while a container is damaged.
    pub fn replay_position(&self) -> Option<JournalAddress> {
        let positions = self.containers.iter();
        positions.filter_map(|container| container.checkpoint.replay_position()).min()
    }

    /// Whether a segment has bytes in this journal file; also one that is truncated or deleted,
    /// until that is durable. Every file counts while it is not known what a damaged container has.
    pub fn is_referenced(&self, file: FileId) -> bool {
        self.keeps_all_files || self.shared.files.contains(file)
    }

    /// Connections with a change, or an answer behind one, that is not durable yet; one may come
    /// several times. Takes time for each of them.
    pub fn owed(&self) -> impl Iterator<Item = Peer> + '_ {
        let pending = self.containers.iter().flat_map(|container| &container.pending);
        pending.filter_map(|pending| pending.step.token()).map(Peer::from)
    }

    /// What each container holds, in order; for tools that look at a journal at rest.
    pub fn holdings(&self) -> Vec<Holdings> {
        self.containers.iter().map(Container::holdings).collect()
    }

    /// The shard that this engine belongs to.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

/// Memory of a parked read, bytes: itself and its places in the lists by id, connection and
/// segment.
const PARKED_READ_MEMORY_BYTES: usize = 256;

/// Place of a container in the engine. A shard has few: a walk beats a map.
fn place(containers: &[Container], id: ContainerId) -> Option<usize> {
    containers.iter().position(|container| container.id == id)
}

#[cfg(test)]
mod tests;
