//! Stream cuts: positions in a whole stream, one offset per segment. Pure.
//!
//! A cut is consistent when its segments tile the key space and none of them must be finished
//! before another of them can be begun.

use std::collections::{BTreeMap, BTreeSet};

use crate::epoch::{History, SegmentRecord};
use crate::id::StreamSegmentId;
use crate::range::tiles;

/// Offsets by segment.
pub(crate) type StreamCut = BTreeMap<StreamSegmentId, i64>;

/// Why a cut is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CutError {
    /// It names no segment.
    #[error("a stream cut without segments")]
    Empty,
    /// A segment does not belong to the stream.
    #[error("segment {0} does not belong to the stream")]
    UnknownSegment(StreamSegmentId),
    /// The segments do not tile the key space, or one of them comes after another.
    #[error("a stream cut whose segments do not cover the key space consistently")]
    Inconsistent,
    /// One cut lies behind another that it must not be behind.
    #[error("a stream cut out of order")]
    OutOfOrder,
}

/// Reads the protocol's map; segment ids that cannot exist are unknown.
pub(crate) fn from_wire(cut: &BTreeMap<i64, i64>) -> Option<StreamCut> {
    cut.iter().map(|(id, offset)| Some((StreamSegmentId::from_wire(*id)?, *offset))).collect()
}

/// The protocol's map.
pub(crate) fn to_wire(cut: &StreamCut) -> BTreeMap<i64, i64> {
    cut.iter().map(|(id, offset)| (id.to_wire(), *offset)).collect()
}

/// Checks the segments of a cut; its offsets are not looked at.
///
/// # Errors
/// All of [`CutError`] but [`CutError::OutOfOrder`].
pub(crate) fn check(history: &History, cut: &StreamCut) -> Result<(), CutError> {
    if cut.is_empty() {
        return Err(CutError::Empty);
    }
    let mut segments = Vec::new();
    for id in cut.keys() {
        segments.push(history.segment(*id).ok_or(CutError::UnknownSegment(*id))?);
    }
    let is_tiled = tiles(segments.iter().map(|segment| segment.range));
    let ended = before(history, cut);
    if !is_tiled || cut.keys().any(|id| ended.contains(id)) {
        return Err(CutError::Inconsistent);
    }
    Ok(())
}

/// Every segment that must be finished before the segments of a cut can be begun.
pub(crate) fn before(history: &History, cut: &StreamCut) -> BTreeSet<StreamSegmentId> {
    let all = history.segments();
    let mut ended = BTreeSet::new();
    let mut open: Vec<SegmentRecord> = cut.keys().filter_map(|id| history.segment(*id)).collect();
    while let Some(segment) = open.pop() {
        for earlier in &all {
            let comes_before =
                earlier.id.epoch < segment.id.epoch && earlier.range.overlaps(&segment.range);
            if comes_before && ended.insert(earlier.id) {
                open.push(*earlier);
            }
        }
    }
    ended
}

/// Checks that `later` is nowhere before `earlier`; both are consistent.
///
/// # Errors
/// [`CutError::OutOfOrder`].
pub(crate) fn check_order(
    history: &History,
    earlier: &StreamCut,
    later: &StreamCut,
) -> Result<(), CutError> {
    let ended = before(history, earlier);
    let is_ordered = later.iter().all(|(id, offset)| match earlier.get(id) {
        Some(at_least) => offset >= at_least,
        None => !ended.contains(id),
    });
    if is_ordered { Ok(()) } else { Err(CutError::OutOfOrder) }
}

/// The segments between two cuts, those of both included; both are consistent.
///
/// # Errors
/// [`CutError::OutOfOrder`].
pub(crate) fn between(
    history: &History,
    from: &StreamCut,
    to: &StreamCut,
) -> Result<Vec<StreamSegmentId>, CutError> {
    check_order(history, from, to)?;
    let ended = before(history, from);
    let mut found = before(history, to);
    found.extend(to.keys());
    Ok(found.difference(&ended).copied().collect())
}

