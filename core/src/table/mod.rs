//! The state of one table segment: a versioned map from keys to values, all of it in memory.
//!
//! Two layouts, chosen at creation: keys of any length (with delta iteration) and keys of one fixed
//! length. A version is the byte offset of its entry in a virtual log to which updates and removals
//! append, so versions grow and are never reused; superseded parts of that log are not kept.
//!
//! A change is made in two steps, so that the engine can write the operation into the open frame
//! between them: `check_*` decides against the state before the batch, `apply_*` cannot fail.
//! Replay decodes the same bodies ([`operation`]) and arrives at the same versions. Checkpoints
//! keep a table as a [`snapshot`].
//!
//! This room knows nothing of names, seals, frames and durability: the container does.
//!
//! Memory: key and value are copied into one exactly sized block, never kept as slices of a receive
//! buffer or a frame. Besides its key and value an entry costs about [`ENTRY_MEMORY_BYTES`], and in
//! tables with delta iteration [`HISTORY_MEMORY_BYTES`] more (measured with a million).

pub mod operation;
mod page;
mod record;
mod refusal;
pub mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use page::DeltaPage;
pub use refusal::TableRefusal;

use crate::canary::{self, Canary};
use crate::limits::{
    TABLE_ENTRY_BYTES_MAX, TABLE_ENTRY_HEADER_BYTES, TABLE_KEY_BYTES_MAX, TABLE_KEY_LENGTH_MAX,
    WIRE_FRAME_BYTES_MAX,
};
use crate::position::Offset;
use crate::request::{FoundEntry, TableEntry, TableItems, TableKey, VersionCondition};
use record::Record;

/// Largest batch of updates or removals: bytes of its entries with their headers.
pub const TABLE_BATCH_BYTES_MAX: usize = 32 << 20;

/// Memory of an entry besides key and value, bytes: a block of its own (reference counts, key
/// length, allocator) and 24 bytes in the nodes of the key tree, which are about 70 % full.
pub const ENTRY_MEMORY_BYTES: usize = 72;

/// Memory of an entry's place in the history that delta iteration reads, bytes: 24 bytes in the
/// nodes of the version tree, which are half full, because versions come in ascending order.
pub const HISTORY_MEMORY_BYTES: usize = 52;

/// Most bytes that a reply's items may take on the wire: a frame without its head, in which the
/// name of the segment is the only field of variable size.
const REPLY_ITEM_BYTES_MAX: usize = WIRE_FRAME_BYTES_MAX - u16::MAX as usize - 64;

/// One table segment. See the module's comment.
#[derive(Debug)]
pub struct Table {
    key_length: u16,
    /// End of the virtual log; the version of the next entry.
    length: Offset,
    /// Live entries with their versions, by key.
    by_key: BTreeMap<Record, i64>,
    /// The same records by version. Empty in tables with a fixed key length.
    by_version: BTreeMap<i64, Record>,
    memory_bytes: usize,
}

impl Table {
    /// An empty table; `key_length` 0 means keys of any length.
    ///
    /// # Panics
    /// When `key_length` is over [`TABLE_KEY_LENGTH_MAX`]: translation refuses that.
    #[must_use]
    pub fn new(key_length: u16) -> Self {
        assert!(key_length <= TABLE_KEY_LENGTH_MAX, "a fixed key length is at most 256");
        Self {
            key_length,
            length: Offset(0),
            by_key: BTreeMap::new(),
            by_version: BTreeMap::new(),
            memory_bytes: 0,
        }
    }

    /// Length of every key; 0 when keys have any length.
    #[must_use]
    pub fn key_length(&self) -> u16 {
        self.key_length
    }

    /// Length of the virtual log: bytes ever put, removals included.
    #[must_use]
    pub fn length(&self) -> Offset {
        self.length
    }

