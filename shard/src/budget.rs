//! What is left of a turn's budget, and of the memory for large frames.

use crate::config::TurnBudget;

/// What is left of a turn.
#[derive(Debug)]
pub(crate) struct TurnLeft {
    commands: usize,
    bytes: usize,
}

impl TurnLeft {
    pub(crate) fn new(budget: TurnBudget) -> Self {
        Self { commands: budget.commands, bytes: budget.bytes }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.commands == 0 || self.bytes == 0
    }

    /// Commands left.
    pub(crate) fn commands(&self) -> usize {
        self.commands
    }

    /// Takes one command with `bytes` bytes of data. The last one may go over.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.commands = self.commands.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Memory for receive buffers beyond each connection's smallest.
///
/// A large frame is granted whole, so that every grant is given back once its client has sent what
/// it announced: two halves can never wait for each other. Growth for speed takes at most half.
#[derive(Debug)]
pub(crate) struct ReceiveMemory {
    total: usize,
    used: usize,
}

impl ReceiveMemory {
    pub(crate) fn new(total: usize) -> Self {
        Self { total, used: 0 }
    }

    /// Takes `bytes` for a frame that needs them; `false` when they are not there.
    #[must_use]
    pub(crate) fn grant(&mut self, bytes: usize) -> bool {
        self.take_below(bytes, self.total)
    }

    /// Takes `bytes` for a larger buffer that a busy connection could do without.
    #[must_use]
    pub(crate) fn grant_growth(&mut self, bytes: usize) -> bool {
        self.take_below(bytes, self.total / 2)
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn release(&mut self, bytes: usize) {
        self.used = self.used.checked_sub(bytes).expect("only what was granted is released");
    }

    fn take_below(&mut self, bytes: usize, limit: usize) -> bool {
        let fits = self.used.saturating_add(bytes) <= limit;
        if fits {
            self.used += bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Growth for speed leaves half of the memory to frames that need it.
    #[test]
    fn growth_leaves_half_to_large_frames() {
        let mut memory = ReceiveMemory::new(100);
        assert!(memory.grant_growth(50));
        assert!(!memory.grant_growth(1));
        assert!(memory.grant(50));
        assert!(!memory.grant(1));
        memory.release(50);
        assert!(memory.grant(50));
    }

    /// A turn ends when either of its two bounds is reached.
    #[test]
    fn a_turn_is_spent_by_commands_or_by_bytes() {
        let mut left = TurnLeft::new(TurnBudget { commands: 2, bytes: 10 });
        left.take(0);
        assert!(!left.is_spent());
        left.take(0);
        assert!(left.is_spent());
        let mut left = TurnLeft::new(TurnBudget { commands: 2, bytes: 10 });
        left.take(11);
        assert!(left.is_spent());
    }
}
