//! Requests, replies and refusals as values: what a connection asks of a container and what it is
//! told. The wire's commands are translated to and from these in one place (`net/translate.rs`).
//!
//! The engine answers every request exactly once, with [`Effect::Reply`], [`Effect::Appended`] or
//! [`Effect::Close`]. A reply that depends on state that is not durable yet waits until it is, so a
//! definite answer is final when it leaves.

use bytes::Bytes;

use crate::fault::Fault;
use crate::id::{AttributeId, ConnectionId, ContainerId, SegmentName, SessionId, Token, WriterId};
use crate::position::{JournalAddress, Offset};

/// What a client asks of the container that owns `segment`.
#[derive(Clone, Debug)]
pub enum Request {
    /// Registers `session` for `writer` on `segment`, superseding any other session of the same
    /// writer and segment, also of other connections. Accepted on sealed segments.
    SetupAppend {
        /// Chosen by the connection.
        session: SessionId,
        /// Whose events.
        writer: WriterId,
        /// The segment.
        segment: SegmentName,
    },
    /// Appends bytes as one atomic unit.
    Append(Append),
    /// Reads from `offset`. Parks at the tail.
    Read {
        /// The segment.
        segment: SegmentName,
        /// First byte wanted.
        offset: Offset,
        /// Most bytes wanted, already bounded by the connection.
        length: u32,
    },
    /// Properties of a segment of any kind.
    Info {
        /// The segment.
        segment: SegmentName,
    },
    /// Creates a segment.
    Create(Create),
    /// Creates a segment named after `parent` and this writer that is deleted when the asking
    /// connection closes, unless merged before. The parent need not exist.
    CreateTransient {
        /// The parent segment.
        parent: SegmentName,
        /// Part of the name.
        writer: WriterId,
    },
    /// Forbids further appends. Repeating it succeeds.
    Seal {
        /// The segment.
        segment: SegmentName,
    },
    /// Drops the bytes below `offset`.
    Truncate {
        /// The segment.
        segment: SegmentName,
        /// New start offset.
        offset: Offset,
    },
    /// Deletes a segment.
    Delete {
        /// The segment.
        segment: SegmentName,
        /// Only a table segment is meant (the protocol has a command of its own).
        kind: SegmentKind,
        /// Refuse when it is a table with entries.
        must_be_empty: bool,
    },
    /// Appends the whole content of `source` to `target` and deletes `source`, which is sealed
    /// first; attribute updates of `target` are part of the same atomic change.
    Merge {
        /// Grows.
        target: SegmentName,
        /// Disappears.
        source: SegmentName,
        /// Applied to `target`.
        attributes: Vec<AttributeUpdate>,
    },
    /// As [`Merge`](Self::Merge) for several sources in order; a source that does not exist counts
    /// as merged before.
    MergeBatch {
        /// Grows.
        target: SegmentName,
        /// Disappear.
        sources: Vec<SegmentName>,
    },
    /// Sets scale policy type and rate.
    UpdatePolicy {
        /// The segment.
        segment: SegmentName,
        /// Protocol number of the scale type.
        scale_type: i8,
        /// Target rate.
        target_rate: i32,
    },
    /// Reads one attribute.
    Attribute {
        /// The segment.
        segment: SegmentName,
        /// Which.
        attribute: AttributeId,
    },
    /// Compare-and-set of one attribute.
    UpdateAttribute {
        /// The segment.
        segment: SegmentName,
        /// Which.
        attribute: AttributeId,
        /// New value; the null value unsets.
        value: i64,
        /// Value that must be there; the null value for "not set".
        expected: i64,
    },
    /// Properties of a table segment.
    TableInfo {
        /// The table.
        segment: SegmentName,
    },
    /// Puts entries: all or none.
    TableUpdate {
        /// The table.
        segment: SegmentName,
        /// Key, value and condition of each.
        entries: Vec<TableEntry>,
        /// Length that the table segment must have, if any.
        expected_length: Option<Offset>,
    },
    /// Removes keys: all or none.
    TableRemove {
        /// The table.
        segment: SegmentName,
        /// Key and condition of each.
        keys: Vec<TableKey>,
        /// Length that the table segment must have, if any.
        expected_length: Option<Offset>,
    },
    /// Reads keys.
    TableGet {
        /// The table.
        segment: SegmentName,
        /// Which, in the order to be answered.
        keys: Vec<Bytes>,
    },
    /// One page of keys or entries.
    TableIterate {
        /// The table.
        segment: SegmentName,
        /// Most items wanted.
        count: i32,
        /// Where to go on; empty to begin.
        continuation: Bytes,
        /// Lowest key, inclusive; empty for none. Fixed-length tables only.
        from: Bytes,
        /// Highest key, inclusive; empty for none. Fixed-length tables only.
        to: Bytes,
        /// Whether values are wanted.
        items: TableItems,
    },
    /// Entries changed at or after a position.
    TableDelta {
        /// The table.
        segment: SegmentName,
        /// As an earlier reply told it; 0 for everything.
        from: i64,
        /// Most entries wanted.
        count: i32,
    },
}

