//! Single faults of the network between one client and the real daemon, each by name.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_crash::payload::Mark;
use thalweg_crash::proxy::rules::{End, Rules, always};
use thalweg_crash::proxy::{Partition, Proxy};
use thalweg_crash::store::{Route, Store};
use thalweg_crash::wire::{StopSwitch, Trouble, Wire};
use thalweg_wire::{Command, NO_EVENT_NUMBER};

use crate::rig::server::{Server, settings_for};

const SEGMENT: &str = "network/stream/0.#epoch.0";
const WRITER: u128 = 7 << 64 | 77;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one segment.
struct Rig {
    server: Server,
    _home: tempfile::TempDir,
}

impl Rig {
    fn start(flags: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut settings = settings_for(home.path(), 1);
        for (flag, value) in flags {
            settings = settings.with(flag, value);
        }
        let rig = Self { server: Server::start(&settings), _home: home };
        assert!(rig.store().create(SEGMENT).expect("the server lives"), "it is new");
        rig
    }

    fn store(&self) -> Store {
        let address = ([127, 0, 0, 1], self.server.ports()[0]).into();
        Store::new(&Route::to(vec![address]))
    }

    fn proxy(&self, to_server: Rules, to_client: Rules) -> Proxy {
        let address = ([127, 0, 0, 1], self.server.ports()[0]).into();
        Proxy::start(address, always(to_server, to_client)).expect("a port for the proxy")
    }

    fn direct(&self) -> Wire {
        let address = ([127, 0, 0, 1], self.server.ports()[0]).into();
        Wire::connect(address, PATIENCE, &StopSwitch::default()).expect("the server lives")
    }

    /// All events of the segment.
    fn events(&self) -> Vec<Mark> {
        let mut store = self.store();
        let info = store.info(SEGMENT).expect("the server lives").expect("it was created");
        let data = store.read_all(SEGMENT, 0, info.write_offset).expect("the server lives");
        let found = thalweg_crash::payload::parse(SEGMENT, 0, &data).expect("whole, right events");
        found.into_iter().map(|(_, mark)| mark).collect()
    }
}

fn through(proxy: &Proxy, patience: Duration) -> Wire {
    Wire::connect(proxy.address(), patience, &StopSwitch::default()).expect("the network is open")
}

/// A block of the events `from..=to`.
fn block(from: u64, to: u64) -> Bytes {
    let mut data = BytesMut::new();
    for serial in from..=to {
        Mark::new(1, serial).frame(&mut data);
    }
    data.freeze()
}

fn marks(to: u64) -> Vec<Mark> {
    (1..=to).map(|serial| Mark::new(1, serial)).collect()
}

fn set_up(wire: &mut Wire) -> i64 {
    match wire.set_up(SEGMENT, WRITER).expect("an answer") {
        Command::AppendSetup(it) => it.last_event_number,
        other => panic!("{other:?} to a set-up"),
    }
}

/// Appends the events `from..=to` as one block and waits for its acknowledgement.
fn append(wire: &mut Wire, from: u64, to: u64) {
    let number = i64::try_from(to).expect("small");
    let count = i32::try_from(to - from + 1).expect("small");
    wire.append(WRITER, block(from, to), number, count).expect("room to send");
    match wire.receive().expect("an acknowledgement") {
        Command::DataAppended(it) => assert_eq!(it.event_number, number),
        other => panic!("{other:?} to an append"),
    }
}

/// Shows that a network that is cut in one direction, the other, both, and again and again, holds
/// appends up and loses none: after it heals they are acknowledged, once, in order. F29.
#[test]
fn a_partition_delays_and_loses_nothing() {
    let rig = Rig::start(&[]);
    let proxy = rig.proxy(Rules::default(), Rules::default());
    let mut wire = through(&proxy, PATIENCE);
    assert_eq!(set_up(&mut wire), NO_EVENT_NUMBER);
    let one_way = |to_server| Partition { to_server, to_client: !to_server };
    let mut last = 0;
    for round in 0..12 {
        let partition = [one_way(true), one_way(false), Partition::BOTH][round % 3];
        proxy.set_partition(partition);
        let number = i64::try_from(last + 5).expect("small");
        wire.append(WRITER, block(last + 1, last + 5), number, 5).expect("the proxy takes it");
        proxy.set_partition(Partition::NONE);
        match wire.receive().expect("an acknowledgement after healing") {
            Command::DataAppended(it) => assert_eq!(it.event_number, number),
            other => panic!("{other:?} to an append"),
        }
        last += 5;
    }
    assert!(proxy.counts().partitions >= 24);
    assert_eq!(rig.events(), marks(last));
}

/// Shows that a client that fell silent without an end is closed after the time for that (here one
/// second instead of sixty), while one that sends keep-alives stays. F30.
#[test]
fn a_half_open_peer_is_closed() {
    let rig = Rig::start(&[("--limit", "silence-seconds=1")]);
    let silent = rig.proxy(Rules::default(), Rules::default());
    let mut gone = through(&silent, PATIENCE);
    let mut alive = rig.direct();
    gone.keep_alive().expect("room to send");
    alive.keep_alive().expect("room to send");
    // The answer shows that the keep-alive before it has arrived.
    assert_eq!(set_up(&mut gone), NO_EVENT_NUMBER);
    // From here on nothing of the silent client arrives, and nobody tells the server.
    silent.set_partition(Partition { to_server: true, to_client: false });
    let begin = Instant::now();
    let closed = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || gone.receive());
        while !waiting.is_finished() {
            assert!(begin.elapsed() < PATIENCE, "the silent client is still connected");
            alive.keep_alive().expect("the living client stays connected");
            std::thread::sleep(Duration::from_millis(200));
        }
        waiting.join().expect("it does not panic")
    });
    assert!(matches!(closed, Err(Trouble::Closed)), "{closed:?}");
    assert!(begin.elapsed() >= Duration::from_millis(900), "closed after {:?}", begin.elapsed());
    assert_eq!(set_up(&mut alive), NO_EVENT_NUMBER);
    append(&mut alive, 1, 3);
}

