//! The append sessions of one connection: which writers are set up, the block that is being
//! received, and which acknowledgements are due.
//!
//! The engine decides whether an event number is good; here is only what needs the connection: the
//! order of the append commands, the session that a writer's commands belong to, and the chain of
//! acknowledged numbers. Several acknowledgements of a session that come together leave as one.
//!
//! It keeps true: a writer has at most one current session; an acknowledgement names as previous
//! number exactly the one acknowledged before.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_core::id::{ContainerId, SegmentName, SessionId, ShardId, WriterId};
use thalweg_core::position::Offset;
use thalweg_core::request::{Append, Request};
use thalweg_wire::{
    AppendBlock, AppendBlockEnd, BlockAssembly, BlockContent, ConditionalAppend,
    ConditionalBlockEnd, DataAppended, SetupAppend,
};

use crate::close::Close;
use crate::outbox::Outbox;
use crate::placement::Placement;
use crate::translate::{self, Routing};

/// Numbers the append sessions of a shard: the shard above, a count below.
#[derive(Debug)]
pub struct SessionCounter {
    next: u64,
}

impl SessionCounter {
    /// The sessions of `shard`, from the first.
    pub fn new(shard: ShardId) -> Self {
        Self { next: u64::from(shard.0) << 48 }
    }

    fn take(&mut self) -> SessionId {
        let session = SessionId(self.next);
        self.next += 1;
        session
    }
}

/// One set-up of a writer.
#[derive(Debug)]
struct Session {
    writer: WriterId,
    /// Highest number that the client knows to be durable.
    acknowledged: i64,
    /// Durable and not told yet.
    due: Option<Acknowledgement>,
    /// Session of the same writer that this one takes the place of, once it is set up.
    replaces: Option<SessionId>,
}

#[derive(Debug)]
struct Acknowledgement {
    request: i64,
    event_number: i64,
    length: Offset,
}

/// What a writer's commands lead to.
#[derive(Clone, Copy, Debug)]
struct Current {
    session: SessionId,
    container: ContainerId,
}

/// All sessions of a connection.
#[derive(Debug, Default)]
pub(crate) struct AppendSessions {
    current: BTreeMap<WriterId, Current>,
    sessions: BTreeMap<SessionId, Session>,
    /// Set-ups that are not answered, with their request ids.
    unanswered: Vec<(i64, SessionId)>,
    /// Sessions with an acknowledgement due.
    due: Vec<SessionId>,
    block: BlockAssembly,
}

impl AppendSessions {
    /// Begins a session; it can be appended to at once, the engine answers in order.
    pub(crate) fn set_up(
        &mut self,
        command: SetupAppend,
        placement: Placement,
        counter: &mut SessionCounter,
        sessions_max: usize,
    ) -> Result<Routing, Close> {
        self.block.interrupt()?;
        if self.sessions.len() >= sessions_max {
            return Err(Close::TooManySessions { sessions_max });
        }
        let writer = WriterId(command.writer_id);
        let container = placement.container(&command.segment);
        let session = counter.take();
        let replaced = self.current.insert(writer, Current { session, container });
        self.sessions.insert(
            session,
            Session {
                writer,
                acknowledged: i64::MIN,
                due: None,
                replaces: replaced.map(|current| current.session),
            },
        );
        self.unanswered.push((command.request_id, session));
        let segment = SegmentName::new(command.segment.as_str());
        let request = Request::SetupAppend { session, writer, segment };
        Ok(Routing { request_id: command.request_id, container, request })
    }

    /// The first part of an append.
    pub(crate) fn begin(&mut self, command: AppendBlock) -> Result<(), Close> {
        self.find(command.writer_id)?;
        Ok(self.block.begin(command)?)
    }

    /// The second part of an append, or a whole one.
    pub(crate) fn end(
        &mut self,
        command: AppendBlockEnd,
        event_bytes_max: usize,
    ) -> Result<Routing, Close> {
        let current = self.find(command.writer_id)?;
        let append = self.block.end(command)?;
        let event_count =
            u32::try_from(append.event_count).expect("a block with no events was refused");
        if event_count == 1 {
            check_event(append.content.len(), event_bytes_max)?;
        }
        routing(
            current,
            append.request_id,
            Append {
                session: current.session,
                event_number: append.last_event_number,
                event_count,
                expected_offset: None,
                data: pieces(append.content),
            },
        )
    }

