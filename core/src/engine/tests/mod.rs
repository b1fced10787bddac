mod fullness;
mod requests;
mod restarts;

use bytes::Bytes;

use super::*;
use crate::env::journal::{Journal, JournalEvent};
use crate::env::memory::MemoryJournal;
use crate::id::{ConnectionId, SegmentName, SessionId, WriterId};
use crate::position::Offset;
use crate::request::{Append, Create, Reply, SegmentKind};
use crate::time::WallTime;

const CONTAINER: ContainerId = ContainerId(4);

/// Limits so small that frames, caches and checkpoints turn over all the time.
fn tiny() -> Limits {
    Limits {
        frame_bytes: 4096,
        slab_bytes: 4 * 4096,
        tail_cache_bytes: 3 * 4096,
        history_cache_bytes: 3 * 4096,
        checkpoint_interval_bytes: 5 * 4096,
        checkpoint_part_bytes: 300,
        ..Limits::default()
    }
}

/// An engine on a journal in memory.
struct Rig {
    engine: Engine,
    journal: MemoryJournal,
    now: Now,
    effects: Vec<Effect>,
    next_request: i64,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        Self::on(MemoryJournal::new(8), limits)
    }

    fn on(mut journal: MemoryJournal, limits: Limits) -> Self {
        let mut engine = Engine::new(ShardId(0), &[ContainerId(0), CONTAINER], limits);
        let now = Now { monotonic: Instant(1), wall: WallTime(1000) };
        let opened = journal.recover(&mut |found| engine.recovered(found)).expect("memory");
        if let Some(from) = engine.replay_start() {
            journal.replay(from, &mut |found| engine.replayed(found)).expect("memory");
        }
        let mut effects = Vec::new();
        engine.open(opened, now, &mut effects);
        Self { engine, journal, now, effects, next_request: 0 }
    }

    fn restart(mut self, survivors: u64) -> Self {
        self.journal.crash(survivors);
        let limits = self.engine.shared.limits.clone();
        Self::on(self.journal, limits)
    }

    fn ask(&mut self, connection: u64, request: Request) -> Vec<Effect> {
        self.next_request += 1;
        let connection = ConnectionId(connection);
        let token = Token { shard: ShardId(0), connection, request: self.next_request };
        self.engine.request(self.now, CONTAINER, token, request, &mut self.effects);
        std::mem::take(&mut self.effects)
    }

    /// Seals and submits what there is, and lets the journal work.
    fn turn(&mut self) -> Vec<Effect> {
        for _ in 0..100 {
            while let Some(bytes) = self.engine.next_frame_bytes()
                && self.journal.can_submit(bytes)
            {
                let replay_from = self.engine.replay_position();
                let frame = self.engine.seal_frame().expect("there is one");
                let number = frame.number;
                let (address, bytes) = self.journal.submit(frame, replay_from, self.now.monotonic);
                self.engine.submitted(number, address, bytes);
            }
            let mut events = Vec::new();
            self.journal.poll(self.now.monotonic, &mut events);
            if events.is_empty() && !self.perform() {
                break;
            }
            for event in events {
                self.take(event);
            }
        }
        if let Some(position) = self.engine.replay_position() {
            self.journal.trim(position, &|file| self.engine.is_referenced(file));
        }
        std::mem::take(&mut self.effects)
    }

    fn take(&mut self, event: JournalEvent) {
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

    /// Starts fetches; whether there were any.
    fn perform(&mut self) -> bool {
        let (fetches, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.effects)
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Fetch { .. }));
        self.effects = others;
        for effect in &fetches {
            if let Effect::Fetch { address } = effect {
                self.journal.fetch(*address);
            }
        }
        !fetches.is_empty()
    }

    /// Asks and lets everything become durable.
    fn run(&mut self, request: Request) -> Vec<Effect> {
        let mut effects = self.ask(1, request);
        self.effects.append(&mut effects);
        self.turn()
    }

    fn create(&mut self, name: &str) {
        let effects = self.run(create(name));
        assert!(matches!(reply(&effects), Ok(Reply::Created { .. })), "{effects:?}");
    }

    fn set_up(&mut self, connection: u64, session: u64, writer: u128, name: &str) -> i64 {
        let request = Request::SetupAppend {
            session: SessionId(session),
            writer: WriterId(writer),
            segment: name.into(),
        };
        let mut effects = self.ask(connection, request);
        effects.append(&mut self.turn());
        match reply(&effects) {
            Ok(Reply::AppendSetup { last_event_number, .. }) => *last_event_number,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, name: &str, offset: u64, length: u32) -> Vec<u8> {
        let effects = self.run(read(name, offset, length));
        match reply(&effects) {
            Ok(Reply::Read { data, .. }) => data.concat(),
            other => panic!("{other:?}"),
        }
    }
}

fn create(name: &str) -> Request {
    Request::Create(Create {
        segment: name.into(),
        kind: SegmentKind::Stream,
        scale_type: 0,
        target_rate: 0,
        rollover_bytes: 0,
    })
}

fn append(session: u64, event_number: i64, data: &[u8]) -> Request {
    Request::Append(Append {
        session: SessionId(session),
        event_number,
        event_count: 1,
        expected_offset: None,
        data: [Bytes::copy_from_slice(data), Bytes::new(), Bytes::new()],
    })
}

fn conditional(session: u64, event_number: i64, data: &[u8], expected: u64) -> Request {
    let Request::Append(mut conditional) = append(session, event_number, data) else {
        unreachable!("it was made an append")
    };
    conditional.expected_offset = Some(Offset(expected));
    Request::Append(conditional)
}

