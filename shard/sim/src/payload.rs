//! Events whose bytes follow from who wrote them and their number, so that any byte can be judged
//! without a table of what was sent.
//!
//! Layout of a payload: writer tag (u64), event number (i64), filler. Length and filler are
//! functions of tag and number. In a segment it stands in the ordinary framing of events.

use bytes::{BufMut, BytesMut};
use thalweg_wire::event::EVENT_HEADER_BYTES;

use crate::rng::mix;

/// Bytes of tag and number.
const IDENTITY_BYTES: u64 = 16;

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
    fn mixed(self) -> u64 {
        mix(self.tag.0.wrapping_mul(0x1_0001).wrapping_add(self.number.unsigned_abs()))
    }

    /// Bytes of the payload.
    pub(crate) fn payload_bytes(self, sizes: EventSizes) -> u64 {
        let mixed = self.mixed();
        let most = if mixed % 100 == 1 { sizes.large_max } else { sizes.ordinary_max };
        IDENTITY_BYTES + (mixed >> 8) % (most + 1)
    }

    /// Bytes in the segment, header included.
    pub(crate) fn framed_bytes(self, sizes: EventSizes) -> u64 {
        EVENT_HEADER_BYTES as u64 + self.payload_bytes(sizes)
    }

    /// Writes the payload.
    pub(crate) fn encode_payload(self, sizes: EventSizes, out: &mut BytesMut) {
        let end = out.len() + self.payload_bytes(sizes) as usize;
        out.put_u64(self.tag.0);
        out.put_i64(self.number);
        let mut word = self.mixed();
        while out.len() < end {
            word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            let bytes = word.to_le_bytes();
            let taken = bytes.len().min(end - out.len());
            out.put_slice(&bytes[..taken]);
        }
    }

    /// Writes the event in its framing.
    pub(crate) fn encode(self, sizes: EventSizes, out: &mut BytesMut) {
        let payload_bytes = self.payload_bytes(sizes) as usize;
        thalweg_wire::event::encode_header(payload_bytes, out);
        self.encode_payload(sizes, out);
    }
}

/// What a run of segment bytes begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// This event, whole and right, of this many bytes with its header.
    Event(EventIdentity, usize),
    /// Not enough bytes yet; those that are there are right.
    Incomplete,
    /// Bytes that nobody can have written.
    Wrong,
}

/// Judges the event at the front of `data`.
pub(crate) fn judge(data: &[u8], sizes: EventSizes) -> Judged {
    let head = EVENT_HEADER_BYTES + IDENTITY_BYTES as usize;
    if data.len() < head {
        return Judged::Incomplete;
    }
    let word = |at: usize| {
        u64::from_be_bytes(data[at..at + 8].try_into().expect("eight bytes were sliced"))
    };
    let identity = EventIdentity {
        tag: WriterTag(word(EVENT_HEADER_BYTES)),
        number: word(EVENT_HEADER_BYTES + 8) as i64,
    };
    let framed = identity.framed_bytes(sizes) as usize;
    let mut expected = BytesMut::with_capacity(framed);
    identity.encode(sizes, &mut expected);
    let length = data.len().min(framed);
    if expected[..length] != data[..length] {
        Judged::Wrong
    } else if data.len() < framed {
        Judged::Incomplete
    } else {
        Judged::Event(identity, framed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: EventSizes = EventSizes { ordinary_max: 50, large_max: 500 };

    /// An event is recognised, and any changed byte of it is noticed.
    #[test]
    fn every_byte_is_judged() {
        for number in 0..200 {
            let identity = EventIdentity { tag: WriterTag(9), number };
            let mut bytes = BytesMut::new();
            identity.encode(SIZES, &mut bytes);
            assert_eq!(judge(&bytes, SIZES), Judged::Event(identity, bytes.len()));
            let at = (number as usize * 7) % bytes.len();
            bytes[at] ^= 0x10;
            assert_ne!(judge(&bytes, SIZES), Judged::Event(identity, bytes.len()));
        }
    }
}
