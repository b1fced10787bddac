//! The connections of a shard, found by id without a tree: ids count up, so their low bits hardly
//! ever collide, and a table of twice the size with linear probing answers at the first look.

use std::ops::{Index, IndexMut};

use bytes::BytesMut;
use thalweg_core::id::{ConnectionId, ContainerId, ShardId, Token};
use thalweg_core::request::Request;
use thalweg_core::time::Instant;
use thalweg_net::Connection;

/// What a connection waits for before its next command is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// Room in the journal.
    Room,
    /// Room in the journal's reserve.
    Reserve,
    /// Accepted bytes to become durable.
    Accepted,
    /// The client to take its replies.
    Unsent,
    /// Answers to requests before.
    Outstanding,
    /// The mailbox of this shard.
    Mail(ShardId),
    /// Memory for the frame that has begun.
    Memory,
    /// Memory for what it makes the shard remember.
    State,
}

impl Stall {
    /// Whether the client itself ends the wait, by taking its replies.
    pub(crate) fn is_own(self) -> bool {
        self == Self::Unsent
    }
}

/// A request taken from its connection that cannot go on now.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) container: ContainerId,
    pub(crate) token: Token,
    pub(crate) request: Request,
}

/// One connection and what the shard knows of it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) connection: Connection,
    /// Received bytes; empty while a receive is out.
    pub(crate) buffer: BytesMut,
    pub(crate) is_receiving: bool,
    /// Length and spare capacity of the buffer when it went out.
    pub(crate) armed: (usize, usize),
    pub(crate) accepted_at: Instant,
    /// When bytes came last.
    pub(crate) received_at: Instant,
    /// When bytes left last, or the first of those came that have not.
    pub(crate) sent_at: Instant,
    /// When the frame that has begun began.
    pub(crate) frame_at: Instant,
    /// Since when the next command waits for others; `None` while it does not.
    pub(crate) stalled_at: Option<Instant>,
    /// When it was last told that it waits; means nothing before `stalled_at`.
    pub(crate) told_at: Instant,
    /// Bytes taken from the receive memory for the buffer.
    pub(crate) charged: usize,
    pub(crate) held: Option<Held>,
    pub(crate) stall: Option<Stall>,
    /// In the shard's queue of connections to handle.
    pub(crate) is_ready: bool,
    /// In the shard's list of connections with output.
    pub(crate) is_dirty: bool,
    /// Closed by us; only its end is awaited.
    pub(crate) is_closing: bool,
    /// Bytes given to the network that have not left.
    pub(crate) unsent: usize,
    /// Shards that were sent requests of this connection.
    pub(crate) forwarded: Vec<ShardId>,
}

impl Slot {
    pub(crate) fn new(connection: Connection, now: Instant) -> Self {
        Self {
            connection,
            buffer: BytesMut::new(),
            is_receiving: false,
            armed: (0, 0),
            accepted_at: now,
            received_at: now,
            sent_at: now,
            frame_at: now,
            stalled_at: None,
            told_at: now,
            charged: 0,
            held: None,
            stall: None,
            is_ready: false,
            is_dirty: false,
            is_closing: false,
            unsent: 0,
            forwarded: Vec::new(),
        }
    }
}

