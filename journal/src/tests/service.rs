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
