//! What the disk under a directory can do, measured through the same device that the journal uses:
//! the yardstick for `thalweg check` and for benchmarks.
//!
//! Works in a file of its own that is written once beforehand, as journal files are, and removed
//! afterwards. Blocks the calling thread for about a second.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;

use crate::file::UringDevice;
use crate::probe::DurableWrite;
use crate::ring::{Ring, RingConfig};

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskMeasurement {
    /// Half of the durable writes of 4 KiB, one at a time, took at most this.
    pub latency_p50: Duration,
    /// 99 of 100 did.
    pub latency_p99: Duration,
    /// Durable writes of 1 MiB, four at a time: bytes per second.
    pub bytes_per_second: u64,
}

const FILE_NAME: &str = ".measure";
const SMALL_BYTES: usize = 4096;
const LARGE_BYTES: usize = 1 << 20;
const FILE_BYTES: u64 = 256 << 20;
/// Distinct buffers that large writes take turns with: a log writes fresh data, and one hot buffer
/// would measure somebody's cache.
const LARGE_BUFFERS: u64 = 32;
const SMALL_WRITES: u64 = 1000;
const LARGE_WRITES: u64 = 256;
const QUEUE_DEPTH: usize = 4;

/// Measures durable writes under `directory`.
///
/// # Errors
/// When the ring, the file or a write fails.
pub fn measure(directory: &Path, durable_write: DurableWrite) -> io::Result<DiskMeasurement> {
    let ring = Ring::new(RingConfig::default())?;
    let device = UringDevice::new(&ring, directory, durable_write)?;
    let mut bench = Bench { device, next: 0, events: Vec::new() };
    let measured = bench.run();
    let removed = bench.ask(|device, token| device.remove(FILE_NAME, token));
    let measurement = measured?;
    removed?;
    Ok(measurement)
}

struct Bench {
    device: UringDevice,
    next: u64,
    events: Vec<DeviceEvent>,
}

impl Bench {
    fn run(&mut self) -> io::Result<DiskMeasurement> {
        let opened = self.ask(|device, token| device.open(FILE_NAME, true, token))?;
        let DeviceOutcome::Opened(file, _) = opened else {
            unreachable!("opening gives a file");
        };
        self.ask(|device, token| device.allocate(file, FILE_BYTES, token))?;
        let large: Vec<Bytes> = (0..LARGE_BUFFERS).map(|_| pattern(LARGE_BYTES)).collect();
        // First contact with fresh blocks costs extra; the journal never pays it either.
        self.write_all(file, &large, FILE_BYTES / LARGE_BYTES as u64)?;
        self.ask(|device, token| device.sync(file, token))?;

        let small = pattern(SMALL_BYTES);
        let mut latencies = Vec::new();
        for number in 0..SMALL_WRITES {
            let (offset, bytes) = (number * SMALL_BYTES as u64, small.clone());
            let started = Instant::now();
            self.ask(|device, token| device.write_durable(file, offset, bytes, token))?;
            latencies.push(started.elapsed());
        }
        latencies.sort();
        let started = Instant::now();
        self.write_all(file, &large, LARGE_WRITES)?;
        let bytes_per_second =
            LARGE_WRITES as f64 * LARGE_BYTES as f64 / started.elapsed().as_secs_f64();
        self.device.close(file);
        Ok(DiskMeasurement {
            latency_p50: latencies[latencies.len() / 2],
            latency_p99: latencies[latencies.len() * 99 / 100],
            bytes_per_second: bytes_per_second as u64,
        })
    }

    /// Writes `count` times, round and round the file, keeping the queue filled.
    fn write_all(&mut self, file: FileHandle, data: &[Bytes], count: u64) -> io::Result<()> {
        let mut in_flight = VecDeque::new();
        for number in 0..count {
            if in_flight.len() == QUEUE_DEPTH {
                let oldest = in_flight.pop_front().expect("the queue is full");
                self.answer(oldest)?;
            }
            let bytes = &data[number as usize % data.len()];
            let offset = number * bytes.len() as u64 % FILE_BYTES;
            let token = self.token();
            self.device.write_durable(file, offset, bytes.clone(), token);
            self.device.flush();
            in_flight.push_back(token);
        }
        in_flight.into_iter().try_for_each(|token| self.answer(token).map(|_| ()))
    }

    fn token(&mut self) -> OperationToken {
        self.next += 1;
        OperationToken(self.next)
    }

    fn ask(
        &mut self,
        ask: impl FnOnce(&mut UringDevice, OperationToken),
    ) -> io::Result<DeviceOutcome> {
        let token = self.token();
        ask(&mut self.device, token);
        self.device.flush();
        self.answer(token)
    }

    fn answer(&mut self, token: OperationToken) -> io::Result<DeviceOutcome> {
        loop {
            if let Some(place) = self.events.iter().position(|event| event.token == token) {
                return self.events.swap_remove(place).outcome;
            }
            self.device.wait();
            self.device.poll(&mut self.events);
        }
    }
}

/// Bytes that no disk can compress away.
fn pattern(length: usize) -> Bytes {
    let mut memory: BytesMut = aligned_memory(length);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    while memory.len() < length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        memory.extend_from_slice(&state.to_be_bytes());
    }
    memory.freeze()
}
