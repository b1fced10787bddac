//! Stopping in order: nothing new is taken, what is in flight is finished and acknowledged, then
//! every connection is closed.

use thalweg_core::env::Env;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::journal::Journal;
use thalweg_core::time::Now;
use thalweg_net::CloseCause;

use crate::boot::State;
use crate::turn::Shard;

impl<E: Env> Shard<E> {
    /// Begins to stop; turns go on until [`is_stopped`](Self::is_stopped). Commands that were
    /// received and not handled are dropped unanswered, as if they had come later.
    pub fn stop(&mut self) {
        let now = self.env.clock().now();
        match self.state {
            State::Serving => {
                self.state =
                    State::Stopping { until: now.monotonic.after(self.config.stop_patience) };
            }
            State::Down { .. } | State::GaveUp { .. } => self.change_state(State::Closing),
            State::Stopping { .. } | State::Closing => {}
        }
    }

    /// Whether everything is finished and every connection gone.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Closing) && self.connections.len() == 0
    }

    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping { .. } | State::Closing)
    }

    /// At the end of a turn: closes all once nothing is in flight, or when that takes too long.
    pub(crate) fn advance_stop(&mut self, now: Now) {
        let State::Stopping { until } = self.state else { return };
        let is_idle = self.engine.accepted_bytes() == 0
            && self.effects.is_empty()
            && self.engine.next_frame_bytes().is_none()
            && self.env.journal().frames_in_flight() == 0;
        if !is_idle && now.monotonic < until {
            return;
        }
        self.ready.clear();
        self.stalled.clear();
        self.close_all(CloseCause::Stop);
        self.disappoint_peers();
        self.state = State::Closing;
    }
}