/// Place of a connection; valid until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotIndex(u32);

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Slot numbers plus one, 0 for none, at the low bits of their ids or behind. A power of two
    /// that is at least twice the number of connections, so that every search ends.
    table: Vec<u32>,
    count: usize,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), table: vec![0; 64], count: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<SlotIndex> {
        self.position(id).map(|at| SlotIndex(self.table[at] - 1))
    }

    /// Adds a connection whose id is not there.
    pub(crate) fn insert(&mut self, slot: Slot) -> SlotIndex {
        let id = slot.connection.id();
        assert!(self.find(id).is_none(), "a connection id is used once");
        if 2 * (self.count + 1) > self.table.len() {
            self.grow();
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("connections are bounded")
            }
        };
        self.slots[index as usize] = Some(slot);
        self.count += 1;
        self.place(id, index);
        SlotIndex(index)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Slot> {
        let at = self.position(id)?;
        let index = self.table[at] - 1;
        self.table[at] = 0;
        self.close_gap(at);
        self.free.push(index);
        self.count -= 1;
        self.slots[index as usize].take()
    }

    /// The places of the connections among `count` slots from `from` on, and where to go on; 0
    /// after the last slot.
    pub(crate) fn some(&self, from: usize, count: usize) -> (Vec<SlotIndex>, usize) {
        let end = self.slots.len().min(from + count);
        let used = (from..end).filter(|at| self.slots[*at].is_some());
        let found =
            used.map(|at| SlotIndex(u32::try_from(at).expect("they fit when made"))).collect();
        (found, if end < self.slots.len() { end } else { 0 })
    }

    /// How many looks of `count` slots each see all of them; at least 1.
    pub(crate) fn looks(&self, count: usize) -> usize {
        self.slots.len().div_ceil(count).max(1)
    }

    /// The places of all connections.
    pub(crate) fn indexes(&self) -> Vec<SlotIndex> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        used.map(|(at, _)| SlotIndex(u32::try_from(at).expect("they fit when made"))).collect()
    }

    fn home(&self, id: ConnectionId) -> usize {
        // The mask is far below 2^32, so the cut-off bits do not matter.
        id.0 as usize & (self.table.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.table.len() - 1)
    }

    fn id_at(&self, at: usize) -> Option<ConnectionId> {
        let index = self.table[at].checked_sub(1)?;
        self.slots[index as usize].as_ref().map(|slot| slot.connection.id())
    }

    fn position(&self, id: ConnectionId) -> Option<usize> {
        let mut at = self.home(id);
        while let Some(found) = self.id_at(at) {
            if found == id {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    fn place(&mut self, id: ConnectionId, index: u32) {
        let mut at = self.home(id);
        while self.table[at] != 0 {
            at = self.after(at);
        }
        self.table[at] = index + 1;
    }

    /// Places again what a search might no longer reach across the gap.
    fn close_gap(&mut self, gap: usize) {
        let mut at = self.after(gap);
        while let Some(id) = self.id_at(at) {
            let index = self.table[at] - 1;
            self.table[at] = 0;
            self.place(id, index);
            at = self.after(at);
        }
    }

    fn grow(&mut self) {
        self.table = vec![0; 2 * self.table.len()];
        for index in self.indexes() {
            let id = self[index].connection.id();
            self.place(id, index.0);
        }
    }
}

impl Index<SlotIndex> for Connections {
    type Output = Slot;

    fn index(&self, index: SlotIndex) -> &Slot {
        self.slots[index.0 as usize].as_ref().expect("an index is not kept over a removal")
    }
}

impl IndexMut<SlotIndex> for Connections {
    fn index_mut(&mut self, index: SlotIndex) -> &mut Slot {
        self.slots[index.0 as usize].as_mut().expect("an index is not kept over a removal")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use thalweg_net::{ConnectionLimits, Placement};

    use super::*;

    fn slot(id: u64) -> Slot {
        let placement = Placement::new(1, 1);
        let limits = ConnectionLimits::default();
        let connection = Connection::new(ConnectionId(id), ShardId(0), placement, limits);
        Slot::new(connection, Instant(0))
    }

    /// Against a set: ids that collide on purpose, coming and going in a fixed disorder.
    #[test]
    fn colliding_ids_are_found_after_any_removal() {
        let mut connections = Connections::new();
        let mut model = BTreeSet::new();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // 40 groups of ids that are equal in their low 7 bits.
            let id = (state >> 33) % 40 + ((state >> 40) % 20) * 128;
            if model.remove(&id) {
                let removed = connections.remove(ConnectionId(id)).expect("it is there");
                assert_eq!(removed.connection.id(), ConnectionId(id));
            } else {
                model.insert(id);
                connections.insert(slot(id));
            }
            assert_eq!(connections.len(), model.len());
        }
        for id in 0..40 * 128 {
            let found = connections.find(ConnectionId(id));
            assert_eq!(found.is_some(), model.contains(&id));
            if let Some(index) = found {
                assert_eq!(connections[index].connection.id(), ConnectionId(id));
            }
        }
    }
}
