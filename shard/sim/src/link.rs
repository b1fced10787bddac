//! Byte streams between simulated clients and shards, and [`Network`] over them.
//!
//! Fault model: what is sent arrives in order, delayed, cut into pieces at any byte. A connection
//! may
//!
//! * be reset at any byte, whereupon each side keeps what it had; one side may learn of it long
//!   after the other, so that a client comes again while its old connection lives;
//! * be closed in one direction, whereupon the other goes on;
//! * be clogged in one direction or both for a while; others go on, so that what was sent first may
//!   arrive last;
//! * break together with all others, several times in a row.
//!
//! When the process ends, a client gets any prefix of what was on its way to it. Bytes are never
//! changed, repeated or reordered: that is what TCP takes care of.
//!
//! A shard of one process has a *seat*. What connects to a shard is given to the seat that listens,
//! now and then to a former one that has not ended.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::id::ConnectionId;

use crate::clock::{Clock, MICROSECOND, MILLISECOND};
use crate::faults::{FaultKind, Faults};
use crate::life::Life;
use crate::rng::Rng;
use crate::trace::{Trace, check};

/// Rates and sizes of all links.
#[derive(Clone, Debug)]
pub(crate) struct LinkOptions {
    /// Longest delay of a piece, microseconds.
    pub(crate) delay_us_max: u64,
    /// Largest piece, bytes.
    pub(crate) piece_bytes_max: u64,
    /// Chance in a million that a piece resets its connection instead of arriving.
    pub(crate) reset_per_million: u32,
    /// Chance in a million that a piece closes its direction instead of arriving.
    pub(crate) half_close_per_million: u32,
    /// Chance in a million that a piece finds its direction clogged.
    pub(crate) clog_per_million: u32,
}

/// Longest clog, and longest time until a side learns of a reset, milliseconds.
const CLOG_MS_MAX: u64 = 3_000;

/// A shard of one process, as the network knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(usize);

/// What a client sees.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    /// Bytes arrived.
    Received(ConnectionId, Bytes),
    /// The connection is gone.
    Closed(ConnectionId),
}

#[derive(Debug)]
enum Arrival {
    Accept,
    ToServer(Bytes),
    ToClient(Bytes),
    /// The server's kernel took this many bytes off the send queue.
    Sent(usize),
    /// The server learns that the client closed.
    ClientClosed,
    /// The client learns that the server closed.
    ServerClosed,
    /// The server is told that its own close is done.
    CloseDone,
    /// One end learns that the connection broke.
    Reset {
        is_client: bool,
    },
}

#[derive(Debug)]
struct Link {
    client: usize,
    shard: usize,
    /// Who accepted it.
    seat: Option<Seat>,
    is_client_open: bool,
    is_server_open: bool,
    /// Whether the shard knows the connection and has not been told that it is gone.
    is_accepted: bool,
    /// The client closed; the shard learns it when it has taken everything before.
    is_half_closed: bool,
    to_server_at: u64,
    to_client_at: u64,
    /// Bytes were lost in this direction; what is sent behind them does not arrive.
    is_cut_to_server: bool,
    is_cut_to_client: bool,
    arrived: BytesMut,
    receive: Option<BytesMut>,
}

/// All connections of a world.
#[derive(Debug)]
pub(crate) struct Links {
    options: LinkOptions,
    rng: Rng,
    clock: Clock,
    trace: Trace,
    faults: Faults,
    links: BTreeMap<ConnectionId, Link>,
    arrivals: BTreeMap<(u64, u64), (ConnectionId, Arrival)>,
    scheduled: u64,
    next_connection: u64,
    shard_events: Vec<VecDeque<NetworkEvent>>,
    client_events: VecDeque<(usize, ClientEvent)>,
    /// Who listens for a shard.
    listening: Vec<Option<Seat>>,
    /// Who listened before and has not ended.
    former: Vec<Option<Seat>>,
}

