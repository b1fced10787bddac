//! From what the controller says to the protocol's messages and statuses. Pure.
//!
//! A permanent problem gets a status that clients take as final (`INVALID_ARGUMENT`, `NOT_FOUND`,
//! `PERMISSION_DENIED`, `UNIMPLEMENTED`); what may pass gets `UNAVAILABLE`, which they retry.

use tonic::Status;

use crate::epoch::{SegmentRecord, Successor};
use crate::error::ControlError;
use crate::id::{StreamSegmentId, TransactionId};
use crate::names::StreamPath;
use crate::proto;
use crate::stream::StreamRefusal;
use crate::transaction::TransactionState;
use crate::workflow::ChangeOutcome;

impl From<ControlError> for Status {
    fn from(error: ControlError) -> Self {
        tracing::warn!(%error, "call not carried out");
        Self::unavailable(error.to_string())
    }
}

/// A call that is not there yet. Final for clients.
pub(crate) fn not_there_yet(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not implemented in this version"))
}

/// The stream's name in a message, which clients insist on.
pub(crate) fn stream_info(path: &StreamPath) -> proto::StreamInfo {
    proto::StreamInfo {
        scope: path.scope().to_owned(),
        stream: path.stream().to_owned(),
        access_operation: 0,
    }
}

pub(crate) fn segment_id(path: &StreamPath, id: StreamSegmentId) -> proto::SegmentId {
    proto::SegmentId { stream_info: Some(stream_info(path)), segment_id: id.to_wire() }
}

fn segment_range(path: &StreamPath, segment: &SegmentRecord) -> proto::SegmentRange {
    proto::SegmentRange {
        segment_id: Some(segment_id(path, segment.id)),
        min_key: segment.range.low,
        max_key: segment.range.high,
    }
}

pub(crate) fn ranges(path: &StreamPath, segments: &[SegmentRecord]) -> Vec<proto::SegmentRange> {
    segments.iter().map(|segment| segment_range(path, segment)).collect()
}

pub(crate) fn successors(
    path: &StreamPath,
    successors: &[Successor],
) -> Vec<proto::successor_response::SegmentEntry> {
    successors
        .iter()
        .map(|it| proto::successor_response::SegmentEntry {
            segment: Some(segment_range(path, &it.segment)),
            value: it.predecessors.iter().map(|id| id.to_wire()).collect(),
        })
        .collect()
}

pub(crate) fn transaction_id(id: TransactionId) -> proto::TxnId {
    let (high_bits, low_bits) = id.halves();
    proto::TxnId { high_bits, low_bits }
}

pub(crate) fn transaction_state(state: Option<TransactionState>) -> proto::txn_state::State {
    use proto::txn_state::State;
    match state {
        None => State::Unknown,
        Some(TransactionState::Open) => State::Open,
        Some(TransactionState::Committing) => State::Committing,
        Some(TransactionState::Committed) => State::Committed,
        Some(TransactionState::Aborting) => State::Aborting,
        Some(TransactionState::Aborted) => State::Aborted,
    }
}

/// Status of an update, a truncation or a seal.
pub(crate) fn update_status(outcome: ChangeOutcome) -> Result<proto::UpdateStreamStatus, Status> {
    use proto::update_stream_status::Status as Answer;
    let status = match outcome {
        ChangeOutcome::Done => Answer::Success,
        ChangeOutcome::NotFound => Answer::StreamNotFound,
        ChangeOutcome::ScopeNotFound => Answer::ScopeNotFound,
        ChangeOutcome::Refused(StreamRefusal::Sealed) => Answer::StreamSealed,
        ChangeOutcome::Refused(refusal @ StreamRefusal::NeedsScaling) => {
            return Err(Status::unimplemented(refusal.to_string()));
        }
        ChangeOutcome::Refused(_)
        | ChangeOutcome::BehindTheEnd
        | ChangeOutcome::Exists
        | ChangeOutcome::NotEmpty => Answer::Failure,
    };
    Ok(proto::UpdateStreamStatus { status: status.into() })
}
