//! What all clients asked and were told, taken off the wire and judged as it happens.
//!
//! The roles know nothing of it: every command that leaves a client is an invocation, every reply
//! ends one, and the end of a connection leaves the rest with an unknown outcome. Walks over tables
//! take several requests and are judged by their role.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thalweg_checker::Checker;
use thalweg_checker::id::{Attribute, Key, OperationId, Segment, SessionId, Value, Writer};
use thalweg_checker::record::{
    AttributeCondition, Data, Discipline, Entry, Happened, KeyCondition, Operation, Outcome, Part,
    ProcessEvent, Put, Refusal, Removal,
};
use thalweg_wire::{
    Command, DataAppended, KEY_NO_VERSION, KEY_NOT_EXISTS, NO_EVENT_NUMBER, NULL_ATTRIBUTE_VALUE,
    TableEntry, TableKey,
};

use crate::payload::{EventIdentity, EventSizes, WriterTag};
use crate::trace::Trace;

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
    /// Segments written aside: by whom, and how many events were sent.
    sources: BTreeMap<Segment, (Writer, u32)>,
    is_violated: bool,
}

fn tag_of(writer_id: u128) -> Writer {
    Writer(writer_id as u64)
}

fn key_of(key: &[u8]) -> Key {
    Key::new(&String::from_utf8_lossy(key))
}

fn attribute_value(value: i64) -> Option<i64> {
    (value != NULL_ATTRIBUTE_VALUE).then_some(value)
}

fn condition_of(key: &TableKey) -> KeyCondition {
    match key.version {
        KEY_NO_VERSION => KeyCondition::Always,
        KEY_NOT_EXISTS => KeyCondition::Absent,
        version => KeyCondition::Version(version),
    }
}

fn entries_of(entries: &[TableEntry]) -> Vec<Entry> {
    entries
        .iter()
        .filter(|entry| entry.key.version != KEY_NOT_EXISTS)
        .map(|entry| Entry {
            key: key_of(&entry.key.key),
            value: Value::of(&entry.value),
            version: entry.key.version,
        })
        .collect()
}

/// What a plain request asks for; appends and merges are not plain.
fn operation_of(command: &Command) -> Option<Operation> {
    let name = |text: &thalweg_wire::Text| Segment::new(text.as_str());
    Some(match command {
        Command::CreateSegment(ask) => Operation::Create { segment: name(&ask.segment) },
        Command::CreateTableSegment(ask) => Operation::Create { segment: name(&ask.segment) },
        Command::DeleteSegment(ask) => Operation::Delete { segment: name(&ask.segment) },
        Command::SealSegment(ask) => Operation::Seal { segment: name(&ask.segment) },
        Command::TruncateSegment(ask) => Operation::Truncate {
            segment: name(&ask.segment),
            offset: ask.truncation_offset as u64,
        },
        Command::SetupAppend(ask) => {
            Operation::SetUp { segment: name(&ask.segment), writer: tag_of(ask.writer_id) }
        }
        Command::ReadSegment(ask) => {
            Operation::Read { segment: name(&ask.segment), offset: ask.offset as u64 }
        }
        Command::GetStreamSegmentInfo(ask) => Operation::Info { segment: name(&ask.segment) },
        Command::GetSegmentAttribute(ask) => Operation::AttributeRead {
            segment: name(&ask.segment),
            attribute: Attribute(ask.attribute_id as u64),
        },
        Command::UpdateSegmentAttribute(ask) => Operation::AttributeUpdate {
            segment: name(&ask.segment),
            attribute: Attribute(ask.attribute_id as u64),
            condition: AttributeCondition::Is(attribute_value(ask.expected_value)),
            value: attribute_value(ask.new_value),
        },
        Command::UpdateTableEntries(ask) => {
            let put = |entry: &TableEntry| Put {
                key: key_of(&entry.key.key),
                value: Value::of(&entry.value),
                condition: condition_of(&entry.key),
            };
            let entries = ask.entries.iter().map(put).collect();
            Operation::TableUpdate { segment: name(&ask.segment), entries }
        }
        Command::RemoveTableKeys(ask) => {
            let removal =
                |key: &TableKey| Removal { key: key_of(&key.key), condition: condition_of(key) };
            let keys = ask.keys.iter().map(removal).collect();
            Operation::TableRemove { segment: name(&ask.segment), keys }
        }
        Command::ReadTable(ask) => {
            let keys = ask.keys.iter().map(|key| key_of(&key.key)).collect();
            Operation::TableRead { segment: name(&ask.segment), keys }
        }
        _ => return None,
    })
}

