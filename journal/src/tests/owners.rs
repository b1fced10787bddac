//! Two owners of one directory, where no lock keeps them apart.

use std::time::Duration;

use thalweg_core::env::journal::{Journal as _, JournalEvent};
use thalweg_core::fault::FaultClass;
use thalweg_core::position::FrameNumber;

use super::world::{World, Written, tiny};
use crate::files::journal_name;
use crate::{Config, Exclusion, Journal};

const LEASE: Duration = Duration::from_millis(20);

fn leased() -> Config {
    Config { exclusion: Exclusion::Lease(LEASE), ..tiny() }
}

/// A frame of a dead owner lands in its place after all.
fn land_late(world: &World, frame: &Written) {
    let name = journal_name(frame.address.file());
    if !world.disk.files().iter().any(|(file, _)| *file == name) {
        // The file has no name any more: it lands nowhere.
        return;
    }
    let at = usize::try_from(frame.address.file_offset()).expect("small");
    let length = frame.bytes.len();
    world.disk.change(&name, |bytes| bytes[at..at + length].copy_from_slice(&frame.bytes));
}

/// Writes of a killed owner that land after the next one has gone on change nothing of it.
#[test]
fn writes_that_land_late_change_nothing() {
    for seed in 0..15 {
        let mut world = World::open(seed, leased());
        world.replay_from = Some(FrameNumber(1));
        let mut late = Vec::new();
        for _ in 0..12 {
            for _ in 0..world.random.below(12) {
                world.write(1 + seed as usize % 3);
            }
            world.settle();
            while world.submit(2) {
                let newest = world.next.0 - 1;
                late.push(world.written[&FrameNumber(newest)].clone());
            }
            world.kill();
            world.recover().expect("the directory opens");
            assert!(world.damaged.is_empty(), "seed {seed}: {:?}", world.damaged);
            for _ in 0..world.random.below(6) {
                world.write(2);
            }
            world.settle();
            world.poll();
            while let Some(frame) = late.pop() {
                // What the new owner took over is its own by now, and the same bytes.
                land_late(&world, &frame);
            }
            if let Some(kept) = world.any_kept() {
                let read = world.fetch(kept.address).expect("what is durable is readable");
                assert!(read == kept.bytes);
            }
            let oldest = world.durable.0.saturating_sub(20).max(1);
            world.rest();
            if world.durable > FrameNumber(0) {
                world.trim(FrameNumber(oldest));
            }
        }
    }
}

/// An owner answers only within its lease, and stops when it finds that somebody else claimed.
#[test]
fn an_old_owner_stops() {
    let mut world = World::open(1, leased());
    world.write(2);
    world.settle();
    world.rest();
    // The disk in memory hands what completes to whoever asks first.
    while world.journal.claim.is_looking() || world.journal.files.is_working() {
        world.poll();
    }
    assert!(world.journal.is_owner(world.now));
    let mut next = Journal::new(world.disk.device(), leased()).expect("settings are legal");
    let patience = next.claim().expect("nothing fails");
    assert_eq!(patience, LEASE);
    let over = world.now.after(patience);
    assert!(!world.journal.is_owner(over), "whoever looks now looks behind the last answer");
    next.recover(&mut |_| {}).expect("the directory opens");
    let mut events = Vec::new();
    for _ in 0..4 {
        world.journal.poll(over, &mut events);
    }
    let failed = events.iter().find_map(|event| match event {
        JournalEvent::Failed { fault } => Some(fault.class),
        _ => None,
    });
    assert_eq!(failed, Some(FaultClass::Fenced));
    assert!(!world.journal.is_owner(over));
    let again = world.journal.recover(&mut |_| {}).expect_err("it cannot come back by itself");
    assert_eq!(again.class, FaultClass::Fenced);
}

/// An owner that recovers in place keeps its claim; of two claims the later one counts.
#[test]
fn a_recovery_in_place_claims_again() {
    let mut world = World::open(1, leased());
    world.write(2);
    world.settle();
    world.recover().expect("it is its own former owner");
    world.write(2);
    world.settle();
    let owners = |world: &World| -> Vec<String> {
        let files = world.disk.files().into_iter();
        files.map(|(name, _)| name).filter(|name| name.starts_with("owner-")).collect()
    };
    assert_eq!(owners(&world), ["owner-2"]);
    world.kill();
    world.recover().expect("the directory opens");
    assert_eq!(owners(&world), ["owner-3"]);
}
