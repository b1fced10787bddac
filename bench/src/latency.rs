//! Latencies, exact to a tenth of a percent, and the numbers that are reported of them.
//!
//! Every single event is recorded; there is no sampling and no averaging over blocks. A recorder
//! keeps the current second apart from the whole, so that progress can be told without a second
//! pass.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart from longer ones, in nanoseconds: ten minutes.
const NANOS_MAX: u64 = 600_000_000_000;

/// Significant decimal digits kept of each latency.
const DIGITS: u8 = 3;

/// What is reported of many latencies. All in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many were recorded.
    pub count: u64,
    /// Half were at most this.
    pub p50_us: f64,
    /// 95 of 100 were at most this.
    pub p95_us: f64,
    /// 99 of 100 were at most this.
    pub p99_us: f64,
    /// 999 of 1000 were at most this.
    pub p999_us: f64,
    /// All were at most this.
    pub max_us: f64,
    /// The mean, for sanity checks only.
    pub mean_us: f64,
}

/// Collects latencies of a run.
pub(crate) struct Recorder {
    interval: Histogram<u64>,
    total: Histogram<u64>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let empty =
            || Histogram::new_with_bounds(1, NANOS_MAX, DIGITS).expect("the bounds are in order");
        Self { interval: empty(), total: empty() }
    }

    /// Records one latency.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.interval.saturating_record(nanos);
    }

    /// Ends an interval: what was recorded since the last call.
    pub(crate) fn end_interval(&mut self) -> Latency {
        let latency = summary(&self.interval);
        self.total.add(&self.interval).expect("both have the same bounds");
        self.interval.reset();
        latency
    }

    /// Everything recorded.
    pub(crate) fn total(&mut self) -> Latency {
        self.end_interval();
        summary(&self.total)
    }
}

fn summary(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Latency {
        count: histogram.len(),
        p50_us: at(0.5),
        p95_us: at(0.95),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: histogram.max() as f64 / 1e3,
        mean_us: histogram.mean() / 1e3,
    }
}

/// A latency in microseconds for people: `85 us`, `1.24 ms`, `3.0 s`.
pub(crate) fn readable(micros: f64) -> String {
    match micros {
        _ if micros < 1_000.0 => format!("{micros:.0} us"),
        _ if micros < 1_000_000.0 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Events or bytes per second over a time.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that quantiles are within the promised digit of the truth and that intervals add up.
    #[test]
    fn quantiles_are_exact_to_a_tenth_of_a_percent() {
        let mut recorder = Recorder::new();
        for micros in 1..=10_000_u64 {
            recorder.record(micros * 1_000);
            if micros == 5_000 {
                assert_eq!(recorder.end_interval().count, 5_000);
            }
        }
        assert_eq!(recorder.end_interval().count, 5_000);
        let all = recorder.total();
        assert_eq!(all.count, 10_000);
        let near = |value: f64, truth: f64| (value - truth).abs() <= truth / 1_000.0 + 1e-3;
        assert!(near(all.p50_us, 5_000.0), "{all:?}");
        assert!(near(all.p99_us, 9_900.0), "{all:?}");
        assert!(near(all.p999_us, 9_990.0), "{all:?}");
        assert!(near(all.max_us, 10_000.0), "{all:?}");
    }
}
