//! Which CPU each shard gets.

use std::fs;

/// A CPU for each of `shards` shards: those that the process may use, in order. None at all when
/// there are fewer CPUs than shards (pinned shards would then wait for each other while other CPUs
/// are free), or when the machine does not tell.
pub fn choose_cpus(shards: usize) -> Vec<Option<usize>> {
    let allowed = allowed_cpus().unwrap_or_default();
    if allowed.len() < shards {
        return vec![None; shards];
    }
    allowed.into_iter().take(shards).map(Some).collect()
}

fn allowed_cpus() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    parse_list(list.trim())
}

/// Reads a list like `0-3,8,10-11`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's list of CPUs is read in all its forms, and nonsense is not guessed at.
    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("a-b"), None);
    }

    /// More shards than CPUs are not pinned at all.
    #[test]
    fn too_many_shards_are_not_pinned() {
        assert_eq!(choose_cpus(100_000), vec![None; 100_000]);
        assert!(choose_cpus(1)[0].is_some(), "one CPU is there");
    }
}
