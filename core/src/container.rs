//! One container: the state machine that owns a set of segments and their one log of operations.
//!
//! This file holds the state, the order of answers, and the dispatch of requests; what a request
//! does is in the file of its subject. A change is checked against the accepted state, recorded in
//! the open frame and applied at once; its answer goes through `pending`, in order, and leaves when
//! the frame is durable. An answer without a change waits the same way while anything accepted
//! before it is not durable, so no answer tells what a power cut would undo.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::append::Session;
use crate::apply::Applied;
use crate::cache::{HistoryCache, TailCache};
use crate::canary::{self, Canary};
use crate::checkpoint::CheckpointState;
use crate::fault::Fault;
use crate::fetch::Fetches;
use crate::id::{ContainerId, SegmentName, SessionId, Token};
use crate::index::{FileReferences, FrameReference};
use crate::limits::Limits;
use crate::log::{FrameLog, Place};
use crate::operation::Operation;
use crate::pending::{Pending, Step};
use crate::position::{
    ContainerEpoch, FileId, FrameNumber, JournalAddress, Offset, SequenceNumber,
};
use crate::rare::{self, Point};
use crate::request::{CloseReason, Effect, Peer, Refusal, Reply, Request};
use crate::segment::{SegmentHandle, Segments};
use crate::table_request::TableRequest;
use crate::tail::ParkedReads;
use crate::time::Now;

/// Memory of an append session, bytes: itself, its places in the lists by id, connection and
/// writer, and what its connection keeps of it.
const SESSION_MEMORY_BYTES: usize = 512;

/// What the containers of a shard share: frames, caches, waiting reads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) log: FrameLog,
    pub(crate) tail: TailCache,
    pub(crate) history: HistoryCache,
    pub(crate) files: FileReferences,
    pub(crate) parked: ParkedReads,
    pub(crate) fetches: Fetches,
    /// Bytes of frames that the journal took since the oldest one seen in recovery.
    pub(crate) journal_bytes: u64,
}

/// Whether requests are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerState {
    Recovering,
    Serving,
    Damaged(Fault),
}

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    /// Its place among the containers of the engine.
    pub(crate) number: usize,
    pub(crate) state: ContainerState,
    pub(crate) epoch: ContainerEpoch,
    pub(crate) segments: Segments,
    /// Of the last operation.
    pub(crate) sequence_number: SequenceNumber,
    /// Id of the next segment to be created.
    pub(crate) next_segment: u64,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) sessions_of: BTreeSet<(Peer, SessionId)>,
    /// Transient segments to be deleted with their connection.
    pub(crate) transients: BTreeMap<Peer, Vec<SegmentHandle>>,
    pub(crate) pending: VecDeque<Pending>,
    /// The frame of the last change; answers wait for it.
    pub(crate) accepted_in: FrameNumber,
    /// Segments with extents in frames that have no address yet.
    pub(crate) touched: BTreeMap<FrameNumber, Vec<SegmentHandle>>,
    /// Journal files that lose an extent when the frame is durable.
    pub(crate) releases: VecDeque<(FrameNumber, FileId)>,
    pub(crate) checkpoint: CheckpointState,
    /// Segments whose parked reads may go on; empty between inputs.
    pub(crate) woken: Vec<SegmentHandle>,
}

impl Container {
    pub(crate) fn new(id: ContainerId, number: usize) -> Self {
        Self {
            id,
            number,
            state: ContainerState::Recovering,
            epoch: ContainerEpoch(0),
            segments: Segments::default(),
            sequence_number: SequenceNumber(0),
            next_segment: 1,
            sessions: BTreeMap::new(),
            sessions_of: BTreeSet::new(),
            transients: BTreeMap::new(),
            pending: VecDeque::new(),
            accepted_in: FrameNumber(0),
            touched: BTreeMap::new(),
            releases: VecDeque::new(),
            checkpoint: CheckpointState::default(),
            woken: Vec::new(),
        }
    }

