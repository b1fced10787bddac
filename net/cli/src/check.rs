//! `thalweg check`: is this host ready, what can its disk do, and what to change.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use thalweg_uring::{DurableWrite, measure, probe};

/// What to check.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Directory on the disk in question; made when it does not exist.
    #[arg(long, value_name = "DIR", env = "THALWEG_DATA", default_value = "thalweg-data")]
    data: PathBuf,
}

/// Durable 4 KiB writes slower than this mean a disk without a fast path to stable storage, or one
/// that is shared and busy; measured NVMe disks take 0.1 ms.
const SLOW_LATENCY_MS: f64 = 2.0;

/// Prints one line per item; fails when the server would refuse to start.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let directory = &arguments.data;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create directory {}", directory.display()))?;
    let found = probe(directory)?;
    println!("ok    io_uring        available with every operation needed");
    match found.locked_bytes_max {
        Some(bytes) => println!("ok    locked memory   {} KiB may be locked", bytes >> 10),
        None => println!("ok    locked memory   without bound"),
    }
    println!("ok    descriptors     {} may be open", found.descriptors_max);
    if found.descriptors_max < 10_000 {
        println!("      hint            `ulimit -n 65536` allows more than a few thousand clients");
    }
    let how = match found.durable_write {
        DurableWrite::DataSync => "one data-sync write",
        DurableWrite::ThenSync => "a write and a data sync, linked",
    };
    println!("ok    durable writes  {how}: {}", found.disk);
    let disk = measure(directory, found.durable_write).context("measure the disk")?;
    let latency = disk.latency_p50.as_secs_f64() * 1e3;
    let verdict = if latency > SLOW_LATENCY_MS { "slow " } else { "ok   " };
    println!(
        "{verdict} disk            4 KiB durable in {latency:.3} ms (p99 {:.3} ms), \
         1 MiB writes at {} MB/s",
        disk.latency_p99.as_secs_f64() * 1e3,
        disk.bytes_per_second / 1_000_000
    );
    if latency > SLOW_LATENCY_MS {
        println!(
            "      hint            acknowledgements wait for the disk: use local NVMe for --data"
        );
    }
    println!("this host is ready");
    Ok(())
}
