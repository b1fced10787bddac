//! The highest rate at which blocks of a given size are still acknowledged in time, found by
//! opening the window of a closed loop step by step.

use std::time::Duration;

use serde::Serialize;

use crate::closed_loop::{self, Window};
use crate::latency::{Latency, readable};
use crate::locate::Locator;
use crate::payload::Template;
use crate::process::ProcessId;
use crate::record::{Summary, Table};
use crate::rig::{Rig, Shape};
use crate::truncation::{Truncation, Truncator};
use crate::usage::{Usage, UsageMeter};

/// Most blocks in flight for one writer that are tried.
const WINDOW_MAX: usize = 1 << 12;

/// Most bytes in flight over all writers that are tried.
const IN_FLIGHT_BYTES_MAX: usize = 512 << 20;

/// A window that brings less than this over the best before is no gain.
const GAIN_MIN: f64 = 1.02;

/// Windows without gain after which the search ends.
const PATIENCE: u32 = 2;

/// Settings of the search for the highest rate.
#[derive(Clone, Debug, Serialize)]
pub struct MaxRate {
    /// Events of a block, one search each. Default 1, 10, 100, 1000, 4000.
    pub block_events: Vec<usize>,
    /// Payload bytes of each event. Default 100.
    pub event_bytes: usize,
    /// Segments, with one writer each. Default 16.
    pub segments: usize,
    /// Connections that share them. Default 4.
    pub connections: usize,
    /// The 99th percentile from sending a block to its acknowledgement must stay below this.
    /// Default 50 ms.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub p99_max: Duration,
    /// Counted time of each window. Default 3 s.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub step: Duration,
    /// Time before, not counted. Default half a second.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub settle: Duration,
    /// Truncation behind the load.
    pub truncation: Option<Truncation>,
}

impl Default for MaxRate {
    fn default() -> Self {
        Self {
            block_events: vec![1, 10, 100, 1000, 4000],
            event_bytes: 100,
            segments: 16,
            connections: 4,
            p99_max: Duration::from_millis(50),
            step: Duration::from_secs(3),
            settle: Duration::from_millis(500),
            truncation: Some(Truncation::default()),
        }
    }
}

/// One window tried.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WindowResult {
    /// Events of a block.
    pub block_events: usize,
    /// Blocks in flight for each writer.
    pub window: usize,
    /// Events acknowledged per second.
    pub events_per_second: f64,
    /// Bytes of events acknowledged per second.
    pub bytes_per_second: f64,
    /// From sending a block to its acknowledgement (closed loop).
    pub latency: Latency,
    /// Processor time, settling included.
    pub usage: Usage,
}

/// All windows tried, and the best of each block size.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MaxRateResult {
    /// The best window of each block size whose latency stayed below the limit.
    pub best: Vec<WindowResult>,
    /// Every window, in order.
    pub tried: Vec<WindowResult>,
}

impl Summary for MaxRateResult {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "events/block",
            "window",
            "events/s",
            "MB/s",
            "p50",
            "p99",
            "p99.9",
            "max",
            "generator cores",
            "server cores",
        ]);
        for best in &self.best {
            table.row(vec![
                best.block_events.to_string(),
                best.window.to_string(),
                format!("{:.0}", best.events_per_second),
                format!("{:.0}", best.bytes_per_second / 1e6),
                readable(best.latency.p50_us),
                readable(best.latency.p99_us),
                readable(best.latency.p999_us),
                readable(best.latency.max_us),
                format!("{:.2}", best.usage.generator_cores),
                best.usage.server_cores_text(),
            ]);
        }
        table
    }
}

