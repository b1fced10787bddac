//! Bytes that no client should send: the connection is closed, nothing is stored, and nobody else
//! notices.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_crash::dice::Dice;
use thalweg_crash::payload::{Mark, parse};
use thalweg_crash::store::{Store, none};
use thalweg_crash::wire::{Trouble, Wire};
use thalweg_wire::{
    AppendBlock, AppendBlockEnd, Command, DataAppended, Event, FRAME_BYTES_MAX, KeepAlive, Padding,
    PartialEvent, SetupAppend,
};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::dice::seed;
use rig::server::{Server, settings_for};
use rig::wire::{connect, connect_silently, open_store};

const SEGMENT: &str = "input/hostile/0.#epoch.0";
const HOSTILE: u128 = 0xBAD;
const HONEST: u128 = 0x600D;

fn frame(code: i32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(code);
    out.put_i32(i32::try_from(payload.len()).expect("short"));
    out.put_slice(payload);
    out.freeze()
}

fn header(code: i32, length: i32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(code);
    out.put_i32(length);
    out.freeze()
}

fn encoded(commands: impl IntoIterator<Item = Command>) -> Bytes {
    let mut out = BytesMut::new();
    for command in commands {
        command.encode(&mut out);
    }
    out.freeze()
}

fn block(data: &'static [u8]) -> Command {
    AppendBlock { writer_id: HOSTILE, data: Bytes::from_static(data) }.into()
}

fn end(size_of_whole_events: i32, data: &'static [u8], event_count: i32, last: i64) -> Command {
    AppendBlockEnd {
        writer_id: HOSTILE,
        size_of_whole_events,
        data: Bytes::from_static(data),
        event_count,
        last_event_number: last,
        request_id: 7,
    }
    .into()
}

fn set_up() -> Command {
    SetupAppend {
        request_id: 8,
        writer_id: HOSTILE,
        segment: SEGMENT.into(),
        delegation_token: none(),
    }
    .into()
}

/// What is sent, and whether the writer is set up before.
fn hostile_inputs() -> Vec<(&'static str, bool, Bytes)> {
    let other_writer = AppendBlock { writer_id: HONEST, data: Bytes::from_static(b"other") }.into();
    let reply = DataAppended {
        writer_id: HOSTILE,
        event_number: 1,
        previous_event_number: 0,
        request_id: 1,
        current_segment_write_offset: 1,
    };
    let too_large = i32::try_from(FRAME_BYTES_MAX - 8 + 1).expect("below 2 GiB");
    vec![
        ("unknown command", false, frame(9999, b"hello")),
        ("retired command", false, frame(72, b"")),
        ("negative length", false, header(1, -1)),
        ("least length", false, header(4, i32::MIN)),
        ("oversize length", false, header(4, too_large)),
        ("greatest length", false, header(4, i32::MAX)),
        ("payload too short", false, frame(11, b"1234567")),
        ("name longer than its frame", false, frame(11, b"12345678\xFF\xFFname")),
        ("name that is no text", false, frame(11, b"12345678\0\x02\xC3\x28\0\0")),
        ("reply sent as a request", false, encoded([reply.into()])),
        ("bare event", false, encoded([Event { data: Bytes::from_static(b"bare") }.into()])),
        (
            "bare partial event",
            false,
            encoded([PartialEvent { data: Bytes::from_static(b"bare") }.into()]),
        ),
        ("append without set-up", false, encoded([end(4, b"data", 1, 1)])),
        ("block without set-up", false, encoded([block(b"data"), end(4, b"", 1, 1)])),
        ("block of another writer", true, encoded([other_writer, end(4, b"", 1, 1)])),
        ("two blocks in a row", true, encoded([block(b"data"), block(b"data")])),
        ("set-up inside a block", true, encoded([block(b"data"), set_up(), end(4, b"", 1, 1)])),
        ("more whole events than bytes", true, encoded([block(b"data"), end(5, b"", 1, 1)])),
        ("negative whole events", true, encoded([block(b"data"), end(-1, b"", 1, 1)])),
        ("rest that is no command", true, encoded([block(b"data rest"), end(4, b"", 1, 1)])),
        ("no events", true, encoded([end(4, b"data", 0, 1)])),
        ("fewer than no events", true, encoded([end(4, b"data", -3, 1)])),
        ("negative event number", true, encoded([end(4, b"data", 1, -5)])),
        ("number that goes back", true, encoded([end(4, b"good", 1, 9), end(4, b"evil", 1, 8)])),
        ("number twice", true, encoded([end(4, b"good", 1, 12), end(4, b"evil", 1, 12)])),
    ]
}

/// A writer that has nothing to do with the hostile one, on its own connection.
struct Honest {
    wire: Wire,
    events: u64,
}

const QUIET: &str = "input/honest/0.#epoch.0";

impl Honest {
    fn new(store: &mut Store) -> Self {
        assert_eq!(store.create(QUIET), Ok(true), "{QUIET} is new");
        let mut wire = store.session(QUIET).expect("the server lives");
        assert!(matches!(wire.set_up(QUIET, HONEST), Ok(Command::AppendSetup(_))), "set-up");
        Self { wire, events: 0 }
    }

    fn append(&mut self, after: &str) {
        self.events += 1;
        let number = i64::try_from(self.events).expect("small");
        let data = Mark::new(3, self.events).framed();
        self.wire.append(HONEST, data, number, 1).expect("the server lives");
        match self.wire.receive() {
            Ok(Command::DataAppended(it)) if it.event_number == number => {}
            other => panic!("{other:?} to an honest append after: {after}"),
        }
    }
}

