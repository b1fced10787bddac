//! What a client does, step by step, and how small the world is that it does it in.

use std::time::Duration;

use bytes::Bytes;
use thalweg_core::id::{ContainerId, ShardId};
use thalweg_core::limits::Limits;
use thalweg_wire::Command;

/// Identity of the data directories of these tests.
pub const DIRECTORY: u64 = 0x7468_616c_7765_6721;

/// One step. Everything is sent on one connection, so the steps are accepted in their order.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request whose reply says that its effect is durable. Its request id is set by the runner.
    Ask(Command),
    /// Appends bytes as one event; the event's number is the step's, counted from 1.
    Append {
        /// Index of the segment among the script's; also decides the writer.
        segment: usize,
        /// What.
        bytes: Bytes,
    },
    /// Waits until everything sent is answered.
    Settle,
    /// Settles, then stays silent for a while: beacons are written, files prepared and recycled.
    Rest,
    /// The process is killed and started again.
    Restart,
}

/// Sizes of engine and journal: so small that every edge is met within a hundred operations.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Of a journal file.
    pub file_bytes: u64,
    /// Of all of them.
    pub journal_bytes_max: u64,
    /// At which a frame is sealed.
    pub frame_bytes: usize,
    /// Between checkpoints.
    pub checkpoint_interval_bytes: u64,
    /// Of one part.
    pub checkpoint_part_bytes: usize,
    /// Recycled files kept.
    pub files_kept: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 10,
            journal_bytes_max: 1 << 20,
            frame_bytes: 12 << 10,
            checkpoint_interval_bytes: 1 << 20,
            checkpoint_part_bytes: 4 << 10,
            files_kept: 1,
        }
    }
}

impl Tuning {
    /// Bounds of the engine.
    pub fn limits(&self) -> Limits {
        Limits {
            frame_bytes: self.frame_bytes,
            slab_bytes: 4 * self.frame_bytes,
            tail_cache_bytes: 2 * self.frame_bytes,
            history_cache_bytes: 2 * self.frame_bytes,
            accepted_bytes_max: 256 << 10,
            checkpoint_interval_bytes: self.checkpoint_interval_bytes,
            checkpoint_part_bytes: self.checkpoint_part_bytes,
            journal_reserve_bytes: self.file_bytes / 4,
            ..Limits::default()
        }
    }

    /// Settings of the journal.
    pub fn journal(&self) -> thalweg_journal::Config {
        thalweg_journal::Config {
            shard: ShardId(0),
            directory: DIRECTORY,
            containers: (0..crate::world::CONTAINERS).map(ContainerId).collect(),
            file_bytes: self.file_bytes,
            journal_bytes_max: self.journal_bytes_max,
            files_kept: self.files_kept,
            beacon_after: Duration::from_millis(10),
            prepare_write_bytes: 16 << 10,
            recovery_read_bytes: 16 << 10,
            recovery_reads: 2,
            ..thalweg_journal::Config::default()
        }
    }
}

/// A named run of steps and what is to be looked at.
#[derive(Clone, Debug)]
pub struct Script {
    /// For reports.
    pub name: &'static str,
    /// Sizes.
    pub tuning: Tuning,
    /// In order.
    pub steps: Vec<Step>,
    /// Every stream segment that ever exists.
    pub segments: Vec<String>,
    /// Every table segment.
    pub tables: Vec<String>,
    /// Attributes to look at, beside those of the writers.
    pub attributes: Vec<u128>,
}

impl Script {
    /// The writer of a segment's appends.
    pub fn writer(segment: usize) -> u128 {
        0x5000_0000_0000_0000_0000_0000_0000_0000 + segment as u128
    }
}

/// `length` bytes that are like no others: they begin with `seed` and depend on it throughout.
pub fn filler(seed: u64, length: usize) -> Bytes {
    let mut random = thalweg_journal::memory::Random(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
