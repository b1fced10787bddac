//! Every bound of the engine as a named number with its unit, and the relations between them.
//!
//! Tests set a [`Limits`] absurdly small, so that edges occur every hundred operations.

use std::time::Duration;

use crate::position::BLOCK_BYTES;

/// Largest wire frame, header included: what one request can bring.
pub const WIRE_FRAME_BYTES_MAX: usize = 0x00FF_FFFF;
/// Largest key of a table, bytes.
pub const TABLE_KEY_BYTES_MAX: usize = 8192;
/// Largest fixed key length of a table, bytes.
pub const TABLE_KEY_LENGTH_MAX: u16 = 256;
/// Bytes that the protocol counts for the header of a table entry.
pub const TABLE_ENTRY_HEADER_BYTES: usize = 17;
/// Largest table entry: key, value and header, bytes.
pub const TABLE_ENTRY_BYTES_MAX: usize = 1 << 20;
/// Largest read reply and largest page of a table, bytes.
pub const READ_REPLY_BYTES_MAX: u32 = 2 << 20;
/// Most containers that one journal can serve: the width of a frame header's container mask.
pub const CONTAINERS_MAX: u16 = 64;

/// Bounds that a configuration or a test may set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A frame is sealed when it holds this much, header included; a single larger operation gets a
    /// frame of its own. Default 1 MiB: larger frames bring no bandwidth and cost latency.
    pub frame_bytes: usize,
    /// Memory of one frame slab; frames are cut from slabs. Default 4 MiB.
    pub slab_bytes: usize,
    /// Frames kept in memory behind the tail, bytes. Default 256 MiB per shard.
    pub tail_cache_bytes: usize,
    /// Frames read back from the journal and kept, bytes. Default 64 MiB per shard.
    pub history_cache_bytes: usize,
    /// Bytes accepted and not yet durable at which a shard stops receiving. Default 32 MiB.
    pub accepted_bytes_max: usize,
    /// Longest that a read is parked at the tail before it is answered empty. Default 120 s:
    /// clients give up after 30 s on their own, and an earlier empty reply looks like an end to
    /// some.
    pub parked_read: Duration,
    /// Reads parked at tails, per shard. Default 1,048,576.
    pub parked_reads_max: usize,
    /// Reads parked at tails, per connection; one more closes it. Default 4,096.
    pub parked_reads_per_connection_max: usize,
    /// Journal bytes after which a container writes a checkpoint. Default 128 MiB.
    pub checkpoint_interval_bytes: u64,
    /// Bytes of checkpoint put into one frame. Default 256 KiB.
    pub checkpoint_part_bytes: usize,
    /// Journal room below which appends wait and everything else goes on, bytes. Default 64 MiB.
    pub journal_reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 1 << 20,
            slab_bytes: 4 << 20,
            tail_cache_bytes: 256 << 20,
            history_cache_bytes: 64 << 20,
            accepted_bytes_max: 32 << 20,
            parked_read: Duration::from_secs(120),
            parked_reads_max: 1 << 20,
            parked_reads_per_connection_max: 4096,
            checkpoint_interval_bytes: 128 << 20,
            checkpoint_part_bytes: 256 << 10,
            journal_reserve_bytes: 64 << 20,
        }
    }
}

const _: () = assert!(TABLE_KEY_BYTES_MAX + TABLE_ENTRY_HEADER_BYTES < TABLE_ENTRY_BYTES_MAX);
const _: () = assert!(TABLE_KEY_LENGTH_MAX as usize <= TABLE_KEY_BYTES_MAX);
const _: () = assert!((READ_REPLY_BYTES_MAX as usize) < WIRE_FRAME_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES.is_power_of_two());
