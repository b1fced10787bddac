//! What every device must do, run against the ring (both ways of durable writing) and the portable
//! one, on real files.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;
use thalweg_uring::portable::PortableDevice;
use thalweg_uring::{DurableWrite, Ring, RingConfig, UringDevice, measure};

const BLOCK: usize = 4096;

/// Drives a device and waits for each answer.
struct Driver<D> {
    device: D,
    next: u64,
    early: Vec<DeviceEvent>,
}

impl<D: Device> Driver<D> {
    fn token(&mut self) -> OperationToken {
        self.next += 1;
        OperationToken(self.next)
    }

    fn answer(&mut self, token: OperationToken) -> io::Result<DeviceOutcome> {
        self.device.flush();
        loop {
            if let Some(place) = self.early.iter().position(|event| event.token == token) {
                return self.early.swap_remove(place).outcome;
            }
            self.device.poll(&mut self.early);
            if !self.early.iter().any(|event| event.token == token) {
                self.device.wait();
            }
        }
    }

    fn ask(&mut self, ask: impl FnOnce(&mut D, OperationToken)) -> io::Result<DeviceOutcome> {
        let token = self.token();
        ask(&mut self.device, token);
        self.answer(token)
    }

    fn open(&mut self, name: &str) -> FileHandle {
        match self.ask(|device, token| device.open(name, true, token)) {
            Ok(DeviceOutcome::Opened(file, _)) => file,
            other => panic!("open {name}: {other:?}"),
        }
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize) -> io::Result<BytesMut> {
        match self.ask(|device, token| device.read(file, offset, length, token))? {
            DeviceOutcome::Read(memory) => Ok(memory),
            other => panic!("read: {other:?}"),
        }
    }

    fn list(&mut self) -> Vec<(String, u64)> {
        match self.ask(|device, token| device.list(token)) {
            Ok(DeviceOutcome::Listed(names)) => names,
            other => panic!("list: {other:?}"),
        }
    }
}

/// Bytes that differ everywhere, so that a shifted or repeated block is seen.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut memory = aligned_memory(length);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while memory.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        memory.extend_from_slice(&state.to_be_bytes());
    }
    memory.truncate(length);
    memory.freeze()
}

fn ring_device(path: &Path, durable_write: DurableWrite) -> UringDevice {
    let ring = Ring::new(RingConfig::default()).expect("a ring");
    UringDevice::new(&ring, path, durable_write).expect("a device")
}

fn run<D: Device>(make: impl Fn(&Path) -> D, claim: impl Fn(&mut Driver<D>, &TempDir)) {
    // Beside the build, not in the system's place for temporary files: direct I/O needs a disk.
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let device = make(directory.path());
    claim(&mut Driver { device, next: 0, early: Vec::new() }, &directory);
}

macro_rules! suite {
    ($($name:ident => $claim:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                for writes in [DurableWrite::ThenSync, DurableWrite::DataSync] {
                    run(|path| ring_device(path, writes), |driver, at| $claim(driver, at));
                }
                run(|path| PortableDevice::new(path).expect("a device"), |driver, at| {
                    $claim(driver, at);
                });
            }
        )*
    };
}

suite! {
    durable_writes_read_back => writes_read_back,
    many_writes_in_flight_each_complete_once => many_in_flight,
    large_transfers_are_whole => large_transfers,
    misaligned_transfers_are_refused => misaligned,
    misaligned_memory_is_written_all_the_same => misaligned_memory,
    a_read_past_the_end_fails => read_past_end,
    names_can_be_listed_renamed_and_removed => names,
    names_that_lead_elsewhere_are_refused => foreign_names,
    a_missing_file_is_not_found => missing_file,
    allocation_sets_the_size_both_ways => allocation,
    a_failed_allocation_leaves_the_file_as_it_was => failed_allocation,
    a_write_to_a_file_opened_by_name_is_seen_by_others => seen_by_others,
}