    /// Number of live entries.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.by_key.len() as u64
    }

    /// Whether there is no live entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Memory of the live entries in bytes, overheads estimated.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether the batch may be put: arguments, then the conditions on keys, then the condition on
    /// the table's length. All are judged against the state as it is; a key may occur repeatedly.
    ///
    /// # Errors
    /// The refusal of the whole batch; an absent key that had to exist outranks other mismatches.
    pub fn check_update(
        &self,
        entries: &[TableEntry],
        expected_length: Option<Offset>,
    ) -> Result<(), TableRefusal> {
        let mut batch_bytes = 0;
        for entry in entries {
            self.check_key("entry key", &entry.key.key)?;
            let bytes = log_bytes(&entry.key.key, &entry.value);
            if bytes > TABLE_ENTRY_BYTES_MAX {
                return Err(TableRefusal::IllegalArgument(format!(
                    "entry of {bytes} bytes is larger than {TABLE_ENTRY_BYTES_MAX}"
                )));
            }
            batch_bytes += bytes;
        }
        check_batch_bytes(batch_bytes)?;
        self.check_conditions(entries.iter().map(|entry| &entry.key))?;
        self.check_length(expected_length)
    }

    /// Puts a batch that [`check_update`](Self::check_update) allowed; of entries with equal keys
    /// the last one stays. Returns one version per entry, each larger than the one before.
    pub fn apply_update(&mut self, entries: &[TableEntry]) -> Vec<i64> {
        entries.iter().map(|entry| self.put(&entry.key.key, &entry.value)).collect()
    }

    /// Whether the keys may be removed. As [`check_update`](Self::check_update); a key that is
    /// absent may be removed with no condition or with the condition that it be absent.
    ///
    /// # Errors
    /// The refusal of the whole batch.
    pub fn check_remove(
        &self,
        keys: &[TableKey],
        expected_length: Option<Offset>,
    ) -> Result<(), TableRefusal> {
        let mut batch_bytes = 0;
        for key in keys {
            self.check_key("key", &key.key)?;
            batch_bytes += log_bytes(&key.key, &[]);
        }
        check_batch_bytes(batch_bytes)?;
        self.check_conditions(keys.iter())?;
        self.check_length(expected_length)
    }

    /// Removes keys that [`check_remove`](Self::check_remove) allowed. The log grows for each, also
    /// for absent ones.
    pub fn apply_remove(&mut self, keys: &[TableKey]) {
        for key in keys {
            let version = self.by_key.get(key.key.as_ref()).copied();
            let reuses = canary::has(Canary::TableVersionReused);
            if let Some(version) = version.filter(|_| reuses && self.ends_with(&key.key)) {
                self.length = Offset(version.unsigned_abs());
            } else {
                self.length = self.length.advance(log_bytes(&key.key, &[]) as u64);
            }
            self.forget(&key.key);
        }
    }

    /// One entry per key, in the order of the keys; absent ones have version −1 and no value.
    ///
    /// # Errors
    /// Illegal argument when a key cannot be one of this table, or when the reply would not fit
    /// into a wire frame.
    pub fn get(&self, keys: &[Bytes]) -> Result<Vec<FoundEntry>, TableRefusal> {
        let mut reply_bytes = 0;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            self.check_key("key", key)?;
            let entry = match self.by_key.get_key_value(key.as_ref()) {
                Some((record, &version)) => record.found(version, TableItems::Entries),
                None => FoundEntry { key: key.clone(), value: Bytes::new(), version: -1 },
            };
            reply_bytes += page::wire_bytes(&entry, TableItems::Entries);
            if reply_bytes > REPLY_ITEM_BYTES_MAX {
                return Err(TableRefusal::IllegalArgument(format!(
                    "the entries of these keys take more than {REPLY_ITEM_BYTES_MAX} bytes"
                )));
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// Puts one entry and returns its version.
    fn put(&mut self, key: &[u8], value: &[u8]) -> i64 {
        let version = version_at(self.length);
        self.length = self.length.advance(log_bytes(key, value) as u64);
        self.forget(key);
        self.remember(Record::new(key, value), version);
        version
    }

    /// Adds a record whose key is absent.
    fn remember(&mut self, record: Record, version: i64) {
        self.memory_bytes += self.record_memory(&record);
        if self.has_history() {
            self.by_version.insert(version, record.clone());
        }
        let earlier = self.by_key.insert(record, version);
        debug_assert!(earlier.is_none(), "the caller removed the key");
    }

    /// Whether the entry of `key` is the last of the log.
    fn ends_with(&self, key: &[u8]) -> bool {
        self.by_key.get_key_value(key).is_some_and(|(record, version)| {
            let bytes = log_bytes(record.key(), record.value()) as u64;
            Offset(version.unsigned_abs() + bytes) == self.length
        })
    }

    /// Drops the record of `key`, if there is one.
    fn forget(&mut self, key: &[u8]) {
        if let Some((record, version)) = self.by_key.remove_entry(key) {
            self.by_version.remove(&version);
            self.memory_bytes -= self.record_memory(&record);
        }
    }

    fn record_memory(&self, record: &Record) -> usize {
        let history = if self.has_history() { HISTORY_MEMORY_BYTES } else { 0 };
        ENTRY_MEMORY_BYTES + history + record.key().len() + record.value().len()
    }

    /// Whether delta iteration is served.
    fn has_history(&self) -> bool {
        self.key_length == 0
    }

    /// Refuses keys that cannot be in this table.
    fn check_key(&self, what: &str, key: &[u8]) -> Result<(), TableRefusal> {
        let bytes = key.len();
        if !self.has_history() && bytes != usize::from(self.key_length) {
            return Err(TableRefusal::IllegalArgument(format!(
                "{what} of {bytes} bytes in a table with keys of {}",
                self.key_length
            )));
        }
        if bytes == 0 || bytes > TABLE_KEY_BYTES_MAX {
            return Err(TableRefusal::IllegalArgument(format!(
                "{what} of {bytes} bytes is not within 1 and {TABLE_KEY_BYTES_MAX}"
            )));
        }
        Ok(())
    }

    fn check_conditions<'a>(
        &self,
        keys: impl Iterator<Item = &'a TableKey>,
    ) -> Result<(), TableRefusal> {
        let mut is_mismatch = false;
        for key in keys {
            let version = self.by_key.get(key.key.as_ref()).copied();
            match (key.condition, version) {
                (VersionCondition::Any, _) | (VersionCondition::Absent, None) => {}
                (VersionCondition::Exactly(expected), Some(actual)) if expected == actual => {}
                // Outranks mismatches of other keys. Tables with a fixed key length never say it.
                (VersionCondition::Exactly(_), None) if self.has_history() => {
                    return Err(TableRefusal::KeyDoesNotExist);
                }
                (VersionCondition::Absent | VersionCondition::Exactly(_), _) => is_mismatch = true,
            }
        }
        if is_mismatch { Err(TableRefusal::BadKeyVersion) } else { Ok(()) }
    }

    fn check_length(&self, expected: Option<Offset>) -> Result<(), TableRefusal> {
        match expected {
            Some(expected) if expected != self.length => {
                Err(TableRefusal::OtherLength { length: self.length, expected })
            }
            _ => Ok(()),
        }
    }
}

fn check_batch_bytes(bytes: usize) -> Result<(), TableRefusal> {
    if bytes > TABLE_BATCH_BYTES_MAX {
        return Err(TableRefusal::IllegalArgument(format!(
            "batch of {bytes} bytes is larger than {TABLE_BATCH_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Bytes that an entry takes in the virtual log.
fn log_bytes(key: &[u8], value: &[u8]) -> usize {
    TABLE_ENTRY_HEADER_BYTES + key.len() + value.len()
}

/// The version of an entry that starts at `offset`.
fn version_at(offset: Offset) -> i64 {
    i64::try_from(offset.0).expect("an offset stays below 2^63")
}
