//! Facts about the machine, for reports: what the numbers were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine and the tree a scenario ran on. Unknown facts are `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Kernel name and release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Processors that may be used.
    pub processors: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Block device below the data directory, with its kind of cache.
    pub device: String,
    /// File system of the data directory.
    pub file_system: String,
    /// Commit of the tree, `+` when it had changes.
    pub commit: String,
}

const UNKNOWN: &str = "unknown";

impl HostFacts {
    /// Asks the system. `data_directory` is where the server keeps its data; `commit` is asked of
    /// git in the current directory when it is not given.
    pub fn gather(data_directory: Option<&Path>, commit: Option<&str>) -> Self {
        let (device, file_system) = data_directory
            .and_then(mount_of)
            .unwrap_or_else(|| (UNKNOWN.to_owned(), UNKNOWN.to_owned()));
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| UNKNOWN.to_owned(), |text| format!("Linux {}", text.trim())),
            processor: value_of(&cpuinfo, "model name").unwrap_or(UNKNOWN).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: value_of(&meminfo, "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib >> 10),
            device,
            file_system,
            commit: commit.map_or_else(git_commit, str::to_owned),
        }
    }
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}

/// Device and file system that hold a directory: the mount with the longest fitting path.
fn mount_of(directory: &Path) -> Option<(String, String)> {
    let directory = fs::canonicalize(directory).ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let (device, kind, options) = find_mount(&mounts, &directory)?;
    let name = device.rsplit('/').next().unwrap_or(device);
    let parent = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let queue = |file: &str| {
        [name, parent]
            .iter()
            .find_map(|name| fs::read_to_string(format!("/sys/block/{name}/queue/{file}")).ok())
    };
    let cache = queue("write_cache").map_or_else(String::new, |text| format!(", {}", text.trim()));
    let fua = queue("fua").map_or_else(String::new, |text| format!(", fua {}", text.trim()));
    Some((format!("{device}{cache}{fua}"), format!("{kind} ({options})")))
}

fn find_mount<'a>(mounts: &'a str, directory: &Path) -> Option<(&'a str, &'a str, &'a str)> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.next()?;
        let path = Path::new(fields.next()?);
        directory.starts_with(path).then_some(())?;
        Some((path.components().count(), (device, fields.next()?, fields.next()?)))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, found)| found)
}

fn git_commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return UNKNOWN.to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if !changes.is_empty() => commit + "+",
        _ => commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that the innermost mount is the one that counts.
    #[test]
    fn the_deepest_mount_holds_a_directory() {
        let mounts =
            "/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw,noatime 0 0\n/dev/c /da tmpfs rw 0 0";
        let found = |path: &str| find_mount(mounts, Path::new(path)).map(|found| found.0);
        assert_eq!(found("/data/thalweg"), Some("/dev/b"));
        assert_eq!(found("/database"), Some("/dev/a"));
        assert_eq!(find_mount("", Path::new("/data")), None);
    }
}
