//! How long a killed server takes until it can be written to again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use thalweg_crash::store::Store;
use thalweg_crash::wire::Wire;
use thalweg_wire::Command;

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::server::{Server, settings_for};
use rig::wire::open_store;

const SEGMENTS: usize = 8;
const BLOCK_BYTES: usize = 256 << 10;
/// Promised behind 4 GiB of journal, and so behind anything smaller.
const WRITABLE_MAX: Duration = Duration::from_secs(4);

fn segment(number: usize) -> String {
    format!("restart/stream-{number}/0.#epoch.0")
}

fn set_up(store: &mut Store, number: usize) -> Wire {
    let name = segment(number);
    let mut wire = store.session(&name).expect("the server lives");
    let reply = wire.set_up(&name, 5);
    assert!(matches!(reply, Ok(Command::AppendSetup(_))), "{name}: {reply:?} to a set-up");
    wire
}

fn await_append(wire: &mut Wire, event_number: i64) {
    loop {
        match wire.receive() {
            Ok(Command::DataAppended(it)) if it.event_number == event_number => return,
            Ok(Command::DataAppended(it)) if it.event_number < event_number => {}
            other => panic!("{other:?} instead of the acknowledgement of {event_number}"),
        }
    }
}

/// Shows that after kill -9 behind a large journal every segment takes and acknowledges an append
/// within the bound, and that its earlier bytes are counted. `THALWEG_RESTART_GIB` sets the size of
/// the journal, 256 MiB in the short form.
#[test]
fn a_killed_server_is_writable_soon() {
    let long = rig::setting("THALWEG_RESTART_GIB", 0);
    let bytes = if long > 0 { long << 30 } else { 256 << 20 };
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 2)
        .with("--journal", &format!("{}MiB", (bytes >> 20) * 2 + 2048))
        .with("--journal-file", "64MiB");
    let mut server = Server::start(&settings);
    let mut store = open_store(&server.ports());
    let blocks = i64::try_from(bytes / (SEGMENTS * BLOCK_BYTES) as u64).expect("small");
    let mut wires = Vec::new();
    for number in 0..SEGMENTS {
        assert_eq!(store.create(&segment(number)), Ok(true), "{} is new", segment(number));
        wires.push(set_up(&mut store, number));
    }
    let data = Bytes::from(vec![0x5A; BLOCK_BYTES]);
    for block in 1..=blocks {
        for wire in &mut wires {
            wire.append(5, data.clone(), block, 1).expect("the server lives");
        }
        for wire in &mut wires {
            await_append(wire, block);
        }
    }
    server.kill();

    let begin = Instant::now();
    let mut server = Server::launch(&settings);
    let ready = server.wait_ready();
    let mut store = open_store(&server.ports());
    for number in 0..SEGMENTS {
        let mut wire = set_up(&mut store, number);
        wire.append(5, data.clone(), blocks + 1, 1).expect("the server lives");
        await_append(&mut wire, blocks + 1);
    }
    let writable = begin.elapsed();
    println!(
        "behind {} MiB of journal: ready in {} ms, all {SEGMENTS} segments written to in {} ms",
        bytes >> 20,
        ready.as_millis(),
        writable.as_millis()
    );
    assert!(writable <= WRITABLE_MAX, "writable after {writable:?}");
    for number in 0..SEGMENTS {
        let info = store.info(&segment(number)).expect("the server lives").expect("it exists");
        let length = (blocks + 1) * BLOCK_BYTES as i64;
        assert_eq!(info.write_offset, length, "{}: length", segment(number));
    }
}
