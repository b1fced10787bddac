//! Failure of the journal, restart, stop, and letting go of journal files.

use std::time::Duration;

use thalweg_core::fault::{Fault, FaultClass};
use thalweg_shard::{CloseCause, Health, Shard};
use thalweg_wire::*;

use crate::world::*;

const SEGMENT: &str = "scope/stream/0.#epoch.0";

/// After a failure the shard recovers in place: what was acknowledged is there, what was not is
/// nowhere, and every connection is closed.
#[test]
fn a_journal_failure_loses_only_what_was_not_acknowledged() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.send(writer, append(b"kept", 1)).settle();
    assert_eq!(world.replies(writer).len(), 1);
    world.journal().hold(true);
    world.send(writer, append(b"lost", 2)).settle();
    world.journal().fail();
    world.turn();
    world.journal().hold(false);
    world.settle();
    assert!(world.is_closed(writer));
    assert_eq!(world.replies(writer), []);
    let counters = world.shards[0].counters();
    assert_eq!((counters.journal_failures, counters.boots), (1, 2));
    assert_eq!((counters.closed(CloseCause::Down), counters.connections), (1, 0));
    assert!(world.shards[0].fault().is_none());
    let again = world.connect();
    assert_eq!(world.set_up(again, SEGMENT), 1);
    assert_eq!(data(&world.ask(again, read(SEGMENT, 0))), b"kept");
    world.send(again, append(b"more", 2)).settle();
    assert_eq!(world.replies(again), [appended(2, 1, 8)]);
}

/// Recoveries that fail are repeated after growing pauses; meanwhile whoever connects is closed.
#[test]
fn a_failed_recovery_is_repeated() {
    let mut world = World::new();
    world.writer(SEGMENT);
    for _ in 0..2 {
        let fault = Fault::new(FaultClass::Device, "no device");
        world.env().journal.recover_faults.push_back(fault);
    }
    world.journal().fail();
    world.settle();
    assert_eq!(world.shards[0].fault().map(|fault| fault.class), Some(FaultClass::Device));
    let early = world.connect();
    world.settle();
    assert!(world.is_closed(early));
    let mut pauses = Vec::new();
    while world.shards[0].fault().is_some() {
        let deadline = world.turn().next_deadline.expect("it goes on trying");
        let now = world.env().clock.now;
        pauses.push(deadline.since(now).as_millis());
        world.env().clock.now = deadline;
        world.turn();
    }
    assert_eq!(pauses, [100, 200]);
    assert!(world.shards[0].fault().is_none());
    let late = world.connect();
    assert_eq!(world.length(late, SEGMENT), 0);
}

/// A shard whose recoveries failed too often says so and goes on trying, more rarely; when the
/// journal is well again it serves without being started anew.
#[test]
fn a_shard_that_gave_up_says_so_and_heals() {
    let mut world = World::with(1, 64, |config| config.boot_attempts = 3);
    for _ in 0..5 {
        let fault = Fault::new(FaultClass::Device, "no device");
        world.env().journal.recover_faults.push_back(fault);
    }
    world.journal().fail();
    world.settle();
    assert_eq!(world.shards[0].health(), Health::Recovering);
    let mut pauses = Vec::new();
    while world.shards[0].fault().is_some() {
        let deadline = world.turn().next_deadline.expect("it goes on trying");
        pauses.push(deadline.since(world.env().clock.now));
        world.env().clock.now = deadline;
        world.turn();
        if pauses.len() == 2 {
            let status = world.shards[0].status();
            assert_eq!(status.health, Health::GaveUp);
            assert!(status.reason.contains("no device"), "{}", status.reason);
        }
    }
    let retry = Duration::from_secs(30);
    assert_eq!(pauses[2..], [retry, retry, retry]);
    assert_eq!(world.shards[0].health(), Health::Serving);
    assert_eq!(world.shards[0].status().reason, "");
}

/// A newer owner of the directory ends the attempts at once.
#[test]
fn a_fenced_shard_gives_up() {
    let mut world = World::new();
    let fault = Fault::new(FaultClass::Fenced, "epoch 2");
    world.env().journal.recover_faults.push_back(fault);
    world.journal().fail();
    let outcome = world.settle().turn();
    assert_eq!(outcome.next_deadline, None);
    assert_eq!(world.shards[0].fault().map(|fault| fault.class), Some(FaultClass::Fenced));
    let client = world.connect();
    world.settle();
    assert!(world.is_closed(client));
    world.shards[0].stop();
    assert!(world.shards[0].is_stopped());
}

