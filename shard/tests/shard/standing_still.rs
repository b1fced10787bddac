//! Connections that do not get on are closed in bounded time, for the right reason, and nobody
//! else is.

use bytes::BytesMut;
use thalweg_shard::{CloseCause, Config};
use thalweg_wire::*;

use crate::world::*;

const SEGMENT: &str = "scope/stream/0.#epoch.0";

/// Who connects and says nothing, or begins with something large, is closed; who said Hello stays.
#[test]
fn a_stranger_has_ten_seconds_and_64_kib() {
    let mut world = World::new();
    let (silent, polite, large) = (world.connect(), world.connect(), world.connect());
    world.send(polite, Hello::OURS).settle();
    let mut frame = BytesMut::new();
    Command::from(append(&[0; 70_000], 1)).encode(&mut frame);
    world.link(large).to_shard.extend_from_slice(&frame[..100]);
    world.settle();
    assert!(world.is_closed(large), "its announcement alone is too much");
    world.pass(9);
    assert!(!world.is_closed(silent));
    world.pass(3);
    assert!(world.is_closed(silent));
    assert!(!world.is_closed(polite));
    assert_eq!(world.closed(CloseCause::FirstCommand), 2);
}

/// A frame that stops, and one that drips, are given up; a large one that comes at a pace is not.
#[test]
fn a_slow_sender_is_closed() {
    let mut world = World::new();
    let clients = [world.connect(), world.connect(), world.connect()];
    let mut frame = BytesMut::new();
    Command::from(append(&[7; 4_000_000], 1)).encode(&mut frame);
    for client in clients {
        world.send(client, Hello::OURS).settle();
        world.link(client).to_shard.extend_from_slice(&frame[..1000]);
    }
    let [stops, drips, comes] = clients;
    world.settle();
    for second in 1..=45 {
        world.link(drips).to_shard.extend_from_slice(&frame[..100]);
        if second > 20 {
            world.link(comes).to_shard.extend_from_slice(&frame[..80_000]);
        }
        world.pass(1);
    }
    assert!(world.is_closed(stops));
    assert!(world.is_closed(drips));
    assert!(!world.is_closed(comes));
    assert_eq!(world.closed(CloseCause::SlowSender), 2);
}

/// A reader that takes nothing is closed when its replies did not move for 30 s; one that takes
/// them late but takes them is not.
#[test]
fn a_slow_receiver_is_closed() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.send(writer, append(&[1; 10_000], 1)).settle();
    let (stuck, late) = (world.connect(), world.connect());
    for client in [stuck, late] {
        world.link(client).is_stuck = true;
        world.send(client, read(SEGMENT, 0)).settle();
    }
    world.pass(20);
    world.link(late).is_stuck = false;
    world.pass(1);
    world.link(late).is_stuck = true;
    world.send(late, read(SEGMENT, 0)).settle();
    world.pass(12);
    assert!(world.is_closed(stuck));
    assert!(!world.is_closed(late));
    assert_eq!(world.closed(CloseCause::SlowReceiver), 1);
}

/// An append that waits for room in the journal is closed after 30 s; who reads meanwhile is
/// served, and an append that waited for less is stored.
#[test]
fn a_stalled_append_is_closed() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    let reader = world.connect();
    world.send(writer, append(b"early", 1)).settle();
    world.journal().set_room_bytes(0);
    world.settle();
    world.send(writer, append(b"late", 2)).settle();
    for _ in 0..25 {
        world.pass(1);
        assert_eq!(data(&world.ask(reader, read(SEGMENT, 0))), b"early");
    }
    world.journal().set_room_bytes(u64::MAX);
    world.settle();
    assert_eq!(world.length(reader, SEGMENT), 9);
    world.journal().set_room_bytes(0);
    world.settle();
    world.send(writer, append(b"never", 3)).settle();
    world.pass(29);
    assert!(!world.is_closed(writer), "the wait before does not count");
    world.pass(3);
    assert!(world.is_closed(writer));
    assert_eq!(world.closed(CloseCause::Stalled), 1);
    assert_eq!(world.length(reader, SEGMENT), 9);
}

