//! Ranges of routing keys: parts of [0, 1]. Pure.
//!
//! The bounds of neighbours are the same `f64`, bit for bit: clients compare them so. A bound is
//! therefore computed once and copied ever after.

/// A part of the key space, from `low` to `high`. A key on a boundary belongs to the lower range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KeyRange {
    /// Where it begins.
    pub(crate) low: f64,
    /// Where it ends, greater than `low`.
    pub(crate) high: f64,
}

impl KeyRange {
    /// Whether some keys belong to both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.low < other.high && other.low < self.high
    }
}

/// The key space in `count` equal parts, in order.
pub(crate) fn uniform(count: u32) -> impl Iterator<Item = KeyRange> {
    let bound = move |index: u32| f64::from(index) / f64::from(count);
    (0..count).map(move |index| KeyRange { low: bound(index), high: bound(index + 1) })
}

/// Whether the ranges cover [0, 1] without gap and without overlap, in whatever order.
pub(crate) fn tiles(ranges: impl IntoIterator<Item = KeyRange>) -> bool {
    let mut ranges: Vec<KeyRange> = ranges.into_iter().collect();
    ranges.sort_by(|left, right| left.low.total_cmp(&right.low));
    let is_joined = ranges.windows(2).all(|pair| pair[0].high == pair[1].low);
    is_joined
        && ranges.iter().all(|range| range.low < range.high)
        && ranges.first().is_some_and(|range| range.low == 0.0)
        && ranges.last().is_some_and(|range| range.high == 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that every number of equal parts tiles the key space exactly.
    #[test]
    fn equal_parts_tile_exactly() {
        for count in 1..=1000 {
            assert!(tiles(uniform(count)), "{count}");
        }
    }

    /// Shows that gaps, overlaps, and missing ends are noticed.
    #[test]
    fn gaps_and_overlaps_are_noticed() {
        let range = |low, high| KeyRange { low, high };
        assert!(tiles([range(0.5, 1.0), range(0.0, 0.5)]));
        assert!(!tiles([]));
        assert!(!tiles([range(0.0, 0.5), range(0.6, 1.0)]));
        assert!(!tiles([range(0.0, 0.6), range(0.5, 1.0)]));
        assert!(!tiles([range(0.1, 1.0)]));
        assert!(!tiles([range(0.0, 0.9)]));
        assert!(!tiles([range(0.0, 1.0), range(1.0, 1.0)]));
    }
}
