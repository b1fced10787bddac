//! Table segments: keys with versions, reads, iteration and deltas.
//!
//! Keys, values and tokens are slices of the received buffer. A key without bytes is read and
//! written the way J does, with no version behind it; it decodes so that the server can refuse it
//! by name.

use bytes::{BufMut, Bytes, BytesMut};

use crate::field::{Field, PayloadError, Reader, wire_count};
use crate::layout::layout;
use crate::text::Text;

/// Version of a key that is written or removed whatever its version is.
pub const KEY_NO_VERSION: i64 = i64::MIN;

/// Version of a key that must not exist, and in replies of one that does not.
pub const KEY_NOT_EXISTS: i64 = -1;

/// A key and the version it must have, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The key; empty ones are to be refused.
    pub key: Bytes,
    /// [`KEY_NO_VERSION`], [`KEY_NOT_EXISTS`] or an exact version. An empty key has no version on
    /// the wire and is read with [`KEY_NO_VERSION`].
    pub version: i64,
}

impl Field for TableKey {
    // Of the empty key: total and key length.
    const BYTES_MIN: usize = 8;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let total = i32::decode(reader)?;
        let key = Bytes::decode(reader)?;
        check_total(total, key.len() + 12)?;
        let version = if key.is_empty() { KEY_NO_VERSION } else { i64::decode(reader)? };
        Ok(Self { key, version })
    }

    fn encode(&self, out: &mut BytesMut) {
        // 12 are the key length and the version, counted even where the version is left out.
        out.put_i32(wire_count(self.key.len() + 12));
        self.key.encode(out);
        if !self.key.is_empty() {
            self.version.encode(out);
        }
    }

    fn encoded_len(&self) -> usize {
        4 + self.key.encoded_len() + if self.key.is_empty() { 0 } else { 8 }
    }
}

/// The total of a key or value repeats what the length inside it says; who contradicts himself is
/// not understood.
fn check_total(total: i32, expected: usize) -> Result<(), PayloadError> {
    let is_right = usize::try_from(total).is_ok_and(|total| total == expected);
    if is_right { Ok(()) } else { Err(PayloadError::Count { count: total }) }
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The key with its version.
    pub key: TableKey,
    /// The value; empty in the reply for a key that does not exist.
    pub value: Bytes,
}

impl Field for TableEntry {
    const BYTES_MIN: usize = TableKey::BYTES_MIN + 8;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let key = TableKey::decode(reader)?;
        let total = i32::decode(reader)?;
        let value = Bytes::decode(reader)?;
        check_total(total, value.len() + 4)?;
        Ok(Self { key, value })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.key.encode(out);
        out.put_i32(wire_count(self.value.len() + 4));
        self.value.encode(out);
    }

    fn encoded_len(&self) -> usize {
        self.key.encoded_len() + 4 + self.value.encoded_len()
    }
}

/// Where an iteration goes on and between which keys. All of it is optional at the end of a
/// payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IterationArguments {
    /// Empty to start; else the token of the reply before.
    pub continuation_token: Bytes,
    /// First key wanted, in the layout with fixed key length; empty for no bound.
    pub from_key: Bytes,
    /// Last key wanted, in the layout with fixed key length; empty for no bound.
    pub to_key: Bytes,
}

impl IterationArguments {
    fn decode_optional(reader: &mut Reader<'_>) -> Result<Bytes, PayloadError> {
        if Bytes::is_absent(reader.remaining()) { Ok(Bytes::new()) } else { Bytes::decode(reader) }
    }
}

