//! Names and numbers that say *which*: containers, segments, writers, connections, requests.
//!
//! Each kind is a type of its own, so that two of them cannot be exchanged in a call.

use std::fmt;
use std::sync::Arc;

/// Which container: `0..containers` of the data directory, fixed when the directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub u16);

/// Which shard of this process: `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Which segment inside its container. Given at creation, counts up, never used twice, also not
/// when a name is deleted and made again; operations in the journal carry it instead of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// Which connection of this shard. Counts up while the process lives; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Which append session: one set-up of one writer for one segment on one connection. Unique in
/// the process: the shard that owns the connection in the upper 16 bits, a counter below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A writer as the client names it: 128 random bits. Also the id of the segment attribute that
/// holds the writer's last event number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u128);

/// A segment attribute: 128 bits. Core attributes have [`AttributeId::CORE`] as upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeId(pub u128);

impl AttributeId {
    /// Upper half of the ids that the protocol reserves for the server.
    pub const CORE: u64 = 0x8000_0000_0000_0000;
    /// Creation time, milliseconds since 1970.
    pub const CREATION_TIME: Self = Self::core(0);
    /// Number of events appended.
    pub const EVENT_COUNT: Self = Self::core(1);
    /// Scale policy type as the protocol numbers it.
    pub const SCALE_POLICY_TYPE: Self = Self::core(2);
    /// Scale policy target rate.
    pub const SCALE_POLICY_RATE: Self = Self::core(3);
    /// Rollover size in bytes.
    pub const ROLLOVER_SIZE: Self = Self::core(4);

    const fn core(low: u64) -> Self {
        Self(((Self::CORE as u128) << 64) | low as u128)
    }
}

impl From<WriterId> for AttributeId {
    fn from(writer: WriterId) -> Self {
        Self(writer.0)
    }
}

/// What an attribute that was never set reads as, and the last event number of a new writer.
pub const NULL_ATTRIBUTE_VALUE: i64 = i64::MIN;

/// Where a reply belongs. Opaque to the engine, which hands it back unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The shard whose connection asked; differs from the engine's own when the request was
    /// forwarded.
    pub shard: ShardId,
    /// The connection that asked.
    pub connection: ConnectionId,
    /// The client's own request id, to be echoed with all its 64 bits.
    pub request: i64,
}

/// Qualified name of a segment, as on the wire. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName(Arc<str>);

impl SegmentName {
    /// Wraps a name; the wire bounds it to 65,535 bytes.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SegmentName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
