//! Short words for the commands of the table of forms: requests and the replies they expect, each
//! with every field. All requests of a form carry the same id, as those of a stock client's flow
//! do.

use bytes::Bytes;
use thalweg_crash::store::none;
use thalweg_wire::*;

mod table;

pub(crate) use table::*;

/// A request id in which no two bytes are equal.
pub(crate) const ID: i64 = -0x0123_4567_89AB_CDF0;
/// A writer.
pub(crate) const ANNA: u128 = 0xA_0000_0000_0000_0001;
/// Another.
pub(crate) const BERT: u128 = 0xB_0000_0000_0000_0002;
/// The value of what was never set; the number of a writer that never wrote.
pub(crate) const UNSET: i64 = NULL_ATTRIBUTE_VALUE;
/// Code of an [`ErrorMessage`] about an argument.
const ILLEGAL_ARGUMENT: i32 = 0;

fn bytes(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}

// Appends.

pub(crate) fn set_up(segment: &str, writer_id: u128) -> Command {
    let segment = segment.into();
    SetupAppend { request_id: ID, writer_id, segment, delegation_token: none() }.into()
}

pub(crate) fn is_set_up(segment: &str, writer_id: u128, last_event_number: i64) -> Command {
    AppendSetup { request_id: ID, segment: segment.into(), writer_id, last_event_number }.into()
}

/// Whole events, without a block before them.
pub(crate) fn append(writer_id: u128, data: &[u8], event_count: i32, last: i64) -> Command {
    let whole = i32::try_from(data.len()).expect("below 16 MiB");
    end(writer_id, whole, data, event_count, last)
}

/// The end of a block, or an append by itself.
pub(crate) fn end(
    writer_id: u128,
    size_of_whole_events: i32,
    data: &[u8],
    event_count: i32,
    last_event_number: i64,
) -> Command {
    AppendBlockEnd {
        writer_id,
        size_of_whole_events,
        data: bytes(data),
        event_count,
        last_event_number,
        request_id: ID,
    }
    .into()
}

pub(crate) fn block(writer_id: u128, data: &[u8]) -> Command {
    AppendBlock { writer_id, data: bytes(data) }.into()
}

/// One event on the condition of a length.
pub(crate) fn append_if(writer_id: u128, number: i64, offset: i64, payload: &[u8]) -> Command {
    ConditionalAppend {
        writer_id,
        event_number: number,
        expected_offset: offset,
        event: FramedEvent::new(payload),
        request_id: ID,
    }
    .into()
}

/// Bytes on the condition of a length.
pub(crate) fn block_if(writer_id: u128, number: i64, offset: i64, data: &[u8]) -> Command {
    ConditionalBlockEnd {
        writer_id,
        event_number: number,
        expected_offset: offset,
        data: bytes(data),
        request_id: ID,
    }
    .into()
}

pub(crate) fn appended(writer_id: u128, number: i64, previous: i64, length: i64) -> Command {
    DataAppended {
        writer_id,
        event_number: number,
        previous_event_number: previous,
        request_id: ID,
        current_segment_write_offset: length,
    }
    .into()
}

pub(crate) fn check_failed(writer_id: u128, event_number: i64) -> Command {
    ConditionalCheckFailed { writer_id, event_number, request_id: ID }.into()
}

pub(crate) fn invalid_number(writer_id: u128, event_number: i64) -> Command {
    let server_stack_trace = none();
    InvalidEventNumber { writer_id, request_id: ID, server_stack_trace, event_number }.into()
}

// Segments.

pub(crate) fn read(segment: &str, offset: i64, suggested_length: i32) -> Command {
    ReadSegment {
        segment: segment.into(),
        offset,
        suggested_length,
        delegation_token: none(),
        request_id: ID,
    }
    .into()
}

/// What a reply to a read says of the end.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Before,
    Tail,
    Final,
}

