//! [`Network`] with non-blocking sockets that are tried when `poll(2)` says so.
//!
//! The steps of an ending connection are those of the ring's network: drain, linger, gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::id::ConnectionId;

use crate::admission::{Admission, Admitted};
use crate::socket::{DRAIN_TIME, LINGER_TIME, TICK};
use crate::sockets::{self, Listeners, NetworkCounts};

/// Pieces given to one write.
const SEND_PIECES_MAX: usize = 64;

/// Bytes that one receive moves at most, so that one connection does not hold the others up.
const RECEIVE_BYTES_MAX: usize = 1 << 20;

/// What a thread with portable networks sleeps on: their sockets, an eventfd for others to write
/// to, and a deadline. Clones name the same set.
#[derive(Clone)]
pub struct PortableWait {
    shared: Rc<Shared>,
}

struct Shared {
    wake: File,
    networks: RefCell<Vec<Rc<RefCell<State>>>>,
}

impl PortableWait {
    /// An empty set that also waits for `wake`, an eventfd that others write to.
    pub fn new(wake: File) -> Self {
        let shared = Shared { wake, networks: RefCell::new(Vec::new()) };
        Self { shared: Rc::new(shared) }
    }

    /// Sleeps until a socket can do what its connection wants, the eventfd was written to, or
    /// `longest` has passed.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn wait(&self, longest: Option<Duration>) -> io::Result<()> {
        let mut descriptors = vec![poll_entry(self.shared.wake.as_raw_fd(), libc::POLLIN)];
        let mut longest = longest;
        for network in self.shared.networks.borrow().iter() {
            let wanted = network.borrow().wanted(&mut descriptors);
            longest = [longest, wanted].into_iter().flatten().min();
        }
        // Rounded up: a sleep that ends before its deadline would be followed by another at once.
        let milliseconds = longest.map_or(-1, |longest| {
            i32::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        sockets::wait_ready(&mut descriptors, milliseconds)?;
        // Only we read it, so that what is there now will be there; reading an empty one would
        // wait.
        if descriptors[0].revents & libc::POLLIN != 0 {
            let mut count = [0; 8];
            (&self.shared.wake).read_exact(&mut count)?;
        }
        Ok(())
    }
}

/// Client connections over ordinary calls.
pub struct PortableNetwork {
    state: Rc<RefCell<State>>,
    wait: PortableWait,
}

struct State {
    listeners: Vec<TcpListener>,
    admission: Arc<Admission>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: ConnectionId,
    accept_again: Option<Instant>,
    counts: NetworkCounts,
}

struct Connection {
    stream: TcpStream,
    /// Its place, given back with it.
    _admitted: Admitted,
    receiving: Option<BytesMut>,
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

impl PortableNetwork {
    /// Takes over listening sockets; `wait` will watch them.
    ///
    /// # Errors
    /// When a socket cannot be made non-blocking.
    pub fn new(wait: &PortableWait, listeners: Listeners) -> io::Result<Self> {
        for socket in &listeners.sockets {
            socket.set_nonblocking(true)?;
        }
        let state = State {
            listeners: listeners.sockets,
            admission: listeners.admission,
            connections: BTreeMap::new(),
            last_connection: ConnectionId(0),
            accept_again: None,
            counts: NetworkCounts::default(),
        };
        let state = Rc::new(RefCell::new(state));
        wait.shared.networks.borrow_mut().push(state.clone());
        Ok(Self { state, wait: wait.clone() })
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
        self.state.borrow_mut().listeners.clear();
    }
}

impl Drop for PortableNetwork {
    fn drop(&mut self) {
        let state = &self.state;
        self.wait.shared.networks.borrow_mut().retain(|other| !Rc::ptr_eq(other, state));
    }
}

impl Network for PortableNetwork {
    fn receive(&mut self, connection: ConnectionId, buffer: BytesMut) {
        assert!(buffer.capacity() > buffer.len(), "a receive needs spare capacity");
        let mut state = self.state.borrow_mut();
        let Some(it) = state.connections.get_mut(&connection) else { return };
        if it.phase == Phase::Open {
            assert!(it.receiving.is_none(), "one receive per connection");
            it.receiving = Some(buffer);
        }
    }

    fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        let mut state = self.state.borrow_mut();
        let Some(it) = state.connections.get_mut(&connection) else { return };
        if it.phase == Phase::Open && !bytes.is_empty() {
            it.queue.push_back(bytes);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        let mut state = self.state.borrow_mut();
        let Some(it) = state.connections.get_mut(&connection) else { return };
        it.drain_then_close();
    }

    fn poll(&mut self, events: &mut Vec<NetworkEvent>) {
        self.state.borrow_mut().poll(events);
    }
}

impl State {
    fn poll(&mut self, events: &mut Vec<NetworkEvent>) {
        self.accept(events);
        let now = Instant::now();
        self.connections.retain(|id, it| {
            it.send(*id, events);
            it.receive(*id, events);
            it.advance(now);
            let lives = it.phase != Phase::Dead;
            if !lives {
                events.push(NetworkEvent::Closed { connection: *id });
            }
            lives
        });
    }

