//! A history: what clients asked and what they were told, in the order in which it happened.
//!
//! The order of the records is the order of real time: an invocation is recorded before its request
//! is sent, a completion after its answer was taken. So an operation that completes before another
//! is invoked happened before it. Times are for the reader of a report only.
//!
//! A history is kept as JSON lines, one record each. Every operation completes at most once:
//!
//! * `ok`: it took effect, and this is what was told about it;
//! * `fail`: it took no effect, for this reason, which is a definite statement of its own;
//! * `info`: nobody knows. It may have taken effect, may still do so until the process that was
//! asked   has ended, or may never. An operation that does not complete at all is the same.

use serde::{Deserialize, Serialize};

use crate::id::{Attribute, Key, OperationId, Segment, SessionId, Value, Writer};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds since some start, for the reader.
    #[serde(default, skip_serializing_if = "is_default")]
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub happened: Happened,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// An operation is about to be asked for.
    Invoke {
        /// The operation.
        id: OperationId,
        /// By which connection. Matters for set-ups and appends only.
        #[serde(default, skip_serializing_if = "is_default")]
        session: SessionId,
        /// What is asked for.
        operation: Operation,
    },
    /// An operation took effect.
    Ok {
        /// The operation.
        id: OperationId,
        /// What was told.
        #[serde(default, skip_serializing_if = "Outcome::is_done")]
        outcome: Outcome,
    },
    /// An operation took no effect.
    Fail {
        /// The operation.
        id: OperationId,
        /// Why.
        refusal: Refusal,
    },
    /// What became of an operation is not known.
    Info {
        /// The operation.
        id: OperationId,
    },
    /// A writer is introduced to a segment, before it writes there.
    Writer {
        /// Where it will write.
        segment: Segment,
        /// Which.
        writer: Writer,
        /// How its events must lie.
        discipline: Discipline,
        /// The writer went on here from this segment, which was sealed; it left behind everything
        /// below the first number of its [`Discipline::Dense`] here, and nothing else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        continues: Option<Segment>,
    },
    /// A stream is about to be scaled: these segments are to be sealed and those take their place.
    Scale {
        /// To be sealed.
        predecessors: Vec<Segment>,
        /// Their places.
        successors: Vec<Successor>,
    },
    /// Something happened to the server.
    Process(ProcessEvent),
    /// An owner of a container showed its epoch: by an effect, in a file or in a log.
    Epoch {
        /// The container.
        container: u32,
        /// The epoch.
        epoch: u64,
    },
    /// Everything is quiet, and this segment, or what is left of it, was read from its start to
    /// this length; nothing may be missing now.
    ReadBack {
        /// The segment.
        segment: Segment,
        /// Its length.
        length: u64,
    },
}

/// What happens to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEvent {
    /// It was killed; the machine goes on.
    Killed,
    /// The machine lost power.
    PowerCut,
    /// It was asked to end, and ended.
    Stopped,
    /// It runs again. What was asked of its predecessor happened before this or never.
    Restarted,
    /// It was frozen or its network cut.
    Frozen,
    /// Freeze or cut ended.
    Healed,
}

/// A segment that takes the place of others, with its range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The segment.
    pub segment: Segment,
    /// Least key of its range, in 2^32ths of the whole.
    pub from: u64,
    /// First key behind its range, in 2^32ths of the whole.
    pub to: u64,
}

/// How the events of a writer must lie in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discipline {
    /// Numbered without gaps from this number on; none is left out. Sending one again is allowed.
    Dense {
        /// The first number.
        first: i64,
    },
    /// Numbers increase, and may have gaps. So do conditional appends.
    Increasing,
    /// A transaction: numbered from 0, contiguous in the segment, all of them or none, and none
    /// before its commit is asked for.
    Atomic,
}

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
    /// Set up a writer: [`Outcome::SetUp`].
    SetUp {
        /// Where.
        segment: Segment,
        /// Who.
        writer: Writer,
    },
    /// Append a block of events with consecutive numbers: [`Outcome::Appended`]. All of the block
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
    /// Append one event if the segment is of this length: [`Outcome::Appended`] or
    /// [`Refusal::ConditionFailed`].
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
    /// Read: [`Outcome::Read`], [`Refusal::Truncated`] or [`Refusal::Sealed`] at the end.
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
    /// Ask for properties: [`Outcome::Info`].
    Info {
        /// Of which.
        segment: Segment,
    },
    /// Read an attribute: [`Outcome::Attribute`].
    AttributeRead {
        /// Of which segment.
        segment: Segment,
        /// Which.
        attribute: Attribute,
    },
    /// Change an attribute: [`Outcome::Done`] or [`Refusal::ConditionFailed`].
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
    /// Put entries into a table, all or none: [`Outcome::Versions`], [`Refusal::ConditionFailed`].
    TableUpdate {
        /// Which table.
        segment: Segment,
        /// What.
        entries: Vec<Put>,
    },
    /// Remove keys, all or none: [`Outcome::Done`], [`Refusal::ConditionFailed`].
    TableRemove {
        /// Which table.
        segment: Segment,
        /// What.
        keys: Vec<Removal>,
    },
    /// Read keys at one moment: [`Outcome::Entries`], those that are there.
    TableRead {
        /// Which table.
        segment: Segment,
        /// Which keys.
        keys: Vec<Key>,
    },
    /// Walk over all keys that begin so, in as many requests as it takes: [`Outcome::Entries`].
    TableIterate {
        /// Which table.
        segment: Segment,
        /// Beginning of the keys.
        #[serde(default)]
        prefix: String,
    },
    /// Begin a transaction. Its events are introduced by [`Happened::Writer`] with
    /// [`Discipline::Atomic`] for each segment that it may touch.
    Begin {
        /// Which.
        transaction: Writer,
    },
    /// Commit it: [`Outcome::Done`], or [`Outcome::Merged`] when it is one segment's merge. Several
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