impl Request {
    /// The segment that the request is about, the target of a merge; `None` for an append, which
    /// names its session instead.
    pub fn segment(&self) -> Option<&SegmentName> {
        match self {
            Self::Append(_) => None,
            Self::CreateTransient { parent, .. } => Some(parent),
            Self::Create(create) => Some(&create.segment),
            Self::Merge { target, .. } | Self::MergeBatch { target, .. } => Some(target),
            Self::SetupAppend { segment, .. }
            | Self::Read { segment, .. }
            | Self::Info { segment }
            | Self::Seal { segment }
            | Self::Truncate { segment, .. }
            | Self::Delete { segment, .. }
            | Self::UpdatePolicy { segment, .. }
            | Self::Attribute { segment, .. }
            | Self::UpdateAttribute { segment, .. }
            | Self::TableInfo { segment }
            | Self::TableUpdate { segment, .. }
            | Self::TableRemove { segment, .. }
            | Self::TableGet { segment, .. }
            | Self::TableIterate { segment, .. }
            | Self::TableDelta { segment, .. } => Some(segment),
        }
    }
}

/// One atomic append.
#[derive(Clone, Debug)]
pub struct Append {
    /// Set up before.
    pub session: SessionId,
    /// Number of the last event in `data`.
    pub event_number: i64,
    /// Number of events in it, at least 1.
    pub event_count: u32,
    /// Segment length that this append requires, if any.
    pub expected_offset: Option<Offset>,
    /// The bytes, in up to three pieces: whole events, the head of a divided one, its tail. Unused
    /// pieces are empty and last.
    pub data: [Bytes; 3],
}

/// What to create.
#[derive(Clone, Debug)]
pub struct Create {
    /// Its name; not empty.
    pub segment: SegmentName,
    /// Stream or table segment.
    pub kind: SegmentKind,
    /// Protocol number of the scale type.
    pub scale_type: i8,
    /// Target rate.
    pub target_rate: i32,
    /// Rollover size in bytes, not negative.
    pub rollover_bytes: i64,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Bytes.
    Stream,
    /// Keys and values.
    Table {
        /// 0 for keys of any length.
        key_length: u16,
    },
}

/// A change of one attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeUpdate {
    /// Which.
    pub attribute: AttributeId,
    /// How.
    pub kind: AttributeUpdateKind,
    /// New value or summand.
    pub value: i64,
    /// Expected value, for the kind that compares.
    pub expected: i64,
}

/// How an attribute changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeUpdateKind {
    /// Set only if not set.
    SetIfUnset,
    /// Set.
    Replace,
    /// Set if greater.
    ReplaceIfGreater,
    /// Add.
    Accumulate,
    /// Set if equal to the expected value.
    ReplaceIfEqual,
}

/// Condition on a key's version, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionCondition {
    /// None.
    Any,
    /// The key must not exist.
    Absent,
    /// The key must exist with exactly this version, not negative.
    Exactly(i64),
}

/// A key to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The key and its condition.
    pub key: TableKey,
    /// The value.
    pub value: Bytes,
}

