//! Whether a thread of a simulated process still lives.
//!
//! A thread dies at once or between two of its effects (an operation for the disk, bytes for a
//! connection); whatever it does after that reaches nobody, until the world notices.

use std::cell::Cell;
use std::rc::Rc;

/// A shared handle to the life of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    is_alive: Rc<Cell<bool>>,
    /// Effects until it ends.
    fuse: Rc<Cell<Option<u64>>>,
}

impl Life {
    /// A life that does not end by itself.
    pub(crate) fn new() -> Self {
        Self { is_alive: Rc::new(Cell::new(true)), fuse: Rc::new(Cell::new(None)) }
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive.get()
    }

    /// Lets it end with the effect of this number from now on; 0: not by itself.
    pub(crate) fn set_fuse(&self, effects: u64) {
        self.fuse.set((effects > 0).then_some(effects));
    }

    /// One effect more has happened.
    pub(crate) fn spend(&self) {
        let Some(left) = self.fuse.get() else { return };
        self.fuse.set(Some(left.saturating_sub(1)));
        if left <= 1 {
            self.end();
        }
    }

    /// It ends.
    pub(crate) fn end(&self) {
        self.is_alive.set(false);
        self.fuse.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fuse burns down with each effect and ends the life once.
    #[test]
    fn a_fuse_ends_a_life() {
        let life = Life::new();
        life.spend();
        assert!(life.is_alive());
        life.set_fuse(2);
        life.spend();
        assert!(life.is_alive());
        life.spend();
        assert!(!life.is_alive());
    }
}