/// Who waits for the answer to something accepted that the journal has no place for is closed after
/// 30 s, whatever was asked; who is owed nothing stays.
#[test]
fn what_is_owed_and_has_no_place_in_the_journal_is_closed() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    let (other, reader) = (world.connect(), world.connect());
    world.send(writer, append(b"early", 1)).settle();
    world.replies(writer);
    world.journal().set_place_bytes(0);
    world.send(writer, append(b"late", 2)).send(other, create("scope/b/0.#epoch.0")).settle();
    for _ in 0..29 {
        world.pass(1);
        assert_eq!(data(&world.ask(reader, read(SEGMENT, 0))), b"early");
    }
    assert!(!world.is_closed(writer) && !world.is_closed(other));
    world.pass(3);
    assert!(world.is_closed(writer) && world.is_closed(other) && !world.is_closed(reader));
    assert_eq!(world.closed(CloseCause::Stalled), 2);
    assert_eq!((world.replies(writer), world.replies(other)), (vec![], vec![]));
}

/// While an append waits for room, a client that sends keep-alives hears some, wherever its own
/// are: handled before, waiting behind the append, or in the socket. A client that never sent one
/// hears nothing.
#[test]
fn keep_alive_is_answered_behind_a_stalled_append() {
    let mut world = World::new();
    let (before, behind, without) = (world.writer(SEGMENT), world.connect(), world.connect());
    for (client, writer_id) in [(behind, 2), (without, 3)] {
        world.ask(client, SetupAppend { writer_id, ..set_up(SEGMENT) });
    }
    assert_eq!(world.ask(before, KeepAlive), KeepAlive.into());
    world.journal().set_room_bytes(0);
    world.settle();
    world.send(before, append(b"1", 1));
    world.send(behind, AppendBlockEnd { writer_id: 2, ..append(b"2", 1) }).send(behind, KeepAlive);
    world.send(without, AppendBlockEnd { writer_id: 3, ..append(b"3", 1) });
    world.settle();
    world.pass(3);
    world.send(before, KeepAlive).settle();
    world.pass(17);
    for client in [before, behind] {
        let replies = world.replies(client);
        assert!(replies.iter().all(|reply| *reply == KeepAlive.into()), "{replies:?}");
        assert!((2..=4).contains(&replies.len()), "{replies:?}");
    }
    assert_eq!(world.replies(without), []);
    world.journal().set_room_bytes(u64::MAX);
    world.settle();
    for client in [before, behind] {
        let replies = world.replies(client);
        let appends = replies.iter().filter(|it| matches!(it, Command::DataAppended(_))).count();
        assert_eq!((appends, replies.len()), (1, 2), "{replies:?}");
    }
    assert!(matches!(world.replies(without)[..], [Command::DataAppended(_)]));
    world.pass(20);
    assert_eq!(world.replies(behind), [], "nobody is told while nothing waits");
}

/// A half-open peer that waits for a reply is closed after a minute of silence. One that sends
/// keep-alives stays, and one that is owed nothing may be silent for longer.
#[test]
fn a_half_open_peer_is_closed() {
    let mut world = World::new();
    let idle = world.writer(SEGMENT);
    let (gone, alive) = (world.connect(), world.connect());
    for client in [gone, alive] {
        world.send(client, read(SEGMENT, 0)).settle();
    }
    for _ in 0..3 {
        world.pass(25);
        assert_eq!(world.ask(alive, KeepAlive), KeepAlive.into());
    }
    assert!(world.is_closed(gone));
    assert!(!world.is_closed(alive));
    assert!(!world.is_closed(idle));
    assert_eq!(world.closed(CloseCause::Silent), 1);
    world.pass(62);
    assert!(world.is_closed(alive), "it used to send keep-alives");
    assert!(!world.is_closed(idle));
    world.pass(600);
    assert!(world.is_closed(idle));
    assert_eq!(world.closed(CloseCause::Silent), 3);
}

