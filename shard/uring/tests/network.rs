//! What every network must do, run against the ring and the portable one, with clients of the
//! standard library over loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::id::ConnectionId;
use thalweg_uring::portable::{PortableNetwork, PortableWait};
use thalweg_uring::{
    Admission, AdmissionConfig, Listeners, NetworkConfig, NetworkCounts, PortSharing,
};
use thalweg_uring::{Ring, RingConfig, UringNetwork, event_counter};

/// After this long without the expected event a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A network with its way to wait for something to happen.
struct Server<N> {
    network: N,
    wait: Box<dyn Fn()>,
    address: SocketAddr,
    events: Vec<NetworkEvent>,
    counts: fn(&N) -> NetworkCounts,
}

impl<N: Network> Server<N> {
    /// Handles events until `is_done` says so.
    fn serve(&mut self, mut handle: impl FnMut(&mut N, NetworkEvent), is_done: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_done() {
            assert!(started.elapsed() < PATIENCE, "nothing happens any more");
            self.network.poll(&mut self.events);
            let events = std::mem::take(&mut self.events);
            let was_idle = events.is_empty();
            for event in events {
                handle(&mut self.network, event);
            }
            if was_idle {
                (self.wait)();
            }
        }
    }

    /// The next event.
    fn next(&mut self) -> NetworkEvent {
        let started = Instant::now();
        loop {
            if !self.events.is_empty() {
                return self.events.remove(0);
            }
            assert!(started.elapsed() < PATIENCE, "no event comes");
            self.network.poll(&mut self.events);
            if self.events.is_empty() {
                (self.wait)();
            }
        }
    }

    /// The next event but `Sent`.
    fn next_but_sent(&mut self) -> NetworkEvent {
        loop {
            match self.next() {
                NetworkEvent::Sent { .. } => {}
                event => return event,
            }
        }
    }

    fn accept(&mut self) -> ConnectionId {
        match self.next() {
            NetworkEvent::Accepted { connection } => connection,
            other => panic!("instead of a connection: {other:?}"),
        }
    }

    fn expect_closed(&mut self, expected: ConnectionId) {
        match self.next_but_sent() {
            NetworkEvent::Closed { connection } => assert_eq!(connection, expected),
            other => panic!("instead of the end: {other:?}"),
        }
    }

    /// Echoes until `clients` have come to their end; returns the connections closed.
    fn echo_until_finished(&mut self, clients: Vec<JoinHandle<()>>) -> usize {
        let expected = clients.len();
        let closed = std::cell::Cell::new(0);
        self.serve(
            |network, event| match event {
                NetworkEvent::Accepted { connection } => {
                    network.receive(connection, BytesMut::with_capacity(64 << 10));
                }
                NetworkEvent::Received { connection, mut buffer } => {
                    network.send(connection, buffer.split().freeze());
                    buffer.reserve(64 << 10);
                    network.receive(connection, buffer);
                }
                NetworkEvent::Sent { .. } => {}
                NetworkEvent::Closed { .. } => closed.set(closed.get() + 1),
            },
            || closed.get() == expected,
        );
        for client in clients {
            client.join().expect("the client is content");
        }
        closed.get()
    }
}

fn listeners(connections_max: usize) -> (Listeners, SocketAddr) {
    let config = NetworkConfig {
        addresses: vec!["127.0.0.1:0".parse().expect("an address")],
        port_sharing: PortSharing::Exclusive,
        admission: Admission::new(AdmissionConfig {
            connections_max,
            ..AdmissionConfig::default()
        }),
    };
    let listeners = Listeners::bind(&config).expect("a free port");
    let address = listeners.addresses().expect("an address")[0];
    (listeners, address)
}

fn on_ring(connections_max: usize) -> Server<UringNetwork> {
    let ring = Ring::new(RingConfig::default()).expect("a ring");
    let (listeners, address) = listeners(connections_max);
    let network = UringNetwork::new(&ring, listeners);
    let wait = Box::new(move || {
        ring.wake_at(Instant::now() + Duration::from_secs(1));
        ring.flush();
        ring.wait_any();
    });
    Server { network, wait, address, events: Vec::new(), counts: UringNetwork::counts }
}

fn portable(connections_max: usize) -> Server<PortableNetwork> {
    let wait = PortableWait::new(event_counter().expect("a descriptor"));
    let (listeners, address) = listeners(connections_max);
    let network = PortableNetwork::new(&wait, listeners).expect("a network");
    let wait = Box::new(move || wait.wait(Some(Duration::from_secs(1))).expect("a wait"));
    Server { network, wait, address, events: Vec::new(), counts: PortableNetwork::counts }
}

