//! Reads of segment data: locate, assemble from frames in memory, park at the tail, fetch what is
//! not in memory.
//!
//! Only durable bytes are read. Each operation that a read meets in a frame is checked to be an
//! append to this segment at this offset: a frame that holds something else is damage, and the
//! connection is closed rather than given wrong bytes. A read that has at least one byte in memory
//! is answered with what is there; frames are fetched only for the first byte, with the following
//! ones ahead.

use bytes::{Bytes, BytesMut};

use crate::container::{Container, No, Shared, no_such_segment, signed};
use crate::fault::Fault;
use crate::id::{ContainerId, SegmentName, Token};
use crate::index::{Extent, WalkHint};
use crate::limits::READ_REPLY_BYTES_MAX;
use crate::operation::{APPEND_HEADER_BYTES, corrupt, decode_append, decode_header};
use crate::pending::Step;
use crate::position::{JournalAddress, Offset};
use crate::rare::{self, Point};
use crate::request::{CloseReason, Effect, Refusal, Reply};
use crate::segment::{Segment, SegmentHandle};
use crate::tail::{ParkedId, PendingRead};
use crate::time::Now;

/// Pieces of a reply from this size on share the frame's memory; smaller ones are copied together.
const SHARED_PIECE_BYTES_MIN: usize = 4096;

/// Where the bytes of a read are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Located {
    /// Gone.
    BeforeStart,
    /// Durable.
    There,
    /// At or behind the end of a segment that may grow, or whose end is not durable.
    Tail,
    /// Exactly at the final end.
    End,
    /// Behind the final end.
    BehindEnd,
}

/// How the read came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Asked,
    /// It was parked before.
    Woken,
}

