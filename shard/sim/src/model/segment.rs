//! What is known of one segment: bytes seen, events confirmed, length, seal, start.
//!
//! Every byte any reader got goes into one prefix (or waits behind a gap), so that all reads are
//! held against each other; the prefix is cut into events, each of which must be one that was
//! sent, in its writer's order, once.

use std::collections::{BTreeMap, BTreeSet};

use crate::payload::{EventIdentity, EventSizes, Judged, WriterTag, judge};
use crate::trace::{Trace, check};

/// How the events of a writer must lie in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discipline {
    /// Numbered without gaps from this number on, none left out.
    Dense {
        /// The first number.
        first: i64,
    },
    /// Each at the offset it was sent for; numbers increase and may have gaps.
    Conditional,
    /// Numbered from 0, all of them or none, with nothing between; it may appear only after
    /// somebody asked for the merge.
    Atomic {
        /// How many.
        count: i64,
    },
}

#[derive(Debug)]
struct WriterModel {
    discipline: Discipline,
    /// Highest number ever sent; below the first when none.
    submitted: i64,
    /// Everything up to here is stored, for sure.
    confirmed: Option<i64>,
    /// Nothing above this is stored, for sure.
    limit: Option<i64>,
    /// Last number found in the segment.
    found: Option<i64>,
    /// End offsets: told by an acknowledgement or found, whichever was first.
    ends: BTreeMap<i64, u64>,
    /// For conditional events: where they may lie.
    expected: BTreeMap<i64, u64>,
    /// Events that were refused for good.
    refused: BTreeSet<i64>,
    /// Of an atomic writer: the target was asked to take it.
    is_merging: bool,
}

/// What an answer about a segment's properties is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    length: u64,
    start: u64,
    is_sealed: bool,
}

/// Everything known of one segment.
#[derive(Debug)]
pub(crate) struct SegmentModel {
    name: String,
    sizes: EventSizes,
    trace: Trace,
    seen: Vec<u8>,
    parsed: usize,
    /// Bytes seen behind a gap, by offset.
    islands: BTreeMap<u64, Vec<u8>>,
    writers: BTreeMap<WriterTag, WriterModel>,
    /// An atomic writer whose events are not all found yet, and the next number.
    unit: Option<(WriterTag, i64)>,
    /// The segment is at least this long.
    length_floor: u64,
    start_floor: u64,
    start_ceiling: u64,
    /// A seal was asked for.
    may_be_sealed: bool,
    is_sealed: bool,
    final_length: Option<u64>,
}

impl SegmentModel {
    /// A segment just created.
    pub(crate) fn new(name: &str, sizes: EventSizes, trace: Trace) -> Self {
        Self {
            name: name.to_owned(),
            sizes,
            trace,
            seen: Vec::new(),
            parsed: 0,
            islands: BTreeMap::new(),
            writers: BTreeMap::new(),
            unit: None,
            length_floor: 0,
            start_floor: 0,
            start_ceiling: 0,
            may_be_sealed: false,
            is_sealed: false,
            final_length: None,
        }
    }

    /// What is certain now; to be taken when a request is sent.
    pub(crate) fn before(&self) -> Before {
        Before { length: self.length_floor, start: self.start_floor, is_sealed: self.is_sealed }
    }

    /// Bytes known from the beginning on, without a gap.
    pub(crate) fn seen_bytes(&self) -> u64 {
        self.seen.len() as u64
    }

    /// The least length.
    pub(crate) fn length_floor(&self) -> u64 {
        self.length_floor
    }

    /// The least start offset.
    pub(crate) fn start_floor(&self) -> u64 {
        self.start_floor
    }

    /// Introduces a writer.
    pub(crate) fn add_writer(&mut self, tag: WriterTag, discipline: Discipline) {
        let submitted = match discipline {
            Discipline::Dense { first } => first - 1,
            Discipline::Conditional => 0,
            Discipline::Atomic { count } => count - 1,
        };
        self.writers.entry(tag).or_insert(WriterModel {
            discipline,
            submitted,
            confirmed: None,
            limit: None,
            found: None,
            ends: BTreeMap::new(),
            expected: BTreeMap::new(),
            refused: BTreeSet::new(),
            is_merging: false,
        });
    }

