//! Administration of long-term storage. Only the control plane and tools send these.

use crate::layout::layout;
use crate::text::Text;

layout! {
    /// Moves all durable bytes of a container to long-term storage.
    FlushToStorage {
        /// The container.
        container_id: i32,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Echoed by the reply.
        request_id: i64,
    }
}

layout! {
    /// The bytes are there.
    StorageFlushed {
        /// Of the request.
        request_id: i64,
    }
}

layout! {
    /// Asks for the chunks of a segment.
    ListStorageChunks {
        /// The segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Echoed by the reply.
        request_id: i64,
    }
}

layout! {
    /// One chunk of a segment.
    StorageChunk {
        /// Bytes the segment has in it.
        length_in_metadata: i64,
        /// Bytes the store says it has.
        length_in_storage: i64,
        /// Offset in the segment of its first byte.
        start_offset: i64,
        /// Name in the store.
        chunk_name: Text,
        /// Whether the store has it.
        exists_in_storage: bool,
    }
}

layout! {
    /// The chunks of a segment.
    StorageChunksListed {
        /// Of the request.
        request_id: i64,
        /// In the order of their offsets.
        chunks: Vec<StorageChunk>,
    }
}
