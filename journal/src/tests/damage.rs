use thalweg_core::env::journal::{Journal as _, Recovered};
use thalweg_core::fault::FaultClass;
use thalweg_core::id::ContainerId;
use thalweg_core::position::{BLOCK_BYTES, FileId, FrameNumber, JournalAddress};

use super::world::{World, tiny};
use crate::files::journal_name;
use crate::{Canary, Config};

/// A journal of `frames` frames of two blocks, frame n of container n mod 8, all durable and told
/// so by a beacon, closed.
fn closed_journal(seed: u64, frames: u64) -> World {
    let config = Config { containers: (0..8).map(ContainerId).collect(), ..tiny() };
    let mut world = World::open(seed, config);
    world.replay_from = Some(FrameNumber(1));
    for number in 1..=frames {
        while !world.submit_for(2, container(number)) {
            world.poll();
        }
    }
    world.settle();
    world.rest();
    assert!(world.journal.counters().beacons > 0);
    world.restart();
    world
}

fn container(number: u64) -> ContainerId {
    ContainerId(u16::try_from(number % 8).expect("small"))
}

fn flip(world: &World, address: JournalAddress, at: u64) {
    world.disk.change(&journal_name(address.file()), |bytes| {
        bytes[usize::try_from(address.file_offset() + at).expect("small")] ^= 0x10;
    });
}

fn names(world: &World) -> Vec<FrameNumber> {
    world.found.clone()
}

/// A flipped bit anywhere in an acknowledged frame is damage that names the frame's container, and
/// the frames before and behind it are still given; enumerated over frames and places.
#[test]
fn a_flipped_bit_in_an_acknowledged_frame_is_damage() {
    for at in [5, 33, 90, 126, 128, 2000, 4096, 8191] {
        for number in 1..=20 {
            let mut world = closed_journal(number, 20);
            let address = world.written[&FrameNumber(number)].address;
            flip(&world, address, at);
            world.recover().expect("the others are served");
            let others: Vec<_> =
                (1..=20).filter(|&other| other != number).map(FrameNumber).collect();
            assert_eq!(names(&world), others, "frame {number} at {at}");
            assert_eq!(world.damaged.len(), 1, "frame {number} at {at}: {:?}", world.damaged);
            let (containers, fault) = &world.damaged[0];
            assert_eq!(containers, &[container(number)], "frame {number} at {at}");
            assert_eq!(fault.class, FaultClass::Corrupt);
            assert!(fault.detail.contains(&journal_name(address.file())), "{fault}");
            assert!(fault.detail.contains(&address.file_offset().to_string()), "{fault}");
            assert_eq!(world.journal.counters().damaged, 1);
            // The frame cannot be fetched either.
            let fetched = world.fetch(address).expect_err("it is damaged");
            assert_eq!(fetched.class, FaultClass::Corrupt);
        }
    }
}

/// A damaged beacon or opening costs nobody anything.
#[test]
fn damage_to_the_journals_own_records_stops_no_container() {
    let mut world = closed_journal(3, 20);
    let opening = JournalAddress::new(FileId(1), 1, 1);
    for at in [40, 4000] {
        flip(&world, opening, at);
    }
    world.replay_from = None;
    world.recover().expect("recovers");
    assert_eq!(world.damaged, []);
    assert_eq!(world.found.last(), Some(&FrameNumber(20)));
}

/// A damaged file header is made up for by the first record of the file.
#[test]
fn a_damaged_file_header_loses_nothing() {
    for file in 1..=4 {
        let mut world = closed_journal(4, 20);
        assert!(world.disk.read(&journal_name(FileId(4))).is_some());
        world.disk.change(&journal_name(FileId(file)), |bytes| bytes[60] ^= 1);
        world.recover().expect("recovers");
        assert_eq!(world.damaged, []);
        assert_eq!(world.found.len(), 20);
    }
}