impl Container {
    /// Answers a read, or parks it, or fetches what it needs.
    #[allow(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(crate) fn read(
        &mut self,
        shared: &mut Shared,
        now: Now,
        token: Token,
        name: SegmentName,
        offset: Offset,
        length: u32,
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.find(&name) else {
            let no = no_such_segment(&name, Some(offset));
            return self.answer(&shared.log, token, Err(no), effects);
        };
        if self.segments.get(segment).is_some_and(|found| found.table.is_some()) {
            let no = Refusal::Unsupported { operation: "readSegment" }.into();
            return self.answer(&shared.log, token, Err(no), effects);
        }
        let container = self.number;
        let read = PendingRead { token, container, segment, name, offset, length };
        self.go_on(shared, now, read, Arrival::Asked, effects);
    }

    /// A frame that the read waited for is in memory.
    pub(crate) fn resume_read(
        &mut self,
        shared: &mut Shared,
        now: Now,
        read: PendingRead,
        effects: &mut Vec<Effect>,
    ) {
        self.go_on(shared, now, read, Arrival::Asked, effects);
    }

    /// Whether the bytes that a read asks for are still part of its segment.
    pub(crate) fn is_readable(&self, read: &PendingRead) -> bool {
        let segment = self.segments.get(read.segment);
        segment.is_some_and(|segment| locate(segment, read.offset) == Located::There)
    }

    /// The end of the segment moved, or became final, or its start passed a parked read.
    pub(crate) fn resume_parked(
        &mut self,
        shared: &mut Shared,
        now: Now,
        handle: SegmentHandle,
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(handle) else { return };
        let parked = std::mem::take(&mut segment.parked);
        for id in parked {
            let Some(read) = shared.parked.get(id) else { continue };
            let Some(segment) = self.segments.get_mut(handle) else { return };
            if locate(segment, read.offset) == Located::Tail {
                segment.parked.insert(id);
                continue;
            }
            let read = shared.parked.remove(id).expect("it was looked at");
            self.go_on(shared, now, read, Arrival::Woken, effects);
        }
    }

    fn go_on(
        &mut self,
        shared: &mut Shared,
        now: Now,
        read: PendingRead,
        arrival: Arrival,
        effects: &mut Vec<Effect>,
    ) {
        let (token, offset) = (read.token, read.offset);
        let Some(segment) = self.segments.get_mut(read.segment) else {
            let no = no_such_segment(&read.name, Some(offset));
            return self.answer(&shared.log, token, Err(no), effects);
        };
        match locate(segment, offset) {
            Located::There => self.assemble(shared, read, arrival, effects),
            Located::Tail => park(shared, now, segment, read, effects),
            Located::End => effects.push(Effect::Reply { token, reply: Ok(empty(read, false)) }),
            Located::BeforeStart => {
                let start_offset = segment.start_offset;
                let segment = read.name;
                let offset = signed(offset);
                let no = Refusal::SegmentTruncated { segment, start_offset, offset }.into();
                self.answer(&shared.log, token, Err(no), effects);
            }
            Located::BehindEnd => {
                let no = match arrival {
                    Arrival::Asked => No::Close(CloseReason::Protocol),
                    Arrival::Woken => {
                        let (segment, offset) = (read.name, signed(offset));
                        Refusal::SegmentSealed { segment, offset }.into()
                    }
                };
                self.answer(&shared.log, token, Err(no), effects);
            }
        }
    }

    /// Answers with what is in memory from the read's offset on, or fetches it.
    fn assemble(
        &mut self,
        shared: &mut Shared,
        read: PendingRead,
        arrival: Arrival,
        effects: &mut Vec<Effect>,
    ) {
        let segment = self.segments.get_mut(read.segment).expect("it was located");
        let length = u64::from(read.length.clamp(1, READ_REPLY_BYTES_MAX));
        let available = segment.durable_length.bytes_since(read.offset);
        let most = if rare::maybe(Point::ShortRead) { 1 } else { length };
        let until = read.offset.advance(most.min(available));
        let collected = match collect(shared, self.id, segment, read.offset, until) {
            Ok(collected) => collected,
            Err(_damage) => {
                let reason = CloseReason::Unavailable;
                effects.push(Effect::Close { token: read.token, reason });
                return;
            }
        };
        if collected.end == read.offset {
            fetch(shared, segment, read, until, effects);
            return;
        }
        segment.index.hint = collected.hint;
        assert!(collected.end <= segment.durable_length, "only durable bytes are read");
        let at_tail = collected.end == segment.durable_length;
        let wants_more = length > available || arrival == Arrival::Woken;
        let end_of_segment = at_tail && segment.is_sealed_durably && wants_more;
        let reply = Reply::Read {
            segment: read.name,
            offset: read.offset,
            data: collected.data,
            at_tail: at_tail && !end_of_segment,
            end_of_segment,
        };
        effects.push(Effect::Reply { token: read.token, reply: Ok(reply) });
    }

    /// Takes the parked reads of a segment that is about to go and answers them, in order, when
    /// that is durable. `end`: where the segment ended, when it was sealed before.
    pub(crate) fn dismiss_parked(
        &mut self,
        shared: &mut Shared,
        handle: SegmentHandle,
    ) -> Vec<PendingRead> {
        let Some(segment) = self.segments.get_mut(handle) else { return Vec::new() };
        let parked = std::mem::take(&mut segment.parked);
        parked.into_iter().filter_map(|id| shared.parked.remove(id)).collect()
    }

    /// A parked read is given up, or its connection is gone.
    pub(crate) fn unpark(&mut self, handle: SegmentHandle, id: ParkedId) {
        if let Some(segment) = self.segments.get_mut(handle) {
            segment.parked.remove(&id);
        }
    }

    /// Answers dismissed reads, in order: the segment is gone.
    pub(crate) fn answer_dismissed(&mut self, reads: Vec<PendingRead>, end: Option<Offset>) {
        for read in reads {
            let token = read.token;
            let reply = match end {
                Some(end) if read.offset == end => Ok(empty(read, false)),
                Some(end) if read.offset > end => {
                    let offset = signed(read.offset);
                    Err(Refusal::SegmentSealed { segment: read.name, offset })
                }
                _ => Ok(empty(read, true)),
            };
            self.defer(Step::Reply(token, Box::new(reply)));
        }
    }
}

/// The answer to a read that gets nothing: at the final end, or given up at the tail.
pub(crate) fn empty(read: PendingRead, at_tail: bool) -> Reply {
    Reply::Read {
        segment: read.name,
        offset: read.offset,
        data: Vec::new(),
        at_tail,
        end_of_segment: !at_tail,
    }
}

fn locate(segment: &Segment, offset: Offset) -> Located {
    if offset < segment.start_offset {
        Located::BeforeStart
    } else if offset < segment.durable_length {
        Located::There
    } else if !segment.is_sealed_durably {
        Located::Tail
    } else if offset == segment.durable_length {
        Located::End
    } else {
        Located::BehindEnd
    }
}

fn park(
    shared: &mut Shared,
    now: Now,
    segment: &mut Segment,
    read: PendingRead,
    effects: &mut Vec<Effect>,
) {
    let own = shared.parked.len_of(read.token.into());
    if shared.parked.len() >= shared.limits.parked_reads_max
        || own >= shared.limits.parked_reads_per_connection_max
    {
        let reason = CloseReason::ParkedReads;
        effects.push(Effect::Close { token: read.token, reason });
        return;
    }
    let deadline = now.monotonic.after(shared.limits.parked_read);
    segment.parked.insert(shared.parked.park(read, deadline));
}

