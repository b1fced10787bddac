//! Every fault of a world passes here: it gets a number, a time and a count, or is held back.
//!
//! The part that would fail draws its own chance and asks [`Faults::strike`] with the outcome. Only
//! draws that came true are numbered, from 0 in the order in which they came. A [`Mask`] holds
//! back faults by number or kind *after* the draw, so that a run without a fault differs from the
//! run with it by as little as can be. That is what makes a list of faults minimal.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

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
            pub fn name(self) -> &'static str {
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

/// Which faults are held back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Numbers that do not strike.
    pub without: BTreeSet<u64>,
    /// Kinds that do not strike.
    pub without_kinds: BTreeSet<FaultKind>,
    /// If given, nothing strikes but these numbers.
    pub only: Option<BTreeSet<u64>>,
}

impl Mask {
    /// Whether a fault is held back.
    fn holds_back(&self, number: u64, kind: FaultKind) -> bool {
        self.without.contains(&number)
            || self.without_kinds.contains(&kind)
            || self.only.as_ref().is_some_and(|only| !only.contains(&number))
    }
}

/// A fault that struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its place among all that were drawn, the masked ones included.
    pub number: u64,
    /// What it was.
    pub kind: FaultKind,
    /// When, in nanoseconds of virtual time.
    pub nanos: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.nanos / MILLISECOND, self.nanos % MILLISECOND);
        write!(formatter, "#{} at {whole}.{part:06} ms: {:?}", self.number, self.kind)
    }
}

#[derive(Debug, Default)]
struct State {
    mask: Mask,
    drawn: u64,
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
        let number = state.drawn;
        state.drawn += 1;
        if state.mask.holds_back(number, kind) {
            return false;
        }
        state.struck.push(Fault { number, kind, nanos: self.clock.nanos() });
        self.trace.count(kind.name());
        trace!(self.trace, "fault #{number} {kind:?}");
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

    fn faults(mask: Mask) -> Faults {
        let clock = Clock::default();
        Faults::new(mask, clock.clone(), Trace::new(clock, false))
    }

    fn numbers(faults: &Faults) -> Vec<u64> {
        faults.struck().iter().map(|fault| fault.number).collect()
    }

    /// A fault that is held back keeps its number, so that the others keep theirs.
    #[test]
    fn masked_faults_keep_their_numbers() {
        let draw = |faults: &Faults| {
            faults.strike(FaultKind::LinkReset, true);
            faults.strike(FaultKind::LinkReset, false);
            faults.strike(FaultKind::Rot, true);
            faults.strike(FaultKind::LinkReset, true);
            numbers(faults)
        };
        assert_eq!(draw(&faults(Mask::default())), [0, 1, 2]);
        let without = Mask { without: [1].into(), ..Mask::default() };
        assert_eq!(draw(&faults(without)), [0, 2]);
        let kinds = Mask { without_kinds: [FaultKind::LinkReset].into(), ..Mask::default() };
        assert_eq!(draw(&faults(kinds)), [1]);
        let only = Mask { only: Some([2].into()), ..Mask::default() };
        assert_eq!(draw(&faults(only)), [2]);
    }
}