impl Field for IterationArguments {
    const BYTES_MIN: usize = 0;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let continuation_token = Self::decode_optional(reader)?;
        // A retired filter by prefix: read and not looked at.
        Self::decode_optional(reader)?;
        Ok(Self {
            continuation_token,
            from_key: Self::decode_optional(reader)?,
            to_key: Self::decode_optional(reader)?,
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.continuation_token.encode(out);
        Bytes::new().encode(out);
        self.from_key.encode(out);
        self.to_key.encode(out);
    }

    fn encoded_len(&self) -> usize {
        self.continuation_token.encoded_len()
            + 4
            + self.from_key.encoded_len()
            + self.to_key.encoded_len()
    }
}

layout! {
    /// Creates a table segment.
    CreateTableSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Not used any more.
        sorted_deprecated: bool = false,
        /// 0 for keys of any length, else the length of every key.
        key_length: i32 = 0,
        /// Size of chunks in long-term storage; 0 or less for the default.
        rollover_size_bytes: i64 = 0,
    }
}

layout! {
    /// Deletes a table segment.
    DeleteTableSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Refuse when it has keys.
        must_be_empty: bool,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// Asks for the facts of a table segment.
    GetTableSegmentInfo {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The facts of a table segment. Written in the layout of J; R never asks.
    TableSegmentInfo {
        /// Of the request.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// First byte still kept.
        start_offset: i64,
        /// Length of the segment.
        length: i64,
        /// Keys in the table, perhaps a little behind.
        entry_count: i64,
        /// 0 for keys of any length.
        key_length: i32,
    }
}

layout! {
    /// Writes entries, all or none.
    UpdateTableEntries {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// What to write, under which versions.
        entries: Vec<TableEntry>,
        /// Length the segment must have; negative for no condition.
        table_segment_offset: i64 = -1,
    }
}

layout! {
    /// The entries are written.
    TableEntriesUpdated {
        /// Of the request.
        request_id: i64,
        /// The new versions, in the order of the request.
        updated_versions: Vec<i64>,
    }
}

layout! {
    /// Removes keys, all or none.
    RemoveTableKeys {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// What to remove, under which versions.
        keys: Vec<TableKey>,
        /// Length the segment must have; negative for no condition.
        table_segment_offset: i64 = -1,
    }
}

layout! {
    /// The keys are removed.
    TableKeysRemoved {
        /// Of the request.
        request_id: i64,
        /// The table segment.
        segment: Text,
    }
}

layout! {
    /// Asks for the values of keys.
    ReadTable {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// The keys; their versions are not looked at.
        keys: Vec<TableKey>,
    }
}

layout! {
    /// The values of keys.
    TableRead {
        /// Of the request.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// One for each key asked for, in that order; [`KEY_NOT_EXISTS`] and no value for an absent
        /// one.
        entries: Vec<TableEntry>,
    }
}

layout! {
    /// Asks for a page of keys.
    ReadTableKeys {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Keys wanted.
        suggested_key_count: i32,
        /// Which page.
        iteration: IterationArguments,
    }
}

layout! {
    /// A page of keys.
    TableKeysRead {
        /// Of the request.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// The keys with their versions; none ends the iteration.
        keys: Vec<TableKey>,
        /// Asks for the next page; empty on a page without items.
        continuation_token: Bytes,
    }
}

layout! {
    /// Asks for a page of entries.
    ReadTableEntries {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Entries wanted.
        suggested_entry_count: i32,
        /// Which page.
        iteration: IterationArguments,
    }
}

layout! {
    /// A page of entries.
    TableEntriesRead {
        /// Of the request.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// The entries; none ends the iteration.
        entries: Vec<TableEntry>,
        /// Asks for the next page; empty on a page without items.
        continuation_token: Bytes,
    }
}

layout! {
    /// Asks for what changed since a position.
    ReadTableEntriesDelta {
        /// Echoed by the reply.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// First position wanted; 0 for everything.
        from_position: i64,
        /// Entries wanted.
        suggested_entry_count: i32,
    }
}

layout! {
    /// What changed since a position.
    TableEntriesDeltaRead {
        /// Of the request.
        request_id: i64,
        /// The table segment.
        segment: Text,
        /// Each changed key once, with its latest value.
        entries: Vec<TableEntry>,
        /// The history before is gone: forget what was read before.
        should_clear: bool,
        /// Nothing changed after `last_position`.
        reached_end: bool,
        /// What to ask for next.
        last_position: i64,
    }
}
