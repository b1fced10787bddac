use thalweg_core::env::journal::Journal as _;
use thalweg_core::fault::FaultClass;
use thalweg_core::position::FrameNumber;

use super::world::{World, tiny};
use crate::Config;

const FILE: u64 = 64 << 10;

/// A world in which the write of the newest of three frames failed.
fn poisoned(seed: u64) -> World {
    let mut world = World::open(seed, tiny());
    world.replay_from = Some(FrameNumber(1));
    world.write(2);
    world.settle();
    world.disk.set_failures(1000, 0);
    world.write(2);
    world.write(2);
    while world.failures.is_empty() {
        world.poll();
    }
    world.disk.set_failures(0, 0);
    world
}

/// After a failed write there is one failure, no acknowledgement, no submission; reads go on.
#[test]
fn a_failed_write_ends_the_incarnation() {
    let mut world = poisoned(1);
    world.rest();
    assert_eq!(world.failures.len(), 1);
    assert_eq!(world.failures[0].class, FaultClass::Device);
    assert_eq!(world.durable, FrameNumber(1));
    assert!(!world.journal.can_submit(4096));
    assert_eq!(world.journal.room_bytes(), 0);
    assert_eq!(world.journal.next_deadline(), None);
    let first = world.written[&FrameNumber(1)].clone();
    assert_eq!(world.fetch(first.address).expect("reads go on"), first.bytes);
    assert_eq!(world.journal.counters().poisonings, 1);
}

/// What failed does not come back: not in the recovery of the same process, not after later power
/// cuts, although the frames may be whole on the disk. The journal goes on in a new file.
#[test]
fn a_failed_frame_never_comes_back() {
    for seed in 0..40 {
        let mut world = poisoned(seed);
        let old = world.written[&FrameNumber(1)].address.file();
        let opened = world.recover().expect("recovers");
        assert_eq!(world.found, [FrameNumber(1)]);
        assert_eq!(opened.next_frame, FrameNumber(2));
        world.write(1);
        assert!(world.written[&FrameNumber(2)].address.file() > old);
        world.settle();
        for _ in 0..3 {
            world.cut_power();
            world.recover().expect("recovers");
            assert_eq!(world.found, [FrameNumber(1), FrameNumber(2)]);
            assert!(world.damaged.is_empty());
        }
    }
}

/// With no room for another file the journal says so before it takes a frame, and takes frames
/// again by itself when room returns.
#[test]
fn a_full_disk_stalls_and_passes() {
    let mut world = World::open(2, tiny());
    world.replay_from = Some(FrameNumber(1));
    world.disk.set_capacity(3 * FILE);
    let mut stalled = 0;
    while stalled < 1000 {
        let size = 2;
        stalled = if world.submit(size) { 0 } else { stalled + 1 };
        world.poll();
    }
    assert!(world.journal.room_bytes() < 8192);
    assert!(world.journal.counters().file_failures > 0);
    assert!(world.failures.is_empty(), "a full disk is no failure");
    assert!(world.journal.next_deadline().is_some(), "creation is tried again");
    let frames = world.durable;
    world.disk.set_capacity(5 * FILE);
    world.write(2);
    world.settle();
    assert!(world.durable > frames);
}

/// The budget bounds all files together; a full journal takes frames again once something is
/// trimmed, because the reserve of the last file holds the records that trimming needs.
#[test]
fn the_budget_bounds_the_directory_and_trimming_frees_it() {
    let config = Config { journal_bytes_max: 4 * FILE, ..tiny() };
    let mut world = World::open(3, config);
    world.replay_from = Some(FrameNumber(1));
    for round in 0..30 {
        let mut stalled = 0;
        while stalled < 300 {
            stalled = if world.submit(3) { 0 } else { stalled + 1 };
            world.poll();
            let bytes: u64 = world.disk.files().iter().map(|(_, bytes)| bytes).sum();
            assert!(bytes <= 4 * FILE, "{:?}", world.disk.files());
        }
        world.settle();
        world.trim(world.durable);
        world.rest();
        assert!(world.journal.room_bytes() >= FILE / 2, "round {round}: {:?}", world.disk.files());
    }
    assert!(world.journal.counters().files_recycled > 30);
    world.cut_power();
    world.recover().expect("recovers");
    assert!(world.damaged.is_empty());
}

/// A restart of a journal that is full to the last block works.
#[test]
fn a_full_journal_can_be_opened() {
    let config = Config { journal_bytes_max: 4 * FILE, ..tiny() };
    let mut world = World::open(4, config);
    world.replay_from = Some(FrameNumber(1));
    let mut stalled = 0;
    while stalled < 300 {
        stalled = if world.submit(1) { 0 } else { stalled + 1 };
        world.poll();
    }
    for _ in 0..20 {
        world.cut_power();
        world.recover().expect("recovers");
        world.rest();
        assert!(world.damaged.is_empty());
    }
    world.trim(world.durable);
    world.rest();
    world.write(1);
}

/// Files that are referenced stay when everything around them is trimmed, and their frames can be
/// read after a restart.
#[test]
fn referenced_files_are_kept() {
    let mut world = World::open(5, tiny());
    world.replay_from = Some(FrameNumber(1));
    for _ in 0..40 {
        world.write(2);
    }
    world.settle();
    let kept = world.written[&FrameNumber(12)].clone();
    let gone = world.written[&FrameNumber(1)].clone();
    world.pinned.insert(kept.address.file());
    world.trim(FrameNumber(40));
    world.rest();
    assert_eq!(world.fetch(kept.address).expect("is kept"), kept.bytes);
    assert_eq!(world.fetch(gone.address).expect_err("is gone").class, FaultClass::Unavailable);
    world.cut_power();
    world.recover().expect("recovers");
    assert_eq!(world.found, [FrameNumber(40)]);
    assert_eq!(world.fetch(kept.address).expect("is kept"), kept.bytes);
}

/// What a crash left half prepared is removed, other people's files are not touched.
#[test]
fn half_prepared_files_are_removed() {
    for operations in 0..40 {
        let mut world = World::new(6, tiny());
        world.disk.set_fuse(Some(operations));
        if world.recover().is_ok() {
            world.write(1);
            world.rest();
        }
        world.disk.set_fuse(None);
        world.cut_power();
        world.recover().expect("recovers");
        let names = world.disk.files();
        assert!(!names.iter().any(|(name, _)| name.starts_with("fresh")), "{names:?}");
        world.write(1);
        world.settle();
    }
}

/// Frames that a killed process left readable but not durable are made durable when they are
/// accepted: a power cut right after the recovery takes none of them.
#[test]
fn what_a_recovery_accepted_survives_a_power_cut() {
    for seed in 0..100 {
        let mut world = World::open(seed, tiny());
        world.replay_from = Some(FrameNumber(1));
        for _ in 0..3 {
            world.write(2);
            world.poll();
        }
        world.kill();
        world.recover().expect("recovers");
        let found = world.found.clone();
        world.cut_power();
        world.recover().expect("recovers");
        assert_eq!(world.found, found);
        assert!(world.damaged.is_empty());
    }
}