pub(crate) fn is_read(segment: &str, offset: i64, data: &[u8], end: End) -> Command {
    SegmentRead {
        segment: segment.into(),
        offset,
        at_tail: matches!(end, End::Tail),
        end_of_segment: matches!(end, End::Final),
        data: bytes(data),
        request_id: ID,
    }
    .into()
}

pub(crate) fn info(segment: &str) -> Command {
    let segment = segment.into();
    GetStreamSegmentInfo { request_id: ID, segment, delegation_token: none() }.into()
}

/// Facts of a segment; the time of the last change is compared apart.
pub(crate) fn is_info(segment: &str, is_sealed: bool, length: i64, start_offset: i64) -> Command {
    StreamSegmentInfo {
        request_id: ID,
        segment: segment.into(),
        exists: true,
        is_sealed,
        is_deleted: false,
        last_modified: 0,
        write_offset: length,
        start_offset,
    }
    .into()
}

pub(crate) fn create(segment: &str) -> Command {
    create_with(segment, 0, 0, 0)
}

pub(crate) fn create_with(
    segment: &str,
    target_rate: i32,
    scale_type: i8,
    rollover_size_bytes: i64,
) -> Command {
    CreateSegment {
        request_id: ID,
        segment: segment.into(),
        target_rate,
        scale_type,
        delegation_token: none(),
        rollover_size_bytes,
    }
    .into()
}

pub(crate) fn create_transient(parent: &str, writer_id: u128) -> Command {
    let parent_segment = parent.into();
    CreateTransientSegment { request_id: ID, writer_id, parent_segment, delegation_token: none() }
        .into()
}

pub(crate) fn is_created(segment: &str) -> Command {
    SegmentCreated { request_id: ID, segment: segment.into() }.into()
}

pub(crate) fn seal(segment: &str) -> Command {
    SealSegment { request_id: ID, segment: segment.into(), delegation_token: none() }.into()
}

pub(crate) fn is_sealed(segment: &str) -> Command {
    SegmentSealed { request_id: ID, segment: segment.into() }.into()
}

pub(crate) fn truncate(segment: &str, truncation_offset: i64) -> Command {
    let segment = segment.into();
    TruncateSegment { request_id: ID, segment, truncation_offset, delegation_token: none() }.into()
}

pub(crate) fn is_truncated(segment: &str) -> Command {
    SegmentTruncated { request_id: ID, segment: segment.into() }.into()
}

pub(crate) fn delete(segment: &str) -> Command {
    DeleteSegment { request_id: ID, segment: segment.into(), delegation_token: none() }.into()
}

pub(crate) fn is_deleted(segment: &str) -> Command {
    SegmentDeleted { request_id: ID, segment: segment.into() }.into()
}

pub(crate) fn update_policy(segment: &str, target_rate: i32, scale_type: i8) -> Command {
    let segment = segment.into();
    let delegation_token = none();
    UpdateSegmentPolicy { request_id: ID, segment, target_rate, scale_type, delegation_token }
        .into()
}

pub(crate) fn is_policy_updated(segment: &str) -> Command {
    SegmentPolicyUpdated { request_id: ID, segment: segment.into() }.into()
}

pub(crate) fn attribute(segment: &str, attribute_id: u128) -> Command {
    let segment = segment.into();
    GetSegmentAttribute { request_id: ID, segment, attribute_id, delegation_token: none() }.into()
}

pub(crate) fn is_attribute(value: i64) -> Command {
    SegmentAttribute { request_id: ID, value }.into()
}

pub(crate) fn update_attribute(
    segment: &str,
    attribute_id: u128,
    new_value: i64,
    expected_value: i64,
) -> Command {
    UpdateSegmentAttribute {
        request_id: ID,
        segment: segment.into(),
        attribute_id,
        new_value,
        expected_value,
        delegation_token: none(),
    }
    .into()
}

pub(crate) fn is_attribute_updated(success: bool) -> Command {
    SegmentAttributeUpdated { request_id: ID, success }.into()
}

pub(crate) fn locate(segment: &str, target_offset: i64) -> Command {
    let segment = segment.into();
    LocateOffset { request_id: ID, segment, target_offset, delegation_token: none() }.into()
}

