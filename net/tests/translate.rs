//! Tables of both translations: wire bytes to requests, replies and refusals to wire bytes.

use bytes::{Bytes, BytesMut};
use thalweg_core::id::{AttributeId, ContainerId, SegmentName, SessionId, WriterId};
use thalweg_core::position::Offset;
use thalweg_core::request::{FoundEntry, Refusal, Reply, Request, TableItems, VersionCondition};
use thalweg_net::translate::{Translated, reply, request};
use thalweg_net::{Close, Outbox};
use thalweg_wire::*;

const NAME: &str = "s/t/0";
const ID: i64 = 0x0123_4567_89AB_CDEF;

fn name() -> Text {
    Text::from(NAME)
}

fn token() -> Text {
    Text::new()
}

/// Sends a command through its bytes, as a client would.
fn translated(command: impl Into<Command>) -> Result<(i64, Translated), Close> {
    let mut bytes = BytesMut::new();
    command.into().encode(&mut bytes);
    let decoded = Decoder::new(FRAME_BYTES_MAX).decode(&mut bytes).expect("a command");
    request(decoded.expect("a whole command"))
}

/// The request of a command, as text: the values have no equality of their own.
fn asked(command: impl Into<Command>) -> String {
    match translated(command) {
        Ok((ID, Translated::Request(request))) => format!("{request:?}"),
        other => panic!("not a request: {other:?}"),
    }
}

fn closed(command: impl Into<Command>) {
    let result = translated(command);
    assert!(matches!(result, Err(Close::Argument { .. })), "{result:?}");
}

fn read(offset: i64, suggested_length: i32) -> ReadSegment {
    let (segment, delegation_token) = (name(), token());
    ReadSegment { segment, offset, suggested_length, delegation_token, request_id: ID }
}

fn create(segment: &str, rollover_size_bytes: i64) -> CreateSegment {
    CreateSegment {
        request_id: ID,
        segment: segment.into(),
        target_rate: 3,
        scale_type: 2,
        delegation_token: token(),
        rollover_size_bytes,
    }
}

fn create_table(segment: &str, key_length: i32) -> CreateTableSegment {
    CreateTableSegment {
        request_id: ID,
        segment: segment.into(),
        delegation_token: token(),
        sorted_deprecated: false,
        key_length,
        rollover_size_bytes: 0,
    }
}

fn update(key: &'static [u8], version: i64, table_segment_offset: i64) -> UpdateTableEntries {
    let key = TableKey { key: Bytes::from_static(key), version };
    UpdateTableEntries {
        request_id: ID,
        segment: name(),
        delegation_token: token(),
        entries: vec![TableEntry { key, value: Bytes::from_static(b"v") }],
        table_segment_offset,
    }
}

fn remove(key: &'static [u8], version: i64) -> RemoveTableKeys {
    RemoveTableKeys {
        request_id: ID,
        segment: name(),
        delegation_token: token(),
        keys: vec![TableKey { key: Bytes::from_static(key), version }],
        table_segment_offset: 7,
    }
}

fn merge(update_type: i8) -> MergeSegments {
    let update = AttributeUpdate { attribute_id: 5, update_type, new_value: 1, old_value: 2 };
    MergeSegments {
        request_id: ID,
        target: name(),
        source: Text::from("s/t/0#x"),
        delegation_token: token(),
        attribute_updates: vec![update],
    }
}

/// Reads are bounded both ways, and a negative offset is nobody's.
#[test]
fn reads_are_bounded() {
    let length = |suggested| match translated(read(4, suggested)) {
        Ok((ID, Translated::Request(Request::Read { length, offset, .. }))) => {
            assert_eq!(offset, Offset(4));
            length
        }
        other => panic!("not a read: {other:?}"),
    };
    let lengths: Vec<_> = [i32::MIN, 0, 8, 100, i32::MAX].map(length).to_vec();
    assert_eq!(lengths, [8, 8, 8, 100, 2 << 20]);
    closed(read(-1, 10));
}

