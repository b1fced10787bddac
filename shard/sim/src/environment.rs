//! One shard's outside world, simulated.

use thalweg_core::env::Env;
use thalweg_journal::Journal;

use crate::clock::Clock;
use crate::disk::DiskHandle;
use crate::link::LinkHandle;
use crate::post::PostHandle;

/// What a simulated process gives to its shard.
pub(crate) struct SimulatedEnv {
    pub(crate) journal: Journal<DiskHandle>,
    pub(crate) network: LinkHandle,
    pub(crate) mailbox: PostHandle,
    pub(crate) clock: Clock,
}

impl Env for SimulatedEnv {
    type Journal = Journal<DiskHandle>;
    type Network = LinkHandle;
    type Mailbox = PostHandle;
    type Clock = Clock;

    fn journal(&mut self) -> &mut Self::Journal {
        &mut self.journal
    }

    fn network(&mut self) -> &mut Self::Network {
        &mut self.network
    }

    fn mailbox(&mut self) -> &mut Self::Mailbox {
        &mut self.mailbox
    }

    fn clock(&mut self) -> &mut Self::Clock {
        &mut self.clock
    }
}
