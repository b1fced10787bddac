//! Events inside segment data: `i32 0`, `i32 n`, then n bytes.
//!
//! The server stores these bytes as they come and reads none of them; clients frame and parse
//! events with the functions here. Byte-stream segments have no such framing.

use bytes::{BufMut, Bytes, BytesMut};

use crate::FRAME_HEADER_BYTES;
use crate::field::{Field, PayloadError, Reader, wire_count};

/// Bytes before the payload of an event in segment data.
pub const EVENT_HEADER_BYTES: usize = FRAME_HEADER_BYTES;

/// Largest payload of one event that clients write or read.
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Type code of an event, the first word of its header.
const EVENT_CODE: i32 = 0;

/// A run of bytes does not continue with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The first word is not the type code of an event.
    #[error("type code {code} where an event begins")]
    NotAnEvent {
        /// The word that is there.
        code: i32,
    },
    /// The length is negative or over [`EVENT_PAYLOAD_BYTES_MAX`].
    #[error("event length {length} is out of range")]
    Length {
        /// The length that is there.
        length: i32,
    },
}

/// Writes the header of an event of `payload_length` bytes. Panics over `i32::MAX`.
pub fn encode_header(payload_length: usize, out: &mut BytesMut) {
    out.reserve(EVENT_HEADER_BYTES);
    out.put_i32(EVENT_CODE);
    out.put_i32(wire_count(payload_length));
}

/// Writes one event, header and payload.
pub fn encode(payload: &[u8], out: &mut BytesMut) {
    out.reserve(EVENT_HEADER_BYTES + payload.len());
    encode_header(payload.len(), out);
    out.put_slice(payload);
}

/// Takes the payload of the first event off the front of `data`, which must start at an event
/// boundary. `None`, with `data` unchanged, when the event is not complete yet. An error means that
/// this was no event boundary or no event stream; `data` is unchanged then too.
pub fn decode(data: &mut Bytes) -> Result<Option<Bytes>, EventError> {
    let Some((header, _)) = data.split_first_chunk::<EVENT_HEADER_BYTES>() else {
        return Ok(None);
    };
    let [c0, c1, c2, c3, l0, l1, l2, l3] = *header;
    let code = i32::from_be_bytes([c0, c1, c2, c3]);
    if code != EVENT_CODE {
        return Err(EventError::NotAnEvent { code });
    }
    let length = i32::from_be_bytes([l0, l1, l2, l3]);
    let end = match usize::try_from(length) {
        Ok(payload) if payload <= EVENT_PAYLOAD_BYTES_MAX => EVENT_HEADER_BYTES + payload,
        _ => return Err(EventError::Length { length }),
    };
    if data.len() < end {
        return Ok(None);
    }
    let mut event = data.split_to(end);
    Ok(Some(event.split_off(EVENT_HEADER_BYTES)))
}

/// An event sent as a frame of its own, which nobody does; a server closes the connection on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The payload.
    pub data: Bytes,
}

impl Field for Event {
    const BYTES_MIN: usize = 0;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        Ok(Self { data: reader.take_all() })
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.data);
    }

    fn encoded_len(&self) -> usize {
        self.data.len()
    }
}

/// One event in its framed form, as a conditional append carries it and the segment stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramedEvent(Bytes);

impl FramedEvent {
    /// Frames a payload (copies it).
    pub fn new(payload: &[u8]) -> Self {
        let mut framed = BytesMut::with_capacity(EVENT_HEADER_BYTES + payload.len());
        encode(payload, &mut framed);
        Self(framed.freeze())
    }

    /// Header and payload: what is appended to the segment.
    pub fn framed(&self) -> Bytes {
        self.0.clone()
    }

    /// The payload alone.
    pub fn payload(&self) -> Bytes {
        self.0.slice(EVENT_HEADER_BYTES..)
    }
}

impl Field for FramedEvent {
    const BYTES_MIN: usize = EVENT_HEADER_BYTES;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let header = reader.peek(EVENT_HEADER_BYTES).ok_or(PayloadError::TooShort)?;
        let mut words = Reader::new(&header, 0, header.len());
        let code = i32::decode(&mut words)?;
        if code != EVENT_CODE {
            return Err(PayloadError::NotAnEvent { code });
        }
        let count = i32::decode(&mut words)?;
        let payload = usize::try_from(count).map_err(|_| PayloadError::Count { count })?;
        if payload > reader.remaining() - EVENT_HEADER_BYTES {
            return Err(PayloadError::Count { count });
        }
        reader.take(EVENT_HEADER_BYTES + payload).map(Self)
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }
}
