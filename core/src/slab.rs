//! Memory of frames: large aligned slabs from which frames are cut, used again when every frame of
//! a slab is gone.
//!
//! A frame in the making owns what is left of the current slab and gives the rest back when it is
//! sealed. A slab's memory is free when its frames have left the caches and no reply shares them
//! any more; until then the pool keeps an empty handle, which keeps nothing from being freed but
//! the slab itself. Nothing is zeroed for a second use: frames write what they hold, padding
//! included.

use bytes::BytesMut;

use crate::frame::{align, aligned_memory};
use crate::position::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;

/// The slabs of one shard.
#[derive(Debug)]
pub(crate) struct SlabPool {
    slab_bytes: usize,
    /// What is left of the current slab: empty, aligned.
    rest: BytesMut,
    /// Handle of the current slab.
    handle: BytesMut,
    /// Handles of slabs that are used up, oldest first.
    retired: Vec<BytesMut>,
}

impl SlabPool {
    /// No slab yet. `slab_bytes` is a multiple of a block.
    pub(crate) fn new(slab_bytes: usize) -> Self {
        assert!(slab_bytes > 0, "a slab has at least one block");
        assert!(slab_bytes.is_multiple_of(BLOCK), "a slab is whole blocks");
        Self { slab_bytes, rest: BytesMut::new(), handle: BytesMut::new(), retired: Vec::new() }
    }

    /// Empty aligned memory with a capacity of at least `least_bytes`: the rest of the current slab
    /// when it has that much, else a slab that is free again, else a new one. More than a slab gets
    /// memory of its own, which is freed after use.
    pub(crate) fn take(&mut self, least_bytes: usize) -> BytesMut {
        if least_bytes > self.slab_bytes {
            return aligned_memory(least_bytes.next_multiple_of(BLOCK));
        }
        if self.rest.capacity() < least_bytes {
            self.next_slab();
        }
        std::mem::take(&mut self.rest)
    }

    /// Takes back what a sealed frame left of its memory. `rest` is empty, and aligned because
    /// frames are whole blocks.
    pub(crate) fn give_back(&mut self, rest: BytesMut) {
        assert!(rest.is_empty(), "only unused memory comes back");
        // Memory of an oversized frame comes back too; the larger of the two is kept.
        if rest.capacity() > self.rest.capacity() {
            self.rest = rest;
        }
    }

    fn next_slab(&mut self) {
        self.rest = BytesMut::new();
        let used = std::mem::take(&mut self.handle);
        if used.capacity() > 0 {
            self.retired.push(used);
        }
        // One block in front for alignment, one behind as the handle.
        let whole = self.slab_bytes + 2 * BLOCK;
        let free = self.retired.iter_mut().position(|handle| handle.try_reclaim(whole));
        let mut memory = match free {
            Some(found) => self.retired.remove(found),
            None => BytesMut::with_capacity(whole),
        };
        align(&mut memory);
        self.handle = memory.split_off(self.slab_bytes);
        self.rest = memory;
        assert!(self.rest.capacity() >= self.slab_bytes, "a slab has its size after alignment");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pool: &mut SlabPool, bytes: usize) -> bytes::Bytes {
        let mut memory = pool.take(bytes);
        assert_eq!(memory.as_ptr() as usize % BLOCK, 0);
        memory.resize(bytes, 7);
        let frame = memory.split();
        pool.give_back(memory);
        frame.freeze()
    }

    /// Shows that a slab is used again once all its frames are gone, and not before.
    #[test]
    fn slab_is_reused_only_when_its_frames_are_gone() {
        let mut pool = SlabPool::new(4 * BLOCK);
        let first: Vec<_> = (0..4).map(|_| frame(&mut pool, BLOCK)).collect();
        let address = first[0].as_ptr();
        let second: Vec<_> = (0..4).map(|_| frame(&mut pool, BLOCK)).collect();
        assert!(second.iter().all(|frame| frame.as_ptr() != address));
        assert!(first.iter().all(|frame| frame.iter().all(|&byte| byte == 7)));
        drop(first);
        let third = frame(&mut pool, BLOCK);
        assert_eq!(third.as_ptr(), address);
        assert_eq!(pool.retired.len(), 1);
    }

    /// Shows that a frame larger than a slab gets its own aligned memory.
    #[test]
    fn oversized_frame_gets_memory_of_its_own() {
        let mut pool = SlabPool::new(2 * BLOCK);
        let large = frame(&mut pool, 10 * BLOCK);
        assert_eq!(large.len(), 10 * BLOCK);
        assert_eq!(frame(&mut pool, 2 * BLOCK).len(), 2 * BLOCK);
    }
}
