//! What is said when a history cannot be that of a right server, and when it can.

use std::fmt;

use crate::id::OperationId;

/// A statement of the history that contradicts an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} violated at record {record}: {text}")]
pub struct Violation {
    /// Which invariant does not hold: `S1` to `S26`, or `history` when the history itself is not
    /// one, for example when an operation completes twice.
    pub invariant: &'static str,
    /// What contradicts what.
    pub text: String,
    /// Position of the record in the history, from 1.
    pub record: u64,
    /// The operations concerned: the one that completed, then earlier ones where known.
    pub operations: Vec<OperationId>,
}

/// What was held against each other and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Operations invoked.
    pub operations: u64,
    /// Operations whose outcome stayed unknown.
    pub unknown: u64,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Events read for the first time.
    pub found: u64,
    /// Events read in all, again and again, where they came as runs.
    pub read: u64,
    /// Answers about attributes, keys and conditional appends that went into a search.
    pub searched: u64,
    /// Times that a search gave up because too many operations were open.
    pub given_up: u64,
    /// Segments read back whole.
    pub read_back: u64,
    /// Ends of the process.
    pub ends: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} records, {} operations ({} of unknown outcome), {} events acknowledged, {} found, \
             {} read, {} answers searched ({} searches given up), {} segments read back, {} ends \
             of the process",
            self.records,
            self.operations,
            self.unknown,
            self.acknowledged,
            self.found,
            self.read,
            self.searched,
            self.given_up,
            self.read_back,
            self.ends
        )
    }
}
