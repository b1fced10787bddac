//! Load that does not wait for the server: events arrive by schedule, and the latency of each
//! counts from the time it was meant to be sent to the time its acknowledgement was received.
//!
//! One thread serves all connections. A connection holds an event back at most `hold` to fill a
//! block; then everything due on it leaves with one write, one block for each writer. When the
//! server does not read, nothing more is queued than `UNSENT_BYTES_MAX` per connection; the events
//! stay due and their latency grows.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::connection::WriterId;
use crate::latency::{Latency, Recorder, per_second, readable};
use crate::locate::Locator;
use crate::payload::Template;
use crate::process::ProcessId;
use crate::record::{Summary, Table};
use crate::rig::{Rig, Shape};
use crate::schedule::{Moment, Schedule};
use crate::truncation::{Truncation, Truncator};
use crate::usage::{Usage, UsageMeter};

/// Bytes queued on a connection above which nothing more is added to it.
const UNSENT_BYTES_MAX: usize = 4 << 20;

/// Most bytes of events in one block: what the stock client takes.
const BLOCK_BYTES_MAX: usize = 512 << 10;

/// How long acknowledgements are waited for after the last event was due.
const DRAIN_WAIT: Duration = Duration::from_secs(30);

/// A backlog that is not more than this at the end counts as kept up.
const BACKLOG_MAX: Duration = Duration::from_millis(100);

/// Longest sleep, so that progress is told on time.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// Settings of the open-loop load.
#[derive(Clone, Debug, Serialize)]
pub struct OpenLoop {
    /// Events per second, over all writers. Default 1,000,000.
    pub events_per_second: u64,
    /// Payload bytes of each event; 8 bytes of header come on top. Default 100.
    pub event_bytes: usize,
    /// Segments. Default 16.
    pub segments: usize,
    /// Connections that share them. Default 4.
    pub connections: usize,
    /// Measured time, after the warm-up. Default 60 s.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub duration: Duration,
    /// Time before, at the same rate, that is not counted. Default 5 s.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub warm_up: Duration,
    /// Longest time an event is held back to fill a block. Default 1 ms.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub hold: Duration,
    /// Truncation behind the load; `None` lets the segments grow.
    pub truncation: Option<Truncation>,
}

impl Default for OpenLoop {
    fn default() -> Self {
        Self {
            events_per_second: 1_000_000,
            event_bytes: 100,
            segments: 16,
            connections: 4,
            duration: Duration::from_secs(60),
            warm_up: Duration::from_secs(5),
            hold: Duration::from_millis(1),
            truncation: Some(Truncation::default()),
        }
    }
}

/// One second of a load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Second {
    /// Seconds since the start, warm-up included.
    pub at: f64,
    /// Events given to the connections in it.
    pub sent: u64,
    /// Events acknowledged in it.
    pub acknowledged: u64,
    /// Events due and not acknowledged at its end.
    pub backlog: u64,
    /// Latency of the events acknowledged in it.
    pub latency: Latency,
}

/// Outcome of an open-loop load. Rates are of the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct OpenLoopResult {
    /// Events per second given to the connections.
    pub sent_per_second: f64,
    /// Events per second acknowledged.
    pub acknowledged_per_second: f64,
    /// Bytes of events, headers included, acknowledged per second.
    pub bytes_per_second: f64,
    /// The backlog at the end was not more than a tenth of a second of events, and all of it was
    /// acknowledged later.
    pub has_kept_up: bool,
    /// Events due and not acknowledged when the schedule ended.
    pub backlog_at_end: u64,
    /// Largest backlog at the end of any second.
    pub backlog_max: u64,
    /// Events never acknowledged, after the drain.
    pub unacknowledged: u64,
    /// Events of an average block.
    pub events_per_block: f64,
    /// From intended time to acknowledgement, every event of the measured time.
    pub latency: Latency,
    /// Processor time and memory.
    pub usage: Usage,
    /// Second by second.
    pub seconds: Vec<Second>,
}

