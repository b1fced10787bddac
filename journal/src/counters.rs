//! What the journal counted since it was made. Read by the shard for its metrics.

/// Counts since the journal was made; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames durable.
    pub frames: u64,
    /// Bytes of durable frames, headers and padding included.
    pub frame_bytes: u64,
    /// Durable writes completed, beacons and headers included: each is one sync.
    pub syncs: u64,
    /// Beacons durable.
    pub beacons: u64,
    /// Unacknowledged bytes cut from tails in recoveries.
    pub tail_cut_bytes: u64,
    /// Acknowledged frames found damaged, in recoveries and fetches.
    pub damaged: u64,
    /// Frames fetched.
    pub fetches: u64,
    /// Fetches that were right only at the second read.
    pub rereads: u64,
    /// Files prepared from nothing.
    pub files_prepared: u64,
    /// Files recycled.
    pub files_recycled: u64,
    /// Attempts to prepare, recycle or remove a file that failed.
    pub file_failures: u64,
    /// Writes or syncs of records that failed: each ended an incarnation.
    pub poisonings: u64,
}