/// Creations: the empty name and long fixed keys are closed, negative sizes are none.
#[test]
fn creations_are_checked() {
    assert_eq!(
        asked(create(NAME, -5)),
        "Create(Create { segment: \"s/t/0\", kind: Stream, scale_type: 2, target_rate: 3, \
         rollover_bytes: 0 })"
    );
    closed(create("", 0));
    closed(create_table("", 0));
    closed(create_table(NAME, 257));
    for (length, expected) in [(-3, 0), (0, 0), (256, 256)] {
        let kind = format!("kind: Table {{ key_length: {expected} }}");
        assert!(asked(create_table(NAME, length)).contains(&kind));
    }
}

/// Versions say a condition or are closed; an empty key is refused by name.
#[test]
fn table_conditions_are_translated() {
    for (version, expected) in [
        (i64::MIN, VersionCondition::Any),
        (-1, VersionCondition::Absent),
        (0, VersionCondition::Exactly(0)),
        (9, VersionCondition::Exactly(9)),
    ] {
        let condition = format!("condition: {expected:?}");
        assert!(asked(update(b"k", version, -1)).contains(&condition));
        assert!(asked(remove(b"k", version)).contains(&condition));
    }
    assert!(asked(update(b"k", 0, -9)).ends_with("expected_length: None }"));
    assert!(asked(update(b"k", 0, 0)).ends_with("expected_length: Some(Offset(0)) }"));
    assert!(asked(remove(b"k", 0)).ends_with("expected_length: Some(Offset(7)) }"));
    closed(update(b"k", -2, -1));
    closed(remove(b"k", -2));
    let keys = vec![TableKey { key: Bytes::new(), version: 0 }];
    let (segment, delegation_token) = (name(), token());
    let get = ReadTable { request_id: ID, segment, delegation_token, keys };
    let commands: [Command; 3] = [update(b"", 0, -1).into(), remove(b"", 0).into(), get.into()];
    for command in commands {
        let refused = translated(command);
        let Ok((ID, Translated::Refused(Refusal::IllegalArgument { segment, .. }))) = refused
        else {
            panic!("not refused: {refused:?}")
        };
        assert_eq!(segment.as_str(), NAME);
    }
}

/// The five kinds of attribute updates are told apart; a sixth closes.
#[test]
fn attribute_updates_are_translated() {
    for (number, kind) in
        ["SetIfUnset", "Replace", "ReplaceIfGreater", "Accumulate", "ReplaceIfEqual"]
            .into_iter()
            .enumerate()
    {
        let update_type = i8::try_from(number).expect("small");
        let attribute = AttributeId(5);
        let expected = format!(
            "Merge {{ target: \"s/t/0\", source: \"s/t/0#x\", attributes: [AttributeUpdate {{ \
             attribute: {attribute:?}, kind: {kind}, value: 1, expected: 2 }}] }}"
        );
        assert_eq!(asked(merge(update_type)), expected);
    }
    closed(merge(5));
    closed(merge(-1));
}

/// The remaining requests carry their fields over.
#[test]
fn plain_requests_keep_their_fields() {
    let (segment, delegation_token) = (name, token);
    let truncate = |truncation_offset| TruncateSegment {
        request_id: ID,
        segment: segment(),
        truncation_offset,
        delegation_token: delegation_token(),
    };
    assert_eq!(asked(truncate(3)), "Truncate { segment: \"s/t/0\", offset: Offset(3) }");
    closed(truncate(-1));
    let delete = DeleteTableSegment {
        request_id: ID,
        segment: segment(),
        must_be_empty: true,
        delegation_token: delegation_token(),
    };
    let table = "kind: Table { key_length: 0 }, must_be_empty: true";
    assert_eq!(asked(delete), format!("Delete {{ segment: \"s/t/0\", {table} }}"));
    let update = UpdateSegmentAttribute {
        request_id: ID,
        segment: segment(),
        attribute_id: 4,
        new_value: 1,
        expected_value: 2,
        delegation_token: delegation_token(),
    };
    assert_eq!(
        asked(update),
        "UpdateAttribute { segment: \"s/t/0\", attribute: AttributeId(4), value: 1, expected: 2 }"
    );
    let iterate = ReadTableEntries {
        request_id: ID,
        segment: segment(),
        delegation_token: delegation_token(),
        suggested_entry_count: 10,
        iteration: IterationArguments {
            continuation_token: Bytes::from_static(b"c"),
            from_key: Bytes::from_static(b"f"),
            to_key: Bytes::from_static(b"t"),
        },
    };
    assert_eq!(
        asked(iterate),
        "TableIterate { segment: \"s/t/0\", count: 10, continuation: b\"c\", from: b\"f\", \
         to: b\"t\", items: Entries }"
    );
    let locate = LocateOffset {
        request_id: ID,
        segment: segment(),
        target_offset: 0,
        delegation_token: delegation_token(),
    };
    let located = translated(locate);
    let Ok((ID, Translated::Refused(Refusal::Unsupported { operation }))) = located else {
        panic!("not refused: {located:?}")
    };
    assert_eq!(operation, "locateOffset");
}

