//! `thalweg-sim`: runs seeds, replays one, hunts a planted bug.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;
use thalweg_sim::{Canary, Run, Verdict};

/// Runs the shard and the journal on a simulated disk, links and clock.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed and print its options, verdict and trace hash.
    #[arg(long)]
    seed: Option<u64>,
    /// Run these seeds, `A..B`, and stop at the first failure.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Plant this bug; it must be caught. Needs the feature `canary`.
    #[arg(long, value_parser = parse_canary)]
    canary: Option<Canary>,
    /// Let acknowledged bytes rot at rest, once in each world.
    #[arg(long)]
    rot: bool,
    /// Print every line of the trace.
    #[arg(long)]
    verbose: bool,
    /// Go on after a failure and list all of them.
    #[arg(long)]
    keep_going: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

fn parse_canary(text: &str) -> Result<Canary, String> {
    if !cfg!(feature = "canary") {
        return Err("built without the feature canary".to_owned());
    }
    Canary::named(text).ok_or_else(|| format!("expected one of {:?}", Canary::ALL))
}

fn commit() -> String {
    std::env::var("THALWEG_COMMIT").ok().or_else(commit_of_tree).unwrap_or("unknown".to_owned())
}

fn commit_of_tree() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn replay_command(seed: u64, run: &Run) -> String {
    let rot = if run.rots { " --rot" } else { "" };
    let (feature, canary) = match run.canary {
        Some(canary) => (" --features canary", format!(" --canary {canary:?}")),
        None => ("", String::new()),
    };
    format!("cargo run --release -p thalweg-sim{feature} --{canary}{rot} --seed {seed}")
}

fn report_failure(verdict: &Verdict, run: &Run) {
    println!("{}", verdict.options);
    println!("last {} lines:", verdict.last_lines.len());
    verdict.last_lines.iter().for_each(|line| println!("  {line}"));
    let violation = verdict.violation.as_deref().unwrap_or("none");
    println!("seed {} at commit {}: {violation}", verdict.seed, commit());
    println!("replay: {}", replay_command(verdict.seed, run));
}

/// A panic is a finding like any other: say which seed it was.
fn report_panics(run: Run) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if thalweg_sim::note_panic(panic.to_string()) && cfg!(panic = "unwind") {
            return;
        }
        if let Some((seed, options, lines)) = thalweg_sim::running() {
            println!("{options}");
            lines.iter().for_each(|line| println!("  {line}"));
            println!("seed {seed} at commit {} panicked: {panic}", commit());
            println!("replay: {}", replay_command(seed, &run));
        }
        default(panic);
    }));
}

fn run_one(seed: u64, run: &Run) -> ExitCode {
    let verdict = thalweg_sim::run(seed, run);
    if verdict.violation.is_some() {
        report_failure(&verdict, run);
        return ExitCode::FAILURE;
    }
    println!("{}", verdict.options);
    for (what, count) in &verdict.counts {
        println!("  {count:>10} {what}");
    }
    println!("seed {seed}: holds, trace hash {:016x}", verdict.hash);
    ExitCode::SUCCESS
}

fn summary(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

fn run_many(seeds: Range<u64>, run: &Run, keep_going: bool) -> ExitCode {
    let start = Instant::now();
    let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut done = 0;
    let mut hash = 0_u64;
    for seed in seeds {
        let verdict = thalweg_sim::run(seed, run);
        done += 1;
        hash = hash.rotate_left(5) ^ verdict.hash;
        for (what, count) in &verdict.counts {
            *totals.entry(what).or_default() += count;
        }
        if let Some(violation) = &verdict.violation {
            if run.canary.is_some() {
                println!("caught after {done} seeds, seed {seed}: {violation}");
                return ExitCode::SUCCESS;
            }
            if !keep_going {
                report_failure(&verdict, run);
                return ExitCode::FAILURE;
            }
            println!("seed {seed}: {violation}");
            failures.push(seed);
        }
        if done % 500 == 0 {
            println!("{done} seeds in {:.1} s", start.elapsed().as_secs_f64());
        }
    }
    println!(
        "{done} seeds in {:.1} s, hash {hash:016x}: {}",
        start.elapsed().as_secs_f64(),
        summary(&totals)
    );
    if let Some(canary) = run.canary {
        println!("{canary:?} was not caught");
        return ExitCode::FAILURE;
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} seeds failed: {failures:?}", failures.len());
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Run {
        canary: arguments.canary,
        rots: arguments.rot,
        is_verbose: arguments.verbose,
        ..Run::default()
    };
    report_panics(run.clone());
    match (arguments.seed, arguments.seeds) {
        (Some(seed), None) => run_one(seed, &run),
        (None, Some(seeds)) => run_many(seeds, &run, arguments.keep_going),
        (None, None) => run_many(0..1_000, &run, arguments.keep_going),
        (Some(_), Some(_)) => {
            println!("either --seed or --seeds");
            ExitCode::FAILURE
        }
    }
}
