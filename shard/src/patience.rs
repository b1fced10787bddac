//! Closing connections that stand still: half-open peers, slow senders, slow receivers, commands
//! that wait too long.
//!
//! There are no timers for single connections. All of them are looked at once a second, some at a
//! time, and compared with the times that other work left in their slots anyway.

use std::time::Duration;

use thalweg_core::env::Env;
use thalweg_core::time::{Instant, Now};
use thalweg_net::CloseCause;
use tracing::debug;

use crate::config::Patience;
use crate::connections::{Slot, SlotIndex, Stall};
use crate::turn::Shard;

/// How often each connection is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Slots looked at at once: some tens of microseconds.
const SLOTS_PER_LOOK: usize = 512;

/// A frame that takes longer than the patience for its pieces must come at least this fast.
const FRAME_BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// How often a client whose commands wait is told that it is not forgotten: more often than the
/// most impatient clients ask, which is every 20 s.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(5);

/// When the next look is due, and at which slot it begins.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    due: Option<Instant>,
    next: usize,
}

impl Looks {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl<E: Env> Shard<E> {
    /// Closes connections that stood still too long, when it is time to look.
    pub(crate) fn look(&mut self, now: Now) {
        if self.connections.len() == 0 {
            self.looks.due = None;
            return;
        }
        let pause = PERIOD / u32::try_from(self.connections.looks(SLOTS_PER_LOOK)).unwrap_or(1);
        match self.looks.due {
            Some(due) if now.monotonic < due => return,
            Some(_) => {}
            None => {
                self.looks.due = Some(now.monotonic.after(pause));
                return;
            }
        }
        self.looks.due = Some(now.monotonic.after(pause));
        let (some, next) = self.connections.some(self.looks.next, SLOTS_PER_LOOK);
        self.looks.next = next;
        for index in some {
            let slot = &self.connections[index];
            let verdict = verdict(&self.config.patience, slot, now.monotonic);
            if let Some(cause) = verdict.or_else(|| self.owed_in_vain(slot)) {
                debug!(connection = slot.connection.id().0, cause = cause.label(), "closed");
                self.close_connection(index, cause);
            } else {
                self.keep_alive(index);
            }
        }
    }

    /// Whether a client waits for what the journal has had no place for, for too long: what was
    /// accepted may become durable one day, so nobody is told that it will not.
    fn owed_in_vain(&self, slot: &Slot) -> Option<CloseCause> {
        let since = self.blocked_at?;
        let is_over = self.now.since(since) > self.config.patience.stall;
        let is_owed = slot.connection.outstanding() > 0 && !slot.is_closing;
        (is_over && is_owed).then_some(CloseCause::Stalled)
    }

    /// Answers for the commands that wait: keep-alives among them, or in a socket that is not read
    /// meanwhile, cannot be. A client that sends them is told so instead.
    fn keep_alive(&mut self, index: SlotIndex) {
        let now = self.now;
        let slot = &mut self.connections[index];
        let Some(since) = slot.stalled_at.filter(|_| !slot.is_closing) else { return };
        if now.since(since.max(slot.told_at)) < KEEP_ALIVE_PERIOD {
            return;
        }
        slot.told_at = now;
        if slot.connection.keep_alive() {
            self.mark_dirty(index);
        }
    }
}

/// Why a connection has to go, if it has to.
fn verdict(patience: &Patience, slot: &Slot, now: Instant) -> Option<CloseCause> {
    if slot.is_closing {
        return None;
    }
    if !slot.connection.has_spoken() {
        let is_late = now.since(slot.accepted_at) > patience.first_command;
        return is_late.then_some(CloseCause::FirstCommand);
    }
    if slot.unsent > 0 && now.since(slot.sent_at) > patience.replies {
        return Some(CloseCause::SlowReceiver);
    }
    // Who holds the memory that this one waits for is given up first.
    let others = if slot.stall == Some(Stall::Memory) { patience.frame } else { Duration::ZERO };
    if slot.stalled_at.is_some_and(|since| now.since(since) > patience.stall + others) {
        return Some(CloseCause::Stalled);
    }
    if !slot.is_receiving {
        return None;
    }
    let silence = now.since(slot.received_at);
    let frame_bytes = slot.armed.0 as u64;
    if frame_bytes > 0 {
        let time = now.since(slot.frame_at);
        let is_slow = time > patience.frame
            && frame_bytes < time.as_secs().saturating_mul(FRAME_BYTES_PER_SECOND_MIN);
        return (silence > patience.frame || is_slow).then_some(CloseCause::SlowSender);
    }
    let bound =
        if slot.connection.is_expected_to_speak() { patience.silence } else { patience.idle };
    (silence > bound).then_some(CloseCause::Silent)
}