macro_rules! suite {
    ($($name:ident => $claim:ident with $connections_max:expr),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                $claim(on_ring($connections_max));
                $claim(portable($connections_max));
            }
        )*
    };
}

suite! {
    two_hundred_connections_are_echoed => many_connections with 1000,
    tens_of_megabytes_pass_both_ways => large_transfer with 10,
    bytes_queued_before_a_half_close_arrive => half_close with 10,
    a_reset_closes_once => reset with 10,
    queued_bytes_leave_before_a_close => close_with_queue with 10,
    a_close_is_not_a_reset_when_the_peer_still_sends => close_while_peer_sends with 10,
    nothing_is_received_without_asking => receive_on_request with 10,
    received_bytes_follow_what_the_buffer_held => buffer_content with 10,
    sent_counts_add_up => sent_counts with 10,
    connections_beyond_the_limit_are_closed => limit with 2,
    calls_for_closed_connections_do_nothing => calls_after_close with 10,
    a_peer_that_does_not_read_is_closed_all_the_same => stuck_peer with 10,
}

/// Two hundred clients at once each get their own bytes back.
fn many_connections<N: Network>(mut server: Server<N>) {
    let address = server.address;
    let clients = (0..200u32)
        .map(|number| {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("a connection");
                    for round in 0..5u32 {
                        let message = [number.to_be_bytes(), round.to_be_bytes()].concat();
                        stream.write_all(&message).expect("a send");
                        let mut answer = [0; 8];
                        stream.read_exact(&mut answer).expect("an answer");
                        assert_eq!(answer[..], message[..]);
                    }
                })
                .expect("a thread")
        })
        .collect();
    assert_eq!(server.echo_until_finished(clients), 200);
    assert_eq!((server.counts)(&server.network).accepted, 200);
}

/// A client that writes 32 MiB while it reads them back sees every byte in its place.
fn large_transfer<N: Network>(mut server: Server<N>) {
    const BYTES: usize = 32 << 20;
    let stream = TcpStream::connect(server.address).expect("a connection");
    let mut reader = stream.try_clone().expect("a second handle");
    let mut writer = stream;
    let byte_at = |place: usize| (place.wrapping_mul(2_654_435_761) >> 13) as u8;
    let sender = thread::spawn(move || {
        let bytes: Vec<u8> = (0..BYTES).map(byte_at).collect();
        writer.write_all(&bytes).expect("a send");
        writer.shutdown(Shutdown::Write).expect("a half close");
    });
    let receiver = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("an answer");
        assert_eq!(bytes.len(), BYTES);
        assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
        sender.join().expect("all was sent");
    });
    assert_eq!(server.echo_until_finished(vec![receiver]), 1);
}

/// A client that ends its side still gets what was queued for it, and then the end.
fn half_close<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    client.shutdown(Shutdown::Write).expect("a half close");
    server.network.send(connection, Bytes::from(vec![7; 1 << 20]));
    server.network.receive(connection, BytesMut::with_capacity(100));
    let client = thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("an answer");
        assert_eq!(bytes, vec![7; 1 << 20]);
    });
    server.expect_closed(connection);
    client.join().expect("the client is content");
}

/// A peer that resets the connection leads to one `Closed` and nothing after it.
fn reset<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    server.network.receive(connection, BytesMut::with_capacity(100));
    // Bytes that the client has not read when it closes make its kernel send a reset.
    server.network.send(connection, Bytes::from_static(b"never read"));
    let NetworkEvent::Sent { bytes: 10, .. } = server.next() else { panic!("ten bytes leave") };
    let mut first = [0];
    client.peek(&mut first).expect("they have arrived");
    client.write_all(b"x").expect("a send");
    drop(client);
    match server.next_but_sent() {
        // Whether the byte before the reset is seen is the kernel's choice.
        NetworkEvent::Received { buffer, .. } => {
            server.network.receive(connection, buffer);
            server.expect_closed(connection);
        }
        NetworkEvent::Closed { connection: closed } => assert_eq!(closed, connection),
        other => panic!("instead of the end: {other:?}"),
    }
    server.network.poll(&mut server.events);
    assert!(server.events.is_empty(), "nothing comes after the end: {:?}", server.events);
}

/// A close leaves time for everything queued before it, and none for what comes after.
fn close_with_queue<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    server.network.receive(connection, BytesMut::with_capacity(100));
    for piece in 0..200u8 {
        server.network.send(connection, Bytes::from(vec![piece; 40_000]));
    }
    server.network.close(connection);
    server.network.send(connection, Bytes::from_static(b"too late"));
    let client = thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("an answer");
        let expected: Vec<u8> = (0..200u8).flat_map(|piece| vec![piece; 40_000]).collect();
        assert!(bytes == expected, "{} bytes", bytes.len());
    });
    server.expect_closed(connection);
    client.join().expect("the client is content");
}

