//! What the runtime drives: something that does its work in turns.

use thalweg_core::time::Instant;

/// What a turn left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnOutcome {
    /// Work is left that needs nothing from outside: take another turn soon.
    pub has_work_left: bool,
    /// Take another turn at this time even if nothing happens.
    pub next_deadline: Option<Instant>,
}

/// A shard, seen from its thread. Lives and dies on that thread.
pub trait Drive {
    /// Collects what happened, handles it, queues what follows. Never blocks. Called again
    /// whenever something completed, mail came, or the deadline has passed.
    fn turn(&mut self) -> TurnOutcome;

    /// The process wants to end: take no new work, finish and close what there is. Called once,
    /// before further turns.
    fn begin_stop(&mut self) {}

    /// Whether nothing is left to finish after [`begin_stop`](Self::begin_stop). Turns end then.
    fn is_stopped(&self) -> bool {
        true
    }
}
