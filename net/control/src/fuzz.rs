//! What fuzz targets may reach of this crate: hostile messages and records into the pure rules.
//! Compiled only with the feature `fuzz`.

use bytes::Bytes;
use prost::Message;

use crate::cut;
use crate::id::{SegmentNumber, StreamSegmentId, TransactionId};
use crate::names::{NAME_BYTES_MAX, StreamPath, is_valid_name};
use crate::proto::*;
use crate::record::{self, StoredCount, StoredOutcome, StoredScope, StoredTransaction};
use crate::stream::{self, Change, SEGMENTS_MAX, StreamRecord};
use crate::transaction::is_valid_lease;

fn round_trip<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let written = message.encode_to_vec();
    let again = M::decode(written.as_slice()).expect("what was encoded decodes");
    // A NaN is not equal to itself; its bytes are.
    assert_eq!(again.encode_to_vec(), written);
    Some(message)
}

fn named(info: Option<StreamInfo>) {
    let Some(info) = info else { return };
    if is_valid_name(&info.scope) && is_valid_name(&info.stream) {
        assert!(info.stream.len() <= NAME_BYTES_MAX);
        let path = StreamPath::new(&info.scope, &info.stream);
        assert_eq!(StreamPath::parse(&path.to_string()).as_ref(), Some(&path));
    }
    let _ = StreamPath::parse(&info.stream);
}

/// A stream of two segments.
fn sample() -> StreamRecord {
    let config = StreamConfig {
        scaling_policy: Some(ScalingPolicy { min_num_segments: 2, ..Default::default() }),
        ..Default::default()
    };
    let created = StreamRecord::creating(config, SegmentNumber(0), 1);
    created.finished().expect("a creation ends in a stream")
}

fn cut_at(map: &std::collections::BTreeMap<i64, i64>) {
    let Some(cut) = cut::from_wire(map) else { return };
    assert_eq!(&cut::to_wire(&cut), map);
    let stream = sample();
    if cut::check(&stream.history, &cut).is_ok() {
        let tail = cut::tail(&stream.history);
        assert!(cut::check_order(&stream.history, &cut, &tail).is_ok());
        assert!(cut::between(&stream.history, &cut, &tail).is_ok());
    }
    if let Ok(truncating) = stream.truncate(cut) {
        stored(&truncating);
        let finished = truncating.finished().expect("a truncation ends");
        assert!(finished.head().values().all(|offset| *offset >= 0));
    }
}

fn stored(record: &StreamRecord) {
    let bytes = record::encode_stream(record);
    let read = record::decode_stream(&bytes).expect("what we wrote");
    assert_eq!(record::encode_stream(&read), bytes);
}

fn config(given: StreamConfig) {
    named(given.stream_info.clone());
    let Ok(normal) = stream::normalize(given) else { return };
    let count = normal.scaling_policy.as_ref().map_or(0, |policy| policy.min_num_segments);
    assert!((1..=SEGMENTS_MAX).contains(&count));
    assert_eq!(stream::normalize(normal.clone()).as_ref(), Ok(&normal), "a normal form is normal");
    let updated = sample().update(normal.clone());
    updated.iter().for_each(stored);
    if count <= 100 {
        stored(&StreamRecord::creating(normal, SegmentNumber(0), 1));
    }
}

/// Seeds for [`message()`].
pub fn message_seeds() -> Vec<Vec<u8>> {
    let info = StreamInfo { scope: "scope".into(), stream: "stream".into(), access_operation: 0 };
    let stream_config = StreamConfig {
        stream_info: Some(info.clone()),
        scaling_policy: Some(ScalingPolicy { min_num_segments: 3, ..Default::default() }),
        retention_policy: Some(RetentionPolicy { retention_max: 5, ..Default::default() }),
        tags: Some(Tags { tag: vec!["b".into(), "a".into()] }),
        ..Default::default()
    };
    let stream_cut = StreamCut { stream_info: Some(info.clone()), cut: [(0, 10), (1, 0)].into() };
    let id = SegmentId { stream_info: Some(info.clone()), segment_id: 1 };
    let request =
        CreateTxnRequest { stream_info: Some(info.clone()), lease: 1000, ..Default::default() };
    let bodies = [
        stream_config.encode_to_vec(),
        stream_cut.encode_to_vec(),
        info.encode_to_vec(),
        id.encode_to_vec(),
        request.encode_to_vec(),
    ];
    (0_u8..).zip(bodies).map(|(kind, body)| [vec![kind], body].concat()).collect()
}