    fn accept(&mut self, events: &mut Vec<NetworkEvent>) {
        let now = Instant::now();
        if self.accept_again.is_some_and(|again| now < again) {
            return;
        }
        self.accept_again = None;
        for listener in &self.listeners {
            loop {
                if !self.admission.is_open() {
                    self.counts.accepts_paced += 1;
                    self.accept_again = Some(now + TICK);
                    break;
                }
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(error) if sockets::is_shortage(&error) => {
                        self.counts.accept_pauses += 1;
                        self.accept_again = Some(now + TICK);
                        break;
                    }
                    Err(_) => break,
                };
                let stream = sockets::without_delay(stream.into());
                let Some(admitted) = self.counts.admit(&self.admission, &stream) else { continue };
                if stream.set_nonblocking(true).is_err() {
                    continue;
                }
                self.last_connection.0 += 1;
                let connection = self.last_connection;
                let (queue, phase) = (VecDeque::new(), Phase::Open);
                let it = Connection { stream, _admitted: admitted, receiving: None, queue, phase };
                self.connections.insert(connection, it);
                events.push(NetworkEvent::Accepted { connection });
            }
        }
    }

    /// Adds what to wait for; returns how long at most.
    fn wanted(&self, descriptors: &mut Vec<libc::pollfd>) -> Option<Duration> {
        let mut next = self.accept_again;
        if next.is_none() {
            let entries = self.listeners.iter().map(|it| poll_entry(it.as_raw_fd(), libc::POLLIN));
            descriptors.extend(entries);
        }
        for it in self.connections.values() {
            let mut events = 0;
            if it.receiving.is_some() || matches!(it.phase, Phase::Lingering { .. }) {
                events |= libc::POLLIN;
            }
            if !it.queue.is_empty() {
                events |= libc::POLLOUT;
            }
            // Without a wish the kernel would still report a hang-up, again and again.
            if events != 0 {
                descriptors.push(poll_entry(it.stream.as_raw_fd(), events));
            }
            if let Phase::Draining { until } | Phase::Lingering { until } = it.phase {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }
}

impl Connection {
    fn send(&mut self, connection: ConnectionId, events: &mut Vec<NetworkEvent>) {
        let mut bytes = 0;
        while !self.queue.is_empty() && self.phase != Phase::Dead {
            let pieces: Vec<_> =
                self.queue.iter().take(SEND_PIECES_MAX).map(|piece| IoSlice::new(piece)).collect();
            match (&self.stream).write_vectored(&pieces) {
                Ok(count @ 1..) => {
                    bytes += count;
                    self.left(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.kill(),
            }
        }
        if bytes > 0 {
            events.push(NetworkEvent::Sent { connection, bytes });
        }
    }

    fn left(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.queue.front_mut().expect("no more bytes leave than were given");
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.queue.pop_front();
        }
    }

    fn receive(&mut self, connection: ConnectionId, events: &mut Vec<NetworkEvent>) {
        if let Phase::Lingering { .. } = self.phase {
            return self.drop_received();
        }
        if self.phase != Phase::Open {
            return;
        }
        let Some(mut buffer) = self.receiving.take() else { return };
        let length = buffer.len();
        // Never more than the spare capacity, so that the buffer stays where it is.
        let spare = (buffer.capacity() - length).min(RECEIVE_BYTES_MAX);
        buffer.resize(length + spare, 0);
        let received = (&self.stream).read(&mut buffer[length..]);
        buffer.truncate(length + received.as_ref().copied().unwrap_or(0));
        match received {
            Ok(1..) => events.push(NetworkEvent::Received { connection, buffer }),
            Ok(0) => self.drain_then_close(),
            Err(error) if is_not_now(&error) => self.receiving = Some(buffer),
            Err(_) => self.kill(),
        }
    }

    fn drop_received(&mut self) {
        let mut dropped = [0; 16 << 10];
        loop {
            match (&self.stream).read(&mut dropped) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return self.kill(),
            }
        }
    }

    fn drain_then_close(&mut self) {
        if self.phase == Phase::Open {
            self.receiving = None;
            self.phase = Phase::Draining { until: Instant::now() + DRAIN_TIME };
        }
    }

    fn advance(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining { until } if self.queue.is_empty() => {
                let _ = self.stream.shutdown(std::net::Shutdown::Write);
                self.phase = Phase::Lingering { until: until.min(now + LINGER_TIME) };
                self.drop_received();
            }
            Phase::Draining { until } | Phase::Lingering { until } if until <= now => self.kill(),
            _ => {}
        }
    }

    fn kill(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.queue.clear();
        self.receiving = None;
        self.phase = Phase::Dead;
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn poll_entry(descriptor: i32, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: descriptor, events, revents: 0 }
}