/// The cut at the end of the latest epoch, with offsets that are after everything.
pub(crate) fn tail(history: &History) -> StreamCut {
    history.active().segments.iter().map(|segment| (segment.id, i64::MAX)).collect()
}

/// The cut at the beginning of the stream.
pub(crate) fn origin(history: &History) -> StreamCut {
    history.epochs()[0].segments.iter().map(|segment| (segment.id, 0)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch::tests::histories;
    use crate::id::{SegmentNumber, StreamEpoch};

    /// The cut at offset 0 of an epoch's segments.
    fn cut_of(history: &History, epoch: usize) -> StreamCut {
        history.epochs()[epoch].segments.iter().map(|segment| (segment.id, 0)).collect()
    }

    proptest! {
        /// Shows that every epoch is a consistent cut, that later ones are not before earlier ones,
        /// and that what lies between the first and the last is everything.
        #[test]
        fn epochs_are_ordered_cuts(history in histories()) {
            let last = history.epochs().len() - 1;
            for epoch in 0..=last {
                let cut = cut_of(&history, epoch);
                prop_assert_eq!(check(&history, &cut), Ok(()));
                prop_assert_eq!(check_order(&history, &cut_of(&history, 0), &cut), Ok(()));
                prop_assert_eq!(check_order(&history, &cut, &tail(&history)), Ok(()));
                if cut != cut_of(&history, 0) {
                    let back = check_order(&history, &cut, &cut_of(&history, 0));
                    prop_assert_eq!(back, Err(CutError::OutOfOrder));
                }
                // Before and from the cut on: each segment on exactly one side.
                let ended = before(&history, &cut);
                let rest = between(&history, &cut, &tail(&history)).expect("ordered");
                prop_assert!(rest.iter().all(|id| !ended.contains(id)));
                prop_assert_eq!(ended.len() + rest.len(), history.segments().len());
            }
            let all = between(&history, &origin(&history), &tail(&history)).expect("ordered");
            prop_assert_eq!(all.len(), history.segments().len());
        }

        /// Shows that a cut without one of its segments, or with a segment too many, is refused.
        #[test]
        fn incomplete_cuts_are_refused(history in histories(), which: prop::sample::Index) {
            let full = cut_of(&history, history.epochs().len() - 1);
            let mut less = full.clone();
            let removed = *full.keys().nth(which.index(full.len())).expect("in bounds");
            less.remove(&removed);
            prop_assert!(check(&history, &less).is_err());
            for segment in history.segments() {
                if !full.contains_key(&segment.id) {
                    let mut more = full.clone();
                    more.insert(segment.id, 0);
                    prop_assert_eq!(check(&history, &more), Err(CutError::Inconsistent));
                }
            }
        }
    }

    /// Shows that unknown segments and empty cuts are told apart.
    #[test]
    fn unknown_segments_are_named() {
        let history = History::begin(1, SegmentNumber(0), 0);
        assert_eq!(check(&history, &StreamCut::new()), Err(CutError::Empty));
        let unknown = StreamSegmentId::new(StreamEpoch(1), SegmentNumber(4));
        let cut = StreamCut::from([(unknown, 0)]);
        assert_eq!(check(&history, &cut), Err(CutError::UnknownSegment(unknown)));
        assert_eq!(from_wire(&BTreeMap::from([(-1, 0)])), None);
    }

    /// Shows that offsets decide the order within one segment.
    #[test]
    fn offsets_order_cuts_of_the_same_segments() {
        let history = History::begin(2, SegmentNumber(0), 0);
        let at = |first, second| {
            let ids: Vec<_> = history.segments().iter().map(|segment| segment.id).collect();
            StreamCut::from([(ids[0], first), (ids[1], second)])
        };
        assert_eq!(check_order(&history, &at(5, 5), &at(5, 6)), Ok(()));
        assert_eq!(check_order(&history, &at(5, 5), &at(9, 4)), Err(CutError::OutOfOrder));
    }
}
