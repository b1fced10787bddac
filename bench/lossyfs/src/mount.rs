//! The mount and the switches on it.
//!
//! A [`Lossy`] that is dropped is unmounted, at once for new users and for good when the last file
//! is closed. A small process of its own does so when this one is killed. What was left all
//! the same is found by its source's name, which carries the process, and unmounted by the next
//! mount.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, Session};
use rustix::mount::{UnmountFlags, unmount};

use crate::disk::Shared;
use crate::fault::{Fault, Operation};
use crate::filesystem::LossyFilesystem;
use crate::power::{Cut, CutReport};

/// Name of our mounts, before the process id.
const SOURCE: &str = "thalweg-lossy-";

/// Room when nothing else is said.
const BUDGET: u64 = 4 << 30;

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// This machine has no FUSE for us. Tests that need it are skipped with this sentence.
    #[error("no lossy file system on this machine: {device} cannot be opened ({cause})")]
    NoFuse {
        /// The device of FUSE.
        device: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// FUSE is there and mounting is refused.
    #[error(
        "no lossy file system on this machine: mounting is refused ({cause}); it takes root, or \
         the program fusermount3"
    )]
    Refused {
        /// What was said.
        cause: io::Error,
    },
}

/// A mounted file system that can lose what was not synced. Empty at first.
pub struct Lossy {
    path: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    worker: Option<JoinHandle<()>>,
    guard: Option<Child>,
}

impl Lossy {
    /// Mounts on an existing directory.
    ///
    /// # Errors
    /// [`MountError`]; nothing is mounted then.
    pub fn mount(path: &Path) -> Result<Self, MountError> {
        const DEVICE: &str = "/dev/fuse";
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE)
            .map_err(|cause| MountError::NoFuse { device: DEVICE, cause })?;
        unmount_leftovers();
        let shared = Shared::new(BUDGET);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("{SOURCE}{}", std::process::id())),
            MountOption::Subtype("lossy".to_owned()),
            MountOption::NoAtime,
        ];
        let filesystem = LossyFilesystem(shared.clone());
        let session = Session::new(filesystem, path, &config)
            .and_then(Session::spawn)
            .map_err(|cause| MountError::Refused { cause })?;
        let worker = thread::spawn({
            let shared = shared.clone();
            move || shared.run()
        });
        Ok(Self {
            path: path.to_owned(),
            shared,
            session: Some(session),
            worker: Some(worker),
            guard: watch(path),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the power at this moment: from now on everything fails, until [`Lossy::power_on`]; what
    /// was not synced is lost as `cut` says. The programs on it are to be killed before power
    /// comes back.
    pub fn cut(&self, cut: Cut) -> CutReport {
        self.shared.cut(cut)
    }

    /// Brings the power back. What is there is what the cut has left.
    pub fn power_on(&self) {
        self.shared.power_on();
    }

    /// From now on syncs of files are answered and not carried out, or are again: a disk that lies,
    /// by which a test shows that it would notice.
    pub fn lie_about_syncs(&self, is_lying: bool) {
        self.shared.lie(is_lying);
    }

    /// Lets operations fail.
    pub fn fail(&self, fault: Fault) {
        self.shared.faults(|faults| faults.add(fault));
    }

    /// Takes back what [`Lossy::fail`] set and has not happened yet.
    pub fn heal(&self) {
        self.shared.faults(|faults| faults.clear());
    }

    /// Operations that failed because of [`Lossy::fail`].
    pub fn faults_fired(&self) -> u64 {
        self.shared.faults(|faults| faults.fired())
    }

    /// Bytes that files may take together; what they take beyond stays.
    pub fn set_budget(&self, bytes: u64) {
        self.shared.set_budget(bytes);
    }

    /// Bytes that files take.
    pub fn taken(&self) -> u64 {
        self.shared.taken()
    }

    /// Reads, writes and syncs take a random time up to this, and overtake each other.
    pub fn set_latency(&self, latency_max: Duration) {
        self.shared.pace.set_latency(latency_max);
    }

    /// From now on reads and writes are not answered. Syncs are: FUSE locks a file during its sync
    /// so that the next write would block the thread that submits it, which no disk does.
    pub fn stall(&self) {
        self.shared.pace.stall(true);
    }

    /// The stall is over; what waited is carried out.
    pub fn resume(&self) {
        self.shared.pace.stall(false);
    }

    /// How many of these were carried out or failed since the mount.
    pub fn count(&self, operation: Operation) -> u64 {
        self.shared.tally.of(operation)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        // Nobody is to wait for a reply that never comes.
        self.shared.pace.end();
        // It may be unmounted already; what else could go wrong has no better end than this.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
        drop(self.session.take());
        if let Some(mut guard) = self.guard.take() {
            // Its end of input tells it that this is over; it finds nothing to do.
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// A process that unmounts and removes the mount point when this one ends, however it does. Without
/// a shell there is none, and the next mount clears up.
fn watch(path: &Path) -> Option<Child> {
    Command::new("sh")
        .args(["-c", "cat; umount -l \"$0\" 2>&-; rmdir \"$0\" 2>&-"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // An interrupt at the terminal is not for it.
        .process_group(0)
        .spawn()
        .ok()
}

/// Unmounts what processes that are gone have left.
fn unmount_leftovers() {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else { return };
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(path)) = (words.next(), words.next()) else { continue };
        let Some(process) = source.strip_prefix(SOURCE) else { continue };
        if !Path::new("/proc").join(process).exists() {
            // Somebody else may do the same at this moment.
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}
