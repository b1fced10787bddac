//! What can go wrong, sorted by what the caller can do about it.

use thalweg_wire::{Command, DecodeError};

/// The outcome of a request that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The request cannot be sent as it is. Nothing was done; sending it again will not help.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The store understood the request and says no. Nothing was done, with the one exception of a
    /// merge, whose source may be sealed now.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The store cannot be reached, does not answer, or gave the connection up. **The request may
    /// have been carried out.** Ask again, or find out.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The append session has ended; open another one.
    #[error("closed")]
    Closed,
    /// What arrived is not the protocol. The connection is gone, and the request may have been
    /// carried out.
    #[error("corrupt: {0}")]
    Corrupt(#[from] DecodeError),
    /// The store answered with a command that is no answer to the request.
    #[error("internal: unexpected reply {0}")]
    Internal(&'static str),
}

/// Why the store says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No segment of this name exists.
    #[error("no segment {segment}")]
    NoSuchSegment {
        /// The name.
        segment: String,
    },
    /// A segment of this name exists.
    #[error("segment {segment} exists")]
    SegmentExists {
        /// The name.
        segment: String,
    },
    /// The segment takes no more appends.
    #[error("segment {segment} is sealed")]
    SegmentSealed {
        /// The name.
        segment: String,
    },
    /// The offset lies before the segment's start or, in a truncation, behind its end; or a
    /// condition on a table's length failed.
    #[error("segment {segment} starts at offset {start_offset}")]
    SegmentTruncated {
        /// The name.
        segment: String,
        /// The first readable offset, or the actual length for a failed condition.
        start_offset: i64,
    },
    /// The segment lives elsewhere: ask again where.
    #[error("segment {segment} is served by another host")]
    WrongHost {
        /// The name.
        segment: String,
    },
    /// A conditional append found another length, or a compare-and-set another value.
    #[error("condition failed")]
    ConditionFailed,
    /// A key has another version, or does not exist though it must.
    #[error("key version mismatch in table {segment}")]
    KeyVersionMismatch {
        /// The table.
        segment: String,
    },
    /// The table has keys.
    #[error("table {segment} is not empty")]
    TableNotEmpty {
        /// The table.
        segment: String,
    },
    /// Another connection of this writer has taken over.
    #[error("writer {writer_id:032x} has been superseded")]
    WriterSuperseded {
        /// The writer.
        writer_id: u128,
    },
    /// The segment does not allow this operation.
    #[error("operation {operation} is not supported")]
    Unsupported {
        /// As the store calls it.
        operation: String,
    },
    /// The delegation token does not allow this.
    #[error("unauthorized")]
    Unauthorized,
    /// The store gives only a text, for people.
    #[error("{message}")]
    Other {
        /// The text.
        message: String,
    },
}

impl Refusal {
    /// The error that an error reply tells.
    pub(crate) fn error_of(reply: &Command) -> ClientError {
        Self::of(reply).map_or(ClientError::Internal(reply.name()), ClientError::Refused)
    }

    fn of(reply: &Command) -> Option<Self> {
        Some(match reply {
            Command::NoSuchSegment(it) => Self::NoSuchSegment { segment: it.segment.to_string() },
            Command::SegmentAlreadyExists(it) => {
                Self::SegmentExists { segment: it.segment.to_string() }
            }
            Command::SegmentIsSealed(it) => Self::SegmentSealed { segment: it.segment.to_string() },
            Command::SegmentIsTruncated(it) => Self::SegmentTruncated {
                segment: it.segment.to_string(),
                start_offset: it.start_offset,
            },
            Command::WrongHost(it) => Self::WrongHost { segment: it.segment.to_string() },
            Command::ConditionalCheckFailed(_) => Self::ConditionFailed,
            Command::TableKeyBadVersion(it) => {
                Self::KeyVersionMismatch { segment: it.segment.to_string() }
            }
            Command::TableKeyDoesNotExist(it) => {
                Self::KeyVersionMismatch { segment: it.segment.to_string() }
            }
            Command::TableSegmentNotEmpty(it) => {
                Self::TableNotEmpty { segment: it.segment.to_string() }
            }
            Command::InvalidEventNumber(it) => Self::WriterSuperseded { writer_id: it.writer_id },
            Command::OperationUnsupported(it) => {
                Self::Unsupported { operation: it.operation_name.to_string() }
            }
            Command::AuthTokenCheckFailed(_) => Self::Unauthorized,
            Command::ErrorMessage(it) => Self::Other { message: it.message.to_string() },
            _ => return None,
        })
    }
}
