//! Checks the bytes of one segment against what its writers sent: every byte, and every writer's
//! events in order, once each, to the last.
//!
//! Takes the segment in pieces of any size. The expected event is made anew and compared whole;
//! only when it differs is it looked at what is there instead.

use std::collections::BTreeMap;

use bytes::BytesMut;
use thalweg_wire::event::EVENT_HEADER_BYTES;

use crate::payload::{claimed, put_event};

/// What is wrong with a segment. Offsets are those of the event that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// These bytes are no event that any writer sent.
    Damaged { offset: u64 },
    /// A sound event of somebody who does not write here.
    Foreign { offset: u64, writer: u32 },
    /// Events before this one are missing, or come later.
    Gap { offset: u64, writer: u32, expected: u64, found: u64 },
    /// An event that was there before.
    Repeated { offset: u64, writer: u32, expected: u64, found: u64 },
    /// The segment ends before the writer's last event.
    Missing { writer: u32, expected: u64, last: u64 },
    /// The segment ends inside an event.
    CutEnd { offset: u64 },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged { offset } => write!(formatter, "damaged event at offset {offset}"),
            Self::Foreign { offset, writer } => {
                write!(formatter, "event of foreign writer {writer} at offset {offset}")
            }
            Self::Gap { offset, writer, expected, found } => write!(
                formatter,
                "event {found} of writer {writer} at offset {offset} where {expected} is due"
            ),
            Self::Repeated { offset, writer, expected, found } => write!(
                formatter,
                "event {found} of writer {writer} again at offset {offset}, {expected} is due"
            ),
            Self::Missing { writer, expected, last } => {
                write!(formatter, "events {expected} to {last} of writer {writer} are missing")
            }
            Self::CutEnd { offset } => write!(formatter, "half an event at the end, from {offset}"),
        }
    }
}

impl std::error::Error for Finding {}

#[derive(Clone, Copy)]
struct Writer {
    next: u64,
    last: u64,
}

/// Checks one segment from its start.
pub(crate) struct Checker {
    payload_bytes: usize,
    writers: BTreeMap<u32, Writer>,
    /// Start of an event whose end has not come yet.
    carry: BytesMut,
    expected: BytesMut,
    offset: u64,
    events: u64,
}

impl Checker {
    /// For a segment to which each of `writers` sent the events 1 to its number, of `payload_bytes`
    /// each.
    pub(crate) fn new(payload_bytes: usize, writers: impl IntoIterator<Item = (u32, u64)>) -> Self {
        let writers =
            writers.into_iter().map(|(writer, last)| (writer, Writer { next: 1, last })).collect();
        Self {
            payload_bytes,
            writers,
            carry: BytesMut::new(),
            expected: BytesMut::new(),
            offset: 0,
            events: 0,
        }
    }

