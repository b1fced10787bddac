//! The engine on a journal in memory, with the model beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use thalweg_core::engine::Engine;
use thalweg_core::env::journal::{Journal, JournalEvent};
use thalweg_core::env::memory::MemoryJournal;
use thalweg_core::id::{
    AttributeId, ConnectionId, ContainerId, SegmentName, SessionId, ShardId, Token, WriterId,
};
use thalweg_core::limits::Limits;
use thalweg_core::position::Offset;
use thalweg_core::request::{
    Append, AttributeUpdate, AttributeUpdateKind, CloseReason, Create, Effect, Peer, Refusal,
    Reply, Request, SegmentKind, TableEntry, TableKey, VersionCondition,
};
use thalweg_core::time::{Instant, Now, WallTime};

use super::state::{EVENT_COUNT, Merged, NULL, Segment, State};
use crate::{Condition, Step};

pub(super) const CONTAINER: ContainerId = ContainerId(2);
const READER: u64 = 90;
const WALL: i64 = 1_000;
const PARKED: Duration = Duration::from_secs(5);

/// What an open request has to be answered with.
#[derive(Debug)]
pub(super) enum Expected {
    Exactly(String),
    Appended { event_number: i64, length: u64 },
    Read { incarnation: u64, name: String, offset: u64, length: u32 },
    Any,
}

/// A session that the model knows to be set up.
#[derive(Clone, Debug)]
pub(super) struct Session {
    id: SessionId,
    incarnation: u64,
    name: String,
    has_failed: bool,
    /// The request whose conditional refusal is on its way.
    refused_by: Option<i64>,
}

pub(crate) struct Rig {
    pub(super) engine: Engine,
    pub(super) journal: MemoryJournal,
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
    pub(super) next_request: i64,
    pub(super) next_session: u64,
    pub(super) next_incarnation: u64,
    pub(super) state: State,
    /// The model after each request that may have changed it, with that request; the first is
    /// durable.
    pub(super) moments: Vec<(i64, State)>,
    pub(super) expected: BTreeMap<i64, Expected>,
    /// Content of every incarnation there was.
    pub(super) contents: BTreeMap<u64, Vec<u8>>,
    /// How far an incarnation was read or acknowledged.
    pub(super) seen: BTreeMap<u64, u64>,
    /// Requests whose change was answered.
    pub(super) answered: i64,
    pub(super) sessions: BTreeMap<(String, u8), Session>,
    pub(super) transients: Vec<String>,
    pub(super) fetches: Vec<Effect>,
}

