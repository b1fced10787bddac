//! What to run and what to do with the outcome: the entry for the command line.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use crate::bandwidth::Bandwidth;
use crate::flood::Flood;
use crate::host::HostFacts;
use crate::locate::Locator;
use crate::many_segments::ManySegments;
use crate::max_rate::MaxRate;
use crate::open_loop::OpenLoop;
use crate::process::ProcessId;
use crate::record::{Record, Summary};
use crate::single::Single;
use crate::verify::Verify;

/// A scenario with its settings. Each has defaults that make sense by themselves.
#[derive(Clone, Debug)]
pub enum Scenario {
    /// Events by schedule, latency from the intended time.
    OpenLoop(OpenLoop),
    /// The highest rate for each block size, by closed loops.
    MaxRate(MaxRate),
    /// One append at a time, against device and loopback. Needs the data directory.
    Single(Single),
    /// Large appends against the device. Needs the data directory.
    Bandwidth(Bandwidth),
    /// Attacks on a server with established writers. Needs the server's process.
    Flood(Flood),
    /// Many segments against few at the same rate.
    ManySegments(ManySegments),
    /// Write, read back, check every byte; [`Verify::large`] for more data than memory.
    Verify(Verify),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The scenario. Default: the open loop.
    pub scenario: Scenario,
    /// Part of the names of the segments made; must not have been used on this server before.
    /// Default: the time, in milliseconds since 1970.
    pub run: String,
    /// The server's process, for its processor time and memory; [`ProcessId::own`] when it is
    /// embedded. Default: unknown.
    pub server: Option<ProcessId>,
    /// Where the server keeps its data: some scenarios measure the device below it, in the same
    /// run. Default: unknown, and those scenarios refuse.
    pub data_directory: Option<PathBuf>,
    /// File to write the record to. Default: none.
    pub json: Option<PathBuf>,
    /// Commit of the tree, for the record. Default: asked of git.
    pub commit: Option<String>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            scenario: Scenario::OpenLoop(OpenLoop::default()),
            run: millis_since_1970().to_string(),
            server: None,
            data_directory: None,
            json: None,
            commit: None,
        }
    }
}

/// Runs a scenario: progress goes to standard error, the outcome's table to standard output, and
/// the record to a file if one is named.
///
/// # Errors
/// When the server cannot be reached, refuses, loses data or ends the connection, and when the
/// record cannot be written. A server that is too slow is an outcome, not an error.
pub fn run(options: BenchOptions, locator: &dyn Locator) -> anyhow::Result<()> {
    let record = run_recorded(&options, locator)?;
    println!("{}: {}", record.scenario, record.run);
    println!("{}", record.table.markdown());
    if let Some(path) = &options.json {
        record.write(path)?;
    }
    Ok(())
}

/// Runs a scenario and gives its record; prints progress only.
///
/// # Errors
/// As [`run`].
pub fn run_recorded(options: &BenchOptions, locator: &dyn Locator) -> anyhow::Result<Record> {
    let (run, server) = (options.run.as_str(), options.server);
    match &options.scenario {
        Scenario::OpenLoop(settings) => {
            options.record("open-loop", settings, &settings.run(locator, run, server)?)
        }
        Scenario::MaxRate(settings) => {
            options.record("max-rate", settings, &settings.run(locator, run, server)?)
        }
        Scenario::Single(settings) => {
            let result = settings.run(locator, run, options.data_directory()?)?;
            options.record("single", settings, &result)
        }
        Scenario::Bandwidth(settings) => {
            let result = settings.run(locator, run, server, options.data_directory()?)?;
            options.record("bandwidth", settings, &result)
        }
        Scenario::Flood(settings) => {
            options.record("flood", settings, &settings.run(locator, run, server)?)
        }
        Scenario::ManySegments(settings) => {
            options.record("many-segments", settings, &settings.run(locator, run, server)?)
        }
        Scenario::Verify(settings) => {
            let name = if settings.resident_bytes_max.is_some() { "large" } else { "verify" };
            options.record(name, settings, &settings.run(locator, run, server)?)
        }
    }
}

impl BenchOptions {
    fn data_directory(&self) -> anyhow::Result<&Path> {
        self.data_directory
            .as_deref()
            .context("this scenario measures the device: name the server's data directory")
    }

    fn record(
        &self,
        scenario: &str,
        settings: &impl Serialize,
        result: &impl Summary,
    ) -> anyhow::Result<Record> {
        Ok(Record {
            scenario: scenario.to_owned(),
            run: self.run.clone(),
            ended_at: millis_since_1970() / 1000,
            host: HostFacts::gather(self.data_directory.as_deref(), self.commit.as_deref()),
            settings: serde_json::to_value(settings)?,
            table: result.table(),
            result: serde_json::to_value(result)?,
        })
    }
}

fn millis_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Faults, TestServer};

    /// Shows that a run leaves a record that can be read back, with settings and machine in it.
    #[test]
    fn a_run_leaves_its_record() {
        let server = TestServer::start(Faults::default());
        let place = tempfile::tempdir().expect("a place for files");
        let path = place.path().join("record.json");
        let scenario = Scenario::Verify(Verify { events: 100, ..Verify::default() });
        let options =
            BenchOptions { scenario, json: Some(path.clone()), ..BenchOptions::default() };
        run(options, &server.locator()).expect("it runs");
        let record = Record::read(&path).expect("it is a record");
        assert_eq!(record.scenario, "verify");
        assert_eq!(record.settings["events"], 100);
        assert_eq!(record.result["events"], 100);
        assert!(record.host.kernel.starts_with("Linux"), "{:?}", record.host);
    }

    /// Shows that a scenario that measures the device refuses without a directory, before it
    /// touches the server.
    #[test]
    fn the_device_cannot_be_measured_without_a_directory() {
        let server = TestServer::start(Faults::default());
        let options = BenchOptions {
            scenario: Scenario::Single(Single::default()),
            ..BenchOptions::default()
        };
        let error = run(options, &server.locator()).expect_err("there is no directory");
        assert!(error.to_string().contains("data directory"), "{error:#}");
        assert_eq!(server.segment_count(), 0);
    }
}
