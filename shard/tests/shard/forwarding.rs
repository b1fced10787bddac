//! Requests for containers of other shards.

use std::time::Duration;

use thalweg_core::fault::{Fault, FaultClass};
use thalweg_shard::{CloseCause, Forwarding};
use thalweg_wire::*;

use crate::world::*;

/// A segment that lives on `shard`.
fn segment_of(world: &World, shard: u16) -> String {
    let names = (0..).map(|number| format!("scope/stream{number}/0.#epoch.0"));
    let mut of_shard = names.filter(|name| world.placement.shard_of(name).0 == shard);
    of_shard.next().expect("names are endless")
}

fn two_shards(capacity: usize) -> World {
    World::with(2, capacity, |config| config.forwarding = Forwarding::Mailbox)
}

/// Two shards, a segment of the second, and two clients of the first: a writer to it and another.
fn a_writer_elsewhere(capacity: usize) -> (World, String, Client, Client) {
    let mut world = two_shards(capacity);
    let segment = segment_of(&world, 1);
    let (client, other) = (world.connect_to(0), world.connect_to(0));
    world.create(client, &segment);
    world.set_up(client, &segment);
    (world, segment, client, other)
}

/// Without forwarding a client of the wrong shard is told so, by the name it asked for.
#[test]
fn the_wrong_shard_says_so() {
    let mut world = World::with(2, 8, |_| {});
    let segment = segment_of(&world, 1);
    let client = world.connect_to(0);
    for (request_id, command) in [
        (1, Command::from(create(&segment))),
        (2, set_up(&segment).into()),
        (4, read(&segment, 0).into()),
    ] {
        let expected = WrongHost {
            request_id,
            segment: Text::from(&segment[..]),
            correct_host: Text::new(),
            server_stack_trace: Text::new(),
        };
        assert_eq!(world.ask(client, command), expected.into());
    }
    assert_eq!(world.shards[0].counters().wrong_hosts, 3);
    world.send(client, append(b"x", 1)).settle();
    assert!(world.is_closed(client));
}

/// With forwarding one connection does everything on a segment of another shard, and the writer of
/// that shard's own connection of the same number is not confused with it.
#[test]
fn a_forwarded_client_is_served_as_a_local_one() {
    let mut world = two_shards(64);
    let segment = segment_of(&world, 1);
    let (far, near) = (world.connect_to(0), world.connect_to(1));
    world.create(far, &segment);
    assert_eq!(world.set_up(far, &segment), i64::MIN);
    world.send(near, read(&segment, 0)).settle();
    world.send(far, append(b"abc", 1)).send(far, append(b"def", 2)).settle();
    assert_eq!(world.replies(far).last(), Some(&appended(2, i64::MIN, 6)));
    assert_eq!(data(&world.replies(near)[0]), b"abcdef");
    assert_eq!(world.set_up(near, &segment), 2);
    world.send(far, append(b"x", 3)).settle();
    assert!(matches!(world.replies(far)[..], [Command::InvalidEventNumber(_)]));
    assert!(world.is_closed(far));
    assert!(!world.is_closed(near));
    assert!(world.shards[0].counters().forwarded >= 4);
}

/// When a connection closes, the shards that served it forget its sessions, reads and transient
/// segments.
#[test]
fn the_end_of_a_connection_is_forwarded() {
    let mut world = two_shards(64);
    let segment = segment_of(&world, 1);
    let (far, near) = (world.connect_to(0), world.connect_to(1));
    world.create(far, &segment);
    let create = CreateTransientSegment {
        request_id: 8,
        writer_id: WRITER,
        parent_segment: Text::from(&segment[..]),
        delegation_token: Text::new(),
    };
    let reply = world.ask(far, create);
    let Command::SegmentCreated(created) = reply else { panic!("not created: {reply:?}") };
    world.send(far, read(&segment, 0)).settle();
    world.link(far).is_closed = true;
    let reply = world.settle().ask(near, info(&created.segment));
    assert!(matches!(reply, Command::NoSuchSegment(_)), "{reply:?}");
    assert!(world.shards[1].engine().next_deadline().is_none(), "no read is parked any more");
}

/// A mailbox with room for one mail slows a connection down, and loses and reorders nothing.
#[test]
fn a_full_mailbox_keeps_everything_in_order() {
    let (mut world, segment, client, other) = a_writer_elsewhere(1);
    for number in 1..=50 {
        world.send(client, append(&[number as u8], number));
    }
    let own = segment_of(&world, 0);
    world.create(other, &own);
    for _ in 0..20 {
        world.settle();
    }
    let replies = world.replies(client);
    assert_eq!(replies.last(), Some(&appended(50, replies_before_last(&replies), 50)));
    let all: Vec<u8> = (1..=50).collect();
    assert_eq!(data(&world.ask(client, read(&segment, 0))), all);
    assert!(world.shards[0].counters().stalls.mail > 0);
}

fn replies_before_last(replies: &[Command]) -> i64 {
    match replies.iter().rev().nth(1) {
        Some(Command::DataAppended(appended)) => appended.event_number,
        None => i64::MIN,
        other => panic!("not an acknowledgement: {other:?}"),
    }
}

