//! Carrying out what the engine wants: frames and fetches to the journal, replies to their
//! connections or their shards. In the order queued, and nothing is dropped but what is meant for a
//! connection that is gone.

use thalweg_core::env::Env;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::journal::Journal;
use thalweg_core::env::mailbox::Mail;
use thalweg_core::env::network::Network;
use thalweg_core::id::Token;
use thalweg_core::position::JournalAddress;
use thalweg_core::request::{CloseReason, Effect, Refusal, Reply};
use thalweg_core::time::Now;
use thalweg_net::{AfterReply, CloseCause};
use tracing::{debug, error};

use crate::connections::{SlotIndex, Stall};
use crate::turn::Shard;

/// Reply bytes that a connection may always have before its commands wait.
const UNSENT_BYTES_MIN: usize = 64 << 10;

impl<E: Env> Shard<E> {
    /// Carries out all effects queued, unless somebody else may have taken the journal over: then
    /// they wait until the journal knows.
    pub(crate) fn perform(&mut self) {
        if self.effects.is_empty() {
            return;
        }
        // Not the turn's time: the process may have stood still since.
        let now = self.env.clock().now().monotonic;
        if !self.env.journal().is_owner(now) {
            self.counters.effects_held += 1;
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.perform_one(effect);
        }
        self.effects = effects;
    }

    /// Submits frames while the journal takes them: the group commit.
    pub(crate) fn seal(&mut self, now: Now) {
        self.make_room();
        while let Some(bytes) = self.engine.next_frame_bytes() {
            if !self.env.journal().can_submit(bytes) {
                if self.env.journal().frames_in_flight() == 0 {
                    self.blocked_at.get_or_insert(now.monotonic);
                }
                return;
            }
            self.blocked_at = None;
            let replay_from = self.engine.replay_position();
            let frame = self.engine.seal_frame().expect("there is a frame: its size was told");
            let number = frame.number;
            let (address, bytes) = self.env.journal().submit(frame, replay_from, now.monotonic);
            self.counters.frames += 1;
            self.counters.frame_bytes += bytes.len() as u64;
            self.trim.submitted(number, address, replay_from);
            self.engine.submitted(number, address, bytes);
        }
    }

    /// While the journal is short of room, nothing grows it, and no checkpoint would come by itself
    /// to let old files go.
    fn make_room(&mut self) {
        let is_short = self.is_room_short() || self.stalled.waits_for_room();
        if !is_short || self.env.journal().frames_in_flight() > 0 {
            return;
        }
        self.engine.hasten_checkpoints();
        let newest = self.engine.newest_file();
        let needed = self.engine.replay_position().map_or(newest, JournalAddress::file);
        // After a start it is not known what is recorded: a frame makes it known.
        let recorded = self.trim.recorded().map(JournalAddress::file).unwrap_or_default();
        if recorded < needed && self.engine.next_frame_bytes().is_none() {
            self.engine.want_frame();
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        let token = match &effect {
            Effect::Reply { token, .. }
            | Effect::Appended { token, .. }
            | Effect::Close { token, .. } => *token,
            Effect::Fetch { address } => return self.env.journal().fetch(*address),
            Effect::Halt { container, fault } => {
                self.counters.halts += 1;
                self.quarantined.retain(|(known, ..)| known != container);
                self.quarantined.push((*container, fault.clone(), self.wall));
                error!(
                    shard = self.config.shard.0,
                    container = container.0,
                    %fault,
                    "container stopped serving"
                );
                return;
            }
        };
        if let Effect::Reply { reply: Ok(reply), .. } = &effect
            && lets_go_of_bytes(reply)
        {
            self.trim.ask();
        }
        if token.shard != self.config.shard {
            return self.send_mail(token.shard, Mail::Reply(effect));
        }
        let Some(index) = self.connections.find(token.connection) else { return };
        if self.connections[index].is_closing {
            return;
        }
        match effect {
            Effect::Reply { reply, .. } => self.reply(index, token, reply),
            Effect::Appended { session, event_number, length, .. } => {
                let connection = &mut self.connections[index].connection;
                connection.appended(session, token.request, event_number, length);
                self.mark_dirty(index);
                self.wake_outstanding(index);
            }
            Effect::Close { reason, .. } => {
                debug!(connection = token.connection.0, ?reason, "connection closed");
                self.close_connection(index, close_cause(reason));
            }
            Effect::Fetch { .. } | Effect::Halt { .. } => {
                unreachable!("these were carried out above")
            }
        }
    }

    fn reply(&mut self, index: SlotIndex, token: Token, reply: Result<Reply, Refusal>) {
        let after = self.connections[index].connection.reply(token.request, reply);
        self.mark_dirty(index);
        match after {
            AfterReply::Continue => self.wake_outstanding(index),
            AfterReply::Close => self.close_connection(index, CloseCause::EventNumber),
        }
    }

    fn wake_outstanding(&mut self, index: SlotIndex) {
        if self.connections[index].stall == Some(Stall::Outstanding) {
            self.make_ready(index);
        }
    }

    pub(crate) fn mark_dirty(&mut self, index: SlotIndex) {
        let slot = &mut self.connections[index];
        if !slot.is_dirty {
            slot.is_dirty = true;
            self.dirty.push(slot.connection.id());
        }
    }

    /// Gives the network what gathered in this turn: acknowledgements of one session as one.
    pub(crate) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(index) = self.connections.find(id) else { continue };
            self.connections[index].is_dirty = false;
            if self.connections[index].is_closing {
                continue;
            }
            self.send_output(index);
            let unsent = self.connections[index].unsent;
            let is_over = self.unsent > self.config.unsent_bytes_total;
            if unsent > self.config.unsent_bytes_close
                || (is_over && unsent > self.unsent_bytes_max())
            {
                self.close_connection(index, CloseCause::SlowReceiver);
            }
        }
        self.dirty = dirty;
    }

    pub(crate) fn send_output(&mut self, index: SlotIndex) {
        let slot = &mut self.connections[index];
        slot.connection.flush();
        let (id, network) = (slot.connection.id(), self.env.network());
        let sent = slot.connection.drain(|bytes| network.send(id, bytes));
        if slot.unsent == 0 && sent > 0 {
            slot.sent_at = self.now;
        }
        slot.unsent += sent;
        self.unsent += sent;
        self.counters.sent_bytes += sent as u64;
        // It waited for its own outbox, which the network has taken.
        if slot.stall == Some(Stall::Unsent)
            && self.connections[index].unsent <= self.unsent_bytes_max() / 2
        {
            self.make_ready(index);
        }
    }

    /// Reply bytes that a connection may have before its commands wait: less when all together
    /// have much, so that a few that take nothing leave room for the others.
    pub(crate) fn unsent_bytes_max(&self) -> usize {
        let left = self.config.unsent_bytes_total.saturating_sub(self.unsent);
        (left / 4).max(UNSENT_BYTES_MIN).min(self.config.unsent_bytes_max)
    }
}

fn close_cause(reason: CloseReason) -> CloseCause {
    match reason {
        CloseReason::NoSession => CloseCause::NoSession,
        CloseReason::Protocol => CloseCause::Argument,
        CloseReason::Unavailable => CloseCause::Unavailable,
        CloseReason::ParkedReads => CloseCause::Limit,
    }
}

/// Whether journal files may be free of live bytes now.
fn lets_go_of_bytes(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Truncated { .. }
            | Reply::Deleted { .. }
            | Reply::Merged { .. }
            | Reply::BatchMerged { .. }
    )
}
