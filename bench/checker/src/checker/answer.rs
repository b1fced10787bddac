//! What follows from operations that took effect.
//!
//! Gives each part of an answer to what it is about; a contradiction is found there.

use super::{Checker, Open};
use crate::breach::{Breach, Verdict, breach, hold};
use crate::id::{OperationId, Segment, Writer};
use crate::record::{Data, Operation, Outcome, Part};
use crate::register::{AttributeOutcome, LengthOutcome};
use crate::segment::{Before, Existence};

impl Checker {
    pub(super) fn succeeded(&mut self, id: OperationId, open: &Open, outcome: Outcome) -> Verdict {
        match &open.operation {
            Operation::Commit { parts } => return self.committed(parts, &outcome),
            Operation::Abort { transaction } => return self.aborted(*transaction),
            Operation::Begin { .. } => return Ok(()),
            _ => {}
        }
        let (Some(name), Some(before)) = (open.operation.segment(), open.before) else {
            return Ok(());
        };
        let ends = self.ends;
        let state = self.segment(name);
        if before.life != state.life {
            self.ended_late(open);
            return Ok(());
        }
        match &open.operation {
            Operation::Create { .. } => return state.created(),
            Operation::Delete { .. } => return state.deleted(&before),
            _ => state.shows_itself(&before)?,
        }
        match (&open.operation, outcome) {
            (Operation::Seal { .. }, Outcome::Done) => state.sealed(),
            (Operation::Truncate { offset, .. }, Outcome::Done) => state.starts_at(*offset, ends),
            (Operation::SetUp { writer, .. }, Outcome::SetUp { last }) => {
                state.set_up(*writer, open.session, last, &before, open.since)
            }
            (
                Operation::Append { .. } | Operation::ConditionalAppend { .. },
                Outcome::Appended { length, previous },
            ) => self.appended(id, open, &before, length, previous),
            (Operation::Read { offset, .. }, Outcome::Read { data, ends: has_end, tail }) => {
                let shape = (has_end, tail);
                let events = match &data {
                    Data::Runs(runs) => runs.iter().map(|run| u64::from(run.count)).sum(),
                    _ => 0,
                };
                state.read(&before, (*offset, data), shape, ends)?;
                self.summary.read += events;
                self.take_note(name)
            }
            (Operation::StorageRead { offset, .. }, Outcome::Read { data, .. }) => {
                // Storage may lag behind, so only what it holds is judged.
                let shape = (false, false);
                let read = match &data {
                    Data::Runs(runs) if runs.is_empty() => Ok(()),
                    _ => state.read(&before, (*offset, data), shape, ends),
                };
                read.and_then(|()| self.take_note(name))
                    .map_err(|breach| Breach { invariant: "S18", ..breach })
            }
            (Operation::Info { .. }, Outcome::Info { length, start, sealed }) => {
                state.described(&before, (length, start, sealed), ends)?;
                let told = LengthOutcome::Length(length);
                state.length_told(id, told)?;
                self.summary.searched += 1;
                Ok(())
            }
            (Operation::AttributeRead { .. }, Outcome::Attribute { value }) => {
                self.attribute(id, open, AttributeOutcome::Read(value))
            }
            (Operation::AttributeUpdate { .. }, Outcome::Done) => {
                self.attribute(id, open, AttributeOutcome::Updated)
            }
            (_, outcome) => self.table_answered(id, open, &before, outcome),
        }
    }

    fn table_answered(
        &mut self,
        id: OperationId,
        open: &Open,
        before: &Before,
        outcome: Outcome,
    ) -> Verdict {
        let now = self.summary.records;
        self.summary.searched += 1;
        let Some(name) = open.operation.segment() else { return Ok(()) };
        let table = &mut self.segment(name).table;
        match (&open.operation, outcome) {
            (Operation::TableUpdate { entries, .. }, Outcome::Versions { versions }) => {
                table.put(now, id, entries, &versions, before.version_floor)
            }
            (Operation::TableRemove { keys, .. }, Outcome::Done) => table.removed(now, id, keys),
            (Operation::TableRead { keys, .. }, Outcome::Entries { entries }) => {
                table.read(now, id, keys, &entries)
            }
            (Operation::TableIterate { prefix, .. }, Outcome::Entries { entries }) => {
                table.walked(id, open.since, prefix, &entries)
            }
            (operation, outcome) => {
                breach!("history", "{operation:?} cannot end with {outcome:?}")
            }
        }
    }

