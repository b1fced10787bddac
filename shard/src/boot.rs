//! Recovery, at start and in place after the journal failed.
//!
//! After a failure nothing accepted counts that was not reported durable: all connections are
//! closed, the engine is dropped with everything it knew, and the journal says what is. Clients
//! reconnect and ask. Attempts are bounded; a shard that gave up keeps closing what connects and
//! says why.

use std::time::Duration;

use thalweg_core::engine::Engine;
use thalweg_core::env::Env;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::journal::Journal;
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::id::ContainerId;
use thalweg_core::request::Effect;
use thalweg_core::time::{Instant, Now};
use thalweg_net::CloseCause;
use tracing::{error, info};

use crate::config::Config;
use crate::turn::Shard;

/// Longest pause between two recoveries.
const BOOT_DELAY_MAX: Duration = Duration::from_secs(10);

/// Whether the shard serves.
#[derive(Debug)]
pub(crate) enum State {
    /// It does.
    Serving,
    /// The journal failed; the next recovery is due.
    Down { attempt: u32, due: Instant, fault: Fault },
    /// No more attempts.
    GaveUp { fault: Fault },
    /// Stopping: what is in flight is finished until then.
    Stopping { until: Instant },
    /// Stopping: every connection was told; their ends are awaited.
    Closing,
}

impl<E: Env> Shard<E> {
    /// Recovers the journal of `env` and opens the containers of `config.shard`. Blocks.
    ///
    /// # Errors
    /// When the journal cannot be served at all; the process should not go on.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    pub fn boot(mut env: E, config: Config) -> Result<Self, Fault> {
        config.check();
        let mut effects = Vec::new();
        let engine = recover(&mut env, &config, &mut effects)?;
        let mut shard = Self::new(env, config, engine, effects);
        shard.counters.boots += 1;
        shard.perform();
        Ok(shard)
    }

    /// Why the shard does not serve: the journal's fault, while it recovers and for good after it
    /// gave up.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.state {
            State::Down { fault, .. } | State::GaveUp { fault } => Some(fault),
            State::Serving | State::Stopping { .. } | State::Closing => None,
        }
    }

    /// Whether requests are answered; also while stopping, until everything in flight is done.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, State::Serving | State::Stopping { .. })
    }

    /// The journal failed: forget everything and recover.
    pub(crate) fn fail(&mut self, now: Now, fault: Fault) {
        self.counters.journal_failures += 1;
        error!(shard = self.config.shard.0, %fault, "journal failed, recovering in place");
        let was_stopping = self.is_stopping();
        self.close_all(CloseCause::Down);
        self.disappoint_peers();
        self.ready.clear();
        self.stalled.clear();
        self.trim.forget();
        self.engine = new_engine(&self.config);
        self.state = if was_stopping {
            State::Closing
        } else if fault.class == FaultClass::Fenced {
            State::GaveUp { fault }
        } else {
            State::Down { attempt: 0, due: now.monotonic, fault }
        };
    }

    /// Recovers if that is due.
    pub(crate) fn boot_again(&mut self, now: Now) {
        let State::Down { attempt, due, .. } = self.state else { return };
        if now.monotonic < due {
            return;
        }
        match recover(&mut self.env, &self.config, &mut self.effects) {
            Ok(engine) => {
                self.engine = engine;
                self.state = State::Serving;
                self.counters.boots += 1;
                info!(shard = self.config.shard.0, attempt, "serving again");
                self.perform();
            }
            Err(fault) => {
                let attempt = attempt + 1;
                let is_last =
                    attempt >= self.config.boot_attempts || fault.class == FaultClass::Fenced;
                error!(shard = self.config.shard.0, attempt, is_last, %fault, "recovery failed");
                let doublings = (attempt - 1).min(16);
                let delay = (self.config.boot_delay * (1 << doublings)).min(BOOT_DELAY_MAX);
                self.state = if is_last {
                    State::GaveUp { fault }
                } else {
                    State::Down { attempt, due: now.monotonic.after(delay), fault }
                };
            }
        }
    }

    pub(crate) fn state_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Down { due, .. } => Some(due),
            State::Stopping { until } => Some(until),
            State::Serving | State::GaveUp { .. } | State::Closing => None,
        }
    }

    pub(crate) fn close_all(&mut self, cause: CloseCause) {
        for index in self.connections.indexes() {
            self.close_connection(index, cause);
        }
    }
}

fn new_engine(config: &Config) -> Engine {
    let containers: Vec<ContainerId> = config.placement.containers_of(config.shard).collect();
    Engine::new(config.shard, &containers, config.limits.clone())
}

/// Both passes over the journal, into a new engine.
fn recover<E: Env>(
    env: &mut E,
    config: &Config,
    effects: &mut Vec<Effect>,
) -> Result<Engine, Fault> {
    let mut engine = new_engine(config);
    let opened = env.journal().recover(&mut |found| engine.recovered(found))?;
    if let Some(from) = engine.replay_start() {
        env.journal().replay(from, &mut |found| engine.replayed(found))?;
    }
    let now = env.clock().now();
    engine.open(opened, now, effects);
    info!(
        shard = config.shard.0,
        epoch = opened.epoch.0,
        next_frame = opened.next_frame.0,
        tail_cut_bytes = opened.tail_cut_bytes,
        "journal recovered"
    );
    Ok(engine)
}
