//! Client connections on the ring: [`Network`].
//!
//! One receive and one send per connection are in flight at most; what is queued to be sent leaves
//! together at the next flush. When to receive is the caller's decision, and the only back-pressure
//! there is. Each accepted connection ends with exactly one `Closed`, given when the kernel
//! holds nothing of it any more.
//!
//! A connection ends in steps: **draining** (what is queued still leaves), **lingering** (our end
//! is closed; what the peer still sends is read and dropped, because unread bytes would turn
//! the close into a reset that can overtake our last replies), **dead** (waiting for the kernel).
//! A tick of 100 ms bounds the first two.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::id::ConnectionId;

use crate::admission::{Admission, Admitted};
use crate::operation::{Message, Operation};
use crate::ring::{BeforeFlush, Completion, OperationId, Outcome, OwnerId, Ring};
use crate::sockets::{self, Direction, Listeners, NetworkCounts};

/// How long queued bytes may take to leave after a close.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How long a peer is waited for after everything has left.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);

/// How often deadlines of closing connections are looked at, and how long accepting pauses when
/// descriptors are short or connections come too fast.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Room for bytes that are dropped while lingering.
const LINGER_BYTES: usize = 16 << 10;

/// Client connections on a ring. Numbers connections from 1.
///
/// Dropping it closes all of them and waits until the kernel is done with their memory.
pub struct UringNetwork {
    state: Rc<RefCell<State>>,
}

struct State {
    ring: Ring,
    owner: OwnerId,
    listeners: Vec<Listener>,
    admission: Arc<Admission>,
    connections: HashMap<ConnectionId, Connection>,
    last_connection: ConnectionId,
    /// Connections with something to send and no send in flight, since the last flush.
    unsent: Vec<ConnectionId>,
    /// Connections that are draining or lingering.
    closing: Vec<ConnectionId>,
    has_tick: bool,
    events: Vec<NetworkEvent>,
    counts: NetworkCounts,
}

struct Listener {
    socket: Rc<OwnedFd>,
    accepting: Option<OperationId>,
}

struct Connection {
    socket: Rc<OwnedFd>,
    /// Its place, given back with it.
    _admitted: Admitted,
    receiving: Option<OperationId>,
    /// The last receive left bytes behind, so the next one need not wait for the socket.
    has_more_bytes: bool,
    sending: Option<OperationId>,
    /// What the last send left over; taken while a send is in flight.
    message: Option<Box<Message>>,
    queue: VecDeque<Bytes>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Draining { until: Instant },
    Lingering { until: Instant },
    Dead,
}

impl UringNetwork {
    /// Takes over listening sockets and starts to accept with the next flush.
    pub fn new(ring: &Ring, listeners: Listeners) -> Self {
        let admission = listeners.admission;
        let listeners = listeners
            .sockets
            .into_iter()
            .map(|socket| Listener { socket: Rc::new(OwnedFd::from(socket)), accepting: None })
            .collect();
        let mut state = State {
            owner: ring.register(),
            ring: ring.clone(),
            listeners,
            admission,
            connections: HashMap::new(),
            last_connection: ConnectionId(0),
            unsent: Vec::new(),
            closing: Vec::new(),
            has_tick: false,
            events: Vec::new(),
            counts: NetworkCounts::default(),
        };
        state.accept_all();
        let state = Rc::new(RefCell::new(state));
        let hook: Weak<RefCell<dyn BeforeFlush>> = Rc::downgrade(&state) as _;
        ring.before_flush(hook);
        Self { state }
    }

    /// What was counted so far.
    pub fn counts(&self) -> NetworkCounts {
        self.state.borrow().counts
    }

    /// Connections that are not closed yet.
    pub fn connections(&self) -> usize {
        self.state.borrow().connections.len()
    }

    /// Accepts nothing more and gives the ports free; open connections live on.
    pub fn stop_listening(&mut self) {
        let mut state = self.state.borrow_mut();
        let ring = state.ring.clone();
        for listener in state.listeners.drain(..) {
            // The descriptor lives until the accept has completed, the port answers until then.
            if let Some(accepting) = listener.accepting {
                ring.cancel(accepting);
            }
        }
    }
}

impl Network for UringNetwork {
    fn receive(&mut self, connection: ConnectionId, buffer: BytesMut) {
        assert!(buffer.capacity() > buffer.len(), "a receive needs spare capacity");
        let mut state = self.state.borrow_mut();
        if state.connections.get(&connection).is_some_and(|it| it.phase == Phase::Open) {
            state.submit_receive(connection, buffer);
        }
    }

    fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        let mut state = self.state.borrow_mut();
        let Some(it) = state.connections.get_mut(&connection) else { return };
        if it.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let is_first = it.queue.is_empty();
        it.queue.push_back(bytes);
        if is_first && it.sending.is_none() {
            state.unsent.push(connection);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.state.borrow_mut().drain_then_close(connection);
    }

    fn poll(&mut self, events: &mut Vec<NetworkEvent>) {
        let mut state = self.state.borrow_mut();
        while let Some(completion) = state.ring.next_ready(state.owner) {
            state.completed(completion);
        }
        events.append(&mut state.events);
    }
}

impl BeforeFlush for State {
    fn before_flush(&mut self) {
        for connection in std::mem::take(&mut self.unsent) {
            self.submit_send(connection);
        }
    }
}

impl State {
    fn completed(&mut self, completion: Completion) {
        let Completion { tag, outcome, operation, has_more_bytes } = completion;
        let count = match outcome {
            Ok(Outcome::Descriptor(socket)) => return self.accepted(tag, socket, operation),
            Ok(Outcome::Count(count)) => Ok(count),
            Err(error) => Err(error),
        };
        let connection = ConnectionId(tag);
        match operation {
            Some(Operation::Receive { memory, .. }) => {
                self.received(connection, count, memory, has_more_bytes);
            }
            Some(Operation::Send { message, .. }) => self.sent(connection, count, message),
            Some(Operation::Timeout { .. }) => self.ticked(),
            Some(Operation::Accept { .. }) => self.accept_failed(tag, count),
            other => unreachable!("the network submits no such operation: {other:?}"),
        }
    }

    // Accepting.

