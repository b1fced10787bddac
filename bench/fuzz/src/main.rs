//! `thalweg-fuzz`: targets under mutations without coverage, and seeds for those with.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use thalweg_fuzz::mutate::Mutator;
use thalweg_fuzz::{TARGETS, Target, target};

const USAGE: &str = "usage: thalweg-fuzz list | seeds DIRECTORY | run TARGET [RUNS [SEED]] | \
                     input TARGET FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["list"] => {
            for target in TARGETS {
                println!("{:<16}{}", target.name, target.about);
            }
            Ok(())
        }
        ["seeds", directory] => seeds(Path::new(directory)),
        ["run", name, rest @ ..] if rest.len() <= 2 => named(name).and_then(|target| {
            let number = |at: usize, default| {
                rest.get(at).map_or(Ok(default), |text: &&str| {
                    text.parse().map_err(|_| format!("{text:?} is not a number"))
                })
            };
            mutations(target, number(0, 1_000_000)?, number(1, 1)?)
        }),
        ["input", name, file] => named(name).and_then(|target| {
            let input = std::fs::read(file).map_err(|error| format!("read {file}: {error}"))?;
            (target.body)(&input);
            Ok(())
        }),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<Target, String> {
    target(name).ok_or_else(|| format!("there is no target {name:?}; `list` names them"))
}

/// Writes the seeds of each target into a directory of its name, as cargo-fuzz wants them.
fn seeds(directory: &Path) -> Result<(), String> {
    for target in TARGETS {
        let place = directory.join(target.name);
        std::fs::create_dir_all(&place)
            .map_err(|error| format!("create {}: {error}", place.display()))?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            let file = place.join(format!("seed-{number:03}"));
            std::fs::write(&file, seed)
                .map_err(|error| format!("write {}: {error}", file.display()))?;
        }
    }
    Ok(())
}

/// The run under way: the release build aborts where it panics, so the hook must know.
static RUN: Mutex<(u64, Vec<u8>)> = Mutex::new((0, Vec::new()));

/// Keeps the input of a run that panics.
fn keep_what_fails(target: Target, seed: u64) {
    let before = std::panic::take_hook();
    let kept = std::env::temp_dir().join(format!("thalweg-fuzz-{}", target.name));
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let Ok(run) = RUN.try_lock() else { return };
        let (number, place) = (run.0, kept.display());
        match std::fs::write(&kept, &run.1) {
            Ok(()) => eprintln!("run {number} of seed {seed} failed; its input is in {place}"),
            Err(error) => eprintln!("run {number} of seed {seed} failed; write {place}: {error}"),
        }
    }));
}

fn mutations(target: Target, runs: u64, seed: u64) -> Result<(), String> {
    keep_what_fails(target, seed);
    let mut mutator = Mutator::new(seed, (target.seeds)());
    let begin = Instant::now();
    let mut told = begin;
    for run in 0..runs {
        let input = mutator.input();
        if let Ok(mut current) = RUN.lock() {
            current.0 = run;
            current.1.clone_from(&input);
        }
        let before = Instant::now();
        (target.body)(&input);
        let took = before.elapsed();
        if took > Duration::from_secs(10) {
            return Err(format!("run {run} of seed {seed} took {took:?}"));
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{}: {run} of {runs} runs", target.name);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = runs as f64 / seconds.max(1e-9);
    println!("{}: {runs} runs of seed {seed} in {seconds:.1} s, {rate:.0}/s", target.name);
    Ok(())
}
