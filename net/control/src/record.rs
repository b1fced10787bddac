//! What the control plane writes into its tables: one byte of version, then a protobuf message of
//! our own. Pure.
//!
//! Unknown versions and bytes that do not decode are errors, never guesses. Fields are added with
//! new numbers; a change of meaning is a new version.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::cut;
use crate::epoch::{EpochRecord, History, SegmentRecord};
use crate::id::{StreamEpoch, StreamSegmentId};
use crate::proto;
use crate::range::KeyRange;
use crate::stream::{Change, StreamRecord};

const VERSION: u8 = 1;

/// Stored bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored record of the control plane does not decode")]
pub(crate) struct RecordError;

/// Writes a message with its version.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + message.encoded_len());
    out.put_u8(VERSION);
    message.encode(&mut out).expect("the buffer grows");
    out.freeze()
}

/// Reads a message with its version.
///
/// # Errors
/// [`RecordError`].
pub(crate) fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, RecordError> {
    match bytes.first() {
        Some(&VERSION) => M::decode(bytes.slice(1..)).map_err(|_| RecordError),
        _ => Err(RecordError),
    }
}

/// A scope.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredScope {
    /// What is being done to it.
    #[prost(enumeration = "ScopeChange", tag = "1")]
    pub(crate) change: i32,
    /// When it was created, in milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) created_ms: i64,
}

/// What is being done to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ScopeChange {
    /// Nothing.
    None = 0,
    /// Its table is being created.
    Create = 1,
    /// Its table is being deleted.
    Delete = 2,
}

/// A count: of segments ever used by a stream name, of transaction ids given out.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredCount {
    /// The next one to use.
    #[prost(uint64, tag = "1")]
    pub(crate) next: u64,
}

/// A transaction that is not completed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredTransaction {
    /// Where it stands.
    #[prost(enumeration = "LiveState", tag = "1")]
    pub(crate) state: i32,
    /// When it was made, in milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) created_ms: i64,
    /// The lease it was made with.
    #[prost(int64, tag = "3")]
    pub(crate) lease_ms: i64,
    /// Its place among the commits of the stream, when committing.
    #[prost(uint64, tag = "4")]
    pub(crate) order: u64,
    /// Who committed, as told.
    #[prost(string, tag = "5")]
    pub(crate) writer: String,
    /// The writer's time of the commit, as told.
    #[prost(int64, tag = "6")]
    pub(crate) timestamp: i64,
}

/// State of a transaction that is not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum LiveState {
    /// Takes writes.
    Open = 0,
    /// Will be committed.
    Committing = 1,
    /// Will be dropped.
    Aborting = 2,
}

/// A transaction that is completed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredOutcome {
    /// Committed, else aborted.
    #[prost(bool, tag = "1")]
    pub(crate) is_committed: bool,
    /// When, in milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) completed_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredStream {
    #[prost(message, optional, tag = "1")]
    config: Option<proto::StreamConfig>,
    #[prost(message, repeated, tag = "2")]
    epochs: Vec<StoredEpoch>,
    #[prost(btree_map = "int64, int64", tag = "3")]
    head: BTreeMap<i64, i64>,
    #[prost(bool, tag = "4")]
    is_sealed: bool,
    #[prost(enumeration = "StoredChange", tag = "5")]
    change: i32,
    /// Of a truncation under way.
    #[prost(btree_map = "int64, int64", tag = "6")]
    cut: BTreeMap<i64, i64>,
    #[prost(int64, tag = "7")]
    created_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum StoredChange {
    None = 0,
    Create = 1,
    Truncate = 2,
    Seal = 3,
    Delete = 4,
}

#[derive(Clone, PartialEq, Message)]
struct StoredEpoch {
    #[prost(uint32, tag = "1")]
    reference: u32,
    #[prost(int64, tag = "2")]
    created_ms: i64,
    /// Parallel lists, one item per segment.
    #[prost(int64, repeated, tag = "3")]
    ids: Vec<i64>,
    /// One more than there are segments: each range ends where the next begins.
    #[prost(double, repeated, tag = "4")]
    bounds: Vec<f64>,
}

