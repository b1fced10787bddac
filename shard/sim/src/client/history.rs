//! What all clients asked and were told, taken off the wire and judged as it happens.
//!
//! The roles know nothing of it: every command that leaves a client is an invocation, every reply
//! ends one, and the end of a connection leaves the rest with an unknown outcome. Only walks over
//! tables, which take several requests, are told by those who walk.

mod tail;
mod translate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use thalweg_checker::id::{OperationId, Segment, SessionId, Writer};
use thalweg_checker::record::{
    Discipline, Happened, Operation, Outcome, Part, ProcessEvent, Refusal,
};
use thalweg_checker::{Certain, Checker, Violation};
use thalweg_wire::{Command, DataAppended, NO_EVENT_NUMBER, TableEntry};

use self::tail::Tails;
use self::translate::{answer_of, entries_of, operation_of, tag_of};
use crate::clock::MILLISECOND;
use crate::payload::{EventIdentity, EventSizes, WriterTag};
use crate::trace::{Trace, check};

/// An append that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: OperationId,
    writer: Writer,
    last: i64,
}

/// One client's side.
#[derive(Debug, Default)]
struct Talk {
    session: SessionId,
    /// Where each writer of this connection appends.
    segments: BTreeMap<u128, Segment>,
    open: BTreeMap<i64, OperationId>,
    appends: VecDeque<Sent>,
    /// Segments that end with the connection.
    transients: Vec<Segment>,
    /// It was made after the last fault.
    is_calm: bool,
}

/// The history of a world.
#[derive(Debug)]
pub(crate) struct History {
    checker: Checker,
    trace: Trace,
    sizes: EventSizes,
    operations: u64,
    sessions: u64,
    talks: BTreeMap<usize, Talk>,
    /// Which clients write as this writer.
    users: BTreeMap<Writer, BTreeSet<usize>>,
    /// Walks over tables, by client.
    walks: BTreeMap<usize, OperationId>,
    /// Segments written aside: by whom, and how many events were sent.
    sources: BTreeMap<Segment, (Writer, u32)>,
    tails: Tails,
    /// When everything begins to work, nanoseconds.
    calm_from: u64,
    is_violated: bool,
}

impl History {
    /// Nothing happened yet.
    pub(crate) fn new(trace: Trace, sizes: EventSizes) -> Self {
        Self {
            checker: Checker::new(),
            trace,
            sizes,
            operations: 0,
            sessions: 0,
            talks: BTreeMap::new(),
            users: BTreeMap::new(),
            walks: BTreeMap::new(),
            sources: BTreeMap::new(),
            tails: Tails::default(),
            calm_from: u64::MAX,
            is_violated: false,
        }
    }

    /// What is certain of a segment.
    pub(crate) fn certain(&self, segment: &str) -> Certain {
        self.checker.certain(segment)
    }

    /// All keys of a table that anybody spoke of.
    pub(crate) fn keys(&self, table: &str) -> Vec<Bytes> {
        let keys = self.checker.keys(table);
        keys.iter().map(|key| Bytes::copy_from_slice(key.as_str().as_bytes())).collect()
    }

    /// Nothing more will happen; `is_whole`: everything was read back.
    pub(crate) fn finish(&mut self, is_whole: bool) {
        let summary = self.checker.summary();
        self.trace.add("events acknowledged", summary.acknowledged);
        self.trace.add("events read", summary.found);
        self.trace.add("answers searched for", summary.searched);
        let checker = std::mem::take(&mut self.checker);
        if self.is_violated || !is_whole {
            return;
        }
        match checker.finish() {
            Ok(summary) => self.trace.add("searches given up", summary.given_up),
            Err(violation) => self.report(&violation),
        }
    }

    fn report(&mut self, violation: &Violation) {
        self.is_violated = true;
        self.trace.violation(violation.invariant, format_args!("{}", violation.text));
    }

    fn observe(&mut self, happened: Happened) {
        if self.is_violated {
            return;
        }
        if let Err(violation) = self.checker.take(happened) {
            self.report(&violation);
        }
    }

