//! A writer with a segment of its own, and a reader at its tail. What was acknowledged to the one
//! and shown to the other is remembered here and looked for after every failure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_crash::wire::{StopSwitch, Trouble, Wire};
use thalweg_wire::{
    Command, CreateSegment, DeleteSegment, GetStreamSegmentInfo, NO_EVENT_NUMBER, ReadSegment,
    StreamSegmentInfo, Text, TruncateSegment,
};

use crate::payload;
use crate::rig::PATIENCE;

/// Blocks under way at a time.
const BLOCKS_MAX: i64 = 8;

/// Events of one block.
const BLOCK_EVENTS: i64 = 5;

/// A segment longer than this is truncated when it was verified.
const KEPT_BYTES: i64 = 2 << 20;

/// How long a server that is ready may answer that it does not serve.
const OWNERLESS_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Writer {
    author: u64,
    pub(crate) segment: String,
    sent: i64,
    pub(crate) acknowledged: i64,
    /// End of what was shown to the reader.
    seen: AtomicI64,
    /// All before is verified: place of the event with the number after `checked_number`.
    checked_offset: i64,
    checked_number: i64,
    /// Verified events are not truncated.
    pub(crate) keeps_all: bool,
}

pub(crate) fn connect(address: SocketAddr, stop: &StopSwitch) -> Result<Wire, Trouble> {
    Wire::connect(address, PATIENCE, stop)
}

impl Writer {
    pub(crate) fn new(author: u64) -> Self {
        Self {
            author,
            segment: format!("power/writer-{author}/0.#epoch.0"),
            sent: 0,
            acknowledged: 0,
            seen: AtomicI64::new(0),
            checked_offset: 0,
            checked_number: 0,
            keeps_all: false,
        }
    }

    /// Appends until stopped; resumes after each lost connection where the server says.
    pub(crate) fn work(
        &mut self,
        address: SocketAddr,
        stop: &StopSwitch,
        total: &AtomicU64,
    ) -> Result<(), Trouble> {
        let seen = AtomicI64::new(*self.seen.get_mut());
        let start = self.checked_offset;
        let segment = self.segment.clone();
        let ended = thread::scope(|scope| {
            let reader = scope.spawn(|| follow(&segment, start, &seen, address, stop));
            let ended = loop {
                match self.session(address, stop, total) {
                    Ok(()) | Err(Trouble::Stopped) => break Ok(()),
                    Err(Trouble::Closed) if stop.is_stopped() => break Ok(()),
                    Err(Trouble::Closed) => thread::sleep(Duration::from_millis(2)),
                    Err(trouble) => break Err(trouble),
                }
            };
            stop_if(ended.is_err(), stop);
            ended.and(reader.join().expect("a reader does not panic"))
        });
        self.seen.fetch_max(seen.into_inner(), Ordering::AcqRel);
        ended
    }

    fn session(
        &mut self,
        address: SocketAddr,
        stop: &StopSwitch,
        total: &AtomicU64,
    ) -> Result<(), Trouble> {
        let mut wire = connect(address, stop)?;
        let Some(last) = self.set_up(&mut wire)? else { return Err(Trouble::Closed) };
        total.fetch_add((last - self.acknowledged).unsigned_abs(), Ordering::AcqRel);
        (self.acknowledged, self.sent) = (last, last.max(self.sent));
        let mut next = last + 1;
        loop {
            while !stop.is_stopped() && next - self.acknowledged <= BLOCKS_MAX * BLOCK_EVENTS {
                let end = next + BLOCK_EVENTS - 1;
                let mut data = BytesMut::new();
                (next..=end).for_each(|number| payload::frame(self.author, number, &mut data));
                // What is sent in part may be stored in whole.
                self.sent = self.sent.max(end);
                wire.append(self.id(), data.freeze(), end, 5)?;
                next = end + 1;
            }
            match wire.receive()? {
                Command::DataAppended(reply) => {
                    if reply.event_number <= self.acknowledged || reply.event_number >= next {
                        return Err(Trouble::wrong(format!(
                            "{}: {reply:?} after {} and before {next}",
                            self.segment, self.acknowledged
                        )));
                    }
                    let more = (reply.event_number - self.acknowledged).unsigned_abs();
                    total.fetch_add(more, Ordering::AcqRel);
                    self.acknowledged = reply.event_number;
                }
                Command::WrongHost(_) => return Err(Trouble::Closed),
                other => return Err(self.wrong(&format!("{other:?} to an append"))),
            }
        }
    }

