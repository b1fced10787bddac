//! The judge: takes records in order, keeps what is open, and gives each part of an answer to what
//! it is about. It knows which part of the checker judges what and decides nothing itself, except
//! about transactions over several segments and epochs.

mod answer;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use crate::breach::{Breach, Verdict, breach, hold};
use crate::id::{OperationId, Segment, SessionId, Value, Writer};
use crate::record::{Discipline, Happened, Operation, Part, ProcessEvent, Record};
use crate::register::{AttributeOperation, LengthOperation};
use crate::scaling::Scaling;
use crate::segment::{Before, SegmentState};
use crate::violation::{Summary, Violation};

/// An operation that did not end.
#[derive(Debug)]
struct Open {
    session: SessionId,
    operation: Operation,
    before: Option<Before>,
    /// Position of its record.
    since: u64,
}

#[derive(Debug, Default)]
struct Transaction {
    parts: Vec<Part>,
    is_committed: bool,
    is_aborted: bool,
    /// Segments in which all of it was found, and which were read back without it.
    shown: BTreeSet<Segment>,
    hidden: BTreeSet<Segment>,
}

/// What is certain of a segment, for those who make histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Certain {
    /// The segment is at least this long.
    pub length: u64,
    /// This much from the beginning was read without a gap.
    pub seen: u64,
    /// It starts here or later.
    pub start: u64,
    /// It is sealed.
    pub is_sealed: bool,
}

/// Judges one history. Made with `default`, fed with [`Checker::observe`], ended with
/// [`Checker::finish`]. Belongs to one thread; does no input or output.
#[derive(Debug, Default)]
pub struct Checker {
    summary: Summary,
    ends: u32,
    open: BTreeMap<OperationId, Open>,
    segments: BTreeMap<Segment, SegmentState>,
    everybody: BTreeSet<Writer>,
    transactions: BTreeMap<Writer, Transaction>,
    scaling: Scaling,
    epochs: BTreeMap<u32, u64>,
}

impl Checker {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// A [`Violation`] when the record contradicts earlier ones. The checker must not be used after
    /// that.
    pub fn observe(&mut self, record: &Record) -> Result<(), Violation> {
        self.take(record.happened.clone())
    }

    /// The same as [`Checker::observe`] for a caller that does not keep the record.
    ///
    /// # Errors
    /// As [`Checker::observe`].
    pub fn take(&mut self, happened: Happened) -> Result<(), Violation> {
        self.summary.records += 1;
        let id = match &happened {
            Happened::Invoke { id, .. }
            | Happened::Ok { id, .. }
            | Happened::Fail { id, .. }
            | Happened::Info { id } => Some(*id),
            _ => None,
        };
        self.judge(happened).map_err(|breach| self.violation(breach, id))
    }

    fn violation(&self, breach: Breach, id: Option<OperationId>) -> Violation {
        Violation {
            invariant: breach.invariant,
            text: breach.text,
            record: self.summary.records,
            operations: id.into_iter().collect(),
        }
    }

    /// The history is over.
    ///
    /// # Errors
    /// A [`Violation`] that only the end shows.
    pub fn finish(mut self) -> Result<Summary, Violation> {
        self.summary.unknown += self.open.len() as u64;
        self.summary.given_up = self.segments.values().map(SegmentState::given_up).sum();
        let all = std::mem::take(&mut self.transactions);
        for (transaction, state) in &all {
            Self::check_transaction(*transaction, state)
                .map_err(|breach| self.violation(breach, None))?;
        }
        Ok(self.summary)
    }

    /// What was held against each other so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What is certain of a segment; nothing of one that was not spoken of.
    pub fn certain(&self, segment: &str) -> Certain {
        self.segments.get(segment).map_or_else(Certain::default, |state| Certain {
            length: state.length_floor(),
            seen: state.seen(),
            start: state.start_floor(),
            is_sealed: state.is_sealed(),
        })
    }