/// What was acknowledged survives the end of the process at any moment.
#[test]
fn a_restart_finds_what_was_acknowledged() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.send(writer, append(b"first", 1)).settle();
    world.journal().hold(true);
    world.send(writer, append(b"second", 2)).settle();
    let shard = world.shards.remove(0);
    let config = shard.config().clone();
    let mut env = shard.into_env();
    env.journal.memory.crash(0);
    env.journal.memory.hold(false);
    env.network = Default::default();
    world.shards.push(Shard::boot(env, config).expect("the journal opens again"));
    let client = world.connect();
    assert_eq!(world.length(client, SEGMENT), 5);
    assert_eq!(world.set_up(client, SEGMENT), 1);
}

/// A stop takes nothing new, finishes and acknowledges what is in flight, and closes.
#[test]
fn a_stop_drains() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.journal().hold(true);
    world.send(writer, append(b"in flight", 1)).settle();
    world.shards[0].stop();
    let late = world.connect();
    world.send(writer, append(b"too late", 2)).settle();
    assert!(world.is_closed(late));
    assert!(!world.is_closed(writer));
    assert!(!world.shards[0].is_stopped());
    world.journal().make_durable(1);
    world.settle();
    assert_eq!(world.replies(writer), [appended(1, i64::MIN, 9)]);
    assert!(world.is_closed(writer));
    assert!(world.shards[0].is_stopped());
    assert_eq!(world.shards[0].counters().closed(CloseCause::Stop), 2);
}

/// A stop does not wait for ever for a journal that stands still.
#[test]
fn a_stop_has_an_end() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.journal().hold(true);
    world.send(writer, append(b"stuck", 1)).settle();
    world.shards[0].stop();
    assert!(!world.shards[0].is_stopped());
    for _ in 0..20 {
        let Some(deadline) = world.turn().next_deadline else { break };
        world.env().clock.now = deadline;
        world.settle();
    }
    assert!(world.shards[0].is_stopped());
    assert_eq!(world.replies(writer), []);
}

/// Truncated bytes leave the journal once checkpoints have passed them, and a restart still works.
#[test]
fn journal_files_go_when_nothing_needs_them() {
    let mut world = World::with(1, 64, |config| {
        config.limits.checkpoint_interval_bytes = 20_000;
    });
    let writer = world.writer(SEGMENT);
    for number in 1..=200 {
        world.send(writer, append(&[7; 10_000], number));
        world.turn();
    }
    world.settle();
    let full = world.journal().stored_bytes();
    assert!(matches!(world.replies(writer).last(), Some(Command::DataAppended(_))));
    assert!(matches!(
        world.ask(writer, truncate(SEGMENT, 2_000_000)),
        Command::SegmentTruncated(_)
    ));
    for number in 201..=260 {
        world.advance(Duration::from_millis(300));
        world.send(writer, append(&[7; 1000], number));
        world.turn();
    }
    world.settle();
    let left = world.journal().stored_bytes();
    assert!(left < full / 2, "{left} bytes left of {full}");
    let counters = world.shards[0].counters();
    assert!(counters.trims > 0 && counters.trims < 25, "{} looks", counters.trims);
    world.journal().fail();
    world.settle();
    let again = world.connect();
    assert_eq!(world.set_up(again, SEGMENT), 260);
    assert_eq!(data(&world.ask(again, read(SEGMENT, 2_059_000))), [7; 1000]);
}

/// A shard that has recovered looks at once which files can go: in a journal that is full to the
/// last block no frame would ever ask.
#[test]
fn a_start_lets_go_of_files_before_any_frame_is_written() {
    let mut world = World::new();
    let writer = world.writer(SEGMENT);
    world.send(writer, append(b"kept", 1)).settle();
    world.advance(Duration::from_secs(2));
    world.settle();
    let before = *world.shards[0].counters();
    world.journal().fail();
    world.settle();
    world.advance(Duration::from_secs(2));
    world.settle();
    let counters = world.shards[0].counters();
    assert_eq!((counters.boots, counters.frames), (2, before.frames));
    assert!(counters.trims > before.trims, "{} looks", counters.trims);
}
