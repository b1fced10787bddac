//! The proxy between real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::rules::{End, Rules, always, bad_network};
use super::{Partition, Proxy};

const LONG: Duration = Duration::from_secs(30);

/// A client and the server's end of its connection, with a proxy between.
fn pair(to_server: Rules, to_client: Rules) -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let proxy = Proxy::start(address, always(to_server, to_client)).expect("a proxy");
    let client = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    let (server, _) = listener.accept().expect("the proxy connects");
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(LONG)).expect("an option of sockets");
    }
    (proxy, client, server)
}

fn sample(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

fn read_exactly(mut socket: &TcpStream, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    socket.read_exact(&mut data).expect("all bytes arrive");
    data
}

/// Shows that without rules bytes pass unchanged in both directions and ends are passed on.
#[test]
fn without_rules_everything_passes_unchanged() {
    let (proxy, mut client, mut server) = pair(Rules::default(), Rules::default());
    let data = sample(300_000);
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&data).expect("it is read"));
        assert_eq!(read_exactly(&server, data.len()), data);
    });
    server.write_all(b"reply").expect("it is read");
    assert_eq!(read_exactly(&client, 5), b"reply");
    client.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(server.read(&mut [0; 8]).expect("an end in order"), 0);
    server.write_all(b"last").expect("this direction is open");
    assert_eq!(read_exactly(&client, 4), b"last");
    assert_eq!(proxy.counts().bytes, 300_009);
    assert_eq!(proxy.counts().connections, 1);
}

/// Shows that pieces of one byte arrive whole and in order, and one by one.
#[test]
fn single_bytes_arrive_in_order() {
    let rules = Rules { piece_bytes: 1, ..Rules::default() };
    let (proxy, mut client, server) = pair(rules, Rules::default());
    let data = sample(2_000);
    client.write_all(&data).expect("it is read");
    assert_eq!(read_exactly(&server, data.len()), data);
    assert!(proxy.counts().splits >= 1_900, "{:?}", proxy.counts());
}

/// Shows that what is written in pieces arrives at once when it is coalesced.
#[test]
fn pieces_are_coalesced() {
    let rules = Rules { coalesce_bytes: 100, coalesce_time: LONG, ..Rules::default() };
    let (_proxy, mut client, mut server) = pair(rules, Rules::default());
    for byte in sample(100) {
        client.write_all(&[byte]).expect("it is read");
    }
    let mut data = [0; 200];
    assert_eq!(server.read(&mut data).expect("it arrives"), 100);
    assert_eq!(data[..100], sample(100));
}

/// Shows that a delay and a rate are kept: not earlier than they say.
#[test]
fn delay_and_rate_are_kept() {
    let rules = Rules {
        delay: Duration::from_millis(30),
        bytes_per_second: 1_000_000,
        piece_bytes: 10_000,
        ..Rules::default()
    };
    let (_proxy, mut client, server) = pair(rules, Rules::default());
    let begin = Instant::now();
    let data = sample(100_000);
    client.write_all(&data).expect("it is read");
    assert_eq!(read_exactly(&server, data.len()), data);
    // The last piece is sent when the nine before it are paid for, to the millisecond each.
    assert!(begin.elapsed() >= Duration::from_millis(80), "{:?}", begin.elapsed());
}

/// Shows that a reset comes after exactly the bytes that the rule names, as an error on both sides.
#[test]
fn a_reset_comes_at_its_byte() {
    for at in [0, 1, 999] {
        let rules = Rules { end: Some((at, End::Reset)), ..Rules::default() };
        let (proxy, mut client, mut server) = pair(rules, Rules::default());
        client.write_all(&sample(1_000)).expect("the proxy takes it");
        let mut data = Vec::new();
        // A reset may overtake bytes that were not read yet, never add some.
        let error = server.read_to_end(&mut data).expect_err("a reset is no end in order");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(data.len() as u64 <= at, "{} bytes passed {at}", data.len());
        assert_eq!(proxy.counts().bytes, at);
        assert_eq!(proxy.counts().resets, 1);
        assert!(matches!(client.read(&mut [0; 8]), Err(_) | Ok(0)));
    }
}

