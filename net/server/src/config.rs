//! What an operator can set, with defaults that work when nothing is set.
//!
//! Each field says what it trades against what, its default, bounds and whether a restart is
//! needed (all of them, so far). [`Config::check`] refuses contradictions, naming both sides.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits::{Limit, Limits};

/// A number of bytes, written as `256MiB`, `20 GiB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `count` mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

/// A text that is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a whole number and B, KiB, MiB, GiB or TiB, as in 256MiB")]
pub struct ByteSizeError(String);

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let error = || ByteSizeError(text.to_owned());
        let trimmed = text.trim();
        let (number, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| Some((trimmed.strip_suffix(unit)?, *shift)))
            .unwrap_or((trimmed, 0));
        let number: u64 = number.trim().parse().map_err(|_| error())?;
        let bytes = number.checked_shl(shift).filter(|bytes| bytes >> shift == number);
        bytes.map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS
            .iter()
            .find(|(_, shift)| self.0 >= 1 << shift && self.0 & ((1 << shift) - 1) == 0)
            .unwrap_or(&UNITS[4]);
        write!(formatter, "{} {unit}", self.0 >> shift)
    }
}

/// How disk and sockets are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// `io_uring`, direct I/O. The only fast one.
    #[default]
    Ring,
    /// Ordinary system calls, for hosts that forbid `io_uring`. Correct and slow.
    Portable,
}

impl FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ring" => Ok(Self::Ring),
            "portable" => Ok(Self::Portable),
            _ => Err(format!("{text:?} is not a device: ring or portable")),
        }
    }
}

/// Configuration of the daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept. Default `thalweg-data` in the current directory.
    pub data: PathBuf,
    /// Address to listen on and to tell clients. Default 127.0.0.1.
    pub listen: IpAddr,
    /// Port of the controller. Default 9090.
    pub controller_port: u16,
    /// Port of shard 0; shard i listens on this plus i. Default 12345.
    pub data_port: u16,
    /// Number of shards; must equal what the data directory was made with. Default: as made, or
    /// one per core in a new directory, at most [`SHARDS_MAX`].
    pub shards: Option<u16>,
    /// Memory for event data of all shards together: three quarters for what was written last, one
    /// quarter for history that is read. Default 512 MiB, at least 16 MiB per shard.
    pub cache: ByteSize,
    /// Disk space for the journals of all shards together. Without long-term storage this bounds
    /// the data that can be kept. Default: 80 % of what is free, the journals' present size
    /// included.
    pub journal: Option<ByteSize>,
    /// Size of one journal file. Larger ones roll less often, smaller ones come free sooner.
    /// Default 256 MiB; 1 MiB to 4 GiB − 1 MiB.
    pub journal_file: ByteSize,
    /// All shards share `data_port` and pass on what belongs to another. Costs a hop for most
    /// requests; for clients behind a firewall. Default off.
    pub single_port: bool,
    /// Pin each shard to a core of its own, while there are enough cores. Default on.
    pub pin: bool,
    /// How disk and sockets are reached. Default the ring.
    pub device: DeviceKind,
    /// Memory of the process, the cache included: resident memory stays below it plus a quarter,
    /// whatever clients do. Default: the cache and 1 GiB, or 128 MiB per shard if that is more.
    pub memory: Option<ByteSize>,
    /// Where metrics and health are served.
    pub admin: AdminPort,
    /// Bounds on what clients may do.
    pub limits: Limits,
}

/// Where the administration port listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminPort {
    /// On port 9099 of loopback, or nowhere when somebody else has it.
    #[default]
    Default,
    /// Here; a port that is taken keeps the server from starting.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl FromStr for AdminPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| {
                format!("{text:?} is not an address and port, such as 127.0.0.1:9099, nor off")
            }),
        }
    }
}

/// Most shards of one process.
pub const SHARDS_MAX: u16 = 64;

/// Containers of a new data directory for each shard.
pub const CONTAINERS_PER_SHARD: u16 = 8;

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("thalweg-data"),
            listen: IpAddr::from([127, 0, 0, 1]),
            controller_port: 9090,
            data_port: 12345,
            shards: None,
            cache: ByteSize::mib(512),
            journal: None,
            journal_file: ByteSize::mib(256),
            single_port: false,
            pin: true,
            device: DeviceKind::Ring,
            memory: None,
            admin: AdminPort::Default,
            limits: Limits::default(),
        }
    }
}