/// Writes a stream.
pub(crate) fn encode_stream(record: &StreamRecord) -> Bytes {
    let (change, cut) = match &record.change {
        None => (StoredChange::None, None),
        Some(Change::Create) => (StoredChange::Create, None),
        Some(Change::Truncate(cut)) => (StoredChange::Truncate, Some(cut)),
        Some(Change::Seal) => (StoredChange::Seal, None),
        Some(Change::Delete) => (StoredChange::Delete, None),
    };
    encode(&StoredStream {
        config: Some(record.config.clone()),
        epochs: record.history.epochs().iter().map(store_epoch).collect(),
        head: record.head.as_ref().map(cut::to_wire).unwrap_or_default(),
        is_sealed: record.is_sealed,
        change: change.into(),
        cut: cut.map(cut::to_wire).unwrap_or_default(),
        created_ms: record.created_ms,
    })
}

/// Reads a stream.
///
/// # Errors
/// [`RecordError`].
pub(crate) fn decode_stream(bytes: &Bytes) -> Result<StreamRecord, RecordError> {
    let stored: StoredStream = decode(bytes)?;
    let change = match StoredChange::try_from(stored.change).map_err(|_| RecordError)? {
        StoredChange::None => None,
        StoredChange::Create => Some(Change::Create),
        StoredChange::Truncate => {
            Some(Change::Truncate(cut::from_wire(&stored.cut).ok_or(RecordError)?))
        }
        StoredChange::Seal => Some(Change::Seal),
        StoredChange::Delete => Some(Change::Delete),
    };
    let epochs: Option<Vec<EpochRecord>> = stored
        .epochs
        .into_iter()
        .zip(0..)
        .map(|(epoch, number)| load_epoch(epoch, number))
        .collect();
    let head = cut::from_wire(&stored.head).ok_or(RecordError)?;
    Ok(StreamRecord {
        config: stored.config.ok_or(RecordError)?,
        history: epochs.and_then(History::from_epochs).ok_or(RecordError)?,
        head: (!head.is_empty()).then_some(head),
        is_sealed: stored.is_sealed,
        change,
        created_ms: stored.created_ms,
    })
}

fn store_epoch(epoch: &EpochRecord) -> StoredEpoch {
    let highs = epoch.segments.iter().map(|segment| segment.range.high);
    StoredEpoch {
        reference: epoch.reference.0,
        created_ms: epoch.created_ms,
        ids: epoch.segments.iter().map(|segment| segment.id.to_wire()).collect(),
        bounds: std::iter::once(0.0).chain(highs).collect(),
    }
}

fn load_epoch(stored: StoredEpoch, number: u32) -> Option<EpochRecord> {
    if stored.ids.is_empty() || stored.bounds.len() != stored.ids.len() + 1 {
        return None;
    }
    let ranges = stored.bounds.windows(2).map(|pair| KeyRange { low: pair[0], high: pair[1] });
    let ids = stored.ids.iter().map(|id| StreamSegmentId::from_wire(*id));
    let segments: Option<Vec<SegmentRecord>> =
        ids.zip(ranges).map(|(id, range)| Some(SegmentRecord { id: id?, range })).collect();
    Some(EpochRecord {
        epoch: StreamEpoch(number),
        reference: StreamEpoch(stored.reference),
        segments: segments?,
        created_ms: stored.created_ms,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch::tests::histories;

    proptest! {
        /// Shows that a stream is read as it was written, whatever is being done to it.
        #[test]
        fn streams_are_read_as_written(history in histories(), kind in 0..5, is_sealed: bool) {
            let change = match kind {
                0 => None,
                1 => Some(Change::Create),
                2 => Some(Change::Truncate(cut::origin(&history))),
                3 => Some(Change::Seal),
                _ => Some(Change::Delete),
            };
            let head = is_sealed.then(|| cut::origin(&history));
            let config = proto::StreamConfig::default();
            let record =
                StreamRecord { config, history, head, is_sealed, change, created_ms: 77 };
            prop_assert_eq!(decode_stream(&encode_stream(&record)), Ok(record));
        }

        /// Shows that any bytes are a record or an error.
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
            let _ = decode_stream(&Bytes::from([vec![VERSION], bytes].concat()));
        }
    }

    /// Shows that another version and no bytes at all are errors.
    #[test]
    fn other_versions_are_errors() {
        assert_eq!(decode::<StoredCount>(&Bytes::new()), Err(RecordError));
        assert_eq!(decode::<StoredCount>(&Bytes::from_static(&[2, 8, 1])), Err(RecordError));
        assert_eq!(decode(&Bytes::from_static(&[1, 8, 1])), Ok(StoredCount { next: 1 }));
    }
}