/// Shows that after a half-close the receiver sees an end and the other direction goes on.
#[test]
fn a_half_close_leaves_the_other_direction() {
    let rules = Rules { end: Some((10, End::HalfClose)), ..Rules::default() };
    let (proxy, mut client, mut server) = pair(rules, Rules::default());
    client.write_all(&sample(30)).expect("the proxy takes it");
    let mut data = Vec::new();
    server.read_to_end(&mut data).expect("an end in order");
    assert_eq!(data, sample(10));
    server.write_all(b"still here").expect("this direction is open");
    assert_eq!(read_exactly(&client, 10), b"still here");
    assert_eq!(proxy.counts().half_closes, 1);
}

/// Shows that a blackhole delivers nothing from its byte on, ends nothing, and leaves the other
/// direction alone.
#[test]
fn a_blackhole_swallows_one_direction() {
    let rules = Rules { end: Some((4, End::Blackhole)), ..Rules::default() };
    let (proxy, mut client, mut server) = pair(rules, Rules::default());
    client.write_all(&sample(50_000)).expect("the proxy takes it");
    assert_eq!(read_exactly(&server, 4), sample(4));
    server.write_all(b"hello?").expect("this direction is open");
    assert_eq!(read_exactly(&client, 6), b"hello?");
    drop(client);
    server.set_read_timeout(Some(Duration::from_millis(50))).expect("an option of sockets");
    let error = server.read(&mut [0; 8]).expect_err("neither bytes nor an end");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock), "{error}");
    assert_eq!(proxy.counts().bytes, 10);
    assert!(proxy.counts().blackholes == 1);
}

/// Shows that a partition holds bytes and new connections and delivers them when it heals, in each
/// direction by itself.
#[test]
fn a_partition_holds_and_heals() {
    let (proxy, mut client, mut server) = pair(Rules::default(), Rules::default());
    let short = Some(Duration::from_millis(50));
    proxy.set_partition(Partition { to_server: true, to_client: false });
    client.write_all(b"held").expect("the proxy takes it");
    server.write_all(b"passes").expect("the proxy takes it");
    assert_eq!(read_exactly(&client, 6), b"passes");
    server.set_read_timeout(short).expect("an option of sockets");
    server.read(&mut [0; 8]).expect_err("it is held");
    proxy.set_partition(Partition { to_server: false, to_client: true });
    server.set_read_timeout(Some(LONG)).expect("an option of sockets");
    assert_eq!(read_exactly(&server, 4), b"held");
    server.write_all(b"held too").expect("the proxy takes it");
    client.set_read_timeout(short).expect("an option of sockets");
    client.read(&mut [0; 8]).expect_err("it is held");
    client.set_read_timeout(Some(LONG)).expect("an option of sockets");
    proxy.set_partition(Partition::NONE);
    assert_eq!(read_exactly(&client, 8), b"held too");
    assert_eq!(proxy.counts().partitions, 3);
}

/// Shows that the same seed draws the same rules, another seed others, and that all kinds of
/// faults come up.
#[test]
fn rules_follow_from_the_seed() {
    let draw = |seed| {
        let mut plan = bad_network(seed);
        (0..300).map(|_| plan()).collect::<Vec<_>>()
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    let all: Vec<Rules> = draw(5).into_iter().flat_map(|(one, other)| [one, other]).collect();
    for (what, count) in [
        ("good", all.iter().filter(|it| it.is_transparent()).count()),
        ("delay", all.iter().filter(|it| !it.delay.is_zero()).count()),
        ("bytes", all.iter().filter(|it| (1..10).contains(&it.piece_bytes)).count()),
        ("coalesce", all.iter().filter(|it| it.coalesce_bytes > 0).count()),
        ("throttle", all.iter().filter(|it| it.bytes_per_second > 0).count()),
    ] {
        assert!(count > 10, "{what}: {count}");
    }
    for how in [End::Reset, End::HalfClose, End::Blackhole] {
        assert!(all.iter().any(|it| it.end.is_some_and(|(_, end)| end == how)), "{how:?}");
    }
}

/// Shows that dropping a proxy ends its threads whatever they wait for, and resets its clients.
#[test]
fn dropping_a_proxy_ends_all_waits() {
    let slow = Rules { bytes_per_second: 1, delay: LONG, ..Rules::default() };
    let (proxy, mut client, _server) = pair(slow, Rules::default());
    client.write_all(&sample(1_000)).expect("the proxy takes it");
    proxy.set_partition(Partition::BOTH);
    let (done, ended) = channel();
    thread::spawn(move || {
        drop(proxy);
        done.send(()).expect("the test waits");
    });
    ended.recv_timeout(LONG).expect("it ends by itself");
    let error = client.read(&mut [0; 8]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