    fn writer(&mut self, tag: WriterTag) -> &mut WriterModel {
        self.writers.get_mut(&tag).expect("writers are introduced before they write")
    }

    /// Events up to `number` were sent.
    pub(crate) fn submitted(&mut self, tag: WriterTag, number: i64) {
        let writer = self.writer(tag);
        writer.submitted = writer.submitted.max(number);
    }

    /// A conditional event was sent, for this offset.
    pub(crate) fn submitted_at(&mut self, tag: WriterTag, number: i64, offset: u64) {
        self.submitted(tag, number);
        self.writer(tag).expected.insert(number, offset);
    }

    /// The merge of an atomic writer was asked for.
    pub(crate) fn merging(&mut self, tag: WriterTag) {
        self.writer(tag).is_merging = true;
    }

    /// Everything of the writer up to here is stored for sure.
    pub(crate) fn confirmed(&self, tag: WriterTag) -> Option<i64> {
        self.writers.get(&tag).and_then(|writer| writer.confirmed)
    }

    /// A set-up was answered; `confirmed_before` is what was certain when it was asked for.
    pub(crate) fn set_up(
        &mut self,
        tag: WriterTag,
        last: Option<i64>,
        confirmed_before: Option<i64>,
    ) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        check!(
            trace,
            "S25",
            last >= confirmed_before,
            "{name}: set-up of {tag:?} tells {last:?} after {confirmed_before:?} was certain"
        );
        let writer = self.writer(tag);
        if let Some(last) = last {
            let submitted = writer.submitted;
            check!(trace, "S2", last <= submitted, "{name}: {tag:?} {last} was never sent");
        }
        writer.confirmed = writer.confirmed.max(last);
        let confirmed = writer.confirmed;
        self.check_limit(tag, confirmed);
    }

    /// An append was acknowledged, with the segment's length after it.
    pub(crate) fn acknowledged(&mut self, tag: WriterTag, number: i64, length: u64) {
        self.trace.count("acknowledgements");
        let writer = self.writer(tag);
        writer.confirmed = writer.confirmed.max(Some(number));
        let confirmed = writer.confirmed;
        self.end_is(tag, number, length);
        self.grew(length);
        self.check_limit(tag, confirmed);
    }

    fn check_limit(&mut self, tag: WriterTag, confirmed: Option<i64>) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let limit = self.writer(tag).limit;
        let holds = limit.is_none() || confirmed <= limit;
        check!(
            trace,
            "S26",
            holds,
            "{name}: {tag:?} stores {confirmed:?}, and {limit:?} was the last"
        );
    }

    fn end_is(&mut self, tag: WriterTag, number: i64, end: u64) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let known = *self.writer(tag).ends.entry(number).or_insert(end);
        check!(trace, "S1", known == end, "{name}: {tag:?} {number} ends at {known} and at {end}");
    }

    /// Nothing of the writer above `number` is stored or will be.
    pub(crate) fn limited(&mut self, tag: WriterTag, number: Option<i64>) {
        let number = number.unwrap_or(i64::MIN);
        let writer = self.writer(tag);
        writer.limit = Some(writer.limit.map_or(number, |limit| limit.min(number)));
        let confirmed = writer.confirmed;
        self.check_limit(tag, confirmed);
        let found = self.writer(tag).found;
        self.check_limit(tag, found);
    }

    /// A conditional event was refused for good.
    pub(crate) fn refused(&mut self, tag: WriterTag, number: i64) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let writer = self.writer(tag);
        writer.refused.insert(number);
        let is_stored = writer.ends.contains_key(&number);
        check!(trace, "S11", !is_stored, "{name}: {tag:?} {number} is stored and was refused");
    }

    /// The segment has at least this length.
    pub(crate) fn grew(&mut self, length: u64) {
        self.length_floor = self.length_floor.max(length);
        if let Some(end) = self.final_length {
            let (trace, name) = (&self.trace, &self.name);
            check!(trace, "S13", length <= end, "{name}: {length} bytes after sealing at {end}");
        }
    }

    /// A seal is being asked for.
    pub(crate) fn sealing(&mut self) {
        self.may_be_sealed = true;
    }

    /// Somebody was told that the segment is sealed.
    pub(crate) fn sealed(&mut self) {
        let (trace, name) = (&self.trace, &self.name);
        check!(trace, "S25", self.may_be_sealed, "{name} is sealed and nobody asked for it");
        self.is_sealed = true;
    }

    /// A truncation is being asked for.
    pub(crate) fn truncating(&mut self, offset: u64) {
        self.start_ceiling = self.start_ceiling.max(offset);
    }

    /// The segment starts at `offset` or later.
    pub(crate) fn starts_at(&mut self, offset: u64) {
        let (trace, name) = (&self.trace, &self.name);
        let holds = offset <= self.start_ceiling;
        check!(trace, "S14", holds, "{name} starts at {offset} and nobody asked for it");
        self.start_floor = self.start_floor.max(offset);
    }

    /// Properties were told.
    pub(crate) fn described(&mut self, before: Before, length: u64, start: u64, is_sealed: bool) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let floor = before.length;
        check!(trace, "S8", length >= floor, "{name}: length {length} after {floor} was certain");
        let floor = before.start;
        check!(trace, "S14", start >= floor, "{name}: start {start} after {floor} was certain");
        check!(trace, "S13", is_sealed || !before.is_sealed, "{name} is not sealed any more");
        self.starts_at(start);
        self.grew(length);
        if is_sealed {
            self.sealed();
            self.ends_at(length);
        }
    }

    /// The final length of the sealed segment was told.
    pub(crate) fn ends_at(&mut self, length: u64) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let floor = self.length_floor;
        check!(trace, "S13", length >= floor, "{name} ends at {length}, and {floor} was certain");
        let known = *self.final_length.get_or_insert(length);
        check!(trace, "S13", known == length, "{name} ends at {known} and at {length}");
    }

    /// A read was answered that the segment starts behind its offset.
    pub(crate) fn read_below_start(&mut self, offset: u64, start: u64) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let holds = offset < start;
        check!(trace, "S14", holds, "{name}: read at {offset} refused, start {start}");
        self.starts_at(start);
    }

    /// A read was answered with bytes.
    pub(crate) fn read(&mut self, before: Before, offset: u64, data: &[u8], ends_segment: bool) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let floor = before.start;
        check!(trace, "S14", offset >= floor, "{name}: read at {offset}, and it starts at {floor}");
        let end = offset + data.len() as u64;
        trace.add("bytes read", data.len() as u64);
        self.grew(end);
        if ends_segment {
            self.sealed();
            self.ends_at(end);
        }
        self.hold_against_seen(offset, data);
        if offset <= self.seen_bytes() {
            self.extend(end, offset, data);
        } else if !data.is_empty() {
            self.islands.entry(offset).or_insert_with(|| data.to_vec());
        }
        while let Some(island) = self.islands.first_entry() {
            if *island.key() > self.seen.len() as u64 {
                break;
            }
            let (offset, data) = island.remove_entry();
            self.hold_against_seen(offset, &data);
            self.extend(offset + data.len() as u64, offset, &data);
        }
        self.parse();
    }

    fn extend(&mut self, end: u64, offset: u64, data: &[u8]) {
        if end > self.seen_bytes() {
            let new = (self.seen_bytes() - offset) as usize;
            self.seen.extend_from_slice(&data[new..]);
        }
    }

    fn hold_against_seen(&self, offset: u64, data: &[u8]) {
        let from = (offset as usize).min(self.seen.len());
        let to = (offset as usize + data.len()).min(self.seen.len());
        let overlap = &data[..to - from];
        let differs = overlap.iter().zip(&self.seen[from..to]).position(|(new, old)| new != old);
        let (trace, name) = (&self.trace, &self.name);
        check!(
            trace,
            "S7",
            differs.is_none(),
            "{name}: read at {offset} differs from earlier reads at {}",
            from + differs.unwrap_or(0)
        );
    }

    fn parse(&mut self) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        loop {
            match judge(&self.seen[self.parsed..], self.sizes) {
                Judged::Incomplete => return,
                Judged::Wrong => {
                    let at = self.parsed;
                    trace.violation("S2", format_args!("{name}: bytes at {at} were never sent"));
                    return;
                }
                Judged::Event(identity, bytes) => {
                    trace.count("events read");
                    let start = self.parsed as u64;
                    self.parsed += bytes;
                    if !self.found(identity, start) {
                        return;
                    }
                }
            }
        }
    }

    /// An event lies at `start`. Says whether it may.
    fn found(&mut self, identity: EventIdentity, start: u64) -> bool {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let EventIdentity { tag, number } = identity;
        let end = self.parsed as u64;
        if let Some((open, next)) = self.unit {
            let fits = (tag, number) == (open, next);
            check!(trace, "S15", fits, "{name}: {tag:?} {number} inside {open:?}, {next} is next");
        }
        let Some(writer) = self.writers.get_mut(&tag) else {
            trace.violation("S2", format_args!("{name}: {tag:?} {number} was never sent here"));
            return false;
        };
        let previous = writer.found.replace(number);
        let limit = writer.limit;
        let mut holds = number <= writer.submitted && !writer.refused.contains(&number);
        let mut unit = None;
        match writer.discipline {
            Discipline::Dense { first } => {
                holds &= number == previous.map_or(first, |previous| previous + 1);
            }
            Discipline::Conditional => {
                holds &= previous.is_none_or(|previous| number > previous);
                holds &= writer.expected.get(&number) == Some(&start);
            }
            Discipline::Atomic { count } => {
                holds &= writer.is_merging && number == previous.map_or(0, |last| last + 1);
                unit = (number + 1 < count).then_some((tag, number + 1));
            }
        }
        self.unit = unit;
        check!(
            trace,
            "S3/S4/S11/S15",
            holds,
            "{name}: {tag:?} {number} at {start} behind {previous:?}"
        );
        let is_below = limit.is_none_or(|limit| number <= limit);
        check!(trace, "S26", is_below, "{name}: {tag:?} {number} is stored behind {limit:?}");
        if writer.discipline == Discipline::Conditional || writer.ends.contains_key(&number) {
            self.end_is(tag, number, end);
        } else {
            writer.ends.insert(number, end);
        }
        holds
    }

    /// The whole segment was read after everything is quiet: all that was certain must be there.
    pub(crate) fn finished(&mut self, length: u64) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let seen = self.seen_bytes();
        let (floor, parsed) = (self.length_floor, self.parsed as u64);
        check!(trace, "S1", length >= floor, "{name}: {length} bytes left of {floor}");
        check!(trace, "S6", seen == length, "{name}: {seen} bytes were read of {length}");
        check!(trace, "S2", parsed == seen, "{name}: ends inside the event at {parsed}");
        check!(trace, "S15", self.unit.is_none(), "{name}: a transaction is there in part");
        for (tag, writer) in &self.writers {
            let found = writer.found;
            let confirmed = writer.confirmed;
            let holds = match writer.discipline {
                Discipline::Atomic { count } => confirmed.is_none() || found == Some(count - 1),
                Discipline::Dense { .. } | Discipline::Conditional => found >= confirmed,
            };
            check!(
                trace,
                "S1",
                holds,
                "{name}: {tag:?} has {found:?} of {confirmed:?} acknowledged"
            );
        }
    }
}