/// Shows that a connection reset at any byte of a block leaves the block whole or not at all, and
/// that the writer resumes with exactly what the next set-up tells. F31.
#[test]
fn a_reset_in_a_block_leaves_it_whole_or_absent() {
    let rig = Rig::start(&[]);
    // Bytes of Hello and set-up, to aim behind them.
    let before = {
        let proxy = rig.proxy(Rules::default(), Rules::default());
        let mut wire = through(&proxy, PATIENCE);
        set_up(&mut wire);
        proxy.counts().bytes
    };
    let mut last = 0;
    for step in 0..40 {
        let (from, to) = (last + 1, last + 10);
        let size = block(from, to).len() as u64;
        // Both directions were counted; too early is a fault of the set-up, which is as welcome.
        let at = before / 2 + step * (size + before) / 40;
        let rules = Rules { end: Some((at, End::Reset)), ..Rules::default() };
        let proxy = rig.proxy(rules, Rules::default());
        let switch = StopSwitch::default();
        let attempt = Wire::connect(proxy.address(), PATIENCE, &switch).and_then(|mut wire| {
            wire.set_up(SEGMENT, WRITER)?;
            let number = i64::try_from(to).expect("small");
            wire.append(WRITER, block(from, to), number, 10)?;
            wire.receive()
        });
        let told = set_up(&mut rig.direct());
        let told = u64::try_from(told.max(0)).expect("not negative");
        assert!(told == last || told == to, "half a block: {told} after {last}, cut at {at}");
        if let Ok(Command::DataAppended(_)) = attempt {
            assert_eq!(told, to, "an acknowledged block is not there");
        }
        last = told;
        assert_eq!(rig.events(), marks(last), "cut at {at}");
    }
    append_all_again(&rig, last);
}

/// The writer goes on behind what is stored.
fn append_all_again(rig: &Rig, last: u64) {
    let mut wire = rig.direct();
    let told = set_up(&mut wire);
    assert_eq!(u64::try_from(told.max(0)).expect("not negative"), last);
    append(&mut wire, last + 1, last + 4);
    assert_eq!(rig.events(), marks(last + 4));
}

/// Shows that after a set-up of the same writer on another connection the older one stores nothing
/// more: it is told so or closed, and every event is there once. F37.
#[test]
fn one_writer_on_two_connections_stores_nothing_twice() {
    let rig = Rig::start(&[]);
    let proxy = rig.proxy(Rules::default(), Rules::default());
    let mut older = through(&proxy, PATIENCE);
    assert_eq!(set_up(&mut older), NO_EVENT_NUMBER);
    append(&mut older, 1, 5);
    // The next block of the older connection is held by the network until the newer one wrote.
    proxy.set_partition(Partition { to_server: true, to_client: false });
    older.append(WRITER, block(6, 9), 9, 4).expect("the proxy takes it");
    let mut newer = rig.direct();
    assert_eq!(set_up(&mut newer), 5);
    append(&mut newer, 6, 7);
    proxy.set_partition(Partition::NONE);
    match older.receive() {
        Err(Trouble::Closed) | Ok(Command::InvalidEventNumber(_)) => {}
        other => panic!("{other:?} to an append behind a newer set-up"),
    }
    append(&mut newer, 8, 10);
    assert_eq!(rig.events(), marks(10));
}

/// Shows that an append whose acknowledgement was lost is stored once: the next set-up tells its
/// number, and sending it again is refused and stores nothing. F38.
#[test]
fn a_resend_after_a_lost_acknowledgement_stores_nothing_twice() {
    let rig = Rig::start(&[]);
    let proxy = rig.proxy(Rules::default(), Rules::default());
    let mut wire = through(&proxy, PATIENCE);
    assert_eq!(set_up(&mut wire), NO_EVENT_NUMBER);
    proxy.set_partition(Partition { to_server: false, to_client: true });
    wire.append(WRITER, block(1, 8), 8, 8).expect("room to send");
    let begin = Instant::now();
    while rig.store().info(SEGMENT).expect("the server lives").expect("it is there").write_offset
        == 0
    {
        assert!(begin.elapsed() < PATIENCE, "the append does not arrive");
    }
    proxy.reset_all();
    assert!(matches!(wire.receive(), Err(Trouble::Closed)), "the acknowledgement was lost");
    let mut again = rig.direct();
    assert_eq!(set_up(&mut again), 8);
    again.append(WRITER, block(1, 8), 8, 8).expect("room to send");
    match again.receive() {
        Err(Trouble::Closed) | Ok(Command::InvalidEventNumber(_)) => {}
        other => panic!("{other:?} to an append that was stored before"),
    }
    let mut last = rig.direct();
    assert_eq!(set_up(&mut last), 8);
    append(&mut last, 9, 9);
    assert_eq!(rig.events(), marks(9));
}
