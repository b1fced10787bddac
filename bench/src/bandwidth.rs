//! Large appends against the device: slices of both in turn in one run, so that a noisy neighbour
//! meets both.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use thalweg_wire::event::EVENT_HEADER_BYTES;

use crate::closed_loop::{self, Window};
use crate::device::Device;
use crate::latency::{Latency, readable};
use crate::locate::Locator;
use crate::payload::Template;
use crate::process::ProcessId;
use crate::record::{Summary, Table};
use crate::rig::{Rig, Shape};
use crate::truncation::{Truncation, Truncator};
use crate::usage::{Usage, UsageMeter};

/// Bytes of one append, header included, and of one device write.
const APPEND_BYTES: usize = 1 << 20;

/// Settings of the bandwidth scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Bandwidth {
    /// Segments, with one writer and one connection each. Default 4.
    pub segments: usize,
    /// Appends in flight for each. Default 4.
    pub window: usize,
    /// Durable writes in flight on the device. Default 4.
    pub device_writes: usize,
    /// Slices of each kind. Default 5.
    pub slices: usize,
    /// Counted length of a slice. Default 3 s.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub slice: Duration,
    /// Time at the head of each append slice that is not counted. Default half a second.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub settle: Duration,
    /// Truncation behind the load.
    pub truncation: Option<Truncation>,
}

impl Default for Bandwidth {
    fn default() -> Self {
        Self {
            segments: 4,
            window: 4,
            device_writes: 4,
            slices: 5,
            slice: Duration::from_secs(3),
            settle: Duration::from_millis(500),
            truncation: Some(Truncation::default()),
        }
    }
}

/// One pair of slices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BandwidthSlice {
    /// Bytes appended durably per second.
    pub append_bytes_per_second: f64,
    /// Bytes the device made durable per second, the faster way of plain calls and a ring.
    pub device_bytes_per_second: f64,
    /// The same through a ring, four writes at a time.
    pub device_ring_bytes_per_second: f64,
    /// From sending an append to its acknowledgement (closed loop).
    pub latency: Latency,
    /// Processor time of the append slice.
    pub usage: Usage,
}

/// All slices and their medians.
#[derive(Clone, Debug, Serialize)]
pub struct BandwidthResult {
    /// Median of the append slices.
    pub append_bytes_per_second: f64,
    /// Median of the device slices.
    pub device_bytes_per_second: f64,
    /// Appends over device, of the medians.
    pub ratio: f64,
    /// Pair by pair.
    pub slices: Vec<BandwidthSlice>,
}

impl Summary for BandwidthResult {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "slice",
            "appends GB/s",
            "device GB/s",
            "ratio",
            "p50",
            "p99",
            "generator cores",
            "server cores",
        ]);
        for (index, slice) in self.slices.iter().enumerate() {
            table.row(vec![
                (index + 1).to_string(),
                format!("{:.2}", slice.append_bytes_per_second / 1e9),
                format!("{:.2}", slice.device_bytes_per_second / 1e9),
                format!("{:.2}", slice.append_bytes_per_second / slice.device_bytes_per_second),
                readable(slice.latency.p50_us),
                readable(slice.latency.p99_us),
                format!("{:.2}", slice.usage.generator_cores),
                slice.usage.server_cores_text(),
            ]);
        }
        let mut total = vec![
            "median".to_owned(),
            format!("{:.2}", self.append_bytes_per_second / 1e9),
            format!("{:.2}", self.device_bytes_per_second / 1e9),
            format!("{:.2}", self.ratio),
        ];
        total.resize(table.columns.len(), String::new());
        table.row(total);
        table
    }
}

impl Bandwidth {
    /// Sets up, runs the slices, takes down.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        server: Option<ProcessId>,
        data_directory: &Path,
    ) -> anyhow::Result<BandwidthResult> {
        let mut device = Device::prepare(data_directory, self.device_writes)?;
        let shape =
            Shape { segments: self.segments, connections: self.segments, writers_per_segment: 1 };
        let mut rig = Rig::set_up(locator, name, shape)?;
        let truncator = match self.truncation {
            Some(settings) => Some(Truncator::start(rig.segments.clone(), settings)?),
            None => None,
        };
        let block = Template::new(APPEND_BYTES - EVENT_HEADER_BYTES, 1).block(1);
        let window =
            Window { blocks: self.window, until: self.settle + self.slice, settle: self.settle };
        let mut slices = Vec::new();
        for _ in 0..self.slices {
            let device_ring_bytes_per_second = device.through_ring()?.bytes_per_second as f64;
            let device_bytes_per_second =
                device.bandwidth(APPEND_BYTES, self.slice)?.max(device_ring_bytes_per_second);
            let mut meter = UsageMeter::start(server)?;
            let outcome =
                closed_loop::drive(&mut rig, window, |_| Some((1, block.clone())), |_, _| {})?;
            meter.stop()?;
            let slice = BandwidthSlice {
                append_bytes_per_second: outcome.bytes_per_second(),
                device_bytes_per_second,
                device_ring_bytes_per_second,
                latency: outcome.latency,
                usage: meter.usage(),
            };
            eprintln!(
                "appends {:.2} GB/s  device {:.2} GB/s",
                slice.append_bytes_per_second / 1e9,
                slice.device_bytes_per_second / 1e9
            );
            slices.push(slice);
        }
        if let Some(truncator) = truncator {
            truncator.stop()?;
        }
        rig.take_down()?;
        Ok(summarise(slices))
    }
}

fn summarise(slices: Vec<BandwidthSlice>) -> BandwidthResult {
    let appends = median(slices.iter().map(|slice| slice.append_bytes_per_second).collect());
    let device = median(slices.iter().map(|slice| slice.device_bytes_per_second).collect());
    BandwidthResult {
        append_bytes_per_second: appends,
        device_bytes_per_second: device,
        ratio: if device > 0.0 { appends / device } else { 0.0 },
        slices,
    }
}

/// The middle one, the lower of two; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Faults, TestServer};

    /// Shows that both kinds of slices run and give a ratio.
    #[test]
    fn appends_and_device_are_measured_in_turn() {
        let server = TestServer::start(Faults::default());
        let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("the tree is writable");
        let scenario = Bandwidth {
            segments: 2,
            window: 2,
            device_writes: 1,
            slices: 2,
            slice: Duration::from_millis(50),
            settle: Duration::ZERO,
            truncation: None,
        };
        let result = scenario.run(&server.locator(), "wide", None, place.path()).expect("it runs");
        assert_eq!(result.slices.len(), 2);
        assert!(result.ratio > 0.0, "{result:?}");
        assert_eq!(result.table().rows.len(), 3);
    }

    /// Shows the middle of odd, even and no values.
    #[test]
    fn medians_are_the_lower_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
