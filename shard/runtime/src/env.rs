//! The outside world of a shard in production, put together from its parts.

use thalweg_core::env::Env;
use thalweg_core::env::journal::Journal;
use thalweg_core::env::network::Network;

use crate::clock::SystemClock;
use crate::mailbox::ShardMailbox;

/// Journal and network of the caller's choice, mail and clock of this crate.
pub struct ProductionEnv<J, N> {
    /// Durable frames.
    pub journal: J,
    /// Byte streams to clients.
    pub network: N,
    /// The other shards.
    pub mailbox: ShardMailbox,
    /// Time.
    pub clock: SystemClock,
}

impl<J: Journal, N: Network> Env for ProductionEnv<J, N> {
    type Journal = J;
    type Network = N;
    type Mailbox = ShardMailbox;
    type Clock = SystemClock;

    fn journal(&mut self) -> &mut J {
        &mut self.journal
    }

    fn network(&mut self) -> &mut N {
        &mut self.network
    }

    fn mailbox(&mut self) -> &mut ShardMailbox {
        &mut self.mailbox
    }

    fn clock(&mut self) -> &mut SystemClock {
        &mut self.clock
    }
}
