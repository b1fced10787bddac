//! From replies and refusals to wire commands.
//!
//! Every field is written, also the optional ones, because one family of clients knows no optional
//! fields. Stack traces are empty. Data of a read leave as the slices they are.

use bytes::Bytes;
use thalweg_core::id::SegmentName;
use thalweg_core::request::{FoundEntry, Refusal, Reply, TableItems};
use thalweg_wire::{
    AppendSetup, ConditionalCheckFailed, ErrorMessage, FRAME_BYTES_MAX, InvalidEventNumber,
    MergedSource, Message, NoSuchSegment, OperationUnsupported, SegmentAlreadyExists,
    SegmentAttribute, SegmentAttributeUpdated, SegmentCreated, SegmentDeleted, SegmentIsSealed,
    SegmentIsTruncated, SegmentPolicyUpdated, SegmentReadHead, SegmentReadTail, SegmentSealed,
    SegmentTruncated, SegmentsBatchMerged, SegmentsMerged, StreamSegmentInfo,
    TableEntriesDeltaRead, TableEntriesRead, TableEntriesUpdated, TableEntry, TableKey,
    TableKeyBadVersion, TableKeyDoesNotExist, TableKeysRead, TableKeysRemoved, TableRead,
    TableSegmentInfo, TableSegmentNotEmpty, Text, WrongHost,
};

use super::signed;
use crate::outbox::Outbox;

/// Code of an [`ErrorMessage`] about an argument.
const ILLEGAL_ARGUMENT: i32 = 0;

/// Queues the answer to request `request_id`. Slices up to `inline_bytes_max` are copied, larger
/// ones are sent from where they lie.
pub fn reply(
    request_id: i64,
    reply: Result<Reply, Refusal>,
    inline_bytes_max: usize,
    outbox: &mut Outbox,
) {
    match reply {
        Ok(reply) => done(request_id, reply, inline_bytes_max, outbox),
        Err(refusal) => refused(request_id, refusal, outbox),
    }
}

fn done(request_id: i64, reply: Reply, inline_bytes_max: usize, outbox: &mut Outbox) {
    match reply {
        Reply::AppendSetup { segment, writer, last_event_number, .. } => {
            let (segment, writer_id) = (text(&segment), writer.0);
            outbox.put(&AppendSetup { request_id, segment, writer_id, last_event_number });
        }
        Reply::Read { segment, offset, data, at_tail, end_of_segment } => {
            let head = SegmentReadHead {
                segment: text(&segment),
                offset: signed(offset),
                at_tail,
                end_of_segment,
                data_length: data.iter().map(Bytes::len).sum(),
            };
            read(&head, data, request_id, inline_bytes_max, outbox);
        }
        Reply::Info { segment, is_sealed, last_modified, length, start_offset } => {
            outbox.put(&StreamSegmentInfo {
                request_id,
                segment: text(&segment),
                exists: true,
                is_sealed,
                is_deleted: false,
                last_modified,
                write_offset: signed(length),
                start_offset: signed(start_offset),
            });
        }
        Reply::Created { segment } => {
            outbox.put(&SegmentCreated { request_id, segment: text(&segment) });
        }
        Reply::Sealed { segment } => {
            outbox.put(&SegmentSealed { request_id, segment: text(&segment) });
        }
        Reply::Truncated { segment } => {
            outbox.put(&SegmentTruncated { request_id, segment: text(&segment) });
        }
        Reply::Deleted { segment } => {
            outbox.put(&SegmentDeleted { request_id, segment: text(&segment) });
        }
        Reply::Merged { target, source, target_length } => outbox.put(&SegmentsMerged {
            request_id,
            target: text(&target),
            source: text(&source),
            new_target_write_offset: signed(target_length),
        }),
        Reply::BatchMerged { target, sources } => {
            let merged = sources
                .iter()
                .map(|(source, length)| MergedSource {
                    source: text(source),
                    new_target_write_offset: signed(*length),
                })
                .collect();
            outbox.put(&SegmentsBatchMerged { request_id, target: text(&target), merged });
        }
        Reply::PolicyUpdated { segment } => {
            outbox.put(&SegmentPolicyUpdated { request_id, segment: text(&segment) });
        }
        Reply::Attribute { value } => outbox.put(&SegmentAttribute { request_id, value }),
        Reply::AttributeUpdated { is_updated } => {
            outbox.put(&SegmentAttributeUpdated { request_id, success: is_updated });
        }
        Reply::TableInfo { segment, start_offset, length, entry_count, key_length } => {
            outbox.put(&TableSegmentInfo {
                request_id,
                segment: text(&segment),
                start_offset: signed(start_offset),
                length: signed(length),
                entry_count: i64::try_from(entry_count).unwrap_or(i64::MAX),
                key_length: i32::from(key_length),
            });
        }
        Reply::TableUpdated { versions } => {
            outbox.put(&TableEntriesUpdated { request_id, updated_versions: versions });
        }
        Reply::TableRemoved { segment } => {
            outbox.put(&TableKeysRemoved { request_id, segment: text(&segment) });
        }
        Reply::TableRead { segment, entries } => {
            let entries = entries.into_iter().map(entry).collect();
            let message = TableRead { request_id, segment: text(&segment), entries };
            bounded(request_id, &segment, &message, outbox);
        }
        Reply::TablePage { segment, items, entries, continuation } => {
            page(request_id, &segment, items, entries, continuation, outbox);
        }
        Reply::TableDelta { segment, entries, should_clear, reached_end, last_position } => {
            let message = TableEntriesDeltaRead {
                request_id,
                segment: text(&segment),
                entries: entries.into_iter().map(entry).collect(),
                should_clear,
                reached_end,
                last_position,
            };
            bounded(request_id, &segment, &message, outbox);
        }
    }
}

