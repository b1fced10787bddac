//! Reads parked at the end of segments, over all containers of a shard.
//!
//! The segment knows which reads are parked at it; here is what they are, whose, and until when.
//! All are parked for the same time, so the order of parking is the order of giving up.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{SegmentName, Token};
use crate::position::Offset;
use crate::request::Peer;
use crate::segment::SegmentHandle;
use crate::time::Instant;

/// Which parked read; counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ParkedId(u64);

/// A read as it was asked.
#[derive(Clone, Debug)]
pub(crate) struct PendingRead {
    pub(crate) token: Token,
    /// Number of the container in the engine.
    pub(crate) container: usize,
    pub(crate) segment: SegmentHandle,
    pub(crate) name: SegmentName,
    pub(crate) offset: Offset,
    pub(crate) length: u32,
}

/// See the module's comment.
#[derive(Debug, Default)]
pub(crate) struct ParkedReads {
    next: u64,
    reads: BTreeMap<ParkedId, (Instant, PendingRead)>,
    by_peer: BTreeSet<(Peer, ParkedId)>,
    counts: BTreeMap<Peer, usize>,
}

impl ParkedReads {
    pub(crate) fn len(&self) -> usize {
        self.reads.len()
    }

    /// How many a connection has parked.
    pub(crate) fn len_of(&self, peer: Peer) -> usize {
        self.counts.get(&peer).copied().unwrap_or(0)
    }

    pub(crate) fn park(&mut self, read: PendingRead, deadline: Instant) -> ParkedId {
        let id = ParkedId(self.next);
        self.next += 1;
        self.by_peer.insert((read.token.into(), id));
        *self.counts.entry(read.token.into()).or_default() += 1;
        self.reads.insert(id, (deadline, read));
        id
    }

    pub(crate) fn get(&self, id: ParkedId) -> Option<&PendingRead> {
        self.reads.get(&id).map(|(_, read)| read)
    }

    pub(crate) fn remove(&mut self, id: ParkedId) -> Option<PendingRead> {
        let (_, read) = self.reads.remove(&id)?;
        let peer = Peer::from(read.token);
        self.by_peer.remove(&(peer, id));
        let count = self.counts.get_mut(&peer).expect("what is parked was counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&peer);
        }
        Some(read)
    }

    /// When the first is given up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.reads.first_key_value().map(|(_, (deadline, _))| *deadline)
    }

    /// Takes one whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(ParkedId, PendingRead)> {
        let (&id, (deadline, _)) = self.reads.first_key_value()?;
        if *deadline > now {
            return None;
        }
        self.remove(id).map(|read| (id, read))
    }

    /// Takes one of a connection that is gone.
    pub(crate) fn take_of(&mut self, peer: Peer) -> Option<(ParkedId, PendingRead)> {
        let (_, id) =
            *self.by_peer.range((peer, ParkedId(0))..).next().filter(|(of, _)| *of == peer)?;
        self.remove(id).map(|read| (id, read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionId, SegmentId, ShardId};

    fn read(connection: u64) -> PendingRead {
        let token = Token { shard: ShardId(0), connection: ConnectionId(connection), request: 1 };
        let segment = SegmentHandle { slot: 0, id: SegmentId(1) };
        let name = SegmentName::from("s");
        PendingRead { token, container: 0, segment, name, offset: Offset(0), length: 1 }
    }

    /// Shows that reads are given up in order when their time is over, not before.
    #[test]
    fn reads_expire_in_order() {
        let mut parked = ParkedReads::default();
        let first = parked.park(read(1), Instant(10));
        parked.park(read(2), Instant(20));
        assert_eq!(parked.next_deadline(), Some(Instant(10)));
        assert!(parked.expired(Instant(9)).is_none());
        assert_eq!(parked.expired(Instant(15)).map(|(id, _)| id), Some(first));
        assert!(parked.expired(Instant(15)).is_none());
        assert_eq!(parked.next_deadline(), Some(Instant(20)));
    }

    /// Shows that a connection takes its own reads along and no others.
    #[test]
    fn connection_takes_its_reads_along() {
        let mut parked = ParkedReads::default();
        for connection in [1, 2, 1, 3] {
            parked.park(read(connection), Instant(10));
        }
        let peer = Peer { shard: ShardId(0), connection: ConnectionId(1) };
        assert!(parked.take_of(peer).is_some());
        assert!(parked.take_of(peer).is_some());
        assert!(parked.take_of(peer).is_none());
        assert_eq!((parked.len(), parked.len_of(peer)), (2, 0));
    }
}
