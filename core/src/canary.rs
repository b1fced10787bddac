//! Planted bugs, to show that the simulator catches them. Without the feature `canary` none can be
//! planted and the questions vanish from the code.
//!
//! Each names a rule of the product that somebody might break. A bug is planted per thread, by
//! `plant`; the places that obey the rule ask [`has`].

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The journal reports frames durable when they are written, not when they are synced.
    AckBeforeSync,
    /// A frame is written and its file synced at the same time, and not one after the other.
    SyncBesideWrites,
    /// Names of files are not synced before the files are relied on.
    DirectoryNotSynced,
    /// The journal takes any bad record for its end.
    CutAcknowledgedTail,
    /// The journal does not look at payload checksums.
    SkipPayloadChecksum,
    /// Recovery does not look at the epoch of a record.
    NoEpochInRecords,
    /// After a cut no record of a new epoch is written, and records are not tied to their
    /// predecessors: what was cut comes back.
    StaleBytesRevived,
    /// A writer's event number is forgotten when it is set up on another connection.
    DedupeByConnection,
    /// The engine does not restore event numbers after a restart.
    ForgetEventNumberOverRestart,
    /// A short write counts as a whole one.
    ShortWriteIgnored,
    /// A failed sync is asked for again, and its success believed.
    SyncRetriedAfterError,
    /// A merge leaves out the end of its source.
    MergeDropsLastAppend,
    /// Appends are taken while a seal is not durable yet.
    SealMissesInFlight,
    /// A key that is removed and put again gets the version that it had.
    TableVersionReused,
    /// A container that does not serve says that there is no such segment.
    NoSuchSegmentWhileRecovering,
    /// Bytes are served before they are durable.
    VisibleBeforeDurable,
    /// Readers at the tail are not woken by appends.
    TailReadersForgotten,
}

impl Canary {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AckBeforeSync,
        Self::SyncBesideWrites,
        Self::DirectoryNotSynced,
        Self::CutAcknowledgedTail,
        Self::SkipPayloadChecksum,
        Self::NoEpochInRecords,
        Self::StaleBytesRevived,
        Self::DedupeByConnection,
        Self::ForgetEventNumberOverRestart,
        Self::ShortWriteIgnored,
        Self::SyncRetriedAfterError,
        Self::MergeDropsLastAppend,
        Self::SealMissesInFlight,
        Self::TableVersionReused,
        Self::NoSuchSegmentWhileRecovering,
        Self::VisibleBeforeDurable,
        Self::TailReadersForgotten,
    ];

    /// The canary of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|canary| format!("{canary:?}") == name)
    }
}

#[cfg(feature = "canary")]
mod planted {
    use std::cell::Cell;

    use super::Canary;
    use crate::id::NULL_ATTRIBUTE_VALUE;
    use crate::operation::Operation;

    thread_local! {
        static PLANTED: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Plants a bug in what runs on this thread, or none.
    pub fn plant(canary: Option<Canary>) {
        PLANTED.set(canary);
    }

    /// Whether this bug is planted on this thread.
    pub fn has(canary: Canary) -> bool {
        PLANTED.get() == Some(canary)
    }

    /// The operation as a replay takes it that does not restore event numbers.
    pub(crate) fn replayed(operation: Operation<'_>) -> Operation<'_> {
        match operation {
            Operation::Append(mut append) if has(Canary::ForgetEventNumberOverRestart) => {
                append.event_number = NULL_ATTRIBUTE_VALUE;
                Operation::Append(append)
            }
            other => other,
        }
    }
}

#[cfg(feature = "canary")]
pub(crate) use planted::replayed;
#[cfg(feature = "canary")]
pub use planted::{has, plant};

/// No bug can be planted.
#[cfg(not(feature = "canary"))]
#[inline(always)]
pub const fn has(_canary: Canary) -> bool {
    false
}
