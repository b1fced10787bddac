//! What this machine offers, asked before anything is served: `io_uring` with the operations we
//! use, locked memory, descriptors, and how writes become durable on the disk under a directory.
//!
//! Nothing here is remembered; the caller hands the answers to the ring and the device. Every
//! refusal names its cause and the remedy.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use io_uring::{IoUring, opcode};

/// How a write is made durable on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableWrite {
    /// One data-sync write: the disk writes through, or takes forced unit access.
    DataSync,
    /// A write, then a data sync linked to it: the disk has a volatile cache that must be flushed.
    ThenSync,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How durable writes are done under the directory.
    pub durable_write: DurableWrite,
    /// Why: what the disk said of its cache, for the log.
    pub disk: String,
    /// Bytes of memory that the process may lock; `None` without a bound.
    pub locked_bytes_max: Option<u64>,
    /// Descriptors that the process may have open.
    pub descriptors_max: u64,
}

/// Why this machine cannot serve from the directory.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel does not offer `io_uring` to us.
    #[error("io_uring is not available: {cause}; {remedy}")]
    Ring {
        /// What the kernel said.
        cause: io::Error,
        /// What to change.
        remedy: &'static str,
    },
    /// The kernel is too old.
    #[error(
        "the kernel's io_uring lacks {missing}; use Linux 6.0 or newer, or `--device portable`"
    )]
    Operation {
        /// The first operation that is missing.
        missing: &'static str,
    },
    /// Too little memory may be locked for the rings.
    #[error(
        "only {found} bytes of memory may be locked and {needed} are needed; raise the limit \
         (`ulimit -l`, `LimitMEMLOCK=` in the unit), or use `--device portable`"
    )]
    LockedMemory {
        /// The limit.
        found: u64,
        /// What a shard needs.
        needed: u64,
    },
    /// Too few descriptors.
    #[error(
        "only {found} descriptors may be open and {needed} are needed; raise the limit \
         (`ulimit -n`, `LimitNOFILE=` in the unit)"
    )]
    Descriptors {
        /// The limit.
        found: u64,
        /// The least that makes sense.
        needed: u64,
    },
    /// The directory cannot be used.
    #[error("the directory {directory} cannot be used: {cause}; it must exist and be writable")]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Files there cannot be opened for direct I/O.
    #[error(
        "{directory} is on a file system without direct I/O: {cause}; put the data directory on \
         ext4 or XFS, or use `--device portable`"
    )]
    DirectIo {
        /// Which directory.
        directory: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// The runtime's executor refuses to start below this.
const LOCKED_BYTES_MIN: u64 = 512 << 10;

/// Room for files, rings and a handful of connections.
const DESCRIPTORS_MIN: u64 = 256;

/// Asks the machine everything that serving from `directory` depends on. Makes and removes one
/// file there. Blocks for a few milliseconds.
///
/// # Errors
/// The first thing that is missing, with its remedy.
pub fn probe(directory: &Path) -> Result<Probe, ProbeError> {
    check_ring()?;
    let locked_bytes_max = soft_limit(Resource::LockedMemory);
    if let Some(found) = locked_bytes_max.filter(|found| *found < LOCKED_BYTES_MIN) {
        return Err(ProbeError::LockedMemory { found, needed: LOCKED_BYTES_MIN });
    }
    let descriptors_max = soft_limit(Resource::Descriptors).unwrap_or(u64::MAX);
    if descriptors_max < DESCRIPTORS_MIN {
        return Err(ProbeError::Descriptors { found: descriptors_max, needed: DESCRIPTORS_MIN });
    }
    check_direct_io(directory)?;
    let (durable_write, disk) = durable_write(directory)
        .map_err(|cause| ProbeError::Directory { directory: directory.to_owned(), cause })?;
    Ok(Probe { durable_write, disk, locked_bytes_max, descriptors_max })
}

/// Checks that `io_uring` is there with every operation that the device and network use.
fn check_ring() -> Result<(), ProbeError> {
    let ring: IoUring = IoUring::builder().setup_submit_all().build(8).map_err(|cause| {
        let remedy = match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "allow it (`sysctl kernel.io_uring_disabled=0`, and the io_uring calls in the \
                 container's seccomp profile), or use `--device portable`"
            }
            Some(libc::ENOSYS) => "the kernel is built without it: use `--device portable`",
            Some(libc::EINVAL) => "use Linux 6.0 or newer, or `--device portable`",
            Some(libc::ENOMEM) => "raise the limit of locked memory (`ulimit -l`)",
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`)",
            _ => "use `--device portable`",
        };
        ProbeError::Ring { cause, remedy }
    })?;
    let mut supported = io_uring::Probe::new();
    if ring.submitter().register_probe(&mut supported).is_err() {
        return Err(ProbeError::Operation { missing: "the probe of operations" });
    }
    let needed = [
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::OpenAt::CODE, "openat"),
        (opcode::RenameAt::CODE, "renameat"),
        (opcode::UnlinkAt::CODE, "unlinkat"),
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "recv"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Timeout::CODE, "timeout"),
        (opcode::AsyncCancel::CODE, "cancel"),
        // Came with Linux 6.0, a little after multishot accept, which cannot be asked for.
        (opcode::SendZc::CODE, "operations of Linux 6.0"),
    ];
    match needed.iter().find(|(code, _)| !supported.is_supported(*code)) {
        Some((_, missing)) => Err(ProbeError::Operation { missing }),
        None => Ok(()),
    }
}

/// Opens a file in the directory the way the device does.
fn check_direct_io(directory: &Path) -> Result<(), ProbeError> {
    let path = directory.join(format!(".probe-{}", std::process::id()));
    let unusable = |cause| ProbeError::Directory { directory: directory.to_owned(), cause };
    File::create(&path).map_err(unusable)?;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    fs::remove_file(&path).map_err(unusable)?;
    match opened {
        Ok(_) => Ok(()),
        Err(cause) => Err(ProbeError::DirectIo { directory: directory.to_owned(), cause }),
    }
}

/// How writes become durable on the disk under `directory`, and the reason in words. What cannot be
/// found out counts as a volatile cache without forced unit access: always right, maybe slower.
///
/// # Errors
/// When the directory itself cannot be looked at.
pub fn durable_write(directory: &Path) -> io::Result<(DurableWrite, String)> {
    let device = fs::metadata(directory)?.st_dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let node = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    Ok(match queue_directory(&node) {
        Some(queue) => judge(&queue),
        None => {
            let text = format!("no block device {major}:{minor}: assuming a volatile cache");
            (DurableWrite::ThenSync, text)
        }
    })
}

/// The disk's queue settings: in the device's own directory, or its parent's for a partition.
fn queue_directory(node: &Path) -> Option<PathBuf> {
    let device = fs::canonicalize(node).ok()?;
    [Some(device.as_path()), device.parent()]
        .into_iter()
        .flatten()
        .map(|place| place.join("queue"))
        .find(|queue| queue.is_dir())
}

fn judge(queue: &Path) -> (DurableWrite, String) {
    let read = |name: &str| fs::read_to_string(queue.join(name)).ok();
    let Some(cache) = read("write_cache") else {
        return (DurableWrite::ThenSync, "cache mode unreadable: assuming volatile".to_owned());
    };
    let cache = cache.trim().to_owned();
    let has_fua = read("fua").is_some_and(|fua| fua.trim() == "1");
    let durable_write = if cache == "write through" || has_fua {
        DurableWrite::DataSync
    } else {
        DurableWrite::ThenSync
    };
    let fua = if has_fua { "with" } else { "without" };
    (durable_write, format!("{cache} cache, {fua} forced unit access"))
}

enum Resource {
    LockedMemory,
    Descriptors,
}

/// The process's soft limit; `None` without a bound, or when it cannot be read.
fn soft_limit(resource: Resource) -> Option<u64> {
    let line_start = match resource {
        Resource::LockedMemory => "Max locked memory",
        Resource::Descriptors => "Max open files",
    };
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(line_start))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of a disk decide: only a write-through cache or forced unit access spares the
    /// sync, and nothing known means the careful way.
    #[test]
    fn only_write_through_or_forced_unit_access_spares_the_sync() {
        let cases = [
            (Some("write back"), Some("0"), DurableWrite::ThenSync),
            (Some("write back"), Some("1"), DurableWrite::DataSync),
            (Some("write through"), Some("0"), DurableWrite::DataSync),
            (Some("write back"), None, DurableWrite::ThenSync),
            (None, Some("1"), DurableWrite::ThenSync),
        ];
        for (cache, fua, expected) in cases {
            let queue = tempfile::tempdir().expect("a temporary directory");
            for (name, value) in [("write_cache", cache), ("fua", fua)] {
                if let Some(value) = value {
                    fs::write(queue.path().join(name), format!("{value}\n")).expect("a file");
                }
            }
            assert_eq!(judge(queue.path()).0, expected, "{cache:?} {fua:?}");
        }
    }

    /// A partition has no queue of its own; its disk's is found one level up.
    #[test]
    fn a_partition_is_judged_by_its_disk() {
        let disk = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(disk.path().join("queue")).expect("a directory");
        fs::create_dir_all(disk.path().join("part1")).expect("a directory");
        let found = queue_directory(&disk.path().join("part1")).expect("the disk's queue");
        assert_eq!(found, fs::canonicalize(disk.path()).expect("a path").join("queue"));
    }

    /// A directory that is not there is refused by name and with what to do.
    #[test]
    fn a_missing_directory_is_refused_with_its_name() {
        let error = probe(Path::new("/nowhere/at/all")).expect_err("no such directory");
        let text = error.to_string();
        assert!(text.contains("/nowhere/at/all"), "{text}");
        assert!(text.contains("must exist"), "{text}");
    }
}
