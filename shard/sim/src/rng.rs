//! The only source of chance: a 64-bit generator that is nothing but its seed.
//!
//! Each part of a world draws from a generator of its own, split off by a label, so that a change
//! in one part does not shift what the others draw.

/// A splitmix generator: a counter with an odd step, mixed.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

/// Mixes 64 bits so that each input bit reaches each output bit.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Rng {
    /// The generator of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: mix(seed ^ 0x6A09_E667_F3BC_C908) }
    }

    /// Another generator, decided by this one's seed so far and the label.
    pub(crate) fn split(&self, label: u64) -> Self {
        Self { state: mix(self.state ^ mix(label.wrapping_add(0x3C6E_F372_FE94_F82B))) }
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// An index below `bound`, which is not 0.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there must be something to choose from");
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no number");
        low + self.below(high - low + 1)
    }

    /// Whether an event of this many chances in a million happens.
    pub(crate) fn per_million(&mut self, chances: u32) -> bool {
        chances > 0 && self.below(1_000_000) < u64::from(chances)
    }

    /// Whether an event of this many chances in a hundred happens.
    pub(crate) fn percent(&mut self, chances: u32) -> bool {
        self.per_million(chances * 10_000)
    }

    /// One of the values.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.index(values.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed decides every draw, and a label decides every split.
    #[test]
    fn equal_seeds_draw_equal_numbers() {
        let (mut first, mut second) = (Rng::new(7), Rng::new(7));
        assert_eq!(first.next(), second.next());
        assert_eq!(first.split(3).next(), second.split(3).next());
        assert_ne!(first.split(3).next(), first.split(4).next());
    }
}
