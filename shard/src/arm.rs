//! Asking the network for more, and the memory for it.
//!
//! A connection's smallest buffer is its own. More is taken from the shard's receive memory: for a
//! frame that does not fit as much as the whole frame needs, or the connection waits; for speed
//! only what nobody needs.

use std::time::Duration;

use bytes::BytesMut;
use thalweg_core::env::Env;
use thalweg_core::env::network::Network;
use thalweg_core::time::Now;
use thalweg_net::CloseCause;

use crate::connections::{SlotIndex, Stall};
use crate::turn::Shard;

/// How often holders of memory are looked at while others wait.
const PATIENCE_STEP: Duration = Duration::from_secs(1);

impl<E: Env> Shard<E> {
    /// Receives from a connection whose commands are all handled, or lets it wait for memory.
    pub(crate) fn arm(&mut self, index: SlotIndex) {
        if !self.try_arm(index) {
            self.stall(index, Stall::Memory);
        }
    }

    /// Arms those that wait for memory, in order, while there is some. Closes whoever holds memory
    /// and sends nothing for too long.
    pub(crate) fn grant_waiting(&mut self, now: Now) {
        while let Some(id) = self.stalled.memory.front().copied() {
            let index = self.connections.find(id).filter(|at| !self.connections[*at].is_closing);
            if let Some(index) = index
                && !self.try_arm(index)
            {
                break;
            }
            self.stalled.memory.pop_front();
        }
        if self.stalled.memory.is_empty() {
            self.patience_due = None;
            return;
        }
        if self.patience_due.is_some_and(|due| now.monotonic < due) {
            return;
        }
        self.patience_due = Some(now.monotonic.after(PATIENCE_STEP));
        for index in self.connections.indexes() {
            let slot = &self.connections[index];
            let silence = now.monotonic.since(slot.received_at);
            if slot.charged > 0 && slot.is_receiving && silence > self.config.receive_patience {
                self.close_connection(index, CloseCause::SlowSender);
            }
        }
    }

    /// Whether a receive is out now, or none is wanted.
    fn try_arm(&mut self, index: SlotIndex) -> bool {
        let base = self.config.connection.receive_bytes_min;
        let slot = &mut self.connections[index];
        if slot.is_receiving || slot.is_closing {
            return true;
        }
        let length = slot.buffer.len();
        let missing = slot.connection.frame_bytes_missing(&slot.buffer);
        let mut wanted = slot.connection.receive_bytes(&slot.buffer);
        let needed = (length + missing).saturating_sub(base);
        let before = slot.charged;
        if needed > before {
            if !self.memory.grant(needed - before) {
                return false;
            }
            slot.charged = needed;
            wanted = missing;
        } else if needed > 0 {
            // The rest of a frame that was granted: no more than that, so that the buffer is the
            // frame's and goes with it.
            wanted = missing;
        } else {
            let growth = (length + wanted).saturating_sub(base);
            if growth > before {
                if self.memory.grant_growth(growth - before) {
                    slot.charged = growth;
                } else {
                    wanted = (before + base).saturating_sub(length).max(1);
                }
            } else {
                self.memory.release(before - growth);
                slot.charged = growth;
            }
        }
        let must_shrink = slot.charged < before;
        let mut buffer = std::mem::take(&mut slot.buffer);
        if must_shrink || !(has_spare(&buffer, wanted) || buffer.try_reclaim(wanted)) {
            let mut fresh = BytesMut::with_capacity(length + wanted);
            fresh.extend_from_slice(&buffer);
            buffer = fresh;
        }
        slot.armed = (length, buffer.capacity() - length);
        slot.is_receiving = true;
        if slot.stall == Some(Stall::Memory) {
            // The wait was not the client's.
            slot.frame_at = self.now;
            slot.received_at = self.now;
        }
        slot.stall = None;
        slot.stalled_at = None;
        let id = slot.connection.id();
        self.env.network().receive(id, buffer);
        true
    }
}

fn has_spare(buffer: &BytesMut, wanted: usize) -> bool {
    buffer.capacity() - buffer.len() >= wanted
}
