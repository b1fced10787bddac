//! One connection: the order of its commands, what is outstanding, how much to receive next.
//!
//! The owner hands in received bytes and takes one item at a time, so that it can stop between any
//! two; it hands back replies, which gather in the connection's outbox. Nothing here waits: what
//! cannot go on now is simply not asked for.
//!
//! It keeps true: acknowledgements that came before another reply leave before it.

use bytes::{Bytes, BytesMut};
use thalweg_core::id::{ConnectionId, ContainerId, SessionId, ShardId, Token};
use thalweg_core::position::Offset;
use thalweg_core::request::{Refusal, Reply, Request};
use thalweg_wire::{Command, Decoder, Hello, KeepAlive, Message};

use crate::append_session::{AppendSessions, SessionCounter};
use crate::close::Close;
use crate::limits::ConnectionLimits;
use crate::outbox::Outbox;
use crate::placement::Placement;
use crate::route;
use crate::translate::{self, Routing, Translated};

/// What one received command comes to.
#[derive(Debug)]
pub enum Routed {
    /// To be handed to the container, wherever it lives. Counts as outstanding until
    /// [`Connection::reply`], [`Connection::appended`] or the connection's end.
    Request {
        /// Who serves it.
        container: ContainerId,
        /// Where the answer belongs.
        token: Token,
        /// What is asked.
        request: Request,
    },
    /// Dealt with here; the answer, if any, is in the outbox.
    Answered,
}

/// What to do with a connection behind a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum AfterReply {
    /// Go on.
    Continue,
    /// Close it once the reply has left.
    Close,
}

/// One client's connection. Lives on its shard's thread from accept to close.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    shard: ShardId,
    placement: Placement,
    limits: ConnectionLimits,
    decoder: Decoder,
    sessions: AppendSessions,
    outbox: Outbox,
    outstanding: usize,
    /// Whether a whole command came.
    has_spoken: bool,
    /// Whether it was asked for keep-alive, as clients do that do it regularly.
    keeps_alive: bool,
    /// Receive size of the moment; between the limits' minimum and maximum.
    receive_bytes: usize,
}

impl Connection {
    /// A connection that has received nothing.
    pub fn new(
        id: ConnectionId,
        shard: ShardId,
        placement: Placement,
        limits: ConnectionLimits,
    ) -> Self {
        Self {
            id,
            shard,
            placement,
            limits,
            decoder: Decoder::new(limits.frame_bytes_max),
            sessions: AppendSessions::default(),
            outbox: Outbox::default(),
            outstanding: 0,
            has_spoken: false,
            keeps_alive: false,
            receive_bytes: limits.receive_bytes_min,
        }
    }

    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Takes the next command off the front of `buffer`, which must be the same each time; `None`
    /// when no whole command is left.
    ///
    /// # Errors
    /// When the client broke the protocol: the connection must be closed, behind what is in its
    /// outbox, and not be asked again.
    pub fn next(
        &mut self,
        buffer: &mut BytesMut,
        counter: &mut SessionCounter,
    ) -> Result<Option<Routed>, Close> {
        let Some(command) = self.decoder.decode(buffer)? else {
            self.check_first(buffer)?;
            return Ok(None);
        };
        self.has_spoken = true;
        let event_bytes_max = self.limits.event_bytes_max;
        let routing = match command {
            Command::AppendBlockEnd(end) => self.sessions.end(end, event_bytes_max)?,
            Command::AppendBlock(block) => {
                self.sessions.begin(block)?;
                return Ok(Some(Routed::Answered));
            }
            Command::ConditionalBlockEnd(append) => {
                self.sessions.conditional_block(append, event_bytes_max)?
            }
            Command::ConditionalAppend(append) => {
                self.sessions.conditional(append, event_bytes_max)?
            }
            Command::SetupAppend(set_up) => {
                let sessions_max = self.limits.sessions_max;
                self.sessions.set_up(set_up, self.placement, counter, sessions_max)?
            }
            Command::Hello(hello) => {
                self.outbox.put(&Hello::OURS);
                if !hello.overlaps(&Hello::OURS) {
                    let (low, high) = (hello.low_version, hello.high_version);
                    return Err(Close::Version { low, high });
                }
                return Ok(Some(Routed::Answered));
            }
            Command::KeepAlive(_) => {
                self.keeps_alive = true;
                self.outbox.put(&KeepAlive);
                return Ok(Some(Routed::Answered));
            }
            Command::Padding(_) => return Ok(Some(Routed::Answered)),
            other => match translate::request(other)? {
                (request_id, Translated::Request(request)) => {
                    if let Some(source) = route::stray_source(&request, self.placement) {
                        let segment = source.clone();
                        let message = "source and target do not live together".to_owned();
                        let refusal = Refusal::IllegalArgument { segment, message };
                        self.write(request_id, Err(refusal));
                        return Ok(Some(Routed::Answered));
                    }
                    let container = route::container(&request, self.placement)
                        .expect("only an append names no segment, and it went another way");
                    Routing { request_id, container, request }
                }
                (request_id, Translated::Refused(refusal)) => {
                    self.write(request_id, Err(refusal));
                    return Ok(Some(Routed::Answered));
                }
            },
        };
        self.outstanding += 1;
        let Routing { request_id: request, container, request: asked } = routing;
        let token = Token { shard: self.shard, connection: self.id, request };
        Ok(Some(Routed::Request { container, token, request: asked }))
    }