/// Bytes of the peer that nobody reads do not destroy the last words sent to it.
fn close_while_peer_sends<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    client.write_all(&[1; 50_000]).expect("a send");
    server.network.send(connection, Bytes::from_static(b"go away"));
    server.network.close(connection);
    let client = thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("no reset");
        assert_eq!(bytes, b"go away");
    });
    server.expect_closed(connection);
    client.join().expect("the client is content");
}

/// Bytes wait in the kernel until a receive asks for them, however often the network is polled.
fn receive_on_request<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    client.write_all(b"first").expect("a send");
    for _ in 0..10 {
        server.network.poll(&mut server.events);
    }
    assert!(server.events.is_empty(), "nobody asked: {:?}", server.events);
    server.network.receive(connection, BytesMut::with_capacity(5));
    let NetworkEvent::Received { buffer, .. } = server.next() else { panic!("bytes arrive") };
    assert_eq!(buffer, b"first"[..]);
    client.write_all(b"second").expect("a send");
    server.network.receive(connection, BytesMut::with_capacity(3));
    let NetworkEvent::Received { mut buffer, .. } = server.next() else { panic!("bytes arrive") };
    buffer.reserve(100);
    server.network.receive(connection, buffer);
    let NetworkEvent::Received { buffer, .. } = server.next() else { panic!("bytes arrive") };
    assert_eq!(buffer, b"second"[..]);
}

/// A buffer that holds half a command comes back with the rest behind it.
fn buffer_content<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    let mut buffer = BytesMut::with_capacity(100);
    buffer.extend_from_slice(b"half a ");
    server.network.receive(connection, buffer);
    client.write_all(b"command").expect("a send");
    let NetworkEvent::Received { buffer, .. } = server.next() else { panic!("bytes arrive") };
    assert_eq!(buffer, b"half a command"[..]);
}

/// The counts of `Sent` come to exactly what was given.
fn sent_counts<N: Network>(mut server: Server<N>) {
    let mut client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    let reader = thread::spawn(move || {
        let mut bytes = vec![0; 300 * 10_001];
        client.read_exact(&mut bytes).expect("all of it");
        client
    });
    for _ in 0..300 {
        server.network.send(connection, Bytes::from(vec![1; 10_001]));
    }
    let mut left = 300 * 10_001;
    while left > 0 {
        match server.next() {
            NetworkEvent::Sent { bytes, .. } => left -= bytes,
            other => panic!("instead of a count: {other:?}"),
        }
    }
    let _client = reader.join().expect("all arrived");
    server.network.poll(&mut server.events);
    assert!(server.events.is_empty(), "{:?}", server.events);
}

/// The third of two is closed at once and counted; when one goes, another may come.
fn limit<N: Network>(mut server: Server<N>) {
    let first = TcpStream::connect(server.address).expect("a connection");
    let second = TcpStream::connect(server.address).expect("a connection");
    let (first_id, second_id) = (server.accept(), server.accept());
    assert_ne!(first_id, second_id);
    let mut third = TcpStream::connect(server.address).expect("a connection");
    let refused = thread::spawn(move || third.read(&mut [0]).expect("an end, not bytes"));
    while (server.counts)(&server.network).refused == 0 {
        server.network.poll(&mut server.events);
        (server.wait)();
    }
    assert_eq!(refused.join().expect("the client is told"), 0);
    server.network.receive(first_id, BytesMut::with_capacity(1));
    drop(first);
    server.expect_closed(first_id);
    let _fourth = TcpStream::connect(server.address).expect("a connection");
    assert!(server.accept() > second_id, "numbers are not used again");
    drop(second);
}

/// Late calls for a connection that has ended are ignored.
fn calls_after_close<N: Network>(mut server: Server<N>) {
    let client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    drop(client);
    server.network.receive(connection, BytesMut::with_capacity(1));
    server.expect_closed(connection);
    server.network.send(connection, Bytes::from_static(b"x"));
    server.network.receive(connection, BytesMut::with_capacity(1));
    server.network.close(connection);
    let _other = TcpStream::connect(server.address).expect("a connection");
    assert!(server.accept() > connection);
}

/// A peer that reads nothing cannot hold a connection that is to be closed for more than the time
/// allowed for it.
fn stuck_peer<N: Network>(mut server: Server<N>) {
    let _client = TcpStream::connect(server.address).expect("a connection");
    let connection = server.accept();
    server.network.send(connection, Bytes::from(vec![0; 64 << 20]));
    let started = Instant::now();
    server.network.close(connection);
    server.expect_closed(connection);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}
