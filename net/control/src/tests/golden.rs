//! Our messages against bytes that the original's encoder made.

use prost::Message;
use serde_json::Value;

use crate::proto::*;

/// Decodes and encodes again; bytes of fields that the message lacks would be lost on the way.
fn again<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).expect("decodes").encode_to_vec()
}

/// As `again`, for a message with a map: a key of 0 is written by the original and left out by us,
/// and every reader takes both.
fn again_without_zeros(bytes: &[u8]) -> Vec<u8> {
    let message = StreamCut::decode(bytes).expect("decodes");
    let written = StreamCut::decode(&*message.encode_to_vec());
    if written == Ok(message) { bytes.to_vec() } else { Vec::new() }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let byte = |pair: &[char]| {
        u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal")
    };
    digits.chunks(2).map(byte).collect()
}

fn vectors() -> Vec<Value> {
    let text = include_str!("../../tests/golden/controller-messages.json");
    let vectors: Value = serde_json::from_str(text).expect("is JSON");
    vectors["messages"].as_array().expect("a list").clone()
}

fn vector(name: &str) -> Vec<u8> {
    let vectors = vectors();
    let found = vectors.iter().find(|it| it["name"] == name).expect("is there");
    bytes_of(found["hex"].as_str().expect("text"))
}

/// Shows that every golden message is read and written back to the same bytes.
#[test]
fn golden_messages_are_written_back_to_the_same_bytes() {
    for vector in vectors() {
        let name = vector["name"].as_str().expect("text");
        let golden = bytes_of(vector["hex"].as_str().expect("text"));
        let encode = match vector["message"].as_str().expect("text") {
            "ScopeInfo" => again::<ScopeInfo>,
            "CreateScopeStatus" => again::<CreateScopeStatus>,
            "StreamConfig" => again::<StreamConfig>,
            "SegmentRanges" => again::<SegmentRanges>,
            "SegmentsAtTime" => again::<SegmentsAtTime>,
            "NodeUri" => again::<NodeUri>,
            "SuccessorResponse" => again::<SuccessorResponse>,
            "CreateTxnRequest" => again::<CreateTxnRequest>,
            "CreateTxnResponse" => again::<CreateTxnResponse>,
            "TxnRequest" => again::<TxnRequest>,
            "TxnState" => again::<TxnState>,
            "ScaleRequest" => again::<ScaleRequest>,
            "ScaleResponse" => again::<ScaleResponse>,
            "StreamCut" => again_without_zeros,
            "StreamsInScopeResponse" => again::<StreamsInScopeResponse>,
            "CreateReaderGroupResponse" => again::<CreateReaderGroupResponse>,
            "DelegationToken" => again::<DelegationToken>,
            other => panic!("no such message: {other}"),
        };
        assert_eq!(encode(&golden), golden, "{name}");
    }
}

/// Shows that fields have the meaning that the vectors give them, not just the right bytes.
#[test]
fn golden_fields_have_their_meaning() {
    let info = StreamInfo { scope: "scope".into(), stream: "stream".into(), access_operation: 0 };
    let config = StreamConfig::decode(&*vector("createStream request with policies and tags"));
    let expected = StreamConfig {
        stream_info: Some(info.clone()),
        scaling_policy: Some(ScalingPolicy {
            scale_type: scaling_policy::ScalingPolicyType::ByRateInEventsPerSec.into(),
            target_rate: 100,
            scale_factor: 2,
            min_num_segments: 3,
        }),
        retention_policy: Some(RetentionPolicy {
            retention_type: retention_policy::RetentionPolicyType::Size.into(),
            retention_param: 1 << 20,
            retention_max: i64::MAX,
        }),
        tags: Some(Tags { tag: vec!["a".into(), "b".into()] }),
        timestamp_aggregation_timeout: 60_000,
        rollover_size_bytes: 1 << 20,
    };
    assert_eq!(config, Ok(expected));
    let commit = TxnRequest::decode(&*vector("commitTransaction request"));
    let expected = TxnRequest {
        stream_info: Some(info.clone()),
        txn_id: Some(TxnId { high_bits: 1 << 32, low_bits: 42 }),
        writer_id: "1".into(),
        timestamp: 1,
    };
    assert_eq!(commit, Ok(expected));
    let cut = StreamCut::decode(&*vector("truncateStream request"));
    assert_eq!(cut, Ok(StreamCut { stream_info: Some(info), cut: [(0, 100)].into() }));
    let state = TxnState::decode(&*vector("checkTransactionState response committed"));
    assert_eq!(state.expect("decodes").state(), txn_state::State::Committed);
}
