//! A TCP proxy that is a bad network: it delays, splits, coalesces, throttles, resets, half-closes,
//! swallows, and cuts the network in one or both directions for a while.
//!
//! It stands on a loopback port of its own before one server address. Each connection gets its
//! rules from a plan, and two threads of its own. What is not ended by a rule arrives whole and in
//! order, as TCP promises: a partition holds bytes back, it does not lose them. Dropping the proxy
//! resets every connection and ends every thread.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

mod pump;
pub mod rules;
#[cfg(test)]
mod tests;

use rules::Plan;

/// Which direction a byte goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// Which directions carry nothing at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Bytes and new connections from the client are held.
    pub to_server: bool,
    /// Bytes from the server are held.
    pub to_client: bool,
}

impl Partition {
    /// Everything passes.
    pub const NONE: Self = Self { to_server: false, to_client: false };
    /// Nothing passes.
    pub const BOTH: Self = Self { to_server: true, to_client: true };

    fn holds(self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// What a proxy did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections that found no server.
    pub refused: u64,
    /// Bytes passed on, both directions.
    pub bytes: u64,
    /// Bytes swallowed.
    pub swallowed_bytes: u64,
    /// Writes that were parts of what was received at once.
    pub splits: u64,
    /// Pieces held to be coalesced.
    pub coalesced: u64,
    /// Pieces held for a delay or to keep a rate.
    pub delayed: u64,
    /// Connections reset at a chosen byte.
    pub resets: u64,
    /// Directions closed at a chosen byte.
    pub half_closes: u64,
    /// Directions swallowed from a chosen byte on.
    pub blackholes: u64,
    /// Changes of the partition.
    pub partitions: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.refused += other.refused;
        self.bytes += other.bytes;
        self.swallowed_bytes += other.swallowed_bytes;
        self.splits += other.splits;
        self.coalesced += other.coalesced;
        self.delayed += other.delayed;
        self.resets += other.resets;
        self.half_closes += other.half_closes;
        self.blackholes += other.blackholes;
        self.partitions += other.partitions;
    }
}

#[derive(Default)]
struct Tally {
    connections: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    swallowed_bytes: AtomicU64,
    splits: AtomicU64,
    coalesced: AtomicU64,
    delayed: AtomicU64,
    resets: AtomicU64,
    half_closes: AtomicU64,
    blackholes: AtomicU64,
    partitions: AtomicU64,
}

/// Adds to one number of a tally.
fn count(number: &AtomicU64, by: u64) {
    // Statistics, which order nothing.
    number.fetch_add(by, Ordering::Relaxed);
}

/// Both sockets of one connection. They close when the last of its two threads lets go.
struct Link {
    client: TcpStream,
    server: TcpStream,
    is_broken: AtomicBool,
}

impl Link {
    /// Lets both ends see a reset, and wakes the threads of this connection.
    fn break_up(&self) {
        self.is_broken.store(true, Ordering::Release);
        for socket in [&self.client, &self.server] {
            // Without lingering, closing sends a reset. Ending only the reading side wakes a
            // reader and tells the peer nothing before that. Both fail when the peer is gone.
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Control {
    partition: Partition,
    is_closed: bool,
    links: Vec<Weak<Link>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a proxy share.
#[derive(Default)]
struct Shared {
    control: Mutex<Control>,
    changed: Condvar,
    tally: Tally,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().expect("no thread of the proxy panics with it")
    }

    /// Waits for a time; false when the proxy is closed before.
    fn pause(&self, time: Duration) -> bool {
        let control = self.lock();
        let (control, _) = self
            .changed
            .wait_timeout_while(control, time, |control| !control.is_closed)
            .expect("no thread of the proxy panics with it");
        !control.is_closed
    }

    /// Waits while the partition holds a direction and `is_wanted`; false when the proxy is closed.
    fn await_passage(&self, direction: Direction, is_wanted: impl Fn() -> bool) -> bool {
        let control = self.lock();
        let control = self
            .changed
            .wait_while(control, |control| {
                !control.is_closed && control.partition.holds(direction) && is_wanted()
            })
            .expect("no thread of the proxy panics with it");
        !control.is_closed
    }
}

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy before `server` on a free loopback port. The server need not be there yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(server: SocketAddr, plan: Plan) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let kept = shared.clone();
        let acceptor = thread::Builder::new()
            .name(format!("proxy {}", server.port()))
            .spawn(move || accept(&listener, server, plan, &kept))?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the network or heals it. What is held meanwhile arrives afterwards.
    pub fn set_partition(&self, partition: Partition) {
        let mut control = self.shared.lock();
        if control.partition != partition {
            control.partition = partition;
            count(&self.shared.tally.partitions, 1);
            self.shared.changed.notify_all();
        }
    }

    /// Resets every connection that stands at present.
    pub fn reset_all(&self) {
        let links = std::mem::take(&mut self.shared.lock().links);
        for link in links.iter().filter_map(Weak::upgrade) {
            link.break_up();
        }
        self.shared.changed.notify_all();
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        let tally = &self.shared.tally;
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts {
            connections: read(&tally.connections),
            refused: read(&tally.refused),
            bytes: read(&tally.bytes),
            swallowed_bytes: read(&tally.swallowed_bytes),
            splits: read(&tally.splits),
            coalesced: read(&tally.coalesced),
            delayed: read(&tally.delayed),
            resets: read(&tally.resets),
            half_closes: read(&tally.half_closes),
            blackholes: read(&tally.blackholes),
            partitions: read(&tally.partitions),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        // Wakes the acceptor, which then sees that the proxy is closed.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.reset_all();
        let threads = std::mem::take(&mut self.shared.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Accepts until the proxy is closed.
fn accept(listener: &TcpListener, server: SocketAddr, mut plan: Plan, shared: &Arc<Shared>) {
    for (number, client) in (0_u64..).zip(listener.incoming()) {
        if !shared.await_passage(Direction::ToServer, || true) {
            return;
        }
        // An accept fails when the client is gone already.
        let Ok(client) = client else { continue };
        count(&shared.tally.connections, 1);
        let Ok(onward) = TcpStream::connect_timeout(&server, Duration::from_secs(5)) else {
            count(&shared.tally.refused, 1);
            // Without lingering, the close that follows is a reset; it fails when the client left.
            let _ = set_socket_linger(&client, Some(Duration::ZERO));
            continue;
        };
        if spawn(number, client, onward, plan(), shared).is_err() {
            count(&shared.tally.refused, 1);
        }
    }
}

/// Starts the two threads of a connection.
fn spawn(
    number: u64,
    client: TcpStream,
    server: TcpStream,
    (to_server, to_client): (rules::Rules, rules::Rules),
    shared: &Arc<Shared>,
) -> io::Result<()> {
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(pump::WRITE_PATIENCE))?;
    }
    let link = Arc::new(Link { client, server, is_broken: AtomicBool::new(false) });
    let mut control = shared.lock();
    control.links.retain(|link| link.strong_count() > 0);
    control.threads.retain(|thread| !thread.is_finished());
    control.links.push(Arc::downgrade(&link));
    for (direction, rules) in [(Direction::ToServer, to_server), (Direction::ToClient, to_client)] {
        let (link, shared) = (link.clone(), shared.clone());
        let name = format!("pump {number}");
        let thread = thread::Builder::new().name(name).spawn(move || {
            pump::run(&link, direction, &rules, &shared);
        })?;
        control.threads.push(thread);
    }
    Ok(())
}
