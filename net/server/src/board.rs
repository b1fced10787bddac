//! What the shards last told about themselves, for metrics and health.
//!
//! Each shard writes its place once a second, and at once when its state changes; whoever asks
//! reads the places. A lock is held for a copy and never contended in the hot path. Limits that
//! were met are logged here, by difference: one line for each reason in ten seconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thalweg_control::ControlCounts;
use thalweg_shard::{CloseCause, Counters, Health, Status};
use thalweg_uring::NetworkCounts;
use tracing::warn;

/// How often a shard tells.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// A shard that was not heard of for so long does not serve, whatever it said last.
pub(crate) const HEARD_MAX: Duration = Duration::from_secs(8);

/// Least time between two lines about the same limit.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What a shard told.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) status: Status,
    pub(crate) counters: Counters,
    pub(crate) network: NetworkCounts,
    pub(crate) journal: thalweg_journal::Counters,
    pub(crate) at: Instant,
}

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Board {
    places: Vec<Mutex<Option<Report>>>,
    is_control_serving: AtomicBool,
    /// What the controller's port met.
    pub(crate) control: Arc<ControlCounts>,
}

impl Board {
    pub(crate) fn new(shards: u16) -> Arc<Self> {
        let places = (0..shards).map(|_| Mutex::new(None)).collect();
        Arc::new(Self {
            places,
            is_control_serving: AtomicBool::new(false),
            control: Arc::default(),
        })
    }

    /// A shard tells.
    pub(crate) fn publish(&self, report: Report) {
        let place = &self.places[usize::from(report.status.shard.0)];
        *place.lock().expect("nothing panics with it") = Some(report);
    }

    /// What each shard told last, by number; `None` before it told anything.
    pub(crate) fn reports(&self) -> Vec<Option<Report>> {
        let copy =
            |place: &Mutex<Option<Report>>| place.lock().expect("nothing panics with it").clone();
        self.places.iter().map(copy).collect()
    }

    /// The control plane takes calls from now on.
    pub(crate) fn control_serves(&self) {
        self.is_control_serving.store(true, Ordering::Release);
    }

    pub(crate) fn is_control_serving(&self) -> bool {
        self.is_control_serving.load(Ordering::Acquire)
    }

    /// Whether a container refuses to serve.
    pub(crate) fn has_quarantine(&self) -> bool {
        self.reports().iter().flatten().any(|report| !report.status.quarantined.is_empty())
    }

    /// Why the process does not serve everything, a line for each reason; none when it does.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (shard, report) in self.reports().iter().enumerate() {
            let Some(report) = report else {
                found.push(format!("shard {shard}: starting"));
                continue;
            };
            let status = &report.status;
            let silence = report.at.elapsed();
            if silence > HEARD_MAX {
                let seconds = silence.as_secs();
                found.push(format!("shard {shard}: not heard of for {seconds} s"));
            }
            if status.health != Health::Serving {
                let (health, since) = (status.health.label(), rfc3339(status.since.0));
                found.push(format!("shard {shard}: {health} since {since}: {}", status.reason));
            }
            for one in &status.quarantined {
                let since = rfc3339(one.since.0);
                let container = one.container.0;
                found.push(format!(
                    "shard {shard}: container {container} quarantined since {since}: {}",
                    one.reason
                ));
            }
        }
        found
    }
}

/// Milliseconds since 1970 as a date and time of UTC.
pub(crate) fn rfc3339(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1 March of the year 0, in eras of 400 years (146,097 days) that begin there: a
    // leap day is then the last day of its year.
    let day = days + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (era * 400 + year_of_era, month + 3)
    } else {
        (era * 400 + year_of_era + 1, month - 9)
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Logs limits that were met since it was asked last.
#[derive(Debug, Default)]
pub(crate) struct LimitLog {
    /// What was logged, by reason: how often, and when.
    told: Vec<(u64, Option<Instant>)>,
}

impl LimitLog {
    /// Looks at a shard's counts.
    pub(crate) fn look(&mut self, shard: u16, counters: &Counters, network: &NetworkCounts) {
        self.tell(met(counters, network), |count, reason| warn!(shard, count, "{reason}"));
    }

    /// Looks at the counts of the controller's port.
    pub(crate) fn look_at_control(&mut self, counts: &ControlCounts) {
        self.tell(met_by_control(counts), |count, reason| warn!(count, "controller: {reason}"));
    }

    fn tell(&mut self, met: Vec<(u64, &'static str)>, line: impl Fn(u64, &str)) {
        let now = Instant::now();
        for (index, (count, reason)) in met.into_iter().enumerate() {
            if self.told.len() <= index {
                self.told.push((0, None));
            }
            let (told, at) = &mut self.told[index];
            let is_early = at.is_some_and(|at| now.duration_since(at) < LOG_PERIOD);
            if count <= *told || is_early {
                continue;
            }
            line(count - *told, reason);
            (*told, *at) = (count, Some(now));
        }
    }
}

/// How often each limit was met, with the words for it; always in the same order.
fn met(counters: &Counters, network: &NetworkCounts) -> Vec<(u64, &'static str)> {
    let closed = |cause| counters.closed(cause);
    let stalls = &counters.stalls;
    vec![
        (network.refused, "connections refused: as many as limit `connections` allows"),
        (
            network.refused_of_address,
            "connections refused: as many of one address as limit `connections-per-address` allows",
        ),
        (network.accepts_paced, "connections wait: they come faster than `accepts-per-second`"),
        (
            network.accept_pauses,
            "connections wait: the process is out of descriptors or memory (`ulimit -n`)",
        ),
        (
            closed(CloseCause::FirstCommand),
            "connections closed: no first command in time, or too large a one",
        ),
        (closed(CloseCause::SlowSender), "connections closed: a frame did not get on"),
        (closed(CloseCause::SlowReceiver), "connections closed: replies were not taken"),
        (closed(CloseCause::Stalled), "connections closed: a command waited too long"),
        (closed(CloseCause::Silent), "connections closed: nothing heard for too long"),
        (closed(CloseCause::EventBytes), "connections closed: event larger than `event-bytes`"),
        (closed(CloseCause::Limit), "connections closed: too many writers or parked reads"),
        (
            closed(CloseCause::Malformed),
            "connections closed: not the protocol, or too large a frame",
        ),
        (stalls.room, "appends wait: the journal is nearly full (truncate, or give it more space)"),
        (
            stalls.state,
            "requests wait: segments, writers and tables fill their memory (`--memory`)",
        ),
        (stalls.memory, "large frames wait for memory to receive them (`--memory`)"),
    ]
}

/// The same of the controller's port.
fn met_by_control(counts: &ControlCounts) -> Vec<(u64, &'static str)> {
    vec![
        (counts.full(), "connections wait: as many as limit `controller-connections` allows"),
        (
            counts.accept_pauses(),
            "connections wait: the process is out of descriptors or memory (`ulimit -n`)",
        ),
        (counts.too_large(), "calls refused: a message larger than `controller-message-bytes`"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that dates come out right around leap days and turns of years.
    #[test]
    fn times_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1000), text);
        }
    }
}
