//! From wire commands to requests.

use thalweg_core::id::{AttributeId, SegmentName, WriterId};
use thalweg_core::limits::{READ_REPLY_BYTES_MAX, TABLE_KEY_LENGTH_MAX};
use thalweg_core::position::Offset;
use thalweg_core::request::{
    AttributeUpdate, AttributeUpdateKind, Create, Refusal, Request, SegmentKind, TableEntry,
    TableItems, TableKey, VersionCondition,
};
use thalweg_wire::{Command, IterationArguments, KEY_NO_VERSION, KEY_NOT_EXISTS, Text};

use super::{Translated, condition};
use crate::close::Close;

/// Fewest bytes that a read is taken to ask for.
const READ_BYTES_MIN: i32 = 8;

/// What a command asks for, with its request id.
///
/// # Errors
/// A [`Close`] for what breaks the protocol, and for all commands that are not a request or belong
/// to the connection or its append sessions, which have been taken out before.
pub fn request(command: Command) -> Result<(i64, Translated), Close> {
    let name = command.name();
    let close = |argument| Close::Argument { name, argument };
    let (id, request) = match command {
        Command::ReadSegment(read) => {
            let offset = position(read.offset).ok_or(close("offset"))?;
            let length = read_length(read.suggested_length);
            (read.request_id, Request::Read { segment: segment(&read.segment), offset, length })
        }
        Command::GetStreamSegmentInfo(info) => {
            (info.request_id, Request::Info { segment: segment(&info.segment) })
        }
        Command::CreateSegment(create) => {
            if create.segment.is_empty() {
                return Err(close("segment"));
            }
            let request = Request::Create(Create {
                segment: segment(&create.segment),
                kind: SegmentKind::Stream,
                scale_type: create.scale_type,
                target_rate: create.target_rate,
                rollover_bytes: create.rollover_size_bytes.max(0),
            });
            (create.request_id, request)
        }
        Command::CreateTransientSegment(create) => {
            let parent = segment(&create.parent_segment);
            let writer = WriterId(create.writer_id);
            (create.request_id, Request::CreateTransient { parent, writer })
        }
        Command::SealSegment(seal) => {
            (seal.request_id, Request::Seal { segment: segment(&seal.segment) })
        }
        Command::TruncateSegment(truncate) => {
            let offset = position(truncate.truncation_offset).ok_or(close("offset"))?;
            (truncate.request_id, Request::Truncate { segment: segment(&truncate.segment), offset })
        }
        Command::DeleteSegment(delete) => {
            let request = Request::Delete {
                segment: segment(&delete.segment),
                kind: SegmentKind::Stream,
                must_be_empty: false,
            };
            (delete.request_id, request)
        }
        Command::UpdateSegmentPolicy(update) => {
            let request = Request::UpdatePolicy {
                segment: segment(&update.segment),
                scale_type: update.scale_type,
                target_rate: update.target_rate,
            };
            (update.request_id, request)
        }
        Command::GetSegmentAttribute(get) => {
            let attribute = AttributeId(get.attribute_id);
            (get.request_id, Request::Attribute { segment: segment(&get.segment), attribute })
        }
        Command::UpdateSegmentAttribute(update) => {
            let request = Request::UpdateAttribute {
                segment: segment(&update.segment),
                attribute: AttributeId(update.attribute_id),
                value: update.new_value,
                expected: update.expected_value,
            };
            (update.request_id, request)
        }
        Command::MergeSegments(merge) => {
            let attributes: Option<Vec<_>> =
                merge.attribute_updates.iter().map(attribute_update).collect();
            let request = Request::Merge {
                target: segment(&merge.target),
                source: segment(&merge.source),
                attributes: attributes.ok_or(close("attribute update type"))?,
            };
            (merge.request_id, request)
        }
        Command::MergeSegmentsBatch(merge) => {
            let request = Request::MergeBatch {
                target: segment(&merge.target),
                sources: merge.sources.iter().map(segment).collect(),
            };
            (merge.request_id, request)
        }
        Command::LocateOffset(locate) => {
            let refusal = Refusal::Unsupported { operation: "locateOffset" };
            return Ok((locate.request_id, Translated::Refused(refusal)));
        }
        Command::GetTableSegmentInfo(info) => {
            (info.request_id, Request::TableInfo { segment: segment(&info.segment) })
        }
        Command::CreateTableSegment(create) => {
            if create.segment.is_empty() {
                return Err(close("segment"));
            }
            let key_length = table_key_length(create.key_length).ok_or(close("key length"))?;
            let request = Request::Create(Create {
                segment: segment(&create.segment),
                kind: SegmentKind::Table { key_length },
                scale_type: 0,
                target_rate: 0,
                rollover_bytes: create.rollover_size_bytes.max(0),
            });
            (create.request_id, request)
        }
        Command::DeleteTableSegment(delete) => {
            let request = Request::Delete {
                segment: segment(&delete.segment),
                kind: SegmentKind::Table { key_length: 0 },
                must_be_empty: delete.must_be_empty,
            };
            (delete.request_id, request)
        }
        Command::UpdateTableEntries(update) => {
            let segment = segment(&update.segment);
            if update.entries.iter().any(|entry| entry.key.key.is_empty()) {
                return Ok((update.request_id, empty_key(segment)));
            }
            let entries: Option<Vec<_>> = update.entries.into_iter().map(table_entry).collect();
            let request = Request::TableUpdate {
                segment,
                entries: entries.ok_or(close("key version"))?,
                expected_length: condition(update.table_segment_offset),
            };
            (update.request_id, request)
        }
        Command::RemoveTableKeys(remove) => {
            let segment = segment(&remove.segment);
            if remove.keys.iter().any(|key| key.key.is_empty()) {
                return Ok((remove.request_id, empty_key(segment)));
            }
            let keys: Option<Vec<_>> = remove.keys.into_iter().map(table_key).collect();
            let request = Request::TableRemove {
                segment,
                keys: keys.ok_or(close("key version"))?,
                expected_length: condition(remove.table_segment_offset),
            };
            (remove.request_id, request)
        }
        Command::ReadTable(read) => {
            let segment = segment(&read.segment);
            if read.keys.iter().any(|key| key.key.is_empty()) {
                return Ok((read.request_id, empty_key(segment)));
            }
            let keys = read.keys.into_iter().map(|key| key.key).collect();
            (read.request_id, Request::TableGet { segment, keys })
        }
        Command::ReadTableKeys(read) => (
            read.request_id,
            iteration(&read.segment, read.suggested_key_count, read.iteration, TableItems::Keys),
        ),
        Command::ReadTableEntries(read) => {
            let count = read.suggested_entry_count;
            let request = iteration(&read.segment, count, read.iteration, TableItems::Entries);
            (read.request_id, request)
        }
        Command::ReadTableEntriesDelta(read) => {
            let request = Request::TableDelta {
                segment: segment(&read.segment),
                from: read.from_position,
                count: read.suggested_entry_count,
            };
            (read.request_id, request)
        }
        Command::Hello(_)
        | Command::KeepAlive(_)
        | Command::Padding(_)
        | Command::PartialEvent(_)
        | Command::Event(_)
        | Command::SetupAppend(_)
        | Command::AppendBlock(_)
        | Command::AppendBlockEnd(_)
        | Command::ConditionalAppend(_)
        | Command::ConditionalBlockEnd(_)
        | Command::FlushToStorage(_)
        | Command::StorageFlushed(_)
        | Command::ListStorageChunks(_)
        | Command::StorageChunksListed(_)
        | Command::AppendSetup(_)
        | Command::DataAppended(_)
        | Command::ConditionalCheckFailed(_)
        | Command::SegmentRead(_)
        | Command::StreamSegmentInfo(_)
        | Command::SegmentCreated(_)
        | Command::SegmentSealed(_)
        | Command::SegmentDeleted(_)
        | Command::SegmentPolicyUpdated(_)
        | Command::SegmentAttribute(_)
        | Command::SegmentAttributeUpdated(_)
        | Command::SegmentTruncated(_)
        | Command::OffsetLocated(_)
        | Command::WrongHost(_)
        | Command::SegmentIsSealed(_)
        | Command::SegmentAlreadyExists(_)
        | Command::NoSuchSegment(_)
        | Command::InvalidEventNumber(_)
        | Command::SegmentIsTruncated(_)
        | Command::OperationUnsupported(_)
        | Command::SegmentsMerged(_)
        | Command::AuthTokenCheckFailed(_)
        | Command::ErrorMessage(_)
        | Command::TableSegmentInfo(_)
        | Command::TableEntriesUpdated(_)
        | Command::TableKeysRemoved(_)
        | Command::TableRead(_)
        | Command::TableSegmentNotEmpty(_)
        | Command::TableKeyDoesNotExist(_)
        | Command::TableKeyBadVersion(_)
        | Command::TableKeysRead(_)
        | Command::TableEntriesRead(_)
        | Command::TableEntriesDeltaRead(_)
        | Command::SegmentsBatchMerged(_) => return Err(Close::NotServed { name }),
    };
    Ok((id, Translated::Request(request)))
}

