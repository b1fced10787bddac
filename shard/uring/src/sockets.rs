//! System calls that the standard library lacks: listening sockets with their options, waiting,
//! eventfds, allocation; and the small socket steps that both networks share.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Admission, Admitted, Refused};

/// Whether several listeners, one per shard, may have the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSharing {
    /// The port is this listener's alone; a second one fails with `AddrInUse`.
    Exclusive,
    /// The kernel spreads connections over all listeners that ask for this.
    Shared,
}

/// What a network listens on and what it bears.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Where to listen. Port 0 takes any free port.
    pub addresses: Vec<SocketAddr>,
    /// Whether other shards listen on the same ports.
    pub port_sharing: PortSharing,
    /// Who may connect; shared with the listeners of other shards.
    pub admission: Arc<Admission>,
}

/// Listening sockets, made before a shard starts so that a taken port is found early. Not bound to
/// a thread.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) sockets: Vec<TcpListener>,
    pub(crate) admission: Arc<Admission>,
}

impl NetworkCounts {
    /// A place for a connection that was just accepted, counted; `None`: close it.
    pub(crate) fn admit(
        &mut self,
        admission: &Arc<Admission>,
        socket: &TcpStream,
    ) -> Option<Admitted> {
        let address = socket.peer_addr().ok().map(|address| address.ip());
        match admission.admit(address) {
            Ok(admitted) => {
                self.accepted += 1;
                return Some(admitted);
            }
            Err(Refused::Full) => self.refused += 1,
            Err(Refused::AddressFull) => self.refused_of_address += 1,
        }
        None
    }
}

impl Listeners {
    /// Listens on every address of `config`.
    ///
    /// # Errors
    /// When an address cannot be had; the text names it.
    pub fn bind(config: &NetworkConfig) -> io::Result<Self> {
        let listen = |address: &SocketAddr| listen(*address, config.port_sharing);
        let sockets = config.addresses.iter().map(listen).collect::<io::Result<_>>()?;
        Ok(Self { sockets, admission: config.admission.clone() })
    }

    /// The addresses listened on, in the order of the configuration; with the ports that the kernel
    /// chose.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }
}

/// What a network counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Connections taken in.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections closed at once because their address had too many.
    pub refused_of_address: u64,
    /// How often accepting paused because connections came too fast.
    pub accepts_paced: u64,
    /// How often accepting paused because descriptors or memory were short.
    pub accept_pauses: u64,
}

/// Length of the queue of connections not accepted yet; the kernel cuts it to its own bound.
const BACKLOG: i32 = 4096;

fn listen(address: SocketAddr, sharing: PortSharing) -> io::Result<TcpListener> {
    open_listener(address, sharing)
        .map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))
}

fn open_listener(address: SocketAddr, sharing: PortSharing) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    checked(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(result) };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    if sharing == PortSharing::Shared {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
    }
    if address.is_ipv6() {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    find_dead_peers(&socket)?;
    bind(&socket, address)?;
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(TcpListener::from(socket))
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let descriptor = socket.as_raw_fd();
    match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            let length = size_of_val(&name) as libc::socklen_t;
            // SAFETY: the name is a valid address of the length given and outlives the call.
            checked(unsafe { libc::bind(descriptor, (&raw const name).cast(), length) })
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            let length = size_of_val(&name) as libc::socklen_t;
            // SAFETY: the name is a valid address of the length given and outlives the call.
            checked(unsafe { libc::bind(descriptor, (&raw const name).cast(), length) })
        }
    }
}

/// A peer that says nothing is asked by the kernel from this time on whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(30);

/// Time between two such questions.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Questions without an answer after which the peer is dead.
const PROBES: i32 = 3;

/// A peer that confirms nothing of what was sent for so long is dead.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(60);

/// Has the kernel find peers whose host is gone. Connections inherit it from their listener.
fn find_dead_peers(listener: &OwnedFd) -> io::Result<()> {
    let seconds = |time: Duration| time.as_secs() as libc::c_int;
    set_option(listener, libc::SOL_SOCKET, libc::SO_KEEPALIVE)?;
    let tcp = |name, value| set_value(listener, libc::IPPROTO_TCP, name, value);
    tcp(libc::TCP_KEEPIDLE, seconds(PROBE_AFTER))?;
    tcp(libc::TCP_KEEPINTVL, seconds(PROBE_EVERY))?;
    tcp(libc::TCP_KEEPCNT, PROBES)?;
    tcp(libc::TCP_USER_TIMEOUT, UNCONFIRMED_MAX.as_millis() as libc::c_int)
}

fn set_option(socket: &OwnedFd, level: i32, name: i32) -> io::Result<()> {
    set_value(socket, level, name, 1)
}

fn set_value(socket: &OwnedFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let on = value;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is an int of the length given and outlives the call.
    checked(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length)
    })
}

/// Which directions of a connection to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Nothing more will be sent; the peer sees the end after what it has been sent.
    Write,
    /// Nothing at all; operations in flight complete.
    Both,
}

/// Ends a connection's directions. That it is ended already is no error.
pub(crate) fn shut_down(socket: &OwnedFd, direction: Direction) {
    let how = match direction {
        Direction::Write => libc::SHUT_WR,
        Direction::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no pointers are passed.
    let _ = unsafe { libc::shutdown(socket.as_raw_fd(), how) };
}

/// Sends small packets at once: replies are gathered by us, waiting for more would only delay them.
pub(crate) fn without_delay(socket: OwnedFd) -> TcpStream {
    let stream = TcpStream::from(socket);
    // A peer that is gone already makes this fail; the first transfer will tell.
    let _ = stream.set_nodelay(true);
    stream
}

/// Waits until one of the descriptors is ready as asked, or `milliseconds` have passed (for ever
/// when negative). What happened is in `revents`.
///
/// # Errors
/// As `poll(2)`; an interrupted wait is not an error.
pub(crate) fn wait_ready(descriptors: &mut [libc::pollfd], milliseconds: i32) -> io::Result<()> {
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: the slice is valid for its length and outlives the call.
    match checked(unsafe { libc::poll(descriptors.as_mut_ptr(), count, milliseconds) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

/// Whether accepting failed because the process or the machine is short of something that comes
/// back with time.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Makes an eventfd with the count 0. Writing a number in eight bytes adds it; reading waits until
/// the count is over 0 and takes it. For waking a shard from other threads.
///
/// # Errors
/// When the process is out of descriptors.
pub fn event_counter() -> io::Result<File> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    checked(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { File::from_raw_fd(result) })
}

/// Allocates a file's first `bytes` bytes and grows it to that size. Blocks.
///
/// # Errors
/// As `fallocate(2)`.
pub(crate) fn allocate(file: &OwnedFd, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: no pointers are passed.
        match checked(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
