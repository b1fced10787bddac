//! `thalweg verify`: checks a data directory at rest, from its marker to the last byte of every
//! segment, and names what is wrong with file and offset. Never writes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use thalweg_core::id::ShardId;
use thalweg_core::limits::Limits;
use thalweg_journal::verify::{Finding, Progress, Report, Severity, verify};
use thalweg_net::Placement;
use thalweg_server::data_directory::{self, DataDirectory, Marker};
use thalweg_uring::portable::PortableDevice;

/// What to check.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Data directory.
    #[arg(long, value_name = "DIR", env = "THALWEG_DATA", default_value = "thalweg-data")]
    data: PathBuf,
    /// Only this shard.
    #[arg(long, value_name = "N")]
    shard: Option<u16>,
    /// Take no lock: for a copy on a read-only file system. What a running server writes meanwhile
    /// may look like damage.
    #[arg(long)]
    read_only: bool,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// The whole data directory, as JSON tells it.
#[derive(Serialize)]
struct Document {
    data: PathBuf,
    instance: String,
    is_damaged: bool,
    shards: Vec<ShardDocument>,
}

#[derive(Serialize)]
struct ShardDocument {
    shard: u16,
    files: u64,
    records: u64,
    epoch: u64,
    last_frame: u64,
    /// Bytes behind the end that a start would cut: nobody was told that they are durable.
    tail_bytes: u64,
    containers: Vec<ContainerDocument>,
    findings: Vec<FindingDocument>,
}

#[derive(Serialize)]
struct ContainerDocument {
    container: u16,
    is_serving: bool,
    segments: u64,
    tables: u64,
    bytes: u64,
    verified_bytes: u64,
}

#[derive(Serialize)]
struct FindingDocument {
    is_damage: bool,
    what: String,
    container: Option<u16>,
    segment: Option<String>,
}

/// Prints what was checked and found; fails when something acknowledged cannot be read.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = &arguments.data;
    let marker = data_directory::marker(data)?;
    let locked = if arguments.read_only { None } else { Some(DataDirectory::reopen(data)?) };
    if let Some(shard) = arguments.shard.filter(|shard| *shard >= marker.shards) {
        anyhow::bail!("{} has shards 0 to {}, not {shard}", data.display(), marker.shards - 1);
    }
    let mut document = Document {
        data: data.clone(),
        instance: marker.instance.clone(),
        is_damaged: false,
        shards: Vec::new(),
    };
    for shard in 0..marker.shards {
        if arguments.shard.is_some_and(|only| only != shard) {
            continue;
        }
        let report = verify_shard(data, &marker, shard, arguments.json)?;
        if !arguments.json {
            print_report(shard, &report);
        }
        document.is_damaged |= report.is_damaged();
        document.shards.push(shard_document(shard, report));
    }
    drop(locked);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else if !document.is_damaged {
        println!("everything that was acknowledged is there");
    }
    anyhow::ensure!(!document.is_damaged, "{} is damaged", data.display());
    Ok(())
}

fn verify_shard(data: &Path, marker: &Marker, shard: u16, json: bool) -> anyhow::Result<Report> {
    let directory = data_directory::journal(data, shard);
    let device =
        PortableDevice::new(&directory).with_context(|| format!("open {}", directory.display()))?;
    let placement = Placement::new(marker.containers, marker.shards);
    let config = thalweg_journal::Config {
        shard: ShardId(shard),
        directory: marker.instance_bits(),
        containers: placement.containers_of(ShardId(shard)).collect(),
        ..thalweg_journal::Config::default()
    };
    if !json {
        println!("shard {shard}: {}", directory.display());
    }
    let progress = &mut |progress| match progress {
        _ if json => {}
        Progress::File(name) => println!("  {name}"),
        Progress::Container(container) => println!("  container {}", container.0),
    };
    let report = verify(device, config, Limits::default(), progress);
    report.map_err(anyhow::Error::from).with_context(|| directory.display().to_string())
}

fn print_report(shard: u16, report: &Report) {
    for finding in &report.findings {
        print_finding(finding);
    }
    for container in &report.containers {
        let state = if container.is_serving { "serves" } else { "REFUSES" };
        println!(
            "  container {} {state}: {} segments with {} bytes, {} of them read and right, \
             {} tables",
            container.container.0,
            container.segments,
            container.bytes,
            container.verified_bytes,
            container.tables
        );
    }
    let summary = &report.summary;
    println!(
        "shard {shard}: {} files, {} records, epoch {}, last frame {}, {} bytes behind the end, {} \
         findings",
        report.files,
        report.records,
        summary.epoch.0,
        summary.last_frame.0,
        summary.tail_bytes,
        report.findings.len()
    );
}

fn print_finding(finding: &Finding) {
    let word = match finding.severity {
        Severity::Damage => "DAMAGE",
        Severity::Blemish => "blemish",
    };
    let container = finding.container.map(|id| format!(" (container {})", id.0));
    let segment = finding.segment.as_ref().map(|segment| format!(", of {segment}"));
    println!(
        "  {word}: {}{}{}",
        finding.what,
        segment.unwrap_or_default(),
        container.unwrap_or_default()
    );
}

fn shard_document(shard: u16, report: Report) -> ShardDocument {
    let containers = report.containers.iter().map(|found| ContainerDocument {
        container: found.container.0,
        is_serving: found.is_serving,
        segments: found.segments,
        tables: found.tables,
        bytes: found.bytes,
        verified_bytes: found.verified_bytes,
    });
    let findings = report.findings.iter().map(|finding| FindingDocument {
        is_damage: finding.severity == Severity::Damage,
        what: finding.what.clone(),
        container: finding.container.map(|id| id.0),
        segment: finding.segment.clone(),
    });
    ShardDocument {
        shard,
        files: report.files,
        records: report.records,
        epoch: report.summary.epoch.0,
        last_frame: report.summary.last_frame.0,
        tail_bytes: report.summary.tail_bytes,
        containers: containers.collect(),
        findings: findings.collect(),
    }
}
