//! The generations of a stream's segments and how segments follow each other. Pure.
//!
//! A history is never empty, begins with epoch 0 and counts up without gaps; the segments of each
//! epoch tile the key space. Of two different segments that share keys, the one with the lower
//! epoch comes first, since they are never active together.

use std::collections::BTreeSet;

use crate::id::{SegmentNumber, StreamEpoch, StreamSegmentId};
use crate::range::{KeyRange, uniform};

/// A segment and the keys it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SegmentRecord {
    /// Its id.
    pub(crate) id: StreamSegmentId,
    /// Its keys.
    pub(crate) range: KeyRange,
}

/// One generation of segments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EpochRecord {
    /// Its number.
    pub(crate) epoch: StreamEpoch,
    /// The epoch whose segments these are duplicates of; itself, unless a transaction of an earlier
    /// epoch was committed late.
    pub(crate) reference: StreamEpoch,
    /// Its segments, by key.
    pub(crate) segments: Vec<SegmentRecord>,
    /// When it began, in milliseconds since 1970.
    pub(crate) created_ms: i64,
}

/// A segment that follows another, and all segments that it follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Successor {
    /// The later segment.
    pub(crate) segment: SegmentRecord,
    /// All segments that must be read before it, in order of their keys.
    pub(crate) predecessors: Vec<StreamSegmentId>,
}

/// All epochs of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct History(Vec<EpochRecord>);

impl History {
    /// The history of a new stream: epoch 0 with `count` equal segments (at least 1), numbered from
    /// `first`.
    pub(crate) fn begin(count: u32, first: SegmentNumber, created_ms: i64) -> Self {
        assert!(count > 0, "a stream has a segment");
        let epoch = StreamEpoch(0);
        let numbers = first.0..;
        let segments = numbers
            .zip(uniform(count))
            .map(|(number, range)| SegmentRecord {
                id: StreamSegmentId::new(epoch, SegmentNumber(number)),
                range,
            })
            .collect();
        Self(vec![EpochRecord { epoch, reference: epoch, segments, created_ms }])
    }

    /// The history that was stored; `None` when it cannot be one.
    pub(crate) fn from_epochs(epochs: Vec<EpochRecord>) -> Option<Self> {
        let counts_up = epochs.iter().zip(0..).all(|(record, number)| record.epoch.0 == number);
        (!epochs.is_empty() && counts_up).then_some(Self(epochs))
    }

    /// All epochs, oldest first.
    pub(crate) fn epochs(&self) -> &[EpochRecord] {
        &self.0
    }

    /// The latest epoch.
    pub(crate) fn active(&self) -> &EpochRecord {
        self.0.last().expect("a history is never empty")
    }

    /// An epoch by its number.
    pub(crate) fn epoch(&self, epoch: StreamEpoch) -> Option<&EpochRecord> {
        self.0.get(usize::try_from(epoch.0).ok()?)
    }

    /// Every segment the stream ever had, once.
    pub(crate) fn segments(&self) -> Vec<SegmentRecord> {
        let mut seen = BTreeSet::new();
        let all = self.0.iter().flat_map(|epoch| &epoch.segments);
        all.filter(|segment| seen.insert(segment.id)).copied().collect()
    }

    /// A segment by its id.
    pub(crate) fn segment(&self, id: StreamSegmentId) -> Option<SegmentRecord> {
        // A segment is in the epoch that it was made in.
        let epoch = self.epoch(id.epoch)?;
        epoch.segments.iter().find(|segment| segment.id == id).copied()
    }

    /// The highest segment number in use.
    pub(crate) fn last_number(&self) -> SegmentNumber {
        let numbers = self.0.iter().flat_map(|epoch| &epoch.segments).map(|it| it.id.number);
        numbers.max().expect("every epoch has segments")
    }

