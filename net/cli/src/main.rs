//! The `thalweg` command: a server and the tools around it.
//!
//! Each verb has its own file with its arguments and what it prints. Errors are one sentence on
//! standard error that names the thing and what to do; the exit status is then 1, or 2 for wrong
//! arguments.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod bench;
mod check;
mod crash_test;
mod inspect;
mod serve;
mod verify;

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
    /// Try the promise on your own disk: kill a server of its own under load, verify what it kept.
    CrashTest(crash_test::Arguments),
    /// Look into a data directory, offline and read-only.
    Inspect(inspect::Arguments),
    /// Check a data directory at rest: every file, every record, every byte of every segment.
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("THALWEG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let result = match arguments.verb {
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Check(arguments) => check::run(arguments),
        Verb::Bench(arguments) => bench::run(arguments),
        Verb::CrashTest(arguments) => crash_test::run_test(arguments),
        Verb::Inspect(arguments) => inspect::run(arguments),
        Verb::Verify(arguments) => verify::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thalweg: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, but for those that it quotes itself.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a cause is told once, whether its error quotes it or not.
    #[test]
    fn causes_are_told_once() {
        let cause = || anyhow::anyhow!("address in use");
        assert_eq!(sentence(&cause().context("listen")), "listen: address in use");
        assert_eq!(sentence(&cause().context("listen: address in use")), "listen: address in use");
    }
}