    /// An answer that is told after the segment's life was over: little can be said.
    pub(super) fn ended_late(&mut self, open: &Open) {
        let Some(name) = open.operation.segment() else { return };
        let state = self.segment(name);
        state.ended_unfulfilled(&open.operation);
        let is_creation = matches!(open.operation, Operation::Create { .. });
        if is_creation && state.existence == Existence::Absent {
            state.existence = Existence::Exists;
        }
    }

    fn appended(
        &mut self,
        id: OperationId,
        open: &Open,
        before: &Before,
        length: Option<u64>,
        previous: Option<i64>,
    ) -> Verdict {
        let (Some(name), Some(writer)) = (open.operation.segment(), open.operation.writer()) else {
            return Ok(());
        };
        let (first, count, bytes, expected) = match &open.operation {
            Operation::Append { first, count, bytes, .. } => (*first, *count, *bytes, None),
            Operation::ConditionalAppend { number, expected, bytes, .. } => {
                (*number, 1, *bytes, Some(*expected))
            }
            _ => return Ok(()),
        };
        self.summary.acknowledged += u64::from(count);
        hold!(!before.is_sealed, "S13", "{first} of {writer:?} is acknowledged and it is sealed");
        for predecessor in self.scaling.predecessors(name).to_vec() {
            let may_be = self.segment(&predecessor).may_be_sealed();
            hold!(may_be, "S16", "{first} of {writer:?} is stored and {predecessor} is not sealed");
            self.segment(&predecessor).sealed()?;
        }
        let ends = self.ends;
        let state = self.segment(name);
        let last = first + i64::from(count) - 1;
        if let Some(expected) = expected {
            let fits = length.is_none_or(|length| length == expected + bytes);
            hold!(
                fits,
                "S11",
                "{first} of {writer:?} was to end at {} and ends at {length:?}",
                expected + bytes
            );
            let length = Some(expected + bytes);
            state.length_told(id, LengthOutcome::Appended)?;
            state.writer(writer)?.acknowledged((id, open.session), (first, last), previous)?;
            return state.placed(writer, (first, last), (bytes, length), true, ends);
        }
        state.writer(writer)?.acknowledged((id, open.session), (first, last), previous)?;
        state.placed(writer, (first, last), (bytes, length), false, ends)
    }

    pub(super) fn attribute(
        &mut self,
        id: OperationId,
        open: &Open,
        outcome: AttributeOutcome,
    ) -> Verdict {
        self.summary.searched += 1;
        let (Operation::AttributeRead { segment, attribute }
        | Operation::AttributeUpdate { segment, attribute, .. }) = &open.operation
        else {
            breach!("history", "{:?} cannot end with {outcome:?}", open.operation);
        };
        let Err(_) = self.segment(segment).attribute(*attribute).complete(id, &outcome) else {
            return Ok(());
        };
        breach!(
            "S12",
            "{attribute:?} of {segment}: no order of the operations explains {outcome:?}"
        )
    }

    pub(super) fn take_note(&mut self, name: &Segment) -> Verdict {
        let Self { segments, everybody, scaling, summary, transactions, .. } = self;
        let Some(state) = segments.get_mut(name) else { return Ok(()) };
        let mut scaled = Ok(());
        state.take_note(everybody, |placed| {
            summary.found += u64::from(placed.run.count);
            if scaled.is_ok() {
                scaled = scaling.find(name, placed);
            }
            if let Some(transaction) = transactions.get_mut(&placed.run.writer) {
                transaction.shown.insert(name.clone());
            }
        })?;
        scaled
    }

    fn committed(&mut self, parts: &[Part], outcome: &Outcome) -> Verdict {
        let ends = self.ends;
        for part in parts {
            let transaction = self.transactions.entry(part.transaction).or_default();
            hold!(
                !transaction.is_aborted,
                "S15",
                "{:?} is committed and aborted",
                part.transaction
            );
            transaction.is_committed = true;
            self.segment(&part.segment).writer(part.transaction)?.committed()?;
            if let Some(source) = &part.source {
                let source = self.segment(source);
                if source.existence != Existence::Absent {
                    source.begin_life(Existence::Absent);
                }
            }
        }
        if let (Outcome::Merged { length }, Some(part)) = (outcome, parts.last()) {
            self.segment(&part.segment).is_told(*length, ends)?;
        }
        Ok(())
    }

    fn aborted(&mut self, writer: Writer) -> Verdict {
        let transaction = self.transactions.entry(writer).or_default();
        hold!(!transaction.is_committed, "S15", "{writer:?} is aborted and committed");
        transaction.is_aborted = true;
        for state in self.segments.values_mut() {
            if state.writer_state(writer).is_some() {
                state.writer(writer)?.aborted()?;
            }
        }
        Ok(())
    }
}
