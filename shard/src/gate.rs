//! What may go on now and what waits: the commands of one connection, in order, up to the first
//! that cannot be taken.
//!
//! Back-pressure is only this: a command that cannot go on stays with its connection, and nothing
//! more is received from it. Reads, truncations, deletions and the control plane's tables go on
//! when the journal is short of room; nothing that changes state goes on when too much waits to
//! become durable. What is accepted has its place in the journal: were it not so, it would stand in
//! the way of the truncation that makes room.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::Env;
use thalweg_core::env::mailbox::Mail;
use thalweg_core::env::network::Network;
use thalweg_core::id::{ConnectionId, ContainerId, Token};
use thalweg_core::request::{CloseReason, Effect, Refusal, Request};
use thalweg_core::time::Now;
use thalweg_net::{CloseCause, Routed};
use tracing::debug;

use crate::budget::TurnLeft;
use crate::config::Forwarding;
use crate::connections::{Held, SlotIndex, Stall};
use crate::turn::Shard;

/// Segments of the control plane have names that begin so.
const SYSTEM_SCOPE: &str = "_system/";

/// What a request asks of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// Nothing.
    Nothing,
    /// A small operation that may make room, or that the control plane needs to make any.
    Release,
    /// A small operation.
    Change,
    /// As many bytes as the client likes.
    Growth,
    /// As many bytes as the client likes, to remember.
    Entries,
    /// A small operation, and something to remember.
    State,
    /// Nothing, and something to remember.
    Session,
}

/// Connections that wait for something they share; the others are found when it happens to them.
#[derive(Debug, Default)]
pub(crate) struct Stalled {
    room: VecDeque<ConnectionId>,
    reserve: VecDeque<ConnectionId>,
    state: VecDeque<ConnectionId>,
    accepted: VecDeque<ConnectionId>,
    pub(crate) mail: VecDeque<ConnectionId>,
    pub(crate) memory: VecDeque<ConnectionId>,
}

impl Stalled {
    pub(crate) fn len(&self) -> usize {
        let shared = self.room.len() + self.state.len() + self.accepted.len();
        shared + self.reserve.len() + self.mail.len() + self.memory.len()
    }