/// An append that must wait at its container holds back what follows it of the same connection, and
/// not the requests of others.
#[test]
fn forwarded_appends_wait_for_room_in_order() {
    let (mut world, segment, client, other) = a_writer_elsewhere(64);
    world.shards[1].env_mut().journal.memory.set_room_bytes(0);
    world.settle();
    world.send(client, append(b"abc", 1)).send(client, info(&segment)).settle();
    assert_eq!(world.replies(client), []);
    assert_eq!(world.length(other, &segment), 0);
    world.shards[1].env_mut().journal.memory.set_room_bytes(u64::MAX);
    world.settle();
    let names: Vec<_> = world.replies(client).iter().map(Command::name).collect();
    assert_eq!(names, ["DataAppended", "StreamSegmentInfo"]);
}

/// A forwarded append that never gets room is closed after the same patience as a local one,
/// nothing that was sent behind it is done, and others go on.
#[test]
fn a_forwarded_append_does_not_wait_for_ever() {
    let (mut world, segment, client, other) = a_writer_elsewhere(64);
    world.shards[1].env_mut().journal.memory.set_room_bytes(0);
    world.settle();
    world.send(client, append(b"abc", 1)).settle();
    for _ in 0..29 {
        world.pass(1);
        assert_eq!(world.length(other, &segment), 0);
    }
    assert!(!world.is_closed(client));
    world.pass(3);
    assert!(world.is_closed(client) && !world.is_closed(other));
    world.link(client).is_closed = true;
    world.shards[1].env_mut().journal.memory.set_room_bytes(u64::MAX);
    world.settle();
    assert_eq!(world.replies(client), []);
    assert_eq!(world.length(other, &segment), 0, "what was given up is not done later");
    assert_eq!(world.set_up(other, &segment), i64::MIN);
    world.send(other, append(b"again", 1)).settle();
    assert_eq!(world.replies(other), [appended(1, i64::MIN, 5)]);
    assert_eq!(world.length(other, &segment), 5);
}

/// The same for what was accepted and finds no place in the journal; who only reads goes on.
#[test]
fn what_is_owed_to_a_forwarded_client_is_closed() {
    let (mut world, segment, client, reader) = a_writer_elsewhere(64);
    world.send(client, append(b"early", 1)).settle();
    world.replies(client);
    world.shards[1].env_mut().journal.memory.set_place_bytes(0);
    world.send(client, append(b"late", 2)).settle();
    for _ in 0..29 {
        world.pass(1);
        assert_eq!(data(&world.ask(reader, read(&segment, 0))), b"early");
    }
    assert!(!world.is_closed(client));
    world.pass(4);
    assert!(world.is_closed(client) && !world.is_closed(reader));
    assert_eq!(world.replies(client), []);
    assert_eq!(data(&world.ask(reader, read(&segment, 0))), b"early");
}

/// When the journal of the serving shard fails, forwarded clients are closed too.
#[test]
fn a_journal_failure_closes_forwarded_clients() {
    let mut world = two_shards(64);
    let segment = segment_of(&world, 1);
    let (far, idle) = (world.connect_to(0), world.connect_to(0));
    world.create(far, &segment);
    world.send(far, read(&segment, 0)).settle();
    world.shards[1].env_mut().journal.memory.fail();
    world.settle();
    assert!(world.is_closed(far));
    assert!(!world.is_closed(idle));
    assert_eq!(world.shards[0].counters().closed(CloseCause::Unavailable), 1);
    assert_eq!(world.length(idle, &segment), 0);
}

/// A shard that another owner has fenced looks after nobody any more: it asks for no turn, however
/// long it served clients of other shards before.
#[test]
fn a_fenced_shard_looks_after_no_forwarded_clients() {
    let mut world = two_shards(64);
    let segment = segment_of(&world, 1);
    let far = world.connect_to(0);
    world.create(far, &segment);
    assert!(world.shards[1].turn().next_deadline.is_some(), "somebody looks after it");
    let journal = &mut world.shards[1].env_mut().journal;
    journal.recover_faults.push_back(Fault::new(FaultClass::Fenced, "epoch 2"));
    journal.memory.fail();
    world.settle();
    assert!(world.is_closed(far));
    assert_eq!(world.shards[1].turn().next_deadline, None);
}

/// While one of two shards recovers, nothing is said about its segments, neither to its own clients
/// nor through the other shard, which serves: whoever asks is closed. Afterwards all is there.
#[test]
fn a_recovering_shard_answers_nobody_also_not_by_mail() {
    let mut world = two_shards(64);
    let (segment, other) = (segment_of(&world, 1), segment_of(&world, 0));
    let client = world.connect_to(0);
    world.create(client, &segment);
    world.create(client, &other);
    for _ in 0..3 {
        let fault = Fault::new(FaultClass::Device, "no device");
        world.shards[1].env_mut().journal.recover_faults.push_back(fault);
    }
    world.shards[1].env_mut().journal.memory.fail();
    world.settle();
    assert!(world.shards[1].fault().is_some(), "it does not serve");
    let requests: [Command; 5] = [
        info(&segment).into(),
        create(&segment).into(),
        read(&segment, 0).into(),
        set_up(&segment).into(),
        truncate(&segment, 0).into(),
    ];
    for shard in [0, 1] {
        for request in &requests {
            let early = world.connect_to(shard);
            world.send(early, request.clone()).settle();
            assert_eq!(world.replies(early), [], "{request:?} through shard {shard}");
            assert!(world.is_closed(early), "{request:?} through shard {shard}");
        }
    }
    let near = world.connect_to(0);
    assert_eq!(world.length(near, &other), 0, "the other shard serves");
    assert!(world.shards[1].fault().is_some(), "it did not serve in between");
    for _ in 0..100 {
        world.advance(Duration::from_secs(1));
        world.settle();
    }
    let late = world.connect_to(0);
    assert_eq!(world.length(late, &segment), 0);
}
