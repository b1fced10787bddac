//! Writes events that describe themselves, then reads every segment back and checks every byte and
//! every writer's order.
//!
//! Writing is a closed loop, so its rate is the server's, not a schedule's. Reading takes each
//! segment from its start, the segments of each store on one connection and thread, with one read
//! ahead of the check. With a limit on the server's memory the same is the test that data may be
//! larger than memory.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use thalweg_wire::event::EVENT_HEADER_BYTES;
use thalweg_wire::{Command, GetStreamSegmentInfo, ReadSegment, Text};

use crate::checker::Checker;
use crate::closed_loop::{self, Block, ClosedOutcome, Window};
use crate::connection::Connection;
use crate::latency::{Latency, per_second, readable};
use crate::locate::{Locator, Place};
use crate::payload::{PAYLOAD_BYTES_MIN, put_event};
use crate::process::ProcessId;
use crate::record::{Summary, Table};
use crate::resident::ResidentSampler;
use crate::rig::{Rig, Shape};
use crate::usage::{Usage, UsageMeter};

/// Settings of writing and reading back.
#[derive(Clone, Debug, Serialize)]
pub struct Verify {
    /// Events, over all writers. Default 1,000,000.
    pub events: u64,
    /// Payload bytes of each event, at least 16; 8 bytes of header come on top. Default 100.
    pub event_bytes: usize,
    /// Segments. Default 16.
    pub segments: usize,
    /// Connections that share them. Default 4.
    pub connections: usize,
    /// Writers of each segment. Default 1.
    pub writers_per_segment: usize,
    /// Events of a block. Default 500.
    pub block_events: usize,
    /// Blocks in flight for each writer. Default 4.
    pub window: usize,
    /// Bytes asked for by one read. Default 1 MiB.
    pub read_bytes: usize,
    /// The scenario fails when the server's resident memory exceeds this, in bytes. Default: no
    /// limit.
    pub resident_bytes_max: Option<u64>,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            events: 1_000_000,
            event_bytes: 100,
            segments: 16,
            connections: 4,
            writers_per_segment: 1,
            block_events: 500,
            window: 4,
            read_bytes: 1 << 20,
            resident_bytes_max: None,
        }
    }
}

impl Verify {
    /// Data of `bytes` in events of 64 KiB, to be larger than the server's memory: its resident
    /// memory may not exceed `resident_bytes_max`.
    pub fn large(bytes: u64, resident_bytes_max: u64) -> Self {
        const EVENT_BYTES: usize = 64 << 10;
        Self {
            events: bytes / EVENT_BYTES as u64,
            event_bytes: EVENT_BYTES - EVENT_HEADER_BYTES,
            block_events: 16,
            window: 2,
            resident_bytes_max: Some(resident_bytes_max),
            ..Self::default()
        }
    }
}

/// Outcome of writing and reading back. Everything was verified, or there is no outcome.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyResult {
    /// Events written, read back and found sound.
    pub events: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// Time of writing.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub write_time: Duration,
    /// Events acknowledged per second.
    pub write_events_per_second: f64,
    /// Bytes acknowledged per second.
    pub write_bytes_per_second: f64,
    /// From sending a block to its acknowledgement (closed loop).
    pub write_latency: Latency,
    /// Time of reading and checking.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub read_time: Duration,
    /// Events read and checked per second.
    pub read_events_per_second: f64,
    /// Bytes read and checked per second.
    pub read_bytes_per_second: f64,
    /// Processor time of writing.
    pub usage: Usage,
    /// Most resident memory the server was seen to use, in bytes, when its process is known.
    pub resident_bytes_max: Option<u64>,
    /// Resident memory over time: milliseconds since the start, bytes.
    pub resident_samples: Vec<(u64, u64)>,
}

impl Summary for VerifyResult {
    fn table(&self) -> Table {
        let mut table = Table::new(&["what", "events/s", "MB/s", "seconds", "p50", "p99", "max"]);
        let latency = &self.write_latency;
        table.row(vec![
            "write".to_owned(),
            format!("{:.0}", self.write_events_per_second),
            format!("{:.0}", self.write_bytes_per_second / 1e6),
            format!("{:.1}", self.write_time.as_secs_f64()),
            readable(latency.p50_us),
            readable(latency.p99_us),
            readable(latency.max_us),
        ]);
        let mut read = vec![
            "read and verify".to_owned(),
            format!("{:.0}", self.read_events_per_second),
            format!("{:.0}", self.read_bytes_per_second / 1e6),
            format!("{:.1}", self.read_time.as_secs_f64()),
        ];
        read.resize(table.columns.len(), String::new());
        table.row(read);
        let resident = self
            .resident_bytes_max
            .map_or_else(String::new, |bytes| format!(", server at most {} MiB", bytes >> 20));
        let mut total = vec![
            format!("verified{resident}"),
            format!("{} events", self.events),
            format!("{} MB", self.bytes / 1_000_000),
        ];
        total.resize(table.columns.len(), String::new());
        table.row(total);
        table
    }
}

