//! Which shard a client connects to for a segment.

use thalweg_net::Placement;

use crate::options::Forwarding;
use crate::rng::Rng;

/// Knows the placement that the server uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Router {
    placement: Placement,
    forwarding: Forwarding,
}

impl Router {
    /// Routes by this placement.
    pub(crate) fn new(placement: Placement, forwarding: Forwarding) -> Self {
        Self { placement, forwarding }
    }

    /// The shard that owns a segment.
    pub(crate) fn shard_of(&self, segment: &str) -> usize {
        usize::from(self.placement.shard_of(segment).0)
    }

    /// A shard that serves a segment: its owner, or any when shards forward.
    pub(crate) fn shard_for(&self, segment: &str, rng: &mut Rng) -> usize {
        let owner = self.shard_of(segment);
        match self.forwarding {
            Forwarding::WrongHost => owner,
            Forwarding::Mailbox if rng.percent(60) => {
                rng.index(usize::from(self.placement.shards()))
            }
            Forwarding::Mailbox => owner,
        }
    }
}
