//! Events whose bytes follow from who wrote them, their key, their number and their length, so that
//! any byte can be judged without a table of what was sent.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | writer |
//! | 8 | 8 | number |
//! | 16 | 4 | key |
//! | 20 | 4 | length of the payload |
//! | 24 | 4 | CRC32C of everything else |
//! | 28 | ... | filler |
//!
//! In a segment the payload stands in the ordinary framing of events. All numbers are big-endian.

use bytes::{BufMut, BytesMut};
use thalweg_wire::event::{EVENT_HEADER_BYTES, encode_header};

use crate::id::Writer;
use crate::record::Run;

/// Bytes before the filler: the shortest payload.
pub const PAYLOAD_BYTES_MIN: usize = 28;

/// The shortest event with its framing.
pub const EVENT_BYTES_MIN: usize = EVENT_HEADER_BYTES + PAYLOAD_BYTES_MIN;

const CHECKSUM_AT: usize = 24;

/// Scatters a number over all 64 bits, reversibly.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Who wrote it.
    pub writer: Writer,
    /// Which one it is.
    pub number: i64,
    /// Its key; 0 when keys do not matter.
    pub key: u32,
    /// Bytes of the payload, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: u32,
}

impl Event {
    /// An event of this length, or of the least one, without a key.
    pub fn new(writer: Writer, number: i64, payload_bytes: usize) -> Self {
        let payload_bytes = u32::try_from(payload_bytes.max(PAYLOAD_BYTES_MIN))
            .expect("events are far below 4 GiB");
        Self { writer, number, key: 0, payload_bytes }
    }

    /// Bytes in a segment.
    pub fn framed_bytes(&self) -> u32 {
        self.payload_bytes + EVENT_HEADER_BYTES as u32
    }

    fn head(&self) -> [u8; CHECKSUM_AT] {
        let mut head = [0; CHECKSUM_AT];
        head[..8].copy_from_slice(&self.writer.0.to_be_bytes());
        head[8..16].copy_from_slice(&self.number.to_be_bytes());
        head[16..20].copy_from_slice(&self.key.to_be_bytes());
        head[20..].copy_from_slice(&self.payload_bytes.to_be_bytes());
        head
    }

    fn filler(&self) -> Filler {
        let place = self.writer.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.number as u64;
        Filler(mix(place ^ u64::from(self.key) << 32 ^ u64::from(self.payload_bytes)))
    }

    /// Writes the payload.
    pub fn encode_payload(&self, out: &mut BytesMut) {
        let start = out.len();
        let end = start + self.payload_bytes as usize;
        out.reserve(self.payload_bytes as usize);
        out.put_slice(&self.head());
        out.put_u32(0);
        let mut filler = self.filler();
        while end - out.len() >= 8 {
            out.put_u64(filler.word());
        }
        let rest = end - out.len();
        out.put_slice(&filler.word().to_be_bytes()[..rest]);
        let sum = checksum(&out[start..]);
        out[start + CHECKSUM_AT..start + PAYLOAD_BYTES_MIN].copy_from_slice(&sum.to_be_bytes());
    }

    /// Writes the event as it lies in a segment.
    pub fn encode(&self, out: &mut BytesMut) {
        encode_header(self.payload_bytes as usize, out);
        self.encode_payload(out);
    }

    /// Whether these are the bytes of the whole payload.
    fn is_payload(&self, payload: &[u8]) -> bool {
        let mut filler = self.filler();
        let mut words = payload[PAYLOAD_BYTES_MIN..].chunks_exact(8);
        let all = words.all(|word| word == filler.word().to_be_bytes());
        let rest = words.remainder();
        all && *rest == filler.word().to_be_bytes()[..rest.len()]
            && payload[CHECKSUM_AT..PAYLOAD_BYTES_MIN] == checksum(payload).to_be_bytes()
    }

    /// The event whose payload this is, if it is one, byte for byte.
    pub fn of_payload(payload: &[u8]) -> Option<Self> {
        let event = Self::named_in(payload)?;
        (event.payload_bytes as usize == payload.len() && event.is_payload(payload))
            .then_some(event)
    }

    /// What the head of a payload says.
    fn named_in(payload: &[u8]) -> Option<Self> {
        let (head, _) = payload.split_first_chunk::<PAYLOAD_BYTES_MIN>()?;
        let (writer, rest) = head.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<4>()?;
        let (length, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            writer: Writer(u64::from_be_bytes(*writer)),
            number: i64::from_be_bytes(*number),
            key: u32::from_be_bytes(*key),
            payload_bytes: u32::from_be_bytes(*length),
        })
    }
}

/// Endless bytes that follow from a seed.
struct Filler(u64);

impl Filler {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        self.0
    }
}

fn checksum(payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&payload[..CHECKSUM_AT]);
    crc32c::crc32c_append(sum, &payload[PAYLOAD_BYTES_MIN..])
}

/// What a run of segment bytes begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// This event, whole and right.
    Event(Event),
    /// Not enough bytes yet to judge the event.
    Incomplete,
    /// Bytes that nobody can have written.
    Wrong,
}