fn read(name: &str, offset: u64, length: u32) -> Request {
    Request::Read { segment: name.into(), offset: Offset(offset), length }
}

fn seal(name: &str) -> Request {
    Request::Seal { segment: name.into() }
}

fn reply(effects: &[Effect]) -> &Result<Reply, Refusal> {
    match effects {
        [Effect::Reply { reply, .. }] => reply,
        other => panic!("one reply expected: {other:?}"),
    }
}

fn acknowledged(effects: &[Effect]) -> Vec<i64> {
    let number = |effect: &Effect| match effect {
        Effect::Appended { event_number, .. } => Some(*event_number),
        _ => None,
    };
    effects.iter().filter_map(number).collect()
}

/// Shows the main path: what is acknowledged is read back, also after a restart.
#[test]
fn acknowledged_appends_are_read_back_after_restart() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    assert_eq!(rig.set_up(1, 1, 7, "s"), i64::MIN);
    let mut expected = Vec::new();
    for number in 0..200 {
        let data = vec![number as u8; 1 + number as usize * 13 % 700];
        expected.extend_from_slice(&data);
        assert_eq!(acknowledged(&rig.run(append(1, number, &data))), [number]);
    }
    let mut rig = rig.restart(0);
    assert_eq!(rig.set_up(1, 9, 7, "s"), 199);
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(rig.read("s", found.len() as u64, 5000));
    }
    assert_eq!(found, expected);
}

/// Shows that nothing is acknowledged or readable before its frame is durable.
#[test]
fn append_is_invisible_until_durable() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    rig.journal.hold(true);
    let mut effects = rig.ask(1, append(1, 1, b"abc"));
    effects.extend(rig.ask(2, read("s", 0, 10)));
    effects.extend(rig.ask(2, Request::Info { segment: "s".into() }));
    effects.extend(rig.turn());
    assert!(effects.is_empty(), "{effects:?}");
    rig.journal.hold(false);
    let effects = rig.turn();
    assert_eq!(acknowledged(&effects), [1]);
    let lengths: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply { reply: Ok(Reply::Info { length, .. }), .. } => Some(length.0),
            Effect::Reply { reply: Ok(Reply::Read { data, .. }), .. } => {
                Some(data.concat().len() as u64)
            }
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [3, 3]);
}

/// Shows that an append after the seal is refused, and the end is told exactly there.
#[test]
fn append_after_seal_is_refused() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    rig.run(append(1, 1, b"abc"));
    let effects = rig.ask(3, read("s", 3, 10));
    assert!(effects.is_empty());
    let effects = rig.run(seal("s"));
    assert_eq!(effects.len(), 2, "{effects:?}");
    let is_end = |effect: &Effect| {
        matches!(effect, Effect::Reply { reply: Ok(Reply::Read { end_of_segment: true, .. }), .. })
    };
    assert!(effects.iter().any(is_end));
    let refused = rig.run(append(1, 2, b"d"));
    let segment = SegmentName::from("s");
    assert_eq!(
        reply(&refused).as_ref().err(),
        Some(&Refusal::SegmentSealed { segment, offset: 2 })
    );
    assert!(is_end(&rig.run(read("s", 3, 10))[0]));
    assert!(is_end(&rig.run(read("s", 1, 10))[0]));
    assert!(!is_end(&rig.run(read("s", 1, 2))[0]));
    assert_eq!(rig.set_up(2, 5, 7, "s"), 1);
}

/// Shows that a writer's number is stored once, whatever connection it comes from.
#[test]
fn repeated_event_numbers_are_refused() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    rig.run(append(1, 5, b"abc"));
    assert_eq!(rig.set_up(2, 2, 7, "s"), 5);
    let invalid = |event_number| Refusal::InvalidEventNumber { writer: WriterId(7), event_number };
    // The old session is superseded.
    assert_eq!(reply(&rig.run(append(1, 6, b"x"))).as_ref().err(), Some(&invalid(6)));
    assert_eq!(reply(&rig.run(append(2, 5, b"x"))).as_ref().err(), Some(&invalid(5)));
    // After a failure the session takes nothing more.
    let closed = rig.run(append(2, 6, b"x"));
    assert!(matches!(closed[..], [Effect::Close { reason: CloseReason::NoSession, .. }]));
    assert_eq!(rig.read("s", 0, 100), b"abc");
}

/// Shows that a failed condition leaves the session usable, but not for what was sent behind it.
#[test]
fn conditional_append_checks_the_accepted_length() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    assert_eq!(acknowledged(&rig.run(conditional(1, 1, b"abc", 0))), [1]);
    let failed = rig.run(conditional(1, 2, b"x", 0));
    let refusal = Refusal::ConditionalCheckFailed { writer: WriterId(7), event_number: 2 };
    assert_eq!(reply(&failed).as_ref().err(), Some(&refusal));
    assert_eq!(acknowledged(&rig.run(conditional(1, 3, b"d", 3))), [3]);
    rig.journal.hold(true);
    rig.ask(1, append(1, 4, b"e"));
    rig.ask(1, conditional(1, 5, b"x", 0));
    rig.ask(1, append(1, 6, b"y"));
    rig.journal.hold(false);
    let effects = rig.turn();
    assert_eq!(acknowledged(&effects), [4]);
    let refusals: Vec<_> = effects.iter().skip(1).collect();
    assert!(
        matches!(
            refusals[..],
            [
                Effect::Reply { reply: Err(Refusal::ConditionalCheckFailed { .. }), .. },
                Effect::Reply { reply: Err(Refusal::InvalidEventNumber { .. }), .. },
            ]
        ),
        "{refusals:?}"
    );
    assert_eq!(rig.read("s", 0, 100), b"abcde");
}
