//! Events whose every byte follows from who wrote them and which one it is.
//!
//! A payload is the author (8 bytes), the serial number (8 bytes) and filler, all derived from the
//! two, the length too. So a reader can tell a right event from a wrong one without a table, a lost
//! event from a late one by the serial, and a byte of another place from its own.

use bytes::{Buf, Bytes, BytesMut};
use thalweg_wire::event;

use super::dice::mix;

/// Who wrote an event, and the how-manieth of that author it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) author: u64,
    pub(crate) serial: u64,
}

/// Authors with this bit write events of 256 KiB to 1 MiB.
pub(crate) const LARGE: u64 = 1 << 62;

const HEAD_BYTES: usize = 16;

impl Mark {
    pub(crate) fn new(author: u64, serial: u64) -> Self {
        Self { author, serial }
    }

    fn seed(self) -> u64 {
        mix(self.author.wrapping_mul(0xD1B5_4A32_D192_ED03) ^ self.serial)
    }

    /// Bytes of the payload: mostly small, sometimes some kilobytes.
    fn payload_bytes(self) -> usize {
        let seed = self.seed();
        let filler = match (self.author & LARGE != 0, seed % 32) {
            (true, _) => (256 << 10) + seed % (768 << 10),
            (false, 0) => 4_000 + (seed >> 8) % 12_000,
            (false, 1..=8) => 200 + (seed >> 8) % 1_000,
            (false, _) => (seed >> 8) % 90,
        };
        HEAD_BYTES + usize::try_from(filler).expect("below 1 MiB")
    }

    /// The payload, whole.
    pub(crate) fn payload(self) -> Vec<u8> {
        let bytes = self.payload_bytes();
        let mut out = Vec::with_capacity(bytes + 8);
        out.extend_from_slice(&self.author.to_be_bytes());
        out.extend_from_slice(&self.serial.to_be_bytes());
        let mut word = self.seed();
        while out.len() < bytes {
            word = mix(word.wrapping_add(0x9E37_79B9_7F4A_7C15));
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.truncate(bytes);
        out
    }

    /// Bytes that the event takes in a segment.
    pub(crate) fn framed_bytes(self) -> i64 {
        i64::try_from(self.payload_bytes() + event::EVENT_HEADER_BYTES).expect("below 2 MiB")
    }

    /// Appends the event as it lies in a segment.
    pub(crate) fn frame(self, out: &mut BytesMut) {
        event::encode(&self.payload(), out);
    }

    /// The event as it lies in a segment.
    pub(crate) fn framed(self) -> Bytes {
        let mut out = BytesMut::new();
        self.frame(&mut out);
        out.freeze()
    }
}

/// All events of `data`, each with its place before it, `start` being the place of the first byte.
/// Panics, naming the place, when anything is not exactly the bytes of an event.
pub(crate) fn parse(what: &str, start: i64, mut data: Bytes) -> Vec<(i64, Mark)> {
    let mut found = Vec::new();
    let mut at = start;
    while !data.is_empty() {
        let payload = match event::decode(&mut data) {
            Ok(Some(payload)) => payload,
            Ok(None) => panic!("{what}: half an event at {at}: {} bytes", data.len()),
            Err(error) => panic!("{what}: no event at {at}: {error}"),
        };
        assert!(payload.len() >= HEAD_BYTES, "{what}: event of {} bytes at {at}", payload.len());
        let mut head = &payload[..HEAD_BYTES];
        let mark = Mark::new(head.get_u64(), head.get_u64());
        assert!(payload == mark.payload(), "{what}: bytes of {mark:?} at {at} are not as written");
        found.push((at, mark));
        at += mark.framed_bytes();
    }
    found
}

/// A running sum over bytes by which two readings of the same range are compared (FNV-1a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    pub(crate) const EMPTY: Self = Self(0xCBF2_9CE4_8422_2325);

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}