impl Verify {
    /// Sets up, writes, reads back, takes down.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        server: Option<ProcessId>,
    ) -> anyhow::Result<VerifyResult> {
        ensure!(self.event_bytes >= PAYLOAD_BYTES_MIN, "events of less than 16 bytes");
        ensure!(self.block_events > 0, "blocks without events");
        ensure!(self.read_bytes > 0, "reads of nothing");
        ensure!(
            self.resident_bytes_max.is_none() || server.is_some(),
            "a limit on the server's memory needs its process"
        );
        let shape = Shape {
            segments: self.segments,
            connections: self.connections,
            writers_per_segment: self.writers_per_segment,
        };
        let mut rig = Rig::set_up(locator, name, shape)?;
        let sampler = server.map(ResidentSampler::start).transpose()?;
        let mut meter = UsageMeter::start(server)?;
        let written = self.write(&mut rig)?;
        meter.stop()?;
        let started = Instant::now();
        let (events, bytes) = self.read_back(&rig)?;
        let read_time = started.elapsed();
        let samples = sampler.map(ResidentSampler::stop).transpose()?.unwrap_or_default();
        let resident_bytes_max = samples.iter().map(|(_, bytes)| *bytes).max();
        if let (Some(limit), Some(seen)) = (self.resident_bytes_max, resident_bytes_max) {
            ensure!(
                seen <= limit,
                "the server used {} MiB of memory, more than {} MiB",
                seen >> 20,
                limit >> 20
            );
        }
        rig.take_down()?;
        ensure!(events == self.events, "{events} events are there of {}", self.events);
        Ok(VerifyResult {
            events,
            bytes,
            write_time: written.time,
            write_events_per_second: written.events_per_second(),
            write_bytes_per_second: written.bytes_per_second(),
            write_latency: written.latency,
            read_time,
            read_events_per_second: per_second(events, read_time),
            read_bytes_per_second: per_second(bytes, read_time),
            usage: meter.usage(),
            resident_bytes_max,
            resident_samples: samples,
        })
    }

    /// Events of each writer: all the same, but for the rest.
    fn share(&self, writer: usize) -> u64 {
        let writers = (self.segments * self.writers_per_segment) as u64;
        self.events / writers + u64::from((writer as u64) < self.events % writers)
    }

    fn write(&self, rig: &mut Rig) -> anyhow::Result<ClosedOutcome> {
        let mut sent = vec![0; rig.writer_count()];
        let window = Window { blocks: self.window, until: Duration::MAX, settle: Duration::ZERO };
        let source = |writer: usize| -> Option<Block> {
            let first = sent[writer] + 1;
            let last = self.share(writer).min(sent[writer] + self.block_events as u64);
            let count = u32::try_from(last.checked_sub(first)? + 1).ok()?;
            sent[writer] = last;
            Some((count, self.block(writer, first, last)))
        };
        closed_loop::drive(rig, window, source, |acknowledged, latency| {
            eprintln!(
                "written {acknowledged} of {} events  p50 {}  p99 {}",
                self.events,
                readable(latency.p50_us),
                readable(latency.p99_us)
            );
        })
    }

    fn block(&self, writer: usize, first: u64, last: u64) -> Bytes {
        let count = usize::try_from(last - first + 1).expect("a block is small");
        let event_bytes = EVENT_HEADER_BYTES + self.event_bytes;
        let mut data = BytesMut::with_capacity(count * event_bytes);
        let writer = u32::try_from(writer).expect("few writers");
        for number in first..=last {
            put_event(writer, number, self.event_bytes, &mut data);
        }
        data.freeze()
    }

    /// Reads and checks all segments. Gives events and bytes.
    fn read_back(&self, rig: &Rig) -> anyhow::Result<(u64, u64)> {
        let by_address = rig.segments.by_address();
        std::thread::scope(|scope| {
            let readers: Vec<_> = by_address
                .iter()
                .map(|(address, own)| {
                    scope.spawn(move || -> anyhow::Result<(u64, u64)> {
                        let mut connection = Connection::connect(address)?;
                        let mut sum = (0, 0);
                        for &segment in own {
                            let place = &rig.segments.places[segment];
                            let (events, bytes) = self
                                .read_segment(&mut connection, place, segment)
                                .with_context(|| format!("verify {}", place.segment))?;
                            sum = (sum.0 + events, sum.1 + bytes);
                        }
                        Ok(sum)
                    })
                })
                .collect();
            let mut sum = (0, 0);
            for reader in readers {
                let (events, bytes) = reader.join().expect("readers do not panic")?;
                sum = (sum.0 + events, sum.1 + bytes);
            }
            Ok(sum)
        })
    }

    fn read_segment(
        &self,
        connection: &mut Connection,
        place: &Place,
        segment: usize,
    ) -> anyhow::Result<(u64, u64)> {
        let writers = (0..self.writers_per_segment)
            .map(|round| round * self.segments + segment)
            .map(|writer| (u32::try_from(writer).expect("few writers"), self.share(writer)));
        let mut checker = Checker::new(self.event_bytes, writers);
        let length = length(connection, place)?;
        let mut offset = 0;
        if length > 0 {
            self.ask(connection, place, offset, length)?;
        }
        while offset < length {
            let data = match connection.wait_command()? {
                Command::SegmentRead(read) if u64::try_from(read.offset) == Ok(offset) => read.data,
                other => bail!("bytes from {offset} were expected: {}", other.name()),
            };
            ensure!(!data.is_empty(), "no bytes at {offset} of {length}");
            offset += data.len() as u64;
            ensure!(offset <= length, "more bytes than the segment has");
            if offset < length {
                // The server works on the next bytes while these are checked.
                self.ask(connection, place, offset, length)?;
            }
            checker.take(&data)?;
        }
        checker.finish()?;
        Ok((checker.events(), length))
    }

    fn ask(
        &self,
        connection: &mut Connection,
        place: &Place,
        offset: u64,
        length: u64,
    ) -> anyhow::Result<()> {
        let wanted = (length - offset).min(self.read_bytes as u64);
        let request_id = connection.request_id();
        connection.send(&ReadSegment {
            segment: Text::from(place.segment.as_str()),
            offset: i64::try_from(offset)?,
            suggested_length: i32::try_from(wanted)?,
            delegation_token: Text::new(),
            request_id,
        });
        connection.flush()
    }
}

