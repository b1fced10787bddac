//! More data than memory: written, read back and compared, with the server's memory bounded.

use std::thread;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use thalweg_crash::dice::{Dice, mix};
use thalweg_crash::store::none;
use thalweg_wire::{AppendBlockEnd, Command, SetupAppend};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::server::{Server, settings_for};
use rig::wire::{connect, open_store};

const WRITERS: u64 = 4;
const BLOCK_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Blocks of a writer under way.
const WINDOW: i64 = 4;

/// Content that costs nearly nothing to make and compare: one random block per writer, with writer
/// and place stamped on each page.
struct Pages {
    writer: u64,
    block: Vec<u8>,
}

impl Pages {
    fn new(writer: u64) -> Self {
        let mut dice = Dice::new(mix(writer + 31));
        Self {
            writer,
            block: (0..BLOCK_BYTES / 8).flat_map(|_| dice.draw().to_le_bytes()).collect(),
        }
    }

    fn stamp(&self, page: u64) -> [u8; 16] {
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&self.writer.to_be_bytes());
        stamp[8..].copy_from_slice(&page.to_be_bytes());
        stamp
    }

    /// The block that begins at the page with this number.
    fn block(&self, first_page: u64) -> Bytes {
        let mut block = BytesMut::from(self.block.as_slice());
        for (page, bytes) in (first_page..).zip(block.chunks_mut(PAGE_BYTES)) {
            bytes[..16].copy_from_slice(&self.stamp(page));
        }
        block.freeze()
    }

    fn assert_same(&self, first_page: u64, data: &[u8]) {
        for (page, bytes) in (first_page..).zip(data.chunks(PAGE_BYTES)) {
            let at = usize::try_from(page).expect("64 bits") % (BLOCK_BYTES / PAGE_BYTES);
            let known = &self.block[at * PAGE_BYTES..(at + 1) * PAGE_BYTES];
            let is_same = bytes[..16] == self.stamp(page) && bytes[16..] == known[16..];
            assert!(is_same, "writer {}: page {page} is read otherwise", self.writer);
        }
    }
}

fn segment(writer: u64) -> String {
    format!("memory/stream-{writer}/0.#epoch.0")
}

fn write(ports: &[u16], writer: u64, blocks: i64) {
    let pages = Pages::new(writer);
    let name = segment(writer);
    let mut store = open_store(ports);
    assert_eq!(store.create(&name), Ok(true), "{name} is new");
    let mut wire = store.session(&name).expect("the server lives");
    let id = u128::from(writer + 1);
    assert!(matches!(wire.set_up(&name, id), Ok(Command::AppendSetup(_))), "{name}: set-up");
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < blocks {
        while sent < blocks && sent - acknowledged < WINDOW {
            let first_page = sent.unsigned_abs() * (BLOCK_BYTES / PAGE_BYTES) as u64;
            sent += 1;
            wire.append(id, pages.block(first_page), sent, 1).expect("the server lives");
        }
        match wire.receive() {
            Ok(Command::DataAppended(it)) => acknowledged = it.event_number,
            other => panic!("{name}: {other:?} to an append"),
        }
    }
}

fn read(ports: &[u16], writer: u64, blocks: i64) {
    let pages = Pages::new(writer);
    let name = segment(writer);
    let mut store = open_store(ports);
    for block in 0..blocks {
        let start = block * BLOCK_BYTES as i64;
        let end = start + BLOCK_BYTES as i64;
        let data = store.read_all(&name, start, end).expect("the server lives");
        let first_page = block.unsigned_abs() * (BLOCK_BYTES / PAGE_BYTES) as u64;
        pages.assert_same(first_page, &data);
    }
}

/// Runs a job for each writer at once; gives the seconds it took.
fn for_each_writer(job: impl Fn(u64) + Sync) -> f64 {
    let begin = Instant::now();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let job = &job;
            scope.spawn(move || job(writer));
        }
    });
    begin.elapsed().as_secs_f64()
}

