//! The read index of a segment: which frame holds which of its bytes.
//!
//! One [`Extent`] per segment and frame. The append operations of an extent are chained inside the
//! frame, so the index does not grow with the number of appends. Extents follow each other without
//! gap and are sorted by offset. Bytes that came by a merge were recorded under the source's id and
//! offsets; [`Origin`]s remember that, so that a reader can check each operation it meets.

use std::collections::{BTreeMap, VecDeque};

use crate::id::SegmentId;
use crate::position::{FileId, FrameNumber, JournalAddress, Offset};

/// A frame by its address, or by its number while the address is not known. Packed: an address
/// names at least one block in its low 20 bits, a number leaves them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameReference(u64);

impl FrameReference {
    const NUMBER_SHIFT: u32 = 20;

    pub(crate) fn at(address: JournalAddress) -> Self {
        Self(address.to_bits())
    }

    /// # Panics
    /// After 2^44 frames.
    pub(crate) fn pending(number: FrameNumber) -> Self {
        assert!(number.0 < 1 << (64 - Self::NUMBER_SHIFT), "frame number fits 44 bits");
        Self(number.0 << Self::NUMBER_SHIFT)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn address(self) -> Option<JournalAddress> {
        JournalAddress::from_bits(self.0)
    }

    /// The number, while that is all that is known.
    pub(crate) fn number(self) -> Option<FrameNumber> {
        self.address().is_none().then_some(FrameNumber(self.0 >> Self::NUMBER_SHIFT))
    }
}

/// A run of a segment's bytes in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Of its first byte in the segment.
    pub(crate) offset: Offset,
    pub(crate) frame: FrameReference,
    /// Of its first append operation in the frame.
    pub(crate) position: u32,
    pub(crate) length: u32,
}

const _: () = assert!(size_of::<Extent>() == 24);

impl Extent {
    pub(crate) fn end(&self) -> Offset {
        self.offset.advance(u64::from(self.length))
    }
}

/// Bytes of this segment that were recorded as those of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// The segment they were appended to.
    pub(crate) segment: SegmentId,
    /// Offset here of that segment's offset 0.
    pub(crate) base: Offset,
}

/// Where a walk over the operations of a frame may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WalkHint {
    pub(crate) frame: FrameReference,
    pub(crate) position: u32,
    /// Of the first byte of the operation at `position`.
    pub(crate) offset: Offset,
}

/// How many extents lie in each journal file, over all segments of a shard.
#[derive(Debug, Default)]
pub(crate) struct FileReferences(BTreeMap<FileId, u64>);

impl FileReferences {
    pub(crate) fn add(&mut self, file: FileId, extents: u64) {
        if extents > 0 {
            *self.0.entry(file).or_insert(0) += extents;
        }
    }

    pub(crate) fn release(&mut self, file: FileId) {
        let count = self.0.get_mut(&file).expect("a file is released as often as it was added");
        *count -= 1;
        if *count == 0 {
            self.0.remove(&file);
        }
    }

    pub(crate) fn contains(&self, file: FileId) -> bool {
        self.0.contains_key(&file)
    }
}

/// See the module's comment.
#[derive(Debug, Default)]
pub(crate) struct Index {
    extents: VecDeque<Extent>,
    /// Sorted, not overlapping; bytes in none of them are the segment's own.
    origins: VecDeque<Origin>,
    /// The last append operation that a further one of the same frame would be chained to.
    chain: Option<(FrameReference, u32)>,
    /// Extents whose frame is known by its number only.
    unresolved: usize,
    /// Where the last read ended.
    pub(crate) hint: Option<WalkHint>,
}

/// What an append changed in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexed {
    /// A new extent began.
    NewExtent,
    /// The last one grew; the operation before stands at this position of the same frame.
    Chained(u32),
}

impl Index {
    /// Adds `length` bytes, not 0, at the end, recorded at `position` of `frame`.
    pub(crate) fn append(
        &mut self,
        frame: FrameReference,
        position: u32,
        offset: Offset,
        length: u32,
    ) -> Indexed {
        assert!(length > 0, "an extent holds bytes");
        let before = self.chain.replace((frame, position));
        if let Some(last) = self.extents.back_mut() {
            assert!(last.end() == offset, "extents follow each other");
            if let Some((same, previous)) = before
                && same == frame
            {
                last.length += length;
                return Indexed::Chained(previous);
            }
        }
        self.extents.push_back(Extent { offset, frame, position, length });
        self.unresolved += usize::from(frame.address().is_none());
        Indexed::NewExtent
    }

