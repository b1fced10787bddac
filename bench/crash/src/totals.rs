//! What a run did and saw, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::proxy::Counts;

/// Journal sizes at which restart times are told apart, bytes; the last class is open.
const JOURNAL_CLASSES: [u64; 5] = [64 << 20, 128 << 20, 256 << 20, 512 << 20, 1 << 30];

/// One start of the server on a directory with data in it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Restart {
    /// Bytes of all journal files at the start.
    pub journal_bytes: u64,
    /// From the end of the predecessor to the server's word that it is ready, in seconds; with
    /// starts that were refused, without those that were killed.
    pub seconds: f64,
}

/// Restart times of one class of journal sizes, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RestartRow {
    /// Journals up to this many bytes.
    pub journal_bytes_max: u64,
    /// Starts.
    pub starts: usize,
    /// Shortest.
    pub min_ms: f64,
    /// Half of them took at most this long.
    pub median_ms: f64,
    /// 99 of 100 took at most this long.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

/// What was done and verified.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// SIGKILLs of a server under load or just after it.
    pub kills: u64,
    /// Of these, in the first moments of a start.
    pub kills_in_recovery: u64,
    /// SIGTERMs under load, each followed by status 0 in time.
    pub stops: u64,
    /// Longest time from SIGTERM to the end, in seconds.
    pub stop_seconds_max: f64,
    /// Starts that were refused because the kernel had not ended the last writes of the killed
    /// predecessor yet, each followed by another start, as a supervisor does it.
    pub starts_refused: u64,
    /// Times the process was stopped and continued.
    pub freezes: u64,
    /// Events acknowledged.
    pub events_acknowledged: u64,
    /// Events and entries read and judged; an event read again counts again.
    pub events_verified: u64,
    /// Bytes of them.
    pub bytes_verified: u64,
    /// Records that the checker judged.
    pub records: u64,
    /// By kind of work: what was verified.
    pub verified_by_lane: BTreeMap<String, u64>,
    /// Connections that ended or fell silent under a lane.
    pub reconnects: u64,
    /// What the proxies did.
    pub network: Counts,
    /// Every start on data.
    pub restarts: Vec<Restart>,
}

impl Totals {
    /// Restart times by journal size; classes without a start are left out.
    pub fn restart_table(&self) -> Vec<RestartRow> {
        let mut rows = Vec::new();
        let mut lower = 0;
        for upper in JOURNAL_CLASSES.into_iter().chain([u64::MAX]) {
            let mut times: Vec<f64> = self
                .restarts
                .iter()
                .filter(|it| (lower..upper).contains(&it.journal_bytes))
                .map(|it| it.seconds * 1e3)
                .collect();
            lower = upper;
            times.sort_by(f64::total_cmp);
            let (Some(min_ms), Some(max_ms)) = (times.first(), times.last()) else { continue };
            rows.push(RestartRow {
                journal_bytes_max: upper,
                starts: times.len(),
                min_ms: *min_ms,
                median_ms: times[times.len() / 2],
                p99_ms: times[(times.len() * 99).div_ceil(100) - 1],
                max_ms: *max_ms,
            });
        }
        rows
    }

    /// Counts a stop.
    pub fn stopped(&mut self, time: Duration) {
        self.stops += 1;
        self.stop_seconds_max = self.stop_seconds_max.max(time.as_secs_f64());
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} kills ({} of them in recovery), {} stops by SIGTERM (slowest {:.2} s), {} freezes, \
             {} reconnects",
            self.kills,
            self.kills_in_recovery,
            self.stops,
            self.stop_seconds_max,
            self.freezes,
            self.reconnects
        )?;
        writeln!(
            out,
            "{} events acknowledged; {} events and entries read back and judged ({} MiB), {} \
             records",
            self.events_acknowledged,
            self.events_verified,
            self.bytes_verified >> 20,
            self.records
        )?;
        writeln!(
            out,
            "{} starts were refused while the kernel ended writes of a killed server, and repeated",
            self.starts_refused
        )?;
        for (lane, verified) in &self.verified_by_lane {
            writeln!(out, "  {verified:12} {lane}")?;
        }
        if self.network.connections > 0 {
            let it = &self.network;
            writeln!(
                out,
                "network: {} connections, {} MiB, {} splits, {} coalesced, {} delayed, {} resets, \
                 {} half-closes, {} blackholes, {} partitions",
                it.connections,
                it.bytes >> 20,
                it.splits,
                it.coalesced,
                it.delayed,
                it.resets,
                it.half_closes,
                it.blackholes,
                it.partitions
            )?;
        }
        writeln!(out, "restart in ms: journal up to, starts, min, median, p99, max")?;
        for row in self.restart_table() {
            let size = match row.journal_bytes_max {
                u64::MAX => "more".to_owned(),
                bytes => format!("{} MiB", bytes >> 20),
            };
            writeln!(
                out,
                "  {size:>9} {:6} {:8.1} {:8.1} {:8.1} {:8.1}",
                row.starts, row.min_ms, row.median_ms, row.p99_ms, row.max_ms
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that starts are told apart by journal size and quantiles are of their class.
    #[test]
    fn restart_times_are_told_by_journal_size() {
        let mut totals = Totals::default();
        for number in 1..=200 {
            totals.restarts.push(Restart { journal_bytes: 100 << 20, seconds: f64::from(number) });
        }
        totals.restarts.push(Restart { journal_bytes: 5 << 30, seconds: 9.0 });
        let rows = totals.restart_table();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].journal_bytes_max, rows[0].starts), (128 << 20, 200));
        assert_eq!((rows[0].min_ms, rows[0].max_ms), (1_000.0, 200_000.0));
        assert_eq!((rows[0].median_ms, rows[0].p99_ms), (101_000.0, 198_000.0));
        assert_eq!((rows[1].journal_bytes_max, rows[1].starts), (u64::MAX, 1));
    }
}
