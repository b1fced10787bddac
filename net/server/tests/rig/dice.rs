//! The seed of a test.

use thalweg_crash::dice::fresh_seed;

/// The seed of this run: `THALWEG_SEED`, or one from the clock; printed, so that a failure can be
/// run again.
pub(crate) fn seed() -> u64 {
    let seed = super::setting("THALWEG_SEED", fresh_seed());
    println!("seed: THALWEG_SEED={seed}");
    seed
}
