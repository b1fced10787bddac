//! The append path: sessions, blocks, conditional appends and their acknowledgements.
//!
//! Blocks are joined by [`crate::BlockAssembly`]; here are only their layouts. The head and tail
//! types encode what lies before and behind the data, so that large data can be sent from where it
//! is.

use bytes::{BufMut, Bytes, BytesMut};

use crate::command::{Message, put_header};
use crate::event::FramedEvent;
use crate::field::{Field, PayloadError, Reader, wire_count};
use crate::layout::layout;
use crate::text::Text;

/// `last_event_number` of a writer that the segment has never seen.
pub const NO_EVENT_NUMBER: i64 = i64::MIN;

layout! {
    /// Opens an append session of a writer on a segment, on this connection; answered by
    /// [`AppendSetup`].
    SetupAppend {
        /// Echoed by the reply.
        request_id: i64,
        /// The writer; later blocks on this connection name only it.
        writer_id: u128,
        /// The segment appended to.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The session is open.
    AppendSetup {
        /// Of the [`SetupAppend`].
        request_id: i64,
        /// The segment appended to.
        segment: Text,
        /// The writer.
        writer_id: u128,
        /// Everything up to this number is durable; [`NO_EVENT_NUMBER`] when the writer is new to
        /// the segment.
        last_event_number: i64,
    }
}

/// First part of an append in two commands. Its data ends in one nested Padding or PartialEvent
/// when the block was not filled by whole events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendBlock {
    /// The writer.
    pub writer_id: u128,
    /// All bytes behind the writer id.
    pub data: Bytes,
}

impl Field for AppendBlock {
    const BYTES_MIN: usize = 16;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        Ok(Self { writer_id: u128::decode(reader)?, data: reader.take_all() })
    }

    fn encode(&self, out: &mut BytesMut) {
        self.writer_id.encode(out);
        out.put_slice(&self.data);
    }

    fn encoded_len(&self) -> usize {
        16 + self.data.len()
    }
}

layout! {
    /// Second part of an append in two commands, or a whole append by itself. Answered by
    /// [`DataAppended`].
    AppendBlockEnd {
        /// The writer.
        writer_id: u128,
        /// How many bytes of the preceding [`AppendBlock`] are whole events; not consulted without
        /// one.
        size_of_whole_events: i32,
        /// The rest of the event split by the block's end, or the whole content of a lone command.
        data: Bytes,
        /// Events in the append.
        event_count: i32,
        /// Number of the last of them.
        last_event_number: i64,
        /// The same for all blocks of a J writer: it does not tell appends apart.
        request_id: i64 = -1,
    }
}

/// What an [`AppendBlockEnd`] has before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendBlockEndHead {
    /// The writer.
    pub writer_id: u128,
    /// See [`AppendBlockEnd::size_of_whole_events`].
    pub size_of_whole_events: i32,
    /// Bytes of data that the caller sends between head and tail.
    pub data_length: usize,
}

impl AppendBlockEndHead {
    /// Bytes that `encode` writes.
    pub const ENCODED_LEN: usize = crate::FRAME_HEADER_BYTES + 16 + 4 + 4;

    /// Writes the frame header and all fields before the data. Exactly `data_length` bytes of data
    /// and then an [`AppendBlockEndTail`] must follow. Panics when the data alone is over
    /// `i32::MAX` bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(Self::ENCODED_LEN);
        put_header(
            AppendBlockEnd::CODE,
            16 + 4 + 4 + self.data_length + AppendBlockEndTail::ENCODED_LEN,
            out,
        );
        self.writer_id.encode(out);
        self.size_of_whole_events.encode(out);
        out.put_i32(wire_count(self.data_length));
    }
}

/// What an [`AppendBlockEnd`] has behind its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendBlockEndTail {
    /// Events in the append.
    pub event_count: i32,
    /// Number of the last of them.
    pub last_event_number: i64,
    /// Echoed by the acknowledgement.
    pub request_id: i64,
}

impl AppendBlockEndTail {
    /// Bytes that `encode` writes.
    pub const ENCODED_LEN: usize = 4 + 8 + 8;

    /// Writes all fields behind the data.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(Self::ENCODED_LEN);
        self.event_count.encode(out);
        self.last_event_number.encode(out);
        self.request_id.encode(out);
    }
}

layout! {
    /// Appends one event if the segment's length is as expected.
    ConditionalAppend {
        /// The writer.
        writer_id: u128,
        /// Number of the event.
        event_number: i64,
        /// Length the segment must have; negative for no condition.
        expected_offset: i64,
        /// The event; what is appended is its framed form, header included.
        event: FramedEvent,
        /// Echoed by the reply.
        request_id: i64 = -1,
    }
}

layout! {
    /// Appends bytes if the segment's length is as expected. Counts as one event.
    ConditionalBlockEnd {
        /// The writer.
        writer_id: u128,
        /// Number of the event.
        event_number: i64,
        /// Length the segment must have; negative for no condition.
        expected_offset: i64,
        /// What is appended.
        data: Bytes,
        /// Echoed by the reply.
        request_id: i64,
    }
}

layout! {
    /// Appends up to `event_number` are durable.
    DataAppended {
        /// The writer.
        writer_id: u128,
        /// Highest number acknowledged.
        event_number: i64,
        /// The level acknowledged before, of this session.
        previous_event_number: i64 = -1,
        /// Of the append acknowledged.
        request_id: i64 = -1,
        /// Length of the segment after the append.
        current_segment_write_offset: i64 = -1,
    }
}

layout! {
    /// The segment's length was not as expected; nothing was appended.
    ConditionalCheckFailed {
        /// The writer.
        writer_id: u128,
        /// Of the conditional append.
        event_number: i64,
        /// Of the conditional append.
        request_id: i64 = -1,
    }
}

/// Filler at the end of an [`AppendBlock`]. By itself it is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Bytes of filler; written as zeros, read whatever they are.
    pub length: usize,
}

impl Field for Padding {
    const BYTES_MIN: usize = 0;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        Ok(Self { length: reader.take_all().len() })
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_bytes(0, self.length);
    }

    fn encoded_len(&self) -> usize {
        self.length
    }
}

/// First bytes of an event, header included, at the end of an [`AppendBlock`]; the rest is in the
/// block's end. By itself it is a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialEvent {
    /// The first bytes.
    pub data: Bytes,
}

impl Field for PartialEvent {
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
