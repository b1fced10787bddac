//! Cutting a received byte stream into commands.
//!
//! The decoder takes all complete frames off the receive buffer in one cut and then hands out one
//! command per call, whose payloads are slices of that cut: tens of thousands of small frames cost
//! one split of the buffer. A frame header is judged as soon as its 8 bytes are there, before room
//! is made for its payload. After an error the byte stream has no meaning any more, and the decoder
//! answers every further call with the same error.

use bytes::{Bytes, BytesMut};

use crate::FRAME_HEADER_BYTES;
use crate::command::Command;
use crate::field::{PayloadError, Reader};

/// Received bytes are not a command. The connection is to be closed, without a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type code that is not in the protocol, or no longer.
    #[error("unknown command code {code}")]
    UnknownCommand {
        /// The code.
        code: i32,
    },
    /// The payload length is negative, or with the header over the limit.
    #[error("{name} of {length} payload bytes in frames of at most {frame_bytes_max}")]
    FrameLength {
        /// The command that was announced.
        name: &'static str,
        /// The length in the header.
        length: i32,
        /// The limit of header plus payload.
        frame_bytes_max: usize,
    },
    /// The payload does not hold the fields of its command.
    #[error("malformed {name}")]
    Payload {
        /// The command.
        name: &'static str,
        /// What is wrong with it.
        source: PayloadError,
    },
}

/// The decoding side of one connection. Give it the same buffer each time.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: usize,
    /// Complete frames taken off the buffer, their headers checked.
    complete: Bytes,
    /// Start of the next frame in `complete`; less than its length unless both are 0.
    at: usize,
    failed: Option<DecodeError>,
}

/// A checked frame header.
struct Header {
    code: i32,
    /// Header and payload.
    frame_bytes: usize,
}

impl Decoder {
    /// A decoder that refuses frames over `frame_bytes_max` bytes, header included;
    /// [`crate::FRAME_BYTES_MAX`] is what peers expect.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, complete: Bytes::new(), at: 0, failed: None }
    }

    /// The next command, or `None` when the next frame is not complete.
    ///
    /// Takes complete frames off the front of `buffer`, usually more than one at a time; what it
    /// took before is handed out before it looks at `buffer` again. Commands before a malformed
    /// frame are handed out before its error.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Command>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.decode_next(buffer);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.complete = Bytes::new();
            self.at = 0;
        }
        result
    }

    /// How many more bytes the frame at the front needs to be complete: 0 when it is complete, when
    /// less than its header has arrived, or when it is malformed (which `decode` then tells).
    pub fn needed(&self, buffer: &BytesMut) -> usize {
        if self.at < self.complete.len() {
            return 0;
        }
        match self.header(buffer) {
            Ok(Some(header)) => header.frame_bytes.saturating_sub(buffer.len()),
            Ok(None) | Err(_) => 0,
        }
    }

    /// Bytes taken off the buffer that are not handed out yet.
    pub fn pending_bytes(&self) -> usize {
        self.complete.len() - self.at
    }

    /// Whether a command of `code` is among those taken off the buffer that are not handed out yet.
    pub fn is_pending(&self, code: i32) -> bool {
        let mut at = self.at;
        while at < self.complete.len() {
            let Ok(Some(header)) = self.header(&self.complete[at..]) else { break };
            if header.code == code {
                return true;
            }
            at += header.frame_bytes;
        }
        false
    }

    fn decode_next(&mut self, buffer: &mut BytesMut) -> Result<Option<Command>, DecodeError> {
        if self.at == self.complete.len() {
            let complete = self.complete_frames(buffer)?;
            if complete == 0 {
                return Ok(None);
            }
            self.complete = buffer.split_to(complete).freeze();
            self.at = 0;
        }
        let header =
            self.header(&self.complete[self.at..])?.expect("only complete frames were taken");
        let end = self.at + header.frame_bytes;
        let mut reader = Reader::new(&self.complete, self.at + FRAME_HEADER_BYTES, end);
        let result = Command::decode_payload(header.code, &mut reader);
        if end == self.complete.len() {
            // Let go of the buffer now: the next call may be long in coming.
            self.complete = Bytes::new();
            self.at = 0;
        } else {
            self.at = end;
        }
        result
    }

    /// Length of the run of complete frames at the front. A bad header is an error only at the very
    /// front.
    fn complete_frames(&self, buffer: &[u8]) -> Result<usize, DecodeError> {
        let mut end = 0;
        loop {
            match self.header(&buffer[end..]) {
                Ok(Some(header)) if header.frame_bytes <= buffer.len() - end => {
                    end += header.frame_bytes
                }
                Err(error) if end == 0 => return Err(error),
                Ok(_) | Err(_) => return Ok(end),
            }
        }
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, DecodeError> {
        let Some(&[c0, c1, c2, c3, l0, l1, l2, l3]) = bytes.first_chunk::<FRAME_HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let code = i32::from_be_bytes([c0, c1, c2, c3]);
        let length = i32::from_be_bytes([l0, l1, l2, l3]);
        let name = Command::name_of(code).ok_or(DecodeError::UnknownCommand { code })?;
        match usize::try_from(length) {
            Ok(payload) if payload <= self.frame_bytes_max.saturating_sub(FRAME_HEADER_BYTES) => {
                Ok(Some(Header { code, frame_bytes: FRAME_HEADER_BYTES + payload }))
            }
            _ => Err(DecodeError::FrameLength {
                name,
                length,
                frame_bytes_max: self.frame_bytes_max,
            }),
        }
    }
}