impl Summary for OpenLoopResult {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "sent/s",
            "acked/s",
            "kept up",
            "backlog",
            "events/block",
            "p50",
            "p95",
            "p99",
            "p99.9",
            "max",
            "generator cores",
            "server cores",
        ]);
        table.row(self.cells());
        table
    }
}

impl OpenLoopResult {
    pub(crate) fn cells(&self) -> Vec<String> {
        let latency = &self.latency;
        vec![
            format!("{:.0}", self.sent_per_second),
            format!("{:.0}", self.acknowledged_per_second),
            if self.has_kept_up { "yes" } else { "no" }.to_owned(),
            self.backlog_at_end.to_string(),
            format!("{:.1}", self.events_per_block),
            readable(latency.p50_us),
            readable(latency.p95_us),
            readable(latency.p99_us),
            readable(latency.p999_us),
            readable(latency.max_us),
            format!("{:.2}", self.usage.generator_cores),
            self.usage.server_cores_text(),
        ]
    }
}

impl OpenLoop {
    /// Sets up, runs, takes down.
    pub(crate) fn run(
        &self,
        locator: &dyn Locator,
        name: &str,
        server: Option<ProcessId>,
    ) -> anyhow::Result<OpenLoopResult> {
        let mut rig = self.set_up(locator, name)?;
        let truncator = match self.truncation {
            Some(settings) => Some(Truncator::start(rig.segments.clone(), settings)?),
            None => None,
        };
        let result = self.load(&mut rig, server)?;
        if let Some(truncator) = truncator {
            truncator.stop()?;
        }
        rig.take_down()?;
        Ok(result)
    }

    /// Segments, connections and writers of this load.
    pub(crate) fn set_up(&self, locator: &dyn Locator, name: &str) -> anyhow::Result<Rig> {
        let shape = Shape {
            segments: self.segments,
            connections: self.connections,
            writers_per_segment: 1,
        };
        Rig::set_up(locator, name, shape)
    }

    /// Runs the load on a rig that is idle.
    pub(crate) fn load(
        &self,
        rig: &mut Rig,
        server: Option<ProcessId>,
    ) -> anyhow::Result<OpenLoopResult> {
        let length = self.warm_up + self.duration;
        let schedule = Schedule::new(
            self.events_per_second,
            rig.writer_count(),
            length + DRAIN_WAIT + WAIT_MAX,
        )?;
        let event = self.event_bytes + thalweg_wire::event::EVENT_HEADER_BYTES;
        let template = Template::new(self.event_bytes, (BLOCK_BYTES_MAX / event).max(1));
        let end = Moment::after(length);
        let mut load = Load {
            schedule,
            template,
            hold: self.hold,
            measured: (Moment::after(self.warm_up), end),
            lanes: Vec::new(),
            writers: Writers::new(schedule, rig, end),
            tally: Tally::default(),
            recorder: Recorder::new(),
            seconds: Vec::new(),
        };
        load.lanes = load.stagger(rig.connections.len());
        let meter = load.drive(rig, server, length)?;
        rig.advance(load.writers.acknowledged());
        Ok(load.result(self, meter))
    }
}

/// A writer: numbers count from 1 in each load, on the wire they go on from the load before.
struct Writer {
    base: u64,
    sent: u64,
    acknowledged: u64,
    /// Number of its last event.
    last: u64,
    /// When the event after `sent` is meant to be sent.
    next: Moment,
}

struct Writers(Vec<Writer>);

impl Writers {
    fn new(schedule: Schedule, rig: &Rig, end: Moment) -> Self {
        let writer = |index: usize| {
            let last = schedule.due(index, Moment(end.0 - 1));
            let next = if last > 0 { schedule.intended(index, 1) } else { Moment::NEVER };
            Writer { base: rig.last_number(index), sent: 0, acknowledged: 0, last, next }
        };
        Self((0..rig.writer_count()).map(writer).collect())
    }

    /// Events each writer got acknowledged.
    fn acknowledged(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|writer| writer.acknowledged)
    }
}

