//! What a power cut keeps, and what it did.

/// What happens to that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it is lost.
    DropAll,
    /// All of it is kept, as when only the process died.
    KeepAll,
    /// The seed decides per file and directory: all, none, whole writes in any order, a prefix with
    /// a torn end, or any subset of the sectors.
    Seeded(u64),
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// Writes that were not synced.
    pub pending_writes: u64,
    /// Of these, kept whole.
    pub kept_writes: u64,
    /// Of these, kept in part.
    pub torn_writes: u64,
    /// Of these, lost.
    pub lost_writes: u64,
    /// Changes of directories that were not synced.
    pub pending_names: u64,
    /// Of these, kept.
    pub kept_names: u64,
    /// Reads, writes and syncs that were under way and are not answered any more.
    pub unanswered: u64,
}

impl std::ops::AddAssign for CutReport {
    fn add_assign(&mut self, other: Self) {
        self.pending_writes += other.pending_writes;
        self.kept_writes += other.kept_writes;
        self.torn_writes += other.torn_writes;
        self.lost_writes += other.lost_writes;
        self.pending_names += other.pending_names;
        self.kept_names += other.kept_names;
        self.unanswered += other.unanswered;
    }
}