/// Judges the event at the front of `data`, which must be where an event begins.
pub fn judge(data: &[u8]) -> Judged {
    let Some((head, rest)) = data.split_first_chunk::<EVENT_HEADER_BYTES>() else {
        return Judged::Incomplete;
    };
    let [c0, c1, c2, c3, l0, l1, l2, l3] = *head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if [c0, c1, c2, c3] != [0; 4]
        || (length as usize) < PAYLOAD_BYTES_MIN
        || length as usize > thalweg_wire::event::EVENT_PAYLOAD_BYTES_MAX
    {
        return Judged::Wrong;
    }
    let Some(event) = Event::named_in(rest) else { return Judged::Incomplete };
    if event.payload_bytes != length {
        return Judged::Wrong;
    }
    match rest.get(..length as usize) {
        None => Judged::Incomplete,
        Some(payload) if event.is_payload(payload) => Judged::Event(event),
        Some(_) => Judged::Wrong,
    }
}

/// Judges a stream of segment bytes that comes in pieces, and makes runs of it.
#[derive(Debug, Default)]
pub struct Judge {
    at: u64,
    held: BytesMut,
}

/// Bytes that nobody can have written, at this place of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes at {at} are not those of any event")]
pub struct WrongBytes {
    /// The offset in the segment where an event should begin.
    pub at: u64,
}

impl Judge {
    /// Begins at this offset of a segment, where an event must begin.
    pub fn new(offset: u64) -> Self {
        Self { at: offset, held: BytesMut::new() }
    }

    /// Where the next event begins: everything before it was given out in runs.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Bytes of an event that is not complete yet.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Takes the bytes that follow, and adds the events that they complete to `runs`.
    ///
    /// # Errors
    /// [`WrongBytes`]; nothing more can be said about this segment then.
    pub fn take(&mut self, data: &[u8], runs: &mut Vec<Run>) -> Result<(), WrongBytes> {
        if self.held.is_empty() {
            let used = self.judge_all(data, runs)?;
            self.held.extend_from_slice(&data[used..]);
            return Ok(());
        }
        self.held.extend_from_slice(data);
        let held = std::mem::take(&mut self.held);
        let used = self.judge_all(&held, runs)?;
        self.held.extend_from_slice(&held[used..]);
        Ok(())
    }

    fn judge_all(&mut self, data: &[u8], runs: &mut Vec<Run>) -> Result<usize, WrongBytes> {
        let mut used = 0;
        loop {
            match judge(&data[used..]) {
                Judged::Event(event) => {
                    used += event.framed_bytes() as usize;
                    self.at += u64::from(event.framed_bytes());
                    push_event(runs, &event);
                }
                Judged::Incomplete => return Ok(used),
                Judged::Wrong => return Err(WrongBytes { at: self.at }),
            }
        }
    }
}

/// Adds an event to the last run, or begins a new one.
pub fn push_event(runs: &mut Vec<Run>, event: &Event) {
    if let Some(run) = runs.last_mut()
        && run.writer == event.writer
        && run.key == event.key
        && run.bytes == event.framed_bytes()
        && run.last() + 1 == event.number
        && run.count < u32::MAX
    {
        run.count += 1;
        return;
    }
    runs.push(Run {
        writer: event.writer,
        first: event.number,
        count: 1,
        bytes: event.framed_bytes(),
        key: event.key,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: i64) -> Event {
        Event::new(Writer(9), number, PAYLOAD_BYTES_MIN + (number as usize * 7) % 90)
    }

    /// An event is recognised, and no changed byte of it goes unnoticed: every one is tried.
    #[test]
    fn every_byte_is_judged() {
        for number in 0..40 {
            let event = event(number);
            let mut bytes = BytesMut::new();
            event.encode(&mut bytes);
            assert_eq!(judge(&bytes), Judged::Event(event));
            for at in 0..bytes.len() {
                bytes[at] ^= 0x10;
                assert_ne!(judge(&bytes), Judged::Event(event), "byte {at}");
                assert!(!matches!(judge(&bytes), Judged::Event(_)), "byte {at} makes another");
                bytes[at] ^= 0x10;
            }
        }
    }

    /// A segment that comes in pieces of any size gives the same runs as in one piece.
    #[test]
    fn pieces_give_the_same_runs() {
        let mut bytes = BytesMut::new();
        (0..50).for_each(|number| Event::new(Writer(3), number, 40).encode(&mut bytes));
        (0..50).for_each(|number| event(number).encode(&mut bytes));
        let mut whole = Vec::new();
        Judge::new(100).take(&bytes, &mut whole).expect("they are right");
        assert_eq!(whole[0].count, 50);
        for piece in [1, 7, 50, 333] {
            let mut judge = Judge::new(100);
            let mut runs = Vec::new();
            for part in bytes.chunks(piece) {
                judge.take(part, &mut runs).expect("they are right");
            }
            assert_eq!(runs, whole, "pieces of {piece}");
            assert_eq!((judge.offset(), judge.held_bytes()), (100 + bytes.len() as u64, 0));
        }
    }
}
