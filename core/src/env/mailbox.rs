//! Mail between shards: requests for a segment that lives elsewhere, and their replies. Used only
//! when one port serves all shards.

use crate::id::ContainerId;
use crate::id::{ConnectionId, ShardId, Token};
use crate::request::{Effect, Request};

/// One message from one shard to another.
#[derive(Debug)]
pub enum Mail {
    /// A request for a container of the receiving shard.
    Request {
        /// The container.
        container: ContainerId,
        /// Where the reply belongs; names the sending shard.
        token: Token,
        /// What is asked.
        request: Request,
    },
    /// What the receiving shard's client is to be told.
    Reply(Effect),
    /// A connection of the sending shard is gone: drop its sessions and parked reads.
    ConnectionClosed {
        /// The sending shard.
        shard: ShardId,
        /// The connection, numbered by the sending shard.
        connection: ConnectionId,
    },
}

/// Bounded queues to the other shards, one producer and one consumer each.
pub trait Mailbox {
    /// Queues `mail` for `to`, or gives it back when the queue is full; the sender keeps it and
    /// takes no more input that could lead to mail until it fits.
    ///
    /// # Errors
    /// The mail itself, when there is no room now.
    fn send(&mut self, to: ShardId, mail: Mail) -> Result<(), Box<Mail>>;

    /// Moves what arrived into `mail`, in order per sender.
    fn poll(&mut self, mail: &mut Vec<(ShardId, Mail)>);
}