fn segment(name: &Text) -> SegmentName {
    SegmentName::new(name.as_str())
}

fn position(offset: i64) -> Option<Offset> {
    u64::try_from(offset).ok().map(Offset)
}

fn read_length(suggested: i32) -> u32 {
    let length = u32::try_from(suggested.max(READ_BYTES_MIN)).expect("it is at least 8");
    length.min(READ_REPLY_BYTES_MAX)
}

/// A negative length is none; a length over the limit is nobody's.
fn table_key_length(length: i32) -> Option<u16> {
    u16::try_from(length.max(0)).ok().filter(|length| *length <= TABLE_KEY_LENGTH_MAX)
}

fn version(version: i64) -> Option<VersionCondition> {
    match version {
        KEY_NO_VERSION => Some(VersionCondition::Any),
        KEY_NOT_EXISTS => Some(VersionCondition::Absent),
        0.. => Some(VersionCondition::Exactly(version)),
        _ => None,
    }
}

fn table_key(key: thalweg_wire::TableKey) -> Option<TableKey> {
    Some(TableKey { condition: version(key.version)?, key: key.key })
}

fn table_entry(entry: thalweg_wire::TableEntry) -> Option<TableEntry> {
    Some(TableEntry { key: table_key(entry.key)?, value: entry.value })
}

fn empty_key(segment: SegmentName) -> Translated {
    let message = "a key is empty".to_owned();
    Translated::Refused(Refusal::IllegalArgument { segment, message })
}

fn iteration(name: &Text, count: i32, arguments: IterationArguments, items: TableItems) -> Request {
    let IterationArguments { continuation_token, from_key, to_key } = arguments;
    Request::TableIterate {
        segment: segment(name),
        count,
        continuation: continuation_token,
        from: from_key,
        to: to_key,
        items,
    }
}

fn attribute_update(update: &thalweg_wire::AttributeUpdate) -> Option<AttributeUpdate> {
    let kind = match update.update_type {
        0 => AttributeUpdateKind::SetIfUnset,
        1 => AttributeUpdateKind::Replace,
        2 => AttributeUpdateKind::ReplaceIfGreater,
        3 => AttributeUpdateKind::Accumulate,
        4 => AttributeUpdateKind::ReplaceIfEqual,
        _ => return None,
    };
    Some(AttributeUpdate {
        attribute: AttributeId(update.attribute_id),
        kind,
        value: update.new_value,
        expected: update.old_value,
    })
}
