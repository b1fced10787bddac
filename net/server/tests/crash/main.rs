//! The kill loop and the faulty network against the real daemon on a real disk.
//!
//! Load, kills and judgement are those of `thalweg-crash`, as `thalweg crash-test` runs them. Here
//! is the short form: `THALWEG_KILLS` (6) and `THALWEG_SHARDS` (2) set the size of the loop,
//! `THALWEG_SINGLE_PORT=1` lets all shards share a port, `THALWEG_SEED` repeats the choices.

use std::path::Path;

use thalweg_crash::dice::fresh_seed;
use thalweg_crash::run::{Ending, Options, run};
use thalweg_crash::totals::Totals;

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
#[path = "../rig/mod.rs"]
mod rig;

mod canary;
mod network;

fn options(home: &Path, kills: u64, shards: u64) -> Options {
    let seed = rig::setting("THALWEG_SEED", fresh_seed());
    println!("seed: THALWEG_SEED={seed}");
    let shards = u16::try_from(shards).expect("a small number");
    let program = rig::binary::thalweg().to_owned();
    let mut options = Options::new(program, home.join("run"), kills, shards, seed);
    options.is_single_port = rig::setting("THALWEG_SINGLE_PORT", 0) == 1;
    options.load_ms = (300, 1_000);
    options
}

/// Runs the loop; a violation keeps its directory and fails the test.
fn run_to_verdict(home: tempfile::TempDir, options: Options) -> Totals {
    let (kills, shards) = (options.kills, options.shards);
    let outcome = run(options, |cycle, totals| {
        println!(
            "{:4}/{kills} at {shards} shards: {:?}; {} verified in {} ms, {} in all",
            cycle.number,
            cycle.ended,
            cycle.verified.items,
            cycle.verify.as_millis(),
            totals.events_verified
        );
    });
    match outcome {
        Ok(totals) => {
            println!("{totals}");
            assert!(totals.events_acknowledged > 0, "nothing was written");
            assert!(totals.events_verified > totals.events_acknowledged / 4, "little was read");
            totals
        }
        Err(error) => panic!("{error}\nkept in {}", home.keep().display()),
    }
}

/// Shows that no kill under mixed work loses, doubles, reorders or alters anything acknowledged,
/// and that what was not acknowledged happened wholly or not at all. F1, F38.
#[test]
fn every_acknowledged_effect_survives_kills() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let kills = rig::setting("THALWEG_KILLS", 6);
    let options = options(home.path(), kills, rig::setting("THALWEG_SHARDS", 2));
    let totals = run_to_verdict(home, options);
    assert!(totals.kills + totals.stops >= kills, "{totals}");
}

/// Shows the same with four shards while half of the writers work through a network that delays,
/// splits, throttles, resets, swallows and is cut off for a while. F1, F29, F31, F38.
#[test]
fn kills_behind_a_bad_network_lose_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(home.path(), rig::setting("THALWEG_KILLS", 3), 4);
    options.through_proxy = true;
    let totals = run_to_verdict(home, options);
    assert!(totals.network.connections > 0, "nothing went through the proxies");
}

/// Shows that SIGTERM under load ends the process with status 0 within 10 s, and that everything
/// acknowledged until then is there after the next start. F46.
#[test]
fn a_stop_under_load_loses_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(home.path(), 2, 2);
    options.endings = vec![Ending::Stop];
    let totals = run_to_verdict(home, options);
    assert!(totals.stops >= 2 && totals.stop_seconds_max <= 10.0, "{totals}");
}