/// What the client is sent for an answer.
fn sent(answer: Result<Reply, Refusal>) -> Command {
    let mut outbox = Outbox::default();
    reply(ID, answer, 1024, &mut outbox);
    let mut bytes = BytesMut::new();
    outbox.drain(|piece| bytes.extend_from_slice(&piece));
    let command = Decoder::new(FRAME_BYTES_MAX).decode(&mut bytes).expect("a command");
    assert!(bytes.is_empty(), "one answer to one request");
    command.expect("a whole command")
}

/// Each refusal has its own error reply, with the request's id and an empty stack trace.
#[test]
fn refusals_have_their_error_replies() {
    let segment = SegmentName::from(NAME);
    let (request_id, server_stack_trace) = (ID, Text::new());
    let writer = WriterId(6);
    let cases: [(Refusal, Command); 12] = [
        (
            Refusal::NoSuchSegment { segment: segment.clone(), offset: 4 },
            NoSuchSegment { request_id, segment: name(), server_stack_trace: token(), offset: 4 }
                .into(),
        ),
        (
            Refusal::SegmentExists { segment: segment.clone() },
            SegmentAlreadyExists { request_id, segment: name(), server_stack_trace: token() }
                .into(),
        ),
        (
            Refusal::SegmentSealed { segment: segment.clone(), offset: -1 },
            SegmentIsSealed {
                request_id,
                segment: name(),
                server_stack_trace: token(),
                offset: -1,
            }
            .into(),
        ),
        (
            Refusal::SegmentTruncated {
                segment: segment.clone(),
                start_offset: Offset(8),
                offset: 3,
            },
            SegmentIsTruncated {
                request_id,
                segment: name(),
                start_offset: 8,
                server_stack_trace: token(),
                offset: 3,
            }
            .into(),
        ),
        (
            Refusal::ConditionalCheckFailed { writer, event_number: 2 },
            ConditionalCheckFailed { writer_id: 6, event_number: 2, request_id }.into(),
        ),
        (
            Refusal::InvalidEventNumber { writer, event_number: 2 },
            InvalidEventNumber { writer_id: 6, request_id, server_stack_trace, event_number: 2 }
                .into(),
        ),
        (
            Refusal::WrongContainer { segment: segment.clone() },
            WrongHost {
                request_id,
                segment: name(),
                correct_host: Text::new(),
                server_stack_trace: token(),
            }
            .into(),
        ),
        (
            Refusal::TableNotEmpty { segment: segment.clone() },
            TableSegmentNotEmpty { request_id, segment: name(), server_stack_trace: token() }
                .into(),
        ),
        (
            Refusal::KeyDoesNotExist { segment: segment.clone() },
            TableKeyDoesNotExist { request_id, segment: name(), server_stack_trace: token() }
                .into(),
        ),
        (
            Refusal::BadKeyVersion { segment: segment.clone() },
            TableKeyBadVersion { request_id, segment: name(), server_stack_trace: token() }.into(),
        ),
        (
            Refusal::Unsupported { operation: "deleteTableSegment" },
            OperationUnsupported {
                request_id,
                operation_name: Text::from("deleteTableSegment"),
                server_stack_trace: token(),
            }
            .into(),
        ),
        (
            Refusal::IllegalArgument { segment, message: "why".to_owned() },
            ErrorMessage { request_id, segment: name(), message: Text::from("why"), error_code: 0 }
                .into(),
        ),
    ];
    for (refusal, expected) in cases {
        assert_eq!(sent(Err(refusal)), expected);
    }
}

