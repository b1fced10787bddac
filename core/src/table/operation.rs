//! Bodies of table operations in the journal: what was put, what was removed.
//!
//! A body holds keys and values and the table's length before the change; conditions were judged
//! before and are not kept. Replay applies a body unconditionally, and because versions are
//! offsets, equal base lengths give equal versions; another base length means that an operation is
//! missing or twice there, which is corruption. Byte tables: `docs/formats.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Table, TableRefusal};
use crate::fault::{Fault, FaultClass};
use crate::position::Offset;
use crate::request::{TableEntry, TableKey, VersionCondition};

/// Base length and count.
const BODY_HEADER_BYTES: usize = 12;
/// Lengths of key and value.
const ENTRY_HEADER_BYTES: usize = 6;
/// Length of a key.
const KEY_HEADER_BYTES: usize = 2;
/// Largest position of a log that is believed.
const POSITION_MAX: u64 = 1 << 62;

/// A batch of updates read from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedUpdate {
    /// Length of the table before it.
    pub base_length: Offset,
    /// What was put; without conditions.
    pub entries: Vec<TableEntry>,
}

/// A batch of removals read from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRemove {
    /// Length of the table before it.
    pub base_length: Offset,
    /// What was removed; without conditions.
    pub keys: Vec<TableKey>,
}

/// Bytes that [`Table::encode_update`] writes.
#[must_use]
pub fn update_body_bytes(entries: &[TableEntry]) -> usize {
    let bytes = |entry: &TableEntry| ENTRY_HEADER_BYTES + entry.key.key.len() + entry.value.len();
    BODY_HEADER_BYTES + entries.iter().map(bytes).sum::<usize>()
}

/// Bytes that [`Table::encode_remove`] writes.
#[must_use]
pub fn remove_body_bytes(keys: &[TableKey]) -> usize {
    let bytes = |key: &TableKey| KEY_HEADER_BYTES + key.key.len();
    BODY_HEADER_BYTES + keys.iter().map(bytes).sum::<usize>()
}

/// Reads the body of an update; the entries share the memory of `body`.
///
/// # Errors
/// Corrupt: short, with bytes left over, or with entries that no table takes.
pub fn decode_update(mut body: Bytes) -> Result<RecordedUpdate, Fault> {
    let base_length = take_offset(&mut body)?;
    let count = take_u32(&mut body)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (key, value) = take_entry(&mut body)?;
        entries.push(TableEntry { key: unconditional(key), value });
    }
    expect_end(&body)?;
    Ok(RecordedUpdate { base_length, entries })
}

/// Reads the body of a removal; the keys share the memory of `body`.
///
/// # Errors
/// Corrupt: short, with bytes left over, or with keys that no table takes.
pub fn decode_remove(mut body: Bytes) -> Result<RecordedRemove, Fault> {
    let base_length = take_offset(&mut body)?;
    let count = take_u32(&mut body)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let key_length = take_u16(&mut body)?;
        keys.push(unconditional(take_bytes(&mut body, usize::from(key_length))?));
    }
    expect_end(&body)?;
    Ok(RecordedRemove { base_length, keys })
}

impl Table {
    /// Writes the body of an update that is about to be applied to this table.
    pub fn encode_update(&self, entries: &[TableEntry], out: &mut BytesMut) {
        self.encode_header(entries.len(), out);
        for entry in entries {
            put_entry(&entry.key.key, &entry.value, out);
        }
    }

    /// Writes the body of a removal that is about to be applied to this table.
    pub fn encode_remove(&self, keys: &[TableKey], out: &mut BytesMut) {
        self.encode_header(keys.len(), out);
        for key in keys {
            put_key_length(&key.key, out);
            out.put_slice(&key.key);
        }
    }

    /// Applies an update read from the journal.
    ///
    /// # Errors
    /// Corrupt, with nothing changed: the base length is not this table's, or this table takes no
    /// such entries.
    pub fn replay_update(&mut self, update: &RecordedUpdate) -> Result<(), Fault> {
        self.expect_base(update.base_length)?;
        self.check_update(&update.entries, None).map_err(not_taken)?;
        self.apply_update(&update.entries);
        Ok(())
    }

    /// Applies a removal read from the journal.
    ///
    /// # Errors
    /// Corrupt, with nothing changed: the base length is not this table's, or this table has no
    /// such keys.
    pub fn replay_remove(&mut self, remove: &RecordedRemove) -> Result<(), Fault> {
        self.expect_base(remove.base_length)?;
        self.check_remove(&remove.keys, None).map_err(not_taken)?;
        self.apply_remove(&remove.keys);
        Ok(())
    }

    fn encode_header(&self, count: usize, out: &mut BytesMut) {
        out.put_u64_le(self.length.0);
        out.put_u32_le(u32::try_from(count).expect("a batch has at most 32 MiB"));
    }

    fn expect_base(&self, base: Offset) -> Result<(), Fault> {
        if base == self.length {
            return Ok(());
        }
        Err(corrupt(format!(
            "table operation for length {} where the table has length {}",
            base.0, self.length.0
        )))
    }
}

/// Writes an entry as bodies and snapshots hold it.
pub(super) fn put_entry(key: &[u8], value: &[u8], out: &mut BytesMut) {
    put_key_length(key, out);
    out.put_u32_le(u32::try_from(value.len()).expect("an entry has at most 1 MiB"));
    out.put_slice(key);
    out.put_slice(value);
}

/// Reads what [`put_entry`] wrote.
pub(super) fn take_entry(from: &mut Bytes) -> Result<(Bytes, Bytes), Fault> {
    let key_length = take_u16(from)?;
    let value_length = take_u32(from)?;
    let key = take_bytes(from, usize::from(key_length))?;
    let value = take_bytes(from, value_length as usize)?;
    Ok((key, value))
}

pub(super) fn take_u16(from: &mut Bytes) -> Result<u16, Fault> {
    from.try_get_u16_le().map_err(|_| short())
}

pub(super) fn take_u32(from: &mut Bytes) -> Result<u32, Fault> {
    from.try_get_u32_le().map_err(|_| short())
}

/// Reads a position of a log. Half of what the wire can say is far beyond any log, and leaves room
/// to go on from there without a check.
pub(super) fn take_offset(from: &mut Bytes) -> Result<Offset, Fault> {
    let offset = from.try_get_u64_le().map_err(|_| short())?;
    if offset > POSITION_MAX {
        return Err(corrupt(format!("table position {offset} is out of range")));
    }
    Ok(Offset(offset))
}

pub(super) fn corrupt(detail: String) -> Fault {
    Fault::new(FaultClass::Corrupt, detail)
}

fn take_bytes(from: &mut Bytes, bytes: usize) -> Result<Bytes, Fault> {
    if from.len() < bytes { Err(short()) } else { Ok(from.split_to(bytes)) }
}

fn put_key_length(key: &[u8], out: &mut BytesMut) {
    out.put_u16_le(u16::try_from(key.len()).expect("a key has at most 8192 bytes"));
}

fn unconditional(key: Bytes) -> TableKey {
    TableKey { key, condition: VersionCondition::Any }
}

fn expect_end(body: &Bytes) -> Result<(), Fault> {
    if body.is_empty() {
        return Ok(());
    }
    Err(corrupt(format!("{} bytes left over behind a table operation", body.len())))
}

fn short() -> Fault {
    corrupt("table operation or snapshot is too short".to_owned())
}

fn not_taken(refusal: TableRefusal) -> Fault {
    corrupt(format!("table operation that this table would have refused: {refusal:?}"))
}
