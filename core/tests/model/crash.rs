//! Crashes: what survives must be the model at one moment, and not one too early.

use bytes::Bytes;
use thalweg_core::engine::Engine;
use thalweg_core::env::journal::Journal;
use thalweg_core::id::{AttributeId, ConnectionId, ShardId, Token};
use thalweg_core::position::Offset;
use thalweg_core::request::{Effect, Refusal, Reply, Request};

use super::rig::{CONTAINER, Rig, attribute_id, limits, writer_id};
use super::state::{Segment, State};

impl Rig {
    pub(super) fn crash(&mut self, survivors: u8) {
        self.journal.crash(u64::from(survivors));
        self.effects.clear();
        self.fetches.clear();
        self.expected.clear();
        self.sessions.clear();
        self.transients.clear();
        self.engine = Engine::new(ShardId(1), &[CONTAINER], limits());
        self.recover();
        let found = self.dump();
        let answered = self.answered;
        let index =
            self.moments.iter().rposition(|(_, state)| visible(state) == found).unwrap_or_else(
                || {
                    let last = self.moments.last().map(|(_, state)| visible(state));
                    panic!("no moment was like this: {found:#?}, the last was {last:#?}")
                },
            );
        // A request that was answered is part of what was found: the moment is that of its request
        // or a later one, or nothing changed in between.
        let behind = self.moments.iter().rposition(|(request, _)| *request <= answered);
        let is_late_enough = behind
            .is_none_or(|behind| index >= behind || visible(&self.moments[behind].1) == found);
        assert!(is_late_enough, "an answered change is gone: moment {index}, {behind:?}");
        self.state = self.moments[index].1.clone();
        self.state.segments.retain(|_, segment| !segment.is_transient);
        for segment in self.state.segments.values() {
            let seen = self.seen.get(&segment.incarnation).copied().unwrap_or(0);
            assert!(segment.length() >= seen, "bytes that were read are gone");
            self.contents.insert(segment.incarnation, segment.content.clone());
        }
        self.moments = vec![(self.next_request, self.state.clone())];
        self.answered = self.next_request;
    }

    pub(super) fn recover(&mut self) {
        let (engine, journal) = (&mut self.engine, &mut self.journal);
        let opened = journal.recover(&mut |found| engine.recovered(found)).expect("memory");
        if let Some(from) = engine.replay_start() {
            journal.replay(from, &mut |found| engine.replayed(found)).expect("memory");
        }
        engine.open(opened, self.now, &mut self.effects);
        self.compare();
    }

    /// The engine's state, as requests tell it.
    fn dump(&mut self) -> State {
        let mut found = State::default();
        for number in 0..6 {
            let name = format!("segment-{number}");
            let info = self.answer(Request::Info { segment: name.as_str().into() });
            let Ok(Reply::Info { is_sealed, length, start_offset, .. }) = info else { continue };
            let mut segment = Segment::new(0, false);
            segment.is_sealed = is_sealed;
            segment.start = start_offset.0;
            segment.content = vec![0; start_offset.0 as usize];
            while segment.length() < length.0 {
                let request = Request::Read {
                    segment: name.as_str().into(),
                    offset: Offset(segment.length()),
                    length: 3000,
                };
                let Ok(Reply::Read { data, .. }) = self.answer(request) else {
                    panic!("{name} cannot be read at {}", segment.length())
                };
                segment.content.extend(data.concat());
            }
            for id in (0..5).map(attribute_id).chain((0..3).map(|id| writer_id(id).0)) {
                let request = Request::Attribute {
                    segment: name.as_str().into(),
                    attribute: AttributeId(id),
                };
                let Ok(Reply::Attribute { value }) = self.answer(request) else {
                    panic!("{name} has no attributes")
                };
                segment.set(id, value);
            }
            found.segments.insert(name, segment);
        }
        let keys = (0..6).map(|key| Bytes::copy_from_slice(&[key])).collect();
        let request = Request::TableGet { segment: "table".into(), keys };
        if let Ok(Reply::TableRead { entries, .. }) = self.answer(request) {
            for entry in entries.iter().filter(|entry| entry.version >= 0) {
                found.keys.insert(entry.key[0], entry.value[0]);
            }
        }
        found
    }

    /// Asks and works until the answer comes.
    fn answer(&mut self, request: Request) -> Result<Reply, Refusal> {
        let connection = ConnectionId(77);
        let token = Token { shard: ShardId(1), connection, request: 0 };
        self.engine.request(self.now, CONTAINER, token, request, &mut self.effects);
        for _ in 0..100 {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Reply { reply, .. } => return reply,
                    Effect::Fetch { address } => self.journal.fetch(address),
                    other => panic!("{other:?}"),
                }
            }
            self.submit(4);
            self.journal.make_durable(100);
            let mut events = Vec::new();
            self.journal.poll(self.now.monotonic, &mut events);
            for event in events {
                self.pass(event);
            }
        }
        panic!("never answered")
    }
}

/// What requests can tell of a state after a restart: transient segments are gone, and bytes before
/// the start.
fn visible(state: &State) -> State {
    let mut state = state.clone();
    state.segments.retain(|_, segment| !segment.is_transient);
    for segment in state.segments.values_mut() {
        segment.incarnation = 0;
        let start = segment.start as usize;
        segment.content[..start].fill(0);
    }
    state
}
