//! Every fault of a world passes here: it gets a number, a time and a count, or is held back.
//!
//! The part that would fail draws its own chance and asks [`Faults::strike`] with the outcome. Only
//! draws that came true are numbered, each kind from 0 in the order in which they came. A [`Mask`]
//! holds back faults by number or kind *after* the draw, so that a run without a fault differs from
//! the run with it by as little as can be: `minimal.rs` lives on that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use crate::clock::{Clock, MILLISECOND};
use crate::trace::{Trace, trace};

/// Declares the kinds together with the words for them.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The words of the report, which are the name of its count too.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// An operation of a disk takes long.
    DiskStall = "disk stalls",
    /// A write fails and has happened in part.
    WriteError = "EIO on write",
    /// A sync fails; what it covered may never become durable.
    SyncError = "EIO on sync",
    /// A read fails.
    ReadError = "EIO on read",
    /// A sync of the directory fails.
    DirectorySyncError = "EIO on directory sync",
    /// Another operation on the directory fails.
    DirectoryError = "EIO on directory operation",
    /// Acknowledged bytes rot at rest.
    Rot = "bits rotted",
    /// A connection breaks on both sides.
    LinkReset = "link resets",
    /// The process ends at once.
    ProcessKill = "process kills",
    /// The process ends together with the power.
    PowerCut = "power cuts",
    /// A read gives wrong bytes, once.
    WrongRead = "wrong reads",
    /// A write of a dead process lands long after its end.
    LateWrite = "late writes",
    /// Records are damaged at rest, within the promise.
    DamagedRecord = "damaged records",
    /// A connection is closed in one direction.
    HalfClose = "half-closed links",
    /// A direction of a connection is stopped up for a while.
    Clog = "clogged links",
    /// All connections break, several times in a row.
    LinkStorm = "link storms",
    /// A shard takes no turns for a while.
    FrozenShard = "frozen shards",
    /// A thread dies between two of its effects.
    CrashAtEffect = "deaths in the middle",
    /// The process is asked to stop.
    OrderlyStop = "requests to stop",
    /// A second process opens the directories of a living one.
    Takeover = "takeovers",
    /// The process ends while it recovers.
    CrashInRecovery = "crashes in recovery",
    /// Wall time jumps against monotonic time.
    WallClockJump = "wall clock jumps",
}

impl FaultKind {
    /// The kind that is called so in code.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| format!("{kind:?}") == name)
    }
}

/// One fault of a world, written `Kind:number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId {
    /// What it is.
    pub kind: FaultKind,
    /// Its place among all of its kind that were drawn, the masked ones included.
    pub number: u64,
}

impl fmt::Display for FaultId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}:{}", self.kind, self.number)
    }
}

impl FromStr for FaultId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').ok_or("expected Kind:number")?;
        let kind = FaultKind::named(kind).ok_or_else(|| format!("no kind {kind}"))?;
        let number = number.parse().map_err(|error| format!("{number}: {error}"))?;
        Ok(Self { kind, number })
    }
}

/// Which faults are held back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Faults that do not strike.
    pub without: BTreeSet<FaultId>,
    /// Kinds that do not strike.
    pub without_kinds: BTreeSet<FaultKind>,
    /// If given, nothing strikes but these.
    pub only: Option<BTreeSet<FaultId>>,
}

impl Mask {
    /// Whether a fault is held back.
    fn holds_back(&self, id: FaultId) -> bool {
        self.without.contains(&id)
            || self.without_kinds.contains(&id.kind)
            || self.only.as_ref().is_some_and(|only| !only.contains(&id))
    }
}

/// A fault that struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which it was.
    pub id: FaultId,
    /// When, in nanoseconds of virtual time.
    pub nanos: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.nanos / MILLISECOND, self.nanos % MILLISECOND);
        write!(formatter, "{whole:>6}.{part:06} ms {}", self.id)
    }
}

#[derive(Debug, Default)]
struct State {
    mask: Mask,
    drawn: BTreeMap<FaultKind, u64>,
    struck: Vec<Fault>,
    has_ended: bool,
}

/// A shared handle to the faults of a world.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    clock: Clock,
    trace: Trace,
    state: Rc<RefCell<State>>,
}

impl Faults {
    /// No faults yet.
    pub(crate) fn new(mask: Mask, clock: Clock, trace: Trace) -> Self {
        Self { clock, trace, state: Rc::new(RefCell::new(State { mask, ..State::default() })) }
    }

    /// Whether a fault happens. `is_drawn` is what chance decided; pass it also when it is false,
    /// so that the call stands where the draw stands.
    pub(crate) fn strike(&self, kind: FaultKind, is_drawn: bool) -> bool {
        if !is_drawn {
            return false;
        }
        let mut state = self.state.borrow_mut();
        if state.has_ended {
            return false;
        }
        let drawn = state.drawn.entry(kind).or_default();
        let id = FaultId { kind, number: *drawn };
        *drawn += 1;
        if state.mask.holds_back(id) {
            return false;
        }
        state.struck.push(Fault { id, nanos: self.clock.nanos() });
        self.trace.count(kind.name());
        trace!(self.trace, "fault {id}");
        true
    }

    /// From now on nothing strikes any more.
    pub(crate) fn end(&self) {
        self.state.borrow_mut().has_ended = true;
    }

    /// What struck, in order.
    pub(crate) fn struck(&self) -> Vec<Fault> {
        self.state.borrow().struck.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(mask: Mask) -> Vec<String> {
        let clock = Clock::default();
        let faults = Faults::new(mask, clock.clone(), Trace::new(clock, false));
        faults.strike(FaultKind::LinkReset, true);
        faults.strike(FaultKind::LinkReset, false);
        faults.strike(FaultKind::Rot, true);
        faults.strike(FaultKind::LinkReset, true);
        faults.end();
        faults.strike(FaultKind::Rot, true);
        faults.struck().iter().map(|fault| fault.id.to_string()).collect()
    }

    fn id(text: &str) -> FaultId {
        text.parse().expect("a fault is written so")
    }

    /// A fault that is held back keeps its number, so that the others keep theirs; after the end
    /// nothing strikes.
    #[test]
    fn masked_faults_keep_their_numbers() {
        assert_eq!(struck(Mask::default()), ["LinkReset:0", "Rot:0", "LinkReset:1"]);
        let without = Mask { without: [id("LinkReset:0")].into(), ..Mask::default() };
        assert_eq!(struck(without), ["Rot:0", "LinkReset:1"]);
        let kinds = Mask { without_kinds: [FaultKind::LinkReset].into(), ..Mask::default() };
        assert_eq!(struck(kinds), ["Rot:0"]);
        let only = Mask { only: Some([id("LinkReset:1")].into()), ..Mask::default() };
        assert_eq!(struck(only), ["LinkReset:1"]);
    }
}
