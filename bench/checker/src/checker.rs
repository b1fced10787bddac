//! The judge: takes records in order, keeps what is open, and gives each part of an answer to what
//! it is about. It knows which part of the checker judges what and decides nothing itself, except
//! about transactions over several segments and epochs.

use std::collections::{BTreeMap, BTreeSet};

use crate::breach::{Breach, Verdict, breach, hold};
use crate::id::{OperationId, Segment, SessionId, Value, Writer};
use crate::record::{
    AttributeCondition, Data, Discipline, Happened, Operation, Outcome, Part, ProcessEvent, Record,
    Refusal,
};
use crate::register::{AttributeOperation, AttributeOutcome, LengthOperation, LengthOutcome};
use crate::scaling::Scaling;
use crate::segment::{Before, Existence, SegmentState};
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

    fn succeeded(&mut self, id: OperationId, open: &Open, outcome: Outcome) -> Verdict {
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
    fn ended_late(&mut self, open: &Open) {
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

    fn attribute(&mut self, id: OperationId, open: &Open, outcome: AttributeOutcome) -> Verdict {
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

    fn take_note(&mut self, name: &Segment) -> Verdict {
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

    fn refused(&mut self, id: OperationId, open: &Open, refusal: Refusal) -> Verdict {
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

    fn unknown(&mut self, id: OperationId, open: &Open) -> Verdict {
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

impl Operation {
    /// The one segment that the operation is about.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        match self {
            Self::Create { segment }
            | Self::Delete { segment }
            | Self::Seal { segment }
            | Self::Truncate { segment, .. }
            | Self::SetUp { segment, .. }
            | Self::Append { segment, .. }
            | Self::ConditionalAppend { segment, .. }
            | Self::Read { segment, .. }
            | Self::StorageRead { segment, .. }
            | Self::Info { segment }
            | Self::AttributeRead { segment, .. }
            | Self::AttributeUpdate { segment, .. }
            | Self::TableUpdate { segment, .. }
            | Self::TableRemove { segment, .. }
            | Self::TableRead { segment, .. }
            | Self::TableIterate { segment, .. } => Some(segment),
            Self::Begin { .. } | Self::Commit { .. } | Self::Abort { .. } => None,
        }
    }

    /// The writer that the operation is about.
    pub(crate) fn writer(&self) -> Option<Writer> {
        match self {
            Self::SetUp { writer, .. }
            | Self::Append { writer, .. }
            | Self::ConditionalAppend { writer, .. } => Some(*writer),
            _ => None,
        }
    }
}
