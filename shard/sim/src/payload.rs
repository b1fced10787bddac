//! Events of a world: the checker's, with a length that follows from who wrote them and which one
//! it is.

use bytes::BytesMut;
use thalweg_checker::id::Writer;
use thalweg_checker::payload::{EVENT_BYTES_MIN, Event, PAYLOAD_BYTES_MIN};

use crate::rng::mix;

/// Who wrote: a small number that stands for a writer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriterTag(pub(crate) u64);

impl WriterTag {
    /// The writer id on the wire. Never one of the attributes reserved for the server.
    pub(crate) fn writer_id(self) -> u128 {
        (u128::from(mix(self.0) >> 1) << 64) | u128::from(self.0)
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventIdentity {
    /// Who.
    pub(crate) tag: WriterTag,
    /// Which.
    pub(crate) number: i64,
}

/// Lengths of the events of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventSizes {
    /// Most filler bytes of an ordinary event.
    pub(crate) ordinary_max: u64,
    /// Most filler bytes of one event in a hundred.
    pub(crate) large_max: u64,
}

impl EventIdentity {
    /// Bytes of the payload.
    fn payload_bytes(self, sizes: EventSizes) -> usize {
        let mixed = mix(self.tag.0.wrapping_mul(0x1_0001).wrapping_add(self.number.unsigned_abs()));
        let most = if mixed % 100 == 1 { sizes.large_max } else { sizes.ordinary_max };
        PAYLOAD_BYTES_MIN + ((mixed >> 8) % (most + 1)) as usize
    }

    fn event(self, sizes: EventSizes) -> Event {
        Event::new(Writer(self.tag.0), self.number, self.payload_bytes(sizes))
    }

    /// Bytes in the segment, header included.
    pub(crate) fn framed_bytes(self, sizes: EventSizes) -> u64 {
        (EVENT_BYTES_MIN - PAYLOAD_BYTES_MIN + self.payload_bytes(sizes)) as u64
    }

    /// Writes the payload.
    pub(crate) fn encode_payload(self, sizes: EventSizes, out: &mut BytesMut) {
        self.event(sizes).encode_payload(out);
    }

    /// Writes the event in its framing.
    pub(crate) fn encode(self, sizes: EventSizes, out: &mut BytesMut) {
        self.event(sizes).encode(out);
    }
}