/// When a connection must send next.
#[derive(Clone, Copy)]
struct Lane {
    flush_at: Moment,
}

#[derive(Default)]
struct Tally {
    sent: u64,
    acknowledged: u64,
    blocks: u64,
    sent_measured: u64,
    acknowledged_measured: u64,
    backlog_at_end: u64,
}

struct Load {
    schedule: Schedule,
    template: Template,
    hold: Duration,
    measured: (Moment, Moment),
    lanes: Vec<Lane>,
    writers: Writers,
    tally: Tally,
    recorder: Recorder,
    seconds: Vec<Second>,
}

impl Load {
    /// First flush of each connection, spread over the hold time: clients of their own would not
    /// send at the same moment either.
    fn stagger(&self, connections: usize) -> Vec<Lane> {
        let step = self.hold / u32::try_from(connections).unwrap_or(u32::MAX);
        (0..connections)
            .map(|index| Lane {
                flush_at: Moment::after(step * u32::try_from(index + 1).unwrap_or(u32::MAX)),
            })
            .collect()
    }

    fn drive(
        &mut self,
        rig: &mut Rig,
        server: Option<ProcessId>,
        length: Duration,
    ) -> anyhow::Result<UsageMeter> {
        let start = Instant::now();
        let now = || Moment::after(start.elapsed());
        let mut meter = None;
        let mut ready = Vec::new();
        let mut tick = Moment::after(Duration::from_secs(1));
        let end = Moment::after(length);
        let mut has_ended = false;
        loop {
            let at = now();
            if meter.is_none() && at >= self.measured.0 {
                meter = Some(UsageMeter::start(server)?);
            }
            if at >= tick {
                self.end_second(at, rig.writer_count());
                tick = tick + Duration::from_secs(1);
            }
            if at >= end && !has_ended {
                has_ended = true;
                self.tally.backlog_at_end = self.backlog(end);
                if let Some(meter) = &mut meter {
                    meter.stop()?;
                }
            }
            if has_ended && (self.backlog(end) == 0 || at >= end + DRAIN_WAIT) {
                break;
            }
            self.send_due(rig, at)?;
            let next = self.lanes.iter().map(|lane| lane.flush_at).min().unwrap_or(Moment::NEVER);
            let wait = next.min(tick).since(now()).min(WAIT_MAX);
            rig.wait(wait, &mut ready)?;
            for connection in &ready {
                self.receive(rig, *connection, now)?;
            }
        }
        Ok(meter.expect("the measured time begins before it ends"))
    }

    /// Queues and writes what is due on the connections whose time has come, and goes on with those
    /// that were blocked.
    fn send_due(&mut self, rig: &mut Rig, now: Moment) -> anyhow::Result<()> {
        for index in 0..self.lanes.len() {
            if now >= self.lanes[index].flush_at {
                self.lanes[index].flush_at = self.queue_due(rig, index, now);
            } else if rig.connections[index].unsent_bytes() == 0 {
                continue;
            }
            rig.connections[index].flush()?;
        }
        Ok(())
    }

    /// Queues a connection's due events, block by block. Gives the moment of its next flush.
    fn queue_due(&mut self, rig: &mut Rig, index: usize, now: Moment) -> Moment {
        let mut oldest = Moment::NEVER;
        for writer in &rig.writers[index] {
            let state = &mut self.writers.0[*writer];
            if state.next <= now {
                let due = self.schedule.due(*writer, now).min(state.last);
                while state.sent < due && rig.connections[index].unsent_bytes() < UNSENT_BYTES_MAX {
                    let count = (due - state.sent).min(self.template.events_max() as u64);
                    state.sent += count;
                    let data = self.template.block(count as usize);
                    let (id, number) = (WriterId::new(rig.run, *writer), state.base + state.sent);
                    rig.connections[index].send_block(id, count as u32, number, &data);
                    self.tally.blocks += 1;
                    self.tally.sent += count;
                    if now >= self.measured.0 && now < self.measured.1 {
                        self.tally.sent_measured += count;
                    }
                }
                state.next = match state.sent < state.last {
                    true => self.schedule.intended(*writer, state.sent + 1),
                    false => Moment::NEVER,
                };
            }
            oldest = oldest.min(state.next);
        }
        // After a full queue the oldest is overdue; it is looked at again after the hold time, not
        // at once.
        match oldest {
            Moment::NEVER => Moment::NEVER,
            oldest => (oldest.max(now)) + self.hold,
        }
    }

