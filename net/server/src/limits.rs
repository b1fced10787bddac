//! Every bound that an operator may want to move, as a number with a name: `--limit NAME=VALUE`.
//!
//! What the numbers do is at their places: connections at the network, a connection's bytes and
//! times at its shard, calls at the control plane. Here is only what they are called and what they
//! are when nobody says otherwise.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use crate::config::ByteSize;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Seconds,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections of the process.
    Connections,
    /// Connections of one address, loopback too.
    ConnectionsPerAddress,
    /// Connections taken in per second.
    AcceptsPerSecond,
    /// Largest first command of a connection.
    FirstCommandBytes,
    /// Time for the first command of a connection.
    FirstCommandSeconds,
    /// Largest event, header included.
    EventBytes,
    /// Time in which a frame that was begun must get on.
    FrameSeconds,
    /// Time in which a client must take some of its replies.
    RepliesSeconds,
    /// Time that a command may wait for room, memory or answers.
    StallSeconds,
    /// Silence of a client that waits for an answer or used to send keep-alives.
    SilenceSeconds,
    /// Silence of any other client.
    IdleSeconds,
    /// Reply bytes that one client has not taken at which its commands wait.
    UnsentBytes,
    /// Requests of one connection without an answer at which its commands wait.
    Outstanding,
    /// Append sessions of one connection.
    Writers,
    /// Reads of one connection parked at tails.
    TailReads,
    /// Bytes of one shard accepted and not durable at which appends wait.
    AcceptedBytes,
    /// Connections to the controller.
    ControllerConnections,
    /// Calls under way at once on one connection to the controller.
    ControllerStreams,
    /// Largest message of a call.
    ControllerMessageBytes,
    /// Largest headers of a call.
    ControllerHeaderBytes,
    /// Calls reset and not yet accepted at which a connection to the controller is closed.
    ControllerResets,
}

/// Name, unit, default; in the order of [`Limit`].
const TABLE: [(&str, Unit, u64); 21] = [
    ("connections", Unit::Count, 10_000),
    ("connections-per-address", Unit::Count, 1_000),
    ("accepts-per-second", Unit::Count, 500),
    ("first-command-bytes", Unit::Bytes, 64 << 10),
    ("first-command-seconds", Unit::Seconds, 10),
    ("event-bytes", Unit::Bytes, (8 << 20) + 8),
    ("frame-seconds", Unit::Seconds, 30),
    ("replies-seconds", Unit::Seconds, 30),
    ("stall-seconds", Unit::Seconds, 30),
    ("silence-seconds", Unit::Seconds, 60),
    ("idle-seconds", Unit::Seconds, 600),
    ("unsent-bytes", Unit::Bytes, 16 << 20),
    ("outstanding", Unit::Count, 8_192),
    ("writers", Unit::Count, 16_384),
    ("tail-reads", Unit::Count, 4_096),
    ("accepted-bytes", Unit::Bytes, 32 << 20),
    ("controller-connections", Unit::Count, 1_000),
    ("controller-streams", Unit::Count, 100),
    ("controller-message-bytes", Unit::Bytes, 4 << 20),
    ("controller-header-bytes", Unit::Bytes, 16 << 10),
    ("controller-resets", Unit::Count, 20),
];

/// The values of all bounds. All are at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    values: [u64; TABLE.len()],
}

impl Default for Limits {
    fn default() -> Self {
        Self { values: TABLE.map(|(_, _, value)| value) }
    }
}

impl Limits {
    /// The value of a bound: a count, bytes or seconds.
    pub fn get(&self, limit: Limit) -> u64 {
        self.values[limit as usize]
    }

    /// [`get`](Self::get) as a size in memory.
    pub fn size(&self, limit: Limit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }

    /// [`get`](Self::get) for interfaces of 32 bits.
    pub fn small(&self, limit: Limit) -> u32 {
        u32::try_from(self.get(limit)).unwrap_or(u32::MAX)
    }

    /// [`get`](Self::get) as a time.
    pub fn time(&self, limit: Limit) -> Duration {
        Duration::from_secs(self.get(limit))
    }

    /// Sets a bound to another value.
    pub fn set(&mut self, limit: Limit, value: u64) {
        self.values[limit as usize] = value.max(1);
    }

    /// Applies settings.
    pub fn apply(&mut self, settings: &[LimitSetting]) {
        for setting in settings {
            self.values[setting.index] = setting.value;
        }
    }

    /// Names, defaults and units, a line each.
    pub fn help() -> String {
        let mut text = String::new();
        for (name, unit, value) in TABLE {
            let value = match unit {
                Unit::Count => value.to_string(),
                Unit::Bytes => ByteSize(value).to_string(),
                Unit::Seconds => format!("{value} s"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name} [default: {value}]");
        }
        text
    }
}

/// One `NAME=VALUE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSetting {
    index: usize,
    value: u64,
}

impl FromStr for LimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no limit: write NAME=VALUE"))?;
        let name = name.trim();
        let index = TABLE
            .iter()
            .position(|(known, ..)| *known == name)
            .ok_or_else(|| format!("there is no limit {name:?}; there are:\n{}", Limits::help()))?;
        let number = match TABLE[index].1 {
            Unit::Bytes => value.parse::<ByteSize>().map(|size| size.0).map_err(|e| e.to_string()),
            Unit::Count | Unit::Seconds => {
                value.trim().parse().map_err(|_| format!("{value:?} is not a whole number"))
            }
        };
        match number.map_err(|error| format!("limit {name}: {error}"))? {
            0 => Err(format!("limit {name}: must be at least 1")),
            value => Ok(Self { index, value }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a limit is found by its name and read in its unit, and that the names stand in
    /// the order of the list.
    #[test]
    fn limits_are_set_by_name() {
        let mut limits = Limits::default();
        let settings = ["writers=7", "event-bytes=1MiB", "controller-resets=3", "idle-seconds=5"];
        let settings: Vec<LimitSetting> =
            settings.iter().map(|text| text.parse().expect("a limit")).collect();
        limits.apply(&settings);
        assert_eq!(limits.get(Limit::Writers), 7);
        assert_eq!(limits.get(Limit::EventBytes), 1 << 20);
        assert_eq!(limits.get(Limit::ControllerResets), 3);
        assert_eq!(limits.time(Limit::IdleSeconds), Duration::from_secs(5));
        assert_eq!(limits.get(Limit::Connections), 10_000);
        assert_eq!(Limit::ControllerResets as usize, TABLE.len() - 1);
    }

    /// Shows that unknown names, other units and zero are refused, with the name.
    #[test]
    fn limits_without_meaning_are_refused() {
        for text in
            ["writers", "writer=1", "writers=", "writers=-1", "writers=0", "idle-seconds=1MiB"]
        {
            let error = text.parse::<LimitSetting>().expect_err("no limit");
            assert!(error.contains(text.split('=').next().expect("a part")), "{error}");
        }
    }
}
