//! Snapshots of tables for checkpoints: live entries with their versions, and the length of the
//! log. Byte table: `docs/formats.md`.

use bytes::{BufMut, Bytes, BytesMut};

use super::operation::{corrupt, put_entry, take_entry, take_offset, take_u16, take_u32};
use super::record::Record;
use super::{Table, log_bytes, version_at};
use crate::fault::Fault;
use crate::limits::{TABLE_ENTRY_BYTES_MAX, TABLE_KEY_LENGTH_MAX};

/// Key length, length of the log, number of entries.
const HEADER_BYTES: usize = 14;
/// Version and lengths of key and value.
const ENTRY_HEADER_BYTES: usize = 14;

impl Table {
    /// Bytes that [`encode_snapshot`](Self::encode_snapshot) writes.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        let bytes =
            |record: &Record| ENTRY_HEADER_BYTES + record.key().len() + record.value().len();
        HEADER_BYTES + self.by_key.keys().map(bytes).sum::<usize>()
    }

    /// Writes the whole table, entries in the order of their keys.
    pub fn encode_snapshot(&self, out: &mut BytesMut) {
        out.put_u16_le(self.key_length);
        out.put_u64_le(self.length.0);
        out.put_u32_le(u32::try_from(self.by_key.len()).expect("memory holds fewer entries"));
        for (record, &version) in &self.by_key {
            out.put_i64_le(version);
            put_entry(record.key(), record.value(), out);
        }
    }

    /// Reads a table that [`encode_snapshot`](Self::encode_snapshot) wrote and leaves what follows
    /// it. Values are copied: the table keeps nothing of `from` alive.
    ///
    /// # Errors
    /// Corrupt: short, or no table can be so.
    pub fn decode_snapshot(from: &mut Bytes) -> Result<Self, Fault> {
        let key_length = take_u16(from)?;
        if key_length > TABLE_KEY_LENGTH_MAX {
            return Err(corrupt(format!("table with keys of {key_length} bytes")));
        }
        let mut table = Self::new(key_length);
        table.length = take_offset(from)?;
        let count = take_u32(from)?;
        for _ in 0..count {
            table.decode_entry(from)?;
        }
        table.check_history()?;
        Ok(table)
    }

    fn decode_entry(&mut self, from: &mut Bytes) -> Result<(), Fault> {
        let start = take_offset(from)?;
        let (key, value) = take_entry(from)?;
        let bytes = log_bytes(&key, &value);
        self.check_key("key", &key)
            .map_err(|refusal| corrupt(format!("table snapshot with a wrong key: {refusal:?}")))?;
        if bytes > TABLE_ENTRY_BYTES_MAX || start.0 + bytes as u64 > self.length.0 {
            return Err(corrupt(format!(
                "table entry of {bytes} bytes at {} is out of range",
                start.0
            )));
        }
        if self.by_key.last_key_value().is_some_and(|(last, _)| last.key() >= key.as_ref()) {
            return Err(corrupt("table snapshot with keys out of order".to_owned()));
        }
        self.remember(Record::new(&key, &value), version_at(start));
        Ok(())
    }

    /// Entries of one log do not overlap; two with one version would lose one of them.
    fn check_history(&self) -> Result<(), Fault> {
        let mut places: Vec<(i64, usize)> = self
            .by_key
            .iter()
            .map(|(record, &version)| (version, log_bytes(record.key(), record.value())))
            .collect();
        places.sort_unstable();
        let mut end = 0;
        for (version, bytes) in places {
            if version < end {
                return Err(corrupt(format!(
                    "table snapshot with entries that overlap at {version}"
                )));
            }
            end = version + bytes as i64;
        }
        Ok(())
    }
}
