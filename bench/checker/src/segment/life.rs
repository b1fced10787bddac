//! Whether a segment is there: its lives, creations and deletions, and what the end of a process
//! makes of those without an answer.

use super::{Before, Existence, SegmentState};
use crate::breach::{Verdict, hold};
use crate::record::Operation;
use crate::search::Search;
use crate::table::Table;

impl SegmentState {
    /// Something about the segment was told, so it exists.
    pub(crate) fn shows_itself(&mut self, before: &Before) -> Verdict {
        let can_be = before.existence != Existence::Absent || self.creations > 0;
        hold!(can_be, "S25", "it answers, was told to be missing, and nobody created it");
        self.existence = Existence::Exists;
        Ok(())
    }

    /// It was told that there is no such segment.
    pub(crate) fn is_missing(&mut self, before: &Before) -> Verdict {
        let can_be = before.existence != Existence::Exists || self.deletions > 0;
        hold!(can_be, "S25", "it was told to be missing, existed, and nobody deleted it");
        if self.existence == Existence::Exists || self.may_be_gone || self.length_floor() > 0 {
            self.begin_life(Existence::Absent);
        }
        self.existence = Existence::Absent;
        Ok(())
    }

    /// Its creation is asked for. When nothing else was told before, it is known from then on.
    pub(crate) fn creating(&mut self) {
        let is_untouched = self.life == 0 && self.creations == 0 && self.length_floor() == 0;
        let is_unknown = self.existence == Existence::Unsure && self.attributes.is_empty();
        if is_untouched && is_unknown && !self.is_young {
            self.is_young = true;
            self.table = Table::new(true);
            self.length = Some(Search::new(Some(0)));
        }
        self.creations += 1;
    }

    /// It was created.
    pub(crate) fn created(&mut self) -> Verdict {
        self.creations = self.creations.saturating_sub(1);
        let was_there = self.existence == Existence::Exists;
        let can_be = !was_there || self.deletions > 0;
        hold!(can_be, "S25", "it was created, existed, and nobody deleted it");
        if was_there || (self.existence == Existence::Unsure && self.may_be_gone) {
            self.begin_life(Existence::Exists);
        }
        self.existence = Existence::Exists;
        Ok(())
    }

    /// It was told to be there when it was to be created.
    pub(crate) fn is_there(&mut self, before: &Before) -> Verdict {
        let can_be = before.existence != Existence::Absent || self.creations > 0;
        hold!(can_be, "S25", "it is said to exist, was told to be missing, and nobody created it");
        self.existence = Existence::Exists;
        Ok(())
    }

    /// It was deleted.
    pub(crate) fn deleted(&mut self, before: &Before) -> Verdict {
        let can_be = before.existence != Existence::Absent || self.creations > 0;
        hold!(can_be, "S25", "it was deleted, was told to be missing, and nobody created it");
        self.begin_life(Existence::Absent);
        Ok(())
    }

    /// A creation or deletion ended without effect, or so late that it does not matter.
    pub(crate) fn ended_unfulfilled(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { .. } => self.creations = self.creations.saturating_sub(1),
            Operation::Delete { .. } => self.deletions = self.deletions.saturating_sub(1),
            _ => {}
        }
    }

    /// The process that was asked ended: what was asked of it is done or will never be.
    pub(crate) fn doom(&mut self) {
        self.doomed = (self.creations, self.deletions);
        self.attributes.values_mut().for_each(Search::doom);
        self.length.iter_mut().for_each(Search::doom);
        self.table.doom();
    }

    /// See [`Search::settle`].
    pub(crate) fn settle(&mut self) {
        let (creations, deletions) = std::mem::take(&mut self.doomed);
        let (creations, deletions) = (creations.min(self.creations), deletions.min(self.deletions));
        self.creations -= creations;
        self.deletions -= deletions;
        self.may_be_gone |= deletions > 0;
        if creations + deletions > 0 {
            self.existence = Existence::Unsure;
        }
        self.attributes.values_mut().for_each(Search::settle);
        self.length.iter_mut().for_each(Search::settle);
        self.table.settle();
    }
}