/// A key with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The key, not empty.
    pub key: Bytes,
    /// What must hold.
    pub condition: VersionCondition,
}

/// What an iteration returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableItems {
    /// Keys and versions.
    Keys,
    /// Keys, versions and values.
    Entries,
}

/// A key found in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEntry {
    /// The key.
    pub key: Bytes,
    /// Its value; empty when only keys were asked for or the key is absent.
    pub value: Bytes,
    /// Its version; −1 when absent.
    pub version: i64,
}

/// A request carried out.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To [`Request::SetupAppend`]: the writer's last durable event number, or the null value.
    AppendSetup {
        /// The session set up.
        session: SessionId,
        /// Where its appends go.
        container: ContainerId,
        /// The segment.
        segment: SegmentName,
        /// Whose events.
        writer: WriterId,
        /// The number.
        last_event_number: i64,
    },
    /// To [`Request::Read`]: at least one byte, or none at the end of a sealed segment or when a
    /// parked read is given up.
    Read {
        /// The segment.
        segment: SegmentName,
        /// As asked.
        offset: Offset,
        /// The bytes, in order, in pieces that share the engine's memory where that is cheaper.
        data: Vec<Bytes>,
        /// Nothing more was there.
        at_tail: bool,
        /// The data end exactly at the final length.
        end_of_segment: bool,
    },
    /// To [`Request::Info`].
    Info {
        /// The segment.
        segment: SegmentName,
        /// Whether it is sealed.
        is_sealed: bool,
        /// Milliseconds since 1970.
        last_modified: i64,
        /// Length.
        length: Offset,
        /// Start offset.
        start_offset: Offset,
    },
    /// To [`Request::Create`] and [`Request::CreateTransient`]; with the name that was made.
    Created {
        /// The segment.
        segment: SegmentName,
    },
    /// To [`Request::Seal`].
    Sealed {
        /// The segment.
        segment: SegmentName,
    },
    /// To [`Request::Truncate`].
    Truncated {
        /// The segment.
        segment: SegmentName,
    },
    /// To [`Request::Delete`].
    Deleted {
        /// The segment.
        segment: SegmentName,
    },
    /// To [`Request::Merge`].
    Merged {
        /// Grew.
        target: SegmentName,
        /// Is gone.
        source: SegmentName,
        /// Length of the target after it.
        target_length: Offset,
    },
    /// To [`Request::MergeBatch`]: target length after each source.
    BatchMerged {
        /// Grew.
        target: SegmentName,
        /// Each source and the length after it.
        sources: Vec<(SegmentName, Offset)>,
    },
    /// To [`Request::UpdatePolicy`].
    PolicyUpdated {
        /// The segment.
        segment: SegmentName,
    },
    /// To [`Request::Attribute`]; the null value when not set.
    Attribute {
        /// The value.
        value: i64,
    },
    /// To [`Request::UpdateAttribute`], and to a merge whose attribute condition failed.
    AttributeUpdated {
        /// Whether the condition held and the change was made.
        is_updated: bool,
    },
    /// To [`Request::TableInfo`].
    TableInfo {
        /// The table.
        segment: SegmentName,
        /// Always 0 until tables are compacted.
        start_offset: Offset,
        /// Bytes ever written.
        length: Offset,
        /// Live entries.
        entry_count: u64,
        /// 0 for keys of any length.
        key_length: u16,
    },
    /// To [`Request::TableUpdate`]: one version per entry, in request order.
    TableUpdated {
        /// The versions.
        versions: Vec<i64>,
    },
    /// To [`Request::TableRemove`].
    TableRemoved {
        /// The table.
        segment: SegmentName,
    },
    /// To [`Request::TableGet`]: one entry per key, in request order.
    TableRead {
        /// The table.
        segment: SegmentName,
        /// What was found.
        entries: Vec<FoundEntry>,
    },
    /// To [`Request::TableIterate`].
    TablePage {
        /// The table.
        segment: SegmentName,
        /// What was asked for.
        items: TableItems,
        /// What was found.
        entries: Vec<FoundEntry>,
        /// Where to go on; empty when there are no items.
        continuation: Bytes,
    },
    /// To [`Request::TableDelta`].
    TableDelta {
        /// The table.
        segment: SegmentName,
        /// Changed entries with their versions.
        entries: Vec<FoundEntry>,
        /// The client must discard what it knows.
        should_clear: bool,
        /// No changes after `last_position`.
        reached_end: bool,
        /// Where to go on.
        last_position: i64,
    },
}

