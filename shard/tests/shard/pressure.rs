//! Back-pressure: who must wait, who must not, and that everyone goes on.

use std::time::Duration;

use bytes::Bytes;
use thalweg_shard::{CloseCause, ConnectionLimits};
use thalweg_wire::*;

use crate::world::*;

const SEGMENT: &str = "scope/stream/0.#epoch.0";

/// Appends beyond what may be accepted stay in the socket; reads of others go on; all is
/// acknowledged once the journal moves.
#[test]
fn too_much_accepted_stops_receiving() {
    let mut world = World::with(1, 64, |config| config.limits.accepted_bytes_max = 50_000);
    let writer = world.writer(SEGMENT);
    let reader = world.connect();
    world.send(writer, append(b"early", 1)).settle();
    world.journal().hold(true);
    for number in 2..=1001 {
        world.send(writer, append(&[7; 1000], number));
    }
    world.settle();
    assert!(world.link(writer).to_shard.len() > 500_000, "most of it was not received");
    assert!(world.shards[0].engine().accepted_bytes() < 60_000);
    assert!(!world.turn().has_work_left, "a stalled shard does not spin");
    let stalls = world.shards[0].counters().stalls.accepted;
    world.settle();
    assert_eq!(world.shards[0].counters().stalls.accepted, stalls);
    assert_eq!(data(&world.ask(reader, read(SEGMENT, 0))), b"early");
    world.journal().hold(false);
    for _ in 0..20 {
        world.settle();
    }
    let replies = world.replies(writer);
    assert!(
        matches!(replies.last(), Some(Command::DataAppended(last)) if last.event_number == 1001)
    );
    assert_eq!(world.length(reader, SEGMENT), 1_000_005);
}

/// Appends are accepted only as far as the journal has a place for them beside its reserve, also
/// behind others that it did not take yet: a deletion that makes room must not stand behind them.
#[test]
fn appends_are_accepted_only_when_the_journal_has_a_place_for_them() {
    const RESERVE: u64 = 100_000;
    let mut world = World::with(1, 64, |config| config.limits.journal_reserve_bytes = RESERVE);
    let writer = world.writer(SEGMENT);
    let other = world.connect();
    world.create(other, "scope/other/0.#epoch.0");
    world.journal().set_room_bytes(RESERVE + 50_000);
    world.journal().set_place_bytes(0);
    for number in 1..=1000 {
        world.send(writer, append(&[7; 1000], number));
    }
    world.settle();
    let waiting = world.shards[0].engine().unsubmitted_bytes();
    assert!((40_000..=51_000).contains(&waiting), "{waiting} bytes wait for a place");
    let segment = "scope/other/0.#epoch.0".into();
    let delete = DeleteSegment { request_id: 1, segment, delegation_token: Text::new() };
    world.send(other, delete).settle();
    assert!(world.shards[0].engine().unsubmitted_bytes() > waiting, "a deletion goes on");
    world.journal().set_place_bytes(u64::MAX);
    world.journal().set_room_bytes(u64::MAX);
    world.settle();
    assert!(matches!(world.replies(other)[..], [Command::SegmentDeleted(_)]));
    assert_eq!(world.length(other, SEGMENT), 1_000_000);
}

/// With most of the reserve gone, only what makes room goes on: truncations, and seals and
/// deletions as a stream ends; and the tables of the control plane, without which a server is not
/// ready after a start.
#[test]
fn the_end_of_the_reserve_is_for_what_makes_room() {
    let mut world = World::with(1, 64, |config| config.limits.journal_reserve_bytes = 1 << 20);
    let writer = world.writer(SEGMENT);
    world.send(writer, append(b"0123456789", 1)).settle();
    world.replies(writer);
    let (user, other) = (world.connect(), world.connect());
    world.journal().set_room_bytes(200 << 10);
    world.settle();
    world.ask(other, create_table("_system/streams"));
    assert!(matches!(world.ask(other, put("_system/streams")), Command::TableEntriesUpdated(_)));
    world.send(user, create("scope/other/0.#epoch.0")).settle();
    assert_eq!(world.replies(user), []);
    assert!(matches!(world.ask(other, truncate(SEGMENT, 4)), Command::SegmentTruncated(_)));
    let segment = || Text::from(SEGMENT);
    let seal = SealSegment { request_id: 8, segment: segment(), delegation_token: Text::new() };
    assert!(matches!(world.ask(other, seal), Command::SegmentSealed(_)));
    let delete = DeleteSegment { request_id: 9, segment: segment(), delegation_token: Text::new() };
    assert!(matches!(world.ask(other, delete), Command::SegmentDeleted(_)));
    assert!(!world.turn().has_work_left, "a stalled shard does not spin");
    world.journal().set_room_bytes(300 << 10);
    world.settle();
    assert!(matches!(world.replies(user)[..], [Command::SegmentCreated(_)]));
}

/// With the journal nearly full, appends and user tables wait; reads, truncations, deletions and
/// the control plane's tables do not.
#[test]
fn a_full_journal_holds_back_only_growth() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.send(writer, append(b"0123456789", 1)).settle();
    world.replies(writer);
    let other = world.connect();
    let user = world.connect();
    for table in ["_system/streams", "scope/table_kvtable/0.#epoch.0"] {
        world.ask(other, create_table(table));
    }
    world.journal().set_room_bytes(63 << 20);
    world.settle();
    world.send(writer, append(b"x", 2)).send(writer, KeepAlive);
    world.send(user, put("scope/table_kvtable/0.#epoch.0")).settle();
    assert_eq!(world.replies(writer), []);
    assert_eq!(world.replies(user), []);
    assert!(!world.turn().has_work_left);
    assert_eq!(data(&world.ask(other, read(SEGMENT, 0))), b"0123456789");
    assert!(matches!(world.ask(other, truncate(SEGMENT, 4)), Command::SegmentTruncated(_)));
    assert!(matches!(world.ask(other, put("_system/streams")), Command::TableEntriesUpdated(_)));
    let delete = DeleteSegment {
        request_id: 1,
        segment: "_system/streams".into(),
        delegation_token: Text::new(),
    };
    assert!(matches!(world.ask(other, delete), Command::SegmentDeleted(_)));
    assert_eq!(world.shards[0].counters().stalls.room, 2);
    world.journal().set_room_bytes(u64::MAX);
    world.settle();
    let mut names: Vec<_> = world.replies(writer).iter().map(Command::name).collect();
    names.sort();
    assert_eq!(names, ["DataAppended", "KeepAlive"]);
    assert!(matches!(world.replies(user)[..], [Command::TableEntriesUpdated(_)]));
}

