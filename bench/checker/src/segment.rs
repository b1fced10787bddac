//! What is known of one segment: its lives, and of the present one content, writers, length, seal
//! and start.

mod block;
mod life;

use std::collections::{BTreeMap, BTreeSet};

use crate::breach::{Verdict, breach, hold};
use crate::content::{Content, Placed};
use crate::id::{Attribute, OperationId, SessionId, Writer};
use crate::record::{Data, Discipline};
use crate::register::{
    AttributeObject, AttributeState, LengthObject, LengthOperation, LengthOutcome,
};
use crate::search::Search;
use crate::table::Table;
use crate::writer::WriterState;

/// Whether there is such a segment now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existence {
    /// Nothing was told yet.
    Unsure,
    Exists,
    /// It was deleted, or told to be missing.
    Absent,
}

/// What is certain when an operation is sent, for its answer to be held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    /// The life of the segment.
    pub(crate) life: u32,
    pub(crate) existence: Existence,
    /// The length is at least this: told, and read.
    told: u64,
    read: u64,
    start: u64,
    pub(crate) is_sealed: bool,
    /// The writer's highest number that is certainly stored.
    pub(crate) stored: Option<i64>,
    /// How many appends the writer had sent.
    pub(crate) sent: u64,
    /// The table's highest version.
    pub(crate) version_floor: Option<i64>,
}

/// A length that was certain, and when.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    length: u64,
    /// How often the process had ended.
    ends: u32,
}

impl Floor {
    fn raise(&mut self, length: u64, ends: u32) {
        if length > self.length {
            *self = Self { length, ends };
        }
    }
}

/// An acknowledged block that was not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) writer: Writer,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) start: u64,
    pub(crate) is_conditional: bool,
}

/// A segment in its present life.
#[derive(Debug)]
pub(crate) struct SegmentState {
    pub(crate) life: u32,
    pub(crate) existence: Existence,
    /// Creations and deletions that may still happen.
    pub(crate) creations: u32,
    pub(crate) deletions: u32,
    /// Of these, those that cannot happen after the next start.
    doomed: (u32, u32),
    /// A deletion of unknown outcome may have happened.
    may_be_gone: bool,
    /// It is known from its creation on.
    is_young: bool,
    content: Content,
    writers: BTreeMap<Writer, WriterState>,
    /// Highest numbers sent in earlier lives.
    earlier: BTreeMap<Writer, i64>,
    /// A transaction whose events are not all found, and its next number.
    unit: Option<(Writer, i64)>,
    /// By where they end.
    blocks: BTreeMap<u64, Block>,
    told: Floor,
    read: Floor,
    start: u64,
    start_ceiling: u64,
    may_be_sealed: bool,
    is_sealed: bool,
    final_length: Option<u64>,
    pub(crate) attributes: BTreeMap<Attribute, Search<AttributeObject>>,
    pub(crate) table: Table,
    /// While it grows by conditional appends only.
    pub(crate) length: Option<Search<LengthObject>>,
    /// Events became known that nobody took note of yet.
    fresh: Vec<Placed>,
}

impl SegmentState {
    /// A segment that is spoken of for the first time.
    pub(crate) fn new(is_young: bool) -> Self {
        Self {
            life: 0,
            existence: Existence::Unsure,
            creations: 0,
            deletions: 0,
            doomed: (0, 0),
            may_be_gone: false,
            is_young,
            content: Content::default(),
            writers: BTreeMap::new(),
            earlier: BTreeMap::new(),
            unit: None,
            blocks: BTreeMap::new(),
            told: Floor::default(),
            read: Floor::default(),
            start: 0,
            start_ceiling: 0,
            may_be_sealed: false,
            is_sealed: false,
            final_length: None,
            attributes: BTreeMap::new(),
            table: Table::new(is_young),
            length: Some(Search::new(is_young.then_some(0))),
            fresh: Vec::new(),
        }
    }

    /// The present life is over.
    pub(crate) fn begin_life(&mut self, existence: Existence) {
        let mut earlier = std::mem::take(&mut self.earlier);
        for (writer, state) in &self.writers {
            let highest = earlier.get(writer).copied().max(state.submitted());
            earlier.extend(highest.map(|highest| (*writer, highest)));
        }
        *self = Self {
            life: self.life + 1,
            existence,
            creations: self.creations,
            deletions: self.deletions.saturating_sub(1),
            doomed: self.doomed,
            earlier,
            ..Self::new(true)
        };
    }

    pub(crate) fn before(&self, writer: Option<Writer>) -> Before {
        let writer = writer.and_then(|writer| self.writers.get(&writer));
        Before {
            life: self.life,
            existence: self.existence,
            told: self.told.length,
            read: self.read.length,
            start: self.start,
            is_sealed: self.is_sealed,
            stored: writer.and_then(WriterState::stored),
            sent: writer.map_or(0, WriterState::sent),
            version_floor: self.table.version_floor(),
        }
    }

