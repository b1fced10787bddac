//! Virtual time: a number that the world moves forward and everybody may read.
//!
//! Nanoseconds since the start of the world. It never goes back. Wall time runs beside it and may
//! jump; only what clients are told depends on it.

use std::cell::Cell;
use std::rc::Rc;

use thalweg_core::time::{Instant, Now, WallTime};

/// One microsecond of virtual time.
pub(crate) const MICROSECOND: u64 = 1_000;
/// One millisecond of virtual time.
pub(crate) const MILLISECOND: u64 = 1_000_000;
/// One second of virtual time.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// A shared handle to the world's time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    nanos: Rc<Cell<u64>>,
    wall_jump_ms: Rc<Cell<i64>>,
}

impl Clock {
    /// Nanoseconds since the start.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos.get()
    }

    /// Moves time to `nanos`, unless it is later already.
    pub(crate) fn advance_to(&self, nanos: u64) {
        self.nanos.set(self.nanos.get().max(nanos));
    }

    /// Moves wall time against monotonic time.
    pub(crate) fn jump_wall(&self, milliseconds: i64) {
        self.wall_jump_ms.set(self.wall_jump_ms.get() + milliseconds);
    }
}

impl thalweg_core::env::clock::Clock for Clock {
    fn now(&mut self) -> Now {
        // 2001-09-09, so that wall time is as large as in life.
        let since_1970_ms = 1_000_000_000_000
            + i64::try_from(self.nanos() / MILLISECOND).expect("a run is shorter than 2^63 ms")
            + self.wall_jump_ms.get();
        Now { monotonic: Instant(self.nanos()), wall: WallTime(since_1970_ms) }
    }
}
