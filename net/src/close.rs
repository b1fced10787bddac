//! Why a connection has to be closed without a reply, in words for a log and as a cause to count.

use thalweg_wire::{BlockViolation, DecodeError};

/// A client broke the protocol in a way that has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// Bytes that are no command.
    #[error("malformed command")]
    Malformed(#[from] DecodeError),
    /// Its wire versions and ours have none in common.
    #[error("client speaks wire versions {low} to {high}")]
    Version {
        /// Lowest that it accepts.
        low: i32,
        /// Highest that it speaks.
        high: i32,
    },
    /// A reply, a piece of segment data, or a command of the administration port.
    #[error("{name} is not served here")]
    NotServed {
        /// The command.
        name: &'static str,
    },
    /// An append of a writer that was not set up on this connection.
    #[error("append of writer {writer:032x} before its set-up")]
    NoSession {
        /// The writer.
        writer: u128,
    },
    /// The rules of append blocks are broken.
    #[error("append block")]
    Block(#[from] BlockViolation),
    /// A field has a value that no client sends.
    #[error("{name}: {argument} out of range")]
    Argument {
        /// The command.
        name: &'static str,
        /// The field.
        argument: &'static str,
    },
    /// More append sessions than one connection may have.
    #[error("more than {sessions_max} append sessions")]
    TooManySessions {
        /// The bound.
        sessions_max: usize,
    },
    /// The first command of a connection is larger than a stranger may send.
    #[error("first command of over {bytes_max} bytes")]
    FirstCommand {
        /// The bound.
        bytes_max: usize,
    },
    /// An event is larger than any client's largest.
    #[error("event of {bytes} bytes, over {bytes_max}")]
    EventBytes {
        /// Its bytes, header included.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// What to count a closed connection under. The first ones are for [`Close`], the others for what a
/// shard decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseCause {
    /// [`Close::Malformed`].
    Malformed,
    /// [`Close::Version`].
    Version,
    /// [`Close::NotServed`].
    NotServed,
    /// [`Close::NoSession`], or a session that ended.
    NoSession,
    /// [`Close::Block`].
    Block,
    /// [`Close::Argument`], or a request with a value that only the container could judge.
    Argument,
    /// [`Close::TooManySessions`], or too many connections, parked reads or unread replies.
    Limit,
    /// An event number that is not above the last one.
    EventNumber,
    /// The container cannot answer.
    Unavailable,
    /// The journal failed, or the shard is not serving.
    Down,
    /// The shard stops.
    Stop,
    /// The client, or an error of the link.
    Peer,
    /// [`Close::FirstCommand`], or no first command in time.
    FirstCommand,
    /// [`Close::EventBytes`].
    EventBytes,
    /// A frame that was begun did not get on.
    SlowSender,
    /// Replies that the client did not take.
    SlowReceiver,
    /// A command waited too long for room, memory or answers.
    Stalled,
    /// Nothing was heard of the client for too long.
    Silent,
}

impl CloseCause {
    /// How many there are.
    pub const COUNT: usize = 18;

    /// All, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::Version,
        Self::NotServed,
        Self::NoSession,
        Self::Block,
        Self::Argument,
        Self::Limit,
        Self::EventNumber,
        Self::Unavailable,
        Self::Down,
        Self::Stop,
        Self::Peer,
        Self::FirstCommand,
        Self::EventBytes,
        Self::SlowSender,
        Self::SlowReceiver,
        Self::Stalled,
        Self::Silent,
    ];

    /// A label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::NotServed => "not_served",
            Self::NoSession => "no_session",
            Self::Block => "block",
            Self::Argument => "argument",
            Self::Limit => "limit",
            Self::EventNumber => "event_number",
            Self::Unavailable => "unavailable",
            Self::Down => "down",
            Self::Stop => "stop",
            Self::Peer => "peer",
            Self::FirstCommand => "first_command",
            Self::EventBytes => "event_bytes",
            Self::SlowSender => "slow_sender",
            Self::SlowReceiver => "slow_receiver",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
        }
    }
}

impl Close {
    /// What to count it under.
    pub const fn cause(&self) -> CloseCause {
        match self {
            Self::Malformed(_) => CloseCause::Malformed,
            Self::Version { .. } => CloseCause::Version,
            Self::NotServed { .. } => CloseCause::NotServed,
            Self::NoSession { .. } => CloseCause::NoSession,
            Self::Block(_) => CloseCause::Block,
            Self::Argument { .. } => CloseCause::Argument,
            Self::TooManySessions { .. } => CloseCause::Limit,
            Self::FirstCommand { .. } => CloseCause::FirstCommand,
            Self::EventBytes { .. } => CloseCause::EventBytes,
        }
    }
}