/// What was written durably comes back, before and after the file is opened anew; a plain
/// write with a sync of its own does the same.
fn writes_read_back<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    let (first, second) = (pattern(2 * BLOCK, 1), pattern(BLOCK, 2));
    let bytes = first.clone();
    let done = driver.ask(|device, token| device.write_durable(file, 0, bytes, token));
    assert!(matches!(done, Ok(DeviceOutcome::Done)), "{done:?}");
    let bytes = second.clone();
    driver.ask(|device, token| device.write(file, 8192, bytes, token)).expect("a write");
    driver.ask(|device, token| device.sync(file, token)).expect("a sync");
    driver.ask(|device, token| device.sync_directory(token)).expect("a sync");
    assert_eq!(driver.read(file, 0, 2 * BLOCK).expect("a read"), first);
    driver.device.close(file);
    let again = driver.ask(|device, token| device.open("journal", false, token));
    let Ok(DeviceOutcome::Opened(file, size)) = again else { panic!("{again:?}") };
    assert_eq!(size, 3 * BLOCK as u64);
    assert_eq!(driver.read(file, 8192, BLOCK).expect("a read"), second);
}

/// Sixty-four durable writes queued together each complete, exactly once, and none is lost.
fn many_in_flight<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    let tokens: Vec<_> = (0..64u64)
        .map(|block| {
            let token = driver.token();
            let bytes = pattern(BLOCK, block);
            driver.device.write_durable(file, block * BLOCK as u64, bytes, token);
            token
        })
        .collect();
    for token in &tokens {
        driver.answer(*token).expect("a durable write");
    }
    driver.device.poll(&mut driver.early);
    assert!(driver.early.is_empty(), "no operation completes twice: {:?}", driver.early);
    for block in 0..64u64 {
        let found = driver.read(file, block * BLOCK as u64, BLOCK).expect("a read");
        assert_eq!(found, pattern(BLOCK, block));
    }
}

/// A transfer of many megabytes, which the kernel may cut, arrives whole.
fn large_transfers<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    let bytes = pattern(24 << 20, 7);
    let written = bytes.clone();
    driver.ask(|device, token| device.write_durable(file, 0, written, token)).expect("a write");
    assert!(driver.read(file, 0, bytes.len()).expect("a read") == bytes);
}

/// Offsets and lengths that are not whole blocks are refused before anything is done.
fn misaligned<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    for (offset, length) in [(0, 100), (512, BLOCK), (0, BLOCK + 1), (0, 0)] {
        let bytes = pattern(length, 3);
        let refused = driver.ask(|device, token| device.write_durable(file, offset, bytes, token));
        let kind = refused.expect_err("a refusal").kind();
        assert_eq!(kind, io::ErrorKind::InvalidInput, "write of {length} at {offset}");
        let kind = driver.read(file, offset, length).expect_err("a refusal").kind();
        assert_eq!(kind, io::ErrorKind::InvalidInput, "read of {length} at {offset}");
    }
    assert_eq!(driver.list(), [("journal".to_owned(), 0)]);
}

/// Memory that does not start at a block is copied, not refused.
fn misaligned_memory<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    let bytes = pattern(BLOCK + 8, 4).slice(8..);
    let written = bytes.clone();
    driver.ask(|device, token| device.write_durable(file, 0, written, token)).expect("a write");
    assert_eq!(driver.read(file, 0, BLOCK).expect("a read"), bytes);
}

/// Reading what is not there is an error, also when some of it is there.
fn read_past_end<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    let bytes = pattern(BLOCK, 5);
    driver.ask(|device, token| device.write_durable(file, 0, bytes, token)).expect("a write");
    for (offset, length) in [(0, 2 * BLOCK), (BLOCK as u64, BLOCK), (1 << 30, BLOCK)] {
        let kind = driver.read(file, offset, length).expect_err("past the end").kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof);
    }
}