    fn accept_all(&mut self) {
        if !self.admission.is_open() {
            self.counts.accepts_paced += 1;
            return self.ensure_tick();
        }
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.accepting.is_none() {
                let operation = Operation::Accept { listener: listener.socket.clone() };
                let id = self.ring.submit(self.owner, index as u64, operation);
                listener.accepting = Some(id);
            }
        }
    }

    /// A connection came in; `ended` says that the kernel wants to be asked again for the next.
    fn accepted(&mut self, listener: u64, socket: OwnedFd, ended: Option<Operation>) {
        let socket = sockets::without_delay(socket);
        let admitted = self.counts.admit(&self.admission, &socket);
        if ended.is_some() {
            self.accept_ended(listener);
            self.accept_all();
        }
        let Some(admitted) = admitted else { return };
        self.last_connection.0 += 1;
        let connection = Connection {
            socket: Rc::new(OwnedFd::from(socket)),
            _admitted: admitted,
            receiving: None,
            has_more_bytes: false,
            sending: None,
            message: Some(Box::new(Message::new())),
            queue: VecDeque::new(),
            phase: Phase::Open,
        };
        self.connections.insert(self.last_connection, connection);
        self.events.push(NetworkEvent::Accepted { connection: self.last_connection });
    }

    fn accept_failed(&mut self, listener: u64, result: io::Result<usize>) {
        self.accept_ended(listener);
        match result.err().and_then(|error| error.raw_os_error()) {
            // Of this one connection, or of the moment: the next may do better.
            Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN) | None => self.accept_all(),
            // Asking again at once would fail again at once: the tick does it.
            _ => {
                self.counts.accept_pauses += 1;
                self.ensure_tick();
            }
        }
    }

    fn accept_ended(&mut self, listener: u64) {
        // Not there any more when listening was stopped.
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.accepting = None;
        }
    }

    // Receiving.

    fn submit_receive(&mut self, connection: ConnectionId, memory: BytesMut) {
        let it = self.connections.get_mut(&connection).expect("its caller has just seen it");
        assert!(it.receiving.is_none(), "one receive per connection");
        let socket = it.socket.clone();
        let operation = Operation::Receive { socket, memory, poll_first: !it.has_more_bytes };
        it.receiving = Some(self.ring.submit(self.owner, connection.0, operation));
    }

    fn received(
        &mut self,
        connection: ConnectionId,
        count: io::Result<usize>,
        buffer: BytesMut,
        has_more_bytes: bool,
    ) {
        let it = self.connections.get_mut(&connection).expect("it lives while in flight");
        it.receiving = None;
        it.has_more_bytes = has_more_bytes;
        match (it.phase, count) {
            (Phase::Open, Ok(1..)) => {
                self.events.push(NetworkEvent::Received { connection, buffer });
            }
            // The peer has ended its side. What it was told so far may still leave.
            (Phase::Open, Ok(0)) => self.drain_then_close(connection),
            (Phase::Open, Err(error)) if is_not_done(&error) => {
                self.submit_receive(connection, buffer);
            }
            (Phase::Open, Err(_)) => self.kill(connection),
            // Cancelled when the close began; whether the peer is there, the send will tell.
            (Phase::Draining { .. }, _) => {}
            (Phase::Lingering { .. }, Ok(1..)) => self.advance(connection),
            (Phase::Lingering { .. }, Err(error)) if is_not_done(&error) => {
                self.advance(connection);
            }
            (Phase::Lingering { .. }, _) => self.kill(connection),
            (Phase::Dead, _) => self.advance(connection),
        }
    }

    // Sending.

    fn submit_send(&mut self, connection: ConnectionId) {
        let Some(it) = self.connections.get_mut(&connection) else { return };
        if it.sending.is_some() || it.phase == Phase::Dead {
            return;
        }
        let mut message = it.message.take().expect("the message is here while nothing is sent");
        message.gather(&mut it.queue);
        if message.is_empty() {
            it.message = Some(message);
            return;
        }
        let operation = Operation::Send { socket: it.socket.clone(), message };
        it.sending = Some(self.ring.submit(self.owner, connection.0, operation));
    }

    fn sent(
        &mut self,
        connection: ConnectionId,
        count: io::Result<usize>,
        mut message: Box<Message>,
    ) {
        let it = self.connections.get_mut(&connection).expect("it lives while in flight");
        it.sending = None;
        let failed = match count {
            Ok(bytes @ 1..) => {
                message.sent(bytes);
                self.events.push(NetworkEvent::Sent { connection, bytes });
                false
            }
            Ok(0) => true,
            Err(error) => !is_not_done(&error),
        };
        let has_rest = !message.is_empty() || !it.queue.is_empty();
        it.message = Some(message);
        if failed && it.phase != Phase::Dead {
            self.kill(connection);
        } else if it.phase == Phase::Dead || !has_rest {
            self.advance(connection);
        } else {
            self.unsent.push(connection);
        }
    }

    // Ending.

    fn drain_then_close(&mut self, connection: ConnectionId) {
        let Some(it) = self.connections.get_mut(&connection) else { return };
        if it.phase != Phase::Open {
            return;
        }
        it.phase = Phase::Draining { until: Instant::now() + DRAIN_TIME };
        if let Some(receiving) = it.receiving {
            self.ring.cancel(receiving);
        }
        self.closing.push(connection);
        self.ensure_tick();
        self.advance(connection);
    }

    /// Ends a connection without further ado.
    fn kill(&mut self, connection: ConnectionId) {
        let it = self.connections.get_mut(&connection).expect("its caller has just seen it");
        it.phase = Phase::Dead;
        it.queue.clear();
        sockets::shut_down(&it.socket, Direction::Both);
        // The shutdown completes both as a rule; the cancellation is for what it may not reach.
        for operation in [it.receiving, it.sending].into_iter().flatten() {
            self.ring.cancel(operation);
        }
        self.advance(connection);
    }

    /// Takes an ending connection to its next step when the present one is over.
    fn advance(&mut self, connection: ConnectionId) {
        let it = self.connections.get_mut(&connection).expect("its caller has just seen it");
        if let Phase::Draining { until } = it.phase {
            let is_drained = it.sending.is_none()
                && it.queue.is_empty()
                && it.message.as_ref().is_some_and(|message| message.is_empty());
            if is_drained {
                sockets::shut_down(&it.socket, Direction::Write);
                it.phase = Phase::Lingering { until: until.min(Instant::now() + LINGER_TIME) };
            }
        }
        match it.phase {
            Phase::Lingering { .. } if it.receiving.is_none() => {
                self.submit_receive(connection, BytesMut::with_capacity(LINGER_BYTES));
            }
            Phase::Dead if it.receiving.is_none() && it.sending.is_none() => {
                self.connections.remove(&connection);
                self.events.push(NetworkEvent::Closed { connection });
            }
            _ => {}
        }
    }

    fn ensure_tick(&mut self) {
        if !self.has_tick {
            self.has_tick = true;
            self.ring.submit(self.owner, 0, Operation::timeout(TICK));
        }
    }

    fn ticked(&mut self) {
        self.has_tick = false;
        self.accept_all();
        let now = Instant::now();
        let mut overdue = Vec::new();
        let connections = &self.connections;
        self.closing.retain(|connection| match connections.get(connection).map(|it| it.phase) {
            Some(Phase::Draining { until } | Phase::Lingering { until }) => {
                if until <= now {
                    overdue.push(*connection);
                }
                until > now
            }
            _ => false,
        });
        for connection in overdue {
            self.kill(connection);
        }
        if !self.closing.is_empty() {
            self.ensure_tick();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.ring.abandon(self.owner);
    }
}

/// Whether an error says that nothing was transferred and the same may be asked again.
fn is_not_done(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
}