/// Sends and waits for the end of the connection; replies to what came before the fault are
/// allowed.
fn assert_closes(port: u16, what: &str, is_set_up: bool, bytes: &[u8]) {
    let mut wire = connect(port).expect("the server accepts");
    wire.set_patience(Duration::from_secs(10));
    if is_set_up {
        let reply = wire.set_up(SEGMENT, HOSTILE);
        assert!(matches!(reply, Ok(Command::AppendSetup(_))), "{reply:?} before: {what}");
    }
    // The server may have closed in the middle of it.
    let _ = wire.send_bytes(bytes);
    loop {
        match wire.receive() {
            Ok(Command::DataAppended(_) | Command::AppendSetup(_)) if is_set_up => {}
            Ok(Command::InvalidEventNumber(_)) if is_set_up => {}
            Ok(reply) => panic!("{reply:?} to: {what}"),
            Err(Trouble::Closed) => return,
            Err(other) => panic!("the connection stands after: {what}: {other}"),
        }
    }
}

/// Shows for each kind of bad input that its connection is closed, that nothing of it is stored,
/// and that another connection works on.
#[test]
fn bad_input_closes_its_connection_and_stores_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings_for(home.path(), 1));
    let port = server.ports()[0];
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "{SEGMENT} is new");
    let mut honest = Honest::new(&mut store);
    for (what, is_set_up, bytes) in hostile_inputs() {
        assert_closes(port, what, is_set_up, &bytes);
        honest.append(what);
        let info = store.info(SEGMENT).expect("the server lives").expect("the segment exists");
        let stored = store.read_all(SEGMENT, 0, info.write_offset).expect("the server lives");
        // Of two appends the first is good and may be stored.
        assert!(
            stored.chunks(4).all(|chunk| chunk == b"good"),
            "{what}: {stored:?} is stored of it"
        );
    }
    let length = store.info(QUIET).expect("the server lives").expect("it exists").write_offset;
    let data = store.read_all(QUIET, 0, length).expect("the server lives");
    let events = parse(QUIET, 0, &data).expect("whole, right events").len() as u64;
    assert_eq!(events, honest.events, "honest events");
}

/// Shows that what looks odd and is allowed is answered as ever: padding by itself, a keep-alive
/// before Hello, frames that come byte by byte, bytes behind the last field.
#[test]
fn odd_input_that_is_allowed_changes_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings_for(home.path(), 1));
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "{SEGMENT} is new");
    let mut wire = connect_silently(server.ports()[0]).expect("the server accepts");
    let odd = encoded([KeepAlive.into(), Padding { length: 300 }.into(), set_up()]);
    for byte in &odd {
        wire.send_bytes(&[*byte]).expect("the server lives");
    }
    assert!(matches!(wire.receive(), Ok(Command::AppendSetup(_))), "a set-up in single bytes");
    let mut longer = BytesMut::from(&end(4, b"data", 1, 1).encoded()[8..]);
    longer.put_slice(b"a later version of the protocol");
    wire.send_bytes(&frame(4, &longer)).expect("the server lives");
    assert!(matches!(wire.receive(), Ok(Command::DataAppended(_))), "bytes behind the last field");
}

/// Encoding of one command.
trait Encoded {
    fn encoded(&self) -> Bytes;
}

impl Encoded for Command {
    fn encoded(&self) -> Bytes {
        encoded([self.clone()])
    }
}

/// Shows that memory is taken for bytes that came, not for bytes that were announced: hundreds of
/// connections announce the largest frame and send little of it.
#[test]
fn announced_bytes_take_no_memory() {
    const CONNECTIONS: usize = 300;
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings_for(home.path(), 1));
    let port = server.ports()[0];
    let mut store = open_store(&server.ports());
    let mut honest = Honest::new(&mut store);
    let before = server.resident_bytes();
    let largest = header(4, i32::try_from(FRAME_BYTES_MAX - 8).expect("below 2 GiB"));
    let mut wires = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut wire = connect(port).expect("the server accepts");
        wire.send_bytes(&largest).expect("the server lives");
        wire.send_bytes(b"and a little of it").expect("the server lives");
        wires.push(wire);
    }
    honest.append("many large announcements");
    let grown = server.resident_bytes().saturating_sub(before);
    // 256 KiB each is what a connection that really sends may hold.
    assert!(grown < (CONNECTIONS as u64) << 18, "{} MiB for announcements", grown >> 20);
}

/// Shows that garbage in any quantity closes connections and nothing else: random frames with right
/// headers, from many connections, and the server's memory stays where it was.
#[test]
fn garbage_frames_do_not_disturb() {
    let connections = rig::setting("THALWEG_GARBAGE", 400);
    let mut dice = Dice::new(seed());
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings_for(home.path(), 1));
    let mut store = open_store(&server.ports());
    let mut honest = Honest::new(&mut store);
    for number in 0..connections {
        let mut wire = connect(server.ports()[0]).expect("the server accepts");
        let mut bytes = BytesMut::new();
        for _ in 0..dice.range(1..12) {
            let code = i32::try_from(dice.below(101)).expect("small") - 6;
            let length = usize::try_from(dice.below(200)).expect("small");
            let bound = if dice.one_in(2) { 4 } else { 256 };
            let payload: Vec<u8> =
                (0..length).map(|_| u8::try_from(dice.below(bound)).expect("below 256")).collect();
            bytes.extend_from_slice(&frame(code, &payload));
        }
        // The server may have closed in the middle of it.
        let _ = wire.send_bytes(&bytes);
        if number % 40 == 0 {
            honest.append("garbage");
        }
        wire.cut();
    }
    honest.append("all the garbage");
    let peak = server.resident_bytes_peak();
    assert!(peak < 512 << 20, "{} MiB resident after garbage", peak >> 20);
}
