//! The bytes of events: a constant run of framed events for loads that only measure, and events
//! that say who they are for runs that read everything back.
//!
//! A self-describing payload is the writer's index, the event's number, filler that follows from
//! both, and a checksum of all that. So a reader who knows only the writer can name what is wrong
//! with an event: a damaged byte, or a sound event in the wrong place.

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_wire::event::{self, EVENT_HEADER_BYTES};

/// Smallest self-describing payload: writer, number and checksum.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 4 + 8 + 4;

const CHECKSUM_BYTES: usize = 4;

/// Framed events of equal length, all the same, cut to as many as a block needs.
pub(crate) struct Template {
    bytes: Bytes,
    event_bytes: usize,
}

impl Template {
    /// Events of `payload_bytes`, enough for blocks of `events_max`.
    pub(crate) fn new(payload_bytes: usize, events_max: usize) -> Self {
        let event_bytes = EVENT_HEADER_BYTES + payload_bytes;
        let mut bytes = BytesMut::with_capacity(event_bytes * events_max);
        let mut payload = vec![0; payload_bytes];
        fill(&mut payload, 0x7468_616C_7765_6721);
        for _ in 0..events_max {
            event::encode(&payload, &mut bytes);
        }
        Self { bytes: bytes.freeze(), event_bytes }
    }

    /// Most events of one block.
    pub(crate) fn events_max(&self) -> usize {
        self.bytes.len() / self.event_bytes
    }

    /// Bytes of one event with its header.
    pub(crate) fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    /// The first `events` of them, shared.
    pub(crate) fn block(&self, events: usize) -> Bytes {
        self.bytes.slice(..events * self.event_bytes)
    }
}

/// Adds the framed, self-describing event `number` of `writer`. `payload_bytes` is at least
/// [`PAYLOAD_BYTES_MIN`].
pub(crate) fn put_event(writer: u32, number: u64, payload_bytes: usize, out: &mut BytesMut) {
    event::encode_header(payload_bytes, out);
    let start = out.len();
    out.put_u32(writer);
    out.put_u64(number);
    out.resize(start + payload_bytes - CHECKSUM_BYTES, 0);
    fill(&mut out[start + 12..], u64::from(writer) << 40 ^ number);
    let checksum = crc32c::crc32c(&out[start..]);
    out.put_u32(checksum);
}

/// The writer and number that a payload claims, if its checksum agrees.
pub(crate) fn claimed(payload: &[u8]) -> Option<(u32, u64)> {
    let (body, checksum) = payload.split_last_chunk::<CHECKSUM_BYTES>()?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let (writer, rest) = body.split_first_chunk::<4>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    Some((u32::from_be_bytes(*writer), u64::from_be_bytes(*number)))
}

/// Fills with bytes that do not repeat and follow from the seed (the SplitMix64 sequence).
fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that an event names its writer and number, and that no single flipped bit of it goes
    /// unseen.
    #[test]
    fn an_event_describes_itself_and_any_flipped_bit_shows() {
        let mut out = BytesMut::new();
        put_event(7, 99, 100, &mut out);
        assert_eq!(out.len(), EVENT_HEADER_BYTES + 100);
        let payload = &mut out[EVENT_HEADER_BYTES..];
        assert_eq!(claimed(payload), Some((7, 99)));
        for bit in 0..payload.len() * 8 {
            payload[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(claimed(payload), None, "bit {bit}");
            payload[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Shows that the smallest payload works and that fillers differ.
    #[test]
    fn fillers_follow_from_writer_and_number() {
        let event = |writer, number, length| {
            let mut out = BytesMut::new();
            put_event(writer, number, length, &mut out);
            out.freeze()
        };
        let least = event(1, 2, PAYLOAD_BYTES_MIN);
        assert_eq!(claimed(&least[EVENT_HEADER_BYTES..]), Some((1, 2)));
        let tail = |writer, number| event(writer, number, 40).slice(EVENT_HEADER_BYTES + 12..);
        assert_ne!(tail(1, 2), tail(1, 3));
        assert_ne!(tail(1, 2), tail(2, 2));
        assert_eq!(tail(1, 2), tail(1, 2));
    }
}
