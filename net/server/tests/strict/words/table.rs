//! Short words for tables.

use thalweg_crash::store::none;
use thalweg_wire::*;

use super::{ID, bytes};

/// No condition on a key.
pub(crate) const ANY: i64 = KEY_NO_VERSION;
/// The key must not exist; the version of a key that does not.
pub(crate) const ABSENT: i64 = KEY_NOT_EXISTS;

fn key(&(key, version): &(&[u8], i64)) -> TableKey {
    TableKey { key: bytes(key), version }
}

fn entry(&(key, version, value): &(&[u8], i64, &[u8])) -> TableEntry {
    TableEntry { key: TableKey { key: bytes(key), version }, value: bytes(value) }
}

/// Keys with versions.
pub(crate) type Keys<'a> = &'a [(&'a [u8], i64)];
/// Keys with versions and values.
pub(crate) type Entries<'a> = &'a [(&'a [u8], i64, &'a [u8])];

pub(crate) fn create_table(segment: &str, key_length: i32) -> Command {
    CreateTableSegment {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        sorted_deprecated: false,
        key_length,
        rollover_size_bytes: 0,
    }
    .into()
}

pub(crate) fn delete_table(segment: &str, must_be_empty: bool) -> Command {
    let segment = segment.into();
    DeleteTableSegment { request_id: ID, segment, must_be_empty, delegation_token: none() }.into()
}

pub(crate) fn table_info(segment: &str) -> Command {
    let segment = segment.into();
    GetTableSegmentInfo { request_id: ID, segment, delegation_token: none() }.into()
}

pub(crate) fn is_table_info(segment: &str, length: i64, entries: i64, key_length: i32) -> Command {
    TableSegmentInfo {
        request_id: ID,
        segment: segment.into(),
        start_offset: 0,
        length,
        entry_count: entries,
        key_length,
    }
    .into()
}

pub(crate) fn update(segment: &str, entries: Entries<'_>) -> Command {
    update_at(segment, entries, -1)
}

pub(crate) fn update_at(segment: &str, entries: Entries<'_>, length: i64) -> Command {
    UpdateTableEntries {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        entries: entries.iter().map(entry).collect(),
        table_segment_offset: length,
    }
    .into()
}

pub(crate) fn is_updated(versions: &[i64]) -> Command {
    TableEntriesUpdated { request_id: ID, updated_versions: versions.to_vec() }.into()
}

pub(crate) fn remove(segment: &str, keys: Keys<'_>) -> Command {
    remove_at(segment, keys, -1)
}

pub(crate) fn remove_at(segment: &str, keys: Keys<'_>, length: i64) -> Command {
    RemoveTableKeys {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        keys: keys.iter().map(key).collect(),
        table_segment_offset: length,
    }
    .into()
}

pub(crate) fn is_removed(segment: &str) -> Command {
    TableKeysRemoved { request_id: ID, segment: segment.into() }.into()
}

pub(crate) fn get(segment: &str, keys: &[&[u8]]) -> Command {
    ReadTable {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        keys: keys.iter().map(|it| key(&(it, ANY))).collect(),
    }
    .into()
}

pub(crate) fn is_got(segment: &str, entries: Entries<'_>) -> Command {
    let entries = entries.iter().map(entry).collect();
    TableRead { request_id: ID, segment: segment.into(), entries }.into()
}

fn iteration(token: &[u8], from: &[u8], to: &[u8]) -> IterationArguments {
    IterationArguments {
        continuation_token: bytes(token),
        from_key: bytes(from),
        to_key: bytes(to),
    }
}

pub(crate) fn keys(segment: &str, count: i32, token: &[u8]) -> Command {
    keys_within(segment, count, token, b"", b"")
}

pub(crate) fn keys_within(
    segment: &str,
    count: i32,
    token: &[u8],
    from: &[u8],
    to: &[u8],
) -> Command {
    ReadTableKeys {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        suggested_key_count: count,
        iteration: iteration(token, from, to),
    }
    .into()
}

pub(crate) fn is_keys(segment: &str, keys: Keys<'_>, token: &[u8]) -> Command {
    TableKeysRead {
        request_id: ID,
        segment: segment.into(),
        keys: keys.iter().map(key).collect(),
        continuation_token: bytes(token),
    }
    .into()
}

pub(crate) fn entries(segment: &str, count: i32, token: &[u8]) -> Command {
    entries_within(segment, count, token, b"", b"")
}

pub(crate) fn entries_within(
    segment: &str,
    count: i32,
    token: &[u8],
    from: &[u8],
    to: &[u8],
) -> Command {
    ReadTableEntries {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        suggested_entry_count: count,
        iteration: iteration(token, from, to),
    }
    .into()
}

pub(crate) fn is_entries(segment: &str, entries: Entries<'_>, token: &[u8]) -> Command {
    TableEntriesRead {
        request_id: ID,
        segment: segment.into(),
        entries: entries.iter().map(entry).collect(),
        continuation_token: bytes(token),
    }
    .into()
}

pub(crate) fn delta(segment: &str, from_position: i64, count: i32) -> Command {
    ReadTableEntriesDelta {
        request_id: ID,
        segment: segment.into(),
        delegation_token: none(),
        from_position,
        suggested_entry_count: count,
    }
    .into()
}

pub(crate) fn is_delta(
    segment: &str,
    entries: Entries<'_>,
    reached_end: bool,
    last_position: i64,
) -> Command {
    TableEntriesDeltaRead {
        request_id: ID,
        segment: segment.into(),
        entries: entries.iter().map(entry).collect(),
        should_clear: false,
        reached_end,
        last_position,
    }
    .into()
}
