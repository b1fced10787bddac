//! The command line of the simulator.

use std::ops::Range;

use clap::Parser;
use thalweg_sim::{Canary, FaultId, FaultKind, Mask, Run};

/// Runs the shard and the journal on a simulated disk, links and clock.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// Run this seed and print its options, faults, verdict and trace hash.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run these seeds, `A..B`, and stop at the first failure.
    #[arg(long, value_parser = parse_range)]
    pub(crate) seeds: Option<Range<u64>>,
    /// Processors to use for many seeds; default: all.
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    /// Run many seeds a second time in another process, and compare each trace hash.
    #[arg(long)]
    pub(crate) twice: bool,
    /// Print the trace hash of each of many seeds.
    #[arg(long)]
    pub(crate) hashes: bool,
    /// Hold back these faults, `Kind:number`, or all of a kind, `Kind`; with commas between.
    #[arg(long, value_delimiter = ',')]
    pub(crate) without: Vec<String>,
    /// Let nothing strike but these faults, `Kind:number`, with commas between; may be empty.
    #[arg(long)]
    pub(crate) only_faults: Option<String>,
    /// At most so many operations in a world.
    #[arg(long)]
    pub(crate) operations: Option<u64>,
    /// Plant this bug; it must be caught. Needs the feature `canary`.
    #[arg(long, value_parser = parse_canary)]
    pub(crate) canary: Option<Canary>,
    /// Do not plant it after all: the same worlds without the bug, which must hold.
    #[arg(long = "control", requires = "canary")]
    pub(crate) is_control: bool,
    /// Let acknowledged bytes rot at rest, once in each world.
    #[arg(long)]
    pub(crate) rot: bool,
    /// Print every line of the trace.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Go on after a failure and list all of them.
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Say by the exit status alone whether a seed holds.
    #[arg(long = "quiet")]
    pub(crate) is_quiet: bool,
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

impl Arguments {
    /// How seeds are to be run.
    pub(crate) fn run(&self) -> Run {
        Run {
            canary: self.canary,
            is_control: self.is_control,
            rots: self.rot,
            mask: self.mask(),
            operations_max: self.operations,
            is_verbose: self.verbose,
        }
    }

    fn mask(&self) -> Mask {
        let mut mask = Mask::default();
        for name in &self.without {
            match (FaultKind::named(name), name.parse::<FaultId>()) {
                (Some(kind), _) => drop(mask.without_kinds.insert(kind)),
                (None, Ok(id)) => drop(mask.without.insert(id)),
                (None, Err(error)) => exit_with(&format!("--without {name}: {error}")),
            }
        }
        mask.only = self.only_faults.as_ref().map(|list| {
            let names = list.split(',').filter(|name| !name.is_empty());
            let parse = |name: &str| {
                name.parse().unwrap_or_else(|error| exit_with(&format!("--only-faults: {error}")))
            };
            names.map(parse).collect()
        });
        mask
    }

    /// The arguments that make a world what it is, but for seed, mask and operations.
    pub(crate) fn world_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(canary) = self.canary {
            arguments.extend(["--canary".to_owned(), format!("{canary:?}")]);
        }
        if self.is_control {
            arguments.push("--control".to_owned());
        }
        if self.rot {
            arguments.push("--rot".to_owned());
        }
        arguments
    }
}

fn exit_with(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}
