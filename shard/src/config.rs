//! What a shard is told at start. Limits of the engine and of a connection are their own.

use std::time::Duration;

use thalweg_core::id::ShardId;
use thalweg_core::limits::Limits;
use thalweg_net::{ConnectionLimits, Placement};

/// What to do with a request for a container of another shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// Refuse it with WrongHost: the client asks again where the segment lives.
    #[default]
    WrongHost,
    /// Forward it by mailbox: one port serves all shards.
    Mailbox,
}

/// What one turn may take before it looks at its completions again.
#[derive(Clone, Copy, Debug)]
pub struct TurnBudget {
    /// Commands. Default 4,096: about a millisecond.
    pub commands: usize,
    /// Bytes of appends. Default 4 MiB: four full frames, as many as may be in flight.
    pub bytes: usize,
}

impl Default for TurnBudget {
    fn default() -> Self {
        Self { commands: 4096, bytes: 4 << 20 }
    }
}

/// How long a connection may stand still before it is closed, by what does not get on. Looked at
/// once a second, so each takes up to a second longer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From accept to the first whole command. Default 10 s.
    pub first_command: Duration,
    /// A frame that has begun: between two pieces of it, or for the whole when it comes slower than
    /// 16 KiB/s. Default 30 s.
    pub frame: Duration,
    /// Replies of which the client takes nothing. Default 30 s.
    pub replies: Duration,
    /// A command that waits for room, memory or answers. Default 30 s.
    pub stall: Duration,
    /// A client that waits for an answer, or was heard to send keep-alives, and says nothing.
    /// Default 60 s: such clients speak every 20 to 40 s, or give up on their own after 30 s.
    pub silence: Duration,
    /// A client that is owed nothing and says nothing. Default 600 s: clients without keep-alives
    /// keep idle connections for later use, and dead hosts are found by the kernel's probes.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_command: Duration::from_secs(10),
            frame: Duration::from_secs(30),
            replies: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            idle: Duration::from_secs(600),
        }
    }
}

/// A shard's settings, fixed while it lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which shard this is.
    pub shard: ShardId,
    /// How containers are divided.
    pub placement: Placement,
    /// Bounds of the engine.
    pub limits: Limits,
    /// Bounds of one connection.
    pub connection: ConnectionLimits,
    /// What to do with requests for other shards.
    pub forwarding: Forwarding,
    /// What one turn may take.
    pub turn: TurnBudget,
    /// Commands of one connection before others get their turn. Default 512: who sends many small
    /// ones takes a tenth of a millisecond at a time.
    pub commands_at_once: usize,
    /// Connections at a time; more are closed at once. Default 10,000.
    pub connections_max: usize,
    /// Reply bytes that a client has not taken at which its commands wait. Default 16 MiB.
    pub unsent_bytes_max: usize,
    /// Reply bytes that a client has not taken at which it is closed. Only reads that were waiting
    /// for the journal can lead from the one to the other. Default 256 MiB.
    pub unsent_bytes_close: usize,
    /// Reply bytes that all clients together have not taken. The nearer they are to it, the fewer
    /// each of them may have before its commands wait; above it, whoever has more than that is
    /// closed. Default 128 MiB.
    pub unsent_bytes_total: usize,
    /// Memory of what clients make the shard remember (segments, attributes of writers, table
    /// entries, sessions, parked reads), bytes, at which whatever adds to it waits. Default
    /// 256 MiB.
    pub state_bytes_max: usize,
    /// Requests without an answer, parked reads among them, at which a connection's commands wait.
    /// Default 8,192: clients put the readers of many segments on one connection.
    pub outstanding_max: usize,
    /// Memory for receiving beyond the smallest buffer of each connection, bytes. A frame that does
    /// not fit the smallest buffer is granted whole or waits. At least the largest frame. Default
    /// 128 MiB.
    pub receive_bytes: usize,
    /// Longest that a connection may hold such a grant without sending while others wait. Default
    /// 30 s.
    pub receive_patience: Duration,
    /// Least time between two looks at which journal files can go. Default 1 s.
    pub trim_interval: Duration,
    /// How long connections may stand still.
    pub patience: Patience,
    /// Longest that a stop waits for frames in flight, so that the whole of it takes less than 10
    /// s. Default 8 s.
    pub stop_patience: Duration,
    /// Recoveries in place after a journal failure before the shard counts as given up: it then
    /// tries only now and then. Default 10.
    pub boot_attempts: u32,
    /// Pause after the first failed recovery; it doubles each time. Default 100 ms.
    pub boot_delay: Duration,
    /// Pause between recoveries of a shard that gave up. Default 30 s.
    pub boot_retry: Duration,
}

impl Config {
    /// The defaults for one shard.
    pub fn new(shard: ShardId, placement: Placement) -> Self {
        Self {
            shard,
            placement,
            limits: Limits::default(),
            connection: ConnectionLimits::default(),
            forwarding: Forwarding::default(),
            turn: TurnBudget::default(),
            commands_at_once: 512,
            connections_max: 10_000,
            unsent_bytes_max: 16 << 20,
            unsent_bytes_close: 256 << 20,
            unsent_bytes_total: 128 << 20,
            state_bytes_max: 256 << 20,
            outstanding_max: 8192,
            receive_bytes: 128 << 20,
            receive_patience: Duration::from_secs(30),
            trim_interval: Duration::from_secs(1),
            patience: Patience::default(),
            stop_patience: Duration::from_secs(8),
            boot_attempts: 10,
            boot_delay: Duration::from_millis(100),
            boot_retry: Duration::from_secs(30),
        }
    }

    /// # Panics
    /// When a bound contradicts another, so that a shard could stand still.
    pub(crate) fn check(&self) {
        assert!(
            self.receive_bytes >= self.connection.frame_bytes_max,
            "the largest frame can come"
        );
        assert!(self.unsent_bytes_close >= self.unsent_bytes_max, "waiting comes before closing");
        assert!(self.turn.commands > 0, "a turn does something");
        assert!(self.outstanding_max > 0, "a connection may ask something");
        assert!(self.connection.receive_bytes_min >= 16, "a frame header fits the smallest buffer");
        assert!(self.shard.0 < self.placement.shards(), "the shard is one of those placed");
    }
}
