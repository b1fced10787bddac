//! Simulated clients: they speak the wire protocol, reconnect and resend.
//! What they say and hear is judged on its way (`history.rs`).
//!
//! A [`Client`] owns one connection and a [`Role`] that decides what to say. Roles that ask one
//! thing at a time are scripts (`sequential.rs`); the pipelining writer is a role of its own.

pub(crate) mod conditional;
pub(crate) mod counter;
pub(crate) mod founder;
pub(crate) mod history;
pub(crate) mod keeper;
pub(crate) mod reader;
pub(crate) mod recycler;
pub(crate) mod sequential;
pub(crate) mod table;
pub(crate) mod transaction;
pub(crate) mod verifier;
pub(crate) mod writer;

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use thalweg_checker::Certain;
use thalweg_core::id::ConnectionId;
use thalweg_wire::{Command, Decoder, FRAME_BYTES_MAX, Hello, Message, Text};

use self::history::History;
use crate::clock::{Clock, MICROSECOND};
use crate::link::{ClientEvent, SharedLinks};
use crate::options::Options;
use crate::rng::Rng;
use crate::router::Router;
use crate::trace::{Trace, check, trace};

/// What a world is about at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Things fail.
    Faults,
    /// Nothing fails any more; clients finish what they began.
    Heal,
    /// Everything is read back.
    Verify,
}

/// What happens to a role.
#[derive(Debug)]
pub(crate) enum Input {
    /// The time it asked for has come; also the first input.
    Wake,
    /// A command arrived.
    Command(Command),
    /// The connection is gone.
    Closed,
}

/// The part a client plays.
pub(crate) trait Role {
    /// Name for the trace.
    fn name(&self) -> &'static str;

    /// Reacts.
    fn handle(&mut self, context: &mut Context<'_>, input: Input);

    /// Whether it has finished what it wanted; asked in the healing phase.
    fn is_done(&self) -> bool;

    /// The segment that it works on at present.
    fn segment(&self) -> Option<&str>;
}

/// What all clients share.
pub(crate) struct Shared {
    /// Time.
    pub(crate) clock: Clock,
    /// Record of what happens.
    pub(crate) trace: Trace,
    /// Connections.
    pub(crate) links: SharedLinks,
    /// The oracle: what was asked and told, judged.
    pub(crate) history: History,
    /// The world's options.
    pub(crate) options: Options,
    /// Where segments live.
    pub(crate) router: Router,
    /// What the world is about.
    pub(crate) phase: Phase,
    /// Segments that must be there in the end.
    pub(crate) alive: BTreeSet<String>,
    /// Names that must be gone in the end.
    pub(crate) gone: Vec<String>,
    /// Writers that have not finished.
    pub(crate) writers: usize,
    /// Operations that clients may still begin.
    pub(crate) budget: u64,
}

/// A client's own side of its connection.
struct Wire {
    connection: Option<ConnectionId>,
    /// The newest connection, also when it is gone.
    last_connection: Option<ConnectionId>,
    shard: usize,
    decoder: Decoder,
    received: BytesMut,
    out: BytesMut,
}

/// What a role works with.
pub(crate) struct Context<'w> {
    /// Which client this is.
    pub(crate) client: usize,
    /// What all clients share.
    pub(crate) shared: &'w mut Shared,
    /// This client's chance.
    pub(crate) rng: &'w mut Rng,
    wire: &'w mut Wire,
    wake_at: &'w mut Option<u64>,
}

/// One client.
pub(crate) struct Client {
    id: usize,
    rng: Rng,
    role: Box<dyn Role>,
    wire: Wire,
    wake_at: Option<u64>,
}

impl Client {
    /// A client that acts for the first time at `wake_at`.
    pub(crate) fn new(id: usize, rng: Rng, role: Box<dyn Role>, wake_at: u64) -> Self {
        let wire = Wire {
            connection: None,
            last_connection: None,
            shard: 0,
            decoder: Decoder::new(FRAME_BYTES_MAX),
            received: BytesMut::new(),
            out: BytesMut::new(),
        };
        Self { id, rng, role, wire, wake_at: Some(wake_at) }
    }