    /// The segments that follow `id` directly: none while it is active, in the last epoch of a
    /// sealed stream, and for an unknown segment.
    pub(crate) fn successors(&self, id: StreamSegmentId) -> Vec<Successor> {
        let holds = |epoch: &EpochRecord, id| epoch.segments.iter().any(|it| it.id == id);
        let Some(last) = self.0.iter().rposition(|epoch| holds(epoch, id)) else {
            return Vec::new();
        };
        let (Some(segment), Some(next)) = (self.segment(id), self.0.get(last + 1)) else {
            return Vec::new();
        };
        let before = &self.0[last];
        let ended = |range: KeyRange| {
            let ended = before.segments.iter().filter(|it| !holds(next, it.id));
            ended.filter(|it| it.range.overlaps(&range)).map(|it| it.id).collect()
        };
        next.segments
            .iter()
            .filter(|it| !holds(before, it.id) && it.range.overlaps(&segment.range))
            .map(|it| Successor { segment: *it, predecessors: ended(it.range) })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::range::tiles;

    /// A history made by random splits and merges, the way scaling makes them.
    pub(crate) fn histories() -> impl Strategy<Value = History> {
        (1u32..5, prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..8))
            .prop_map(|(count, steps)| {
                let mut history = History::begin(count, SegmentNumber(0), 0);
                for (at, is_split) in steps {
                    let at = at.index(history.active().segments.len());
                    scale(&mut history, at, is_split);
                }
                history
            })
    }

    /// Splits the segment at `at` into two, or merges it with the one behind it.
    fn scale(history: &mut History, at: usize, is_split: bool) {
        let before = history.active().clone();
        let epoch = StreamEpoch(before.epoch.0 + 1);
        let mut number = history.last_number().0;
        let mut make = |low, high| {
            number += 1;
            SegmentRecord {
                id: StreamSegmentId::new(epoch, SegmentNumber(number)),
                range: KeyRange { low, high },
            }
        };
        let mut segments = before.segments.clone();
        let range = segments[at].range;
        if is_split {
            let middle = (range.low + range.high) / 2.0;
            segments.splice(at..=at, [make(range.low, middle), make(middle, range.high)]);
        } else if at + 1 < segments.len() {
            let merged = make(range.low, segments[at + 1].range.high);
            segments.splice(at..=at + 1, [merged]);
        } else {
            return;
        }
        history.0.push(EpochRecord { epoch, reference: epoch, segments, created_ms: 0 });
    }

    proptest! {
        /// Shows that successors cover exactly the ended segment's keys, bit for bit, and that each
        /// names the ended segment among those it follows.
        #[test]
        fn successors_cover_what_ended(history in histories()) {
            for segment in history.segments() {
                let successors = history.successors(segment.id);
                let is_active = history.active().segments.contains(&segment);
                prop_assert_eq!(successors.is_empty(), is_active);
                if is_active {
                    continue;
                }
                let lowest = successors.first().expect("not empty").segment.range.low;
                let highest = successors.last().expect("not empty").segment.range.high;
                prop_assert!(lowest <= segment.range.low && highest >= segment.range.high);
                for pair in successors.windows(2) {
                    prop_assert_eq!(pair[0].segment.range.high, pair[1].segment.range.low);
                }
                for successor in successors {
                    prop_assert!(successor.predecessors.contains(&segment.id));
                }
            }
        }

        /// Shows that every epoch tiles the key space and that a segment is found by its id.
        #[test]
        fn epochs_tile_the_key_space(history in histories()) {
            for epoch in history.epochs() {
                prop_assert!(tiles(epoch.segments.iter().map(|segment| segment.range)));
            }
            for segment in history.segments() {
                prop_assert_eq!(history.segment(segment.id), Some(segment));
            }
        }
    }

    /// Shows that a re-created stream goes on counting segments.
    #[test]
    fn numbers_go_on_from_the_first_one_given() {
        let history = History::begin(2, SegmentNumber(7), 0);
        let numbers: Vec<u32> = history.segments().iter().map(|it| it.id.number.0).collect();
        assert_eq!(numbers, [7, 8]);
        assert_eq!(history.last_number(), SegmentNumber(8));
        let unknown = StreamSegmentId::new(StreamEpoch(0), SegmentNumber(0));
        assert_eq!(history.segment(unknown), None);
        assert_eq!(history.successors(unknown), Vec::new());
    }
}
