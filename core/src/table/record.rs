//! A key and its value in one block of memory, shared by the trees of a table and by replies.
//!
//! The block is sized exactly and belongs to this entry alone, so that a small entry never keeps a
//! large buffer alive. Records are ordered by key, and only by key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use crate::request::{FoundEntry, TableItems};

/// Bytes in front of the key that hold its length.
const PREFIX_BYTES: usize = 2;

/// Length of the key in two bytes, key, value. One fat pointer: the trees hold two per entry.
#[derive(Clone)]
pub(super) struct Record(Arc<[u8]>);

impl Record {
    /// Copies key and value.
    ///
    /// # Panics
    /// When the key is longer than 65,535 bytes; tables allow far less.
    pub(super) fn new(key: &[u8], value: &[u8]) -> Self {
        let key_length = u16::try_from(key.len()).expect("keys are checked before");
        let bytes = PREFIX_BYTES + key.len() + value.len();
        // Allocated once at its size; collecting a vector first would copy twice.
        let mut block: Arc<[u8]> = std::iter::repeat_n(0, bytes).collect();
        let memory = Arc::get_mut(&mut block).expect("a new block has one owner");
        let (prefix, rest) = memory.split_at_mut(PREFIX_BYTES);
        prefix.copy_from_slice(&key_length.to_le_bytes());
        let (key_memory, value_memory) = rest.split_at_mut(key.len());
        key_memory.copy_from_slice(key);
        value_memory.copy_from_slice(value);
        Self(block)
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.0[PREFIX_BYTES..self.value_start()]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    /// The entry as a reply tells it. Shares the record's memory.
    pub(super) fn found(&self, version: i64, items: TableItems) -> FoundEntry {
        let block = Bytes::from_owner(Arc::clone(&self.0));
        let value_start = self.value_start();
        let value = match items {
            TableItems::Keys => Bytes::new(),
            TableItems::Entries => block.slice(value_start..),
        };
        FoundEntry { key: block.slice(PREFIX_BYTES..value_start), value, version }
    }

    fn value_start(&self) -> usize {
        PREFIX_BYTES + usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }
}

impl Borrow<[u8]> for Record {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Record {}

impl std::fmt::Debug for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} ({} bytes)", Bytes::copy_from_slice(self.key()), self.value().len())
    }
}
