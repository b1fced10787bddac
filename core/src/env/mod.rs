//! The outside world of a shard, as traits: production and simulation each provide one.
//!
//! The shape is submit and poll, not `async`: it maps onto a ring without an executor between, a
//! fake is a queue, and a run is a plain sequence of calls that can be replayed. The journal crate
//! stands between [`journal::Journal`] (what the shard sees) and [`device::Device`] (what the disk
//! is), and is the same code in both worlds.

pub mod clock;
pub mod device;
pub mod journal;
pub mod mailbox;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
pub mod network;

use clock::Clock;
use journal::Journal;
use mailbox::Mailbox;
use network::Network;

/// One shard's outside world.
pub trait Env {
    /// Durable frames.
    type Journal: Journal;
    /// Byte streams to clients.
    type Network: Network;
    /// The other shards.
    type Mailbox: Mailbox;
    /// Time.
    type Clock: Clock;

    /// The journal.
    fn journal(&mut self) -> &mut Self::Journal;
    /// The network.
    fn network(&mut self) -> &mut Self::Network;
    /// The way to the other shards.
    fn mailbox(&mut self) -> &mut Self::Mailbox;
    /// The clock.
    fn clock(&mut self) -> &mut Self::Clock;
}
