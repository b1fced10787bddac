//! Randomness that a printed seed repeats.

use std::ops::Range;

/// A stream of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream that follows from the state of this one and from `salt`.
    pub(crate) fn split(&mut self, salt: u64) -> Self {
        Self(self.next() ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Scatters the bits of a number; equal numbers give equal results.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// The seed of this run: `THALWEG_SEED`, or one from the clock; printed, so that a failure can be
/// run again.
pub(crate) fn seed() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    let fresh = mix(since.as_secs().wrapping_mul(1_000_000_007) ^ u64::from(since.subsec_nanos()));
    let seed = super::setting("THALWEG_SEED", fresh % 1_000_000_000);
    println!("seed: THALWEG_SEED={seed}");
    seed
}
