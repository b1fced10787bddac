//! What follows from operations that took no effect, and from those of unknown outcome.
//!
//! A refusal is a definite statement: it is held against what is certain like any other answer.

use super::{Checker, Open};
use crate::breach::{Verdict, breach, hold};
use crate::id::OperationId;
use crate::record::{AttributeCondition, Operation, Refusal};
use crate::register::{AttributeOutcome, LengthOutcome};

impl Checker {
    pub(super) fn refused(&mut self, id: OperationId, open: &Open, refusal: Refusal) -> Verdict {
        if let Operation::Commit { parts } = &open.operation {
            for part in parts {
                if let Some(source) = &part.source {
                    let source = self.segment(source);
                    source.deletions = source.deletions.saturating_sub(1);
                }
            }
            return Ok(());
        }
        let (Some(name), Some(before)) = (open.operation.segment(), open.before) else {
            return Ok(());
        };
        let state = self.segment(name);
        if before.life != state.life {
            self.ended_late(open);
            return Ok(());
        }
        state.ended_unfulfilled(&open.operation);
        match refusal {
            Refusal::NoSuchSegment => {
                state.is_missing(&before)?;
                return self.nothing_happened(id, open, refusal);
            }
            Refusal::Exists => state.is_there(&before)?,
            Refusal::Unavailable => return self.nothing_happened(id, open, refusal),
            _ => state.shows_itself(&before)?,
        }
        let ends = self.ends;
        let state = self.segment(name);
        match (&open.operation, refusal) {
            (Operation::Read { offset, .. }, Refusal::Sealed) => state.ended_before(*offset)?,
            (_, Refusal::Sealed) => state.sealed()?,
            (
                Operation::Read { offset, .. } | Operation::Truncate { offset, .. },
                Refusal::Truncated { start },
            ) => state.starts_behind(*offset, start, ends)?,
            (_, Refusal::ConditionFailed) => return self.condition_failed(id, open),
            _ => {}
        }
        self.nothing_happened(id, open, refusal)
    }

    fn condition_failed(&mut self, id: OperationId, open: &Open) -> Verdict {
        let Some(name) = open.operation.segment() else { return Ok(()) };
        self.summary.searched += 1;
        let now = self.summary.records;
        let state = self.segment(name);
        match &open.operation {
            Operation::ConditionalAppend { writer, number, .. } => {
                let is_stored = state.holds(*writer, *number);
                hold!(!is_stored, "S11", "{number} of {writer:?} is refused and is stored");
                state.length_told(id, LengthOutcome::Refused)?;
                state.writer(*writer)?.refused((id, open.session), *number);
                Ok(())
            }
            Operation::AttributeUpdate { condition, .. } => {
                let is_bound = *condition != AttributeCondition::Always;
                hold!(is_bound, "S12", "an update without a condition is refused");
                self.attribute(id, open, AttributeOutcome::Refused)
            }
            Operation::TableUpdate { entries, .. } => {
                state.table.refused(now, id, entries.iter().map(|entry| &entry.key))
            }
            Operation::TableRemove { keys, .. } => {
                state.table.refused(now, id, keys.iter().map(|removal| &removal.key))
            }
            operation => breach!("history", "{operation:?} has no condition"),
        }
    }

    /// An operation took no effect, for a reason that does not lie in what is searched.
    fn nothing_happened(&mut self, id: OperationId, open: &Open, refusal: Refusal) -> Verdict {
        let Some(name) = open.operation.segment() else { return Ok(()) };
        let state = self.segment(name);
        if open.before.is_some_and(|before| before.life != state.life) {
            return Ok(());
        }
        match &open.operation {
            Operation::Append { writer, first, .. } => {
                let is_dense = state.writer(*writer)?.is_dense();
                if refusal == Refusal::Sealed && is_dense {
                    state.writer(*writer)?.is_limited(first - 1)?;
                }
                let state = state.writer(*writer)?;
                state.ended(id, open.session, Some("S5"));
                if refusal == Refusal::Sealed {
                    state.refused((id, open.session), *first);
                }
                Ok(())
            }
            Operation::ConditionalAppend { writer, number, .. } => {
                state.length_withdrawn(id)?;
                let is_definite = refusal != Refusal::Stale;
                let state = state.writer(*writer)?;
                state.ended(id, open.session, Some("S5"));
                if is_definite {
                    state.refused((id, open.session), *number);
                }
                Ok(())
            }
            Operation::AttributeRead { attribute, .. }
            | Operation::AttributeUpdate { attribute, .. } => {
                let Err(_) = state.attribute(*attribute).withdraw(id) else { return Ok(()) };
                breach!("S12", "{attribute:?} shows a change that was refused")
            }
            Operation::TableUpdate { entries, .. } => {
                state.table.withdrawn(id, entries.iter().map(|entry| &entry.key))
            }
            Operation::TableRemove { keys, .. } => {
                state.table.withdrawn(id, keys.iter().map(|removal| &removal.key))
            }
            Operation::TableRead { keys, .. } => state.table.withdrawn(id, keys.iter()),
            Operation::Info { .. } => state.length_withdrawn(id),
            _ => Ok(()),
        }
    }

    pub(super) fn unknown(&mut self, id: OperationId, open: &Open) -> Verdict {
        self.summary.unknown += 1;
        let now = self.summary.records;
        let (Some(name), Some(before)) = (open.operation.segment(), open.before) else {
            return Ok(());
        };
        let state = self.segment(name);
        if before.life != state.life {
            return Ok(());
        }
        match &open.operation {
            Operation::Append { writer, .. } => {
                state.writer(*writer)?.ended(id, open.session, Some("S10"));
            }
            Operation::ConditionalAppend { writer, .. } => {
                state.writer(*writer)?.ended(id, open.session, Some("S10"));
                state.length_unknown(id);
            }
            Operation::AttributeRead { attribute, .. }
            | Operation::AttributeUpdate { attribute, .. } => {
                state.attribute(*attribute).unknown(id);
            }
            Operation::TableUpdate { entries, .. } => {
                state.table.unknown(now, id, entries.iter().map(|entry| &entry.key));
            }
            Operation::TableRemove { keys, .. } => {
                state.table.unknown(now, id, keys.iter().map(|removal| &removal.key));
            }
            Operation::TableRead { keys, .. } => state.table.unknown(now, id, keys.iter()),
            Operation::Info { .. } => state.length_unknown(id),
            _ => {}
        }
        Ok(())
    }
}
