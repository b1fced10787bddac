//! Byte streams to clients. The shard decides when to receive, so that back-pressure is nothing
//! but not asking for more.

use bytes::{Bytes, BytesMut};

use crate::id::ConnectionId;

/// What happened on the network since the last poll.
#[derive(Debug)]
pub enum NetworkEvent {
    /// A client connected. Nothing is received until [`Network::receive`] asks for it.
    Accepted {
        /// The new connection; the implementation numbers them and never repeats one.
        connection: ConnectionId,
    },
    /// Bytes arrived behind what `buffer` held already. The buffer that [`Network::receive`] took
    /// comes back.
    Received {
        /// From whom.
        connection: ConnectionId,
        /// Old content followed by at least one new byte.
        buffer: BytesMut,
    },
    /// All bytes given to [`Network::send`] so far up to this count have left for the kernel.
    Sent {
        /// To whom.
        connection: ConnectionId,
        /// How many bytes left since the last such event.
        bytes: usize,
    },
    /// The connection is gone: by the peer, by an error, or after [`Network::close`]. The last
    /// event of a connection; exactly one for every accepted one. A buffer still out is dropped.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
}

/// Byte streams. Calls never block; what they lead to arrives by [`poll`](Self::poll). Calls for a
/// connection that is closed already do nothing.
pub trait Network {
    /// Asks for bytes of `connection`, to be put behind the content of `buffer` into its spare
    /// capacity, which must not be empty. At most one receive per connection is out.
    fn receive(&mut self, connection: ConnectionId, buffer: BytesMut);

    /// Queues `bytes` to be sent, in order. Several calls in one turn may leave as one packet.
    fn send(&mut self, connection: ConnectionId, bytes: Bytes);

    /// Closes once everything queued has left, or at once when that takes long.
    fn close(&mut self, connection: ConnectionId);

    /// Moves what happened into `events`, in order per connection.
    fn poll(&mut self, events: &mut Vec<NetworkEvent>);
}
