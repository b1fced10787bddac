//! Why a table says no, without the name of the segment, which the table does not know.

use crate::id::SegmentName;
use crate::position::Offset;
use crate::request::{CloseReason, Refusal};

/// The answer of a table is no; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRefusal {
    /// A key that had to exist does not.
    KeyDoesNotExist,
    /// A key has another version.
    BadKeyVersion,
    /// The table has not the length that the request requires.
    OtherLength {
        /// The length it has.
        length: Offset,
        /// The length required.
        expected: Offset,
    },
    /// An argument breaks a rule: which and why.
    IllegalArgument(String),
    /// This layout does not do that.
    Unsupported {
        /// Wire name of the operation, lower camel case.
        operation: &'static str,
    },
    /// The request breaks the protocol in a way that has no reply: the connection is closed.
    Protocol,
}

impl TableRefusal {
    /// The refusal of a request to `segment`.
    ///
    /// # Errors
    /// Why to close the connection instead, when there is no reply that says it.
    pub fn for_segment(self, segment: &SegmentName) -> Result<Refusal, CloseReason> {
        let segment = segment.clone();
        Ok(match self {
            Self::KeyDoesNotExist => Refusal::KeyDoesNotExist { segment },
            Self::BadKeyVersion => Refusal::BadKeyVersion { segment },
            Self::OtherLength { length, expected } => Refusal::SegmentTruncated {
                segment,
                start_offset: length,
                offset: i64::try_from(expected.0).unwrap_or(i64::MAX),
            },
            Self::IllegalArgument(message) => Refusal::IllegalArgument { segment, message },
            Self::Unsupported { operation } => Refusal::Unsupported { operation },
            Self::Protocol => return Err(CloseReason::Protocol),
        })
    }
}
