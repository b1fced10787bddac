//! What a shard tells about itself: whether it serves and since when, which containers do not, and
//! how much of each bound is used.

use thalweg_core::env::Env;
use thalweg_core::env::journal::Journal;
use thalweg_core::id::{ContainerId, ShardId};
use thalweg_core::time::WallTime;

use crate::boot::State;
use crate::turn::Shard;

/// Whether a shard serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// Its journal failed; it recovers.
    Recovering,
    /// Recovery failed too often; it is tried now and then.
    GaveUp,
    /// It stops.
    Stopping,
}

impl Health {
    /// A word for operators.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Recovering => "recovering",
            Self::GaveUp => "gave up",
            Self::Stopping => "stopping",
        }
    }
}

/// A container that refuses to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Which.
    pub container: ContainerId,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
}

/// How much of a bound is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Used now.
    pub used: u64,
    /// The bound.
    pub bound: u64,
}

/// A shard's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which shard.
    pub shard: ShardId,
    /// Whether it serves.
    pub health: Health,
    /// Since when that is so.
    pub since: WallTime,
    /// Why it does not serve; empty when it does.
    pub reason: String,
    /// Containers that refuse.
    pub quarantined: Vec<Quarantined>,
    /// Memory for receiving beyond the smallest buffers.
    pub receive: Gauge,
    /// Reply bytes not taken by clients.
    pub unsent: Gauge,
    /// Bytes accepted and not durable.
    pub accepted: Gauge,
    /// Memory of what clients make the shard remember.
    pub state: Gauge,
    /// Connections.
    pub connections: Gauge,
    /// Connections whose next command waits for room, memory or answers.
    pub stalled: u64,
    /// Bytes that the journal still takes.
    pub journal_room_bytes: u64,
}

impl<E: Env> Shard<E> {
    /// What the state of the shard is, without the quarantined containers and bounds: cheap.
    pub fn health(&self) -> Health {
        match self.state {
            State::Serving => Health::Serving,
            State::Down { .. } => Health::Recovering,
            State::GaveUp { .. } => Health::GaveUp,
            State::Stopping { .. } | State::Closing => Health::Stopping,
        }
    }

    /// All of it.
    pub fn status(&mut self) -> Status {
        let quarantined = self.quarantined.iter().map(|(container, fault, since)| Quarantined {
            container: *container,
            reason: fault.to_string(),
            since: *since,
        });
        let gauge = |used: usize, bound: usize| Gauge { used: used as u64, bound: bound as u64 };
        let limits = &self.config.limits;
        Status {
            shard: self.config.shard,
            health: self.health(),
            since: self.state_since,
            reason: self.fault().map(ToString::to_string).unwrap_or_default(),
            quarantined: quarantined.collect(),
            receive: gauge(self.memory.used(), self.config.receive_bytes),
            unsent: gauge(self.unsent, self.config.unsent_bytes_total),
            accepted: gauge(self.engine.accepted_bytes(), limits.accepted_bytes_max),
            state: gauge(self.engine.state_bytes(), self.config.state_bytes_max),
            connections: gauge(self.connections.len(), self.config.connections_max),
            stalled: self.stalled.len() as u64,
            journal_room_bytes: self.env.journal().room_bytes(),
        }
    }
}
