//! Frames in memory: those behind the tail, as they were written, and those read back from the
//! journal. Both are bounded by bytes and give up the oldest first.
//!
//! A cached frame is shared, not copied: a reply that holds a piece keeps the frame's memory alive
//! after it left the cache. What is in a cache is never the only copy of anything durable.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::position::JournalAddress;
use crate::rare::{self, Point};

/// Frames behind the tail, in journal order.
#[derive(Debug)]
pub(crate) struct TailCache {
    bytes_max: usize,
    bytes: usize,
    /// Ascending addresses.
    frames: VecDeque<(JournalAddress, Bytes)>,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, frames: VecDeque::new() }
    }

    /// Adds the newest frame. The newest one is kept even when it alone exceeds the budget.
    pub(crate) fn push(&mut self, address: JournalAddress, frame: Bytes) {
        if let Some((newest, _)) = self.frames.back() {
            assert!(*newest < address, "frames come in journal order");
        }
        self.bytes += frame.len();
        self.frames.push_back((address, frame));
        let bytes_max = if rare::maybe(Point::EvictTail) { 0 } else { self.bytes_max };
        while self.bytes > bytes_max && self.frames.len() > 1 {
            let (_, oldest) = self.frames.pop_front().expect("there are several");
            self.bytes -= oldest.len();
        }
    }

    pub(crate) fn get(&self, address: JournalAddress) -> Option<&Bytes> {
        let index = self.frames.binary_search_by_key(&address, |(held, _)| *held).ok()?;
        self.frames.get(index).map(|(_, frame)| frame)
    }
}

/// Frames read back, in the order they came.
#[derive(Debug)]
pub(crate) struct HistoryCache {
    bytes_max: usize,
    bytes: usize,
    frames: BTreeMap<JournalAddress, Bytes>,
    order: VecDeque<JournalAddress>,
}

impl HistoryCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, frames: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Adds a frame. It is kept even when it alone exceeds the budget: whoever waited for it reads
    /// it next.
    pub(crate) fn insert(&mut self, address: JournalAddress, frame: Bytes) {
        self.bytes += frame.len();
        if let Some(earlier) = self.frames.insert(address, frame) {
            self.bytes -= earlier.len();
        } else {
            self.order.push_back(address);
        }
        while self.bytes > self.bytes_max && self.order.len() > 1 {
            let oldest = self.order.pop_front().expect("there are several");
            let frame = self.frames.remove(&oldest).expect("order and frames hold the same");
            self.bytes -= frame.len();
        }
    }

    pub(crate) fn get(&self, address: JournalAddress) -> Option<&Bytes> {
        self.frames.get(&address)
    }

    /// Bytes that may be held.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::FileId;

    fn address(block: u32) -> JournalAddress {
        JournalAddress::new(FileId(1), block, 1)
    }

    fn frame() -> Bytes {
        Bytes::from_static(&[0; 4096])
    }

    /// Shows that the tail cache holds the newest frames of its budget, and at least one.
    #[test]
    fn tail_cache_keeps_the_newest() {
        let mut cache = TailCache::new(3 * 4096);
        for block in 0..5 {
            cache.push(address(block), frame());
        }
        let held: Vec<bool> = (0..5).map(|block| cache.get(address(block)).is_some()).collect();
        assert_eq!(held, [false, false, true, true, true]);
        let mut tiny = TailCache::new(0);
        tiny.push(address(1), frame());
        tiny.push(address(2), frame());
        assert!(tiny.get(address(1)).is_none());
        assert!(tiny.get(address(2)).is_some());
    }

    /// Shows that a frame just read back is there, whatever the budget.
    #[test]
    fn history_cache_keeps_what_came_last() {
        let mut cache = HistoryCache::new(2 * 4096);
        for block in [9, 3, 7, 3] {
            cache.insert(address(block), frame());
        }
        assert!(cache.get(address(9)).is_none());
        assert!(cache.get(address(3)).is_some());
        assert!(cache.get(address(7)).is_some());
        assert_eq!(cache.bytes, 2 * 4096);
    }
}
