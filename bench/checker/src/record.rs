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
//!   asked has ended, or may never. An operation that does not complete at all is the same.

mod operation;
mod outcome;

use serde::{Deserialize, Serialize};

pub use self::operation::{AttributeCondition, KeyCondition, Operation, Part, Put, Removal};
pub use self::outcome::{Data, Entry, Outcome, Refusal, Run};
use crate::id::{OperationId, Segment, SessionId, Writer};

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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