    fn invoke(&mut self, client: usize, operation: Operation) -> OperationId {
        self.operations += 1;
        let id = OperationId(self.operations);
        let session = self.talks.entry(client).or_default().session;
        self.observe(Happened::Invoke { id, session, operation });
        id
    }

    fn end(&mut self, id: OperationId, answer: Result<Outcome, Refusal>) {
        self.observe(match answer {
            Ok(outcome) => Happened::Ok { id, outcome },
            Err(refusal) => Happened::Fail { id, refusal },
        });
    }

    /// A writer will write.
    pub(crate) fn introduce(&mut self, segment: &str, tag: WriterTag, discipline: Discipline) {
        let (segment, writer) = (Segment::new(segment), Writer(tag.0));
        self.observe(Happened::Writer { segment, writer, discipline, continues: None });
    }

    /// The process ended.
    pub(crate) fn process(&mut self, event: ProcessEvent) {
        self.observe(Happened::Process(event));
    }

    /// The segment was read to this length after all was quiet.
    pub(crate) fn read_back(&mut self, segment: &str, length: u64) {
        self.observe(Happened::ReadBack { segment: Segment::new(segment), length });
    }

    /// A client begins to walk over all keys of a table.
    pub(crate) fn walk_begins(&mut self, client: usize, table: &str) {
        let segment = Segment::new(table);
        let id = self.invoke(client, Operation::TableIterate { segment, prefix: String::new() });
        self.walks.insert(client, id);
    }

