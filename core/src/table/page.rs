//! Pages of a table: iteration by key and by version.
//!
//! Both are stateless: a reply says where to go on and the table keeps nothing about it. Keys are
//! walked in their order and a token names the last key told, so every key that is there during
//! the whole iteration is told exactly once, whatever changes around it.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Table, TableRefusal, log_bytes, version_at};
use crate::limits::{READ_REPLY_BYTES_MAX, TABLE_ENTRY_BYTES_MAX, TABLE_KEY_BYTES_MAX};
use crate::request::{FoundEntry, TableItems};

/// First byte of every continuation token; the last key told follows.
const TOKEN_MARK: u8 = 0x74;

// Any entry fits into an empty page.
const _: () = assert!(TABLE_ENTRY_BYTES_MAX + 24 <= READ_REPLY_BYTES_MAX as usize);

/// Changes at or after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaPage {
    /// Live entries in the order of their versions.
    pub entries: Vec<FoundEntry>,
    /// No live entry has a version at or after `last_position`.
    pub reached_end: bool,
    /// Where to go on: behind every change that the page covers.
    pub last_position: i64,
}

impl Table {
    /// Up to `count` entries in the order of their keys, at most 2 MiB on the wire, and the token
    /// to go on with; it is empty when there are no entries. An empty `continuation` begins. `from`
    /// and `to` bound the keys, inclusive; empty bounds are open.
    ///
    /// # Errors
    /// Illegal argument: bounds of a wrong length or order, or, in tables with a fixed key length,
    /// a token (there clients go on with `from`). Protocol: a token that is none of ours.
    pub fn iterate(
        &self,
        count: i32,
        continuation: &[u8],
        from: &[u8],
        to: &[u8],
        items: TableItems,
    ) -> Result<(Vec<FoundEntry>, Bytes), TableRefusal> {
        let start = self.iteration_start(continuation, from, to)?;
        let mut page = Page::new(count, items);
        for (record, &version) in self.by_key.range::<[u8], _>((start, Bound::Unbounded)) {
            let is_behind = !to.is_empty() && record.key() > to;
            if is_behind || !page.add(record.found(version, items)) {
                break;
            }
        }
        let token = page.entries.last().map_or_else(Bytes::new, |entry| token_after(&entry.key));
        Ok((page.entries, token))
    }

    /// Live entries with versions of at least `from` in the order of their versions, up to `count`
    /// and 2 MiB on the wire. Removed keys just vanish. A page of a positive `count` is empty only
    /// when no live entry is left.
    ///
    /// # Errors
    /// Unsupported in tables with a fixed key length; illegal argument when `from` is negative or
    /// behind the end.
    pub fn delta(&self, from: i64, count: i32) -> Result<DeltaPage, TableRefusal> {
        if !self.has_history() {
            return Err(TableRefusal::Unsupported { operation: "readTableEntriesDelta" });
        }
        let end = version_at(self.length);
        if !(0..=end).contains(&from) {
            return Err(TableRefusal::IllegalArgument(format!(
                "position {from} is not within 0 and {end}"
            )));
        }
        let mut page = Page::new(count, TableItems::Entries);
        let mut last_position = from;
        let mut reached_end = true;
        for (&version, record) in self.by_version.range(from..) {
            if !page.add(record.found(version, TableItems::Entries)) {
                reached_end = false;
                break;
            }
            let bytes = log_bytes(record.key(), record.value());
            last_position = version + bytes as i64;
        }
        if reached_end {
            // Also covers what removals and superseded entries left behind the last live one.
            last_position = end;
        }
        Ok(DeltaPage { entries: page.entries, reached_end, last_position })
    }

    /// Where an iteration begins or goes on, after its arguments are checked.
    fn iteration_start<'a>(
        &self,
        continuation: &'a [u8],
        from: &'a [u8],
        to: &[u8],
    ) -> Result<Bound<&'a [u8]>, TableRefusal> {
        if !self.has_history() {
            if !continuation.is_empty() {
                return Err(TableRefusal::IllegalArgument(
                    "continuation token in a table with keys of fixed length".to_owned(),
                ));
            }
            for (what, bound) in [("lower bound", from), ("upper bound", to)] {
                if !bound.is_empty() {
                    self.check_key(what, bound)?;
                }
            }
        }
        let last = match continuation {
            [] => None,
            [TOKEN_MARK, last @ ..] if (1..=TABLE_KEY_BYTES_MAX).contains(&last.len()) => {
                Some(last)
            }
            _ => return Err(TableRefusal::Protocol),
        };
        if !from.is_empty() && !to.is_empty() && from > to {
            return Err(TableRefusal::IllegalArgument(
                "the lower bound is greater than the upper bound".to_owned(),
            ));
        }
        Ok(match last {
            Some(last) if last >= from => Bound::Excluded(last),
            _ => Bound::Included(from),
        })
    }
}

/// The token that goes on behind `key`.
fn token_after(key: &[u8]) -> Bytes {
    let mut token = BytesMut::with_capacity(1 + key.len());
    token.put_u8(TOKEN_MARK);
    token.put_slice(key);
    token.freeze()
}

/// Bytes of an item in a reply: a key has two lengths and a version around it, a value two lengths.
pub(super) fn wire_bytes(entry: &FoundEntry, items: TableItems) -> usize {
    match items {
        TableItems::Keys => 16 + entry.key.len(),
        TableItems::Entries => 24 + entry.key.len() + entry.value.len(),
    }
}

/// Items of a reply while they are collected.
struct Page {
    entries: Vec<FoundEntry>,
    items: TableItems,
    bytes: usize,
    count: usize,
}

impl Page {
    fn new(count: i32, items: TableItems) -> Self {
        Self { entries: Vec::new(), items, bytes: 0, count: usize::try_from(count).unwrap_or(0) }
    }

    /// Adds an item unless the page is full. A page whose count allows one takes at least one item,
    /// so that an iteration never stands still.
    fn add(&mut self, entry: FoundEntry) -> bool {
        let bytes = self.bytes + wire_bytes(&entry, self.items);
        if self.entries.len() >= self.count || bytes > READ_REPLY_BYTES_MAX as usize {
            return false;
        }
        self.bytes = bytes;
        self.entries.push(entry);
        true
    }
}
