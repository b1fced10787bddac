//! What a journal is told at start, with defaults and the bounds each value must keep.

use std::time::Duration;

use thalweg_core::id::{ContainerId, ShardId};
use thalweg_core::position::BLOCK_BYTES;

/// Smallest journal file: one header block, the reserve and a few frames.
pub(crate) const FILE_BYTES_MIN: u64 = 16 * BLOCK_BYTES;
/// Largest journal file: what a `JournalAddress` can name.
pub(crate) const FILE_BYTES_MAX: u64 = ((1 << 20) - 1) * BLOCK_BYTES;

/// Settings of one shard's journal.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which shard's journal this is. Recorded in every header; a directory of another shard is
    /// refused.
    pub shard: ShardId,
    /// Identity of the data directory: a number drawn once when it was made. Recorded in every
    /// header, so that files of another directory, and bytes that a client made to look like a
    /// header, are never taken for ours.
    pub directory: u64,
    /// The shard's containers, to name them in damage reports. Empty: all that a mask can mean.
    pub containers: Vec<ContainerId>,
    /// Size of each file, bytes, whole blocks, 64 KiB to 4 GiB. Default 256 MiB.
    pub file_bytes: u64,
    /// Bytes that all files together may take, prepared ones included; at least four files.
    /// Default 64 GiB.
    pub journal_bytes_max: u64,
    /// Frames in flight at most, 1 to 64. Default 4: more frames only grow the batches behind.
    pub frames_in_flight_max: usize,
    /// Files prepared ahead of need, 1 to 4096. Default 1.
    pub files_ahead: usize,
    /// Recycled files kept beyond those ahead, at most 4096. Default 8, 2 GiB: truncation frees
    /// files in bursts, and at full bandwidth writing a new one takes from the journal as much of
    /// the disk as filling it.
    pub files_kept: usize,
    /// Silence after which the last durable group is recorded as durable. Default 10 ms, which also
    /// bounds what damage in that group can cost.
    pub beacon_after: Duration,
    /// Size of one write that prepares a file, bytes, whole blocks. Default 256 KiB: small beside a
    /// commit that waits behind it. Four times that when no file is left.
    pub prepare_write_bytes: usize,
    /// Size of one read of a recovery, bytes, whole blocks. Default 1 MiB.
    pub recovery_read_bytes: usize,
    /// Reads in flight in a recovery, 1 to 64. Default 4.
    pub recovery_reads: usize,
    /// Open even when blocks at the journal's end cannot be read, and cut there. By default an
    /// opening is refused then, because what lies there may have been acknowledged. Default false.
    pub cuts_unreadable_tail: bool,
    /// What keeps a second owner away. Default: a lock.
    pub exclusion: Exclusion,
    /// A planted bug, to show that the tests catch it.
    #[cfg(any(test, feature = "canary"))]
    pub canary: Option<Canary>,
}

/// What keeps two owners of a directory apart. The model is at the head of `claim.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// The opener holds a lock that no process before it still holds, and that outlives each
    /// process until the device has ended its last write.
    Lock,
    /// Nothing: an earlier owner may live, or be dead with writes on their way. Each owner answers
    /// only within this time after it saw that the directory is still its own, and a new one waits
    /// that long before it looks. More than nothing.
    Lease(Duration),
}

/// Planted bugs. Each must be caught by a test.
#[cfg(any(test, feature = "canary"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Frames are reported durable when written, not when synced.
    AckBeforeSync,
    /// Payload checksums are not looked at.
    SkipPayloadChecksum,
    /// A bad record is always taken for the end of the journal.
    CutAcknowledgedTail,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shard: ShardId(0),
            directory: 0,
            containers: Vec::new(),
            file_bytes: 256 << 20,
            journal_bytes_max: 64 << 30,
            frames_in_flight_max: 4,
            files_ahead: 1,
            files_kept: 8,
            beacon_after: Duration::from_millis(10),
            prepare_write_bytes: 256 << 10,
            recovery_read_bytes: 1 << 20,
            recovery_reads: 4,
            cuts_unreadable_tail: false,
            exclusion: Exclusion::Lock,
            #[cfg(any(test, feature = "canary"))]
            canary: None,
        }
    }
}

