//! Recovery, at start and in place after the journal failed.
//!
//! After a failure nothing accepted counts that was not reported durable: all connections are
//! closed, the engine is dropped with everything it knew, and the journal says what is. Clients
//! reconnect and ask. After a number of attempts the shard counts as given up: it keeps closing
//! what connects, says why and what to do, and tries only now and then. A shard that was fenced
//! tries no more: another process has its journal.

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
    /// Attempts enough for now, or for good when none is due.
    GaveUp { attempt: u32, due: Option<Instant>, fault: Fault },
    /// Stopping: what is in flight is finished until then.
    Stopping { until: Instant },
    /// Stopping: every connection was told; their ends are awaited.
    Closing,
}

impl<E: Env> Shard<E> {
    /// Claims and recovers the journal of `env` and opens the containers of `config.shard`. Blocks.
    /// When a former owner of the journal may still answer, the shard is down until that is over,
    /// and recovers in a turn.
    ///
    /// # Errors
    /// When the journal cannot be served at all; the process should not go on.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    pub fn boot(mut env: E, config: Config) -> Result<Self, Fault> {
        config.check();
        let mut effects = Vec::new();
        let patience = env.journal().claim()?;
        if !patience.is_zero() {
            let now = env.clock().now().monotonic;
            let engine = new_engine(&config);
            let mut shard = Self::new(env, config, engine, effects);
            let detail = "journal was claimed, its former owner may still answer";
            let fault = Fault::new(FaultClass::Unavailable, detail);
            shard.state = State::Down { attempt: 0, due: now.after(patience), fault };
            return Ok(shard);
        }
        let engine = recover(&mut env, &config, &mut effects)?;
        let mut shard = Self::new(env, config, engine, effects);
        shard.trim.recovered(shard.engine.replay_position());
        shard.counters.boots += 1;
        shard.perform();
        Ok(shard)
    }

    /// Why the shard does not serve: the journal's fault, while it recovers and for good after it
    /// gave up.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.state {
            State::Down { fault, .. } | State::GaveUp { fault, .. } => Some(fault),
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
        self.blocked_at = None;
        self.trim.forget();
        self.engine = new_engine(&self.config);
        self.effects.clear();
        self.quarantined.clear();
        let state = if was_stopping {
            State::Closing
        } else if fault.class == FaultClass::Fenced {
            State::GaveUp { attempt: 0, due: None, fault }
        } else {
            State::Down { attempt: 0, due: now.monotonic, fault }
        };
        self.change_state(state);
    }

    /// Recovers if that is due.
    pub(crate) fn boot_again(&mut self, now: Now) {
        let (attempt, due) = match self.state {
            State::Down { attempt, due, .. } => (attempt, due),
            State::GaveUp { attempt, due: Some(due), .. } => (attempt, due),
            _ => return,
        };
        if now.monotonic < due {
            return;
        }
        match recover(&mut self.env, &self.config, &mut self.effects) {
            Ok(engine) => {
                self.engine = engine;
                self.change_state(State::Serving);
                self.trim.recovered(self.engine.replay_position());
                self.counters.boots += 1;
                info!(shard = self.config.shard.0, attempt, "serving again");
                self.perform();
            }
            Err(fault) => {
                let attempt = attempt.saturating_add(1);
                error!(shard = self.config.shard.0, attempt, %fault, "recovery failed");
                let state = self.next_attempt(now, attempt, fault);
                self.change_state(state);
            }
        }
    }

    /// What follows a failed recovery.
    fn next_attempt(&self, now: Now, attempt: u32, fault: Fault) -> State {
        let config = &self.config;
        if fault.class == FaultClass::Fenced {
            error!(
                shard = config.shard.0,
                "gave up: another process has opened the journal; stop this one"
            );
            return State::GaveUp { attempt, due: None, fault };
        }
        if attempt >= config.boot_attempts {
            error!(
                shard = config.shard.0,
                attempt,
                retry_seconds = config.boot_retry.as_secs(),
                "gave up: look at the disk of the data directory (kernel log, free space, mount); \
                 the shard serves again by itself when its journal can be read and written"
            );
            let due = Some(now.monotonic.after(config.boot_retry));
            return State::GaveUp { attempt, due, fault };
        }
        let doublings = attempt.saturating_sub(1).min(16);
        let delay = (config.boot_delay * (1 << doublings)).min(BOOT_DELAY_MAX);
        State::Down { attempt, due: now.monotonic.after(delay), fault }
    }

    /// Enters a state; its time counts from the first of several of the same kind.
    pub(crate) fn change_state(&mut self, state: State) {
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            self.state_since = self.wall;
        }
        self.state = state;
    }

    pub(crate) fn state_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Down { due, .. } => Some(due),
            State::GaveUp { due, .. } => due,
            State::Stopping { until } => Some(until),
            State::Serving | State::Closing => None,
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
