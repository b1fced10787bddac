//! What waits until a frame is durable: commits, answers, refusals, in the order of acceptance.

use crate::append::Commit;
use crate::id::Token;
use crate::position::{FrameNumber, Offset};
use crate::request::{CloseReason, Refusal, Reply};
use crate::segment::SegmentHandle;

/// A step and the frame that it waits for.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) frame: FrameNumber,
    pub(crate) step: Step,
}

/// What is done when the frame is durable. The segment may be gone by then.
#[derive(Debug)]
pub(crate) enum Step {
    /// An append becomes visible and is acknowledged.
    Append(Commit),
    /// Merged bytes become visible.
    Grow {
        segment: SegmentHandle,
        /// Of the segment, after it.
        length: Offset,
    },
    /// The end is final.
    Seal(SegmentHandle),
    /// Bytes before the offset are gone.
    Truncate(SegmentHandle, Offset),
    /// An answer. Boxed, because appends are many and answers few.
    Reply(Token, Box<Result<Reply, Refusal>>),
    /// A connection is closed.
    Close(Token, CloseReason),
}

impl Step {
    /// Who is told then.
    pub(crate) fn token(&self) -> Option<Token> {
        match self {
            Self::Append(commit) => Some(commit.token),
            Self::Reply(token, _) | Self::Close(token, _) => Some(*token),
            Self::Grow { .. } | Self::Seal(_) | Self::Truncate(..) => None,
        }
    }
}