    /// Whether a whole command came.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Whether silence of the client means something: it sends keep-alives, or waits for answers.
    pub fn is_expected_to_speak(&self) -> bool {
        self.keeps_alive || self.outstanding > 0
    }

    /// Tells a client whose commands wait that it is not forgotten, if it listens for that; whether
    /// it does. It does when it asked for keep-alive before or in a command that waits; other
    /// clients take whatever comes for their reply and must not be told.
    pub fn keep_alive(&mut self) -> bool {
        self.keeps_alive |= self.decoder.is_pending(KeepAlive::CODE);
        if self.keeps_alive {
            self.outbox.put(&KeepAlive);
        }
        self.keeps_alive
    }

    /// Requests handed out and not answered.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Queues the answer to request `request`.
    pub fn reply(&mut self, request: i64, reply: Result<Reply, Refusal>) -> AfterReply {
        self.outstanding = self.outstanding.saturating_sub(1);
        let after = match &reply {
            Ok(Reply::AppendSetup { session, last_event_number, .. }) => {
                // Acknowledgements of the session before it must leave before it is forgotten.
                self.sessions.flush(&mut self.outbox);
                self.sessions.answered(*session, *last_event_number);
                AfterReply::Continue
            }
            Ok(_) => AfterReply::Continue,
            Err(refusal) => {
                self.sessions.refused(request);
                match refusal {
                    Refusal::InvalidEventNumber { .. } => AfterReply::Close,
                    _ => AfterReply::Continue,
                }
            }
        };
        self.write(request, reply);
        after
    }

    /// Notes that an append is durable; the client is told by [`flush`](Self::flush), or before the
    /// next reply.
    pub fn appended(
        &mut self,
        session: SessionId,
        request: i64,
        event_number: i64,
        length: Offset,
    ) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.sessions.appended(session, request, event_number, length);
    }

    /// Queues the acknowledgements that are due. Called once per turn.
    pub fn flush(&mut self) {
        self.sessions.flush(&mut self.outbox);
    }

    /// Hands everything queued to `send`, in order, and says how many bytes it was.
    pub fn drain(&mut self, send: impl FnMut(Bytes)) -> usize {
        self.outbox.drain(send)
    }

    /// Bytes queued and not drained.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Whether acknowledgements or bytes wait for [`flush`](Self::flush) and
    /// [`drain`](Self::drain).
    pub fn has_output(&self) -> bool {
        self.sessions.is_due() || self.outbox.bytes() > 0
    }

    /// Learns from a completed receive: `received` bytes came into `spare` bytes of room.
    pub fn received(&mut self, received: usize, spare: usize) {
        if received >= spare {
            self.receive_bytes = (2 * self.receive_bytes).min(self.limits.receive_bytes_max);
        } else if received < self.receive_bytes / 4 {
            self.receive_bytes = (self.receive_bytes / 2).max(self.limits.receive_bytes_min);
        }
    }

    /// How many bytes to receive next behind the content of `buffer`; at least 1.
    pub fn receive_bytes(&self, buffer: &BytesMut) -> usize {
        let room = self.receive_bytes.saturating_sub(buffer.len());
        match self.frame_bytes_missing(buffer) {
            0 => room.max(self.limits.receive_bytes_min / 2).max(1),
            missing if missing > room => missing,
            _ => room,
        }
    }

    /// How many bytes the frame at the front of `buffer` still needs; 0 when that is not known yet.
    pub fn frame_bytes_missing(&self, buffer: &BytesMut) -> usize {
        self.decoder.needed(buffer)
    }

    /// The first command must be small, however much of it is there.
    fn check_first(&self, buffer: &BytesMut) -> Result<(), Close> {
        let bytes_max = self.limits.first_command_bytes_max;
        if self.has_spoken || buffer.len() + self.frame_bytes_missing(buffer) <= bytes_max {
            return Ok(());
        }
        Err(Close::FirstCommand { bytes_max })
    }

    fn write(&mut self, request: i64, reply: Result<Reply, Refusal>) {
        self.sessions.flush(&mut self.outbox);
        translate::reply(request, reply, self.limits.inline_bytes_max, &mut self.outbox);
    }
}