/// Asks for the frame of the read's first byte and, ahead, for those behind it.
fn fetch(
    shared: &mut Shared,
    segment: &Segment,
    read: PendingRead,
    until: Offset,
    effects: &mut Vec<Effect>,
) {
    let first = segment.index.find(read.offset).expect("durable bytes are indexed");
    let ahead_bytes_max = (READ_REPLY_BYTES_MAX as usize).min(shared.history.bytes_max() / 2);
    let mut bytes = 0;
    for index in first.. {
        // Behind `until` a frame may have no address yet.
        let Some(extent) = segment.index.extent(index).filter(|extent| extent.offset < until)
        else {
            break;
        };
        let address = extent.frame.address().expect("durable bytes have an address");
        bytes += address.frame_bytes() as usize;
        if index > first && bytes > ahead_bytes_max {
            break;
        }
        if frame_in_memory(shared, address).is_none() && shared.fetches.begin(address) {
            effects.push(Effect::Fetch { address });
        }
    }
    let extent = segment.index.extent(first).expect("it was found");
    let address = extent.frame.address().expect("durable bytes have an address");
    shared.fetches.join(address, read);
}

fn frame_in_memory(shared: &Shared, address: JournalAddress) -> Option<&Bytes> {
    shared.tail.get(address).or_else(|| shared.history.get(address))
}

/// What a read found in memory.
struct Collected {
    data: Vec<Bytes>,
    /// Behind the last byte found.
    end: Offset,
    hint: Option<WalkHint>,
}

/// Gathers durable bytes from `from` up to `until`, as far as frames are in memory.
fn collect(
    shared: &Shared,
    container: ContainerId,
    segment: &Segment,
    from: Offset,
    until: Offset,
) -> Result<Collected, Fault> {
    let mut pieces = Pieces::default();
    let mut end = from;
    let mut hint = segment.index.hint;
    let first = segment.index.find(from).expect("durable bytes are indexed");
    for index in first.. {
        if end >= until {
            break;
        }
        let extent = segment.index.extent(index).expect("durable bytes are indexed");
        let address = extent.frame.address().expect("durable bytes have an address");
        let Some(frame) = frame_in_memory(shared, address) else { break };
        let walk = Walk { container, segment, extent, frame };
        hint = Some(walk.collect(end, until, hint, &mut pieces)?);
        end = extent.end().min(until);
    }
    Ok(Collected { data: pieces.finish(), end, hint })
}

/// Goes along the append operations of one extent.
struct Walk<'a> {
    container: ContainerId,
    segment: &'a Segment,
    extent: &'a Extent,
    frame: &'a Bytes,
}

impl Walk<'_> {
    /// Adds the bytes of the extent between `from` and `until` to `pieces`; returns where a read at
    /// the end of them begins to walk.
    fn collect(
        &self,
        from: Offset,
        until: Offset,
        hint: Option<WalkHint>,
        pieces: &mut Pieces,
    ) -> Result<WalkHint, Fault> {
        let (recorded_as, base) = self.segment.index.origin(self.segment.id, self.extent.offset);
        let until = until.min(self.extent.end());
        let mut at = WalkHint {
            frame: self.extent.frame,
            position: self.extent.position,
            offset: self.extent.offset,
        };
        if let Some(hint) = hint
            && hint.frame == at.frame
            && hint.offset >= at.offset
            && hint.offset <= from
        {
            at = hint;
        }
        loop {
            let operation = self.frame.get(at.position as usize..).unwrap_or_default();
            let (append, next) = decode_append(operation)?;
            let container = decode_header(operation)?.container;
            let fits = container == self.container
                && append.segment == recorded_as
                && base.advance(append.offset.0) == at.offset
                && append.length > 0;
            if !fits {
                return Err(corrupt(format!(
                    "{:?} holds other bytes than those of {} at {}",
                    at.frame.address(),
                    self.segment.name,
                    at.offset.0
                )));
            }
            let end = at.offset.advance(u64::from(append.length));
            if end > from {
                let data = at.position as usize + APPEND_HEADER_BYTES;
                let skip = from.max(at.offset).bytes_since(at.offset) as usize;
                let take = until.min(end).bytes_since(at.offset) as usize;
                pieces.add(self.frame, data + skip..data + take);
            }
            if end >= until {
                return Ok(at);
            }
            if next == 0 {
                return Err(corrupt(format!("chain of {} ends early", self.segment.name)));
            }
            at.position = at.position.saturating_add(next);
            at.offset = end;
        }
    }
}

/// The data of a reply in the making.
#[derive(Default)]
struct Pieces {
    data: Vec<Bytes>,
    copied: BytesMut,
}

impl Pieces {
    fn add(&mut self, frame: &Bytes, range: std::ops::Range<usize>) {
        if range.len() < SHARED_PIECE_BYTES_MIN {
            self.copied.extend_from_slice(&frame[range]);
            return;
        }
        self.flush();
        self.data.push(frame.slice(range));
    }

    fn flush(&mut self) {
        if !self.copied.is_empty() {
            self.data.push(self.copied.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.data
    }
}