/// Header and first record of a file destroyed together: what was in the record counts as lost, the
/// rest of the file is served, and the file is not removed.
#[test]
fn a_file_with_an_unreadable_beginning_is_damage() {
    let mut world = closed_journal(5, 20);
    let first = world.written.values().find(|written| written.address.first_block() == 1);
    let lost = first.expect("a file begins with a frame").address;
    world.disk.change(&journal_name(lost.file()), |bytes| bytes[..8192].fill(0x55));
    world.recover().expect("recovers");
    assert_eq!(world.found.len(), 19);
    assert_eq!(world.damaged.len(), 1);
    assert!(world.disk.read(&journal_name(lost.file())).is_some());
}

/// A file that vanished from the middle, and one that a replay needs first, are damage.
#[test]
fn a_missing_file_is_damage() {
    for file in [1, 2, 3] {
        let mut world = closed_journal(6, 25);
        world.disk.remove(&journal_name(FileId(file)));
        world.recover().expect("recovers");
        assert!(!world.damaged.is_empty());
        assert!(world.damaged.iter().any(|(containers, _)| containers.is_empty()));
    }
}

/// Random bytes over any stretch of an acknowledged journal never lead to a cut: every frame is
/// given or counted as damaged; enumerated over all blocks.
#[test]
fn destroyed_stretches_are_never_cut() {
    for blocks in [1, 3, 7] {
        for place in 0..48 {
            let mut world = closed_journal(7, 20);
            let (file, block) = (FileId(1 + place / 16), u64::from(place % 16));
            let begin = usize::try_from(block * BLOCK_BYTES).expect("small");
            let end = (begin + blocks * 4096).min(64 << 10);
            let mut random = world.random.clone();
            world.disk.change(&journal_name(file), |bytes| {
                bytes[begin..end].fill_with(|| random.number() as u8);
            });
            let hit = world.written.values().filter(|written| {
                let from = usize::try_from(written.address.file_offset()).expect("small");
                written.address.file() == file && from < end && from + 8192 > begin
            });
            let hit = hit.count();
            world.recover().expect("recovers");
            assert_eq!(world.found.len(), 20 - hit, "{file:?} block {block}");
            assert_eq!(world.damaged.is_empty(), hit == 0, "{file:?} block {block}");
        }
    }
}

/// A flipped bit in a frame that nothing tells to be durable is taken for a torn write and cut.
#[test]
fn damage_beyond_the_watermark_is_cut() {
    let mut world = World::open(8, tiny());
    world.replay_from = Some(FrameNumber(1));
    for _ in 0..3 {
        world.write(2);
        world.settle();
    }
    world.restart();
    flip(&world, world.written[&FrameNumber(3)].address, 500);
    world.durable = FrameNumber(2);
    let opened = world.recover().expect("recovers");
    assert_eq!(opened.tail_cut_bytes, 8192);
    assert_eq!(opened.next_frame, FrameNumber(3));
    assert_eq!(world.damaged, []);
    // It stays cut when the bit flips back: the opening record lies over it.
    world.restart();
    world.recover().expect("recovers");
    assert_eq!(names(&world), [FrameNumber(1), FrameNumber(2)]);
}

/// A block that the device does not read at the journal's end stops the opening, because what lies
/// there may have been acknowledged; in the middle it is damage.
#[test]
fn an_unreadable_block_is_never_taken_for_the_end() {
    let mut world = closed_journal(9, 20);
    let last = world.written[&FrameNumber(20)].address;
    let behind = u64::from(last.first_block() + last.blocks() + 3) * BLOCK_BYTES;
    world.disk.make_unreadable(&journal_name(last.file()), behind);
    let refused = world.recover().expect_err("refused");
    assert_eq!(refused.class, FaultClass::Device);
    world.disk.heal();
    let middle = world.written[&FrameNumber(10)].address;
    world.disk.make_unreadable(&journal_name(middle.file()), middle.file_offset());
    world.recover().expect("recovers");
    assert_eq!(world.damaged.len(), 1);
    assert_eq!(world.damaged[0].0, [container(10)]);
}

