//! Fixed seeds hold, past failures hold, and a seed is the same world in every process.

use std::process::Command;

use thalweg_sim::{FaultKind, Mask, Run, run};

fn holds(seed: u64, why: &str) {
    let verdict = run(seed, &Run::default());
    assert_eq!(verdict.violation, None, "seed {seed} ({why})\n{}", verdict.last_lines.join("\n"));
}

/// Two hundred worlds keep every invariant.
#[test]
fn fixed_seeds_hold() {
    (0..200).for_each(|seed| holds(seed, "fixed"));
}

/// Every seed that ever found a bug holds now.
#[test]
fn past_failures_hold() {
    let seeds = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for line in seeds.filter(|line| !line.trim().is_empty()) {
        let (seed, found) = line.split_once(' ').expect("a seed and what it found");
        holds(seed.parse().expect("a seed is a number"), found);
    }
}

/// Wall time that jumps by hours and years changes no answer and no timing: worlds go exactly as
/// they go without the jumps.
#[test]
fn wall_clock_jumps_change_no_answer() {
    const JUMPS: &str = FaultKind::WallClockJump.name();
    let mask = Mask { without_kinds: [FaultKind::WallClockJump].into(), ..Mask::default() };
    let steady = Run { mask, ..Run::default() };
    let mut jumped = 0;
    for seed in 0..60 {
        let mut with = run(seed, &Run::default());
        if with.counts.remove(JUMPS).is_none() {
            continue;
        }
        jumped += 1;
        assert_eq!(with.counts, run(seed, &steady).counts, "seed {seed}");
    }
    assert!(jumped >= 3, "{jumped} worlds had jumps");
}

/// The same seeds in two processes write the same traces: no address, thread or clock leaks in.
#[test]
fn a_seed_is_the_same_in_two_processes() {
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg-sim"))
        .args(["--seeds", "1000..1030", "--twice"])
        .output()
        .expect("the simulator starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("30 seeds are the same in two processes"), "{text}");
}