    /// The highest number of a writer that is certainly stored in the present life of the segment.
    pub fn stored(&self, segment: &str, writer: Writer) -> Option<i64> {
        self.segments.get(segment)?.writer_state(writer)?.stored()
    }

    /// What a table certainly holds for a key, with its version if that was told: `Some(None)` when
    /// the key is certainly absent, `None` when that is in doubt.
    pub fn certain_key(&self, table: &str, key: &str) -> Option<Option<(Value, Option<i64>)>> {
        self.segments.get(table)?.table.certain(key)
    }

    /// Whether no change of this key is under way, nor one of unknown outcome that may still
    /// happen.
    pub fn is_key_quiet(&self, table: &str, key: &str) -> bool {
        self.segments.get(table).is_none_or(|state| state.table.is_quiet(key))
    }

    /// All keys of a table that anybody spoke of.
    pub fn keys(&self, table: &str) -> Vec<crate::id::Key> {
        self.segments.get(table).map_or_else(Vec::new, |it| it.table.keys().cloned().collect())
    }

    /// All segments and tables that anybody spoke of.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.keys()
    }

    fn judge(&mut self, happened: Happened) -> Verdict {
        match happened {
            Happened::Invoke { id, session, operation } => self.invoke(id, session, operation),
            Happened::Ok { id, outcome } => {
                let open = self.end(id)?;
                self.succeeded(id, &open, outcome)
            }
            Happened::Fail { id, refusal } => {
                let open = self.end(id)?;
                self.refused(id, &open, refusal)
            }
            Happened::Info { id } => {
                let open = self.end(id)?;
                self.unknown(id, &open)
            }
            Happened::Writer { segment, writer, discipline, continues } => {
                self.introduce(&segment, writer, discipline, continues.as_ref())
            }
            Happened::Scale { predecessors, successors } => {
                self.scaling.scale(&predecessors, &successors)
            }
            Happened::Process(event) => {
                self.process(event);
                Ok(())
            }
            Happened::Epoch { container, epoch } => {
                let highest = self.epochs.entry(container).or_insert(epoch);
                hold!(
                    epoch >= *highest,
                    "S17",
                    "container {container} shows epoch {epoch} after {highest}"
                );
                *highest = epoch;
                Ok(())
            }
            Happened::ReadBack { segment, length } => self.read_back(&segment, length),
        }
    }

    fn segment(&mut self, name: &Segment) -> &mut SegmentState {
        if !self.segments.contains_key(name) {
            self.segments.insert(name.clone(), SegmentState::new(false));
        }
        self.segments.get_mut(name).expect("it was just made")
    }

    fn end(&mut self, id: OperationId) -> Verdict<Open> {
        let Some(open) = self.open.remove(&id) else {
            breach!("history", "{id:?} ends and is not open");
        };
        Ok(open)
    }

    fn introduce(
        &mut self,
        segment: &Segment,
        writer: Writer,
        discipline: Discipline,
        continues: Option<&Segment>,
    ) -> Verdict {
        self.everybody.insert(writer);
        self.segment(segment).add_writer(writer, discipline);
        if let (Some(continues), Discipline::Dense { first }) = (continues, discipline) {
            self.segment(continues).writer(writer)?.is_limited(first - 1)?;
        }
        Ok(())
    }

    fn process(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Killed | ProcessEvent::PowerCut | ProcessEvent::Stopped => {
                self.ends += 1;
                self.summary.ends += 1;
                self.segments.values_mut().for_each(SegmentState::doom);
            }
            ProcessEvent::Restarted => {
                self.segments.values_mut().for_each(SegmentState::settle);
            }
            ProcessEvent::Frozen | ProcessEvent::Healed => {}
        }
    }

    fn invoke(&mut self, id: OperationId, session: SessionId, operation: Operation) -> Verdict {
        hold!(!self.open.contains_key(&id), "history", "{id:?} is invoked twice");
        self.summary.operations += 1;
        let since = self.summary.records;
        if let Operation::Create { segment } = &operation
            && !self.segments.contains_key(segment)
        {
            self.segments.insert(segment.clone(), SegmentState::new(true));
        }
        let before = operation.segment().map(|name| {
            let state = self.segment(name);
            state.before(operation.writer())
        });
        self.send((id, session), &operation, since)?;
        self.open.insert(id, Open { session, operation, before, since });
        Ok(())
    }

    /// Tells the parts what is being asked for.
    fn send(
        &mut self,
        (id, session): (OperationId, SessionId),
        operation: &Operation,
        since: u64,
    ) -> Verdict {
        if let Operation::Commit { parts } = operation {
            return self.commit_asked(parts);
        }
        let Some(name) = operation.segment() else { return Ok(()) };
        let state = self.segment(name);
        match operation {
            Operation::Create { .. } => state.creating(),
            Operation::Delete { .. } => state.deletions += 1,
            Operation::Seal { .. } => state.sealing(),
            Operation::Truncate { offset, .. } => state.truncating(*offset),
            Operation::Append { writer, first, count, .. } => {
                hold!(*count > 0, "history", "an append of no events");
                let numbers = (*first, first + i64::from(*count) - 1);
                state.length = None;
                state.writer(*writer)?.sends((id, session), numbers, None, since)?;
            }
            Operation::ConditionalAppend { writer, number, expected, bytes, .. } => {
                let append = LengthOperation::Append { expected: *expected, bytes: *bytes };
                state.length_asked(id, append);
                let numbers = (*number, *number);
                state.writer(*writer)?.sends((id, session), numbers, Some(*expected), since)?;
            }
            Operation::Info { .. } => {
                state.length_asked(id, LengthOperation::Measure);
            }
            Operation::AttributeRead { attribute, .. } => {
                state.attribute(*attribute).invoke(id, AttributeOperation::Read);
            }
            Operation::AttributeUpdate { attribute, condition, value, .. } => {
                let update = AttributeOperation::Update(*condition, *value);
                state.attribute(*attribute).invoke(id, update);
            }
            Operation::TableUpdate { entries, .. } => state.table.put_invoked(since, id, entries),
            Operation::TableRemove { keys, .. } => state.table.remove_invoked(since, id, keys),
            Operation::TableRead { keys, .. } => state.table.read_invoked(since, id, keys),
            _ => {}
        }
        Ok(())
    }

    fn commit_asked(&mut self, parts: &[Part]) -> Verdict {
        for part in parts {
            let state = self.segment(&part.segment);
            state.length = None;
            state.writer(part.transaction)?.announce(part.count);
            if let Some(source) = &part.source {
                self.segment(source).deletions += 1;
            }
            let transaction = self.transactions.entry(part.transaction).or_default();
            if !transaction.parts.contains(part) {
                transaction.parts.push(part.clone());
            }
        }
        Ok(())
    }

    fn read_back(&mut self, name: &Segment, length: u64) -> Verdict {
        self.summary.read_back += 1;
        let ends = self.ends;
        let Some(state) = self.segments.get_mut(name) else {
            breach!("history", "{name} was read back and nobody spoke of it");
        };
        state.read_back(length, &self.everybody, ends)?;
        if state.start_floor() > 0 {
            // What is not there may have been truncated.
            return Ok(());
        }
        for (writer, transaction) in &mut self.transactions {
            let is_part = transaction.parts.iter().any(|it| it.segment == *name && it.count > 0);
            if is_part && !transaction.shown.contains(name) {
                transaction.hidden.insert(name.clone());
                Self::check_transaction(*writer, transaction)?;
            }
        }
        Ok(())
    }

    fn check_transaction(writer: Writer, transaction: &Transaction) -> Verdict {
        let is_torn = !transaction.shown.is_empty() && !transaction.hidden.is_empty();
        let Transaction { shown, hidden, .. } = transaction;
        hold!(!is_torn, "S15", "{writer:?} is in {shown:?} and not in {hidden:?}");
        Ok(())
    }
}