impl MaxRate {
    /// Sets up, searches for each block size, takes down.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        server: Option<ProcessId>,
    ) -> anyhow::Result<MaxRateResult> {
        let shape = Shape {
            segments: self.segments,
            connections: self.connections,
            writers_per_segment: 1,
        };
        let mut rig = Rig::set_up(locator, name, shape)?;
        let truncator = match self.truncation {
            Some(settings) => Some(Truncator::start(rig.segments.clone(), settings)?),
            None => None,
        };
        let mut result = MaxRateResult::default();
        for &block_events in &self.block_events {
            let tried = self.search(&mut rig, block_events, server)?;
            result.best.extend(best(&tried, self.p99_max));
            result.tried.extend(tried);
        }
        if let Some(truncator) = truncator {
            truncator.stop()?;
        }
        rig.take_down()?;
        Ok(result)
    }

    fn search(
        &self,
        rig: &mut Rig,
        block_events: usize,
        server: Option<ProcessId>,
    ) -> anyhow::Result<Vec<WindowResult>> {
        let template = Template::new(self.event_bytes, block_events);
        let events = u32::try_from(block_events)?;
        let mut tried: Vec<WindowResult> = Vec::new();
        let (mut blocks, mut without_gain, mut best_rate) = (1, 0, 0.0);
        let block_bytes = template.event_bytes() * block_events;
        while blocks <= WINDOW_MAX
            && blocks * block_bytes * self.segments <= IN_FLIGHT_BYTES_MAX
            && without_gain < PATIENCE
        {
            let window = Window { blocks, until: self.settle + self.step, settle: self.settle };
            let mut meter = UsageMeter::start(server)?;
            let block = template.block(block_events);
            let outcome =
                closed_loop::drive(rig, window, |_| Some((events, block.clone())), |_, _| {})?;
            meter.stop()?;
            let one = WindowResult {
                block_events,
                window: blocks,
                events_per_second: outcome.events_per_second(),
                bytes_per_second: outcome.bytes_per_second(),
                latency: outcome.latency,
                usage: meter.usage(),
            };
            eprintln!(
                "blocks of {block_events:4}  window {blocks:4}  {:9.0} events/s  p50 {}  p99 {}",
                one.events_per_second,
                readable(one.latency.p50_us),
                readable(one.latency.p99_us),
            );
            tried.push(one);
            if Duration::from_secs_f64(one.latency.p99_us / 1e6) >= self.p99_max {
                break;
            }
            without_gain =
                if one.events_per_second > best_rate * GAIN_MIN { 0 } else { without_gain + 1 };
            best_rate = best_rate.max(one.events_per_second);
            blocks *= 2;
        }
        Ok(tried)
    }
}

/// The window with the highest rate of those that stayed below the limit.
fn best(tried: &[WindowResult], p99_max: Duration) -> Option<WindowResult> {
    tried
        .iter()
        .filter(|one| one.latency.count > 0)
        .filter(|one| one.latency.p99_us / 1e6 < p99_max.as_secs_f64())
        .max_by(|a, b| a.events_per_second.total_cmp(&b.events_per_second))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Faults, TestServer};

    /// Shows that windows above the limit do not count however fast they are.
    #[test]
    fn the_best_window_is_the_fastest_below_the_limit() {
        let one = |window, events_per_second, p99_us| WindowResult {
            block_events: 1,
            window,
            events_per_second,
            bytes_per_second: 0.0,
            latency: Latency { count: 1, p99_us, ..Latency::default() },
            usage: Usage::default(),
        };
        let tried =
            [one(1, 10.0, 1.0), one(2, 30.0, 2.0), one(4, 29.0, 2.0), one(8, 99.0, 50_000.0)];
        let best = best(&tried, Duration::from_millis(50)).expect("three are below");
        assert_eq!(best.window, 2);
    }

    /// Shows that a search ends by itself and finds a rate for each block size.
    #[test]
    fn a_search_finds_a_rate_for_each_block_size() {
        let server = TestServer::start(Faults::default());
        let search = MaxRate {
            block_events: vec![1, 50],
            segments: 4,
            connections: 2,
            step: Duration::from_millis(30),
            settle: Duration::from_millis(10),
            p99_max: Duration::from_secs(5),
            ..MaxRate::default()
        };
        let result = search.run(&server.locator(), "max", None).expect("it runs");
        assert_eq!(result.best.len(), 2);
        assert!(result.best.iter().all(|best| best.events_per_second > 0.0));
        assert_eq!(result.table().rows.len(), 2);
    }
}
