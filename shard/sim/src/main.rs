//! `thalweg-sim`: runs seeds, replays one, hunts a planted bug, makes a failure small.

mod arguments;
mod failure;
mod many;

use std::process::ExitCode;

use clap::Parser;
use thalweg_sim::Run;

use crate::arguments::Arguments;

/// Stack of a thread that runs seeds.
pub(crate) const STACK_BYTES: usize = 16 << 20;

/// A panic is a finding like any other: say which seed it was.
fn report_panics(arguments: &Arguments) {
    let arguments = arguments.clone();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if thalweg_sim::note_panic(panic.to_string()) && cfg!(panic = "unwind") {
            return;
        }
        match thalweg_sim::verdict_of_panic(&panic.to_string()) {
            Some(_) if arguments.is_quiet => {}
            Some(verdict) => failure::report(&verdict, &arguments),
            None => default(panic),
        }
    }));
}

fn run_one(seed: u64, run: &Run, arguments: &Arguments) -> ExitCode {
    let verdict = thalweg_sim::run(seed, run);
    if verdict.violation.is_some() {
        if !arguments.is_quiet {
            failure::report(&verdict, arguments);
        }
        return ExitCode::FAILURE;
    }
    println!("{}", verdict.options);
    verdict.faults.iter().for_each(|fault| println!("  {fault}"));
    for (what, count) in &verdict.counts {
        println!("  {count:>10} {what}");
    }
    println!("seed {seed}: holds, trace hash {:016x}", verdict.hash);
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    report_panics(&arguments);
    let run = arguments.run();
    match (arguments.seed, arguments.seeds.clone()) {
        (Some(seed), None) => run_one(seed, &run, &arguments),
        (None, seeds) => many::run(seeds.unwrap_or(0..1_000), &run, &arguments),
        (Some(_), Some(_)) => {
            println!("either --seed or --seeds");
            ExitCode::FAILURE
        }
    }
}