fn refused(request_id: i64, refusal: Refusal, outbox: &mut Outbox) {
    let server_stack_trace = Text::new();
    match refusal {
        Refusal::NoSuchSegment { segment, offset } => {
            let segment = text(&segment);
            outbox.put(&NoSuchSegment { request_id, segment, server_stack_trace, offset });
        }
        Refusal::SegmentExists { segment } => {
            let segment = text(&segment);
            outbox.put(&SegmentAlreadyExists { request_id, segment, server_stack_trace });
        }
        Refusal::SegmentSealed { segment, offset } => {
            let segment = text(&segment);
            outbox.put(&SegmentIsSealed { request_id, segment, server_stack_trace, offset });
        }
        Refusal::SegmentTruncated { segment, start_offset, offset } => {
            outbox.put(&SegmentIsTruncated {
                request_id,
                segment: text(&segment),
                start_offset: signed(start_offset),
                server_stack_trace,
                offset,
            });
        }
        Refusal::ConditionalCheckFailed { writer, event_number } => {
            outbox.put(&ConditionalCheckFailed { writer_id: writer.0, event_number, request_id });
        }
        Refusal::InvalidEventNumber { writer, event_number } => outbox.put(&InvalidEventNumber {
            writer_id: writer.0,
            request_id,
            server_stack_trace,
            event_number,
        }),
        Refusal::WrongContainer { segment } => outbox.put(&WrongHost {
            request_id,
            segment: text(&segment),
            correct_host: Text::new(),
            server_stack_trace,
        }),
        Refusal::TableNotEmpty { segment } => {
            let segment = text(&segment);
            outbox.put(&TableSegmentNotEmpty { request_id, segment, server_stack_trace });
        }
        Refusal::KeyDoesNotExist { segment } => {
            let segment = text(&segment);
            outbox.put(&TableKeyDoesNotExist { request_id, segment, server_stack_trace });
        }
        Refusal::BadKeyVersion { segment } => {
            let segment = text(&segment);
            outbox.put(&TableKeyBadVersion { request_id, segment, server_stack_trace });
        }
        Refusal::Unsupported { operation } => {
            let operation_name = Text::from_static(operation);
            outbox.put(&OperationUnsupported { request_id, operation_name, server_stack_trace });
        }
        Refusal::IllegalArgument { segment, message } => outbox.put(&ErrorMessage {
            request_id,
            segment: text(&segment),
            message: Text::from(message),
            error_code: ILLEGAL_ARGUMENT,
        }),
    }
}

fn text(name: &SegmentName) -> Text {
    Text::from(name.as_str())
}

fn read(
    head: &SegmentReadHead,
    data: Vec<Bytes>,
    request_id: i64,
    inline_bytes_max: usize,
    outbox: &mut Outbox,
) {
    outbox.write(head.encoded_len(), |out| head.encode(out));
    for slice in data {
        if slice.len() <= inline_bytes_max {
            outbox.write(slice.len(), |out| out.extend_from_slice(&slice));
        } else {
            outbox.share(slice);
        }
    }
    let tail = SegmentReadTail { request_id };
    outbox.write(SegmentReadTail::ENCODED_LEN, |out| tail.encode(out));
}

fn page(
    request_id: i64,
    segment: &SegmentName,
    items: TableItems,
    entries: Vec<FoundEntry>,
    continuation_token: Bytes,
    outbox: &mut Outbox,
) {
    let name = text(segment);
    match items {
        TableItems::Keys => {
            let keys = entries.into_iter().map(|found| key(found.key, found.version)).collect();
            let message = TableKeysRead { request_id, segment: name, keys, continuation_token };
            bounded(request_id, segment, &message, outbox);
        }
        TableItems::Entries => {
            let entries = entries.into_iter().map(entry).collect();
            let message =
                TableEntriesRead { request_id, segment: name, entries, continuation_token };
            bounded(request_id, segment, &message, outbox);
        }
    }
}

/// A reply that no client could receive is refused instead.
fn bounded(request_id: i64, segment: &SegmentName, message: &impl Message, outbox: &mut Outbox) {
    if message.encoded_len() <= FRAME_BYTES_MAX {
        outbox.put(message);
        return;
    }
    outbox.put(&ErrorMessage {
        request_id,
        segment: text(segment),
        message: Text::from_static("the reply is too large: ask for fewer keys"),
        error_code: ILLEGAL_ARGUMENT,
    });
}

fn key(key: Bytes, version: i64) -> TableKey {
    TableKey { key, version }
}

fn entry(found: FoundEntry) -> TableEntry {
    TableEntry { key: key(found.key, found.version), value: found.value }
}
