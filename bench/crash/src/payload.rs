//! Events whose every byte follows from who wrote them and which one it is.
//!
//! A payload is the author (8 bytes), the serial number (8 bytes) and filler, all derived from the
//! two, the length too. So a reader can tell a right event from a wrong one without a table, a lost
//! event from a late one by the serial, and a byte of another place from its own.

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_wire::event::{self, EVENT_HEADER_BYTES};

use crate::claim::{ensure, wrong};
use crate::dice::mix;
use crate::wire::Trouble;

/// Who wrote an event, and the how-manieth of that author it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// Who, and by two bits how large the events are.
    pub author: u64,
    /// From 1 on.
    pub serial: u64,
}

/// Authors with this bit write events of 256 KiB to 1 MiB.
pub const LARGE: u64 = 1 << 62;
/// Authors with this bit write mostly events below 64 bytes.
pub const SMALL: u64 = 1 << 61;

const HEAD_BYTES: usize = 16;

impl Mark {
    /// The event `serial` of `author`.
    pub fn new(author: u64, serial: u64) -> Self {
        Self { author, serial }
    }

    fn seed(self) -> u64 {
        mix(self.author.wrapping_mul(0xD1B5_4A32_D192_ED03) ^ self.serial)
    }

    /// Bytes of the payload: mostly small, sometimes some kilobytes.
    fn payload_bytes(self) -> usize {
        let seed = self.seed();
        let more = seed >> 16;
        let filler = if self.author & LARGE != 0 {
            (256 << 10) + more % (768 << 10)
        } else if self.author & SMALL != 0 {
            match seed % 1024 {
                0 => 4_000 + more % 12_000,
                1..=15 => 200 + more % 1_000,
                _ => more % 48,
            }
        } else {
            match seed % 32 {
                0 => 4_000 + more % 12_000,
                1..=8 => 200 + more % 1_000,
                _ => more % 90,
            }
        };
        HEAD_BYTES + usize::try_from(filler).expect("below 1 MiB")
    }

    /// The payload, whole.
    pub fn payload(self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(self.payload_bytes() + 8);
        self.put_payload(&mut out);
        out.to_vec()
    }

    fn put_payload(self, out: &mut BytesMut) {
        let end = out.len() + self.payload_bytes();
        out.reserve(self.payload_bytes() + 8);
        out.put_u64(self.author);
        out.put_u64(self.serial);
        let mut word = self.seed();
        while out.len() < end {
            word = next_word(word);
            out.put_u64_le(word);
        }
        out.truncate(end);
    }

    /// Whether a payload is exactly that of this event.
    fn matches(self, payload: &[u8]) -> bool {
        if payload.len() != self.payload_bytes() {
            return false;
        }
        let mut word = self.seed();
        payload[HEAD_BYTES..].chunks(8).all(|chunk| {
            word = next_word(word);
            *chunk == word.to_le_bytes()[..chunk.len()]
        })
    }

    /// Bytes that the event takes in a segment.
    pub fn framed_bytes(self) -> i64 {
        i64::try_from(self.payload_bytes() + EVENT_HEADER_BYTES).expect("below 2 MiB")
    }

    /// Appends the event as it lies in a segment.
    pub fn frame(self, out: &mut BytesMut) {
        event::encode_header(self.payload_bytes(), out);
        self.put_payload(out);
    }

    /// The event as it lies in a segment.
    pub fn framed(self) -> Bytes {
        let mut out = BytesMut::new();
        self.frame(&mut out);
        out.freeze()
    }
}

fn next_word(word: u64) -> u64 {
    word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F)
}

/// Judges the whole events at the front of `data`, `start` being the place of its first byte, and
/// tells each with its place. Gives the bytes judged; less than an event may be left behind them.
///
/// # Errors
/// [`Trouble::Wrong`], naming the place, when anything is not exactly the bytes of an event.
pub fn scan(
    what: &str,
    start: i64,
    data: &[u8],
    mut tell: impl FnMut(i64, Mark) -> Result<(), Trouble>,
) -> Result<usize, Trouble> {
    let mut done = 0;
    let mut at = start;
    loop {
        let rest = &data[done..];
        let Some((header, rest)) = rest.split_first_chunk::<EVENT_HEADER_BYTES>() else {
            return Ok(done);
        };
        let [c0, c1, c2, c3, l0, l1, l2, l3] = *header;
        let code = u32::from_be_bytes([c0, c1, c2, c3]);
        let bytes = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        ensure!(code == 0 && bytes < 8 << 20, "{what}: no event at {at}: {header:x?}");
        let Some(payload) = rest.get(..bytes) else { return Ok(done) };
        let Some((head, _)) = payload.split_first_chunk::<HEAD_BYTES>() else {
            wrong!("{what}: event of {bytes} bytes at {at}");
        };
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| head[at + byte]));
        let mark = Mark::new(word(0), word(8));
        ensure!(mark.matches(payload), "{what}: bytes of {mark:?} at {at} are not as written");
        tell(at, mark)?;
        done += EVENT_HEADER_BYTES + bytes;
        at += mark.framed_bytes();
    }
}

/// All events of `data`, each with its place before it; `data` must end with an event.
///
/// # Errors
/// As [`scan`], and when half an event is left.
pub fn parse(what: &str, start: i64, data: &[u8]) -> Result<Vec<(i64, Mark)>, Trouble> {
    let mut found = Vec::new();
    let done = scan(what, start, data, |at, mark| {
        found.push((at, mark));
        Ok(())
    })?;
    ensure!(done == data.len(), "{what}: half an event, {} bytes, at {done}", data.len() - done);
    Ok(found)
}

/// A sum over events and their places, by which two readings of the same range are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Takes an event in.
    pub fn add(&mut self, at: i64, mark: Mark) {
        self.0 = self.0.wrapping_add(mix(mark.seed() ^ at.unsigned_abs().rotate_left(32)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that events of every size class are told again with their places, and that half an
    /// event at the end is left for later or refused.
    #[test]
    fn what_is_framed_is_told_again() {
        let marks: Vec<Mark> = [7, 7 | SMALL, 7 | LARGE]
            .into_iter()
            .flat_map(|author| (1..40).map(move |serial| Mark::new(author, serial)))
            .collect();
        let mut data = BytesMut::new();
        let mut expected = Vec::new();
        for mark in &marks {
            expected.push((100 + i64::try_from(data.len()).expect("small"), *mark));
            mark.frame(&mut data);
            assert_eq!(mark.framed(), data[data.len() - mark.framed().len()..]);
        }
        assert_eq!(parse("sample", 100, &data).expect("it is right"), expected);
        let cut = &data[..data.len() - 1];
        let done = scan("sample", 100, cut, |_, _| Ok(())).expect("right as far as it goes");
        assert_eq!(done, data.len() - marks[marks.len() - 1].framed().len());
        parse("sample", 100, cut).expect_err("half an event");
    }

    /// Shows that each flipped bit of an event is seen.
    #[test]
    fn a_flipped_bit_is_seen() {
        let data = Mark::new(3 | SMALL, 5).framed();
        for bit in 0..data.len() * 8 {
            let mut data = data.to_vec();
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(parse("sample", 0, &data).is_err(), "bit {bit}");
        }
    }
}
