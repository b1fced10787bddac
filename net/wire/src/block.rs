//! Joining the two parts of an append into the bytes to append.
//!
//! Owns the rules between an AppendBlock and its AppendBlockEnd, per connection. Copies nothing:
//! the content is up to three slices of the received buffers. A violation means: close the
//! connection and append nothing.

use bytes::{Bytes, BytesMut};

use crate::FRAME_HEADER_BYTES;
use crate::append::{AppendBlock, AppendBlockEnd, Padding, PartialEvent};
use crate::command::Message;
use crate::field::{Field, Reader};

/// A rule of the append blocks is broken. The connection is to be closed, without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockViolation {
    /// Another block, a session or a conditional append came between the two parts.
    #[error("an append command between the two parts of a block")]
    Interrupted,
    /// The two parts name different writers.
    #[error("block of writer {block:032x} ended by writer {end:032x}")]
    OtherWriter {
        /// Writer of the block.
        block: u128,
        /// Writer of its end.
        end: u128,
    },
    /// The append has no events, or fewer.
    #[error("append of {event_count} events")]
    EventCount {
        /// The count as it was sent.
        event_count: i32,
    },
    /// The size of whole events is negative or over the block.
    #[error("whole events of {size} bytes in a block of {block_bytes}")]
    SizeOfWholeEvents {
        /// The size as it was sent.
        size: i32,
        /// Bytes in the block.
        block_bytes: usize,
    },
    /// Behind the whole events is neither a Padding nor a PartialEvent that fits the rest of the
    /// block.
    #[error("block ends in neither padding nor partial event")]
    BlockRest,
    /// The end of a padded block carries data.
    #[error("padded block ended with {data_bytes} bytes of data")]
    DataAfterPadding {
        /// Bytes of data.
        data_bytes: usize,
    },
}

/// The bytes to append, in order, in up to three slices of the received buffers.
#[derive(Clone, Debug, Default)]
pub struct BlockContent {
    parts: [Bytes; 3],
}

impl BlockContent {
    /// The slices that are not empty, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter(|part| !part.is_empty())
    }

    /// Like [`BlockContent::parts`], giving the slices away.
    pub fn into_parts(self) -> impl Iterator<Item = Bytes> {
        self.parts.into_iter().filter(|part| !part.is_empty())
    }

    /// Bytes in all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing to append; an append may be empty and count events all the same.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content in one piece: without copying when it is one slice, as a copy otherwise.
    pub fn into_bytes(self) -> Bytes {
        if self.parts().count() <= 1 {
            return self.into_parts().next().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(self.len());
        for part in self.parts() {
            joined.extend_from_slice(part);
        }
        joined.freeze()
    }
}

/// One whole append of a writer.
#[derive(Clone, Debug)]
pub struct AssembledAppend {
    /// The writer.
    pub writer_id: u128,
    /// What to append.
    pub content: BlockContent,
    /// Events in it; at least 1.
    pub event_count: i32,
    /// Number of the last of them.
    pub last_event_number: i64,
    /// Echoed by the acknowledgement.
    pub request_id: i64,
}

/// The block that waits for its end, if any, on one connection. Useless after a violation.
#[derive(Debug, Default)]
pub struct BlockAssembly {
    open: Option<AppendBlock>,
}

impl BlockAssembly {
    /// With no block open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a block waits for its end.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Checks that the append family may send something else than a block's end now. To be called
    /// for SetupAppend, ConditionalAppend and ConditionalBlockEnd; all other commands are free to
    /// come between the parts.
    pub fn interrupt(&self) -> Result<(), BlockViolation> {
        if self.is_open() { Err(BlockViolation::Interrupted) } else { Ok(()) }
    }

    /// Takes the first part of an append.
    pub fn begin(&mut self, block: AppendBlock) -> Result<(), BlockViolation> {
        self.interrupt()?;
        self.open = Some(block);
        Ok(())
    }

    /// Takes the second part, or a lone AppendBlockEnd, and gives the whole append.
    pub fn end(&mut self, end: AppendBlockEnd) -> Result<AssembledAppend, BlockViolation> {
        let block = self.open.take();
        if end.event_count <= 0 {
            return Err(BlockViolation::EventCount { event_count: end.event_count });
        }
        let content = match block {
            // The size of whole events speaks of a block; without one it says nothing, even when
            // negative.
            None => BlockContent { parts: [end.data, Bytes::new(), Bytes::new()] },
            Some(block) => join(block, end.writer_id, end.size_of_whole_events, end.data)?,
        };
        Ok(AssembledAppend {
            writer_id: end.writer_id,
            content,
            event_count: end.event_count,
            last_event_number: end.last_event_number,
            request_id: end.request_id,
        })
    }
}

fn join(
    block: AppendBlock,
    writer_id: u128,
    size: i32,
    end_data: Bytes,
) -> Result<BlockContent, BlockViolation> {
    if block.writer_id != writer_id {
        return Err(BlockViolation::OtherWriter { block: block.writer_id, end: writer_id });
    }
    let mut whole_events = block.data;
    let block_bytes = whole_events.len();
    let size_bytes = usize::try_from(size)
        .ok()
        .filter(|size_bytes| *size_bytes <= block_bytes)
        .ok_or(BlockViolation::SizeOfWholeEvents { size, block_bytes })?;
    let rest = whole_events.split_off(size_bytes);
    if rest.is_empty() {
        // The block is full of whole events, and what the end carries is not part of it.
        return Ok(BlockContent { parts: [whole_events, Bytes::new(), Bytes::new()] });
    }
    match block_rest(&rest)? {
        BlockRest::Padding if end_data.is_empty() => {
            Ok(BlockContent { parts: [whole_events, Bytes::new(), Bytes::new()] })
        }
        BlockRest::Padding => Err(BlockViolation::DataAfterPadding { data_bytes: end_data.len() }),
        BlockRest::PartialEvent(first) => {
            Ok(BlockContent { parts: [whole_events, first, end_data] })
        }
    }
}

enum BlockRest {
    Padding,
    PartialEvent(Bytes),
}

/// Reads the one command nested behind the whole events of a block.
fn block_rest(rest: &Bytes) -> Result<BlockRest, BlockViolation> {
    let mut reader = Reader::new(rest, 0, rest.len());
    let header = i32::decode(&mut reader).and_then(|code| Ok((code, i32::decode(&mut reader)?)));
    let (code, length) = header.map_err(|_| BlockViolation::BlockRest)?;
    let body_bytes = rest.len() - FRAME_HEADER_BYTES;
    let length = usize::try_from(length).map_err(|_| BlockViolation::BlockRest)?;
    match code {
        // What follows the padding is discarded with it.
        Padding::CODE if length <= body_bytes => Ok(BlockRest::Padding),
        PartialEvent::CODE if length == body_bytes => {
            Ok(BlockRest::PartialEvent(reader.take_all()))
        }
        _ => Err(BlockViolation::BlockRest),
    }
}
