//! A frame: operations of all containers of a shard, sealed together and made durable together.
//!
//! The engine copies each operation once, into the open frame. A sealed frame is handed to the
//! journal, which fills the header; its memory then stays as the tail cache. The bytes of a frame,
//! header included, are what [`JournalAddress`](crate::position::JournalAddress) names and what
//! positions inside a frame count from. Byte tables: `docs/formats.md`.

use bytes::BytesMut;

use crate::id::ContainerId;
use crate::limits::CONTAINERS_MAX;
use crate::position::{BLOCK_BYTES, FrameNumber};

/// Bytes at the start of a frame that belong to the journal: its header. Operations follow.
pub const FRAME_HEADER_BYTES: usize = 128;

/// Which containers have operations in a frame: one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerMask(pub u64);

impl ContainerMask {
    /// Adds a container.
    pub fn insert(&mut self, container: ContainerId) {
        self.0 |= 1 << (container.0 % CONTAINERS_MAX);
    }

    /// Whether the container may be meant. Never wrong when it says no; ids that are equal modulo
    /// [`CONTAINERS_MAX`] share a bit.
    pub fn may_contain(self, container: ContainerId) -> bool {
        self.0 & (1 << (container.0 % CONTAINERS_MAX)) != 0
    }
}

/// A frame that takes no more operations, ready for the journal.
#[derive(Debug)]
pub struct SealedFrame {
    /// Its number: one more than the frame before.
    pub number: FrameNumber,
    /// [`FRAME_HEADER_BYTES`] zeros, the operations, zeros up to a whole number of blocks. The
    /// memory is aligned to [`BLOCK_BYTES`].
    pub bytes: BytesMut,
    /// Bytes of operations, without header and padding. 0 is legal (beacon).
    pub operation_bytes: u32,
    /// Whose operations it holds.
    pub containers: ContainerMask,
}

/// Memory for `capacity` bytes whose first byte is aligned to [`BLOCK_BYTES`]. Splitting the
/// result at multiples of a block keeps the parts aligned.
pub fn aligned_memory(capacity: usize) -> BytesMut {
    let block = BLOCK_BYTES as usize;
    let mut memory = BytesMut::with_capacity(capacity + block);
    align(&mut memory);
    memory
}

/// Moves the start of an empty buffer to the next block boundary.
///
/// # Panics
/// When the buffer is not empty or has less than a block of capacity.
pub fn align(memory: &mut BytesMut) {
    assert!(memory.is_empty(), "only an empty buffer can be aligned");
    let block = BLOCK_BYTES as usize;
    let skip = memory.as_ptr().align_offset(block);
    assert!(skip < block && skip <= memory.capacity(), "one spare block is enough to align");
    if skip > 0 {
        memory.resize(skip, 0);
        drop(memory.split());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames cut from one slab are aligned as direct I/O needs it.
    #[test]
    fn memory_is_aligned_and_stays_so_when_split_at_blocks() {
        let mut slab = aligned_memory(64 << 10);
        assert!(slab.capacity() >= 64 << 10);
        slab.resize(8192, 1);
        let first = slab.split_to(4096).freeze();
        assert_eq!(first.as_ptr() as usize % 4096, 0);
        assert_eq!(slab.as_ptr() as usize % 4096, 0);
    }
}
