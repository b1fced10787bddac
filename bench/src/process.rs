//! What processes use: processor time and memory, as the kernel counts them.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// A process by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessId(pub u32);

impl ProcessId {
    /// This process.
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// Processor time used so far, in user and kernel mode. Counted in hundredths of a second.
    pub(crate) fn cpu_time(self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.0);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let ticks = stat_ticks(&text).with_context(|| format!("parse {path}"))?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Highest resident memory so far, in bytes.
    pub(crate) fn resident_bytes_peak(self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.0);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        status_kib(&text, "VmHWM:").map(|kib| kib << 10).with_context(|| format!("parse {path}"))
    }

    /// Open sockets.
    pub(crate) fn sockets(self) -> anyhow::Result<usize> {
        let path = format!("/proc/{}/fd", self.0);
        let entries = fs::read_dir(&path).with_context(|| format!("read {path}"))?;
        // One that is gone by the time it is looked at is not open.
        let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Ok(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.0);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        status_kib(&text, "VmRSS:").map(|kib| kib << 10).with_context(|| format!("parse {path}"))
    }
}

/// Processor time of the calling thread.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("threads do not run for less than no time"),
        u32::try_from(time.tv_nsec).expect("less than a second"),
    )
}

/// Fields 14 and 15. The second field is a name in parentheses that may hold anything.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn status_kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a process name with blanks and parentheses does not shift the fields.
    #[test]
    fn odd_process_names_do_not_shift_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4 10 0 0 0 120 30 5 6 20 0 1 0";
        assert_eq!(stat_ticks(stat), Some(150));
    }

    /// Shows that the kernel's files of this very process can be read.
    #[test]
    fn the_own_process_can_be_asked() {
        assert!(ProcessId::own().resident_bytes().expect("it is running") > 1 << 16);
        assert!(ProcessId::own().cpu_time().is_ok());
    }
}
