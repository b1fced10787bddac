//! Serving clients: appends, reads, order of a turn.

use std::time::Duration;

use thalweg_core::time::Instant;
use thalweg_shard::{CloseCause, TurnBudget};
use thalweg_wire::*;

use crate::world::*;

const SEGMENT: &str = "scope/stream/0.#epoch.0";

/// An append is acknowledged when its frame is durable and not before; it is not visible before.
#[test]
fn appends_are_acknowledged_when_durable() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    let reader = world.connect();
    world.journal().hold(true);
    world.send(writer, append(b"event", 1)).send(reader, read(SEGMENT, 0)).settle();
    assert_eq!(world.replies(writer), []);
    assert_eq!(world.replies(reader), []);
    world.journal().make_durable(1);
    world.settle();
    assert_eq!(world.replies(writer), [appended(1, i64::MIN, 5)]);
    let replies = world.replies(reader);
    assert_eq!((replies.len(), data(&replies[0])), (1, &b"event"[..]));
}

/// What came in one batch is durable in one frame and acknowledged by one command.
#[test]
fn a_batch_is_one_frame_and_one_acknowledgement() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    let before = *world.shards[0].counters();
    for number in 1..=100 {
        world.send(writer, append(b"0123456789", number));
    }
    world.settle();
    assert_eq!(world.replies(writer), [appended(100, i64::MIN, 1000)]);
    let after = world.shards[0].counters();
    assert_eq!(after.frames - before.frames, 1);
    assert_eq!(after.appends - before.appends, 100);
    assert_eq!(after.append_bytes - before.append_bytes, 1000);
    assert_eq!(data(&world.ask(writer, read(SEGMENT, 0))).len(), 1000);
}

/// A read at the tail waits; an append or a seal answers it, and other requests are not delayed.
#[test]
fn tail_reads_wake_by_append_and_by_seal() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    let reader = world.connect();
    world.send(reader, read(SEGMENT, 0)).settle();
    assert_eq!(world.replies(reader), []);
    assert_eq!(world.length(reader, SEGMENT), 0);
    world.send(writer, append(b"abc", 1)).settle();
    assert_eq!(data(&world.replies(reader)[0]), b"abc");
    world.send(reader, read(SEGMENT, 3)).settle();
    assert_eq!(world.replies(reader), []);
    world.send(writer, seal(SEGMENT)).settle();
    let replies = world.replies(reader);
    assert_eq!(replies.len(), 1);
    match &replies[0] {
        Command::SegmentRead(read) => assert!(read.data.is_empty() && read.end_of_segment),
        Command::SegmentIsSealed(sealed) => assert_eq!(sealed.offset, 3),
        other => panic!("not the end: {other:?}"),
    }
}

/// A parked read has a deadline, which the driver is told, and ends with an empty reply.
#[test]
fn a_parked_read_is_given_up_at_its_deadline() {
    let mut world = World::with(1, 64, |config| config.patience.silence = Duration::MAX);
    let client = world.writer(SEGMENT);
    world.send(client, read(SEGMENT, 0)).settle();
    let mut replies = Vec::new();
    while replies.is_empty() {
        let deadline = world.turn().next_deadline.expect("a read is parked");
        assert!(deadline <= Instant(0).after(Duration::from_secs(121)), "it is not given up");
        world.env().clock.now = deadline;
        world.settle();
        replies = world.replies(client);
    }
    assert!(world.env().clock.now >= Instant(0).after(Duration::from_secs(120)));
    assert_eq!(data(&replies[0]), b"");
}

/// A second connection of a writer takes over; the first learns it and is closed.
#[test]
fn a_second_set_up_takes_the_writer_over() {
    let mut world = World::new();
    let first = world.writer(SEGMENT);
    world.send(first, append(b"a", 1)).settle();
    world.replies(first);
    let second = world.connect();
    assert_eq!(world.set_up(second, SEGMENT), 1);
    world.send(first, append(b"b", 2)).settle();
    let replies = world.replies(first);
    assert!(matches!(replies[..], [Command::InvalidEventNumber(_)]), "{replies:?}");
    assert!(world.is_closed(first));
    assert_eq!(world.shards[0].counters().closed(CloseCause::EventNumber), 1);
    world.send(second, append(b"b", 2)).settle();
    assert_eq!(world.replies(second), [appended(2, 1, 2)]);
}

/// A client that breaks the protocol loses its connection, and only that.
#[test]
fn a_broken_client_is_closed_alone() {
    let mut world = World::new();
    let good = world.writer(SEGMENT);
    let bad = world.connect();
    world.send(bad, Hello { high_version: 17, low_version: 5 });
    world.send(bad, append(b"x", 1)).send(bad, KeepAlive).settle();
    assert_eq!(world.replies(bad), [Hello::OURS.into()]);
    assert!(world.is_closed(bad));
    assert_eq!(world.shards[0].counters().closed(CloseCause::NoSession), 1);
    assert_eq!(world.shards[0].counters().connections, 1);
    assert_eq!(world.length(good, SEGMENT), 0);
}

/// A turn takes what its budget allows, says that work is left, and serves connections in turn.
#[test]
fn a_turn_keeps_its_budget_and_takes_connections_in_turn() {
    let turn = TurnBudget { commands: 3, bytes: 1 << 20 };
    let mut world = World::with(1, 64, |config| config.turn = turn);
    let (first, second) = (world.connect(), world.connect());
    for _ in 0..6 {
        world.send(first, KeepAlive).send(second, KeepAlive);
    }
    // The first turn accepts, the second receives.
    world.turn();
    assert!(world.turn().has_work_left);
    assert_eq!((world.replies(first).len(), world.replies(second).len()), (3, 0));
    assert!(world.turn().has_work_left);
    assert_eq!((world.replies(first).len(), world.replies(second).len()), (0, 3));
    world.turn();
    world.turn();
    assert_eq!((world.replies(first).len(), world.replies(second).len()), (3, 3));
    assert!(!world.turn().has_work_left);
}

/// More connections than configured are closed at the door.
#[test]
fn connections_are_bounded() {
    let mut world = World::with(1, 64, |config| config.connections_max = 2);
    let clients: Vec<_> = (0..3).map(|_| world.connect()).collect();
    world.settle();
    let closed: Vec<_> = clients.iter().map(|client| world.is_closed(*client)).collect();
    assert_eq!(closed, [false, false, true]);
    world.link(clients[0]).is_closed = true;
    world.settle();
    let late = world.connect();
    world.settle();
    assert!(!world.is_closed(late));
    assert_eq!(world.shards[0].counters().closed(CloseCause::Limit), 1);
    assert_eq!(world.shards[0].counters().closed(CloseCause::Peer), 1);
}

/// The transient segments of a connection go with it.
#[test]
fn transient_segments_go_with_their_connection() {
    let mut world = World::new();
    let client = world.writer(SEGMENT);
    let reply = world.ask(
        client,
        CreateTransientSegment {
            request_id: 8,
            writer_id: WRITER,
            parent_segment: SEGMENT.into(),
            delegation_token: Text::new(),
        },
    );
    let Command::SegmentCreated(created) = reply else { panic!("not created: {reply:?}") };
    assert_eq!(world.length(client, &created.segment), 0);
    world.link(client).is_closed = true;
    let other = world.connect();
    let reply = world.settle().ask(other, info(&created.segment));
    assert!(matches!(reply, Command::NoSuchSegment(_)), "{reply:?}");
}
