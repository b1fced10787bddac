//! Numbers that name things of a stream: segments, epochs, transactions. Pure.
//!
//! On the wire a segment id is `epoch << 32 | number` and a transaction id is two signed halves of
//! a 128-bit number. Both parts of a segment id fit 31 bits, and both halves of a transaction id
//! are never negative: a widespread client extends the sign of the lower half over the upper one.

use std::fmt;

/// Number of a segment: counts the segments that a stream of this name ever had. At most
/// 2^31 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentNumber(pub(crate) u32);

/// A generation of a stream's active segments; grows with each scale. At most 2^31 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamEpoch(pub(crate) u32);

/// A segment within its stream: its number and the epoch it was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamSegmentId {
    /// Epoch of creation.
    pub(crate) epoch: StreamEpoch,
    /// Its number.
    pub(crate) number: SegmentNumber,
}

const HIGHEST: u32 = i32::MAX as u32;

impl StreamSegmentId {
    /// The id of its parts.
    pub(crate) fn new(epoch: StreamEpoch, number: SegmentNumber) -> Self {
        Self { epoch, number }
    }

    /// Reads the protocol's number; `None` when a part is out of bounds.
    pub(crate) fn from_wire(id: i64) -> Option<Self> {
        let id = u64::try_from(id).ok()?;
        let epoch = u32::try_from(id >> 32).ok()?;
        let number = u32::try_from(id & u64::from(u32::MAX)).ok()?;
        (number <= HIGHEST).then_some(Self::new(StreamEpoch(epoch), SegmentNumber(number)))
    }

    /// The protocol's number.
    pub(crate) fn to_wire(self) -> i64 {
        i64::from(self.epoch.0 & HIGHEST) << 32 | i64::from(self.number.0)
    }

    /// The same segment as a transaction of `epoch` calls it.
    pub(crate) fn generalized(self, epoch: StreamEpoch) -> Self {
        Self { epoch, ..self }
    }
}

impl fmt::Display for StreamSegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.#epoch.{}", self.number.0, self.epoch.0)
    }
}

/// A transaction: the epoch it was made in and a count that never repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionId(u128);

impl TransactionId {
    /// The id of its parts; `counter` is at most 2^63 − 1, so that both halves stay positive.
    pub(crate) fn new(epoch: StreamEpoch, counter: u64) -> Self {
        assert!(epoch.0 <= HIGHEST, "epochs have 31 bits");
        assert!(counter <= i64::MAX as u64, "counters have 63 bits");
        Self(u128::from(epoch.0) << 96 | u128::from(counter))
    }

    /// Reads the protocol's two halves, any values.
    pub(crate) fn from_halves(high: i64, low: i64) -> Self {
        Self(u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned()))
    }

    /// The protocol's two halves, high one first.
    pub(crate) fn halves(self) -> (i64, i64) {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        (half(self.0 >> 64).cast_signed(), half(self.0).cast_signed())
    }

    /// The epoch it was made in.
    pub(crate) fn epoch(self) -> StreamEpoch {
        StreamEpoch(u32::try_from(self.0 >> 96).unwrap_or(0))
    }

    /// Reads 32 hexadecimal digits.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok().map(Self)).flatten()
    }
}

/// 32 lower-case hexadecimal digits, as in segment names.
impl fmt::Display for TransactionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Shows that segment ids survive the wire.
        #[test]
        fn segment_ids_are_read_as_written(epoch in 0..=HIGHEST, number in 0..=HIGHEST) {
            let id = StreamSegmentId::new(StreamEpoch(epoch), SegmentNumber(number));
            prop_assert!(id.to_wire() >= 0);
            prop_assert_eq!(StreamSegmentId::from_wire(id.to_wire()), Some(id));
        }

        /// Shows that any number is either refused or read back as the same.
        #[test]
        fn wire_numbers_are_kept_or_refused(wire: i64) {
            if let Some(id) = StreamSegmentId::from_wire(wire) {
                prop_assert_eq!(id.to_wire(), wire);
            }
        }

        /// Shows that ids made here have no negative half, keep their epoch, survive both forms.
        #[test]
        fn transaction_ids_have_positive_halves(
            epoch in 0..=HIGHEST,
            counter in 0..=i64::MAX as u64,
        ) {
            let id = TransactionId::new(StreamEpoch(epoch), counter);
            let (high, low) = id.halves();
            prop_assert!(high >= 0);
            prop_assert!(low >= 0);
            prop_assert_eq!(id.epoch(), StreamEpoch(epoch));
            prop_assert_eq!(TransactionId::from_halves(high, low), id);
            prop_assert_eq!(TransactionId::from_hex(&id.to_string()), Some(id));
        }
    }

    /// Shows that ids with a part over 31 bits are refused.
    #[test]
    fn parts_over_31_bits_are_refused() {
        for wire in [-1, i64::MIN, 0x8000_0000] {
            assert_eq!(StreamSegmentId::from_wire(wire), None);
        }
    }
}