    /// Adds everything of `source`, which begins at its offset 0, at `base`, the end of this one.
    /// Returns the frames whose addresses are not known yet.
    pub(crate) fn merge(
        &mut self,
        source: Index,
        source_segment: SegmentId,
        base: Offset,
        length: u64,
    ) -> Vec<FrameNumber> {
        let mut pending = Vec::new();
        self.unresolved += source.unresolved;
        for mut extent in source.extents {
            extent.offset = base.advance(extent.offset.0);
            if let Some(last) = self.extents.back() {
                assert!(last.end() == extent.offset, "extents follow each other");
            }
            pending.extend(extent.frame.number());
            self.extents.push_back(extent);
        }
        let end = base.advance(length);
        let mut covered = base;
        for origin in source.origins {
            let start = base.advance(origin.start.0);
            self.add_own(source_segment, base, covered, start);
            covered = base.advance(origin.end.0);
            let base = base.advance(origin.base.0);
            self.origins.push_back(Origin { start, end: covered, segment: origin.segment, base });
        }
        self.add_own(source_segment, base, covered, end);
        // A later append of the same frame must not be chained to one before the merged bytes.
        self.chain = None;
        pending
    }

    /// Drops the last extent, as a planted bug does; gives its length.
    pub(crate) fn drop_last(&mut self) -> u64 {
        let Some(last) = self.extents.pop_back() else { return 0 };
        self.unresolved -= usize::from(last.frame.address().is_none());
        u64::from(last.length)
    }

    /// End of what is in frames with addresses.
    pub(crate) fn resolved_end(&self) -> Offset {
        let known = self.extents.iter().rev().find(|extent| extent.frame.address().is_some());
        known.map_or(Offset(0), Extent::end)
    }

    fn add_own(&mut self, segment: SegmentId, base: Offset, start: Offset, end: Offset) {
        if start < end {
            self.origins.push_back(Origin { start, end, segment, base });
        }
    }

    /// Drops what lies wholly below `start`; `dropped` gets each extent.
    pub(crate) fn truncate(&mut self, start: Offset, mut dropped: impl FnMut(&Extent)) {
        while let Some(extent) = self.extents.front()
            && extent.end() <= start
        {
            dropped(extent);
            self.unresolved -= usize::from(extent.frame.address().is_none());
            self.extents.pop_front();
        }
        if self.extents.is_empty() {
            self.chain = None;
        }
        while self.origins.front().is_some_and(|origin| origin.end <= start) {
            self.origins.pop_front();
        }
    }

    /// Gives extents in frame `number` their address; returns how many there were.
    pub(crate) fn resolve(&mut self, number: FrameNumber, address: JournalAddress) -> usize {
        let pending = FrameReference::pending(number);
        let resolved = FrameReference::at(address);
        if let Some((frame, _)) = &mut self.chain
            && *frame == pending
        {
            *frame = resolved;
        }
        let mut count = 0;
        let mut left = self.unresolved;
        // From the end, where they are; merged extents with known addresses may lie between.
        for extent in self.extents.iter_mut().rev() {
            if left == 0 {
                break;
            }
            if extent.frame.address().is_none() {
                left -= 1;
            }
            if extent.frame == pending {
                extent.frame = resolved;
                count += 1;
            }
        }
        assert!(left == 0, "the number of unresolved extents is known");
        self.unresolved -= count;
        count
    }

    /// Number of the extent that holds `offset`.
    pub(crate) fn find(&self, offset: Offset) -> Option<usize> {
        let index = self.extents.partition_point(|extent| extent.end() <= offset);
        self.extents.get(index).filter(|extent| extent.offset <= offset).map(|_| index)
    }

    pub(crate) fn extent(&self, index: usize) -> Option<&Extent> {
        self.extents.get(index)
    }

    pub(crate) fn extents(&self) -> impl ExactSizeIterator<Item = &Extent> {
        self.extents.iter()
    }

