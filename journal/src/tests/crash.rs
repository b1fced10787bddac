use std::panic::{AssertUnwindSafe, catch_unwind};

use thalweg_core::env::journal::{Journal as _, Recovered};
use thalweg_core::position::{FileId, FrameNumber};
use thalweg_core::time::Instant;

use super::world::{World, tiny};
use crate::files::journal_name;
use crate::memory::MemoryDisk;
use crate::{Canary, Config, Journal};

/// What a random run may meet.
#[derive(Clone, Copy)]
struct Weather {
    power_cuts: bool,
    write_failures_per_mille: u64,
    read_failures_per_mille: u64,
    crashes_in_recovery: bool,
}

const CALM: Weather = Weather {
    power_cuts: true,
    write_failures_per_mille: 0,
    read_failures_per_mille: 0,
    crashes_in_recovery: false,
};

/// What runs met: shows that they were not idle.
#[derive(Default)]
struct Met {
    failures: u64,
    recycled: u64,
    cut_bytes: u64,
}

/// Seeds per test: the default, or what the environment asks for.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let first = number_from("THALWEG_JOURNAL_SEED").unwrap_or(0);
    let count = number_from("THALWEG_JOURNAL_SEEDS").unwrap_or(default);
    first..first + count
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One random action on an open journal.
fn act(world: &mut World) {
    match world.random.below(24) {
        0..=9 => {
            let blocks = 1 + world.random.below(4) as usize;
            world.submit(blocks);
        }
        10..=19 => world.poll(),
        20 => world.rest(),
        21 => {
            if let Some(kept) = world.any_kept() {
                let read = world.fetch(kept.address);
                if world.disk_is_calm() {
                    assert_eq!(read.expect("a kept frame is readable"), kept.bytes);
                } else if let Ok(bytes) = read {
                    assert_eq!(bytes, kept.bytes);
                }
            }
        }
        22 => {
            if world.random.one_in(3) {
                let file = world.any_kept().map(|kept| kept.address.file());
                world.pinned.extend(file.filter(|_| world.pinned.len() < 3));
            } else if world.random.one_in(2) {
                world.pinned.pop_first();
            }
        }
        _ => {
            let from = world.replay_from.expect("set at start").0;
            if world.durable.0 > from {
                let ahead = world.random.below(world.durable.0 - from);
                world.trim(FrameNumber(from + ahead));
            }
        }
    }
}

/// Opens the journal, perhaps with crashes and failures on the way.
fn reopen(world: &mut World, weather: Weather) {
    for _ in 0..3 {
        if !weather.crashes_in_recovery || world.random.one_in(2) {
            break;
        }
        let operations = world.random.below(60);
        world.disk.set_fuse(Some(operations));
        if world.recover().is_ok() {
            world.disk.set_fuse(None);
            return;
        }
        crash(world, weather);
    }
    world.set_weather(weather.write_failures_per_mille, weather.read_failures_per_mille);
    for _ in 0..5 {
        if world.recover().is_ok() {
            return;
        }
    }
    world.set_weather(0, 0);
    world.recover().expect("recovers on a healthy disk");
}

fn crash(world: &mut World, weather: Weather) {
    world.disk.set_fuse(None);
    world.set_weather(0, 0);
    if weather.power_cuts && world.random.one_in(2) {
        world.cut_power();
    } else {
        world.kill();
    }
}

/// Random actions and crashes; every check is in `World`.
fn run(seed: u64, weather: Weather, canary: Option<Canary>, config: Config) -> Met {
    let mut met = Met::default();
    let mut world = World::new(seed, config);
    world.config.canary = canary;
    world.restart();
    world.replay_from = Some(FrameNumber(1));
    reopen(&mut world, weather);
    for _ in 0..8 {
        world.set_weather(weather.write_failures_per_mille, weather.read_failures_per_mille);
        for _ in 0..world.random.below(120) {
            if !world.failures.is_empty() {
                break;
            }
            act(&mut world);
        }
        let is_failed = !world.failures.is_empty();
        met.failures += u64::from(is_failed);
        met.recycled += world.journal.counters().files_recycled;
        if !is_failed || world.random.one_in(3) {
            crash(&mut world, weather);
        }
        reopen(&mut world, weather);
        assert!(world.damaged.is_empty(), "a crash is no damage: {:?}", world.damaged);
        met.cut_bytes += world.journal.counters().tail_cut_bytes;
        let disk: u64 = world.disk.files().iter().map(|(_, bytes)| bytes).sum();
        let most = world.config.journal_bytes_max + world.config.file_bytes;
        assert!(disk <= most, "{disk} bytes of files: {:?}", world.disk.files());
    }
    met
}

