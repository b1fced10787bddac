//! Many seeds on all processors: one failure reported, everything counted, one hash for all.
//!
//! The hash of a range does not depend on the order in which its seeds end, so that two processes
//! are compared by one number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use thalweg_sim::{Run, Verdict};

use crate::STACK_BYTES;
use crate::arguments::Arguments;
use crate::failure;

/// Time between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// What came of the seeds so far.
#[derive(Default)]
struct Totals {
    done: u64,
    counts: BTreeMap<&'static str, u64>,
    hashes: BTreeMap<u64, u64>,
    failures: Vec<Verdict>,
}

impl Totals {
    fn add(&mut self, verdict: Verdict) {
        self.done += 1;
        for (what, count) in &verdict.counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.hashes.insert(verdict.seed, verdict.hash);
        if let Some(violation) = &verdict.violation {
            println!("seed {}: {violation}", verdict.seed);
            self.failures.push(verdict);
        }
    }

    /// One number for all seeds and their traces.
    fn hash(&self) -> u64 {
        self.hashes.values().fold(0, |all, hash| all.rotate_left(5) ^ hash)
    }

    fn print(&self, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        println!("{} seeds in {seconds:.1} s, hash {:016x}", self.done, self.hash());
        for (what, count) in &self.counts {
            println!("  {count:>14} {what}");
        }
        let hours = *self.counts.get("virtual milliseconds").unwrap_or(&0) as f64 / 3_600_000.0;
        println!("  {hours:>14.1} virtual hours");
    }
}

/// Runs seeds and tells what came of them.
pub(crate) fn run(seeds: Range<u64>, run: &Run, arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let stops_early = !arguments.keep_going;
    let totals = run_all(seeds.clone(), run, arguments, stops_early);
    if let Some(canary) = run.canary.filter(|_| !run.is_control) {
        let seeds: Vec<u64> = totals.failures.iter().map(|verdict| verdict.seed).collect();
        println!("{canary:?}: caught by {} of {} seeds: {seeds:?}", seeds.len(), totals.done);
        return if totals.failures.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    totals.print(start);
    if arguments.hashes {
        totals.hashes.iter().for_each(|(seed, hash)| println!("hash of {seed} {hash:016x}"));
    }
    if let Some(first) = totals.failures.iter().min_by_key(|verdict| verdict.seed) {
        failure::report(first, arguments);
        let failed: Vec<u64> = totals.failures.iter().map(|verdict| verdict.seed).collect();
        println!("{} seeds failed: {failed:?}", failed.len());
        return ExitCode::FAILURE;
    }
    if arguments.twice { compare(&seeds, &totals, arguments) } else { ExitCode::SUCCESS }
}

fn run_all(seeds: Range<u64>, run: &Run, arguments: &Arguments, stops_early: bool) -> Totals {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(processors).max(1);
    let next = AtomicU64::new(seeds.start);
    let is_over = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let mut totals = Totals::default();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            let work = || {
                let sender = sender;
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sender.send(thalweg_sim::run(seed, run)).is_err() {
                        return;
                    }
                }
            };
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, work).expect("the system has room for a thread");
        }
        drop(sender);
        let mut progress_at = start + PROGRESS;
        loop {
            match receiver.recv_timeout(progress_at.saturating_duration_since(Instant::now())) {
                Ok(verdict) => {
                    let is_last = verdict.violation.is_some() && stops_early;
                    is_over.fetch_or(is_last, Ordering::Relaxed);
                    totals.add(verdict);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= progress_at {
                progress_at += PROGRESS;
                println!("{} seeds in {:.0} s", totals.done, start.elapsed().as_secs_f64());
            }
        }
    });
    totals
}

/// Runs the seeds in another process and compares each hash.
fn compare(seeds: &Range<u64>, totals: &Totals, arguments: &Arguments) -> ExitCode {
    let program = std::env::current_exe().expect("a program knows where it is");
    let output = Command::new(program)
        .args(["--hashes", "--seeds", &format!("{}..{}", seeds.start, seeds.end)])
        .args(arguments.jobs.map(|jobs| format!("--jobs={jobs}")))
        .args(arguments.operations.map(|operations| format!("--operations={operations}")))
        .args(arguments.world_arguments())
        .output()
        .expect("the program starts a second time");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.strip_prefix("hash of "));
    let second: BTreeMap<u64, u64> = lines.filter_map(parse_hash).collect();
    let differing: Vec<u64> = totals
        .hashes
        .iter()
        .filter(|(seed, hash)| second.get(*seed) != Some(hash))
        .map(|(seed, _)| *seed)
        .collect();
    if differing.is_empty() {
        println!("{} seeds are the same in two processes", second.len());
        return ExitCode::SUCCESS;
    }
    println!("{} seeds differ in a second process: {differing:?}", differing.len());
    ExitCode::FAILURE
}

fn parse_hash(line: &str) -> Option<(u64, u64)> {
    let (seed, hash) = line.split_once(' ')?;
    Some((seed.parse().ok()?, u64::from_str_radix(hash, 16).ok()?))
}