    pub(crate) fn origins(&self) -> impl ExactSizeIterator<Item = &Origin> {
        self.origins.iter()
    }

    /// Where the bytes at `offset` were recorded: the segment, and the offset here of its offset 0.
    pub(crate) fn origin(&self, own: SegmentId, offset: Offset) -> (SegmentId, Offset) {
        let index = self.origins.partition_point(|origin| origin.end <= offset);
        match self.origins.get(index) {
            Some(origin) if origin.start <= offset => (origin.segment, origin.base),
            _ => (own, Offset(0)),
        }
    }

    /// Rebuilds an index from a checkpoint; extents and origins as they were told.
    pub(crate) fn restore(extents: VecDeque<Extent>, origins: VecDeque<Origin>) -> Self {
        let unresolved = extents.iter().filter(|extent| extent.frame.address().is_none()).count();
        Self { extents, origins, chain: None, unresolved, hint: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(block: u32) -> JournalAddress {
        JournalAddress::new(FileId(1), block, 1)
    }

    fn pending(number: u64) -> FrameReference {
        FrameReference::pending(FrameNumber(number))
    }

    /// Shows that appends of one frame share an extent and are chained, and other frames begin
    /// anew.
    #[test]
    fn appends_of_one_frame_share_an_extent() {
        let mut index = Index::default();
        assert_eq!(index.append(pending(7), 128, Offset(0), 10), Indexed::NewExtent);
        assert_eq!(index.append(pending(7), 300, Offset(10), 5), Indexed::Chained(128));
        assert_eq!(index.append(pending(8), 128, Offset(15), 5), Indexed::NewExtent);
        assert_eq!(index.resolve(FrameNumber(7), address(3)), 1);
        assert_eq!(index.find(Offset(14)), Some(0));
        assert_eq!(index.find(Offset(15)), Some(1));
        assert_eq!(index.find(Offset(20)), None);
        assert_eq!(index.extent(0).and_then(|extent| extent.frame.address()), Some(address(3)));
        assert_eq!(index.extent(1).and_then(|extent| extent.frame.number()), Some(FrameNumber(8)));
    }

    /// Shows that merged bytes keep where they were recorded, also when they were merged before.
    #[test]
    fn origins_survive_nested_merges() {
        let mut inner = Index::default();
        inner.append(pending(1), 128, Offset(0), 10);
        let mut middle = Index::default();
        middle.append(pending(1), 500, Offset(0), 20);
        assert_eq!(middle.merge(inner, SegmentId(3), Offset(20), 10), [FrameNumber(1)]);
        middle.append(pending(1), 900, Offset(30), 1);
        let mut outer = Index::default();
        outer.append(pending(1), 700, Offset(0), 100);
        outer.merge(middle, SegmentId(2), Offset(100), 31);
        assert_eq!(outer.append(pending(1), 950, Offset(131), 1), Indexed::NewExtent);
        let own = SegmentId(1);
        assert_eq!(outer.origin(own, Offset(99)), (own, Offset(0)));
        assert_eq!(outer.origin(own, Offset(100)), (SegmentId(2), Offset(100)));
        assert_eq!(outer.origin(own, Offset(125)), (SegmentId(3), Offset(120)));
        assert_eq!(outer.origin(own, Offset(130)), (SegmentId(2), Offset(100)));
        assert_eq!(outer.origin(own, Offset(131)), (own, Offset(0)));
        assert_eq!(outer.resolve(FrameNumber(1), address(9)), 5);
    }

    /// Shows that truncation drops whole extents only and tells each.
    #[test]
    fn truncation_drops_whole_extents() {
        let mut index = Index::default();
        for frame in 0..4 {
            index.append(pending(frame + 1), 128, Offset(frame * 10), 10);
        }
        let mut dropped = 0;
        index.truncate(Offset(25), |_| dropped += 1);
        assert_eq!(dropped, 2);
        assert_eq!(index.find(Offset(25)), Some(0));
        index.truncate(Offset(40), |_| dropped += 1);
        assert_eq!((dropped, index.extents().len()), (4, 0));
        assert_eq!(index.append(pending(4), 300, Offset(40), 1), Indexed::NewExtent);
    }
}