    /// Memory of its segments and sessions, bytes, estimated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.segments.memory_bytes() + self.sessions.len() * SESSION_MEMORY_BYTES
    }

    /// Does what the request asks, or says why not.
    pub(crate) fn request(
        &mut self,
        shared: &mut Shared,
        now: Now,
        token: Token,
        request: Request,
        effects: &mut Vec<Effect>,
    ) {
        if self.state != ContainerState::Serving {
            if canary::has(Canary::NoSuchSegmentWhileRecovering)
                && let Request::Read { segment, .. } | Request::SetupAppend { segment, .. } =
                    request
            {
                let reply = Err(Refusal::NoSuchSegment { segment, offset: -1 });
                return effects.push(Effect::Reply { token, reply });
            }
            effects.push(Effect::Close { token, reason: CloseReason::Unavailable });
            return;
        }
        if rare::maybe(Point::SealEarly) {
            shared.log.seal_early();
        }
        let answer = match request {
            Request::Append(append) => return self.append(shared, now, token, append, effects),
            Request::Read { segment, offset, length } => {
                return self.read(shared, now, token, segment, offset, length, effects);
            }
            Request::SetupAppend { session, writer, segment } => {
                self.set_up_append(token, session, writer, segment)
            }
            Request::Info { segment } => self.info(&segment),
            Request::Create(create) => self.create(shared, now, create),
            Request::CreateTransient { parent, writer } => {
                self.create_transient(shared, now, token, &parent, writer)
            }
            Request::Seal { segment } => self.seal(shared, now, &segment),
            Request::Truncate { segment, offset } => self.truncate(shared, now, &segment, offset),
            Request::Delete { segment, kind, must_be_empty } => {
                self.delete(shared, now, &segment, kind, must_be_empty)
            }
            Request::Merge { target, source, attributes } => {
                self.merge(shared, now, &target, &source, &attributes)
            }
            Request::MergeBatch { target, sources } => {
                self.merge_batch(shared, now, &target, &sources)
            }
            Request::UpdatePolicy { segment, scale_type, target_rate } => {
                self.update_policy(shared, now, &segment, scale_type, target_rate)
            }
            Request::Attribute { segment, attribute } => self.attribute(&segment, attribute),
            Request::UpdateAttribute { segment, attribute, value, expected } => {
                self.update_attribute(shared, now, &segment, attribute, value, expected)
            }
            Request::TableInfo { segment } => self.table(TableRequest::Info, &segment),
            Request::TableUpdate { segment, entries, expected_length } => {
                self.table_update(shared, now, &segment, &entries, expected_length)
            }
            Request::TableRemove { segment, keys, expected_length } => {
                self.table_remove(shared, now, &segment, &keys, expected_length)
            }
            Request::TableGet { segment, keys } => self.table(TableRequest::Get(keys), &segment),
            Request::TableIterate { segment, count, continuation, from, to, items } => {
                self.table(TableRequest::Iterate { count, continuation, from, to, items }, &segment)
            }
            Request::TableDelta { segment, from, count } => {
                self.table(TableRequest::Delta { from, count }, &segment)
            }
        };
        self.answer(&shared.log, token, answer, effects);
    }

    /// Answers now, or in order when something accepted before is not durable.
    pub(crate) fn answer(
        &mut self,
        log: &FrameLog,
        token: Token,
        answer: Result<Reply, No>,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_all_durable(log) {
            effects.push(match answer {
                Ok(reply) => Effect::Reply { token, reply: Ok(reply) },
                Err(No::Refused(refusal)) => Effect::Reply { token, reply: Err(refusal) },
                Err(No::Close(reason)) => Effect::Close { token, reason },
            });
            return;
        }
        self.defer(match answer {
            Ok(reply) => Step::Reply(token, Box::new(Ok(reply))),
            Err(No::Refused(refusal)) => Step::Reply(token, Box::new(Err(refusal))),
            Err(No::Close(reason)) => Step::Close(token, reason),
        });
    }

    /// Whether nothing that was accepted can be lost any more.
    pub(crate) fn is_all_durable(&self, log: &FrameLog) -> bool {
        self.pending.is_empty() && self.accepted_in <= log.durable_through()
    }

    /// Queues what is to be done when everything accepted so far is durable.
    pub(crate) fn defer(&mut self, step: Step) {
        let frame = self.accepted_in;
        assert!(
            self.pending.back().is_none_or(|last| last.frame <= frame),
            "pending steps are released in the order of their frames"
        );
        self.pending.push_back(Pending { frame, step });
    }

    /// Records a change that was checked, and applies it.
    pub(crate) fn change(
        &mut self,
        shared: &mut Shared,
        now: Now,
        handle: Option<SegmentHandle>,
        operation: &Operation<'_>,
    ) -> Applied {
        let table = handle.and_then(|handle| self.segments.get(handle)?.table.as_deref());
        self.sequence_number = self.sequence_number.next();
        let (id, sequence_number) = (self.id, self.sequence_number);
        let place = shared.log.write(id, operation.encoded_bytes(), |out| {
            operation.encode(id, sequence_number, table, out);
        });
        self.accept_in(place);
        let frame = FrameReference::pending(place.frame);
        let applied = self
            .apply(operation, frame, place.position, &mut shared.files)
            .expect("a change is checked before it is recorded");
        if let Some(segment) = handle.and_then(|handle| self.segments.get_mut(handle)) {
            segment.last_modified = now.wall.0;
        }
        applied
    }

    /// Notes that the newest change is at `place`.
    pub(crate) fn accept_in(&mut self, place: Place) {
        assert!(place.frame >= self.accepted_in, "frames are filled in order");
        self.accepted_in = place.frame;
        self.checkpoint.needs(place.frame);
    }

    /// The journal gave frame `number` its address.
    pub(crate) fn submitted(
        &mut self,
        number: FrameNumber,
        address: JournalAddress,
        files: &mut FileReferences,
    ) {
        self.checkpoint.submitted(number, address);
        let mut extents = 0;
        for handle in self.touched.remove(&number).unwrap_or_default() {
            let Some(segment) = self.segments.get_mut(handle) else { continue };
            extents += segment.index.resolve(number, address);
            if canary::has(Canary::VisibleBeforeDurable) {
                segment.durable_length = segment.index.resolved_end().max(segment.durable_length);
            }
        }
        files.add(address.file(), extents as u64);
    }

    /// The segment of this name.
    pub(crate) fn find(&self, name: &SegmentName) -> Result<SegmentHandle, No> {
        self.segments.find(name).ok_or_else(|| no_such_segment(name, None))
    }
}

/// Why a request is not carried out.
#[derive(Debug)]
pub(crate) enum No {
    /// There is a reply for it.
    Refused(Refusal),
    /// The connection is closed.
    Close(CloseReason),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The refusal for a name that is not there; `offset` for reads and truncations.
pub(crate) fn no_such_segment(name: &SegmentName, offset: Option<Offset>) -> No {
    let offset = offset.map_or(-1, signed);
    No::Refused(Refusal::NoSuchSegment { segment: name.clone(), offset })
}

/// The refusal for a change of a sealed segment.
pub(crate) fn segment_sealed(name: &SegmentName) -> No {
    No::Refused(Refusal::SegmentSealed { segment: name.clone(), offset: -1 })
}

/// An offset as the wire tells it.
pub(crate) fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}
