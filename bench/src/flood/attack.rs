//! The attacks, each on threads of its own until it is told to stop. An attacker that is refused or
//! closed counts it and goes on with a new connection.
//!
//! Attackers stand for other machines: their threads have the lowest priority, so that what they
//! compute themselves takes nothing from the writers' thread and the server beside them, only what
//! they make the server do. Counted attempts are spread evenly over the slices.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use thalweg_wire::{AppendBlockEnd, Command, Message, ReadSegment, SetupAppend, Text};

use super::Flood;
use super::wire::Wire;
use crate::locate::Place;

/// Connections of one attacking thread.
const CONNECTIONS: usize = 100;

/// Largest event, header included.
const LARGE_BYTES: usize = (8 << 20) + 8;

/// How long an attempt to connect waits.
const CONNECT_TIME: Duration = Duration::from_millis(100);

/// Pause of an attacker that has nothing to do.
const PAUSE: Duration = Duration::from_millis(20);

/// Least urgent of the kernel's priorities, of a thread.
const LOWEST_PRIORITY: i32 = 19;

/// What attackers did.
#[derive(Debug, Default)]
pub(super) struct AttackCounts {
    pub(super) attempts: AtomicU64,
    pub(super) closed: AtomicU64,
}

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Attack {
    Connections,
    SlowSenders,
    SlowReceivers,
    HalfOpen,
    LargeEvents,
    WriterIds,
}

type Thread = JoinHandle<anyhow::Result<()>>;

/// What a thread works with.
#[derive(Clone)]
struct Attacker {
    places: Vec<Place>,
    /// Segments with data.
    history: Vec<Place>,
    number: usize,
    stop: Arc<AtomicBool>,
    counts: Arc<AttackCounts>,
    /// Attempts before this slice began.
    run: u64,
    begin: Instant,
    /// Attempts per second of all threads together; `None`: as they come.
    attempts_per_second: Option<f64>,
}

impl Attack {
    pub(super) const ALL: [Self; 6] = [
        Self::Connections,
        Self::SlowSenders,
        Self::SlowReceivers,
        Self::HalfOpen,
        Self::LargeEvents,
        Self::WriterIds,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connection flood",
            Self::SlowSenders => "slow senders",
            Self::SlowReceivers => "readers that never read",
            Self::HalfOpen => "half-open peers",
            Self::LargeEvents => "8 MiB events",
            Self::WriterIds => "new writer ids",
        }
    }

    /// Starts its threads.
    pub(super) fn start(
        self,
        flood: &Flood,
        (places, history): (&[Place], &[Place]),
        stop: &Arc<AtomicBool>,
        counts: &Arc<AttackCounts>,
    ) -> Vec<Thread> {
        let (threads, attack): (usize, fn(Attacker) -> anyhow::Result<()>) = match self {
            Self::Connections => (2, Attacker::connect),
            Self::SlowSenders => (1, Attacker::send_slowly),
            Self::SlowReceivers => (1, Attacker::never_read),
            Self::HalfOpen => (1, Attacker::fall_silent),
            Self::LargeEvents => (2, Attacker::send_large),
            Self::WriterIds => (2, Attacker::make_writers),
        };
        let attempts = match self {
            Self::Connections => Some(flood.attempts),
            Self::WriterIds => Some(flood.writer_ids),
            _ => None,
        };
        let time = 1.25 * flood.slice.as_secs_f64() * flood.slices.max(1) as f64;
        let attempts_per_second = attempts.map(|count| count as f64 / time);
        let begin = Instant::now();
        let run = counts.attempts.load(Ordering::Relaxed);
        (0..threads)
            .map(|number| {
                // Only readers need them; each connects to where its segment is.
                let places = if self == Self::SlowReceivers { history } else { places }.to_vec();
                let history = history.to_vec();
                let (stop, counts) = (stop.clone(), counts.clone());
                let attacker = Attacker {
                    places,
                    history,
                    number,
                    stop,
                    counts,
                    run,
                    begin,
                    attempts_per_second,
                };
                std::thread::spawn(move || {
                    rustix::process::setpriority_process(None, LOWEST_PRIORITY)?;
                    attack(attacker)
                })
            })
            .collect()
    }
}