    /// One event, header included, on a condition.
    pub(crate) fn conditional(
        &mut self,
        command: ConditionalAppend,
        event_bytes_max: usize,
    ) -> Result<Routing, Close> {
        let ConditionalAppend { writer_id, event_number, expected_offset, event, request_id } =
            command;
        let data = event.framed();
        check_event(data.len(), event_bytes_max)?;
        self.on_condition(writer_id, request_id, event_number, expected_offset, data)
    }

    /// Bytes on a condition.
    pub(crate) fn conditional_block(
        &mut self,
        command: ConditionalBlockEnd,
        event_bytes_max: usize,
    ) -> Result<Routing, Close> {
        let ConditionalBlockEnd { writer_id, event_number, expected_offset, data, request_id } =
            command;
        check_event(data.len(), event_bytes_max)?;
        self.on_condition(writer_id, request_id, event_number, expected_offset, data)
    }

    /// Bytes that count as one event, on a condition.
    fn on_condition(
        &mut self,
        writer_id: u128,
        request_id: i64,
        event_number: i64,
        expected_offset: i64,
        data: Bytes,
    ) -> Result<Routing, Close> {
        self.block.interrupt()?;
        let current = self.find(writer_id)?;
        routing(
            current,
            request_id,
            Append {
                session: current.session,
                event_number,
                event_count: 1,
                expected_offset: translate::condition(expected_offset),
                data: [data, Bytes::new(), Bytes::new()],
            },
        )
    }

    /// A session is set up; the one it replaces is over, its acknowledgements having come before.
    pub(crate) fn answered(&mut self, session: SessionId, last_event_number: i64) {
        self.unanswered.retain(|(_, unanswered)| *unanswered != session);
        let Some(found) = self.sessions.get_mut(&session) else { return };
        found.acknowledged = last_event_number;
        if let Some(replaced) = found.replaces.take() {
            self.sessions.remove(&replaced);
        }
    }

    /// A request was refused: if it was a set-up, its session ends.
    pub(crate) fn refused(&mut self, request: i64) {
        let Some(at) = self.unanswered.iter().position(|(id, _)| *id == request) else { return };
        let (_, session) = self.unanswered.remove(at);
        let Some(found) = self.sessions.remove(&session) else { return };
        if let Some(replaced) = found.replaces {
            self.sessions.remove(&replaced);
        }
        if self.current.get(&found.writer).is_some_and(|current| current.session == session) {
            self.current.remove(&found.writer);
        }
    }

    /// An append is durable.
    pub(crate) fn appended(
        &mut self,
        session: SessionId,
        request: i64,
        event_number: i64,
        length: Offset,
    ) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        if found.due.is_none() {
            self.due.push(session);
        }
        found.due = Some(Acknowledgement { request, event_number, length });
    }

    /// Whether [`flush`](Self::flush) has something to write.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Writes what is due: one acknowledgement for each session.
    pub(crate) fn flush(&mut self, outbox: &mut Outbox) {
        for session in self.due.drain(..) {
            let Some(found) = self.sessions.get_mut(&session) else { continue };
            let Some(due) = found.due.take() else { continue };
            outbox.put(&DataAppended {
                writer_id: found.writer.0,
                event_number: due.event_number,
                previous_event_number: found.acknowledged,
                request_id: due.request,
                current_segment_write_offset: translate::signed(due.length),
            });
            found.acknowledged = due.event_number;
        }
    }

    fn find(&self, writer: u128) -> Result<Current, Close> {
        self.current.get(&WriterId(writer)).copied().ok_or(Close::NoSession { writer })
    }
}

/// An append to its container; a negative event number is no client's.
fn routing(current: Current, request_id: i64, append: Append) -> Result<Routing, Close> {
    if append.event_number < 0 {
        return Err(Close::Argument { name: "append", argument: "event number" });
    }
    let request = Request::Append(append);
    Ok(Routing { request_id, container: current.container, request })
}

/// One event may not be larger than clients make them.
fn check_event(bytes: usize, bytes_max: usize) -> Result<(), Close> {
    if bytes > bytes_max { Err(Close::EventBytes { bytes, bytes_max }) } else { Ok(()) }
}

/// The content as the slices it came in.
fn pieces(content: BlockContent) -> [Bytes; 3] {
    let mut parts = content.into_parts();
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}
