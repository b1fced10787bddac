//! The commands that belong to the connection and not to a request.

use bytes::BytesMut;

use crate::field::{Field, PayloadError, Reader};
use crate::layout::layout;

/// Highest wire version a server names. Both client families accept the pair with
/// [`WIRE_VERSION_LOW`].
pub const WIRE_VERSION_HIGH: i32 = 17;

/// Lowest wire version a server accepts.
pub const WIRE_VERSION_LOW: i32 = 5;

layout! {
    /// First message of a connection, answered by one of the other side's own. May be repeated at
    /// any time.
    Hello {
        /// Highest version the sender speaks.
        high_version: i32,
        /// Lowest version the sender accepts.
        low_version: i32,
    }
}

impl Hello {
    /// What our server answers to every Hello.
    pub const OURS: Self = Self { high_version: WIRE_VERSION_HIGH, low_version: WIRE_VERSION_LOW };

    /// Whether some version lies in both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low_version <= other.high_version && self.high_version >= other.low_version
    }
}

/// Empty message that a server echoes. It sends none to clients that never sent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive;

impl Field for KeepAlive {
    const BYTES_MIN: usize = 0;

    fn decode(_reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        Ok(Self)
    }

    fn encode(&self, _out: &mut BytesMut) {}

    fn encoded_len(&self) -> usize {
        0
    }
}