    fn receive(
        &mut self,
        rig: &mut Rig,
        connection: usize,
        now: impl Fn() -> Moment,
    ) -> anyhow::Result<()> {
        let Self { schedule, measured, writers, tally, recorder, .. } = self;
        let mut at = None;
        rig.acknowledgements(connection, |writer, number| {
            // Stamped after the bytes were received, once for all that came with them.
            let at = *at.get_or_insert_with(&now);
            let state = writers.0.get_mut(writer).filter(|state| {
                number > state.base + state.acknowledged && number <= state.base + state.sent
            });
            let Some(state) = state else {
                anyhow::bail!("writer {writer} is acknowledged {number}, out of order");
            };
            let number = number - state.base;
            for event in state.acknowledged + 1..=number {
                let intended = schedule.intended(writer, event);
                if intended >= measured.0 {
                    recorder.record(at.nanos_since(intended));
                }
            }
            let count = number - state.acknowledged;
            state.acknowledged = number;
            tally.acknowledged += count;
            if at >= measured.0 && at < measured.1 {
                tally.acknowledged_measured += count;
            }
            Ok(())
        })
    }

    /// Events due and not acknowledged.
    fn backlog(&self, now: Moment) -> u64 {
        let writers = self.writers.0.iter().enumerate();
        writers
            .map(|(index, state)| {
                self.schedule.due(index, now).min(state.last).saturating_sub(state.acknowledged)
            })
            .sum()
    }

    fn end_second(&mut self, now: Moment, writers: usize) {
        let before = self.seconds.iter().fold((0, 0), |(sent, acknowledged), second| {
            (sent + second.sent, acknowledged + second.acknowledged)
        });
        let second = Second {
            at: now.0 as f64 / 1e9,
            sent: self.tally.sent - before.0,
            acknowledged: self.tally.acknowledged - before.1,
            backlog: self.backlog(now),
            latency: self.recorder.end_interval(),
        };
        eprintln!(
            "{:4.0} s  {writers} writers  sent {:8}  acked {:8}  backlog {:8}  \
             p50 {}  p99 {}  max {}",
            second.at,
            second.sent,
            second.acknowledged,
            second.backlog,
            readable(second.latency.p50_us),
            readable(second.latency.p99_us),
            readable(second.latency.max_us),
        );
        self.seconds.push(second);
    }

    fn result(mut self, settings: &OpenLoop, meter: UsageMeter) -> OpenLoopResult {
        let acknowledged = per_second(self.tally.acknowledged_measured, settings.duration);
        let backlog_limit =
            (settings.events_per_second as f64 * BACKLOG_MAX.as_secs_f64()).max(1.0) as u64;
        let unacknowledged = self.backlog(self.measured.1);
        OpenLoopResult {
            sent_per_second: per_second(self.tally.sent_measured, settings.duration),
            acknowledged_per_second: acknowledged,
            bytes_per_second: acknowledged * self.template.event_bytes() as f64,
            has_kept_up: self.tally.backlog_at_end <= backlog_limit && unacknowledged == 0,
            backlog_at_end: self.tally.backlog_at_end,
            backlog_max: self.seconds.iter().map(|second| second.backlog).max().unwrap_or(0),
            unacknowledged,
            events_per_block: self.tally.sent as f64 / self.tally.blocks.max(1) as f64,
            latency: self.recorder.total(),
            usage: meter.usage(),
            seconds: self.seconds,
        }
    }
}

#[cfg(test)]
mod tests;