fn create_table(segment: &str) -> CreateTableSegment {
    CreateTableSegment {
        request_id: 1,
        segment: segment.into(),
        delegation_token: Text::new(),
        sorted_deprecated: false,
        key_length: 0,
        rollover_size_bytes: 0,
    }
}

fn put(segment: &str) -> UpdateTableEntries {
    let key = TableKey { key: Bytes::from_static(b"key"), version: KEY_NO_VERSION };
    UpdateTableEntries {
        request_id: 1,
        segment: segment.into(),
        delegation_token: Text::new(),
        entries: vec![TableEntry { key, value: Bytes::from_static(b"value") }],
        table_segment_offset: -1,
    }
}

/// A client that does not take its replies is not asked for more, and goes on where it stopped.
#[test]
fn a_slow_reader_waits_for_itself_only() {
    let mut world = World::with(1, 64, |config| config.unsent_bytes_max = 10_000);
    let writer = world.writer(SEGMENT);
    world.send(writer, append(&[7; 4000], 1)).settle();
    world.replies(writer);
    let slow = world.connect();
    world.link(slow).is_stuck = true;
    for _ in 0..50 {
        world.send(slow, read(SEGMENT, 0));
    }
    world.settle();
    assert_eq!(world.replies(slow).len(), 3);
    assert!(!world.turn().has_work_left);
    assert_eq!(world.length(writer, SEGMENT), 4000);
    world.link(slow).is_stuck = false;
    for _ in 0..3 {
        world.settle();
    }
    assert_eq!(world.replies(slow).len(), 47);
    assert!(world.shards[0].counters().stalls.unsent >= 1);
}

/// Requests without an answer are bounded; answers let the next ones in.
#[test]
fn outstanding_requests_are_bounded() {
    let mut world = World::with(1, 64, |config| config.outstanding_max = 4);
    let writer = world.writer(SEGMENT);
    let reader = world.connect();
    for _ in 0..10 {
        world.send(reader, read(SEGMENT, 0));
    }
    world.settle();
    assert_eq!(world.shards[0].counters().stalls.outstanding, 1);
    world.send(writer, append(b"abc", 1)).settle();
    assert_eq!(world.replies(reader).len(), 10);
}

fn small_memory() -> World {
    World::with(1, 64, |config| {
        let limits = ConnectionLimits {
            frame_bytes_max: 200_000,
            receive_bytes_min: 1024,
            receive_bytes_max: 1024,
            ..ConnectionLimits::default()
        };
        config.connection = limits;
        config.receive_bytes = 200_000;
        config.receive_patience = Duration::from_secs(30);
    })
}

/// Two clients in the middle of large frames, with memory for one: neither waits for ever.
#[test]
fn large_frames_take_turns() {
    let mut world = small_memory();
    let first = world.writer(SEGMENT);
    let second = world.connect();
    world.create(second, "scope/stream/1");
    world.set_up(second, "scope/stream/1");
    let mut frame = bytes::BytesMut::new();
    Command::from(append(&[7; 150_000], 1)).encode(&mut frame);
    let (head, tail) = frame.split_at(100_000);
    for client in [first, second] {
        world.link(client).to_shard.extend_from_slice(head);
    }
    world.settle();
    assert_eq!(world.shards[0].counters().stalls.memory, 1);
    for client in [first, second] {
        world.link(client).to_shard.extend_from_slice(tail);
    }
    world.settle();
    for client in [first, second] {
        assert_eq!(world.replies(client), [appended(1, i64::MIN, 150_000)]);
    }
    // The memory is free again: both can do it once more.
    for client in [first, second] {
        world.send(client, append(&[7; 150_000], 2));
    }
    world.settle();
    for client in [first, second] {
        assert_eq!(world.replies(client), [appended(2, 1, 300_000)]);
    }
}

/// Who holds the memory of a large frame and sends nothing is closed when others wait for it.
#[test]
fn an_idle_holder_of_memory_is_closed() {
    let mut world = small_memory();
    let writer = world.writer(SEGMENT);
    let idle = world.connect();
    world.ask(idle, Hello::OURS);
    let mut frame = bytes::BytesMut::new();
    Command::from(append(&[7; 150_000], 1)).encode(&mut frame);
    world.link(idle).to_shard.extend_from_slice(&frame[..5000]);
    world.settle();
    world.send(writer, append(&[7; 150_000], 1)).settle();
    assert_eq!(world.replies(writer), []);
    assert!(world.turn().next_deadline.is_some(), "somebody looks after it");
    for _ in 0..32 {
        world.advance(Duration::from_secs(1));
        world.turn();
    }
    world.settle();
    assert!(world.is_closed(idle));
    assert!(!world.is_closed(writer));
    assert_eq!(world.replies(writer), [appended(1, i64::MIN, 150_000)]);
    assert_eq!(world.shards[0].counters().closed(CloseCause::SlowSender), 1);
}
