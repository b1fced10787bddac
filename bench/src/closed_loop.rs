//! Load that keeps a number of blocks in flight for each writer: it finds how much a server can do,
//! and says nothing about how it does at a given rate. Latency here is from sending a block to its
//! acknowledgement.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;

use crate::connection::WriterId;
use crate::latency::{Latency, Recorder, per_second};
use crate::rig::Rig;
use crate::schedule::Moment;

/// Bytes queued on a connection above which nothing more is added to it.
const UNSENT_BYTES_MAX: usize = 8 << 20;

/// Longest sleep.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// How long nothing may be acknowledged before the run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A block to send: how many events, and their bytes.
pub(crate) type Block = (u32, Bytes);

/// When a closed loop sends and what it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Blocks in flight for each writer.
    pub(crate) blocks: usize,
    /// Nothing is sent after this; `Duration::MAX` leaves the end to the source of blocks.
    pub(crate) until: Duration,
    /// What is acknowledged before this is not counted.
    pub(crate) settle: Duration,
}

/// What a closed loop did in its counted time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedOutcome {
    /// Events acknowledged.
    pub(crate) events: u64,
    /// Bytes acknowledged.
    pub(crate) bytes: u64,
    /// The counted time.
    pub(crate) time: Duration,
    /// Of blocks, from sending to acknowledgement.
    pub(crate) latency: Latency,
}

impl ClosedOutcome {
    pub(crate) fn events_per_second(&self) -> f64 {
        per_second(self.events, self.time)
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        per_second(self.bytes, self.time)
    }
}

/// A block under way.
struct InFlight {
    last: u64,
    sent_at: Moment,
    events: u64,
    bytes: u64,
}

#[derive(Default)]
struct Writer {
    sent: u64,
    acknowledged: u64,
    in_flight: VecDeque<InFlight>,
    has_ended: bool,
}

/// Runs a closed loop on an idle rig until the time is over or `source` has no more blocks for any
/// writer, and everything sent is acknowledged. `progress` is called once per second with the
/// events acknowledged so far.
pub(crate) fn drive(
    rig: &mut Rig,
    window: Window,
    mut source: impl FnMut(usize) -> Option<Block>,
    mut progress: impl FnMut(u64, Latency),
) -> anyhow::Result<ClosedOutcome> {
    let start = Instant::now();
    let mut run = Run {
        writers: (0..rig.writer_count()).map(|_| Writer::default()).collect(),
        window,
        recorder: Recorder::new(),
        counted: (0, 0),
        acknowledged: 0,
        last_heard: Moment::default(),
    };
    let mut ready = Vec::new();
    let mut tick = Moment::after(Duration::from_secs(1));
    loop {
        let now = Moment::after(start.elapsed());
        if now >= tick {
            progress(run.acknowledged, run.recorder.end_interval());
            tick = tick + Duration::from_secs(1);
        }
        let is_open = now < Moment::after(window.until);
        for connection in 0..rig.connections.len() {
            if is_open {
                run.top_up(rig, connection, now, &mut source);
            }
            if rig.connections[connection].unsent_bytes() > 0 {
                rig.connections[connection].flush()?;
            }
        }
        let is_idle = run.writers.iter().all(|writer| writer.in_flight.is_empty());
        if is_idle && (!is_open || run.writers.iter().all(|writer| writer.has_ended)) {
            break;
        }
        anyhow::ensure!(
            now.since(run.last_heard) < SILENCE_MAX,
            "nothing was acknowledged for {SILENCE_MAX:?}"
        );
        rig.wait(WAIT_MAX, &mut ready)?;
        for connection in &ready {
            run.receive(rig, *connection, || Moment::after(start.elapsed()))?;
        }
    }
    rig.advance(run.writers.iter().map(|writer| writer.acknowledged));
    // A run that ends by itself is counted to its last acknowledgement.
    let end = Moment::after(window.until).min(run.last_heard);
    Ok(ClosedOutcome {
        events: run.counted.0,
        bytes: run.counted.1,
        time: end.since(Moment::after(window.settle)),
        latency: run.recorder.total(),
    })
}

struct Run {
    writers: Vec<Writer>,
    window: Window,
    recorder: Recorder,
    /// Events and bytes.
    counted: (u64, u64),
    acknowledged: u64,
    last_heard: Moment,
}

impl Run {
    fn top_up(
        &mut self,
        rig: &mut Rig,
        connection: usize,
        now: Moment,
        source: &mut impl FnMut(usize) -> Option<Block>,
    ) {
        for index in 0..rig.writers[connection].len() {
            let writer = rig.writers[connection][index];
            let base = rig.last_number(writer);
            let state = &mut self.writers[writer];
            while state.in_flight.len() < self.window.blocks
                && !state.has_ended
                && rig.connections[connection].unsent_bytes() < UNSENT_BYTES_MAX
            {
                let Some((events, data)) = source(writer) else {
                    state.has_ended = true;
                    break;
                };
                state.sent += u64::from(events);
                let id = WriterId::new(rig.run, writer);
                rig.connections[connection].send_block(id, events, base + state.sent, &data);
                state.in_flight.push_back(InFlight {
                    last: base + state.sent,
                    sent_at: now,
                    events: u64::from(events),
                    bytes: data.len() as u64,
                });
            }
        }
    }

    fn receive(
        &mut self,
        rig: &mut Rig,
        connection: usize,
        now: impl Fn() -> Moment,
    ) -> anyhow::Result<()> {
        let mut at = None;
        rig.acknowledgements(connection, |writer, number| {
            let at = *at.get_or_insert_with(&now);
            self.last_heard = at;
            // What is acknowledged late counts for the latency, or a pause at the end would hide.
            let has_settled = at >= Moment::after(self.window.settle);
            let is_counted = has_settled && at <= Moment::after(self.window.until);
            let state = self.writers.get_mut(writer).context("an unknown writer")?;
            let before = state.acknowledged;
            while let Some(block) = state.in_flight.front().filter(|block| block.last <= number) {
                if has_settled {
                    self.recorder.record(at.nanos_since(block.sent_at));
                }
                if is_counted {
                    self.counted.0 += block.events;
                    self.counted.1 += block.bytes;
                }
                self.acknowledged += block.events;
                state.acknowledged += block.events;
                state.in_flight.pop_front();
            }
            anyhow::ensure!(
                state.acknowledged > before,
                "writer {writer} is acknowledged {number}, which ends no block"
            );
            Ok(())
        })
    }
}