/// A shared handle to the connections.
pub(crate) type SharedLinks = Rc<RefCell<Links>>;

/// A shard's way to its connections; dead when the process ended.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    links: SharedLinks,
    seat: Seat,
    life: Life,
}

impl Links {
    /// No connections to any of `shards` shards.
    pub(crate) fn new(
        shards: usize,
        options: LinkOptions,
        rng: Rng,
        clock: Clock,
        trace: Trace,
        faults: Faults,
    ) -> Self {
        Self {
            options,
            rng,
            clock,
            trace,
            faults,
            links: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            scheduled: 0,
            next_connection: 1,
            shard_events: Vec::new(),
            client_events: VecDeque::new(),
            listening: vec![None; shards],
            former: vec![None; shards],
        }
    }

    fn schedule(&mut self, at: u64, connection: ConnectionId, arrival: Arrival) {
        self.scheduled += 1;
        self.arrivals.insert((at, self.scheduled), (connection, arrival));
    }

    fn delay(&mut self) -> u64 {
        self.rng.between(1, self.options.delay_us_max) * MICROSECOND
    }

    /// No more faults, and whoever has not learned of an earlier one learns of it.
    pub(crate) fn heal(&mut self) {
        self.options.reset_per_million = 0;
        self.options.half_close_per_million = 0;
        self.options.clog_per_million = 0;
        let now = self.clock.nanos();
        let is_late =
            |(_, arrival): &(ConnectionId, Arrival)| matches!(arrival, Arrival::Reset { .. });
        let late: Vec<(u64, u64)> = self
            .arrivals
            .range((now, 0)..)
            .filter(|(_, entry)| is_late(entry))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            let (connection, arrival) = self.arrivals.remove(&key).expect("just listed");
            let at = now + self.delay();
            self.schedule(at, connection, arrival);
        }
    }

    /// Every connection breaks.
    pub(crate) fn reset_all(&mut self) {
        let all: Vec<ConnectionId> = self.links.keys().copied().collect();
        for connection in all {
            let at = self.clock.nanos() + self.delay();
            self.reset(at, connection);
        }
    }

    fn reset(&mut self, at: u64, connection: ConnectionId) {
        // Both at once, or one of them much later.
        let late = self.rng.between(1, CLOG_MS_MAX) * MILLISECOND;
        let (client, server) = self.rng.pick(&[(0, 0), (0, 0), (late, 0), (0, late)]);
        self.schedule(at + client, connection, Arrival::Reset { is_client: true });
        self.schedule(at + server, connection, Arrival::Reset { is_client: false });
    }

    /// A client connects to a shard. It may send at once; that nobody listens it learns later.
    pub(crate) fn connect(&mut self, client: usize, shard: usize) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let at = self.clock.nanos() + self.delay();
        let link = Link {
            client,
            shard,
            seat: None,
            is_client_open: true,
            is_server_open: true,
            is_accepted: false,
            is_half_closed: false,
            to_server_at: at,
            to_client_at: at,
            is_cut_to_server: false,
            is_cut_to_client: false,
            arrived: BytesMut::new(),
            receive: None,
        };
        self.links.insert(connection, link);
        self.schedule(at, connection, Arrival::Accept);
        connection
    }

    /// A client sends.
    pub(crate) fn client_send(&mut self, connection: ConnectionId, bytes: Bytes) {
        let is_open = self.links.get(&connection).is_some_and(|link| link.is_client_open);
        if is_open {
            self.send(connection, bytes, Direction::ToServer);
        }
    }

    /// A client closes, in order behind what it sent or at once.
    pub(crate) fn client_close(&mut self, connection: ConnectionId) {
        let breaks = self.rng.percent(30);
        let delay = self.delay();
        let now = self.clock.nanos();
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.is_client_open = false;
        let at = if breaks { now } else { link.to_server_at.max(now) };
        self.schedule(at + delay, connection, Arrival::ClientClosed);
    }

    fn send(&mut self, connection: ConnectionId, mut bytes: Bytes, direction: Direction) {
        let now = self.clock.nanos();
        while !bytes.is_empty() {
            let most = self.options.piece_bytes_max.min(bytes.len() as u64);
            let size = if self.rng.percent(70) { most } else { self.rng.between(1, most) };
            let piece = bytes.split_to(size as usize);
            let delay = self.delay();
            let resets = self.rng.per_million(self.options.reset_per_million);
            let resets = self.faults.strike(FaultKind::LinkReset, resets);
            let closes = self.rng.per_million(self.options.half_close_per_million);
            let closes = self.faults.strike(FaultKind::HalfClose, closes);
            let clog = self.clog();
            let Some(link) = self.links.get_mut(&connection) else { return };
            let (last, is_cut) = match direction {
                Direction::ToServer => (&mut link.to_server_at, &mut link.is_cut_to_server),
                Direction::ToClient => (&mut link.to_client_at, &mut link.is_cut_to_client),
            };
            *is_cut |= resets || closes;
            if *is_cut && !resets && !closes {
                return;
            }
            *last = (*last).max(now + delay + clog);
            let at = *last;
            if resets {
                return self.reset(at, connection);
            }
            if closes {
                // What is behind it in this direction goes nowhere.
                return self.half_close(at, connection, direction);
            }
            let arrival = match direction {
                Direction::ToServer => Arrival::ToServer(piece),
                Direction::ToClient => {
                    self.schedule(at, connection, Arrival::Sent(piece.len()));
                    Arrival::ToClient(piece)
                }
            };
            self.schedule(at, connection, arrival);
        }
    }

    fn half_close(&mut self, at: u64, connection: ConnectionId, direction: Direction) {
        match direction {
            Direction::ToServer => self.schedule(at, connection, Arrival::ClientClosed),
            Direction::ToClient => {
                self.schedule(at, connection, Arrival::ServerClosed);
                let late = self.rng.between(1, CLOG_MS_MAX) * MILLISECOND;
                self.schedule(at + late, connection, Arrival::Reset { is_client: false });
            }
        }
    }

    /// How long a direction is stopped up, nanoseconds; 0: not at all.
    fn clog(&mut self) -> u64 {
        let clogs = self.rng.per_million(self.options.clog_per_million);
        if !self.faults.strike(FaultKind::Clog, clogs) {
            return 0;
        }
        let most = self.rng.pick(&[20, 200, CLOG_MS_MAX]);
        self.rng.between(1, most) * MILLISECOND
    }

    /// When the next thing arrives.
    pub(crate) fn next_arrival(&self) -> Option<u64> {
        if !self.client_events.is_empty() {
            return Some(self.clock.nanos());
        }
        self.arrivals.first_key_value().map(|((at, _), _)| *at)
    }

    /// A seat for a shard that starts.
    pub(crate) fn take_seat(&mut self) -> Seat {
        self.shard_events.push(VecDeque::new());
        Seat(self.shard_events.len() - 1)
    }

    /// Whether a shard has events to poll.
    pub(crate) fn has_events(&self, seat: Seat) -> bool {
        !self.shard_events[seat.0].is_empty()
    }

    fn tell(&mut self, seat: Option<Seat>, event: NetworkEvent) {
        let seat = seat.expect("only who accepted a connection is told of it");
        self.shard_events[seat.0].push_back(event);
    }

    /// Who answers at a shard's port.
    fn listener(&mut self, shard: usize) -> Option<Seat> {
        let strays = self.former[shard].is_some() && self.rng.percent(30);
        if strays { self.former[shard] } else { self.listening[shard] }
    }

    /// The next event of any client.
    pub(crate) fn next_client_event(&mut self) -> Option<(usize, ClientEvent)> {
        self.client_events.pop_front()
    }

    /// Lets everything arrive that is due.
    pub(crate) fn advance(&mut self) {
        while let Some(entry) = self.arrivals.first_entry() {
            if entry.key().0 > self.clock.nanos() {
                return;
            }
            let (connection, arrival) = entry.remove();
            self.arrive(connection, arrival);
            self.forget_if_gone(connection);
        }
    }

    fn arrive(&mut self, connection: ConnectionId, arrival: Arrival) {
        let delay = self.delay();
        let now = self.clock.nanos();
        if let Arrival::Accept = arrival {
            return self.accept(connection, now + delay);
        }
        let Some(link) = self.links.get_mut(&connection) else { return };
        match arrival {
            Arrival::Accept => unreachable!("handled above"),
            Arrival::ToServer(bytes) => {
                if link.is_accepted && link.is_server_open && !link.is_half_closed {
                    link.arrived.extend_from_slice(&bytes);
                    self.hand_over(connection);
                }
            }
            Arrival::ToClient(bytes) => {
                if link.is_client_open {
                    let event = ClientEvent::Received(connection, bytes);
                    self.client_events.push_back((link.client, event));
                }
            }
            Arrival::Sent(bytes) => {
                if link.is_accepted && link.is_server_open {
                    let seat = link.seat;
                    self.tell(seat, NetworkEvent::Sent { connection, bytes });
                }
            }
            Arrival::ClientClosed => {
                link.is_half_closed = true;
                self.hand_over(connection);
            }
            Arrival::ServerClosed => {
                if std::mem::take(&mut link.is_client_open) {
                    self.client_events.push_back((link.client, ClientEvent::Closed(connection)));
                }
            }
            Arrival::CloseDone => self.tell_shard_closed(connection),
            Arrival::Reset { is_client: true } => {
                if std::mem::take(&mut link.is_client_open) {
                    self.client_events.push_back((link.client, ClientEvent::Closed(connection)));
                }
            }
            Arrival::Reset { is_client: false } => self.tell_shard_closed(connection),
        }
    }

    fn accept(&mut self, connection: ConnectionId, refused_at: u64) {
        let Some(link) = self.links.get(&connection) else { return };
        let seat = if link.is_server_open { self.listener(link.shard) } else { None };
        let link = self.links.get_mut(&connection).expect("just found");
        link.seat = seat;
        if seat.is_none() {
            link.is_server_open = false;
            return self.schedule(refused_at, connection, Arrival::ServerClosed);
        }
        link.is_accepted = true;
        self.tell(seat, NetworkEvent::Accepted { connection });
    }

    /// Gives arrived bytes to a waiting receive, then the end if there is nothing more.
    fn hand_over(&mut self, connection: ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if !link.is_accepted || !link.is_server_open {
            return;
        }
        if link.arrived.is_empty() {
            if link.is_half_closed {
                let at = link.to_client_at.max(self.clock.nanos());
                self.schedule(at, connection, Arrival::ServerClosed);
                self.tell_shard_closed(connection);
            }
            return;
        }
        if let Some(mut buffer) = link.receive.take() {
            let spare = buffer.capacity() - buffer.len();
            let most = spare.min(link.arrived.len());
            let taken = if self.rng.percent(80) { most } else { 1 + self.rng.index(most) };
            buffer.extend_from_slice(&link.arrived.split_to(taken));
            let seat = link.seat;
            self.tell(seat, NetworkEvent::Received { connection, buffer });
        }
    }

    fn tell_shard_closed(&mut self, connection: ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.is_server_open = false;
        link.receive = None;
        if std::mem::take(&mut link.is_accepted) {
            let seat = link.seat;
            self.tell(seat, NetworkEvent::Closed { connection });
        }
    }

    fn forget_if_gone(&mut self, connection: ConnectionId) {
        let is_gone = self
            .links
            .get(&connection)
            .is_some_and(|link| !link.is_client_open && !link.is_server_open && !link.is_accepted);
        if is_gone {
            self.links.remove(&connection);
        }
    }

    /// A shard ends: its clients get a prefix of what was on its way to them.
    pub(crate) fn end_seat(&mut self, seat: Seat) {
        for listener in self.listening.iter_mut().chain(&mut self.former) {
            *listener = listener.filter(|listener| *listener != seat);
        }
        self.shard_events[seat.0] = VecDeque::new();
        let links = self.links.iter();
        let own = links.filter(|(_, link)| {
            link.seat == Some(seat) && (link.is_server_open || link.is_accepted)
        });
        let doomed: Vec<ConnectionId> = own.map(|(connection, _)| *connection).collect();
        for connection in doomed {
            let on_the_way: Vec<(u64, u64)> = self
                .arrivals
                .iter()
                .filter(|(_, (of, arrival))| {
                    *of == connection && matches!(arrival, Arrival::ToClient(_))
                })
                .map(|(key, _)| *key)
                .collect();
            let kept = self.rng.below(on_the_way.len() as u64 + 1) as usize;
            for key in &on_the_way[kept..] {
                self.arrivals.remove(key);
            }
            let last = on_the_way[..kept].last().map_or(self.clock.nanos(), |(at, _)| *at);
            let link = self.links.get_mut(&connection).expect("just listed");
            link.is_server_open = false;
            link.is_accepted = false;
            link.receive = None;
            let at = last + self.delay();
            self.schedule(at, connection, Arrival::ServerClosed);
        }
    }

    /// Whether anything of a connection is left on either side.
    pub(crate) fn is_known(&self, connection: ConnectionId) -> bool {
        self.links.contains_key(&connection)
    }

    /// A seat listens for a shard; who did so before is the former one.
    pub(crate) fn listen(&mut self, shard: usize, seat: Seat) {
        let before = self.listening[shard].replace(seat);
        self.former[shard] = before.filter(|before| *before != seat).or(self.former[shard]);
    }

    /// Nobody listens for a shard any more.
    pub(crate) fn close_port(&mut self, shard: usize) {
        self.listening[shard] = None;
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

impl LinkHandle {
    /// The handle of one shard.
    pub(crate) fn new(links: SharedLinks, seat: Seat, life: Life) -> Self {
        Self { links, seat, life }
    }
}

impl Network for LinkHandle {
    fn receive(&mut self, connection: ConnectionId, buffer: BytesMut) {
        if !self.life.is_alive() {
            return;
        }
        let mut links = self.links.borrow_mut();
        let trace = links.trace.clone();
        let Some(link) = links.links.get_mut(&connection) else { return };
        if !link.is_accepted || !link.is_server_open {
            return;
        }
        check!(trace, "network contract", link.seat == Some(self.seat), "foreign {connection:?}");
        let has_room = buffer.capacity() > buffer.len();
        check!(trace, "network contract", has_room, "receive without room");
        check!(trace, "network contract", link.receive.is_none(), "two receives");
        link.receive = Some(buffer);
        links.hand_over(connection);
        links.forget_if_gone(connection);
    }

    fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        if !self.life.is_alive() {
            return;
        }
        self.life.spend();
        let mut links = self.links.borrow_mut();
        let is_open = links
            .links
            .get(&connection)
            .is_some_and(|link| link.is_accepted && link.is_server_open);
        if is_open {
            links.send(connection, bytes, Direction::ToClient);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        if !self.life.is_alive() {
            return;
        }
        let mut links = self.links.borrow_mut();
        let delay = links.delay();
        let now = links.clock.nanos();
        let Some(link) = links.links.get_mut(&connection) else { return };
        if !link.is_accepted || !link.is_server_open {
            return;
        }
        link.is_server_open = false;
        link.receive = None;
        let at = link.to_client_at.max(now) + delay;
        links.schedule(at, connection, Arrival::ServerClosed);
        links.schedule(at, connection, Arrival::CloseDone);
    }

    fn poll(&mut self, events: &mut Vec<NetworkEvent>) {
        let mut links = self.links.borrow_mut();
        events.extend(links.shard_events[self.seat.0].drain(..));
    }
}
