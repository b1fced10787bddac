//! What clients are told.
//!
//! The forms of the answers in a history: effects, refusals, and what was read.

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::id::{Key, Value, Writer};

/// An entry that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The version.
    pub version: i64,
}

/// What was told about an operation that took effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    #[default]
    Done,
    /// The writer's last stored event.
    SetUp {
        /// Its number; `None` when there is none.
        last: Option<i64>,
    },
    /// The events are stored.
    Appended {
        /// Where the last of them ends. `None` when an acknowledgement of later events was all that
        /// was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<u64>,
        /// The number acknowledged before on this session, when that was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<i64>,
    },
    /// Data, possibly none.
    Read {
        /// What was read.
        #[serde(default)]
        data: Data,
        /// It was told that the segment ends behind them.
        #[serde(default, skip_serializing_if = "is_default")]
        ends: bool,
        /// It was told that this is the tail at present.
        #[serde(default, skip_serializing_if = "is_default")]
        tail: bool,
    },
    /// Properties.
    Info {
        /// Length.
        length: u64,
        /// Start offset.
        #[serde(default, skip_serializing_if = "is_default")]
        start: u64,
        /// Whether it is sealed.
        #[serde(default, skip_serializing_if = "is_default")]
        sealed: bool,
    },
    /// An attribute's value.
    Attribute {
        /// The value, if it has one.
        value: Option<i64>,
    },
    /// The versions of the entries put, in their order.
    Versions {
        /// One for each.
        versions: Vec<i64>,
    },
    /// Entries of a table.
    Entries {
        /// In the order in which they came.
        entries: Vec<Entry>,
    },
    /// The target's length after the last merge, where told.
    Merged {
        /// The length.
        length: u64,
    },
}

impl Outcome {
    /// Whether there is nothing to tell.
    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }
}

/// What a read brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Whole events, already judged by [`payload::Judge`](crate::payload::Judge), without a gap.
    Runs(Vec<Run>),
    /// Bytes as they came, which need not begin or end with an event. They are judged here.
    Bytes(#[serde(with = "hex")] Vec<u8>),
    /// Bytes at this place of the segment which are not those of any event.
    Wrong {
        /// The place.
        at: u64,
    },
}

impl Default for Data {
    fn default() -> Self {
        Self::Runs(Vec::new())
    }
}

/// Events of one writer with consecutive numbers, one length and one key, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Whose.
    pub writer: Writer,
    /// Number of the first.
    pub first: i64,
    /// How many; at least one.
    pub count: u32,
    /// Bytes of each with its framing; at least one.
    pub bytes: u32,
    /// Their key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub key: u32,
}

impl Run {
    /// Number of the last.
    pub fn last(&self) -> i64 {
        self.first + i64::from(self.count) - 1
    }

    /// Bytes of all.
    pub fn all_bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.bytes)
    }
}

/// Why an operation took no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such segment.
    NoSuchSegment,
    /// There is one already.
    Exists,
    /// It is sealed. To an append: nothing of it and of what the writer sent behind it is stored,
    /// nor will be. With several sessions of one writer that is not known; use `info` then.
    Sealed,
    /// It starts behind the offset.
    Truncated {
        /// Where.
        start: u64,
    },
    /// Length, value or version is not as the condition wants.
    ConditionFailed,
    /// A newer session of the writer exists or the number was stored before.
    Stale,
    /// Refused before it was looked at: no statement about any state.
    Unavailable,
}

/// Bytes as hexadecimal text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        let text: String =
            bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or_else(|| D::Error::custom("not a hexadecimal digit"))
        };
        if !text.len().is_multiple_of(2) {
            return Err(D::Error::custom("odd number of hexadecimal digits"));
        }
        text.as_bytes()
            .chunks_exact(2)
            .map(|pair| Ok(nibble(pair[0])? << 4 | nibble(pair[1])?))
            .collect()
    }
}