    fn id(&self) -> u128 {
        u128::from(self.author) << 64 | 7
    }

    fn wrong(&self, what: &str) -> Trouble {
        Trouble::wrong(format!("{}: {what}", self.segment))
    }

    /// Opens the append session: the last durable number, which must cover what was acknowledged.
    /// `None` while nobody serves.
    fn set_up(&self, wire: &mut Wire) -> Result<Option<i64>, Trouble> {
        let mut reply = wire.set_up(&self.segment, self.id())?;
        if let Command::NoSuchSegment(_) = reply {
            if self.acknowledged > 0 {
                return Err(self.wrong("the segment is gone"));
            }
            match wire.ask(|request_id| create(request_id, &self.segment))? {
                Command::SegmentCreated(_) | Command::SegmentAlreadyExists(_) => {}
                Command::WrongHost(_) => return Ok(None),
                other => return Err(self.wrong(&format!("{other:?} to CreateSegment"))),
            }
            reply = wire.set_up(&self.segment, self.id())?;
        }
        match reply {
            Command::AppendSetup(reply) => {
                let is_new = reply.last_event_number == NO_EVENT_NUMBER;
                let last = if is_new { 0 } else { reply.last_event_number };
                if last < self.acknowledged || last > self.sent {
                    return Err(self.wrong(&format!(
                        "{last} is told to be durable; {} was acknowledged and {} sent",
                        self.acknowledged, self.sent
                    )));
                }
                Ok(Some(last))
            }
            Command::WrongHost(_) => Ok(None),
            other => Err(self.wrong(&format!("{other:?} to SetupAppend"))),
        }
    }

    /// Reads all that is not truncated and compares; truncates then. Gives the events judged.
    pub(crate) fn verify(&mut self, address: SocketAddr) -> Result<u64, Trouble> {
        let stop = StopSwitch::default();
        let begin = Instant::now();
        let (mut wire, last) = loop {
            let mut wire = connect(address, &stop)?;
            if let Some(last) = self.set_up(&mut wire)? {
                break (wire, last);
            }
            if begin.elapsed() > OWNERLESS_MAX {
                return Err(self.wrong("nobody serves it"));
            }
            thread::sleep(Duration::from_millis(5));
        };
        let info = self.info(&mut wire)?;
        let seen = *self.seen.get_mut();
        if info.write_offset < seen {
            let length = info.write_offset;
            return Err(self.wrong(&format!("{length} bytes, and a reader has seen {seen}")));
        }
        let data = read(&mut wire, &self.segment, self.checked_offset, info.write_offset)?;
        let first = self.checked_number + 1;
        let events = payload::judge(&self.segment, self.author, first, self.checked_offset, data)?;
        let count = i64::try_from(events.len()).expect("events in memory");
        if self.checked_number + count != last {
            let stored = self.checked_number + count;
            return Err(self.wrong(&format!("{stored} events are stored, {last} told")));
        }
        self.acknowledged = last;
        if !self.keeps_all && info.write_offset - self.checked_offset > KEPT_BYTES {
            let place = events[events.len() / 2];
            match wire.ask(|request_id| truncate(request_id, &self.segment, place))? {
                Command::SegmentTruncated(_) => {}
                other => return Err(self.wrong(&format!("{other:?} to TruncateSegment"))),
            }
            self.checked_number += i64::try_from(events.len() / 2).expect("events in memory");
            self.checked_offset = place;
        }
        Ok(count.unsigned_abs())
    }

