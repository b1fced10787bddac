//! What a shard counts. Plain numbers that only grow, but for those that say "now"; the server
//! reads them between turns.

use thalweg_net::CloseCause;

/// How often a connection had to wait, by what it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Room in the journal.
    pub room: u64,
    /// Accepted bytes to become durable.
    pub accepted: u64,
    /// The client to take its replies.
    pub unsent: u64,
    /// Answers to requests before.
    pub outstanding: u64,
    /// Another shard's mailbox.
    pub mail: u64,
    /// Memory for a large frame.
    pub memory: u64,
    /// Memory for what it makes the shard remember.
    pub state: u64,
}

/// A shard's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that answers waited because the journal may have a newer owner.
    pub effects_held: u64,
    /// Turns.
    pub turns: u64,
    /// Frames submitted to the journal.
    pub frames: u64,
    /// Bytes of them, headers and padding included.
    pub frame_bytes: u64,
    /// Requests handed to the engine, mail included.
    pub requests: u64,
    /// Appends among them.
    pub appends: u64,
    /// Events in those appends.
    pub events: u64,
    /// Event bytes in them.
    pub append_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes given to the network.
    pub sent_bytes: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed, by cause, in the order of [`CloseCause::ALL`].
    pub closes: [u64; CloseCause::COUNT],
    /// Waits.
    pub stalls: Stalls,
    /// Requests refused with WrongHost.
    pub wrong_hosts: u64,
    /// Requests forwarded to other shards.
    pub forwarded: u64,
    /// Looks at which journal files can go.
    pub trims: u64,
    /// Failures of the journal.
    pub journal_failures: u64,
    /// Recoveries that ended well, the first included.
    pub boots: u64,
    /// Containers that stopped serving.
    pub halts: u64,
}

impl Counters {
    /// Connections closed for `cause`.
    pub fn closed(&self, cause: CloseCause) -> u64 {
        self.closes[cause as usize]
    }

    pub(crate) fn count_close(&mut self, cause: CloseCause) {
        self.closes[cause as usize] += 1;
    }
}
