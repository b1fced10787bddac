//! When each event of an open-loop load is meant to be sent.
//!
//! The schedule is a formula, not a queue: event `k` of the whole load is meant for `k / rate`
//! seconds after the start, and events go to the writers in turn. So the intended time of any
//! writer's any event is known without having stored it, and a load that falls behind, for whatever
//! reason, cannot forget how late it is. Nothing here reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since the start of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Later than every moment of a run.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The moment that lies `duration` after the start.
    pub(crate) fn after(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds from `earlier` to this moment, 0 when it is not earlier.
    pub(crate) fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to this moment.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(Self::after(duration).0))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(Self::after(duration).0))
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// An even flow of events, dealt to writers in turn. A writer's events are numbered from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    events_per_second: u64,
    writers: u64,
}

impl Schedule {
    /// A flow of `events_per_second` over `writers` that lasts for `length`.
    ///
    /// # Errors
    /// When rate or writers are 0, or when rate and length are too large for the arithmetic (a
    /// million events a second may last for five hours).
    pub(crate) fn new(
        events_per_second: u64,
        writers: usize,
        length: Duration,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(events_per_second > 0, "a rate of 0 events per second");
        anyhow::ensure!(writers > 0, "a load without writers");
        let nanos = Moment::after(length).0;
        let fits = nanos
            .checked_add(NANOS_PER_SECOND)
            .and_then(|nanos| nanos.checked_mul(events_per_second))
            .is_some();
        anyhow::ensure!(fits, "{events_per_second} events per second for {length:?} are too many");
        Ok(Self { events_per_second, writers: writers as u64 })
    }

    /// When event `number` of `writer` is meant to be sent.
    pub(crate) fn intended(&self, writer: usize, number: u64) -> Moment {
        let index = writer as u64 + (number - 1) * self.writers;
        Moment(index * NANOS_PER_SECOND / self.events_per_second)
    }

    /// The number of the last event of `writer` meant for `now` or earlier, 0 for none.
    pub(crate) fn due(&self, writer: usize, now: Moment) -> u64 {
        let last_index = ((now.0 + 1) * self.events_per_second - 1) / NANOS_PER_SECOND;
        match last_index.checked_sub(writer as u64) {
            Some(behind) => behind / self.writers + 1,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows, for rates that do and do not divide a second, that `due` is exactly the count of
    /// events whose intended time has come.
    #[test]
    fn due_counts_exactly_the_intended_times_that_have_come() {
        for (rate, writers) in [(1_000_000, 16), (3, 2), (7_777_777, 5), (1, 1)] {
            let schedule =
                Schedule::new(rate, writers, Duration::from_secs(10)).expect("small enough");
            for writer in 0..writers {
                for number in [1, 2, 3, 10, 1000] {
                    let at = schedule.intended(writer, number);
                    assert_eq!(schedule.due(writer, at), number, "{rate} {writer} {number}");
                    if let Some(before) = at.0.checked_sub(1) {
                        assert_eq!(schedule.due(writer, Moment(before)), number - 1);
                    }
                }
            }
        }
    }

    /// Shows that a second holds as many events as the rate says, spread over all writers evenly.
    #[test]
    fn a_second_holds_the_rate() {
        let schedule = Schedule::new(1_000, 16, Duration::from_secs(1)).expect("small enough");
        let last = Moment(NANOS_PER_SECOND - 1);
        let each: Vec<u64> = (0..16).map(|writer| schedule.due(writer, last)).collect();
        assert_eq!(each.iter().sum::<u64>(), 1_000);
        assert!(each.iter().all(|count| [62, 63].contains(count)), "{each:?}");
    }

    /// Shows that loads the arithmetic cannot hold are refused, and empty ones.
    #[test]
    fn impossible_loads_are_refused() {
        let hour = Duration::from_secs(3600);
        assert!(Schedule::new(0, 1, hour).is_err());
        assert!(Schedule::new(1, 0, hour).is_err());
        assert!(Schedule::new(u64::MAX / 1000, 1, hour).is_err());
        assert!(Schedule::new(1_000_000, 1, 5 * hour).is_ok());
    }
}
