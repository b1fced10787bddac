//! The report of a failure: the seed, the commit, the options, few faults, the last lines, and the
//! command that shows it again.
//!
//! Faults and operations are made fewer by running the seed again and again, each time in a process
//! of its own, since a panic ends the process and a failure may be a hang.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use thalweg_sim::{FaultId, Mask, Run, Verdict, minimal};

use crate::arguments::Arguments;

/// Most runs to make a list of faults short.
const RUNS_MAX: usize = 200;
/// Longest time for the same.
const SHRINKING_MAX: Duration = Duration::from_secs(60);
/// A run that takes longer does not count as a failure.
const ONE_RUN_MAX: Duration = Duration::from_secs(10);

/// The smallest form of a failure that was found.
struct Smallest {
    faults: BTreeSet<FaultId>,
    operations: u64,
}

/// Tells all about a failure, on standard output.
pub(crate) fn report(verdict: &Verdict, arguments: &Arguments) {
    println!("{}", verdict.options);
    println!("last {} lines:", verdict.last_lines.len());
    verdict.last_lines.iter().for_each(|line| println!("  {line}"));
    let violation = verdict.violation.as_deref().unwrap_or("none");
    println!("seed {} at commit {}: {violation}", verdict.seed, commit());
    println!("replay: {}", replay_command(verdict.seed, arguments, None));
    if arguments.only_faults.is_some() {
        return;
    }
    println!("{} faults struck; looking for fewer", verdict.faults.len());
    let Some(smallest) = shrink(verdict, arguments) else {
        return println!("the failure does not show in another process");
    };
    println!("{} faults and {} operations are enough:", smallest.faults.len(), smallest.operations);
    describe_faults(verdict, &smallest, arguments);
    println!("replay: {}", replay_command(verdict.seed, arguments, Some(&smallest)));
}

/// Prints the faults with their times in the small run, or in the first one where a panic ends it.
fn describe_faults(verdict: &Verdict, smallest: &Smallest, arguments: &Arguments) {
    let is_panic = verdict.violation.as_deref().is_some_and(|text| text.starts_with("panic"));
    let faults = if is_panic && cfg!(panic = "abort") {
        let faults = verdict.faults.iter().copied();
        faults.filter(|fault| smallest.faults.contains(&fault.id)).collect()
    } else {
        let run = Run {
            mask: Mask { only: Some(smallest.faults.clone()), ..Mask::default() },
            operations_max: Some(smallest.operations),
            is_verbose: false,
            ..arguments.run()
        };
        thalweg_sim::run(verdict.seed, &run).faults
    };
    faults.iter().for_each(|fault| println!("  {fault}"));
}

fn shrink(verdict: &Verdict, arguments: &Arguments) -> Option<Smallest> {
    let deadline = Instant::now() + SHRINKING_MAX;
    let all: BTreeSet<FaultId> = verdict.faults.iter().map(|fault| fault.id).collect();
    let mut operations = verdict.operations;
    let fails = |faults: &BTreeSet<FaultId>, operations| {
        Instant::now() < deadline
            && fails_again(
                verdict.seed,
                arguments,
                &Smallest { faults: faults.clone(), operations },
            )
    };
    if !fails(&all, operations) {
        return None;
    }
    while operations > 1 && fails(&all, operations / 2) {
        operations /= 2;
    }
    let faults = minimal(&all, RUNS_MAX, &mut |list| fails(list, operations));
    while operations > 1 && fails(&faults, operations * 3 / 4) {
        operations = operations * 3 / 4;
    }
    Some(Smallest { faults, operations })
}

/// Whether the seed fails in this form, in a process of its own.
fn fails_again(seed: u64, arguments: &Arguments, form: &Smallest) -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let child = Command::new(program)
        .args(["--quiet", "--seed", &seed.to_string()])
        .args(arguments.world_arguments())
        .args(form_arguments(form))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.is_ok_and(|child| ends_in_failure(child, Instant::now() + ONE_RUN_MAX))
}

fn ends_in_failure(mut child: Child, until: Instant) -> bool {
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Ok(Some(status)) => return !status.success(),
            Err(_) => return false,
        }
    }
    // A child that has ended meanwhile cannot be killed, which is as good.
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn form_arguments(form: &Smallest) -> [String; 4] {
    let faults: Vec<String> = form.faults.iter().map(FaultId::to_string).collect();
    let operations = form.operations.to_string();
    ["--only-faults".to_owned(), faults.join(","), "--operations".to_owned(), operations]
}

fn replay_command(seed: u64, arguments: &Arguments, form: Option<&Smallest>) -> String {
    let feature = if arguments.canary.is_some() { " --features canary" } else { "" };
    let mut words = arguments.world_arguments();
    if let Some(form) = form {
        words.extend(form_arguments(form).map(|word| match word.is_empty() {
            true => "''".to_owned(),
            false => word,
        }));
    }
    let words: String = words.iter().map(|word| format!(" {word}")).collect();
    format!("cargo run --release -p thalweg-sim{feature} -- --seed {seed}{words}")
}

fn commit() -> String {
    std::env::var("THALWEG_COMMIT").ok().or_else(commit_of_tree).unwrap_or("unknown".to_owned())
}

fn commit_of_tree() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
