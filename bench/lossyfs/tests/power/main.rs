//! The real server on a file system that loses what was not synced, fails, fills up and stalls.
//!
//! Where FUSE is missing each test says so and passes. `THALWEG_POWER_CUTS` sets the number of
//! power cuts of each of the two cut tests, `THALWEG_STALL_SECONDS` the length of the stall,
//! `THALWEG_SEED` the seed, which is printed.

mod payload;
mod rig;
mod writer;

use std::time::{Duration, Instant};

use rig::{Rig, connect, setting, wait_until};
use thalweg_crash::process::Server;
use thalweg_crash::wire::Trouble;
use thalweg_lossyfs::fault::{Fault, Operation};
use thalweg_lossyfs::power::{Cut, CutReport};
use thalweg_wire::Command;

/// The next number of a seeded row (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Where a recovery reads less than the dice asks for, the power is cut after this time.
const RECOVERY_MAX: Duration = Duration::from_millis(150);

/// Cuts the power again and again under load, sometimes while the server is still starting, and
/// verifies everything after each restart.
fn cut_again_and_again(name: &str, cuts_default: u64, mut how: impl FnMut(u64) -> Cut) {
    let Some(mut rig) = Rig::start() else { return };
    let mut dice = setting("THALWEG_SEED", u64::from(std::process::id()));
    println!("{name}: THALWEG_SEED={dice}");
    let cuts = setting("THALWEG_POWER_CUTS", cuts_default);
    rig.lossy.set_latency(Duration::from_micros(300));
    let (mut total, mut events, mut restarts) = (CutReport::default(), 0, Vec::new());
    let begin = Instant::now();
    for number in 0..cuts {
        if number % 5 == 4 {
            // In the middle of a recovery, or soon after a short one.
            let server = Server::launch(&rig.settings).expect("starts");
            let operations = rig.lossy.count(Operation::Read) + next(&mut dice) % 60;
            let begin = Instant::now();
            while rig.lossy.count(Operation::Read) < operations && begin.elapsed() < RECOVERY_MAX {
                std::thread::yield_now();
            }
            rig.server = Some(server);
            total += rig.power_cut(how(next(&mut dice)));
        }
        if rig.server.is_none() {
            restarts.push(rig.boot());
        }
        if number > 0 {
            events += rig.verify();
        }
        let (wait, seed) = (next(&mut dice) % 3000, next(&mut dice));
        let cut = how(seed);
        let report = rig.load(|load| {
            load.wait_acknowledged(50 + wait);
            load.lossy.cut(cut)
        });
        total += report;
        rig.kill();
        rig.lossy.power_on();
    }
    restarts.push(rig.boot());
    events += rig.verify();
    restarts.sort();
    println!(
        "{name}: {cuts} power cuts in {:.1?}; {events} events judged; {total:?}; restart median \
         {:.0?}, longest {:.0?}",
        begin.elapsed(),
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1]
    );
    assert!(total.pending_writes > 0 || cuts < 5, "no cut met a write on its way: {total:?}");
}

/// Shows F3 and S9: power cuts that drop everything unsynced take nothing that was acknowledged or
/// shown to a reader.
#[test]
fn power_cuts_that_drop_all_unsynced_lose_nothing_acknowledged() {
    cut_again_and_again("drop all", 5, |_| Cut::DropAll);
}

/// Shows F4 and F5: power cuts that keep any subset of unsynced sectors, torn and out of order,
/// lose nothing that was acknowledged and bring no other byte.
#[test]
fn power_cuts_that_tear_and_reorder_lose_nothing_acknowledged() {
    cut_again_and_again("tear and reorder", 5, Cut::Seeded);
}

/// Shows F2 and F3 for a new directory: after a power cut at any point of the first start, the next
/// start succeeds and serves.
#[test]
fn a_power_cut_during_the_first_start_leaves_a_directory_that_starts() {
    let mut dice = setting("THALWEG_SEED", u64::from(std::process::id()));
    println!("first start: THALWEG_SEED={dice}");
    for number in 0..setting("THALWEG_POWER_CUTS", 8) {
        let Some(mut rig) = Rig::mount() else { return };
        let kinds = [Operation::Change, Operation::Sync, Operation::SyncDirectory];
        let count = |rig: &Rig| kinds.iter().map(|kind| rig.lossy.count(*kind)).sum::<u64>();
        rig.server = Some(Server::launch(&rig.settings).expect("it is executable"));
        let operations = next(&mut dice) % 40;
        let begin = Instant::now();
        while count(&rig) < operations && begin.elapsed() < Duration::from_secs(1) {
            std::thread::yield_now();
        }
        let seed = next(&mut dice);
        rig.power_cut(if number % 2 == 0 { Cut::DropAll } else { Cut::Seeded(seed) });
        rig.boot();
        rig.load(|load| load.wait_each(20));
        rig.verify();
    }
}

/// One operation on a journal fails under load: the server goes on without a restart, and a power
/// cut afterwards takes nothing that was acknowledged.
fn one_failure(operation: Operation, path_contains: &str) {
    let Some(mut rig) = Rig::start() else { return };
    for round in 0..3 {
        let before = rig.lossy.faults_fired();
        let healed = rig.load(|load| {
            load.wait_acknowledged(200);
            let fault = Fault { pass: round * 7, ..Fault::once(operation, path_contains) };
            load.lossy.fail(fault);
            wait_until("the fault happens", || load.lossy.faults_fired() > before);
            load.wait_each(100)
        });
        println!("{operation:?} fails: each writer has 100 more events after {healed:.0?}");
        rig.verify();
        // What a failed sync left behind must not be taken for durable later.
        rig.power_cut(Cut::DropAll);
        rig.boot();
        rig.verify();
    }
}

