//! A journal without room: appends wait in their sockets, everything else goes on, and work resumes
//! by itself when room is made.

use std::time::Duration;

use bytes::Bytes;
use thalweg_crash::dice::{Dice, mix};
use thalweg_crash::store::{Store, none};
use thalweg_crash::wire::{Trouble, Wire};
use thalweg_wire::{
    Command, CreateTableSegment, KEY_NO_VERSION, TableEntry, TableKey, UpdateTableEntries,
};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::server::{Server, settings_for};
use rig::wire::open_store;

const BLOCK_BYTES: usize = 100 << 10;
const WRITER: u128 = 99;

/// Content of the block with this number.
fn content(number: i64) -> Bytes {
    let mut dice = Dice::new(mix(number.unsigned_abs()));
    (0..BLOCK_BYTES / 8).flat_map(|_| dice.draw().to_le_bytes()).collect::<Vec<u8>>().into()
}

fn set_up(store: &mut Store, segment: &str) -> Wire {
    let mut wire = store.session(segment).expect("the server lives");
    let reply = wire.set_up(segment, WRITER);
    assert!(matches!(reply, Ok(Command::AppendSetup(_))), "{segment}: {reply:?} to a set-up");
    wire
}

/// Appends blocks, one at a time, until one is not acknowledged; gives the number of that one.
fn fill(wire: &mut Wire, budget: u64) -> i64 {
    // Far longer than any append takes when there is room.
    wire.set_patience(Duration::from_secs(4));
    let most = i64::try_from(2 * budget / BLOCK_BYTES as u64).expect("small");
    for number in 1..=most {
        match wire.append(WRITER, content(number), number, 1) {
            Ok(()) => {}
            other => panic!("block {number}: {other:?}"),
        }
        match wire.receive() {
            Ok(Command::DataAppended(it)) => assert_eq!(it.event_number, number, "number"),
            Err(Trouble::Silent(_)) => return number,
            other => panic!("block {number}: {other:?}"),
        }
    }
    panic!("{most} blocks of {BLOCK_BYTES} bytes went into a journal of {budget} bytes");
}

fn put(store: &mut Store, table: &str, number: u64) {
    let value = Bytes::from(vec![7; 500]);
    let key = TableKey { key: format!("key {}", number % 10).into(), version: KEY_NO_VERSION };
    let reply = store.ask(table, |request_id| {
        UpdateTableEntries {
            request_id,
            segment: table.into(),
            delegation_token: none(),
            entries: vec![TableEntry { key, value }],
            table_segment_offset: -1,
        }
        .into()
    });
    assert!(matches!(reply, Ok(Command::TableEntriesUpdated(_))), "{table}: {reply:?}");
}

/// Shows that a full journal delays appends and nothing else, and that truncation and deletion make
/// room from which the delayed append goes on without a new connection.
#[test]
fn a_full_journal_delays_appends_and_nothing_else() {
    const BUDGET: u64 = 64 << 20;
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1)
        .with("--journal", "64MiB")
        .with("--journal-file", "4MiB")
        .with("--cache", "16MiB");
    let server = Server::start(&settings);
    let mut store = open_store(&server.ports());
    // The control plane keeps its records in tables.
    let table = "_system/_tables/records";
    let reply = store.ask(table, |request_id| {
        CreateTableSegment {
            request_id,
            segment: table.into(),
            delegation_token: none(),
            sorted_deprecated: false,
            key_length: 0,
            rollover_size_bytes: 0,
        }
        .into()
    });
    assert!(matches!(reply, Ok(Command::SegmentCreated(_))), "{table}: {reply:?}");

    let (first, second) = ("full/first/0.#epoch.0", "full/second/0.#epoch.0");
    for round in 0..2 {
        for name in [first, second] {
            assert_eq!(store.create(name), Ok(true), "{name} is new");
        }
        let mut wire = set_up(&mut store, first);
        let stalled = fill(&mut wire, BUDGET);
        let stored = (stalled - 1) * BLOCK_BYTES as i64;
        println!("round {round}: block {stalled} waits, {} MiB are stored", stored >> 20);
        // The journal must have been used, not refused early.
        assert!(stored.unsigned_abs() > BUDGET / 4, "{stored} bytes in a journal of {BUDGET}");

        // Facts, reads, tables and attributes are served.
        let info = store.info(first).expect("the server lives").expect("it exists");
        assert_eq!(info.write_offset, stored, "what is told is what was acknowledged");
        let data = store.read_all(first, 0, stored).expect("the server lives");
        for (number, block) in (1..).zip(data.chunks(BLOCK_BYTES)) {
            assert!(block == content(number), "block {number} is read otherwise");
        }
        for number in 0..200 {
            put(&mut store, table, number);
        }
        // Other appends wait too.
        let mut other = set_up(&mut store, second);
        other.append(WRITER, content(1), 1, 1).expect("the socket has room");
        other.set_patience(Duration::from_millis(500));
        assert!(matches!(other.receive(), Err(Trouble::Silent(_))), "{second} is appended to");

        // Room is made in one of two ways, and both go on.
        let kept = if round == 0 {
            store.truncate(first, stored).expect("the server lives");
            stored
        } else {
            assert_eq!(store.delete(second), Ok(true), "deletion");
            store.truncate(first, stored).expect("the server lives");
            stored
        };
        wire.set_patience(Duration::from_secs(25));
        match wire.receive() {
            Ok(Command::DataAppended(it)) => assert_eq!(it.event_number, stalled, "number"),
            other => panic!("{other:?} after room was made"),
        }
        if round == 0 {
            other.set_patience(Duration::from_secs(25));
            let reply = other.receive();
            assert!(matches!(reply, Ok(Command::DataAppended(_))), "{second}: {reply:?}");
        }
        let end = stored + BLOCK_BYTES as i64;
        let data = store.read_all(first, kept, end).expect("the server lives");
        assert!(data == content(stalled), "the delayed block is stored as sent");
        assert_eq!(store.delete(first), Ok(true), "deletion");
        if round == 0 {
            assert_eq!(store.delete(second), Ok(true), "deletion");
        }
    }
}