impl Attacker {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the next attempts are due.
    fn is_due(&self) -> bool {
        let Some(rate) = self.attempts_per_second else { return true };
        let made = self.counts.attempts.load(Ordering::Relaxed) - self.run;
        (made as f64) < rate * self.begin.elapsed().as_secs_f64()
    }

    fn attempt(&self) -> u64 {
        self.counts.attempts.fetch_add(1, Ordering::Relaxed)
    }

    fn count_closed(&self) {
        self.counts.closed.fetch_add(1, Ordering::Relaxed);
    }

    fn place(&self, index: usize) -> &Place {
        &self.places[index % self.places.len()]
    }

    /// Connects as fast as it can and says nothing; keeps some hundred.
    fn connect(self) -> anyhow::Result<()> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for place in &self.places {
            let found = place.address.to_socket_addrs()?.next();
            addresses.push(found.context("an address without a host")?);
        }
        let mut kept = VecDeque::new();
        while !self.is_over() {
            if !self.is_due() {
                std::thread::sleep(PAUSE / 10);
                continue;
            }
            let address = addresses[self.attempt() as usize % addresses.len()];
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(socket) => kept.push_back(socket),
                Err(_) => self.count_closed(),
            }
            if kept.len() > 3 * CONNECTIONS {
                kept.pop_front();
            }
        }
        Ok(())
    }

    /// Keeps its connections busy with `feed`, which says whether one is still good.
    fn keep(
        &self,
        mut begin: impl FnMut(&mut Wire, usize) -> anyhow::Result<()>,
        mut feed: impl FnMut(&mut Wire, usize) -> anyhow::Result<bool>,
        count: usize,
    ) -> anyhow::Result<()> {
        let mut wires: Vec<Option<Wire>> = (0..count).map(|_| None).collect();
        while !self.is_over() {
            let mut has_moved = false;
            for (index, place) in wires.iter_mut().enumerate() {
                if self.is_over() {
                    break;
                }
                if place.is_none() {
                    self.attempt();
                    let opened = Wire::greeted(&self.place(index).address)
                        .and_then(|mut wire| begin(&mut wire, index).map(|()| wire));
                    match opened {
                        Ok(wire) => *place = Some(wire),
                        Err(_) => self.count_closed(),
                    }
                }
                let Some(wire) = place else { continue };
                match feed(wire, index) {
                    Ok(moved) => has_moved |= moved,
                    Err(_) => {
                        self.count_closed();
                        *place = None;
                    }
                }
            }
            if !has_moved {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn writer_id(&self, index: usize) -> u128 {
        u128::from(self.number as u64 + 1) << 96
            | u128::from(self.run) << 48
            | u128::try_from(index).unwrap_or(0)
    }

    /// Announces the largest event and sends a few bytes of it now and then.
    fn send_slowly(self) -> anyhow::Result<()> {
        let data = Bytes::from(vec![7; LARGE_BYTES]);
        let begin = |wire: &mut Wire, index: usize| {
            wire.set_up(&self.place(index).segment, self.writer_id(index))?;
            wire.set_nonblocking()?;
            append(self.writer_id(index), &data, 1).encode(&mut wire.out);
            wire.out = BytesMut::from(&wire.out[..2000]);
            Ok(())
        };
        let feed = |wire: &mut Wire, _| {
            wire.out.extend_from_slice(&[7; 10]);
            wire.flush()?;
            wire.receive()?;
            Ok(false)
        };
        self.keep(begin, feed, CONNECTIONS)
    }

    /// Asks for data again and again and takes none.
    fn never_read(self) -> anyhow::Result<()> {
        let begin = |wire: &mut Wire, _| Ok(wire.set_nonblocking()?);
        let feed = |wire: &mut Wire, index: usize| {
            if wire.flush()? {
                for request_id in 0..20 {
                    let segment = &self.history[index % self.history.len()].segment;
                    read(Text::from(segment.as_str()), request_id).encode(&mut wire.out);
                }
            }
            Ok(false)
        };
        self.keep(begin, feed, CONNECTIONS)
    }

    /// Waits for data at a place that does not come, and says nothing more.
    fn fall_silent(self) -> anyhow::Result<()> {
        let begin = |wire: &mut Wire, index: usize| {
            wire.set_nonblocking()?;
            let segment = Text::from(self.place(index).segment.as_str());
            ReadSegment { offset: i64::MAX / 2, ..read(segment, 1) }.encode(&mut wire.out);
            wire.flush()?;
            Ok(())
        };
        let feed = |wire: &mut Wire, _| {
            while wire.receive()? {}
            Ok(false)
        };
        self.keep(begin, feed, CONNECTIONS)
    }

    /// Sends the largest events, one after the other on each of its connections.
    fn send_large(self) -> anyhow::Result<()> {
        // A few large ones are as much as the memory of this side should hold.
        let count = CONNECTIONS / 5;
        let data = Bytes::from(vec![7; LARGE_BYTES]);
        // Of each connection: the number under way, or the last acknowledged one below zero.
        let numbers: Vec<Cell<i64>> = vec![Cell::new(0); count];
        let begin = |wire: &mut Wire, index: usize| {
            let last = wire.set_up(&self.place(index).segment, self.writer_id(index))?;
            numbers[index].set(-last.max(0));
            Ok(wire.set_nonblocking()?)
        };
        let feed = |wire: &mut Wire, index: usize| {
            let number = numbers[index].get();
            if wire.out.is_empty() && number <= 0 {
                numbers[index].set(1 - number);
                append(self.writer_id(index), &data, 1 - number).encode(&mut wire.out);
                self.attempt();
            }
            wire.flush()?;
            let mut has_moved = false;
            while wire.receive()? {}
            while let Some(command) = wire.next()? {
                has_moved = true;
                if let Command::DataAppended(it) = command {
                    numbers[index].set(-it.event_number);
                }
            }
            Ok(has_moved)
        };
        self.keep(begin, feed, count)
    }

    /// Sets up one writer after the other, each with one event.
    fn make_writers(self) -> anyhow::Result<()> {
        let begin = |wire: &mut Wire, _| Ok(wire.set_nonblocking()?);
        let mut next = 0;
        let feed = |wire: &mut Wire, index: usize| {
            if wire.flush()? && self.is_due() {
                for _ in 0..50 {
                    next += 1;
                    self.attempt();
                    let writer_id = self.writer_id(next);
                    let segment = Text::from(self.place(index).segment.as_str());
                    let (request_id, delegation_token) = (1, Text::new());
                    SetupAppend { request_id, writer_id, segment, delegation_token }
                        .encode(&mut wire.out);
                    append(writer_id, &Bytes::from_static(&[0; 8]), 1).encode(&mut wire.out);
                }
            }
            let mut has_moved = false;
            while wire.receive()? {
                has_moved = true;
                while wire.next()?.is_some() {}
            }
            Ok(has_moved)
        };
        self.keep(begin, feed, CONNECTIONS / 2)
    }
}

pub(super) fn append(writer_id: u128, data: &Bytes, number: i64) -> AppendBlockEnd {
    AppendBlockEnd {
        writer_id,
        size_of_whole_events: i32::try_from(data.len()).expect("it fits a frame"),
        data: data.clone(),
        event_count: 1,
        last_event_number: number,
        request_id: 2,
    }
}

fn read(segment: Text, request_id: i64) -> ReadSegment {
    let delegation_token = Text::new();
    ReadSegment { segment, offset: 0, suggested_length: 1 << 20, delegation_token, request_id }
}
