use std::time::Duration;

use thalweg_core::env::journal::Journal as _;
use thalweg_core::fault::FaultClass;
use thalweg_core::position::{FrameNumber, JournalAddress};

use super::world::{World, tiny};

/// Frames written, made durable and recovered by a new process are the same, in order, across many
/// files.
#[test]
fn what_was_written_is_recovered() {
    let mut world = World::open(1, tiny());
    world.replay_from = Some(FrameNumber(1));
    for number in 0..60 {
        world.write(1 + number % 3);
    }
    world.settle();
    assert_eq!(world.durable, FrameNumber(60));
    world.cut_power();
    let opened = world.recover().expect("recovers");
    assert_eq!((opened.epoch.0, opened.next_frame.0, opened.tail_cut_bytes), (2, 61, 0));
    assert_eq!(world.found.len(), 60);
    assert!(world.damaged.is_empty());
}

/// Each frame can be fetched with the bytes that were submitted; an address in a file that does not
/// exist is refused.
#[test]
fn frames_are_fetched_as_submitted() {
    let mut world = World::open(2, tiny());
    world.replay_from = Some(FrameNumber(1));
    for _ in 0..20 {
        world.write(2);
    }
    world.settle();
    for number in 1..=20 {
        let written = world.written[&FrameNumber(number)].clone();
        assert_eq!(world.fetch(written.address).expect("is there"), written.bytes);
    }
    let nowhere = JournalAddress::new(thalweg_core::position::FileId(99), 1, 1);
    assert_eq!(world.fetch(nowhere).expect_err("is not there").class, FaultClass::Unavailable);
    assert_eq!(world.journal.counters().fetches, 21);
}

/// After the silence that is set one beacon is written, and then nothing more.
#[test]
fn one_beacon_follows_a_silence() {
    let mut world = World::open(3, tiny());
    assert_eq!(world.journal.next_deadline(), None, "an opening needs no beacon");
    world.write(1);
    world.settle();
    let due = world.journal.next_deadline().expect("a beacon is due");
    assert_eq!(due.since(world.now), world.config.beacon_after);
    while world.now.after(Duration::from_micros(100)) < due {
        world.poll();
        assert_eq!(world.journal.counters().syncs, 3, "header and opening, frame");
    }
    world.rest();
    assert_eq!(world.journal.counters().beacons, 1);
    assert_eq!(world.journal.next_deadline(), None);
}

/// A frame that comes in time makes the beacon unnecessary.
#[test]
fn frames_without_silence_need_no_beacon() {
    let mut world = World::open(4, tiny());
    for _ in 0..50 {
        world.write(1);
        world.settle();
    }
    assert_eq!(world.journal.counters().beacons, 0);
}

/// No more frames are taken than may be in flight, and none that is larger than a file.
#[test]
fn submissions_are_bounded() {
    let mut world = World::open(5, tiny());
    world.rest();
    let max = world.config.frame_bytes_max();
    assert!(world.journal.can_submit(max));
    assert!(!world.journal.can_submit(max + 4096));
    for _ in 0..4 {
        assert!(world.submit(1));
    }
    assert_eq!(world.journal.frames_in_flight(), 4);
    assert!(!world.journal.can_submit(4096));
    world.settle();
    assert!(world.journal.can_submit(4096));
}

/// Room is what is prepared: it shrinks with each frame and grows when a file is ready.
#[test]
fn room_is_what_is_prepared() {
    let mut world = World::open(6, tiny());
    let usable = world.config.frame_bytes_max();
    assert_eq!(world.journal.room_bytes(), usable - 4096);
    world.rest();
    assert_eq!(world.journal.room_bytes(), 2 * usable - 4096);
    world.write(2);
    assert_eq!(world.journal.room_bytes(), 2 * usable - 3 * 4096);
}
