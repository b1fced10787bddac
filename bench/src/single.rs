//! One append at a time on an idle server, against what no server can beat: one durable write of
//! the device plus one round trip over loopback.
//!
//! The three are measured in short slices, in turn, so that noise of the host meets all of them.
//! This is a closed loop on purpose: with one append under way there is no queue to hide.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Serialize;
use thalweg_wire::{Command, CreateSegment, DeleteSegment, SetupAppend, Text};

use crate::bandwidth::median;
use crate::connection::{Connection, WriterId};
use crate::device::Device;
use crate::latency::{Latency, Recorder, readable};
use crate::locate::Locator;
use crate::payload::Template;
use crate::record::{Summary, Table};

/// Bytes of one device write: the smallest that direct I/O takes everywhere, and what a frame with
/// one small append fills.
const DEVICE_WRITE_BYTES: usize = 4096;

/// Bytes of the echo, each way: about what an append and its acknowledgement measure.
const ECHO_BYTES: usize = 128;

/// Appends before anything is counted.
const WARM_UP_APPENDS: usize = 500;

/// Measurements through a ring, spread over the run.
const RING_MEASUREMENTS: usize = 5;

/// Settings of the single append.
#[derive(Clone, Debug, Serialize)]
pub struct Single {
    /// Appends counted. Default 20,000.
    pub appends: usize,
    /// Appends, device writes and echoes of one slice each. Default 500.
    pub slice: usize,
    /// Payload bytes of the one event of each append. Default 100.
    pub event_bytes: usize,
}

impl Default for Single {
    fn default() -> Self {
        Self { appends: 20_000, slice: 500, event_bytes: 100 }
    }
}

/// Latencies of the three, and how far the server is from the limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SingleResult {
    /// From sending an append to its acknowledgement.
    pub append: Latency,
    /// One durable write of 4 KiB in the data directory.
    pub device: Latency,
    /// One round trip over loopback with a thread that only echoes.
    pub echo: Latency,
    /// Median of the same durable write through a ring, in microseconds: the median of several
    /// measurements spread over the run.
    pub device_ring_p50_us: f64,
    /// Median of the append over the sum of the medians of device, the faster way, and echo.
    pub ratio: f64,
}

impl Summary for SingleResult {
    fn table(&self) -> Table {
        let mut table = Table::new(&["what", "count", "p50", "p95", "p99", "p99.9", "max"]);
        let rows = [("append", self.append), ("device", self.device), ("echo", self.echo)];
        for (what, latency) in rows {
            table.row(vec![
                what.to_owned(),
                latency.count.to_string(),
                readable(latency.p50_us),
                readable(latency.p95_us),
                readable(latency.p99_us),
                readable(latency.p999_us),
                readable(latency.max_us),
            ]);
        }
        let mut ring = vec![
            "device through a ring".to_owned(),
            String::new(),
            readable(self.device_ring_p50_us),
        ];
        ring.resize(table.columns.len(), String::new());
        table.row(ring);
        let mut ratio = vec![
            "append / (device + echo)".to_owned(),
            String::new(),
            format!("{:.2}", self.ratio),
        ];
        ratio.resize(table.columns.len(), String::new());
        table.row(ratio);
        table
    }
}

impl Single {
    /// Sets up, measures, takes down.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        data_directory: &Path,
    ) -> anyhow::Result<SingleResult> {
        let mut device = Device::prepare(data_directory, 1)?;
        let mut echo = Echo::start()?;
        let mut appender = Appender::set_up(locator, name, self.event_bytes)?;
        let mut unused = Recorder::new();
        for _ in 0..WARM_UP_APPENDS {
            appender.append(&mut unused)?;
            echo.round_trip(&mut unused)?;
        }
        let (mut appends, mut writes, mut echoes) =
            (Recorder::new(), Recorder::new(), Recorder::new());
        let (mut done, mut rings) = (0, Vec::new());
        while done < self.appends {
            if done * RING_MEASUREMENTS >= self.appends * rings.len() {
                let ring = device.through_ring()?;
                rings.push(ring.latency_p50.as_secs_f64() * 1e6);
            }
            for _ in 0..self.slice {
                appender.append(&mut appends)?;
            }
            for _ in 0..self.slice {
                let start = Instant::now();
                device.first().write_durable(DEVICE_WRITE_BYTES)?;
                writes.record(nanos(start));
            }
            for _ in 0..self.slice {
                echo.round_trip(&mut echoes)?;
            }
            done += self.slice.max(1);
            let (append, device, echo) =
                (appends.end_interval(), writes.end_interval(), echoes.end_interval());
            eprintln!(
                "{done:6} appends  p50 {}  p99 {}  device {}  echo {}",
                readable(append.p50_us),
                readable(append.p99_us),
                readable(device.p50_us),
                readable(echo.p50_us),
            );
        }
        appender.take_down()?;
        let (append, device, echo) = (appends.total(), writes.total(), echoes.total());
        let device_ring_p50_us = median(rings);
        let ratio = append.p50_us / (device.p50_us.min(device_ring_p50_us) + echo.p50_us);
        Ok(SingleResult { append, device, echo, device_ring_p50_us, ratio })
    }
}