fn run_all(default: u64, weather: Weather) {
    let mut met = Met::default();
    for seed in seeds(default) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, weather, None, tiny())));
        let Ok(run) = outcome else {
            panic!("seed {seed}: set THALWEG_JOURNAL_SEED={seed} THALWEG_JOURNAL_SEEDS=1");
        };
        met.failures += run.failures;
        met.recycled += run.recycled;
        met.cut_bytes += run.cut_bytes;
    }
    if seeds(default).end - seeds(default).start >= default {
        assert!(met.recycled > default, "files were recycled");
        assert!(met.cut_bytes > 0, "tails were cut");
        assert!(weather.write_failures_per_mille == 0 || met.failures > 0, "writes failed");
    }
}

/// Power cuts and kills at random points, any subset of unsynced sectors kept: every frame that was
/// reported durable is there, byte for byte and in order, and what was cut never comes back.
#[test]
fn acknowledged_frames_survive_power_cuts() {
    run_all(150, CALM);
}

/// The same with crashes inside recoveries.
#[test]
fn a_crash_in_recovery_loses_nothing() {
    run_all(150, Weather { crashes_in_recovery: true, ..CALM });
}

/// The same with failing writes and syncs: nothing is acknowledged after one, and in the same
/// process nothing comes back that was not.
#[test]
fn failing_writes_lose_nothing() {
    run_all(150, Weather { write_failures_per_mille: 20, crashes_in_recovery: true, ..CALM });
}

/// The same with reads that fail now and then.
#[test]
fn failing_reads_lose_nothing() {
    let weather = Weather { read_failures_per_mille: 3, ..CALM };
    run_all(60, Weather { write_failures_per_mille: 5, ..weather });
}

/// A planted bug is caught by the very runs that pass without it.
fn is_caught(canary: Canary) -> bool {
    (0..60).any(|seed| {
        catch_unwind(AssertUnwindSafe(|| run(seed, CALM, Some(canary), tiny()))).is_err()
    })
}

/// Acknowledging a write that is not synced is caught.
#[test]
fn canary_acknowledged_before_sync_is_caught() {
    assert!(is_caught(Canary::AckBeforeSync));
}

/// Taking torn frames for good ones is caught.
#[test]
fn canary_without_payload_checksum_is_caught() {
    assert!(is_caught(Canary::SkipPayloadChecksum));
}

/// What power took back by undoing a file's name does not come again when the same file gets the
/// same name: a journal whose newest file is a spare again is recovered, works on for a while and
/// is killed at any poll; the next recovery finds what the first one found.
#[test]
fn records_of_a_file_that_lost_its_name_stay_cut() {
    let mut world = World::open(11, tiny());
    let mut newest = None;
    while newest != Some(FileId(3)) {
        world.write(2);
        world.settle();
        newest = world.written.last_key_value().map(|(_, written)| written.address.file());
    }
    world.write(2);
    world.settle();
    let files: Vec<(String, Vec<u8>)> = world
        .disk
        .files()
        .into_iter()
        .filter(|(name, _)| name.starts_with("journal-") && *name <= journal_name(FileId(3)))
        .map(|(name, _)| {
            let content = world.disk.read(&name).expect("it is listed");
            (if name == journal_name(FileId(3)) { "spare-9".to_owned() } else { name }, content)
        })
        .collect();
    for polls in 0..60 {
        let disk = MemoryDisk::holding(polls, u64::MAX, files.clone());
        let recover = |polls: u64| {
            let mut journal = Journal::new(disk.device(), tiny()).expect("settings are legal");
            let mut found = Vec::new();
            let mut visit = |recovered| match recovered {
                Recovered::Frame { number, .. } => found.push(number),
                Recovered::Damaged { fault, .. } => panic!("damaged: {fault}"),
            };
            journal.recover(&mut visit).expect("opens");
            let mut events = Vec::new();
            for poll in 0..polls {
                journal.poll(Instant(poll * 100_000), &mut events);
            }
            disk.kill();
            found
        };
        let first = recover(polls);
        let second = recover(0);
        assert_eq!(second, first, "killed after {polls} polls");
    }
}