    /// It came to the end and met these.
    pub(crate) fn walk_ends<'e>(
        &mut self,
        client: usize,
        met: impl Iterator<Item = &'e TableEntry>,
    ) {
        let Some(id) = self.walks.remove(&client) else { return };
        self.trace.count("table iterations checked");
        self.end(id, Ok(Outcome::Entries { entries: entries_of(met) }));
    }

    /// It did not.
    pub(crate) fn walk_lost(&mut self, client: usize) {
        let Some(id) = self.walks.remove(&client) else { return };
        self.observe(Happened::Info { id });
    }

    /// A client has a new connection.
    pub(crate) fn connected(&mut self, client: usize) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let is_calm = self.is_calm();
        self.talks.insert(client, Talk { session, is_calm, ..Talk::default() });
    }

    /// Nothing fails or stands still from then on.
    pub(crate) fn is_calm_from(&mut self, nanos: u64) {
        self.calm_from = nanos;
    }

    fn is_calm(&self) -> bool {
        self.trace.nanos() >= self.calm_from
    }

    /// A read is over; its reader must have been woken in time.
    fn read_over(&mut self, client: usize, request: i64) {
        let Some(woken) = self.tails.over((client, request), self.trace.nanos()) else { return };
        self.trace.count("waiting readers woken");
        let (offset, milliseconds) = (woken.offset, woken.after / MILLISECOND);
        check!(
            self.trace,
            "L5",
            !woken.is_late(),
            "client {client} waits at {offset}, {milliseconds} ms after that was there"
        );
    }

    /// A client's connection is gone.
    pub(crate) fn closed(&mut self, client: usize) {
        let Some(talk) = self.talks.remove(&client) else { return };
        for (client, request) in self.tails.of(client) {
            self.read_over(client, request);
        }
        let appends = talk.appends.into_iter().map(|sent| sent.id);
        for id in talk.open.into_values().chain(appends) {
            self.observe(Happened::Info { id });
        }
        for segment in talk.transients {
            let id = self.invoke(client, Operation::Delete { segment });
            self.observe(Happened::Info { id });
        }
    }

    /// A client sends a command.
    pub(crate) fn sent(&mut self, client: usize, command: &Command) {
        match command {
            Command::AppendBlockEnd(block) => {
                let last = block.last_event_number;
                let first = last - i64::from(block.event_count) + 1;
                self.appended(client, block.writer_id, first, last, None);
            }
            Command::ConditionalAppend(append) => {
                let (number, expected) = (append.event_number, append.expected_offset);
                self.appended(client, append.writer_id, number, number, Some(expected as u64));
            }
            Command::ConditionalBlockEnd(append) => {
                let (number, expected) = (append.event_number, append.expected_offset);
                self.appended(client, append.writer_id, number, number, Some(expected as u64));
            }
            Command::MergeSegments(merge) => {
                let sources = [merge.source.as_str()].into_iter();
                let id = self.merging(client, merge.target.as_str(), sources);
                self.talks.entry(client).or_default().open.insert(merge.request_id, id);
            }
            Command::MergeSegmentsBatch(merge) => {
                let sources = merge.sources.iter().map(|source| source.as_str());
                let id = self.merging(client, merge.target.as_str(), sources);
                self.talks.entry(client).or_default().open.insert(merge.request_id, id);
            }
            _ => {
                if let Command::SetupAppend(setup) = command {
                    self.setting_up(client, setup.segment.as_str(), setup.writer_id);
                }
                if let (Some(operation), Some(request)) =
                    (operation_of(command), command.request_id())
                {
                    let talk = self.talks.entry(client).or_default();
                    if let (true, Operation::Read { segment, offset }) = (talk.is_calm, &operation)
                    {
                        let now = self.trace.nanos();
                        self.tails.asked((client, request), segment, *offset, now);
                    }
                    let id = self.invoke(client, operation);
                    self.talks.entry(client).or_default().open.insert(request, id);
                }
            }
        }
    }

    fn setting_up(&mut self, client: usize, segment: &str, writer_id: u128) {
        let (segment, writer) = (Segment::new(segment), tag_of(writer_id));
        self.users.entry(writer).or_default().insert(client);
        let talk = self.talks.entry(client).or_default();
        talk.segments.insert(writer_id, segment.clone());
        if segment.as_str().contains("#trans") && !self.sources.contains_key(&segment) {
            self.sources.insert(segment.clone(), (writer, 0));
            let discipline = Discipline::Dense { first: 0 };
            self.observe(Happened::Writer { segment, writer, discipline, continues: None });
        }
    }

    fn appended(
        &mut self,
        client: usize,
        writer_id: u128,
        first: i64,
        last: i64,
        expected: Option<u64>,
    ) {
        let writer = tag_of(writer_id);
        let talk = self.talks.entry(client).or_default();
        let Some(segment) = talk.segments.get(&writer_id).cloned() else { return };
        let tag = WriterTag(writer.0);
        let bytes = (first..=last)
            .map(|number| EventIdentity { tag, number }.framed_bytes(self.sizes))
            .sum();
        let count = (last - first + 1) as u32;
        if let Some((_, sent)) = self.sources.get_mut(&segment) {
            *sent = (*sent).max(last as u32 + 1);
        }
        let operation = match expected {
            None => Operation::Append { segment, writer, first, count, bytes },
            Some(expected) => {
                Operation::ConditionalAppend { segment, writer, number: first, expected, bytes }
            }
        };
        let id = self.invoke(client, operation);
        let sent = Sent { id, writer, last };
        self.talks.entry(client).or_default().appends.push_back(sent);
    }

    /// Asks for a merge; gives what ends when it is answered.
    fn merging<'s>(
        &mut self,
        client: usize,
        target: &str,
        sources: impl Iterator<Item = &'s str>,
    ) -> OperationId {
        let part = |source: &str| {
            let (transaction, count) = *self.sources.get(source)?;
            let segment = Segment::new(target);
            Some(Part { transaction, segment, count, source: Some(Segment::new(source)) })
        };
        let parts = sources.filter_map(part).collect();
        self.invoke(client, Operation::Commit { parts })
    }

    /// A client knows by what it was told later that these were merged.
    pub(crate) fn merged<'s>(
        &mut self,
        client: usize,
        target: &str,
        sources: impl Iterator<Item = &'s str>,
    ) {
        let id = self.merging(client, target, sources);
        self.end(id, Ok(Outcome::Done));
    }

    /// A client receives a command.
    pub(crate) fn received(&mut self, client: usize, reply: &Command) {
        let Some(talk) = self.talks.get_mut(&client) else { return };
        if let Command::SegmentCreated(created) = reply
            && created.segment.as_str().contains("#transient")
        {
            talk.transients.push(Segment::new(created.segment.as_str()));
        }
        match reply {
            Command::DataAppended(appended) => self.acknowledged(client, appended),
            Command::InvalidEventNumber(invalid) => {
                let writer = tag_of(invalid.writer_id);
                self.stale(client, writer);
            }
            Command::ConditionalCheckFailed(_) => {
                if let Some(sent) = talk.appends.pop_front() {
                    self.end(sent.id, Err(Refusal::ConditionFailed));
                }
            }
            _ => {
                let request = reply.request_id();
                let id = request.and_then(|request| talk.open.remove(&request));
                self.read_over(client, request.unwrap_or(-1));
                match reply {
                    Command::SegmentSealed(sealed) => self.grew(sealed.segment.as_str(), u64::MAX),
                    Command::SegmentsMerged(merged) => {
                        let length = u64::try_from(merged.new_target_write_offset).unwrap_or(0);
                        self.grew(merged.target.as_str(), length);
                    }
                    _ => {}
                }
                match (id, answer_of(reply), reply) {
                    (Some(id), Some(answer), _) => self.end(id, answer),
                    (Some(id), None, _) => self.observe(Happened::Info { id }),
                    (None, _, Command::SegmentIsSealed(_)) => self.sealed_out(client),
                    _ => {}
                }
            }
        }
    }

    /// The session of a writer is over: what it has in flight is not stored by it.
    fn stale(&mut self, client: usize, writer: Writer) {
        let Some(talk) = self.talks.get_mut(&client) else { return };
        let (ended, others) = std::mem::take(&mut talk.appends)
            .into_iter()
            .partition::<VecDeque<Sent>, _>(|sent| sent.writer == writer);
        talk.appends = others;
        for sent in ended {
            self.end(sent.id, Err(Refusal::Stale));
        }
    }

    fn grew(&mut self, segment: &str, length: u64) {
        if self.is_calm() {
            self.tails.grew(&Segment::new(segment), length, self.trace.nanos());
        }
    }

    fn acknowledged(&mut self, client: usize, appended: &DataAppended) {
        let told = u64::try_from(appended.current_segment_write_offset).ok();
        let talk = self.talks.get(&client);
        let segment = talk.and_then(|talk| talk.segments.get(&appended.writer_id)).cloned();
        if let (Some(segment), Some(length)) = (segment, told) {
            self.grew(segment.as_str(), length);
        }
        let (writer, number) = (tag_of(appended.writer_id), appended.event_number);
        let previous = appended.previous_event_number;
        let mut previous = (previous != NO_EVENT_NUMBER).then_some(previous);
        while let Some(talk) = self.talks.get_mut(&client)
            && talk.appends.front().is_some_and(|sent| sent.writer == writer && sent.last <= number)
        {
            let Some(sent) = talk.appends.pop_front() else { return };
            let length = told.filter(|_| sent.last == number);
            let previous = previous.take();
            self.end(sent.id, Ok(Outcome::Appended { length, previous }));
        }
    }

    /// The appends in flight are refused for good, unless somebody else writes as the same writer.
    fn sealed_out(&mut self, client: usize) {
        let Some(talk) = self.talks.get_mut(&client) else { return };
        for sent in std::mem::take(&mut talk.appends) {
            let is_alone = self.users.get(&sent.writer).is_none_or(|users| users.len() < 2);
            if is_alone {
                self.end(sent.id, Err(Refusal::Sealed));
            } else {
                self.observe(Happened::Info { id: sent.id });
            }
        }
    }
}

#[cfg(test)]
mod tests;