fn length(connection: &mut Connection, place: &Place) -> anyhow::Result<u64> {
    let reply = connection.request(|request_id| GetStreamSegmentInfo {
        request_id,
        segment: Text::from(place.segment.as_str()),
        delegation_token: Text::new(),
    })?;
    match reply {
        Command::StreamSegmentInfo(facts) => Ok(u64::try_from(facts.write_offset)?),
        other => bail!("the length was expected: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Finding;
    use crate::test_server::{Damage, Faults, TestServer};

    fn small() -> Verify {
        Verify {
            events: 10_007,
            segments: 3,
            connections: 2,
            writers_per_segment: 2,
            block_events: 100,
            ..Verify::default()
        }
    }

    /// Shows that everything written comes back and is counted.
    #[test]
    fn everything_written_is_read_back() {
        let server = TestServer::start(Faults::default());
        let result =
            small().run(&server.locator(), "sound", Some(ProcessId::own())).expect("it is sound");
        assert_eq!((result.events, result.bytes), (10_007, 10_007 * 108));
        assert!(result.resident_bytes_max.is_some());
        assert_eq!(server.segment_count(), 0);
    }

    /// Shows that a server that flips a byte, loses, doubles or reorders a block is found out, each
    /// by its own finding.
    #[test]
    fn every_kind_of_damage_is_found() {
        for damage in [Damage::FlippedByte, Damage::Lost, Damage::Doubled, Damage::Reordered] {
            let server =
                TestServer::start(Faults { damage: Some((20, damage)), ..Faults::default() });
            let error = small().run(&server.locator(), "bad", None).expect_err("it is damaged");
            let finding = error.downcast_ref::<Finding>().copied();
            let is_right = matches!(
                (damage, finding),
                (Damage::FlippedByte, Some(Finding::Damaged { .. }))
                    | (Damage::Lost, Some(Finding::Gap { .. } | Finding::Missing { .. }))
                    | (Damage::Doubled, Some(Finding::Repeated { .. }))
                    | (Damage::Reordered, Some(Finding::Gap { .. }))
            );
            assert!(is_right, "{damage:?}: {error:#}");
        }
    }

    /// Shows that a server above its memory limit fails.
    #[test]
    fn memory_above_the_limit_fails() {
        let server = TestServer::start(Faults::default());
        let scenario = Verify { resident_bytes_max: Some(4096), ..small() };
        let error = scenario
            .run(&server.locator(), "fat", Some(ProcessId::own()))
            .expect_err("no process is that small");
        assert!(error.to_string().contains("memory"), "{error:#}");
        assert!(scenario.run(&server.locator(), "fat", None).is_err());
    }
}
