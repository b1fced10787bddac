//! `thalweg inspect journal`: what the journals of a data directory hold, offline and read-only.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use thalweg_core::id::ShardId;
use thalweg_journal::inspect::{FileState, Item, Summary, inspect};
use thalweg_server::data_directory;
use thalweg_uring::portable::PortableDevice;

/// What to look at.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Files, frames, epochs and damage of each shard's journal. The server should be stopped: the
    /// list of a journal that is being written may end anywhere.
    Journal {
        /// Data directory.
        #[arg(long, value_name = "DIR", env = "THALWEG_DATA", default_value = "thalweg-data")]
        data: PathBuf,
        /// Only this shard.
        #[arg(long, value_name = "N")]
        shard: Option<u16>,
        /// List every frame, not only files and damage.
        #[arg(long)]
        frames: bool,
    },
}

/// Prints the list; fails when damage was found.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Part::Journal { data, shard: only, frames } = arguments.part;
    let marker = data_directory::marker(&data)?;
    let mut damaged = 0;
    for shard in (0..marker.shards).filter(|shard| only.is_none_or(|only| only == *shard)) {
        let directory = data_directory::journal(&data, shard);
        println!("shard {shard}: {}", directory.display());
        let device = PortableDevice::new(&directory)
            .with_context(|| format!("open {}", directory.display()))?;
        let config = thalweg_journal::Config {
            shard: ShardId(shard),
            directory: marker.instance_bits(),
            ..thalweg_journal::Config::default()
        };
        let mut records = 0_u64;
        let summary = inspect(device, config, &mut |item| {
            records += u64::from(matches!(item, Item::Record(_)));
            print_item(&item, frames);
        })?;
        print_summary(&summary, records);
        damaged += summary.damaged;
    }
    anyhow::ensure!(damaged == 0, "{damaged} places of damage in acknowledged frames");
    Ok(())
}

fn print_item(item: &Item, frames: bool) {
    match item {
        Item::File { name, bytes, state } => {
            let state = match state {
                FileState::InUse { first_sequence, first_frame, epoch, .. } => format!(
                    "in use from record {first_sequence}, frame {}, epoch {}",
                    first_frame.0, epoch.0
                ),
                FileState::Prepared => "prepared".to_owned(),
                FileState::Spare => "spare".to_owned(),
                FileState::Unfinished => "unfinished".to_owned(),
                FileState::Unreadable => "unreadable".to_owned(),
            };
            println!("  {name}  {} MiB  {state}", bytes >> 20);
        }
        Item::Record(record) if frames => println!(
            "    {} {} record {} frame {} epoch {} containers {:#x} operations {} bytes, \
             durable up to {}",
            record.address,
            record.kind,
            record.sequence,
            record.frame.0,
            record.epoch.0,
            record.containers.0,
            record.operation_bytes,
            record.durable_upto,
        ),
        Item::Record(_) => {}
        Item::Blemish { fault } => println!("    blemish: {fault}"),
        Item::Damage { containers, fault } => match containers {
            Some(mask) => println!("    DAMAGE {fault}; containers {:#x}", mask.0),
            None => println!("    DAMAGE {fault}; containers unknown"),
        },
    }
}

fn print_summary(summary: &Summary, records: u64) {
    match &summary.end {
        Some((file, offset)) => println!("  ends in {file} at offset {offset}"),
        None => println!("  holds no record"),
    }
    println!(
        "  {records} records, last frame {}, epoch {}, durable up to record {}, {} bytes behind \
         the end would be cut",
        summary.last_frame.0, summary.epoch.0, summary.watermark, summary.tail_bytes
    );
    if summary.is_end_unreadable {
        println!("  the device does not read near the end: a start would be refused");
    }
    if summary.damaged > 0 {
        println!("  {} places of damage", summary.damaged);
    }
}