/// Shows F10: a failed journal write is acknowledged to nobody, and the shard goes on by itself.
#[test]
fn a_failed_journal_write_costs_nothing_acknowledged_and_heals() {
    one_failure(Operation::Write, "/journal-");
}

/// Shows F11: after a failed sync nothing is acknowledged by trying again, and the shard heals.
#[test]
fn a_failed_sync_costs_nothing_acknowledged_and_heals() {
    one_failure(Operation::Sync, "/journal-");
}

/// Shows F12 at a start: a read that fails during recovery neither loses nor invents anything.
#[test]
fn a_failed_read_during_recovery_costs_nothing_acknowledged() {
    let Some(mut rig) = Rig::start() else { return };
    rig.load(|load| load.wait_acknowledged(2000));
    for pass in [0, 1, 3, 9] {
        rig.power_cut(Cut::DropAll);
        rig.lossy.fail(Fault { pass, ..Fault::once(Operation::Read, "/journal-") });
        let mut server = Server::launch(&rig.settings).expect("starts");
        if let Err(error) = server.wait_ready(rig::PATIENCE) {
            println!("the start is refused: {error}");
            drop(server);
            rig.boot();
        } else {
            rig.server = Some(server);
        }
        rig.lossy.heal();
        rig.verify();
    }
}

/// Shows F12 while serving: a read that fails is repeated or answered with a close, never with
/// other bytes, and the same range is readable afterwards.
#[test]
fn a_failed_read_is_answered_right_or_with_a_close() {
    let Some(mut rig) = Rig::mount() else { return };
    // Far more data than memory for it.
    rig.settings = rig.settings.clone().with("--cache", "32MiB");
    rig.writers.iter_mut().for_each(|writer| writer.keeps_all = true);
    rig.boot();
    rig.load(|load| load.wait_each(30_000));
    for fail in [1, 1000] {
        let fired = rig.lossy.faults_fired();
        rig.lossy.fail(Fault { fail, ..Fault::once(Operation::Read, "/journal-") });
        match rig.judge() {
            Ok(_) => println!("{fail} failures: read again"),
            Err(Trouble::Closed) => println!("{fail} failures: closed"),
            Err(trouble) => panic!("{trouble}"),
        }
        assert!(rig.lossy.faults_fired() > fired, "no read of the journal failed");
        rig.lossy.heal();
        rig.verify();
    }
}

/// Shows that these tests notice a loss: on a disk that answers syncs and does not carry them out,
/// a power cut takes acknowledged events, and the judge says so.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let Some(mut rig) = Rig::start() else { return };
    rig.load(|load| load.wait_each(100));
    rig.lossy.lie_about_syncs(true);
    rig.load(|load| load.wait_each(100));
    rig.power_cut(Cut::DropAll);
    rig.lossy.lie_about_syncs(false);
    let mut server = Server::launch(&rig.settings).expect("it is executable");
    if let Err(error) = server.wait_ready(rig::PATIENCE) {
        return println!("found out by the server: {error}");
    }
    rig.server = Some(server);
    match rig.judge() {
        Err(Trouble::Wrong(text)) => println!("found out: {text}"),
        other => panic!("{other:?} where acknowledged events are lost"),
    }
}

/// Shows F13: on a full disk appends stall while reads, truncation and deletion go on, and appends
/// go on by themselves when space returns.
#[test]
fn a_full_disk_stalls_appends_only_and_heals_when_space_returns() {
    let Some(mut rig) = Rig::start() else { return };
    let segment = rig.writers[0].segment.clone();
    let other = "power/other/0.#epoch.0";
    rig.load(|load| {
        let mut wire = connect(load.address);
        let created = wire.ask(|request_id| writer::create(request_id, other));
        assert!(matches!(created, Ok(Command::SegmentCreated(_))), "{created:?}");
        load.wait_each(50);
        load.lossy.set_budget(load.lossy.taken());
        load.wait_silent(Duration::from_secs(1));
        let held = load.acknowledged();
        let data = writer::read(&mut wire, &segment, 0, 100).expect("reads go on");
        assert_eq!(data.len(), 100);
        let truncated = wire.ask(|request_id| writer::truncate(request_id, &segment, 0));
        assert!(matches!(truncated, Ok(Command::SegmentTruncated(_))), "{truncated:?}");
        let deleted = wire.ask(|request_id| writer::delete(request_id, other));
        assert!(matches!(deleted, Ok(Command::SegmentDeleted(_))), "{deleted:?}");
        println!("full with {held} events acknowledged");
        load.lossy.set_budget(4 << 30);
        let pause = load.wait_each(100);
        println!("space is back; each writer has 100 more events after {pause:.0?}");
    });
    rig.verify();
    rig.power_cut(Cut::DropAll);
    rig.boot();
    rig.verify();
}

/// Shows F16: while the disk stalls, connections stand and nothing is acknowledged; afterwards all
/// goes on.
#[test]
fn a_stalled_disk_costs_time_only() {
    let Some(mut rig) = Rig::start() else { return };
    let stall = Duration::from_secs(setting("THALWEG_STALL_SECONDS", 3));
    rig.load(|load| {
        load.wait_acknowledged(200);
        load.lossy.stall();
        load.wait_silent(Duration::from_millis(200));
        let held = load.acknowledged();
        let mut wire = connect(load.address);
        let begin = Instant::now();
        while begin.elapsed() < stall {
            wire.keep_alive().expect("the connection stands");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(load.acknowledged(), held, "acknowledged while nothing was durable");
        load.lossy.resume();
        let pause = load.wait_each(100);
        println!("after {stall:.0?}: each writer has 100 more events in {pause:.0?}");
    });
    rig.verify();
    rig.power_cut(Cut::DropAll);
    rig.boot();
    rig.verify();
}
