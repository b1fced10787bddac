//! Failures on demand: which operation fails, how often, and with what.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a program asks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading of a file.
    Read,
    /// Writing of a file.
    Write,
    /// Syncing of a file, with or without its size.
    Sync,
    /// Syncing of a directory.
    SyncDirectory,
    /// Making, renaming or removing a name; growing or cutting a file.
    Change,
}

/// The error that the program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device failed.
    Device,
    /// No space is left.
    NoSpace,
}

/// Operations that fail.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which kind.
    pub operation: Operation,
    /// Only files whose path below the mount contains this.
    pub path_contains: String,
    /// How many of them pass before.
    pub pass: u64,
    /// How many fail; the rest passes again.
    pub fail: u64,
    /// With what.
    pub failure: Failure,
}

impl Fault {
    /// The next operation of this kind fails with a device error, once.
    pub fn once(operation: Operation, path_contains: &str) -> Self {
        Self {
            operation,
            path_contains: path_contains.to_owned(),
            pass: 0,
            fail: 1,
            failure: Failure::Device,
        }
    }
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    set: Vec<Fault>,
    fired: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.set.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    pub(crate) fn fired(&self) -> u64 {
        self.fired
    }

    /// Whether the operation fails. Counts it against every fault that it belongs to.
    pub(crate) fn judge(&mut self, operation: Operation, path: &str) -> Option<Failure> {
        let mut failure = None;
        for fault in &mut self.set {
            if fault.operation != operation || !path.contains(&fault.path_contains) {
                continue;
            }
            if fault.pass > 0 {
                fault.pass -= 1;
            } else if fault.fail > 0 && failure.is_none() {
                fault.fail -= 1;
                failure = Some(fault.failure);
            }
        }
        self.set.retain(|fault| fault.fail > 0);
        self.fired += u64::from(failure.is_some());
        failure
    }
}

/// How often what was asked, since the mount.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; 5]);

impl Tally {
    pub(crate) fn count(&self, operation: Operation) {
        self.0[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, operation: Operation) -> u64 {
        self.0[operation as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that exactly the n-th operation of the kind on the named files fails.
    #[test]
    fn exactly_the_operations_asked_for_fail() {
        let mut faults = Faults::default();
        let fault = Fault { pass: 2, fail: 2, ..Fault::once(Operation::Write, "journal") };
        faults.add(fault);
        let mut failed = Vec::new();
        for number in 0..6 {
            assert_eq!(faults.judge(Operation::Write, "/marker"), None);
            assert_eq!(faults.judge(Operation::Sync, "/journal-0/a"), None);
            if faults.judge(Operation::Write, "/journal-0/a").is_some() {
                failed.push(number);
            }
        }
        assert_eq!(failed, [2, 3]);
        assert_eq!(faults.fired(), 2);
    }
}