pub(crate) fn merge(target: &str, source: &str) -> Command {
    merge_with(target, source, &[])
}

/// Attribute updates as (attribute, update type, new value, old value).
pub(crate) fn merge_with(target: &str, source: &str, updates: &[(u128, i8, i64, i64)]) -> Command {
    let update = |it: &(u128, i8, i64, i64)| AttributeUpdate {
        attribute_id: it.0,
        update_type: it.1,
        new_value: it.2,
        old_value: it.3,
    };
    MergeSegments {
        request_id: ID,
        target: target.into(),
        source: source.into(),
        delegation_token: none(),
        attribute_updates: updates.iter().map(update).collect(),
    }
    .into()
}

pub(crate) fn is_merged(target: &str, source: &str, new_target_write_offset: i64) -> Command {
    let (target, source) = (target.into(), source.into());
    SegmentsMerged { request_id: ID, target, source, new_target_write_offset }.into()
}

pub(crate) fn merge_batch(target: &str, sources: &[&str]) -> Command {
    let sources = sources.iter().map(|source| (*source).into()).collect();
    let target = target.into();
    MergeSegmentsBatch { request_id: ID, target, sources, delegation_token: none() }.into()
}

pub(crate) fn is_batch_merged(target: &str, merged: &[(&str, i64)]) -> Command {
    let one = |(source, length): &(&str, i64)| MergedSource {
        source: (*source).into(),
        new_target_write_offset: *length,
    };
    let merged = merged.iter().map(one).collect();
    SegmentsBatchMerged { request_id: ID, target: target.into(), merged }.into()
}

// Refusals.

pub(crate) fn missing(segment: &str) -> Command {
    missing_at(segment, -1)
}

pub(crate) fn missing_at(segment: &str, offset: i64) -> Command {
    let segment = segment.into();
    NoSuchSegment { request_id: ID, segment, server_stack_trace: none(), offset }.into()
}

pub(crate) fn exists(segment: &str) -> Command {
    let segment = segment.into();
    SegmentAlreadyExists { request_id: ID, segment, server_stack_trace: none() }.into()
}

pub(crate) fn sealed(segment: &str) -> Command {
    sealed_at(segment, -1)
}

pub(crate) fn sealed_at(segment: &str, offset: i64) -> Command {
    let segment = segment.into();
    SegmentIsSealed { request_id: ID, segment, server_stack_trace: none(), offset }.into()
}

pub(crate) fn truncated(segment: &str, start_offset: i64, offset: i64) -> Command {
    SegmentIsTruncated {
        request_id: ID,
        segment: segment.into(),
        start_offset,
        server_stack_trace: none(),
        offset,
    }
    .into()
}

pub(crate) fn unsupported(operation: &str) -> Command {
    let operation_name = operation.into();
    OperationUnsupported { request_id: ID, operation_name, server_stack_trace: none() }.into()
}

pub(crate) fn illegal(segment: &str, message: &str) -> Command {
    ErrorMessage {
        request_id: ID,
        segment: segment.into(),
        message: message.into(),
        error_code: ILLEGAL_ARGUMENT,
    }
    .into()
}

pub(crate) fn not_empty(segment: &str) -> Command {
    let segment = segment.into();
    TableSegmentNotEmpty { request_id: ID, segment, server_stack_trace: none() }.into()
}

pub(crate) fn no_key(segment: &str) -> Command {
    let segment = segment.into();
    TableKeyDoesNotExist { request_id: ID, segment, server_stack_trace: none() }.into()
}

pub(crate) fn bad_version(segment: &str) -> Command {
    let segment = segment.into();
    TableKeyBadVersion { request_id: ID, segment, server_stack_trace: none() }.into()
}

pub(crate) fn wrong_host(segment: &str) -> Command {
    WrongHost {
        request_id: ID,
        segment: segment.into(),
        correct_host: none(),
        server_stack_trace: none(),
    }
    .into()
}
