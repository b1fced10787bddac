//! Numbers that say *where*: offsets in segments, operations in a log, frames in a journal.
//!
//! Arithmetic is checked; positions of different kinds do not mix.

use std::fmt;

/// Size of a journal block in bytes. Frames start on block boundaries. Part of the format.
pub const BLOCK_BYTES: u64 = 4096;

/// Byte position in one segment, counted from its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `bytes` further on.
    ///
    /// # Panics
    /// When it would pass 2^63 − 1, which no segment reaches: the wire has signed offsets.
    #[must_use]
    pub fn advance(self, bytes: u64) -> Self {
        let sum = self.0.checked_add(bytes).expect("an offset stays below 2^63");
        assert!(sum <= i64::MAX as u64, "an offset stays below 2^63");
        Self(sum)
    }

    /// Bytes from `earlier` to here.
    ///
    /// # Panics
    /// When `earlier` is behind `self`.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.checked_sub(earlier.0).expect("the earlier offset is not behind the later")
    }
}

/// Position of an operation in its container's log: 1 for the first, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// The next position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 operations are out of reach"))
    }
}

/// Which frame of a shard's journal, counted from 1 over the journal's whole life, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(pub u64);

impl FrameNumber {
    /// The next frame.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 frames are out of reach"))
    }
}

/// Grows with every opening of a data directory; an older epoch may no longer write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerEpoch(pub u64);

/// Which journal file of a shard, counted from 1; a recycled file gets a new id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

impl FileId {
    /// Largest id that a [`JournalAddress`] can hold: 2^24 − 1, 4 EiB of files of 256 MiB.
    pub const MAX: Self = Self((1 << 24) - 1);
}

/// Where a frame lies in a shard's journal: file, first block, number of blocks.
///
/// Packed into 64 bits (24, 20, 20), because the read index holds one for each segment and
/// frame. Order is journal order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalAddress(u64);

impl JournalAddress {
    /// The address of a frame of `blocks` blocks that starts at block `first` of `file`.
    ///
    /// # Panics
    /// When a part does not fit: `file` over [`FileId::MAX`], `first` or `blocks` of 2^20 or more
    /// (4 GiB), or no block at all.
    pub fn new(file: FileId, first: u32, blocks: u32) -> Self {
        assert!(file <= FileId::MAX, "journal file id fits 24 bits");
        assert!(first < 1 << 20, "first block fits 20 bits");
        assert!(blocks > 0, "a frame has at least one block");
        assert!(blocks < 1 << 20, "block count fits 20 bits");
        Self((u64::from(file.0) << 40) | (u64::from(first) << 20) | u64::from(blocks))
    }

    /// The file.
    pub fn file(self) -> FileId {
        FileId((self.0 >> 40) as u32)
    }

    /// The frame's first block in the file.
    pub fn first_block(self) -> u32 {
        (self.0 >> 20) as u32 & 0xF_FFFF
    }

    /// Number of blocks.
    pub fn blocks(self) -> u32 {
        self.0 as u32 & 0xF_FFFF
    }

    /// Byte offset of the frame in its file.
    pub fn file_offset(self) -> u64 {
        u64::from(self.first_block()) * BLOCK_BYTES
    }

    /// Size of the frame in bytes, header and padding included.
    pub fn frame_bytes(self) -> u64 {
        u64::from(self.blocks()) * BLOCK_BYTES
    }

    /// The packed form, for formats.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The address that [`to_bits`](Self::to_bits) packed; `None` when no block is named.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits & 0xF_FFFF != 0).then_some(Self(bits))
    }
}

impl fmt::Debug for JournalAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}+{}", self.file().0, self.first_block(), self.blocks())
    }
}

impl fmt::Display for JournalAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "file {} offset {}", self.file().0, self.file_offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packed form gives back each part, and compares as the journal is written.
    #[test]
    fn journal_addresses_keep_their_parts_and_order() {
        let early = JournalAddress::new(FileId(7), 3, 1000);
        let late = JournalAddress::new(FileId(7), 1003, 1);
        assert_eq!((early.file(), early.first_block(), early.blocks()), (FileId(7), 3, 1000));
        assert_eq!(early.file_offset(), 3 * 4096);
        assert!(early < late);
        assert!(late < JournalAddress::new(FileId(8), 0, 1));
        assert_eq!(JournalAddress::from_bits(early.to_bits()), Some(early));
        assert_eq!(JournalAddress::from_bits(0), None);
    }

    /// Positions beyond what the wire can say are a bug, not a wrapped number.
    #[test]
    #[should_panic(expected = "an offset stays below 2^63")]
    fn offsets_do_not_wrap() {
        let _ = Offset(i64::MAX as u64).advance(1);
    }
}
