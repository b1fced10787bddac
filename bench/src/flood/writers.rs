//! The established writers: one thread, one connection and one append session each, a fixed rate or
//! as fast as acknowledgements come. What they write is truncated, so that the journal never fills.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use thalweg_wire::{AppendBlockEnd, Command, Message, Text, TruncateSegment, event};

use super::Flood;
use super::wire::Wire;
use crate::locate::Place;

/// Events of a block.
const BLOCK_EVENTS: u64 = 10;

/// Blocks of a writer without an acknowledgement, when it keeps to a schedule.
const WINDOW: u64 = 8;

/// Bytes of a writer that its socket has not taken at which it makes no more.
const OUT_BYTES_MAX: usize = 64 << 10;

/// Length of a segment above its start at which it is truncated.
const KEPT_BYTES: i64 = 4 << 20;

struct Writer {
    wire: Wire,
    id: u128,
    place: usize,
    sent: u64,
    acknowledged: u64,
    next: Instant,
}

/// All writers.
pub(super) struct Writers {
    writers: Vec<Writer>,
    places: Vec<Place>,
    truncated: Vec<i64>,
    janitors: Vec<Wire>,
    block: Bytes,
    interval: Duration,
}

impl Writers {
    /// Connects and sets all of them up.
    pub(super) fn open(places: &[Place], flood: &Flood) -> anyhow::Result<Self> {
        let mut block = bytes::BytesMut::new();
        for _ in 0..BLOCK_EVENTS {
            event::encode(&vec![7; flood.event_bytes], &mut block);
        }
        let blocks_per_second = flood.events_per_second as f64 / BLOCK_EVENTS as f64;
        let interval = Duration::from_secs_f64(flood.writers as f64 / blocks_per_second.max(1.0));
        let begin = Instant::now();
        let mut writers = Vec::new();
        for index in 0..flood.writers {
            let place = index % places.len();
            let mut wire = Wire::greeted(&places[place].address)?;
            let id = u128::from(u64::MAX) << 64 | index as u128;
            wire.set_up(&places[place].segment, id)?;
            wire.set_nonblocking()?;
            let next = begin + interval.mul_f64(index as f64 / flood.writers as f64);
            writers.push(Writer { wire, id, place, sent: 0, acknowledged: 0, next });
        }
        let mut janitors = Vec::new();
        for place in places {
            let janitor = Wire::greeted(&place.address)?;
            janitor.set_nonblocking()?;
            janitors.push(janitor);
        }
        Ok(Self {
            writers,
            places: places.to_vec(),
            truncated: vec![0; places.len()],
            janitors,
            block: block.freeze(),
            interval,
        })
    }

    /// Writes by schedule for so long; events acknowledged per second.
    pub(super) fn run(&mut self, time: Duration) -> anyhow::Result<f64> {
        self.load(time, Some(self.interval), WINDOW)
    }

    /// Writes with so many blocks under way for each writer, as fast as acknowledgements come.
    pub(super) fn saturate(&mut self, time: Duration, window: u64) -> anyhow::Result<f64> {
        // What is under way becomes steady first.
        self.load(time / 4, None, window)?;
        self.load(time, None, window)
    }

    /// Writes by a schedule of so many events per second whatever is acknowledged: only a socket
    /// that takes no more holds a writer back.
    pub(super) fn overload(&mut self, time: Duration, rate: f64) -> anyhow::Result<f64> {
        let blocks_per_second = rate / BLOCK_EVENTS as f64;
        let interval = Duration::from_secs_f64(self.writers.len() as f64 / blocks_per_second);
        self.load(time / 4, Some(interval), u64::MAX)?;
        self.load(time, Some(interval), u64::MAX)
    }

    /// Waits until everything that was sent is acknowledged.
    pub(super) fn finish(&mut self, patience: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.writers.iter().any(|writer| writer.acknowledged < writer.sent) {
            ensure!(begin.elapsed() < patience, "appends without an answer after {patience:?}");
            self.wait().context("an established writer")?;
        }
        Ok(())
    }

