//! One shard: a thread's worth of containers with their connections, driven in turns.
//!
//! [`Shard::turn`] collects what the journal, the network and the other shards have completed,
//! hands requests to the engine, seals a frame when the journal takes one, carries out the engine's
//! effects and asks for more input where there is room for it. It never blocks, recovery excepted,
//! reads no clock but the environment's, and is the same code in production and in simulation:
//! everything outside comes through [`thalweg_core::env::Env`].
//!
//! It keeps true: nothing reaches a client but what the engine released; a connection is received
//! from only when what it may send can be held; a request that cannot go on now waits with its
//! connection and in its order.

mod arm;
mod boot;
mod budget;
mod config;
mod connections;
mod counters;
mod gate;
mod mailbox;
mod patience;
mod perform;
mod status;
mod stop;
mod trim;
mod turn;

pub use config::{Config, Forwarding, Patience, TurnBudget};
pub use counters::{Counters, Stalls};
pub use status::{Gauge, Health, Quarantined, Status};
pub use thalweg_net::{CloseCause, ConnectionLimits, Placement};
pub use turn::{Shard, TurnOutcome};
