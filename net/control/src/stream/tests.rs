//! The state machine of a stream's changes.

use super::*;
use crate::proto::scaling_policy::ScalingPolicyType;
use crate::proto::{RetentionPolicy, ScalingPolicy, StreamConfig, Tags};

fn config(count: i32) -> StreamConfig {
    StreamConfig {
        scaling_policy: Some(ScalingPolicy { min_num_segments: count, ..Default::default() }),
        ..Default::default()
    }
}

fn active(count: i32) -> StreamRecord {
    let record = StreamRecord::creating(config(count), SegmentNumber(0), 0);
    assert!(!record.is_visible());
    record.finished().expect("exists")
}

fn cut(record: &StreamRecord, offsets: &[i64]) -> StreamCut {
    record.history.segments().iter().map(|it| it.id).zip(offsets.iter().copied()).collect()
}

/// Shows the whole life: created, sealed, deleted, each visible exactly when it should be.
#[test]
fn a_stream_lives_and_ends() {
    let record = active(2);
    assert!(record.is_visible() && record.takes_transactions());
    assert_eq!(record.delete(), Err(StreamRefusal::NotSealed));
    let sealing = record.seal().expect("begins");
    assert!(sealing.is_visible() && !sealing.takes_transactions());
    let sealed = sealing.finished().expect("exists");
    assert!(sealed.is_sealed);
    assert_eq!(sealed.seal(), Err(StreamRefusal::Done));
    assert_eq!(sealed.update(config(2)), Err(StreamRefusal::Sealed));
    assert_eq!(sealed.truncate(cut(&sealed, &[1, 1])), Err(StreamRefusal::Sealed));
    let deleting = sealed.delete().expect("begins");
    assert!(!deleting.is_visible());
    assert_eq!(deleting.finished(), None);
}

/// Shows that the head moves forward only, and that odd cuts are refused.
#[test]
fn the_head_moves_forward_only() {
    let record = active(2);
    assert_eq!(record.truncate(cut(&record, &[0, 0])), Err(StreamRefusal::Done));
    let moved = record.truncate(cut(&record, &[5, 7])).expect("begins").finished().expect("exists");
    assert_eq!(moved.head(), cut(&moved, &[5, 7]));
    assert_eq!(moved.truncate(cut(&moved, &[5, 7])), Err(StreamRefusal::Done));
    assert!(moved.truncate(cut(&moved, &[5, 8])).is_ok());
    for (bad, refusal) in [
        (cut(&moved, &[4, 9]), StreamRefusal::Cut(CutError::OutOfOrder)),
        (cut(&moved, &[9]), StreamRefusal::Cut(CutError::Inconsistent)),
        (StreamCut::new(), StreamRefusal::Cut(CutError::Empty)),
    ] {
        assert_eq!(moved.truncate(bad), Err(refusal));
    }
    assert!(matches!(moved.truncate(cut(&moved, &[-1, 9])), Err(StreamRefusal::NegativeOffset(_))));
}

/// Shows that an update takes what leaves the number of segments alone, and nothing else.
#[test]
fn an_update_keeps_the_number_of_segments() {
    let record = active(3);
    let automatic = |count| {
        let mut config = config(count);
        if let Some(policy) = &mut config.scaling_policy {
            policy.scale_type = ScalingPolicyType::ByRateInEventsPerSec.into();
        }
        config
    };
    assert!(record.update(config(3)).is_ok());
    assert!(record.update(automatic(1)).is_ok());
    for refused in [config(2), config(4), automatic(4)] {
        assert_eq!(record.update(refused), Err(StreamRefusal::NeedsScaling));
    }
}

/// Shows what a configuration becomes before it is stored.
#[test]
fn configurations_are_normalized() {
    let mut given = config(1);
    given.retention_policy =
        Some(RetentionPolicy { retention_max: i64::MAX, ..Default::default() });
    given.tags = Some(Tags { tag: vec!["b".into(), "a".into(), "b".into()] });
    let stored = normalize(given).expect("valid");
    assert_eq!(stored.retention_policy, None);
    assert_eq!(stored.tags, Some(Tags { tag: vec!["a".into(), "b".into()] }));
}

/// Shows that configurations without meaning are refused.
#[test]
fn meaningless_configurations_are_refused() {
    assert_eq!(normalize(StreamConfig::default()), Err(ConfigError::NoSegments));
    for count in [0, -1, i32::MIN] {
        assert_eq!(normalize(config(count)), Err(ConfigError::NoSegments));
    }
    let tagged = |tag: Vec<String>| StreamConfig { tags: Some(Tags { tag }), ..config(1) };
    let mut scale_type = config(1);
    scale_type.scaling_policy =
        Some(ScalingPolicy { scale_type: 9, min_num_segments: 1, ..Default::default() });
    let retention = RetentionPolicy { retention_type: 7, ..Default::default() };
    for bad in [
        config(SEGMENTS_MAX + 1),
        scale_type,
        StreamConfig { rollover_size_bytes: -1, ..config(1) },
        StreamConfig { retention_policy: Some(retention), ..config(1) },
        tagged(vec![String::new()]),
        tagged(vec!["t".repeat(256)]),
        tagged((0..128).map(|tag| tag.to_string()).collect()),
    ] {
        assert!(matches!(normalize(bad.clone()), Err(ConfigError::Meaningless(_))), "{bad:?}");
    }
    assert!(normalize(tagged((0..127).map(|tag| tag.to_string()).collect())).is_ok());
}

/// Shows that a transaction is merged into the segments that carry its numbers.
#[test]
fn transactions_merge_into_their_epoch() {
    let record = active(2);
    let targets = record.merge_targets(StreamEpoch(0)).expect("is active");
    assert_eq!(targets.len(), 2);
    assert!(targets.iter().all(|(target, known)| target == known));
    assert_eq!(record.merge_targets(StreamEpoch(1)), None);
}
