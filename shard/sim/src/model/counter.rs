//! A counter that several clients raise by compare-and-set: each step can succeed only once.

use std::collections::{BTreeMap, BTreeSet};

use crate::trace::{Trace, check};

/// What is known of one counter, which begins at 0 (not set).
#[derive(Debug)]
pub(crate) struct CounterModel {
    name: String,
    trace: Trace,
    /// Attempts to go on from a value.
    attempts: BTreeMap<i64, u64>,
    succeeded: BTreeSet<i64>,
    /// The counter is at least this.
    floor: i64,
}

impl CounterModel {
    /// A counter nobody touched.
    pub(crate) fn new(name: &str, trace: Trace) -> Self {
        Self {
            name: name.to_owned(),
            trace,
            attempts: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            floor: 0,
        }
    }

    /// The value that every later answer must reach.
    pub(crate) fn floor(&self) -> i64 {
        self.floor
    }

    /// Somebody tries to raise it from `value`.
    pub(crate) fn attempted(&mut self, value: i64) {
        *self.attempts.entry(value).or_default() += 1;
    }

    /// Somebody was told that his attempt from `value` succeeded.
    pub(crate) fn raised(&mut self, value: i64) {
        let is_first = self.succeeded.insert(value);
        check!(self.trace, "S12", is_first, "{} was raised twice from {value}", self.name);
        self.floor = self.floor.max(value + 1);
    }

    /// Somebody was told that his attempt from `value` failed; so another one must have been made.
    pub(crate) fn refused(&mut self, value: i64, floor_before: i64) {
        let others = self.attempts.get(&value).copied().unwrap_or(0) > 1;
        let name = &self.name;
        check!(
            self.trace,
            "S12",
            others || floor_before > value,
            "{name} refused the only attempt from {value}"
        );
    }

    /// Somebody read it; `floor_before` is the floor when the read began.
    pub(crate) fn read(&mut self, value: i64, floor_before: i64) {
        let name = &self.name;
        check!(
            self.trace,
            "S12",
            value >= floor_before,
            "{name} reads {value} after {floor_before} was certain"
        );
        let can_be = value == 0 || self.attempts.contains_key(&(value - 1));
        check!(self.trace, "S12", can_be, "{name} reads {value}, which nobody wrote");
        self.floor = self.floor.max(value);
    }
}