/// Replies keep every field, keys and entries in their order.
#[test]
fn replies_keep_their_fields() {
    let segment = SegmentName::from(NAME);
    let found = |key: &'static [u8], version| FoundEntry {
        key: Bytes::from_static(key),
        value: Bytes::from_static(b"v"),
        version,
    };
    let entries = vec![found(b"a", 0), found(b"b", -1)];
    let wire_entry = |key: &'static [u8], version| TableEntry {
        key: TableKey { key: Bytes::from_static(key), version },
        value: Bytes::from_static(b"v"),
    };
    let wire_entries = vec![wire_entry(b"a", 0), wire_entry(b"b", -1)];
    let (request_id, continuation_token) = (ID, Bytes::from_static(b"c"));
    let page = |items| Reply::TablePage {
        segment: segment.clone(),
        items,
        entries: entries.clone(),
        continuation: Bytes::from_static(b"c"),
    };
    let keys = wire_entries.iter().map(|entry| entry.key.clone()).collect();
    let session = SessionId(1);
    let set_up = Reply::AppendSetup {
        session,
        container: ContainerId(0),
        segment: segment.clone(),
        writer: WriterId(6),
        last_event_number: i64::MIN,
    };
    let cases: [(Reply, Command); 7] = [
        (
            set_up,
            AppendSetup {
                request_id,
                segment: name(),
                writer_id: 6,
                last_event_number: NO_EVENT_NUMBER,
            }
            .into(),
        ),
        (
            Reply::Info {
                segment: segment.clone(),
                is_sealed: true,
                last_modified: 5,
                length: Offset(9),
                start_offset: Offset(2),
            },
            StreamSegmentInfo {
                request_id,
                segment: name(),
                exists: true,
                is_sealed: true,
                is_deleted: false,
                last_modified: 5,
                write_offset: 9,
                start_offset: 2,
            }
            .into(),
        ),
        (
            Reply::BatchMerged {
                target: segment.clone(),
                sources: vec![(segment.clone(), Offset(4))],
            },
            SegmentsBatchMerged {
                request_id,
                target: name(),
                merged: vec![MergedSource { source: name(), new_target_write_offset: 4 }],
            }
            .into(),
        ),
        (
            Reply::AttributeUpdated { is_updated: false },
            SegmentAttributeUpdated { request_id, success: false }.into(),
        ),
        (
            page(TableItems::Keys),
            TableKeysRead {
                request_id,
                segment: name(),
                keys,
                continuation_token: continuation_token.clone(),
            }
            .into(),
        ),
        (
            page(TableItems::Entries),
            TableEntriesRead {
                request_id,
                segment: name(),
                entries: wire_entries.clone(),
                continuation_token,
            }
            .into(),
        ),
        (
            Reply::TableDelta {
                segment: segment.clone(),
                entries,
                should_clear: true,
                reached_end: false,
                last_position: 7,
            },
            TableEntriesDeltaRead {
                request_id,
                segment: name(),
                entries: wire_entries,
                should_clear: true,
                reached_end: false,
                last_position: 7,
            }
            .into(),
        ),
    ];
    for (reply, expected) in cases {
        assert_eq!(sent(Ok(reply)), expected);
    }
}

/// A reply that no client could receive is refused instead of sent.
#[test]
fn a_reply_over_the_frame_limit_is_refused() {
    let value = Bytes::from(vec![0; 1 << 20]);
    let entry = FoundEntry { key: Bytes::from_static(b"k"), value, version: 1 };
    let entries = vec![entry; 17];
    let refused = sent(Ok(Reply::TableRead { segment: SegmentName::from(NAME), entries }));
    assert!(matches!(refused, Command::ErrorMessage(ErrorMessage { error_code: 0, .. })));
}
