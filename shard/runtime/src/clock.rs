//! The machine's clocks.

use std::sync::OnceLock;
use std::time::{self, SystemTime, UNIX_EPOCH};

use thalweg_core::env::clock::Clock;
use thalweg_core::time::{Instant, Now, WallTime};

/// When the process looked at the clock first. The same for all shards, so that their instants
/// can be compared.
static START: OnceLock<time::Instant> = OnceLock::new();

/// The machine's monotonic and wall clocks. Monotonic time counts from the first use in the
/// process.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: time::Instant,
}

impl SystemClock {
    /// A clock. All clocks of a process agree.
    pub fn new() -> Self {
        Self { start: *START.get_or_init(time::Instant::now) }
    }

    /// The same instant in the standard library's terms.
    pub fn to_standard(self, instant: Instant) -> time::Instant {
        // "Never" is far beyond what the kernel's timers hold.
        const FAR: time::Duration = time::Duration::from_secs(100 * 365 * 24 * 3600);
        self.start + time::Duration::from_nanos(instant.0).min(FAR)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&mut self) -> Now {
        let nanos = u64::try_from(self.start.elapsed().as_nanos())
            .expect("a process does not run for 500 years");
        // Before 1970 only when the clock was never set; 1970 is as good an answer then.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Now { monotonic: Instant(nanos), wall: WallTime(wall) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clocks of a process tell the same time, and an instant survives the way to the standard
    /// library's.
    #[test]
    fn clocks_of_a_process_agree() {
        let (mut first, mut second) = (SystemClock::new(), SystemClock::new());
        let before = first.now();
        let after = second.now();
        assert!(before.monotonic <= after.monotonic);
        assert!(first.to_standard(after.monotonic) <= time::Instant::now());
        assert!(first.to_standard(before.monotonic) <= second.to_standard(after.monotonic));
        assert!(before.wall.0 > 1_600_000_000_000, "{before:?}");
    }

    /// "Never" can be asked for without an overflow.
    #[test]
    fn the_end_of_time_is_far_but_finite() {
        let clock = SystemClock::new();
        let far = clock.to_standard(Instant(u64::MAX));
        assert!(far > time::Instant::now() + time::Duration::from_secs(3600));
    }
}
