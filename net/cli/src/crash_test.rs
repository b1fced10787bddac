//! `thalweg crash-test`: the promise, tried on the user's own disk with this very program.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use thalweg_crash::dice::fresh_seed;
use thalweg_crash::run::{Cycle, Ending, Options, RunError, run};
use thalweg_crash::totals::Totals;

/// Kills a server of its own under load, again and again, and verifies what it kept.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Directory on the disk to try: empty, missing, or left by an earlier run.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Ends after so many kills.
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u64,
    /// Ends at the first kill after so many seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Shards of the server.
    #[arg(long, value_name = "K", default_value_t = 2)]
    shards: u16,
    /// Repeats the choices of an earlier run [default: a fresh one, printed].
    #[arg(long, value_name = "X")]
    seed: Option<u64>,
    /// Let half of the writers go through a proxy that is a bad network.
    #[arg(long)]
    through_proxy: bool,
    /// Serve all shards on one port.
    #[arg(long)]
    single_port: bool,
    /// Keep small events so long that the journal fills and appends have to wait.
    #[arg(long)]
    fill_journal: bool,
    /// Another executable than this one to be the server.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// File for the whole history, one record a line: some 10 MB for a second of load.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Print the totals as JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the loop; the error is the verdict when something was wrong.
pub(crate) fn run_test(arguments: Arguments) -> anyhow::Result<()> {
    ensure!(arguments.kills > 0, "--kills 0 tries nothing: give at least 1");
    let shards = arguments.shards;
    ensure!((1..=64).contains(&shards), "--shards {shards} is out of range: give 1 to 64");
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("find this program")?,
    };
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    eprintln!("seed {seed}; the same choices again: --seed {seed}");
    let mut options = Options::new(program, arguments.data.clone(), arguments.kills, shards, seed);
    options.time = arguments.seconds.map(Duration::from_secs);
    options.through_proxy = arguments.through_proxy;
    options.history.clone_from(&arguments.history);
    options.fills_journal = arguments.fill_journal;
    options.is_single_port = arguments.single_port;
    let kills = options.kills;
    match run(options, |cycle, totals| tell(cycle, totals, kills)) {
        Ok(totals) => {
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&totals)?);
            } else {
                print!("{totals}");
                println!("verdict: everything acknowledged was there, once, in order, unchanged");
            }
            Ok(())
        }
        Err(error) if error.is_violation() => {
            let data = arguments.data.display();
            bail!(
                "verdict: VIOLATION with seed {seed}: {error}\nkept in {data}: the server's data \
                 directory and violation.txt"
            )
        }
        Err(error @ RunError::Home(_)) => Err(error.into()),
        Err(error) => Err(error).context("no verdict: the run could not go on"),
    }
}

fn tell(cycle: &Cycle, totals: &Totals, kills: u64) {
    let ended = &cycle.ended;
    let how = match ended.how {
        Ending::Kill => "killed",
        Ending::KillFrozen => "killed while frozen",
        Ending::Stop => "stopped",
    };
    let nested = match ended.kills_in_recovery {
        0 => String::new(),
        count => format!(" and {count} more in recovery"),
    };
    eprintln!(
        "{:5}/{kills} {how} after {} ms{nested}, ready in {:.0} ms with {} MiB of journal; {} \
         events verified in {} ms{}; {} in all",
        cycle.number,
        ended.load.as_millis(),
        ended.restart.seconds * 1e3,
        ended.restart.journal_bytes >> 20,
        cycle.verified.items,
        cycle.verify.as_millis(),
        if cycle.is_full { ", all data again" } else { "" },
        totals.events_verified,
    );
}
