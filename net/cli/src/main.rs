//! The `thalweg` command: a server and the tools around it.
//!
//! Each verb has its own file with its arguments and what it prints. Errors are one sentence on
//! standard error that names the thing and what to do; the exit status is then 1, or 2 for wrong
//! arguments.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod bench;
mod check;
mod inspect;
mod serve;

/// A stream store: Pravega's protocols on a direct-I/O engine.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server.
    Serve(serve::Arguments),
    /// Say whether this host is ready, what its disk can do, and what to change.
    Check(check::Arguments),
    /// Measure: starts a server of its own on a fresh data directory and loads it.
    Bench(bench::Arguments),
    /// Look into a data directory, offline and read-only.
    Inspect(inspect::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("THALWEG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match arguments.verb {
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Check(arguments) => check::run(arguments),
        Verb::Bench(arguments) => bench::run(arguments),
        Verb::Inspect(arguments) => inspect::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thalweg: {error:#}");
            ExitCode::FAILURE
        }
    }
}