/// A setting is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal setting {name} is out of bounds: {rule}")]
pub struct ConfigError {
    /// The field of [`Config`].
    pub name: &'static str,
    /// What it must keep.
    pub rule: &'static str,
}

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first setting that is out of bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let whole_blocks = |bytes: usize| bytes > 0 && (bytes as u64).is_multiple_of(BLOCK_BYTES);
        let rules = [
            (
                (FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&self.file_bytes)
                    && self.file_bytes.is_multiple_of(BLOCK_BYTES),
                "file_bytes",
                "64 KiB to 4 GiB less one block, whole blocks of 4 KiB",
            ),
            (
                self.journal_bytes_max / 4 >= self.file_bytes,
                "journal_bytes_max",
                "at least four files",
            ),
            ((1..=64).contains(&self.frames_in_flight_max), "frames_in_flight_max", "1 to 64"),
            ((1..=4096).contains(&self.files_ahead), "files_ahead", "1 to 4096"),
            (self.files_kept <= 4096, "files_kept", "at most 4096"),
            (!self.beacon_after.is_zero(), "beacon_after", "more than nothing"),
            (whole_blocks(self.prepare_write_bytes), "prepare_write_bytes", "whole blocks"),
            (whole_blocks(self.recovery_read_bytes), "recovery_read_bytes", "whole blocks"),
            ((1..=64).contains(&self.recovery_reads), "recovery_reads", "1 to 64"),
            (
                self.exclusion != Exclusion::Lease(Duration::ZERO),
                "exclusion",
                "a lease of more than nothing",
            ),
        ];
        match rules.into_iter().find(|(kept, _, _)| !kept) {
            Some((_, name, rule)) => Err(ConfigError { name, rule }),
            None => Ok(()),
        }
    }

    /// Largest frame, header and padding included, that a file can hold, bytes. The limits of the
    /// engine must keep every frame below it.
    pub fn frame_bytes_max(&self) -> u64 {
        let blocks = blocks_of(self.file_bytes);
        u64::from(blocks - 1 - reserve_blocks(blocks)) * BLOCK_BYTES
    }

    /// Whether this bug is planted.
    #[cfg(any(test, feature = "canary"))]
    pub(crate) fn has(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }
}

/// Whole blocks of a file.
pub(crate) fn blocks_of(file_bytes: u64) -> u32 {
    u32::try_from(file_bytes.min(FILE_BYTES_MAX) / BLOCK_BYTES)
        .expect("bounded by the largest file")
}

/// Blocks at the end of a file that only the journal's own records may take. A full journal needs
/// two beacons to record a new replay position before files can be recycled, and one record at
/// each opening.
pub(crate) fn reserve_blocks(file_blocks: u32) -> u32 {
    (file_blocks / 64).clamp(4, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Defaults are legal, and each bound is noticed.
    #[test]
    fn settings_out_of_bounds_are_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let tiny =
            Config { file_bytes: 64 << 10, journal_bytes_max: 256 << 10, ..Config::default() };
        assert_eq!(tiny.check(), Ok(()));
        assert_eq!(tiny.frame_bytes_max(), 11 * 4096);
        let name = |config: Config| config.check().expect_err("out of bounds").name;
        let config = Config::default;
        assert_eq!(name(Config { file_bytes: 4096, ..config() }), "file_bytes");
        assert_eq!(name(Config { file_bytes: (64 << 10) + 1, ..config() }), "file_bytes");
        assert_eq!(name(Config { journal_bytes_max: 3 << 28, ..config() }), "journal_bytes_max");
        assert_eq!(name(Config { frames_in_flight_max: 0, ..config() }), "frames_in_flight_max");
        assert_eq!(name(Config { files_ahead: 0, ..config() }), "files_ahead");
        assert_eq!(name(Config { beacon_after: Duration::ZERO, ..config() }), "beacon_after");
        assert_eq!(name(Config { prepare_write_bytes: 5, ..config() }), "prepare_write_bytes");
        assert_eq!(name(Config { recovery_read_bytes: 0, ..config() }), "recovery_read_bytes");
        assert_eq!(name(Config { recovery_reads: 65, ..config() }), "recovery_reads");
        let exclusion = Exclusion::Lease(Duration::ZERO);
        assert_eq!(name(Config { exclusion, ..config() }), "exclusion");
    }
}