/// The request is understood and the answer is no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No segment of this name.
    NoSuchSegment {
        /// The name to report.
        segment: SegmentName,
        /// Requested offset of a read or truncation, else −1.
        offset: i64,
    },
    /// A segment of this name is there.
    SegmentExists {
        /// The name.
        segment: SegmentName,
    },
    /// The segment is sealed.
    SegmentSealed {
        /// The name to report.
        segment: SegmentName,
        /// Event number of an append, offset of a read, else −1.
        offset: i64,
    },
    /// The offset is below the start, or a truncation or table condition does not fit.
    SegmentTruncated {
        /// The segment.
        segment: SegmentName,
        /// Where it starts; for a failed length condition of a table, its length.
        start_offset: Offset,
        /// What was asked for.
        offset: i64,
    },
    /// A conditional append found another length. The session stays usable.
    ConditionalCheckFailed {
        /// Whose append.
        writer: WriterId,
        /// Which.
        event_number: i64,
    },
    /// The event number is not above the last one, or a newer session of this writer exists. The
    /// connection is closed behind this reply.
    InvalidEventNumber {
        /// Whose append.
        writer: WriterId,
        /// Which.
        event_number: i64,
    },
    /// The container is not here.
    WrongContainer {
        /// The segment.
        segment: SegmentName,
    },
    /// A table with entries that had to be empty.
    TableNotEmpty {
        /// The table.
        segment: SegmentName,
    },
    /// A key that had to exist does not.
    KeyDoesNotExist {
        /// The table.
        segment: SegmentName,
    },
    /// A key has another version.
    BadKeyVersion {
        /// The table.
        segment: SegmentName,
    },
    /// This kind of segment does not do that.
    Unsupported {
        /// Wire name of the operation, lower camel case.
        operation: &'static str,
    },
    /// An argument breaks a rule; nothing was done.
    IllegalArgument {
        /// The segment.
        segment: SegmentName,
        /// Which argument and why.
        message: String,
    },
}

/// Why a connection must be closed without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// An append without a set-up, or a session that ended.
    NoSession,
    /// A request that breaks the protocol in a way that has no reply.
    Protocol,
    /// The container cannot answer: damaged, recovering, or its journal failed.
    Unavailable,
    /// More reads parked than one connection, or the shard, may have.
    ParkedReads,
}

/// What the engine wants done outside.
#[derive(Debug)]
pub enum Effect {
    /// Tell a client.
    Reply {
        /// Whom.
        token: Token,
        /// What.
        reply: Result<Reply, Refusal>,
    },
    /// Tell a client that an append is durable. Acks of one session come in order; several that
    /// come together may be told as one.
    Appended {
        /// Whom; the request id is that of the append.
        token: Token,
        /// The session.
        session: SessionId,
        /// The event number that is durable.
        event_number: i64,
        /// Segment length after the append.
        length: Offset,
    },
    /// Close a connection without a reply, behind what was queued for it.
    Close {
        /// Whom; only shard and connection count.
        token: Token,
        /// Why.
        reason: CloseReason,
    },
    /// Read a frame back from the journal and hand it to the engine.
    Fetch {
        /// Which.
        address: JournalAddress,
    },
    /// A container stopped serving.
    Halt {
        /// Which.
        container: ContainerId,
        /// Why.
        fault: Fault,
    },
}

/// A connection of some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The shard that holds the socket.
    pub shard: crate::id::ShardId,
    /// The connection there.
    pub connection: ConnectionId,
}

impl From<Token> for Peer {
    fn from(token: Token) -> Self {
        Self { shard: token.shard, connection: token.connection }
    }
}
