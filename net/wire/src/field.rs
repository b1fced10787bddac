//! The primitive encodings: how one field of a payload is read and written.
//!
//! Owns the cursor over one payload ([`Reader`]) and the [`Field`] trait with its primitives. Never
//! reads past the payload it was given, never copies payload bytes, and never reserves memory for
//! more items than the rest of the payload can hold.

use bytes::{BufMut, Bytes, BytesMut};

use crate::text::Text;

/// Why a payload does not hold the fields of its command. The connection that sent it cannot be
/// used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload ends inside a field that is not optional.
    #[error("payload ends inside a field")]
    TooShort,
    /// A byte count or item count is negative or exceeds what the payload can hold.
    #[error("count {count} does not fit the payload")]
    Count {
        /// The count as it was sent.
        count: i32,
    },
    /// A string is neither UTF-8 nor Java's modified UTF-8.
    #[error("string is not UTF-8")]
    NotText,
    /// The event inside a conditional append has another type code than that of an event.
    #[error("embedded event has type code {code}")]
    NotAnEvent {
        /// The type code as it was sent.
        code: i32,
    },
}

/// A cursor over the payload of one frame. `rest` is always a part of `source`.
pub(crate) struct Reader<'a> {
    source: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `source[from..to]`; the caller has checked the bounds.
    pub(crate) fn new(source: &'a Bytes, from: usize, to: usize) -> Self {
        Self { source, rest: &source[from..to] }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes as a slice that shares the received buffer.
    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, PayloadError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(PayloadError::TooShort)?;
        self.rest = rest;
        Ok(self.source.slice_ref(taken))
    }

    pub(crate) fn take_all(&mut self) -> Bytes {
        let taken = self.source.slice_ref(self.rest);
        self.rest = &[];
        taken
    }

    /// Like [`Reader::take`], without moving on.
    pub(crate) fn peek(&self, count: usize) -> Option<Bytes> {
        self.rest.get(..count).map(|bytes| self.source.slice_ref(bytes))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(PayloadError::TooShort)?;
        self.rest = rest;
        Ok(*array)
    }

    /// A count of units of at least `unit_bytes` (> 0) bytes that all lie in the rest of the
    /// payload.
    pub(crate) fn count(&mut self, unit_bytes: usize) -> Result<usize, PayloadError> {
        let count = i32::decode(self)?;
        match usize::try_from(count) {
            Ok(units) if units <= self.remaining() / unit_bytes => Ok(units),
            _ => Err(PayloadError::Count { count }),
        }
    }
}

/// One field of a payload. `decode` undoes `encode`, and `encode` writes exactly `encoded_len`
/// bytes.
pub(crate) trait Field: Sized {
    /// Fewest bytes an encoded value can have, trailing optional fields left out.
    const BYTES_MIN: usize;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError>;
    fn encode(&self, out: &mut BytesMut);
    fn encoded_len(&self) -> usize;

    /// Whether a trailing optional field of this type is left out when `remaining` bytes are left.
    /// Peers test a number for its whole width and everything else for a single byte.
    fn is_absent(remaining: usize) -> bool {
        remaining < Self::BYTES_MIN
    }
}

macro_rules! integer_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const BYTES_MIN: usize = size_of::<$type>();

            fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
                reader.array().map(<$type>::from_be_bytes)
            }

            fn encode(&self, out: &mut BytesMut) {
                out.put_slice(&self.to_be_bytes());
            }

            fn encoded_len(&self) -> usize {
                Self::BYTES_MIN
            }
        }
    )*};
}

integer_field!(i8, i32, i64, u128);

impl Field for bool {
    const BYTES_MIN: usize = 1;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        reader.array::<1>().map(|[byte]| byte != 0)
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }

    fn encoded_len(&self) -> usize {
        1
    }
}

impl Field for Text {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let length = u16::from_be_bytes(reader.array()?);
        Text::from_wire(reader.take(usize::from(length))?).map_err(|_| PayloadError::NotText)
    }

    fn encode(&self, out: &mut BytesMut) {
        let (length, bytes) = self.wire_bytes();
        out.put_u16(length);
        out.put_slice(bytes);
    }

    fn encoded_len(&self) -> usize {
        2 + self.wire_bytes().1.len()
    }

    fn is_absent(remaining: usize) -> bool {
        remaining == 0
    }
}

/// Bytes with an `i32` count before them.
impl Field for Bytes {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let count = reader.count(1)?;
        reader.take(count)
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(wire_count(self.len()));
        out.put_slice(self);
    }

    fn encoded_len(&self) -> usize {
        4 + self.len()
    }

    fn is_absent(remaining: usize) -> bool {
        remaining == 0
    }
}

/// Items back to back with an `i32` count before them.
impl<T: Field> Field for Vec<T> {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let count = reader.count(T::BYTES_MIN)?;
        // Reserve for the bytes that are here, not for what the count claims: an item in memory is
        // larger than on the wire, and a false count is only found out when the items run short.
        let mut items = Vec::with_capacity(count.min(reader.remaining() / size_of::<T>().max(1)));
        for _ in 0..count {
            items.push(T::decode(reader)?);
        }
        Ok(items)
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(wire_count(self.len()));
        for item in self {
            item.encode(out);
        }
    }

    fn encoded_len(&self) -> usize {
        4 + self.iter().map(Field::encoded_len).sum::<usize>()
    }

    fn is_absent(remaining: usize) -> bool {
        remaining == 0
    }
}

/// A count for the wire.
///
/// Panics over `i32::MAX`; frames are bounded far below that by [`crate::FRAME_BYTES_MAX`], which
/// the sender of large replies checks with `encoded_len`.
pub(crate) fn wire_count(count: usize) -> i32 {
    i32::try_from(count).expect("a frame is at most 16 MiB, so no count in it reaches 2^31")
}