/// Told to, the journal opens over an unreadable end.
#[test]
fn an_unreadable_end_is_cut_when_told_so() {
    let mut world = closed_journal(9, 20);
    let last = world.written[&FrameNumber(20)].address;
    let behind = u64::from(last.first_block() + last.blocks() + 3) * BLOCK_BYTES;
    world.disk.make_unreadable(&journal_name(last.file()), behind);
    world.config.cuts_unreadable_tail = true;
    world.restart();
    world.recover().expect("opens");
    assert_eq!(world.found.len(), 20);
}

/// A read that was wrong once is done again and answered right.
#[test]
fn a_fetch_that_was_wrong_once_is_repeated() {
    let mut world = closed_journal(10, 5);
    world.recover().expect("recovers");
    let written = world.written[&FrameNumber(2)].clone();
    world.disk.set_wrong_reads(0..1);
    assert_eq!(world.fetch(written.address).expect("right at last"), written.bytes);
    assert_eq!(world.journal.counters().rereads, 1);
    world.disk.set_wrong_reads(0..2);
    let fault = world.fetch(written.address).expect_err("wrong twice");
    assert_eq!(fault.class, FaultClass::Corrupt);
    assert!(fault.detail.contains("journal-00000001 at offset"), "{fault}");
}

/// Whichever read of a recovery is wrong once, all that was acknowledged is found.
#[test]
fn a_recovery_that_reads_wrong_once_finds_everything() {
    for read in 0..60 {
        let mut world = closed_journal(12, 25);
        world.disk.set_wrong_reads(read..read + 1);
        world.recover().expect("recovers");
        assert!(world.damaged.is_empty(), "read {read}: {:?}", world.damaged);
        assert_eq!(world.found.len(), 25, "read {read}");
        world.write(1);
        world.settle();
        world.cut_power();
        world.recover().expect("recovers");
        assert_eq!((world.damaged.len(), world.found.len()), (0, 26), "read {read}");
    }
}

/// A directory of another shard, another data directory or another format is refused untouched.
#[test]
fn a_strange_directory_is_refused() {
    let mut world = closed_journal(11, 5);
    let before = world.disk.files();
    let own = world.config.clone();
    world.config.directory ^= 1;
    world.restart();
    assert_eq!(world.recover().expect_err("refused").class, FaultClass::Corrupt);
    world.config = Config { shard: thalweg_core::id::ShardId(1), ..own.clone() };
    world.restart();
    assert_eq!(world.recover().expect_err("refused").class, FaultClass::Corrupt);
    world.config = own;
    world.restart();
    world.disk.change(&journal_name(FileId(1)), |bytes| {
        bytes[4] = 2;
        let checksum = crc32c::crc32c(&bytes[..124]);
        bytes[124..128].copy_from_slice(&checksum.to_le_bytes());
    });
    let refused = world.recover().expect_err("refused");
    assert!(refused.detail.contains("format 2"), "{refused}");
    assert_eq!(world.disk.files(), before);
}

/// The second pass gives the same frames as the first, from any of them on.
#[test]
fn a_replay_gives_the_frames_from_its_beginning_on() {
    let mut world = closed_journal(12, 20);
    world.recover().expect("recovers");
    for from in [1, 2, 7, 20] {
        let mut found = Vec::new();
        let address = world.written[&FrameNumber(from)].address;
        let mut visit = |recovered| match recovered {
            Recovered::Frame { number, .. } => found.push(number),
            Recovered::Damaged { fault, .. } => panic!("{fault}"),
        };
        world.journal.replay(address, &mut visit).expect("replays");
        assert_eq!(found, (from..=20).map(FrameNumber).collect::<Vec<_>>());
    }
}