/// Shows that data many times the size of the cache is written and read back byte for byte while
/// the resident memory of the server stays below a bound that does not depend on the data. The long
/// form, `THALWEG_LARGE_GIB=20`, has a cache of 256 MiB and the bound 512 MiB; the short form has a
/// cache of 32 MiB and 1 GiB of data.
#[test]
fn memory_is_bounded_whatever_is_stored() {
    let long = rig::setting("THALWEG_LARGE_GIB", 0);
    let (gibibytes, cache, bound_mib) =
        if long > 0 { (long, "256MiB", 512) } else { (1, "32MiB", 288) };
    let bytes = gibibytes << 30;
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 2)
        .with("--cache", cache)
        .with("--journal", &format!("{}MiB", (bytes >> 20) * 3 / 2 + 2048))
        .with("--journal-file", "64MiB");
    let server = Server::start(&settings);
    let ports = server.ports();
    let blocks = i64::try_from(bytes / WRITERS / BLOCK_BYTES as u64).expect("small");
    let writing = for_each_writer(|writer| write(&ports, writer, blocks));
    let written_peak = server.resident_bytes_peak() >> 20;
    let reading = for_each_writer(|writer| read(&ports, writer, blocks));
    let peak = server.resident_bytes_peak() >> 20;
    println!(
        "{gibibytes} GiB with a cache of {cache}: written in {writing:.1} s, read back in \
         {reading:.1} s; resident at most {written_peak} MiB writing, {peak} MiB in all"
    );
    assert!(peak < bound_mib, "{peak} MiB resident, the bound is {bound_mib} MiB");
}

/// What the memory budget counts for an attribute, of which each writer id needs one.
const COUNTED_BYTES: f64 = 64.0;

/// Ids that are set up on one connection before the next one is opened.
const IDS_AT_ONCE: u64 = 5000;

/// Sets up writers `from..to` with ids in disorder, each with one event of 8 bytes.
fn make_writers(port: u16, name: &str, from: u64, to: u64) {
    let mut number = from;
    while number < to {
        let mut wire = connect(port).expect("the server lives");
        for _ in 0..IDS_AT_ONCE / 500 {
            let mut out = BytesMut::new();
            for _ in 0..500 {
                number += 1;
                let writer_id = u128::from(mix(number)) << 64 | u128::from(mix(!number));
                let delegation_token = none();
                let segment = name.into();
                let set_up = SetupAppend { request_id: 1, writer_id, segment, delegation_token };
                Command::from(set_up).encode(&mut out);
                let append = AppendBlockEnd {
                    writer_id,
                    size_of_whole_events: 8,
                    data: Bytes::from_static(&[0; 8]),
                    event_count: 1,
                    last_event_number: 1,
                    request_id: 2,
                };
                Command::from(append).encode(&mut out);
            }
            wire.send_bytes(&out).expect("the server lives");
            for _ in 0..2 * 500 {
                let reply = wire.receive().expect("the server lives");
                let is_expected =
                    matches!(reply, Command::AppendSetup(_) | Command::DataAppended(_));
                assert!(is_expected, "{reply:?}");
            }
        }
    }
}

/// Shows what a writer id costs for good: an attribute in memory, of about the size that the
/// memory budget counts for it. Ids come in disorder, sessions end with their connections, and what
/// caches take is there before. The long form, `THALWEG_WRITER_IDS=1000000`, gives the number.
#[test]
fn a_writer_id_costs_what_the_budget_counts() {
    let ids = rig::setting("THALWEG_WRITER_IDS", 200_000);
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1).with("--cache", "16MiB");
    let server = Server::start(&settings);
    let ports = server.ports();
    let name = segment(0);
    assert_eq!(open_store(&ports).create(&name), Ok(true), "{name} is new");
    make_writers(ports[0], &name, 0, ids);
    let before = server.resident_bytes();
    make_writers(ports[0], &name, ids, 2 * ids);
    let after = server.resident_bytes();
    let each = (after as f64 - before as f64) / ids as f64;
    println!("{before} bytes with {ids} ids, {after} with twice as many: {each:.1} bytes each");
    assert!(each < 1.5 * COUNTED_BYTES, "{each:.1} bytes for a writer id");
}