    /// Name of its role.
    pub(crate) fn name(&self) -> &'static str {
        self.role.name()
    }

    /// The segment that its role works on at present.
    pub(crate) fn segment(&self) -> Option<&str> {
        self.role.segment()
    }

    /// When it wants to act.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.wake_at
    }

    /// Whether it has finished.
    pub(crate) fn is_done(&self) -> bool {
        self.role.is_done()
    }

    /// Acts because its time has come.
    pub(crate) fn wake(&mut self, shared: &mut Shared) {
        self.wake_at = None;
        self.input(shared, Input::Wake);
    }

    /// Takes what its connection brings.
    pub(crate) fn network(&mut self, shared: &mut Shared, event: ClientEvent) {
        match event {
            ClientEvent::Received(connection, bytes) => {
                if self.wire.connection == Some(connection) {
                    self.received(shared, &bytes);
                }
            }
            ClientEvent::Closed(connection) => {
                if self.wire.connection == Some(connection) {
                    self.wire.connection = None;
                    shared.history.closed(self.id);
                    trace!(shared.trace, "client {} {}: disconnected", self.id, self.name());
                    self.input(shared, Input::Closed);
                }
            }
        }
    }

    fn received(&mut self, shared: &mut Shared, bytes: &Bytes) {
        self.wire.received.extend_from_slice(bytes);
        let connection = self.wire.connection;
        while self.wire.connection == connection {
            match self.wire.decoder.decode(&mut self.wire.received) {
                Ok(Some(Command::Hello(hello))) => {
                    check!(shared.trace, "protocol", hello == Hello::OURS, "{hello:?}");
                }
                Ok(Some(Command::KeepAlive(_))) => shared.trace.count("keep-alives echoed"),
                Ok(Some(command)) => {
                    shared.history.received(self.id, &command);
                    self.input(shared, Input::Command(command));
                }
                Ok(None) => return,
                Err(error) => {
                    shared.trace.violation("protocol", format_args!("reply: {error}"));
                    return;
                }
            }
        }
    }

    fn input(&mut self, shared: &mut Shared, input: Input) {
        let Self { id, rng, role, wire, wake_at } = self;
        let was_done = role.is_done();
        let mut context = Context { client: *id, shared, rng, wire, wake_at };
        role.handle(&mut context, input);
        context.flush();
        if role.name() == writer::NAME && role.is_done() && !was_done {
            shared.writers -= 1;
        }
    }
}

impl Context<'_> {
    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.shared.clock.nanos()
    }

    /// The trace.
    pub(crate) fn trace(&self) -> &Trace {
        &self.shared.trace
    }

    /// What is certain of a segment.
    pub(crate) fn certain(&self, segment: &str) -> Certain {
        self.shared.history.certain(segment)
    }

    /// Whether clients should finish what they began and begin nothing.
    pub(crate) fn is_finishing(&self) -> bool {
        self.shared.phase != Phase::Faults
    }

    /// Takes leave to begin an operation.
    pub(crate) fn begin(&mut self) {
        self.shared.budget = self.shared.budget.saturating_sub(1);
        self.shared.trace.count("operations");
    }

    /// Wants to act in `nanos`, or earlier if it wanted that before.
    pub(crate) fn wake_in(&mut self, nanos: u64) {
        let at = self.now() + nanos;
        *self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Wants to act in `nanos` and not before.
    pub(crate) fn wake_only_in(&mut self, nanos: u64) {
        *self.wake_at = Some(self.now() + nanos);
    }

    /// A pause of random length up to `microseconds`.
    pub(crate) fn pause(&mut self, microseconds: u64) -> u64 {
        self.rng.between(1, microseconds.max(1)) * MICROSECOND
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.wire.connection.is_some()
    }

    /// The newest connection, also when it is gone, to ask whether anything of it is left.
    pub(crate) fn last_connection(&self) -> Option<ConnectionId> {
        self.wire.last_connection
    }

    /// The shard connected to.
    pub(crate) fn connected_shard(&self) -> Option<usize> {
        self.wire.connection.map(|_| self.wire.shard)
    }

    /// Connects to a shard, closing an older connection.
    pub(crate) fn connect(&mut self, shard: usize) {
        self.close();
        let connection = self.shared.links.borrow_mut().connect(self.client, shard);
        self.wire.connection = Some(connection);
        self.wire.last_connection = Some(connection);
        self.shared.history.connected(self.client);
        self.wire.shard = shard;
        self.wire.decoder = Decoder::new(FRAME_BYTES_MAX);
        self.wire.received.clear();
        self.shared.trace.count("connections");
        Hello { high_version: 17, low_version: 5 }.encode(&mut self.wire.out);
        if self.rng.percent(5) {
            thalweg_wire::KeepAlive.encode(&mut self.wire.out);
        }
    }

    /// Closes the connection; no input tells so.
    pub(crate) fn close(&mut self) {
        self.flush();
        if let Some(connection) = self.wire.connection.take() {
            self.shared.history.closed(self.client);
            self.shared.links.borrow_mut().client_close(connection);
        }
    }

    /// Sends a command with what else is sent in this step.
    pub(crate) fn send(&mut self, command: &Command) {
        trace!(
            self.shared.trace,
            "client {} sends {} {}",
            self.client,
            command.name(),
            command.request_id().unwrap_or(0)
        );
        self.shared.history.sent(self.client, command);
        command.encode(&mut self.wire.out);
    }

    fn flush(&mut self) {
        if self.wire.out.is_empty() {
            return;
        }
        let bytes = self.wire.out.split().freeze();
        if let Some(connection) = self.wire.connection {
            self.shared.links.borrow_mut().client_send(connection, bytes);
        }
    }
}

/// The token of a world without authorization.
pub(crate) fn no_token() -> Text {
    Text::new()
}