    fn load(
        &mut self,
        time: Duration,
        interval: Option<Duration>,
        window: u64,
    ) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let end = begin + time;
        for writer in &mut self.writers {
            // What was not sent while nobody asked for it is not made up for.
            if writer.next < begin {
                let late = (begin - writer.next).as_nanos();
                let step = self.interval.as_nanos().max(1);
                let whole = Duration::from_nanos(u64::try_from(late / step * step)?);
                writer.next += whole + self.interval;
            }
        }
        let mut blocks = 0;
        while Instant::now() < end {
            let now = Instant::now();
            let block = &self.block;
            for writer in &mut self.writers {
                writer.send(now, interval, window, block).context("an established writer")?;
            }
            blocks += self.wait().context("an established writer")?;
        }
        Ok((blocks * BLOCK_EVENTS) as f64 / begin.elapsed().as_secs_f64())
    }

    /// Waits a little for acknowledgements; gives the number of blocks acknowledged.
    fn wait(&mut self) -> anyhow::Result<u64> {
        let mut polled: Vec<PollFd<'_>> = self
            .writers
            .iter()
            .map(|writer| {
                let out =
                    if writer.wire.out.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                PollFd::new(&writer.wire, PollFlags::IN | out)
            })
            .collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        drop(polled);
        let mut blocks = 0;
        let mut lengths = vec![0; self.places.len()];
        for (writer, is_ready) in self.writers.iter_mut().zip(ready) {
            if is_ready {
                blocks += writer.take(&mut lengths)?;
            }
        }
        self.truncate(&lengths)?;
        Ok(blocks)
    }

    /// Asks for truncations without waiting: the writers' rate must not hang on them.
    fn truncate(&mut self, lengths: &[i64]) -> anyhow::Result<()> {
        for (place, length) in lengths.iter().enumerate() {
            let janitor = &mut self.janitors[place];
            if length - self.truncated[place] < KEPT_BYTES {
                continue;
            }
            while janitor.receive()? {}
            while let Some(reply) = janitor.next()? {
                if !matches!(reply, Command::SegmentTruncated(_)) {
                    bail!("truncation: {reply:?}");
                }
            }
            TruncateSegment {
                request_id: 1,
                segment: Text::from(self.places[place].segment.as_str()),
                truncation_offset: *length,
                delegation_token: Text::new(),
            }
            .encode(&mut janitor.out);
            janitor.flush()?;
            self.truncated[place] = *length;
        }
        Ok(())
    }
}

impl Writer {
    fn send(
        &mut self,
        now: Instant,
        interval: Option<Duration>,
        window: u64,
        block: &Bytes,
    ) -> anyhow::Result<()> {
        // What the socket does not take is not made either: it is what the server pushes back.
        while self.sent - self.acknowledged < window && self.wire.out.len() < OUT_BYTES_MAX {
            if let Some(interval) = interval {
                if self.next > now {
                    break;
                }
                self.next += interval;
            }
            self.sent += 1;
            let last_event_number = i64::try_from(self.sent * BLOCK_EVENTS)?;
            AppendBlockEnd {
                writer_id: self.id,
                size_of_whole_events: i32::try_from(block.len())?,
                data: block.clone(),
                event_count: i32::try_from(BLOCK_EVENTS)?,
                last_event_number,
                request_id: 2,
            }
            .encode(&mut self.wire.out);
        }
        self.wire.flush()?;
        Ok(())
    }

    fn take(&mut self, lengths: &mut [i64]) -> anyhow::Result<u64> {
        let before = self.acknowledged;
        self.wire.flush()?;
        if !self.wire.receive()? {
            return Ok(0);
        }
        while let Some(command) = self.wire.next()? {
            match command {
                Command::DataAppended(appended) => {
                    self.acknowledged = u64::try_from(appended.event_number)? / BLOCK_EVENTS;
                    let length = &mut lengths[self.place];
                    *length = (*length).max(appended.current_segment_write_offset);
                }
                other => bail!("an acknowledgement was expected: {other:?}"),
            }
        }
        Ok(self.acknowledged - before)
    }
}