/// What a reply to a plain request tells.
fn answer_of(reply: &Command) -> Option<Result<Outcome, Refusal>> {
    let length =
        |told: i64| u64::try_from(told).map_or(Outcome::Done, |length| Outcome::Merged { length });
    Some(match reply {
        Command::SegmentCreated(_)
        | Command::SegmentDeleted(_)
        | Command::SegmentSealed(_)
        | Command::SegmentTruncated(_)
        | Command::TableKeysRemoved(_) => Ok(Outcome::Done),
        Command::AppendSetup(setup) => {
            let last = setup.last_event_number;
            Ok(Outcome::SetUp { last: (last != NO_EVENT_NUMBER).then_some(last) })
        }
        Command::SegmentRead(read) => Ok(Outcome::Read {
            data: Data::Bytes(read.data.to_vec()),
            ends: read.end_of_segment,
            tail: false,
        }),
        Command::StreamSegmentInfo(info) => Ok(Outcome::Info {
            length: info.write_offset as u64,
            start: info.start_offset as u64,
            sealed: info.is_sealed,
        }),
        Command::SegmentAttribute(attribute) => {
            Ok(Outcome::Attribute { value: attribute_value(attribute.value) })
        }
        Command::SegmentAttributeUpdated(updated) if updated.success => Ok(Outcome::Done),
        Command::SegmentAttributeUpdated(_)
        | Command::TableKeyBadVersion(_)
        | Command::TableKeyDoesNotExist(_) => Err(Refusal::ConditionFailed),
        Command::TableEntriesUpdated(updated) => {
            Ok(Outcome::Versions { versions: updated.updated_versions.clone() })
        }
        Command::TableRead(read) => Ok(Outcome::Entries { entries: entries_of(&read.entries) }),
        Command::SegmentsMerged(merged) => Ok(length(merged.new_target_write_offset)),
        Command::SegmentsBatchMerged(batch) => {
            let all = batch.merged.iter().map(|one| one.new_target_write_offset);
            Ok(length(all.max().unwrap_or(-1)))
        }
        Command::SegmentAlreadyExists(_) => Err(Refusal::Exists),
        Command::NoSuchSegment(_) => Err(Refusal::NoSuchSegment),
        Command::SegmentIsSealed(_) => Err(Refusal::Sealed),
        Command::SegmentIsTruncated(told) => {
            Err(Refusal::Truncated { start: told.start_offset as u64 })
        }
        Command::WrongHost(_) => Err(Refusal::Unavailable),
        _ => return None,
    })
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
            sources: BTreeMap::new(),
            is_violated: false,
        }
    }

    fn observe(&mut self, happened: Happened) {
        if self.is_violated {
            return;
        }
        if let Err(violation) = self.checker.take(happened) {
            self.is_violated = true;
            let text = &violation.text;
            self.trace.violation(violation.invariant, format_args!("history: {text}"));
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

    /// A client has a new connection.
    pub(crate) fn connected(&mut self, client: usize) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.talks.insert(client, Talk { session, ..Talk::default() });
    }

    /// A client's connection is gone.
    pub(crate) fn closed(&mut self, client: usize) {
        let Some(talk) = self.talks.remove(&client) else { return };
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
                let sources = std::slice::from_ref(&merge.source);
                self.merging(client, merge.request_id, merge.target.as_str(), sources);
            }
            Command::MergeSegmentsBatch(merge) => {
                let target = merge.target.as_str();
                self.merging(client, merge.request_id, target, &merge.sources);
            }
            _ => {
                if let Command::SetupAppend(setup) = command {
                    self.setting_up(client, setup.segment.as_str(), setup.writer_id);
                }
                if let (Some(operation), Some(request)) =
                    (operation_of(command), command.request_id())
                {
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

    fn merging(
        &mut self,
        client: usize,
        request: i64,
        target: &str,
        sources: &[thalweg_wire::Text],
    ) {
        let part = |source: &thalweg_wire::Text| {
            let source = Segment::new(source.as_str());
            let (transaction, count) = *self.sources.get(&source)?;
            let segment = Segment::new(target);
            Some(Part { transaction, segment, count, source: Some(source) })
        };
        let parts = sources.iter().filter_map(part).collect();
        let id = self.invoke(client, Operation::Commit { parts });
        self.talks.entry(client).or_default().open.insert(request, id);
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
            Command::ConditionalCheckFailed(_) => {
                if let Some(sent) = talk.appends.pop_front() {
                    self.end(sent.id, Err(Refusal::ConditionFailed));
                }
            }
            _ => {
                let id = reply.request_id().and_then(|request| talk.open.remove(&request));
                match (id, answer_of(reply), reply) {
                    (Some(id), Some(answer), _) => self.end(id, answer),
                    (Some(id), None, _) => self.observe(Happened::Info { id }),
                    (None, _, Command::SegmentIsSealed(_)) => self.sealed_out(client),
                    _ => {}
                }
            }
        }
    }

    fn acknowledged(&mut self, client: usize, appended: &DataAppended) {
        let (writer, number) = (tag_of(appended.writer_id), appended.event_number);
        let previous = appended.previous_event_number;
        let mut previous = (previous != NO_EVENT_NUMBER).then_some(previous);
        while let Some(talk) = self.talks.get_mut(&client)
            && talk.appends.front().is_some_and(|sent| sent.writer == writer && sent.last <= number)
        {
            let Some(sent) = talk.appends.pop_front() else { return };
            let told = u64::try_from(appended.current_segment_write_offset).ok();
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
