//! Where a shard gets its time from, once per turn.

use crate::time::Now;

/// A pair of clocks. Monotonic time never goes back; wall time may jump.
pub trait Clock {
    /// Both clocks, now.
    fn now(&mut self) -> Now;
}