    /// Whether anybody waits for room in the journal.
    pub(crate) fn waits_for_room(&self) -> bool {
        !self.room.is_empty() || !self.reserve.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<E: Env> Shard<E> {
    /// Handles commands of one connection until there is none, one must wait, or the budget is
    /// spent.
    pub(crate) fn handle_connection(&mut self, now: Now, index: SlotIndex, left: &mut TurnLeft) {
        self.connections[index].stall = None;
        let mut has_taken = false;
        let enough = left.commands().saturating_sub(self.config.commands_at_once);
        loop {
            if self.connections[index].is_closing {
                return;
            }
            if left.is_spent() || left.commands() < enough {
                return self.make_ready(index);
            }
            if let Some(stall) = self.own_stall(index) {
                return self.stall(index, stall);
            }
            let slot = &mut self.connections[index];
            let held = match slot.held.take() {
                Some(held) => held,
                None => match slot.connection.next(&mut slot.buffer, &mut self.sessions) {
                    Ok(Some(Routed::Request { container, token, request })) => {
                        Held { container, token, request }
                    }
                    Ok(Some(Routed::Answered)) => {
                        left.take(0);
                        has_taken = true;
                        self.connections[index].stalled_at = None;
                        self.mark_dirty(index);
                        continue;
                    }
                    Ok(None) => {
                        if has_taken {
                            slot.frame_at = slot.received_at;
                        }
                        return self.arm(index);
                    }
                    Err(close) => {
                        debug!(connection = slot.connection.id().0, %close, "connection closed");
                        return self.close_connection(index, close.cause());
                    }
                },
            };
            if let Some(stall) = self.gate(held.container, &held.request) {
                self.connections[index].held = Some(held);
                return self.stall(index, stall);
            }
            if !has_taken {
                has_taken = true;
                self.connections[index].stalled_at = None;
            }
            left.take(append_bytes(&held.request));
            self.dispatch(now, index, held);
            if !self.effects.is_empty() {
                self.perform();
            }
        }
    }

    /// What the connection must wait for whatever it asks.
    fn own_stall(&self, index: SlotIndex) -> Option<Stall> {
        let slot = &self.connections[index];
        if slot.unsent + slot.connection.outbox_bytes() >= self.unsent_bytes_max() {
            return Some(Stall::Unsent);
        }
        // A held request is counted already.
        let outstanding =
            slot.connection.outstanding().saturating_sub(usize::from(slot.held.is_some()));
        (outstanding >= self.config.outstanding_max).then_some(Stall::Outstanding)
    }

    /// What a request must wait for.
    pub(crate) fn gate(&self, container: ContainerId, request: &Request) -> Option<Stall> {
        let shard = self.config.placement.shard(container);
        if shard != self.config.shard {
            return match self.config.forwarding {
                Forwarding::WrongHost => None,
                Forwarding::Mailbox => self.post.is_full(shard).then_some(Stall::Mail(shard)),
            };
        }
        match demand(request) {
            Demand::Nothing => None,
            Demand::Growth | Demand::Entries if !self.has_room_for(request) => Some(Stall::Room),
            Demand::Change | Demand::State if self.is_room_scarce() => Some(Stall::Reserve),
            Demand::Entries | Demand::State | Demand::Session if self.is_state_full => {
                Some(Stall::State)
            }
            Demand::Session => None,
            Demand::Growth | Demand::Entries | Demand::Release | Demand::Change | Demand::State => {
                self.is_accepted_full().then_some(Stall::Accepted)
            }
        }
    }

    /// What the journal still takes behind all that was accepted, bytes.
    fn free_bytes(&self) -> u64 {
        self.room_bytes.saturating_sub(self.engine.unsubmitted_bytes() as u64)
    }

    /// Whether appends have to wait.
    pub(crate) fn is_room_short(&self) -> bool {
        self.free_bytes() < self.config.limits.journal_reserve_bytes
    }

    /// Whether what is left of the reserve is for what makes room.
    fn is_room_scarce(&self) -> bool {
        self.free_bytes() < self.config.limits.journal_reserve_bytes / 4
    }

    /// Whether the reserve is left behind a request that grows the journal.
    fn has_room_for(&self, request: &Request) -> bool {
        let needed = append_bytes(request) as u64;
        self.free_bytes() >= self.config.limits.journal_reserve_bytes.saturating_add(needed)
    }

    fn is_accepted_full(&self) -> bool {
        self.engine.accepted_bytes() >= self.config.limits.accepted_bytes_max
    }

    fn dispatch(&mut self, now: Now, index: SlotIndex, held: Held) {
        let Held { container, token, request } = held;
        let shard = self.config.placement.shard(container);
        if shard == self.config.shard {
            return self.ask_engine(now, container, token, request);
        }
        match self.config.forwarding {
            Forwarding::WrongHost => {
                self.counters.wrong_hosts += 1;
                let effect = match request.segment() {
                    Some(segment) => {
                        let refusal = Refusal::WrongContainer { segment: segment.clone() };
                        Effect::Reply { token, reply: Err(refusal) }
                    }
                    // Its set-up was refused just now.
                    None => Effect::Close { token, reason: CloseReason::NoSession },
                };
                self.effects.push(effect);
            }
            Forwarding::Mailbox => {
                self.counters.forwarded += 1;
                let forwarded = &mut self.connections[index].forwarded;
                if !forwarded.contains(&shard) {
                    forwarded.push(shard);
                }
                self.send_mail(shard, Mail::Request { container, token, request });
            }
        }
    }

    /// Hands a request of this shard or another to the engine.
    pub(crate) fn ask_engine(
        &mut self,
        now: Now,
        container: ContainerId,
        token: Token,
        request: Request,
    ) {
        self.counters.requests += 1;
        if let Request::Append(append) = &request {
            self.counters.appends += 1;
            self.counters.events += u64::from(append.event_count);
            self.counters.append_bytes += append_bytes(&request) as u64;
        }
        self.engine.request(now, container, token, request, &mut self.effects);
    }

    /// Puts a connection in the queue of those to handle.
    pub(crate) fn make_ready(&mut self, index: SlotIndex) {
        let slot = &mut self.connections[index];
        slot.stall = None;
        if !slot.is_ready && !slot.is_closing {
            slot.is_ready = true;
            self.ready.push_back(slot.connection.id());
        }
    }

    pub(crate) fn stall(&mut self, index: SlotIndex, stall: Stall) {
        let slot = &mut self.connections[index];
        slot.stall = Some(stall);
        if !stall.is_own() {
            slot.stalled_at.get_or_insert(self.now);
        }
        let id = slot.connection.id();
        let stalls = &mut self.counters.stalls;
        match stall {
            Stall::Room => {
                stalls.room += 1;
                self.stalled.room.push_back(id);
            }
            Stall::Reserve => {
                stalls.room += 1;
                self.stalled.reserve.push_back(id);
            }
            Stall::State => {
                stalls.state += 1;
                self.stalled.state.push_back(id);
            }
            Stall::Accepted => {
                stalls.accepted += 1;
                self.stalled.accepted.push_back(id);
            }
            Stall::Mail(_) => {
                stalls.mail += 1;
                self.stalled.mail.push_back(id);
            }
            Stall::Memory => {
                stalls.memory += 1;
                self.stalled.memory.push_back(id);
            }
            Stall::Unsent => stalls.unsent += 1,
            Stall::Outstanding => stalls.outstanding += 1,
        }
    }

    /// Makes ready whom an open gate lets go on. Those that it stops again join the end of their
    /// queue, so everyone gets a share.
    pub(crate) fn wake_stalled(&mut self) {
        if !self.is_room_short() {
            let waiting = std::mem::take(&mut self.stalled.room);
            self.wake(waiting);
        }
        if !self.is_room_scarce() {
            let waiting = std::mem::take(&mut self.stalled.reserve);
            self.wake(waiting);
        }
        if !self.is_state_full {
            let waiting = std::mem::take(&mut self.stalled.state);
            self.wake(waiting);
        }
        if !self.is_accepted_full() {
            let waiting = std::mem::take(&mut self.stalled.accepted);
            self.wake(waiting);
        }
        if !self.stalled.mail.is_empty() && self.post.has_drained() {
            let waiting = std::mem::take(&mut self.stalled.mail);
            self.wake(waiting);
        }
    }

    fn wake(&mut self, waiting: VecDeque<ConnectionId>) {
        for id in waiting {
            if let Some(index) = self.connections.find(id) {
                self.make_ready(index);
            }
        }
    }

    /// Closes a connection behind everything queued for it.
    pub(crate) fn close_connection(&mut self, index: SlotIndex, cause: CloseCause) {
        let slot = &mut self.connections[index];
        if slot.is_closing {
            return;
        }
        self.send_output(index);
        let slot = &mut self.connections[index];
        slot.is_closing = true;
        slot.held = None;
        slot.stall = None;
        slot.buffer = BytesMut::new();
        let id = slot.connection.id();
        self.counters.count_close(cause);
        self.env.network().close(id);
    }
}

fn demand(request: &Request) -> Demand {
    match request {
        Request::Append(_) => Demand::Growth,
        Request::TableUpdate { segment, .. } if !segment.as_str().starts_with(SYSTEM_SCOPE) => {
            Demand::Entries
        }
        Request::Create(create) if !create.segment.as_str().starts_with(SYSTEM_SCOPE) => {
            Demand::State
        }
        Request::CreateTransient { .. } | Request::UpdateAttribute { .. } => Demand::State,
        Request::SetupAppend { .. } => Demand::Session,
        // The tables of users are dealt with above.
        Request::TableUpdate { .. }
        | Request::Create(_)
        | Request::TableRemove { .. }
        | Request::Truncate { .. }
        | Request::Delete { .. }
        // Clients must seal a stream before they may delete it. A segment is sealed once.
        | Request::Seal { .. } => Demand::Release,
        Request::Merge { .. }
        | Request::MergeBatch { .. }
        | Request::UpdatePolicy { .. } => Demand::Change,
        Request::Read { .. }
        | Request::Info { .. }
        | Request::Attribute { .. }
        | Request::TableInfo { .. }
        | Request::TableGet { .. }
        | Request::TableIterate { .. }
        | Request::TableDelta { .. } => Demand::Nothing,
    }
}

/// Bytes that a request brings; what a turn's budget and the counters speak of.
fn append_bytes(request: &Request) -> usize {
    match request {
        Request::Append(append) => append.data.iter().map(Bytes::len).sum(),
        Request::TableUpdate { entries, .. } => {
            entries.iter().map(|entry| entry.key.key.len() + entry.value.len()).sum()
        }
        _ => 0,
    }
}