    pub(crate) fn length_floor(&self) -> u64 {
        self.told.length.max(self.read.length)
    }

    pub(crate) fn seen(&self) -> u64 {
        self.content.seen()
    }

    pub(crate) fn start_floor(&self) -> u64 {
        self.start
    }

    pub(crate) fn may_be_sealed(&self) -> bool {
        self.may_be_sealed
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    pub(crate) fn writer_state(&self, writer: Writer) -> Option<&WriterState> {
        self.writers.get(&writer)
    }

    pub(crate) fn add_writer(&mut self, writer: Writer, discipline: Discipline) {
        let state = || WriterState::new(writer, discipline);
        self.writers.entry(writer).or_insert_with(state);
    }

    pub(crate) fn writer(&mut self, writer: Writer) -> Verdict<&mut WriterState> {
        let Some(state) = self.writers.get_mut(&writer) else {
            breach!("history", "{writer:?} was not introduced");
        };
        Ok(state)
    }

    pub(crate) fn attribute(&mut self, attribute: Attribute) -> &mut Search<AttributeObject> {
        let is_young = self.is_young;
        let first = if is_young { AttributeState::Is(None) } else { AttributeState::Anything };
        self.attributes.entry(attribute).or_insert_with(|| Search::new(first))
    }

    /// A set-up was answered.
    pub(crate) fn set_up(
        &mut self,
        writer: Writer,
        session: SessionId,
        last: Option<i64>,
        before: &Before,
        since: u64,
    ) -> Verdict {
        let earlier = self.earlier.get(&writer).copied();
        self.writer(writer)?.set_up(session, last, before, since, earlier)
    }

    /// The length is at least this: that was told.
    pub(crate) fn is_told(&mut self, length: u64, ends: u32) -> Verdict {
        self.told.raise(length, ends);
        self.check_final()
    }

    fn check_final(&self) -> Verdict {
        let length = self.length_floor();
        if let Some(end) = self.final_length {
            hold!(length <= end, "S13", "{length} bytes, and it was sealed at {end}");
        }
        Ok(())
    }

    /// A length that was told for the present must reach what was certain before it was asked for.
    fn check_length(&self, before: &Before, length: u64, ends: u32) -> Verdict {
        if length < before.told {
            let kind = if self.told.ends == ends { "S8" } else { "S1" };
            breach!(kind, "length {length} after {} was told", before.told);
        }
        if length < before.read {
            let kind = if self.read.ends == ends { "S7" } else { "S9" };
            breach!(kind, "length {length} after {} was read", before.read);
        }
        Ok(())
    }

    /// Properties were told.
    pub(crate) fn described(
        &mut self,
        before: &Before,
        (length, start, is_sealed): (u64, u64, bool),
        ends: u32,
    ) -> Verdict {
        self.check_length(before, length, ends)?;
        hold!(start >= before.start, "S14", "start {start} after {} was certain", before.start);
        hold!(is_sealed || !before.is_sealed, "S13", "it is not sealed any more");
        self.starts_at(start, ends)?;
        self.is_told(length, ends)?;
        if is_sealed {
            self.sealed()?;
            self.ends_at(length)?;
        }
        Ok(())
    }

    /// A seal is asked for.
    pub(crate) fn sealing(&mut self) {
        self.may_be_sealed = true;
    }

    /// It was told that it is sealed.
    pub(crate) fn sealed(&mut self) -> Verdict {
        hold!(self.may_be_sealed, "S25", "it is sealed, and nobody asked for that");
        self.is_sealed = true;
        Ok(())
    }

    /// It was told that it ends here.
    pub(crate) fn ends_at(&mut self, length: u64) -> Verdict {
        let floor = self.length_floor();
        hold!(length >= floor, "S13", "it ends at {length}, and {floor} was certain");
        let known = *self.final_length.get_or_insert(length);
        hold!(known == length, "S13", "it ends at {known} and at {length}");
        Ok(())
    }

    /// A read at `offset` was told that it is at or behind the end.
    pub(crate) fn ended_before(&mut self, offset: u64) -> Verdict {
        self.sealed()?;
        let floor = self.length_floor();
        hold!(floor <= offset, "S13", "it ends before {offset}, and {floor} was certain");
        Ok(())
    }

    /// A truncation is asked for.
    pub(crate) fn truncating(&mut self, offset: u64) {
        self.start_ceiling = self.start_ceiling.max(offset);
    }

    /// It starts at this offset or later.
    pub(crate) fn starts_at(&mut self, start: u64, ends: u32) -> Verdict {
        let is_asked = start <= self.start_ceiling;
        hold!(is_asked, "S14", "it starts at {start}, and nobody asked for that");
        if start > self.start {
            self.start = start;
            self.content.jump_to(start, ends)?;
            self.check_blocks()?;
            self.content.forget_before(start);
            self.blocks = self.blocks.split_off(&(start + 1));
        }
        Ok(())
    }

    /// It was told that it starts behind this offset.
    pub(crate) fn starts_behind(&mut self, offset: u64, start: u64, ends: u32) -> Verdict {
        hold!(offset < start, "S14", "{offset} is said to lie before the start, {start}");
        self.starts_at(start, ends)
    }

    /// A read was answered.
    pub(crate) fn read(
        &mut self,
        before: &Before,
        (offset, data): (u64, Data),
        (has_end, is_tail): (bool, bool),
        ends: u32,
    ) -> Verdict {
        let bytes = match &data {
            Data::Runs(runs) => runs.iter().map(|run| run.all_bytes()).sum(),
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Wrong { .. } => 0,
        };
        let end = offset + bytes;
        let is_wrong = matches!(data, Data::Wrong { .. });
        if bytes > 0 {
            let start = before.start;
            hold!(offset >= start, "S14", "bytes at {offset} are served, it starts at {start}");
        }
        self.content.read(offset, data, ends)?;
        if has_end {
            self.sealed()?;
            self.ends_at(end)?;
        } else if is_tail || (bytes == 0 && !is_wrong) {
            self.check_length(before, end, ends)?;
        }
        self.read.raise(end, ends);
        self.check_final()
    }

    /// Takes note of events that became known. `everybody` are all writers of the history.
    pub(crate) fn take_note(
        &mut self,
        everybody: &BTreeSet<Writer>,
        mut each: impl FnMut(&Placed),
    ) -> Verdict {
        let mut fresh = std::mem::take(&mut self.fresh);
        self.content.take_fresh(&mut fresh);
        for placed in &fresh {
            self.find(placed, everybody)?;
            each(placed);
        }
        fresh.clear();
        self.fresh = fresh;
        self.check_blocks()
    }

    fn find(&mut self, placed: &Placed, everybody: &BTreeSet<Writer>) -> Verdict {
        let (writer, at, first) = (placed.run.writer, placed.offset, placed.run.first);
        if let Some((open, next)) = self.unit {
            let fits = (writer, first) == (open, next);
            hold!(fits, "S15", "{first} of {writer:?} lies at {at}, inside transaction {open:?}");
        }
        let earlier = self.earlier.get(&writer).copied();
        let content = &self.content;
        let Some(state) = self.writers.get_mut(&writer) else {
            let is_known = earlier.is_some() || everybody.contains(&writer);
            let kind = if is_known { "S22" } else { "S2" };
            breach!(kind, "{first} of {writer:?} lies at {at}, and it never wrote here");
        };
        state.finds(placed, earlier, |number| content.holds_before(writer, number, at))?;
        self.unit = state
            .announced()
            .filter(|count| placed.run.last() + 1 < i64::from(*count))
            .map(|_| (writer, placed.run.last() + 1));
        Ok(())
    }

    /// All of it, or what was left of it, was read.
    pub(crate) fn read_back(
        &mut self,
        length: u64,
        everybody: &BTreeSet<Writer>,
        ends: u32,
    ) -> Verdict {
        self.content.come_ashore(ends)?;
        self.take_note(everybody, |_| ())?;
        self.check_length(&self.before(None), length, ends)?;
        if self.content.seen() < length {
            let seen = self.content.seen();
            breach!("S6", "{seen} bytes without a gap were read of {length}");
        }
        let loose = self.content.loose_bytes();
        hold!(loose == 0, "S2", "it ends {loose} bytes into an event");
        hold!(self.unit.is_none(), "S15", "it ends inside transaction {:?}", self.unit);
        self.writers.values().try_for_each(|writer| writer.read_back(self.content.jumps()))
    }

    /// Times that a search gave up.
    pub(crate) fn given_up(&self) -> u64 {
        let attributes: u64 = self.attributes.values().map(|search| search.given_up).sum();
        let length = self.length.as_ref().map_or(0, |search| search.given_up);
        attributes + length + self.table.given_up()
    }

    /// An append on condition of a length is sent.
    pub(crate) fn length_asked(&mut self, id: OperationId, operation: LengthOperation) {
        self.length.iter_mut().for_each(|search| search.invoke(id, operation));
    }

    /// What it was told about lengths.
    pub(crate) fn length_told(&mut self, id: OperationId, outcome: LengthOutcome) -> Verdict {
        let Some(search) = &mut self.length else { return Ok(()) };
        let Err(_) = search.complete(id, &outcome) else { return Ok(()) };
        breach!("S11", "no order of the conditional appends explains {outcome:?}")
    }

    /// It did not happen.
    pub(crate) fn length_withdrawn(&mut self, id: OperationId) -> Verdict {
        let Some(search) = &mut self.length else { return Ok(()) };
        let Err(_) = search.withdraw(id) else { return Ok(()) };
        breach!("S11", "a conditional append is stored and was refused")
    }

    /// Its outcome is not known.
    pub(crate) fn length_unknown(&mut self, id: OperationId) {
        self.length.iter_mut().for_each(|search| search.unknown(id));
    }
}