    /// Events found sound so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Checks the bytes that follow those checked before.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Finding> {
        let event_bytes = EVENT_HEADER_BYTES + self.payload_bytes;
        if !self.carry.is_empty() {
            let rest = bytes.len().min(event_bytes - self.carry.len());
            self.carry.extend_from_slice(&bytes[..rest]);
            bytes = &bytes[rest..];
            if self.carry.len() < event_bytes {
                return Ok(());
            }
            let event = self.carry.split();
            self.event(&event)?;
        }
        let mut events = bytes.chunks_exact(event_bytes);
        for event in &mut events {
            self.event(event)?;
        }
        self.carry.extend_from_slice(events.remainder());
        Ok(())
    }

    /// The segment is over.
    pub(crate) fn finish(&self) -> Result<(), Finding> {
        if !self.carry.is_empty() {
            return Err(Finding::CutEnd { offset: self.offset });
        }
        match self.writers.iter().find(|(_, state)| state.next <= state.last) {
            None => Ok(()),
            Some((&writer, state)) => {
                Err(Finding::Missing { writer, expected: state.next, last: state.last })
            }
        }
    }

    fn event(&mut self, event: &[u8]) -> Result<(), Finding> {
        let writer = event[EVENT_HEADER_BYTES..]
            .first_chunk::<4>()
            .map(|bytes| u32::from_be_bytes(*bytes))
            .unwrap_or(u32::MAX);
        if let Some(state) = self.writers.get_mut(&writer) {
            self.expected.clear();
            put_event(writer, state.next, self.payload_bytes, &mut self.expected);
            if self.expected == event && state.next <= state.last {
                state.next += 1;
                self.offset += event.len() as u64;
                self.events += 1;
                return Ok(());
            }
        }
        Err(self.diagnose(event))
    }

    fn diagnose(&mut self, event: &[u8]) -> Finding {
        let offset = self.offset;
        let Some((writer, found)) = claimed(&event[EVENT_HEADER_BYTES..]) else {
            return Finding::Damaged { offset };
        };
        self.expected.clear();
        put_event(writer, found, self.payload_bytes, &mut self.expected);
        if self.expected != event {
            return Finding::Damaged { offset };
        }
        match self.writers.get(&writer) {
            None => Finding::Foreign { offset, writer },
            Some(state) if found < state.next || found > state.last => {
                Finding::Repeated { offset, writer, expected: state.next, found }
            }
            Some(state) => Finding::Gap { offset, writer, expected: state.next, found },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: usize = 20;
    const EVENT: usize = EVENT_HEADER_BYTES + PAYLOAD;

    /// Events of two writers in turn, 1 to 10 each.
    fn segment() -> BytesMut {
        let mut bytes = BytesMut::new();
        for number in 1..=10 {
            for writer in [3, 8] {
                put_event(writer, number, PAYLOAD, &mut bytes);
            }
        }
        bytes
    }

    fn check(bytes: &[u8], piece: usize) -> Result<u64, Finding> {
        let mut checker = Checker::new(PAYLOAD, [(3, 10), (8, 10)]);
        for piece in bytes.chunks(piece) {
            checker.take(piece)?;
        }
        checker.finish()?;
        Ok(checker.events())
    }

    /// Shows that a sound segment is found sound however it is cut.
    #[test]
    fn a_sound_segment_passes_in_pieces_of_any_size() {
        for piece in 1..=3 * EVENT {
            assert_eq!(check(&segment(), piece), Ok(20), "pieces of {piece}");
        }
    }

    /// Shows that no byte of a segment can change unseen, and that the event is named.
    #[test]
    fn any_flipped_byte_is_found_at_its_event() {
        for at in 0..segment().len() {
            let mut bytes = segment();
            bytes[at] ^= 0x10;
            let offset = (at / EVENT * EVENT) as u64;
            assert_eq!(check(&bytes, 50), Err(Finding::Damaged { offset }), "byte {at}");
        }
    }

    /// Shows that a lost event is a gap, or missing at the end.
    #[test]
    fn a_lost_event_is_found() {
        let mut bytes = segment().to_vec();
        bytes.drain(4 * EVENT..5 * EVENT);
        let gap = Finding::Gap { offset: 5 * EVENT as u64, writer: 3, expected: 3, found: 4 };
        assert_eq!(check(&bytes, 64), Err(gap));
        let short = &segment()[..19 * EVENT];
        assert_eq!(check(short, 64), Err(Finding::Missing { writer: 8, expected: 10, last: 10 }));
        let cut = &segment()[..19 * EVENT + 3];
        assert_eq!(check(cut, 64), Err(Finding::CutEnd { offset: 19 * EVENT as u64 }));
    }

    /// Shows that an event that is there twice is found, also behind the last.
    #[test]
    fn a_doubled_event_is_found() {
        let mut bytes = segment();
        let event = bytes[4 * EVENT..5 * EVENT].to_vec();
        bytes.extend_from_slice(&event);
        let again =
            Finding::Repeated { offset: 20 * EVENT as u64, writer: 3, expected: 11, found: 3 };
        assert_eq!(check(&bytes, 64), Err(again));
    }

    /// Shows that two events in the wrong order are found, and events of others.
    #[test]
    fn reordered_and_foreign_events_are_found() {
        let whole = segment();
        let mut bytes = whole[..4 * EVENT].to_vec();
        bytes.extend_from_slice(&whole[6 * EVENT..8 * EVENT]);
        bytes.extend_from_slice(&whole[4 * EVENT..6 * EVENT]);
        bytes.extend_from_slice(&whole[8 * EVENT..]);
        let gap = Finding::Gap { offset: 4 * EVENT as u64, writer: 3, expected: 3, found: 4 };
        assert_eq!(check(&bytes, 64), Err(gap));
        let mut foreign = BytesMut::new();
        put_event(9, 1, PAYLOAD, &mut foreign);
        assert_eq!(check(&foreign, 64), Err(Finding::Foreign { offset: 0, writer: 9 }));
    }
}
