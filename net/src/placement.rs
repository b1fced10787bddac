//! Which container a segment belongs to, and which shard a container.
//!
//! A pure function of the name: it is the same in every process and for ever, since the journal of
//! a data directory is divided by it. All epochs of a segment, its transactions and its transient
//! segments share a colocation name, so a merge never leaves its container.

use thalweg_core::id::{ContainerId, ShardId};
use thalweg_core::limits::CONTAINERS_MAX;

use crate::hash::{jump, murmur3};

/// Seed that the original takes for its container assignment.
const CONTAINER_SEED: u32 = 1_661_405_012;
/// Behind these, and at least [`SUFFIX_BYTES_MIN`] bytes, a name has its parent's before.
const SUFFIXES: [&str; 2] = ["#transaction.", "#transient."];
const SUFFIX_BYTES_MIN: usize = 32;
const EPOCH: &str = ".#epoch.";

/// How segments are divided: fixed when the data directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    containers: u16,
    shards: u16,
}

impl Placement {
    /// `containers` of the data directory on `shards` of the process; container `n` belongs to
    /// shard `n % shards`.
    ///
    /// # Panics
    /// When there is no shard, a shard would have no container, or more than [`CONTAINERS_MAX`].
    pub fn new(containers: u16, shards: u16) -> Self {
        assert!(shards > 0, "there is a shard");
        assert!(containers >= shards, "each shard has a container");
        assert!(
            containers.div_ceil(shards) <= CONTAINERS_MAX,
            "a frame's mask names each container"
        );
        Self { containers, shards }
    }

    /// Containers of the data directory.
    pub fn containers(self) -> u16 {
        self.containers
    }

    /// Shards of the process.
    pub fn shards(self) -> u16 {
        self.shards
    }

    /// The container of a segment.
    pub fn container(self, segment: &str) -> ContainerId {
        let mut text = Vec::with_capacity(2 * segment.len());
        for unit in colocation_name(segment).encode_utf16() {
            text.extend_from_slice(&unit.to_le_bytes());
        }
        ContainerId(jump(murmur3(&text, CONTAINER_SEED), self.containers))
    }

    /// The shard of a container.
    pub fn shard(self, container: ContainerId) -> ShardId {
        ShardId(container.0 % self.shards)
    }

    /// The shard of a segment.
    pub fn shard_of(self, segment: &str) -> ShardId {
        self.shard(self.container(segment))
    }

    /// All containers of a shard, in order.
    pub fn containers_of(self, shard: ShardId) -> impl Iterator<Item = ContainerId> {
        (shard.0..self.containers).step_by(usize::from(self.shards)).map(ContainerId)
    }
}

/// The part of a segment's name that decides where it lives: without transaction or transient
/// suffix and without everything from the epoch on.
pub fn colocation_name(segment: &str) -> &str {
    let parent = parent_name(segment);
    parent.find(EPOCH).map_or(parent, |at| &parent[..at])
}

/// The name before transaction and transient suffixes. A transient segment may be made for any
/// name, so suffixes are taken off until none is left: child and parent come out equal.
fn parent_name(mut segment: &str) -> &str {
    while let Some(parent) = SUFFIXES.iter().find_map(|suffix| {
        let at = segment.rfind(suffix)?;
        (segment.len() - at - suffix.len() >= SUFFIX_BYTES_MIN).then(|| &segment[..at])
    }) {
        segment = parent;
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A suffix counts only with its 32 characters; deeper ones come off too.
    #[test]
    fn suffixes_come_off_and_half_suffixes_stay() {
        let id = "0123456789abcdef0123456789abcdef";
        let plain = "scope/stream/7.#epoch.3";
        for name in [
            plain.to_owned(),
            format!("{plain}#transaction.{id}"),
            format!("{plain}#transient.{id}.{id}"),
            format!("{plain}#transaction.{id}#transient.{id}.{id}"),
            "scope/stream/7".to_owned(),
        ] {
            assert_eq!(colocation_name(&name), "scope/stream/7", "{name}");
        }
        assert_eq!(colocation_name("a#transaction.short"), "a#transaction.short");
        let nested = format!("plain#transient.{id}.{id}");
        assert_eq!(colocation_name(&format!("{nested}#transient.{id}.{id}")), "plain");
    }

    /// Every container has exactly one shard, and the lists say the same as the function.
    #[test]
    fn every_container_has_one_shard() {
        let placement = Placement::new(24, 3);
        let mut seen = 0;
        for shard in (0..3).map(ShardId) {
            for container in placement.containers_of(shard) {
                assert_eq!(placement.shard(container), shard);
                seen += 1;
            }
        }
        assert_eq!(seen, 24);
    }
}
