//! Reading segment data. The head and tail types let a server send data from where it lies in
//! memory.

use bytes::{BufMut, Bytes, BytesMut};

use crate::command::{Message, put_header};
use crate::field::{Field, wire_count};
use crate::layout::layout;
use crate::text::Text;

layout! {
    /// Asks for bytes of a segment; at the tail the reply waits for data.
    ReadSegment {
        /// The segment read.
        segment: Text,
        /// First byte wanted.
        offset: i64,
        /// Most bytes wanted, a hint.
        suggested_length: i32,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// The same for all reads of a J reader: it does not tell reads apart.
        request_id: i64 = -1,
    }
}

layout! {
    /// Bytes of a segment.
    SegmentRead {
        /// The segment read.
        segment: Text,
        /// The offset that was asked for, always.
        offset: i64,
        /// Hint that the data ends at the tail.
        at_tail: bool,
        /// The data ends at the length of a sealed segment.
        end_of_segment: bool,
        /// What was read.
        data: Bytes,
        /// Of the [`ReadSegment`].
        request_id: i64 = -1,
    }
}

/// What a [`SegmentRead`] has before its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReadHead {
    /// The segment read.
    pub segment: Text,
    /// The offset that was asked for, always.
    pub offset: i64,
    /// Hint that the data ends at the tail.
    pub at_tail: bool,
    /// The data ends at the length of a sealed segment.
    pub end_of_segment: bool,
    /// Bytes of data that the caller sends between head and tail.
    pub data_length: usize,
}

impl SegmentReadHead {
    /// Bytes that `encode` writes.
    pub fn encoded_len(&self) -> usize {
        crate::FRAME_HEADER_BYTES + self.payload_len()
    }

    /// Writes the frame header and all fields before the data. Exactly `data_length` bytes of data
    /// and then a [`SegmentReadTail`] must follow. Panics when the data alone is over `i32::MAX`
    /// bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len());
        put_header(
            SegmentRead::CODE,
            self.payload_len() + self.data_length + SegmentReadTail::ENCODED_LEN,
            out,
        );
        self.segment.encode(out);
        self.offset.encode(out);
        self.at_tail.encode(out);
        self.end_of_segment.encode(out);
        out.put_i32(wire_count(self.data_length));
    }

    fn payload_len(&self) -> usize {
        self.segment.encoded_len() + 8 + 1 + 1 + 4
    }
}

/// What a [`SegmentRead`] has behind its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentReadTail {
    /// Of the [`ReadSegment`].
    pub request_id: i64,
}

impl SegmentReadTail {
    /// Bytes that `encode` writes.
    pub const ENCODED_LEN: usize = 8;

    /// Writes all fields behind the data.
    pub fn encode(&self, out: &mut BytesMut) {
        self.request_id.encode(out);
    }
}
