//! The same rate over many segments and over few, in slices that take turns, so that the host's
//! noise meets both: does the number of segments cost anything?

use std::time::Duration;

use serde::Serialize;

use crate::locate::Locator;
use crate::open_loop::{OpenLoop, OpenLoopResult};
use crate::process::ProcessId;
use crate::record::{Summary, Table};
use crate::truncation::Truncator;

/// Settings of the comparison.
#[derive(Clone, Debug, Serialize)]
pub struct ManySegments {
    /// Rate, event size, connections, hold and truncation of both sides; its duration and warm-up
    /// are those of one slice. Default: a million events per second over 16 connections, slices of
    /// 15 s after 3 s of warm-up.
    pub load: OpenLoop,
    /// Segments of the many. Default 5,000.
    pub many: usize,
    /// Segments of the few. Default 16.
    pub few: usize,
    /// Slices of each side. Default 2.
    pub slices: usize,
}

impl Default for ManySegments {
    fn default() -> Self {
        let load = OpenLoop {
            connections: 16,
            duration: Duration::from_secs(15),
            warm_up: Duration::from_secs(3),
            ..OpenLoop::default()
        };
        Self { load, many: 5_000, few: 16, slices: 2 }
    }
}

/// One slice.
#[derive(Clone, Debug, Serialize)]
pub struct ManySegmentsSlice {
    /// Segments of this side.
    pub segments: usize,
    /// What it did.
    pub load: OpenLoopResult,
}

/// All slices in order: many, few, many, few.
#[derive(Clone, Debug, Serialize)]
pub struct ManySegmentsResult {
    /// Slice by slice.
    pub slices: Vec<ManySegmentsSlice>,
}

impl Summary for ManySegmentsResult {
    fn table(&self) -> Table {
        let mut table = Table::default();
        for slice in &self.slices {
            if table.columns.is_empty() {
                table = slice.load.table();
                table.rows.clear();
                table.columns.insert(0, "segments".to_owned());
                table.columns.push("server memory".to_owned());
            }
            let mut cells = slice.load.cells();
            cells.insert(0, slice.segments.to_string());
            cells.push(slice.load.usage.server_resident_text());
            table.row(cells);
        }
        table
    }
}

impl ManySegments {
    /// Sets up both sides, runs the slices, takes both down.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        server: Option<ProcessId>,
    ) -> anyhow::Result<ManySegmentsResult> {
        let mut sides = Vec::new();
        for (side, segments) in [("many", self.many), ("few", self.few)] {
            let load = OpenLoop { segments, ..self.load.clone() };
            let rig = load.set_up(locator, &format!("{name}-{side}"))?;
            let truncator = match load.truncation {
                Some(settings) => Some(Truncator::start(rig.segments.clone(), settings)?),
                None => None,
            };
            sides.push((load, rig, truncator));
        }
        let mut slices = Vec::new();
        for _ in 0..self.slices {
            for (load, rig, _) in &mut sides {
                let result = load.load(rig, server)?;
                slices.push(ManySegmentsSlice { segments: load.segments, load: result });
            }
        }
        for (_, rig, truncator) in sides {
            if let Some(truncator) = truncator {
                truncator.stop()?;
            }
            rig.take_down()?;
        }
        Ok(ManySegmentsResult { slices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Faults, TestServer};

    /// Shows that both sides run in turn, at the full rate, with the memory told.
    #[test]
    fn both_sides_take_turns() {
        let server = TestServer::start(Faults::default());
        let scenario = ManySegments {
            load: OpenLoop {
                events_per_second: 10_000,
                connections: 4,
                duration: Duration::from_millis(100),
                warm_up: Duration::from_millis(50),
                ..OpenLoop::default()
            },
            many: 300,
            few: 4,
            slices: 2,
        };
        let result =
            scenario.run(&server.locator(), "sides", Some(ProcessId::own())).expect("it runs");
        let order: Vec<usize> = result.slices.iter().map(|slice| slice.segments).collect();
        assert_eq!(order, [300, 4, 300, 4]);
        assert!(result.slices.iter().all(|slice| slice.load.latency.count == 1_000));
        assert_eq!(result.table().rows.len(), 4);
        assert_eq!(server.segment_count(), 0);
    }
}
