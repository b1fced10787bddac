//! The operation sweep: each script runs on real files as often as it makes calls, and each time
//! another call is spoilt, by each kind of failure.
//!
//! `THALWEG_SWEEP=all` spoils every call; the default takes some of them, spread over the script.

use thalweg_journal::memory::Random;
use thalweg_sweep::real::{Adapter, record, run};
use thalweg_sweep::recovered::{Totals, check};
use thalweg_sweep::reference::Reference;
use thalweg_sweep::run::Course;
use thalweg_sweep::scenarios;
use thalweg_sweep::script::Script;
use thalweg_sweep::state::Replay;
use thalweg_uring::trace::{Note, Spoil, Trace};

/// The ring in both ways of a durable write. Ordinary calls cannot fall short: the standard library
/// goes on with them itself.
const RINGS: [Adapter; 2] = [Adapter::RingDataSync, Adapter::RingThenSync];
/// Calls spoilt in each script by default, for each kind.
const CALLS: u64 = 5;

/// Moments of each spoilt run at which power is cut, by default and when every call is spoilt.
const MOMENTS: [usize; 2] = [2, 12];

/// Whether every call is spoilt.
fn is_whole() -> bool {
    std::env::var("THALWEG_SWEEP").is_ok_and(|all| all == "all")
}

/// The calls to spoil, of `calls`: all, or some, others for each kind.
fn chosen(calls: u64, seed: u64) -> Vec<u64> {
    if is_whole() {
        return (0..calls).collect();
    }
    let mut random = Random(seed);
    let step = calls.div_ceil(CALLS).max(1);
    let part = |first: u64| first + random.below(step);
    (0..calls).step_by(step as usize).map(part).filter(|&call| call < calls).collect()
}

/// Runs every script with each chosen call spoilt; gives the number of runs.
fn sweep(
    how: Spoil,
    mut judge: impl FnMut(&Script, &Reference, u64, Course, Course, Vec<Note>),
) -> u64 {
    let mut runs = 0;
    for script in scenarios::all() {
        let reference = Reference::of(&script);
        for adapter in RINGS {
            let trace = Trace::default();
            let place = |call: u64| format!("{} on {adapter:?}, call {call}, {how:?}", script.name);
            let sound = run(adapter, &script, &reference, &trace);
            let sound = sound.unwrap_or_else(|error| panic!("{}: {error}", script.name));
            for call in chosen(trace.calls(), script.name.len() as u64 ^ adapter as u64) {
                let trace = Trace::keeping_notes();
                trace.spoil(call, how);
                let course = run(adapter, &script, &reference, &trace);
                let course = course.unwrap_or_else(|error| panic!("{}: {error}", place(call)));
                judge(&script, &reference, call, sound, course, trace.take_notes());
                runs += 1;
            }
        }
    }
    runs
}

/// States that a power cut leaves at a few moments behind the spoilt call hold everything that was
/// acknowledged by then: no later sync is taken for one that failed.
fn check_power_cuts(
    script: &Script,
    reference: &Reference,
    call: u64,
    notes: &[Note],
    totals: &mut Totals,
) {
    let is_spoilt = |note: &Note| matches!(note, Note::Returned { number, .. } if *number == call);
    let Some(from) = notes.iter().position(is_spoilt) else { return };
    let mut random = Random(call);
    let mut moments: Vec<usize> = (0..MOMENTS[usize::from(is_whole())])
        .map(|_| from + random.below((notes.len() - from) as u64) as usize)
        .collect();
    moments.sort_unstable();
    let mut replay = Replay::default();
    for (line, note) in notes.iter().enumerate() {
        replay.take(note);
        if moments.contains(&line) {
            let (image, seed) = (replay.random(&mut random), random.number());
            let range = (replay.acked, replay.sent);
            if let Err(error) = check(script, reference, image, range, seed, totals) {
                panic!("{}, call {call}, power cut at note {line}: {error}", script.name);
            }
        }
    }
}

fn sweep_errors(code: i32) {
    let mut totals = Totals::default();
    let mut closures = 0;
    let runs = sweep(Spoil::Error(code), |script, reference, call, _, course, notes| {
        closures += course.closures;
        assert!(course.closures <= 1, "{}, call {call}: {course:?}", script.name);
        check_power_cuts(script, reference, call, &notes, &mut totals);
    });
    println!("error {code}: {runs} runs, {closures} closed connections, {totals:?}");
    assert!(closures > 0 && totals.recovered > 0);
}

/// F10, F11, F12, R8: with any one call failing with EIO, everything acknowledged survives and
/// nothing else appears, also over a power cut later; the shard serves again.
#[test]
fn any_call_may_fail_with_an_input_output_error() {
    sweep_errors(libc::EIO);
}

/// F13: the same with ENOSPC.
#[test]
fn any_call_may_find_the_disk_full() {
    sweep_errors(libc::ENOSPC);
}

/// F17: no client notices that any one transfer is short.
#[test]
fn short_transfers_are_invisible() {
    let runs = sweep(Spoil::Short, |script, _, call, sound, course, _| {
        assert_eq!(course, sound, "{}, call {call}", script.name);
    });
    println!("short: {runs} runs");
}

/// F18: no client notices that any one call was not carried out.
#[test]
fn calls_that_did_not_happen_are_invisible() {
    for code in [libc::ECANCELED, libc::EAGAIN, libc::EINTR] {
        let runs = sweep(Spoil::Error(code), |script, _, call, sound, course, _| {
            assert_eq!(course, sound, "{}, call {call}, error {code}", script.name);
        });
        println!("not done, {code}: {runs} runs");
    }
}

/// F1, F3: power is cut at every call of every script; what was acknowledged is there.
#[test]
fn power_may_fail_at_any_call() {
    let mut totals = Totals::default();
    let mut random = Random(7);
    for script in scenarios::all() {
        let reference = Reference::of(&script);
        for adapter in RINGS {
            let notes = record(adapter, &script, &reference)
                .unwrap_or_else(|error| panic!("{}: {error}", script.name));
            let calls = notes.iter().filter(|note| matches!(note, Note::Called { .. })).count();
            let cuts = chosen(calls as u64, script.name.len() as u64);
            let mut replay = Replay::default();
            for note in &notes {
                replay.take(note);
                let Note::Called { number, .. } = note else { continue };
                if !cuts.contains(number) {
                    continue;
                }
                let (image, seed) = (replay.random(&mut random), random.number());
                let range = (replay.acked, replay.sent);
                if let Err(error) = check(&script, &reference, image, range, seed, &mut totals) {
                    panic!("{} on {adapter:?}, call {number}, seed {seed}: {error}", script.name);
                }
            }
        }
    }
    println!("power cuts: {totals:?}");
}