/// The directory's entries follow creations, renames over another file, and removals.
fn names<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    for (name, blocks) in [("b", 2), ("a", 1), ("c", 3)] {
        let file = driver.open(name);
        let bytes = pattern(blocks * BLOCK, 6);
        driver.ask(|device, token| device.write(file, 0, bytes, token)).expect("a write");
        driver.device.close(file);
    }
    let sizes = |list: Vec<(String, u64)>| -> String {
        list.iter().map(|(name, size)| format!("{name}{}", size / BLOCK as u64)).collect()
    };
    assert_eq!(sizes(driver.list()), "a1b2c3");
    driver.ask(|device, token| device.rename("c", "a", token)).expect("a rename");
    driver.ask(|device, token| device.remove("b", token)).expect("a removal");
    driver.ask(|device, token| device.sync_directory(token)).expect("a sync");
    assert_eq!(sizes(driver.list()), "a3");
}

/// No name can reach a file outside of the directory.
fn foreign_names<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    for name in ["", ".", "..", "../a", "a/b", "/etc/a", "a\0b"] {
        let open = driver.ask(|device, token| device.open(name, true, token));
        let remove = driver.ask(|device, token| device.remove(name, token));
        let rename = driver.ask(|device, token| device.rename("a", name, token));
        for refused in [open, remove, rename] {
            let kind = refused.expect_err("a refusal").kind();
            assert_eq!(kind, io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}

/// Without leave to create it, a file that is not there is not made.
fn missing_file<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let missing = driver.ask(|device, token| device.open("journal", false, token));
    assert_eq!(missing.expect_err("not there").kind(), io::ErrorKind::NotFound);
    let missing = driver.ask(|device, token| device.remove("journal", token));
    assert_eq!(missing.expect_err("not there").kind(), io::ErrorKind::NotFound);
    assert!(driver.list().is_empty());
}

/// A file has the size it was last allocated to, larger or smaller, and new room reads as zeros.
fn allocation<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    for blocks in [8u64, 2, 4] {
        let bytes = blocks * BLOCK as u64;
        driver.ask(|device, token| device.allocate(file, bytes, token)).expect("room");
        assert_eq!(driver.list(), [("journal".to_owned(), bytes)]);
    }
    assert_eq!(driver.read(file, 0, 4 * BLOCK).expect("a read"), vec![0; 4 * BLOCK]);
}

/// An allocation that is refused (here: larger than any file may be, so that no test fills a disk)
/// changes nothing.
fn failed_allocation<D: Device>(driver: &mut Driver<D>, _: &TempDir) {
    let file = driver.open("journal");
    let bytes = pattern(2 * BLOCK, 9);
    let written = bytes.clone();
    driver.ask(|device, token| device.write_durable(file, 0, written, token)).expect("a write");
    let refused = driver.ask(|device, token| device.allocate(file, 1 << 60, token));
    assert_eq!(refused.expect_err("2^60 bytes").kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(driver.list(), [("journal".to_owned(), 2 * BLOCK as u64)]);
    assert_eq!(driver.read(file, 0, 2 * BLOCK).expect("a read"), bytes);
}

/// What the device calls done is in the file as the rest of the system sees it.
fn seen_by_others<D: Device>(driver: &mut Driver<D>, at: &TempDir) {
    let file = driver.open("journal");
    let bytes = pattern(3 * BLOCK, 8);
    let written = bytes.clone();
    driver.ask(|device, token| device.write_durable(file, 0, written, token)).expect("a write");
    assert_eq!(std::fs::read(at.path().join("journal")).expect("a file"), bytes);
}

/// Measuring a directory gives plausible numbers and leaves nothing behind.
#[test]
fn measuring_leaves_nothing_behind() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let measured = measure(directory.path(), DurableWrite::ThenSync).expect("numbers");
    println!("{measured:?}");
    assert!(measured.latency_p50 > Duration::ZERO);
    assert!(measured.latency_p50 <= measured.latency_p99);
    assert!(measured.bytes_per_second > 0);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

/// The machine that runs these tests passes the probe, and the answer says how it judged the disk.
#[test]
fn a_usable_machine_passes_the_probe() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let probe = thalweg_uring::probe(directory.path()).expect("a usable machine");
    println!("{probe:?}");
    assert!(!probe.disk.is_empty());
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}