/// Bytes of a message behind a byte that says which: what decodes is written back the same, and the
/// rules answer.
pub fn message(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 9 {
        0 => round_trip::<StreamConfig>(bytes).into_iter().for_each(config),
        1 => {
            let Some(found) = round_trip::<StreamCut>(bytes) else { return };
            named(found.stream_info);
            cut_at(&found.cut.into_iter().collect());
        }
        2 => named(round_trip::<StreamInfo>(bytes)),
        3 => {
            let Some(found) = round_trip::<SegmentId>(bytes) else { return };
            if let Some(id) = StreamSegmentId::from_wire(found.segment_id) {
                assert_eq!(id.to_wire(), found.segment_id);
                let _ = sample().history.successors(id);
            }
        }
        4 => {
            let Some(found) = round_trip::<CreateTxnRequest>(bytes) else { return };
            named(found.stream_info);
            let _ = is_valid_lease(found.lease);
        }
        5 => {
            let Some(found) = round_trip::<TxnRequest>(bytes) else { return };
            named(found.stream_info);
            if let Some(id) = found.txn_id {
                let id = TransactionId::from_halves(id.high_bits, id.low_bits);
                assert_eq!(TransactionId::from_halves(id.halves().0, id.halves().1), id);
            }
        }
        6 => drop(round_trip::<ScaleRequest>(bytes)),
        7 => {
            let Some(range) = round_trip::<StreamCutRange>(bytes) else { return };
            cut_at(&range.from.into_iter().collect());
            cut_at(&range.to.into_iter().collect());
        }
        _ => {
            let _ = std::str::from_utf8(bytes).map(TransactionId::from_hex);
            drop(round_trip::<ScopeInfo>(bytes));
        }
    }
}

/// Seeds for [`record()`].
pub fn record_seeds() -> Vec<Vec<u8>> {
    let stream = sample();
    let cut = [(0, 5), (1, 7)].into();
    let cut = cut::from_wire(&cut).expect("these segments may exist");
    let truncating = StreamRecord { change: Some(Change::Truncate(cut)), ..stream.clone() };
    [stream, truncating]
        .iter()
        .map(|record| [&[0], &record::encode_stream(record)[..]].concat())
        .chain([vec![1, 1, 8, 2], vec![2, 1, 8, 200, 1], vec![3, 1, 8, 1, 16, 5]])
        .collect()
}

/// Bytes of a record behind a byte that says which: what reads is written back as a record that
/// reads the same.
pub fn record(input: &[u8]) {
    fn again<M: Message + Default>(bytes: &Bytes) {
        if let Ok(message) = record::decode::<M>(bytes) {
            let written = record::encode(&message);
            let read: M = record::decode(&written).expect("what we wrote");
            assert_eq!(record::encode(&read), written);
        }
    }
    let Some((kind, bytes)) = input.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    match kind % 5 {
        0 => {
            let Ok(read) = record::decode_stream(&bytes) else { return };
            stored(&read);
            let _ = (read.head(), read.finished());
            if read.change.is_none() {
                let _ = (read.seal(), read.delete());
            }
            let first = read.history.segments()[0].id;
            let _ = read.history.successors(first);
            let _ = cut::check(&read.history, &cut::tail(&read.history));
        }
        1 => again::<StoredScope>(&bytes),
        2 => again::<StoredCount>(&bytes),
        3 => again::<StoredTransaction>(&bytes),
        _ => again::<StoredOutcome>(&bytes),
    }
}