/// Least memory of a shard beside its cache.
const MEMORY_PER_SHARD_MIN: u64 = 96 << 20;

impl Config {
    /// Refuses settings that contradict each other or cannot work.
    ///
    /// # Errors
    /// One sentence that names the settings.
    pub fn check(&self, shards: u16) -> Result<(), String> {
        if shards == 0 || shards > SHARDS_MAX {
            return Err(format!("--shards {shards} is not between 1 and {SHARDS_MAX}"));
        }
        let cache_min = ByteSize::mib(16 * u64::from(shards));
        if self.cache < cache_min {
            return Err(format!(
                "--cache {} is too small for {shards} shards: give at least {cache_min}",
                self.cache
            ));
        }
        let memory_min = self.cache.0.saturating_add(u64::from(shards) * MEMORY_PER_SHARD_MIN);
        let memory_min = ByteSize(memory_min);
        if self.memory_bytes(shards) < memory_min.0 {
            return Err(format!(
                "--memory {} is too small for {shards} shards with --cache {}: give at least \
                 {memory_min}",
                ByteSize(self.memory_bytes(shards)),
                self.cache
            ));
        }
        if self.limits.get(Limit::EventBytes) > (1 << 24) - 1 {
            return Err("limit event-bytes: no frame holds more than 16 MiB - 1".to_owned());
        }
        if self.journal_file < ByteSize::mib(1) || self.journal_file > ByteSize::mib(4095) {
            return Err(format!(
                "--journal-file {} is not between 1 MiB and 4095 MiB",
                self.journal_file
            ));
        }
        if let Some(journal) = self.journal {
            let least = ByteSize(self.journal_file.0 * 4 * u64::from(shards));
            if journal < least {
                return Err(format!(
                    "--journal {journal} is too small for {shards} shards with --journal-file {}: \
                     give at least {least}",
                    self.journal_file
                ));
            }
        }
        let ports = if self.single_port { 1 } else { shards };
        let last = u32::from(self.data_port) + u32::from(ports) - 1;
        if self.data_port == 0 || last > u32::from(u16::MAX) {
            return Err(format!("--data-port {} leaves no {ports} ports", self.data_port));
        }
        let taken = u32::from(self.data_port)..=last;
        if taken.contains(&u32::from(self.controller_port)) {
            return Err(format!(
                "--controller-port {} is among the data ports {} to {last}",
                self.controller_port, self.data_port
            ));
        }
        Ok(())
    }

    /// Memory of the process, all of it.
    pub fn memory_bytes(&self, shards: u16) -> u64 {
        let rest = (1 << 30).max(u64::from(shards) * (128 << 20));
        self.memory.map_or(self.cache.0.saturating_add(rest), |memory| memory.0)
    }

    /// What is left of the memory for one shard beside its cache.
    pub fn shard_memory_bytes(&self, shards: u16) -> u64 {
        self.memory_bytes(shards).saturating_sub(self.cache.0) / u64::from(shards)
    }

    /// The port on which a shard is reached.
    pub fn shard_port(&self, shard: u16) -> u16 {
        if self.single_port { self.data_port } else { self.data_port + shard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that sizes read as written and that nonsense is refused.
    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("4096", 4096), ("256MiB", 256 << 20), ("20 GiB", 20 << 30)] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)));
        }
        for text in ["", "MiB", "-1", "1.5GiB", "256MB", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(256 << 20).to_string(), "256 MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000 B");
    }

    /// Shows that contradictions are refused with both names.
    #[test]
    fn contradictions_are_refused() {
        let good = Config::default();
        assert_eq!(good.check(2), Ok(()));
        let small = Config { cache: ByteSize::mib(16), ..good.clone() };
        assert!(small.check(4).expect_err("too small").contains("64 MiB"));
        let ports = Config { controller_port: 12346, ..good.clone() };
        assert!(ports.check(2).expect_err("taken").contains("--controller-port"));
        assert_eq!(ports.check(1), Ok(()));
        let journal = Config { journal: Some(ByteSize::mib(512)), ..good };
        assert!(journal.check(1).expect_err("too small").contains("--journal-file"));
    }

    /// Shows that the largest size that can be written is judged like any other.
    #[test]
    fn the_largest_cache_is_judged_without_overflow() {
        let config = Config { cache: ByteSize(u64::MAX), ..Config::default() };
        let _ = config.check(SHARDS_MAX);
        assert_eq!(config.memory_bytes(SHARDS_MAX), u64::MAX);
    }
}