pub(super) fn limits() -> Limits {
    Limits {
        frame_bytes: 4096,
        slab_bytes: 4 * 4096,
        tail_cache_bytes: 3 * 4096,
        history_cache_bytes: 3 * 4096,
        checkpoint_interval_bytes: 6 * 4096,
        checkpoint_part_bytes: 700,
        parked_read: PARKED,
        ..Limits::default()
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut rig = Self {
            engine: Engine::new(ShardId(1), &[CONTAINER], limits()),
            journal: MemoryJournal::new(6),
            now: Now { monotonic: Instant(1), wall: WallTime(WALL) },
            effects: Vec::new(),
            next_request: 0,
            next_session: 0,
            next_incarnation: 0,
            state: State::default(),
            moments: vec![(0, State::default())],
            expected: BTreeMap::new(),
            contents: BTreeMap::new(),
            seen: BTreeMap::new(),
            answered: 0,
            sessions: BTreeMap::new(),
            transients: Vec::new(),
            fetches: Vec::new(),
        };
        rig.journal.hold(true);
        rig.recover();
        let kind = SegmentKind::Table { key_length: 0 };
        rig.ask(1, create("table", kind), Expected::Any);
        rig.settle();
        rig
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::Create(segment) => self.create(&self.name(segment % 6)),
            Step::Transient(writer) => self.create_transient(writer),
            Step::SetUp(segment, writer) => self.set_up(&self.name(segment), writer),
            Step::Append(segment, writer, bytes, condition) => {
                self.append(&self.name(segment), writer % 3, bytes, condition);
            }
            Step::Read(segment, at, length) => self.read(&self.name(segment), at, length),
            Step::Info(segment) => self.info(&self.name(segment)),
            Step::Attribute(segment, id) => self.attribute(&self.name(segment), id),
            Step::Seal(segment) => self.seal(&self.name(segment)),
            Step::Truncate(segment, at) => self.truncate(&self.name(segment), at),
            Step::Delete(segment) => self.delete(&self.name(segment)),
            Step::Merge(target, source, update) => {
                self.merge(&self.name(target), &self.name(source), update);
            }
            Step::MergeBatch(target, first, second) => {
                let sources = [self.name(first), self.name(second)];
                self.merge_batch(&self.name(target), &sources);
            }
            Step::UpdateAttribute(segment, id, fits) => {
                self.update_attribute(&self.name(segment), id, fits);
            }
            Step::PutKey(key, value) => self.put_key(key, value),
            Step::RemoveKey(key) => self.remove_key(key),
            Step::ReadKeys => self.read_keys(),
            Step::CloseWriter(writer) => self.close_writer(writer),
            Step::CloseReader => self.close_reader(),
            Step::Submit(frames) => self.submit(frames),
            Step::MakeDurable(frames) => {
                self.journal.make_durable(u64::from(frames));
                self.poll();
            }
            Step::Fetch => self.fetch(),
            Step::Expire => {
                self.now.monotonic = self.now.monotonic.after(PARKED);
                self.engine.tick(self.now, &mut self.effects);
                self.compare();
            }
            Step::Settle => self.settle(),
            Step::Crash(survivors) => self.crash(survivors),
        }
    }

    /// Everything becomes durable, and a last restart finds all of it.
    pub(crate) fn finish(&mut self) {
        self.settle();
        let open: Vec<&Expected> =
            self.expected.values().filter(|open| !matches!(open, Expected::Read { .. })).collect();
        assert!(open.is_empty(), "never answered: {open:?}");
        self.crash(0);
    }

    /// Six segments that come and go, and the transient ones.
    fn name(&self, number: u8) -> String {
        match number {
            0..6 => format!("segment-{number}"),
            _ if self.transients.is_empty() => "segment-0".to_owned(),
            _ => self.transients[usize::from(number) % self.transients.len()].clone(),
        }
    }

    fn ask(&mut self, connection: u64, request: Request, expected: Expected) -> i64 {
        self.next_request += 1;
        let connection = ConnectionId(connection);
        let token = Token { shard: ShardId(1), connection, request: self.next_request };
        self.expected.insert(self.next_request, expected);
        self.moments.push((self.next_request, self.state.clone()));
        self.engine.request(self.now, CONTAINER, token, request, &mut self.effects);
        self.compare();
        self.next_request
    }

    fn create(&mut self, name: &str) {
        let segment = SegmentName::from(name);
        let expected = if self.state.segments.contains_key(name) {
            refused(Refusal::SegmentExists { segment })
        } else {
            self.next_incarnation += 1;
            self.contents.insert(self.next_incarnation, Vec::new());
            let made = Segment::new(self.next_incarnation, false);
            self.state.segments.insert(name.to_owned(), made);
            done(Reply::Created { segment })
        };
        self.ask(1, create(name, SegmentKind::Stream), expected);
    }

    /// The name is known from the answer only, so this waits for it.
    fn create_transient(&mut self, writer: u8) {
        self.settle();
        let parent = SegmentName::from("segment-0");
        let writer = WriterId(u128::from(writer));
        self.next_request += 1;
        let connection = ConnectionId(1);
        let token = Token { shard: ShardId(1), connection, request: self.next_request };
        let request = Request::CreateTransient { parent, writer };
        self.engine.request(self.now, CONTAINER, token, request, &mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        self.submit(4);
        self.journal.make_durable(100);
        let mut events = Vec::new();
        self.journal.poll(self.now.monotonic, &mut events);
        for event in events {
            self.pass(event);
        }
        effects.append(&mut self.effects);
        let found = effects.iter().find_map(|effect| match effect {
            Effect::Reply { token: to, reply: Ok(Reply::Created { segment }) } if *to == token => {
                Some(segment.as_str().to_owned())
            }
            _ => None,
        });
        self.effects = effects;
        self.effects
            .retain(|effect| !matches!(effect, Effect::Reply { token: to, .. } if *to == token));
        let name = found.expect("a transient segment is created");
        self.next_incarnation += 1;
        self.contents.insert(self.next_incarnation, Vec::new());
        let made = Segment::new(self.next_incarnation, true);
        self.state.segments.insert(name.clone(), made);
        self.transients.push(name);
        self.moments.push((self.next_request, self.state.clone()));
        self.answered = self.next_request;
        self.compare();
    }

    fn set_up(&mut self, name: &str, writer: u8) {
        self.next_session += 1;
        let id = SessionId(self.next_session);
        let request =
            Request::SetupAppend { session: id, writer: writer_id(writer), segment: name.into() };
        let expected = match self.state.segments.get(name) {
            None => no_such_segment(name, -1),
            Some(segment) => {
                let session = Session {
                    id,
                    incarnation: segment.incarnation,
                    name: name.to_owned(),
                    has_failed: false,
                    refused_by: None,
                };
                self.sessions.insert((name.to_owned(), writer), session);
                done(Reply::AppendSetup {
                    session: id,
                    container: CONTAINER,
                    segment: name.into(),
                    writer: writer_id(writer),
                    last_event_number: segment.attribute(writer_id(writer).0),
                })
            }
        };
        self.ask(writer_connection(writer), request, expected);
    }

    fn append(&mut self, name: &str, writer: u8, bytes: u16, condition: Condition) {
        let key = (name.to_owned(), writer);
        if !self.sessions.contains_key(&key) {
            self.set_up(name, writer);
        }
        let Some(session) = self.sessions.get(&key).cloned() else { return };
        let incarnation = session.incarnation;
        let segment = self
            .state
            .segments
            .get(&session.name)
            .filter(|segment| segment.incarnation == incarnation);
        let last = segment.map_or(0, |segment| segment.attribute(writer_id(writer).0));
        let length = segment.map_or(0, Segment::length);
        let stale = matches!(condition, Condition::Stale);
        let event_number = if stale { last.max(0) } else { last.max(0) + 3 };
        let is_stale = event_number <= last;
        let expected_offset = match condition {
            Condition::Right => Some(Offset(length)),
            Condition::Wrong => Some(Offset(length + 1)),
            Condition::None | Condition::Stale => None,
        };
        let is_refusal_open =
            session.refused_by.is_some_and(|request| self.expected.contains_key(&request));
        let writer_id = writer_id(writer);
        let seed = self.next_request as u8;
        let data: Vec<u8> = (0..bytes).map(|at| seed.wrapping_add(at as u8)).collect();
        let expected = if session.has_failed {
            Expected::Exactly(format!("{:?}", CloseReason::NoSession))
        } else if segment.is_none() {
            no_such_segment(name, -1)
        } else if segment.is_some_and(|segment| segment.is_sealed) {
            refused(Refusal::SegmentSealed { segment: name.into(), offset: event_number })
        } else if is_stale || is_refusal_open {
            self.sessions.get_mut(&key).expect("it is there").has_failed = true;
            refused(Refusal::InvalidEventNumber { writer: writer_id, event_number })
        } else if matches!(condition, Condition::Wrong) {
            self.sessions.get_mut(&key).expect("it is there").refused_by =
                Some(self.next_request + 1);
            refused(Refusal::ConditionalCheckFailed { writer: writer_id, event_number })
        } else {
            let segment = self.state.segments.get_mut(name).expect("it is there");
            segment.content.extend_from_slice(&data);
            segment.set(writer_id.0, event_number);
            segment.count_events(2);
            self.contents.insert(incarnation, segment.content.clone());
            Expected::Appended { event_number, length: segment.length() }
        };
        let data = Bytes::from(data);
        let (head, tail) = (data.slice(..data.len() / 2), data.slice(data.len() / 2..));
        let request = Request::Append(Append {
            session: session.id,
            event_number,
            event_count: 2,
            expected_offset,
            data: [head, tail, Bytes::new()],
        });
        self.ask(writer_connection(writer), request, expected);
    }

    fn read(&mut self, name: &str, at: u16, length: u16) {
        let found = self.state.segments.get(name);
        // Half of the reads at the end, the others anywhere, some behind the end.
        let end = found.map_or(10, Segment::length);
        let offset = if at.is_multiple_of(2) { end } else { u64::from(at) % (end + 3) };
        let length = u32::from(length) + 1;
        let expected = match found {
            None => no_such_segment(name, offset as i64),
            Some(segment) if offset < segment.start => refused(Refusal::SegmentTruncated {
                segment: name.into(),
                start_offset: Offset(segment.start),
                offset: offset as i64,
            }),
            Some(segment) => Expected::Read {
                incarnation: segment.incarnation,
                name: name.to_owned(),
                offset,
                length,
            },
        };
        let request = Request::Read { segment: name.into(), offset: Offset(offset), length };
        self.ask(READER, request, expected);
    }

    fn info(&mut self, name: &str) {
        let expected = match self.state.segments.get(name) {
            None => no_such_segment(name, -1),
            Some(segment) => done(Reply::Info {
                segment: name.into(),
                is_sealed: segment.is_sealed,
                last_modified: WALL,
                length: Offset(segment.length()),
                start_offset: Offset(segment.start),
            }),
        };
        self.ask(1, Request::Info { segment: name.into() }, expected);
    }

    fn attribute(&mut self, name: &str, id: u8) {
        let expected = match self.state.segments.get(name) {
            None => no_such_segment(name, -1),
            Some(segment) => done(Reply::Attribute { value: segment.attribute(attribute_id(id)) }),
        };
        let attribute = AttributeId(attribute_id(id));
        self.ask(1, Request::Attribute { segment: name.into(), attribute }, expected);
    }

    fn seal(&mut self, name: &str) {
        let expected = match self.state.segments.get_mut(name) {
            None => no_such_segment(name, -1),
            Some(segment) => {
                segment.is_sealed = true;
                done(Reply::Sealed { segment: name.into() })
            }
        };
        self.ask(1, Request::Seal { segment: name.into() }, expected);
    }

    fn truncate(&mut self, name: &str, at: u16) {
        let mut offset = 0;
        let expected = match self.state.segments.get_mut(name) {
            None => no_such_segment(name, 0),
            Some(segment) => {
                offset = u64::from(at) % (segment.length() + 3);
                if offset < segment.start || offset > segment.length() {
                    refused(Refusal::SegmentTruncated {
                        segment: name.into(),
                        start_offset: Offset(segment.start),
                        offset: offset as i64,
                    })
                } else {
                    segment.start = offset;
                    done(Reply::Truncated { segment: name.into() })
                }
            }
        };
        let request = Request::Truncate { segment: name.into(), offset: Offset(offset) };
        self.ask(1, request, expected);
    }

    fn delete(&mut self, name: &str) {
        let expected = match self.state.segments.remove(name) {
            None => no_such_segment(name, -1),
            Some(_) => done(Reply::Deleted { segment: name.into() }),
        };
        let kind = SegmentKind::Stream;
        let request = Request::Delete { segment: name.into(), kind, must_be_empty: false };
        self.ask(1, request, expected);
    }

    fn merge(&mut self, target: &str, source: &str, update: Option<bool>) {
        let id = attribute_id(0);
        let current = self.state.segments.get(target).map_or(0, |segment| segment.attribute(id));
        let update = update.map(|fits| (id, if fits { current } else { 12345 }, 77));
        self.seal_source(source);
        let merged = self.state.merge(target, source, update);
        self.remember_content(target);
        let expected = match merged {
            Merged::Length(length) => done(Reply::Merged {
                target: target.into(),
                source: source.into(),
                target_length: Offset(length),
            }),
            Merged::NoSuchSegment => no_such_segment(source, -1),
            Merged::Close => Expected::Exactly(format!("{:?}", CloseReason::Protocol)),
            Merged::Sealed => sealed(source),
            Merged::ConditionFailed => done(Reply::AttributeUpdated { is_updated: false }),
        };
        let attributes = update
            .map(|(id, expected, value)| AttributeUpdate {
                attribute: AttributeId(id),
                kind: AttributeUpdateKind::ReplaceIfEqual,
                value,
                expected,
            })
            .into_iter()
            .collect();
        let (target, source) = (target.into(), source.into());
        self.ask(1, Request::Merge { target, source, attributes }, expected);
    }

    fn merge_batch(&mut self, target: &str, sources: &[String]) {
        let mut lengths = Vec::new();
        let mut failed = None;
        for source in sources {
            let outcome = match self.state.segments.get(target) {
                None => Err(no_such_segment(target, -1)),
                Some(to) if !self.state.segments.contains_key(source) => Ok(to.length()),
                Some(_) => match self.merge_one(target, source) {
                    Merged::Length(length) => Ok(length),
                    Merged::Close => Err(Expected::Exactly(format!("{:?}", CloseReason::Protocol))),
                    Merged::Sealed => Err(sealed(target)),
                    Merged::NoSuchSegment | Merged::ConditionFailed => unreachable!("checked"),
                },
            };
            match outcome {
                Ok(length) => lengths.push((SegmentName::from(source.as_str()), Offset(length))),
                Err(expected) => failed = failed.or(Some(expected)),
            }
        }
        self.remember_content(target);
        let reply = Reply::BatchMerged { target: target.into(), sources: lengths };
        let expected = failed.unwrap_or_else(|| done(reply));
        let sources = sources.iter().map(|source| source.as_str().into()).collect();
        self.ask(1, Request::MergeBatch { target: target.into(), sources }, expected);
    }

    /// One of several: each is a moment of its own.
    fn merge_one(&mut self, target: &str, source: &str) -> Merged {
        self.seal_source(source);
        let merged = self.state.merge(target, source, None);
        self.moments.push((self.next_request + 1, self.state.clone()));
        merged
    }

    /// A crash may find the source sealed and not merged.
    fn seal_source(&mut self, source: &str) {
        if let Some(segment) = self.state.segments.get_mut(source) {
            segment.is_sealed = true;
            self.moments.push((self.next_request + 1, self.state.clone()));
        }
    }

    fn remember_content(&mut self, name: &str) {
        if let Some(segment) = self.state.segments.get(name) {
            self.contents.insert(segment.incarnation, segment.content.clone());
        }
    }

    fn update_attribute(&mut self, name: &str, id: u8, fits: bool) {
        let id = attribute_id(id);
        let value = self.next_request;
        let mut expected_value = 99_999;
        let expected = match self.state.segments.get_mut(name) {
            None => no_such_segment(name, -1),
            Some(segment) => {
                if fits {
                    expected_value = segment.attribute(id);
                }
                if segment.is_sealed {
                    sealed(name)
                } else {
                    if fits {
                        segment.set(id, value);
                    }
                    done(Reply::AttributeUpdated { is_updated: fits })
                }
            }
        };
        let request = Request::UpdateAttribute {
            segment: name.into(),
            attribute: AttributeId(id),
            value,
            expected: expected_value,
        };
        self.ask(1, request, expected);
    }

    fn put_key(&mut self, key: u8, value: u8) {
        self.state.keys.insert(key, value);
        let condition = VersionCondition::Any;
        let key = TableKey { key: Bytes::copy_from_slice(&[key]), condition };
        let entries = vec![TableEntry { key, value: Bytes::copy_from_slice(&[value]) }];
        let segment = "table".into();
        let request = Request::TableUpdate { segment, entries, expected_length: None };
        self.ask(1, request, Expected::Any);
    }

    fn remove_key(&mut self, key: u8) {
        self.state.keys.remove(&key);
        let condition = VersionCondition::Any;
        let keys = vec![TableKey { key: Bytes::copy_from_slice(&[key]), condition }];
        let segment = "table".into();
        let request = Request::TableRemove { segment, keys, expected_length: None };
        let expected = done(Reply::TableRemoved { segment: "table".into() });
        self.ask(1, request, expected);
    }

    fn read_keys(&mut self) {
        let keys = (0..6).map(|key| Bytes::copy_from_slice(&[key])).collect();
        // Versions are the table's affair; what it found is compared when the engine restarts.
        self.ask(1, Request::TableGet { segment: "table".into(), keys }, Expected::Any);
    }

    fn close_writer(&mut self, writer: u8) {
        let connection = writer_connection(writer);
        let peer = Peer { shard: ShardId(1), connection: ConnectionId(connection) };
        self.engine.connection_closed(self.now, peer, &mut self.effects);
        self.sessions.retain(|(_, of), _| writer_connection(*of) != connection);
        self.compare();
    }

    fn close_reader(&mut self) {
        let peer = Peer { shard: ShardId(1), connection: ConnectionId(READER) };
        self.engine.connection_closed(self.now, peer, &mut self.effects);
        // Answers that are queued may still come; nobody listens.
        self.expected.retain(|_, expected| !matches!(expected, Expected::Read { .. }));
        self.compare();
    }

    pub(super) fn submit(&mut self, frames: u8) {
        for _ in 0..frames {
            let Some(bytes) = self.engine.next_frame_bytes() else { return };
            if !self.journal.can_submit(bytes) {
                return;
            }
            let replay_from = self.engine.replay_position();
            let frame = self.engine.seal_frame().expect("there is one");
            assert_eq!(frame.bytes.len() as u64, bytes);
            let number = frame.number;
            let (address, bytes) = self.journal.submit(frame, replay_from, self.now.monotonic);
            self.engine.submitted(number, address, bytes);
        }
        if let Some(position) = self.engine.replay_position() {
            self.journal.trim(position, &|file| self.engine.is_referenced(file));
        }
    }

    fn poll(&mut self) {
        let mut events = Vec::new();
        self.journal.poll(self.now.monotonic, &mut events);
        for event in events {
            self.pass(event);
        }
        self.compare();
    }

    pub(super) fn pass(&mut self, event: JournalEvent) {
        match event {
            JournalEvent::Durable { through } => {
                self.engine.durable(self.now, through, &mut self.effects);
            }
            JournalEvent::Fetched { address, frame } => {
                self.engine.fetched(self.now, address, frame, &mut self.effects);
            }
            JournalEvent::Failed { fault } => panic!("{fault}"),
        }
    }

    fn fetch(&mut self) {
        for effect in std::mem::take(&mut self.fetches) {
            if let Effect::Fetch { address } = effect {
                self.journal.fetch(address);
            }
        }
        self.poll();
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            self.submit(4);
            self.journal.make_durable(100);
            self.poll();
            self.fetch();
            if self.engine.next_frame_bytes().is_none() && self.fetches.is_empty() {
                break;
            }
        }
        assert_eq!(self.engine.accepted_bytes(), 0);
        let last = self.moments.pop().expect("there is one");
        self.moments = vec![last];
    }

    /// Compares what the engine said with what it had to say.
    pub(super) fn compare(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Fetch { .. } => self.fetches.push(effect),
                Effect::Halt { fault, .. } => panic!("{fault}"),
                Effect::Appended { token, event_number, length, .. } => {
                    let expected = self.expected.remove(&token.request);
                    let Some(Expected::Appended { event_number: number, length: end }) = expected
                    else {
                        panic!("acknowledged: {event_number}, expected {expected:?}")
                    };
                    assert_eq!((event_number, length.0), (number, end));
                    self.answered = self.answered.max(token.request);
                }
                Effect::Close { token, reason } => self.check(token, format!("{reason:?}")),
                Effect::Reply {
                    token,
                    reply: Ok(Reply::Read { offset, data, end_of_segment, .. }),
                } => {
                    let data = data.concat();
                    self.check_read(token, offset, &data, end_of_segment);
                }
                Effect::Reply { token, reply } => self.check(token, format!("{reply:?}")),
            }
        }
    }

    fn check(&mut self, token: Token, answer: String) {
        match self.expected.remove(&token.request) {
            Some(Expected::Exactly(expected)) => {
                assert_eq!(answer, expected, "request {}", token.request);
                self.answered = self.answered.max(token.request);
            }
            Some(Expected::Any) => self.answered = self.answered.max(token.request),
            // Parked, and then something happened to the segment.
            Some(Expected::Read { name, incarnation, offset, .. }) => {
                let segment = self.state.segments.get(&name);
                let is_current = segment.is_some_and(|segment| segment.incarnation == incarnation);
                let is_explained = !is_current
                    || segment.is_some_and(|segment| {
                        offset < segment.start || segment.is_sealed && offset > segment.length()
                    });
                assert!(is_explained, "{answer} for a read of {name} at {offset}");
            }
            None if token.connection == ConnectionId(READER) => {}
            other => panic!("{answer}, expected {other:?}"),
        }
    }

    fn check_read(&mut self, token: Token, offset: Offset, data: &[u8], end_of_segment: bool) {
        let expected = match self.expected.remove(&token.request) {
            None if token.connection == ConnectionId(READER) => return,
            expected => expected,
        };
        let Some(Expected::Read { incarnation, offset: asked, length, .. }) = expected else {
            panic!("data read, expected {expected:?}")
        };
        assert_eq!(offset.0, asked);
        assert!(data.len() <= length as usize);
        let content = &self.contents[&incarnation];
        let end = asked as usize + data.len();
        assert!(data.is_empty() || content[asked as usize..end] == *data, "other bytes were read");
        if !data.is_empty() {
            let seen = self.seen.entry(incarnation).or_insert(0);
            *seen = (*seen).max(end as u64);
        }
        if end_of_segment {
            assert_eq!(end, content.len(), "the end was told elsewhere");
        }
    }
}

fn create(name: &str, kind: SegmentKind) -> Request {
    Request::Create(Create {
        segment: name.into(),
        kind,
        scale_type: 0,
        target_rate: 0,
        rollover_bytes: 0,
    })
}

fn done(reply: Reply) -> Expected {
    Expected::Exactly(format!("{:?}", Ok::<Reply, Refusal>(reply)))
}

fn refused(refusal: Refusal) -> Expected {
    Expected::Exactly(format!("{:?}", Err::<Reply, Refusal>(refusal)))
}

fn no_such_segment(name: &str, offset: i64) -> Expected {
    refused(Refusal::NoSuchSegment { segment: name.into(), offset })
}

fn sealed(name: &str) -> Expected {
    refused(Refusal::SegmentSealed { segment: name.into(), offset: -1 })
}

pub(super) fn writer_id(writer: u8) -> WriterId {
    WriterId((5 << 64) | u128::from(writer))
}

fn writer_connection(writer: u8) -> u64 {
    10 + u64::from(writer)
}

/// Four that clients use, and the event count.
pub(super) fn attribute_id(id: u8) -> u128 {
    if id == 4 { EVENT_COUNT } else { (6 << 64) | u128::from(id) }
}

const _: () = assert!(NULL == i64::MIN);