fn nanos(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

struct Appender {
    connection: Connection,
    segment: String,
    writer: WriterId,
    template: Template,
    number: u64,
}

impl Appender {
    fn set_up(locator: &dyn Locator, name: &str, event_bytes: usize) -> anyhow::Result<Self> {
        let segment = format!("bench/{name}/0.#epoch.0");
        let mut connection = Connection::connect(&locator.locate(&segment)?)?;
        let writer = WriterId::new(u64::from(std::process::id()), 0);
        connection.request(|request_id| CreateSegment {
            request_id,
            segment: Text::from(segment.as_str()),
            target_rate: 0,
            scale_type: 0,
            delegation_token: Text::new(),
            rollover_size_bytes: 0,
        })?;
        connection.request(|request_id| SetupAppend {
            request_id,
            writer_id: writer.0,
            segment: Text::from(segment.as_str()),
            delegation_token: Text::new(),
        })?;
        let template = Template::new(event_bytes, 1);
        Ok(Self { connection, segment, writer, template, number: 0 })
    }

    fn append(&mut self, recorder: &mut Recorder) -> anyhow::Result<()> {
        self.number += 1;
        let start = Instant::now();
        self.connection.send_block(self.writer, 1, self.number, &self.template.block(1));
        self.connection.flush()?;
        match self.connection.wait_command()? {
            Command::DataAppended(it) if u64::try_from(it.event_number) == Ok(self.number) => {}
            other => bail!("an acknowledgement of {} was expected: {other:?}", self.number),
        }
        recorder.record(nanos(start));
        Ok(())
    }

    fn take_down(mut self) -> anyhow::Result<()> {
        self.connection.request(|request_id| DeleteSegment {
            request_id,
            segment: Text::from(self.segment.as_str()),
            delegation_token: Text::new(),
        })?;
        Ok(())
    }
}

/// A thread that sends back what it gets; it ends when this is dropped.
struct Echo {
    socket: TcpStream,
}

impl Echo {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for the echo")?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        socket.set_nodelay(true)?;
        let (mut other, _) = listener.accept()?;
        other.set_nodelay(true)?;
        std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let mut bytes = [0; ECHO_BYTES];
            while other.read_exact(&mut bytes).is_ok() && other.write_all(&bytes).is_ok() {}
        })?;
        Ok(Self { socket })
    }

    fn round_trip(&mut self, recorder: &mut Recorder) -> anyhow::Result<()> {
        let mut bytes = [0; ECHO_BYTES];
        let start = Instant::now();
        self.socket.write_all(&bytes)?;
        self.socket.read_exact(&mut bytes)?;
        recorder.record(nanos(start));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Faults, TestServer};

    /// Shows that all three are measured as often as asked for.
    #[test]
    fn the_three_are_measured_in_turn() {
        let server = TestServer::start(Faults::default());
        let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("the tree is writable");
        let scenario = Single { appends: 60, slice: 20, event_bytes: 100 };
        let result = scenario.run(&server.locator(), "one", place.path()).expect("it runs");
        let counts = [result.append.count, result.device.count, result.echo.count];
        assert_eq!(counts, [60; 3]);
        assert!(result.ratio > 0.0);
        assert_eq!(server.segment_count(), 0);
    }
}
