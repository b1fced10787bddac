//! Commands as the checker's operations, replies as its outcomes. Says nothing about appends and
//! merges, whose meaning depends on what was said before on the connection.

use thalweg_checker::id::{Attribute, Key, Segment, Value, Writer};
use thalweg_checker::record::{
    AttributeCondition, Data, Entry, KeyCondition, Operation, Outcome, Put, Refusal, Removal,
};
use thalweg_wire::{
    Command, KEY_NO_VERSION, KEY_NOT_EXISTS, NO_EVENT_NUMBER, NULL_ATTRIBUTE_VALUE, TableEntry,
    TableKey,
};

/// Writers are known by the lower half of their ids.
pub(super) fn tag_of(writer_id: u128) -> Writer {
    Writer(writer_id as u64)
}

/// Keys of a world are text.
pub(super) fn key_of(key: &[u8]) -> Key {
    Key::new(&String::from_utf8_lossy(key))
}

fn attribute_value(value: i64) -> Option<i64> {
    (value != NULL_ATTRIBUTE_VALUE).then_some(value)
}

fn condition_of(key: &TableKey) -> KeyCondition {
    match key.version {
        KEY_NO_VERSION => KeyCondition::Always,
        KEY_NOT_EXISTS => KeyCondition::Absent,
        version => KeyCondition::Version(version),
    }
}

/// What a table holds, without the keys that are said to be absent.
pub(super) fn entries_of<'e>(entries: impl Iterator<Item = &'e TableEntry>) -> Vec<Entry> {
    entries
        .filter(|entry| entry.key.version != KEY_NOT_EXISTS)
        .map(|entry| Entry {
            key: key_of(&entry.key.key),
            value: Value::of(&entry.value),
            version: entry.key.version,
        })
        .collect()
}

/// What a plain request asks for; appends and merges are not plain.
pub(super) fn operation_of(command: &Command) -> Option<Operation> {
    let name = |text: &thalweg_wire::Text| Segment::new(text.as_str());
    Some(match command {
        Command::CreateSegment(ask) => Operation::Create { segment: name(&ask.segment) },
        Command::CreateTableSegment(ask) => Operation::Create { segment: name(&ask.segment) },
        Command::DeleteSegment(ask) => Operation::Delete { segment: name(&ask.segment) },
        Command::SealSegment(ask) => Operation::Seal { segment: name(&ask.segment) },
        Command::TruncateSegment(ask) => Operation::Truncate {
            segment: name(&ask.segment),
            offset: ask.truncation_offset as u64,
        },
        Command::SetupAppend(ask) => {
            Operation::SetUp { segment: name(&ask.segment), writer: tag_of(ask.writer_id) }
        }
        Command::ReadSegment(ask) => {
            Operation::Read { segment: name(&ask.segment), offset: ask.offset as u64 }
        }
        Command::GetStreamSegmentInfo(ask) => Operation::Info { segment: name(&ask.segment) },
        Command::GetSegmentAttribute(ask) => Operation::AttributeRead {
            segment: name(&ask.segment),
            attribute: Attribute(ask.attribute_id as u64),
        },
        Command::UpdateSegmentAttribute(ask) => Operation::AttributeUpdate {
            segment: name(&ask.segment),
            attribute: Attribute(ask.attribute_id as u64),
            condition: AttributeCondition::Is(attribute_value(ask.expected_value)),
            value: attribute_value(ask.new_value),
        },
        Command::UpdateTableEntries(ask) => {
            let put = |entry: &TableEntry| Put {
                key: key_of(&entry.key.key),
                value: Value::of(&entry.value),
                condition: condition_of(&entry.key),
            };
            let entries = ask.entries.iter().map(put).collect();
            Operation::TableUpdate { segment: name(&ask.segment), entries }
        }
        Command::RemoveTableKeys(ask) => {
            let removal =
                |key: &TableKey| Removal { key: key_of(&key.key), condition: condition_of(key) };
            let keys = ask.keys.iter().map(removal).collect();
            Operation::TableRemove { segment: name(&ask.segment), keys }
        }
        Command::ReadTable(ask) => {
            let keys = ask.keys.iter().map(|key| key_of(&key.key)).collect();
            Operation::TableRead { segment: name(&ask.segment), keys }
        }
        _ => return None,
    })
}

/// What a reply to a plain request tells.
pub(super) fn answer_of(reply: &Command) -> Option<Result<Outcome, Refusal>> {
    let length =
        |told: i64| u64::try_from(told).map_or(Outcome::Done, |length| Outcome::Merged { length });
    Some(match reply {
        Command::SegmentCreated(_)
        | Command::SegmentDeleted(_)
        | Command::SegmentSealed(_)
        | Command::SegmentTruncated(_)
        | Command::TableKeysRemoved(_) => Ok(Outcome::Done),
        Command::AppendSetup(setup) => {
            let last = setup.last_event_number;
            Ok(Outcome::SetUp { last: (last != NO_EVENT_NUMBER).then_some(last) })
        }
        Command::SegmentRead(read) => Ok(Outcome::Read {
            data: Data::Bytes(read.data.to_vec()),
            ends: read.end_of_segment,
            tail: false,
        }),
        Command::StreamSegmentInfo(info) => Ok(Outcome::Info {
            length: info.write_offset as u64,
            start: info.start_offset as u64,
            sealed: info.is_sealed,
        }),
        Command::SegmentAttribute(attribute) => {
            Ok(Outcome::Attribute { value: attribute_value(attribute.value) })
        }
        Command::SegmentAttributeUpdated(updated) if updated.success => Ok(Outcome::Done),
        Command::SegmentAttributeUpdated(_)
        | Command::TableKeyBadVersion(_)
        | Command::TableKeyDoesNotExist(_) => Err(Refusal::ConditionFailed),
        Command::TableEntriesUpdated(updated) => {
            Ok(Outcome::Versions { versions: updated.updated_versions.clone() })
        }
        Command::TableRead(read) => {
            Ok(Outcome::Entries { entries: entries_of(read.entries.iter()) })
        }
        Command::SegmentsMerged(merged) => Ok(length(merged.new_target_write_offset)),
        Command::SegmentsBatchMerged(batch) => {
            let all = batch.merged.iter().map(|one| one.new_target_write_offset);
            Ok(length(all.max().unwrap_or(-1)))
        }
        Command::SegmentAlreadyExists(_) => Err(Refusal::Exists),
        Command::NoSuchSegment(_) => Err(Refusal::NoSuchSegment),
        Command::SegmentIsSealed(_) => Err(Refusal::Sealed),
        Command::SegmentIsTruncated(told) => {
            Err(Refusal::Truncated { start: told.start_offset as u64 })
        }
        Command::WrongHost(_) => Err(Refusal::Unavailable),
        _ => return None,
    })
}