/// The planted bug of cutting at the first bad record is caught by the damage test.
#[test]
fn canary_that_cuts_acknowledged_frames_is_caught() {
    let mut world = closed_journal(13, 20).with_canary(Canary::CutAcknowledgedTail);
    flip(&world, world.written[&FrameNumber(10)].address, 128);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.recover().expect("recovers");
    }));
    assert!(outcome.is_err(), "frame 20 was acknowledged and is missing without a word");
}

/// Headers with right checksums and random fields, anywhere in the directory, never panic or hang
/// a recovery, and a second one ends alike.
#[test]
fn lying_headers_are_survived() {
    for seed in 0..400 {
        let mut world = closed_journal(14, 20);
        let mut random = crate::memory::Random(seed);
        for _ in 0..1 + random.below(3) {
            let file = journal_name(FileId(1 + u32::try_from(random.below(5)).expect("small")));
            if world.disk.read(&file).is_none() {
                continue;
            }
            let at = usize::try_from(random.below(16)).expect("small") * 4096;
            let field = 8 * (1 + usize::try_from(random.below(12)).expect("small"));
            let value = [0, 1, 7, 20, 1 << 20, u64::MAX, random.number()];
            let value = value[usize::try_from(random.below(7)).expect("small")];
            let width = if random.one_in(2) { 4 } else { 8 };
            world.disk.change(&file, |bytes| {
                bytes[at + field..at + field + width]
                    .copy_from_slice(&value.to_le_bytes()[..width]);
                let checksum = crc32c::crc32c(&bytes[at..at + 124]);
                bytes[at + 124..at + 128].copy_from_slice(&checksum.to_le_bytes());
            });
        }
        let first = world.journal.recover(&mut |_| {});
        world.restart();
        let second = world.journal.recover(&mut |_| {});
        assert_eq!(first.is_ok(), second.is_ok(), "seed {seed}: {first:?} then {second:?}");
    }
}

/// A needed file of which nothing but zeros is left is damage, not a place where the journal
/// happens to begin. The newest one cannot be told from a file that was being prepared.
#[test]
fn a_needed_file_of_zeros_is_damage() {
    let newest = closed_journal(5, 20).written[&FrameNumber(20)].address.file();
    assert!(newest > FileId(2));
    for file in 1..newest.0 {
        let mut world = closed_journal(5, 20);
        world.disk.change(&journal_name(FileId(file)), |bytes| bytes.fill(0));
        world.recover().expect("the others are served");
        assert!(!world.damaged.is_empty(), "file {file}: {:?}", world.found);
    }
}

/// A journal of which only one file is left, under another's name, is damage and not an empty
/// journal; the file is not used again.
#[test]
fn a_file_under_another_name_is_not_an_empty_journal() {
    check_misnamed(|_| ());
}

/// The same when its header is zeros besides: there are records behind it.
#[test]
fn a_file_under_another_name_without_a_header_is_not_an_empty_journal() {
    check_misnamed(|content| content[..BLOCK_BYTES as usize].fill(0));
}

/// Leaves of a journal only one file, spoilt, under another's name.
fn check_misnamed(spoil: impl FnOnce(&mut Vec<u8>)) {
    let mut world = closed_journal(5, 20);
    let names: Vec<String> = world.disk.files().into_iter().map(|(name, _)| name).collect();
    let mut content = world.disk.read(&journal_name(FileId(3))).expect("there are three");
    spoil(&mut content);
    for name in names {
        if name != journal_name(FileId(2)) {
            world.disk.remove(&name);
        }
    }
    world.disk.change(&journal_name(FileId(2)), |bytes| bytes.copy_from_slice(&content));
    let mut damages = 0;
    let recovered = world.journal.recover(&mut |found| match found {
        Recovered::Damaged { .. } => damages += 1,
        Recovered::Frame { number, .. } => panic!("frame {number:?} is not of this file"),
    });
    recovered.expect("opens, and refuses to serve");
    assert_eq!(damages, 1);
    assert!(world.disk.read(&journal_name(FileId(2))) == Some(content), "it is kept as it is");
}
