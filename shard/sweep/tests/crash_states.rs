//! Crash states of the real device adapters: what they asked of the kernel is replayed, and every
//! state that a power cut could leave is recovered by the journal and the engine.
//!
//! `THALWEG_CRASH_STATES` sets how many different states are recovered; the default is a few
//! seconds' worth. `THALWEG_CRASH_SEED` draws others.

use std::collections::BTreeSet;

use thalweg_journal::memory::Random;
use thalweg_sweep::real::{ADAPTERS, Adapter, record};
use thalweg_sweep::recovered::{Totals, check};
use thalweg_sweep::reference::Reference;
use thalweg_sweep::scenarios;
use thalweg_sweep::script::Script;
use thalweg_sweep::state::{Replay, fingerprint};

const STATES: u64 = 3_000;
/// Walks over a trace.
const PASSES: u64 = 64;
/// States drawn at a moment, in a walk.
const TRIES: u64 = 24;
/// The same in every walk but the first.
const TRIES_AGAIN: u64 = 4;

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Every crash state of a trace, up to `budget` different ones.
fn explore(
    adapter: Adapter,
    script: &Script,
    reference: &Reference,
    budget: u64,
    totals: &mut Totals,
    (drawn, all_moments): (&mut u64, &mut u64),
) {
    let notes = record(adapter, script, reference)
        .unwrap_or_else(|error| panic!("{} on {adapter:?}: {error}", script.name));
    let mut replay = Replay::default();
    let moments = notes.iter().filter(|note| replay.take(note)).count() as u64;
    let mut known = BTreeSet::new();
    let seed = number_from("THALWEG_CRASH_SEED").unwrap_or(0xC4A5);
    let mut random = Random(seed ^ script.name.len() as u64 ^ adapter as u64);
    // Again and again over the trace: moments with few states leave their share to the others.
    for pass in 1..=PASSES {
        let mut replay = Replay::default();
        let mut moment = 0;
        for (line, note) in notes.iter().enumerate() {
            if !replay.take(note) {
                continue;
            }
            moment += 1;
            let is_first = pass == 1;
            let due = if is_first { (budget * moment).div_ceil(moments) } else { budget };
            let tries = if is_first { TRIES.max(4 * budget / moments) } else { TRIES_AGAIN };
            let mut images = if is_first { replay.exhaustive() } else { Vec::new() };
            for _ in 0..tries {
                if known.len() as u64 >= due {
                    break;
                }
                *drawn += 1;
                let image = images.pop().unwrap_or_else(|| replay.random(&mut random));
                let range = (replay.acked, replay.sent);
                if !known.insert((fingerprint(&image), range)) {
                    continue;
                }
                let seed = random.number();
                if let Err(error) = check(script, reference, image, range, seed, totals) {
                    panic!("{} on {adapter:?}, note {line}, seed {seed}: {error}", script.name);
                }
            }
        }
    }
    *all_moments += moments;
    println!("{} on {adapter:?}: {moments} moments, {} states", script.name, known.len());
}

/// F2, F3, F4, F5, F7: at every moment of every script, on both kinds of durable write and on
/// ordinary calls, whatever a power cut leaves of the calls that were not safe, everything
/// acknowledged is recovered exactly, what is served once stays, and writing goes on.
#[test]
fn every_crash_state_of_the_real_device_recovers_what_was_acknowledged() {
    let budget = number_from("THALWEG_CRASH_STATES").unwrap_or(STATES);
    let scripts = scenarios::all();
    let mut runs = (scripts.len() * ADAPTERS.len()) as u64;
    let mut totals = Totals::default();
    let (mut drawn, mut moments) = (0, 0);
    for script in &scripts {
        let reference = Reference::of(script);
        for adapter in ADAPTERS {
            // A trace with few states leaves its share to those that follow.
            let share = budget.saturating_sub(totals.recovered).div_ceil(runs);
            runs -= 1;
            let counts = (&mut drawn, &mut moments);
            explore(adapter, script, &reference, share, &mut totals, counts);
        }
    }
    println!(
        "crash states: {moments} moments, {drawn} states drawn, {} different ones recovered: \
         {totals:?}",
        totals.recovered
    );
    assert!(totals.recovered >= budget * 9 / 10, "{totals:?}");
    assert!(totals.kept_unacknowledged > 0 && totals.lost_unacknowledged > 0, "{totals:?}");
    assert!(totals.crashes_in_recovery > 0 && totals.went_on > 0, "{totals:?}");
}
