//! What can keep the control plane from doing what it is asked, beside refusals, which are values
//! of each operation.

use thalweg_client::ClientError;

use crate::record::RecordError;

/// Nothing was decided: the same request may succeed later.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// The segment store does not do what it must.
    #[error("segment store: {0}")]
    Store(#[from] ClientError),
    /// Another process changed a record that only this one may change.
    #[error("record {0} was changed by another process")]
    Conflict(String),
    /// A stored record cannot be read.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// The process is ending.
    #[error("shutting down")]
    ShuttingDown,
}
