//! What clients ask for.
//!
//! The forms of the requests in a history, with their conditions. What follows from them is decided
//! elsewhere.

use serde::{Deserialize, Serialize};

use crate::id::{Attribute, Key, Segment, Value, Writer};

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Create a segment or a table. A name that was deleted begins a new life.
    Create {
        /// Which.
        segment: Segment,
    },
    /// Delete it.
    Delete {
        /// Which.
        segment: Segment,
    },
    /// Seal it.
    Seal {
        /// Which.
        segment: Segment,
    },
    /// Drop its front.
    Truncate {
        /// Which.
        segment: Segment,
        /// The start offset wanted.
        offset: u64,
    },
    /// Set up a writer: `Outcome::SetUp`.
    SetUp {
        /// Where.
        segment: Segment,
        /// Who.
        writer: Writer,
    },
    /// Append a block of events with consecutive numbers: `Outcome::Appended`. All of the block
    /// is stored or nothing. Of a transaction: by the name of the segment in which it is written
    /// aside, or not recorded at all; what counts are the parts of its commit.
    Append {
        /// Where.
        segment: Segment,
        /// Who.
        writer: Writer,
        /// Number of the first event.
        first: i64,
        /// How many.
        count: u32,
        /// Bytes of all of them with their framing.
        bytes: u64,
    },
    /// Append one event if the segment is of this length: `Outcome::Appended` or
    /// `Refusal::ConditionFailed`.
    ConditionalAppend {
        /// Where.
        segment: Segment,
        /// Who.
        writer: Writer,
        /// Which event.
        number: i64,
        /// The length that is the condition.
        expected: u64,
        /// Bytes of the event with its framing.
        bytes: u64,
    },
    /// Read: `Outcome::Read`, `Refusal::Truncated` or `Refusal::Sealed` at the end.
    Read {
        /// Where.
        segment: Segment,
        /// From where.
        offset: u64,
    },
    /// The same from long-term storage alone.
    StorageRead {
        /// Where.
        segment: Segment,
        /// From where.
        offset: u64,
    },
    /// Ask for properties: `Outcome::Info`.
    Info {
        /// Of which.
        segment: Segment,
    },
    /// Read an attribute: `Outcome::Attribute`.
    AttributeRead {
        /// Of which segment.
        segment: Segment,
        /// Which.
        attribute: Attribute,
    },
    /// Change an attribute: `Outcome::Done` or `Refusal::ConditionFailed`.
    AttributeUpdate {
        /// Of which segment.
        segment: Segment,
        /// Which.
        attribute: Attribute,
        /// On which condition.
        condition: AttributeCondition,
        /// The new value; `None` removes it.
        value: Option<i64>,
    },
    /// Put entries into a table, all or none: `Outcome::Versions`, `Refusal::ConditionFailed`.
    TableUpdate {
        /// Which table.
        segment: Segment,
        /// What.
        entries: Vec<Put>,
    },
    /// Remove keys, all or none: `Outcome::Done`, `Refusal::ConditionFailed`.
    TableRemove {
        /// Which table.
        segment: Segment,
        /// What.
        keys: Vec<Removal>,
    },
    /// Read keys at one moment: `Outcome::Entries`, those that are there.
    TableRead {
        /// Which table.
        segment: Segment,
        /// Which keys.
        keys: Vec<Key>,
    },
    /// Walk over all keys that begin so, in as many requests as it takes: `Outcome::Entries`.
    TableIterate {
        /// Which table.
        segment: Segment,
        /// Beginning of the keys.
        #[serde(default)]
        prefix: String,
    },
    /// Begin a transaction. Its events are introduced by `Happened::Writer` with
    /// `Discipline::Atomic` for each segment that it may touch.
    Begin {
        /// Which.
        transaction: Writer,
    },
    /// Commit it: `Outcome::Done`, or `Outcome::Merged` when it is one segment's merge. Several
    /// may be committed by one request.
    Commit {
        /// The transactions with their parts.
        parts: Vec<Part>,
    },
    /// Abort it.
    Abort {
        /// Which.
        transaction: Writer,
    },
}

/// What a transaction has written for one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The transaction.
    pub transaction: Writer,
    /// The segment that takes its events.
    pub segment: Segment,
    /// How many events, numbered from 0.
    pub count: u32,
    /// The segment in which they were written aside, when the history speaks of it: it is gone when
    /// the commit is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Segment>,
}

/// On what condition an attribute changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeCondition {
    /// None.
    Always,
    /// It has this value, or none.
    Is(Option<i64>),
}

/// On what condition a table's key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyCondition {
    /// None.
    Always,
    /// It is not there.
    Absent,
    /// It has this version.
    Version(i64),
}

/// An entry to be put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The condition.
    pub condition: KeyCondition,
}

/// A key to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The key.
    pub key: Key,
    /// The condition.
    pub condition: KeyCondition,
}

impl Operation {
    /// The one segment that the operation is about.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        match self {
            Self::Create { segment }
            | Self::Delete { segment }
            | Self::Seal { segment }
            | Self::Truncate { segment, .. }
            | Self::SetUp { segment, .. }
            | Self::Append { segment, .. }
            | Self::ConditionalAppend { segment, .. }
            | Self::Read { segment, .. }
            | Self::StorageRead { segment, .. }
            | Self::Info { segment }
            | Self::AttributeRead { segment, .. }
            | Self::AttributeUpdate { segment, .. }
            | Self::TableUpdate { segment, .. }
            | Self::TableRemove { segment, .. }
            | Self::TableRead { segment, .. }
            | Self::TableIterate { segment, .. } => Some(segment),
            Self::Begin { .. } | Self::Commit { .. } | Self::Abort { .. } => None,
        }
    }

    /// The writer that the operation is about.
    pub(crate) fn writer(&self) -> Option<Writer> {
        match self {
            Self::SetUp { writer, .. }
            | Self::Append { writer, .. }
            | Self::ConditionalAppend { writer, .. } => Some(*writer),
            _ => None,
        }
    }
}