/// One connection may park so many reads and no more.
#[test]
fn parked_reads_of_a_connection_are_bounded() {
    let mut world = World::with(1, 64, |config| config.limits.parked_reads_per_connection_max = 3);
    let (greedy, modest) = (world.writer(SEGMENT), world.connect());
    for _ in 0..3 {
        world.send(greedy, read(SEGMENT, 0)).send(modest, read(SEGMENT, 0));
    }
    world.settle();
    assert!(!world.is_closed(greedy));
    world.send(greedy, read(SEGMENT, 0)).settle();
    assert!(world.is_closed(greedy));
    assert!(!world.is_closed(modest));
    assert_eq!(world.closed(CloseCause::Limit), 1);
}

/// When clients have made the shard remember as much as it may, new writers and segments wait, and
/// whoever is known goes on; deletion makes room.
#[test]
fn what_is_remembered_is_bounded() {
    let bound = 200_000;
    let mut world = World::with(1, 64, |config| config.state_bytes_max = bound);
    let writer = world.writer(SEGMENT);
    let (maker, late) = (world.connect(), world.connect());
    let mut made = 0;
    while world.shards[0].engine().state_bytes() < bound {
        made += 1;
        world.create(maker, &format!("scope/many/{made}.#epoch.0"));
    }
    assert!(made > 100, "{made} segments in {bound} bytes");
    world.settle();
    world.send(maker, create("scope/more/0.#epoch.0"));
    world.send(late, SetupAppend { writer_id: 77, ..set_up(SEGMENT) }).settle();
    assert_eq!(world.replies(maker), []);
    assert_eq!(world.replies(late), []);
    world.send(writer, append(b"known", 1)).settle();
    assert_eq!(world.replies(writer), [appended(1, i64::MIN, 5)]);
    assert!(!world.turn().has_work_left, "a stalled shard does not spin");
    assert_eq!(world.shards[0].counters().stalls.state, 2);
    let other = world.connect();
    let before = world.shards[0].engine().state_bytes();
    for number in 1..=made {
        let segment = Text::from(format!("scope/many/{number}.#epoch.0").as_str());
        let delete = DeleteSegment { request_id: 1, segment, delegation_token: Text::new() };
        assert!(matches!(world.ask(other, delete), Command::SegmentDeleted(_)));
    }
    world.settle();
    assert!(world.shards[0].engine().state_bytes() < before / 20);
    assert!(matches!(world.replies(maker)[..], [Command::SegmentCreated(_)]));
    assert!(matches!(world.replies(late)[..], [Command::AppendSetup(_)]));
}

/// However many readers take nothing, what is kept for them stays near its bound, and a reader that
/// takes its replies is served.
#[test]
fn replies_nobody_takes_are_bounded() {
    let total = 1 << 20;
    let mut world = World::with(1, 64, |config: &mut Config| config.unsent_bytes_total = total);
    let writer = world.writer(SEGMENT);
    world.send(writer, append(&[1; 50_000], 1)).settle();
    let stuck: Vec<_> = (0..20).map(|_| world.connect()).collect();
    for client in &stuck {
        world.link(*client).is_stuck = true;
        for _ in 0..50 {
            world.send(*client, read(SEGMENT, 0));
        }
    }
    world.settle();
    let unsent = world.shards[0].status().unsent;
    assert!(unsent.used > unsent.bound / 2, "{unsent:?}");
    let beyond = 20 * (64 << 10) + 20 * 50_000;
    assert!(unsent.used <= unsent.bound + beyond, "{unsent:?}");
    let reader = world.connect();
    assert_eq!(data(&world.ask(reader, read(SEGMENT, 0))).len(), 50_000);
    world.pass(32);
    assert!(stuck.iter().all(|client| world.is_closed(*client)));
    assert_eq!(world.shards[0].status().unsent.used, 0);
}