    pub(crate) fn info(&self, wire: &mut Wire) -> Result<StreamSegmentInfo, Trouble> {
        let reply = wire.ask(|request_id| {
            GetStreamSegmentInfo {
                request_id,
                segment: self.segment.as_str().into(),
                delegation_token: Text::new(),
            }
            .into()
        })?;
        match reply {
            Command::StreamSegmentInfo(info) => Ok(info),
            other => Err(self.wrong(&format!("{other:?} to GetStreamSegmentInfo"))),
        }
    }
}

fn stop_if(is_so: bool, stop: &StopSwitch) {
    if is_so {
        stop.stop();
    }
}

/// Creates a segment.
pub(crate) fn create(request_id: i64, segment: &str) -> Command {
    CreateSegment {
        request_id,
        segment: segment.into(),
        target_rate: 0,
        scale_type: 0,
        delegation_token: Text::new(),
        rollover_size_bytes: 0,
    }
    .into()
}

/// Truncates a segment.
pub(crate) fn truncate(request_id: i64, segment: &str, truncation_offset: i64) -> Command {
    let (segment, delegation_token) = (segment.into(), Text::new());
    TruncateSegment { request_id, segment, truncation_offset, delegation_token }.into()
}

/// Deletes a segment.
pub(crate) fn delete(request_id: i64, segment: &str) -> Command {
    DeleteSegment { request_id, segment: segment.into(), delegation_token: Text::new() }.into()
}

fn read_once(wire: &mut Wire, segment: &str, offset: i64) -> Result<Command, Trouble> {
    wire.ask(|request_id| {
        ReadSegment {
            segment: segment.into(),
            offset,
            suggested_length: 1 << 20,
            delegation_token: Text::new(),
            request_id,
        }
        .into()
    })
}

/// All bytes of a range, which must be there.
pub(crate) fn read(wire: &mut Wire, segment: &str, start: i64, end: i64) -> Result<Bytes, Trouble> {
    let mut data = BytesMut::new();
    let mut at = start;
    while at < end {
        match read_once(wire, segment, at)? {
            Command::SegmentRead(reply) if reply.offset == at && !reply.data.is_empty() => {
                at += i64::try_from(reply.data.len()).expect("a reply is of some MiB");
                data.extend_from_slice(&reply.data);
            }
            other => return Err(Trouble::wrong(format!("{segment}: {other:?} to a read at {at}"))),
        }
    }
    data.truncate(usize::try_from(end - start).expect("a segment in memory"));
    Ok(data.freeze())
}

/// Reads at the tail until stopped, and tells how far it has seen.
fn follow(
    segment: &str,
    start: i64,
    seen: &AtomicI64,
    address: SocketAddr,
    stop: &StopSwitch,
) -> Result<(), Trouble> {
    let mut at = seen.load(Ordering::Acquire).max(start);
    while !stop.is_stopped() {
        let Ok(mut wire) = connect(address, stop) else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        loop {
            match read_once(&mut wire, segment, at) {
                Ok(Command::SegmentRead(reply)) if reply.offset == at => {
                    at += i64::try_from(reply.data.len()).expect("a reply is of some MiB");
                    seen.store(at, Ordering::Release);
                }
                Ok(Command::NoSuchSegment(_)) if at == 0 => break,
                Ok(Command::WrongHost(_)) | Err(Trouble::Closed | Trouble::Stopped) => break,
                Ok(other) => {
                    let text = format!("{segment}: {other:?} to a read at {at}");
                    stop.stop();
                    return Err(Trouble::wrong(text));
                }
                Err(Trouble::Silent(_)) => break,
                Err(trouble) => return Err(trouble),
            }
        }
    }
    Ok(())
}
