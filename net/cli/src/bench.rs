//! `thalweg bench`: load on a server of its own, started as a process beside this one, on the same
//! cores, with a fresh data directory that is removed afterwards.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use thalweg_bench::{
    Bandwidth, BenchOptions, Flood, ManySegments, MaxRate, OpenLoop, ProcessId, Scenario, Single,
    Verify,
};
use thalweg_server::config::{ByteSize, Config};
use thalweg_server::{Addresses, Locate};

/// What to run, and on what server.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    scenario: Option<Which>,
    /// Directory in which the server's data directory is made [default: the current one].
    #[arg(long, value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Shards of the server [default: one per core].
    #[arg(long, value_name = "N", global = true)]
    shards: Option<u16>,
    /// Memory of the server for event data.
    #[arg(long, value_name = "SIZE", default_value = "512MiB", global = true)]
    cache: ByteSize,
    /// File to write all numbers to, as JSON.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Which {
    /// Write events, read all back, check every byte. What runs when nothing is named.
    Verify {
        /// Events.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// More data than memory: write, read back, bound the server's resident memory.
    Large {
        /// Bytes to write.
        #[arg(long, default_value = "20GiB")]
        size: ByteSize,
        /// Bound of the server's resident memory.
        #[arg(long, default_value = "512MiB")]
        memory: ByteSize,
    },
    /// Events by schedule; latency counts from the intended time.
    OpenLoop {
        /// Events per second.
        #[arg(long, default_value_t = 1_000_000)]
        rate: u64,
        /// Payload bytes of an event.
        #[arg(long, default_value_t = 100)]
        event_bytes: usize,
        /// Segments.
        #[arg(long, default_value_t = 16)]
        segments: usize,
        /// Connections.
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Seconds that count.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Longest time that an event is held back to fill a block, microseconds.
        #[arg(long, default_value_t = 1000)]
        hold_us: u64,
    },
    /// Highest rate for each block size with the 99th percentile below a bound.
    MaxRate {
        /// Events of a block; may be repeated.
        #[arg(long = "block", default_values_t = [1, 10, 100, 1000, 4000])]
        blocks: Vec<usize>,
        /// Seconds of each window tried.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// One append at a time, against the device and loopback in the same run.
    Single {
        /// Appends.
        #[arg(long, default_value_t = 20_000)]
        appends: usize,
    },
    /// Appends of 1 MiB, against the device's durable bandwidth in the same run.
    Bandwidth {
        /// Slices of each kind.
        #[arg(long, default_value_t = 5)]
        slices: usize,
        /// Appends in flight for each of the four segments.
        #[arg(long, default_value_t = 4)]
        window: usize,
    },
    /// Attacks while established writers go on: what they keep of their rate, what memory it takes,
    /// and that everything closes by itself afterwards.
    Flood {
        /// Connections open all the time.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Writers among them.
        #[arg(long, default_value_t = 1_000)]
        writers: usize,
        /// Events per second of all writers.
        #[arg(long, default_value_t = 50_000)]
        rate: u64,
        /// Seconds of a slice with or without an attack.
        #[arg(long, default_value_t = 6.0)]
        seconds: f64,
        /// Slices with each attack, and as many without.
        #[arg(long, default_value_t = 3)]
        slices: usize,
        /// Attempts of the connection flood.
        #[arg(long, default_value_t = 50_000)]
        attempts: u64,
        /// Writer ids of the flood of writer ids.
        #[arg(long, default_value_t = 2_000_000)]
        writer_ids: u64,
        /// Per cent of their rate that writers must keep.
        #[arg(long, default_value_t = 90)]
        keep: u64,
        /// Per cent of the best rate that must be left under three times the load.
        #[arg(long, default_value_t = 80)]
        overload: u64,
        /// Memory of the server, the cache included.
        #[arg(long, default_value = "1536MiB")]
        memory: ByteSize,
        /// Seconds after which the server gives up what stands still.
        #[arg(long, default_value_t = 30)]
        patience: u64,
    },
    /// The same rate over many segments and over few, by turns.
    ManySegments {
        /// Events per second.
        #[arg(long, default_value_t = 1_000_000)]
        rate: u64,
        /// The many.
        #[arg(long, default_value_t = 5000)]
        many: usize,
        /// Seconds of a slice.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
}

/// Starts a server, runs the scenario on it, stops it.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let parent = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => std::env::current_dir().context("find the current directory")?,
    };
    let data = tempfile::Builder::new()
        .prefix("thalweg-bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("make a data directory in {}", parent.display()))?;
    let shards = arguments.shards.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        u16::try_from(cores).unwrap_or(u16::MAX)
    });
    let flags = arguments.scenario.as_ref().map(server_flags).unwrap_or_default();
    let server = BenchServer::start(data.path(), shards, arguments.cache, &flags)?;
    let addresses = server.addresses.clone();
    let locate = move |segment: &str| -> anyhow::Result<String> {
        let (host, port) = addresses.locate(segment);
        Ok(format!("{host}:{port}"))
    };
    let options = BenchOptions {
        scenario: arguments.scenario.map_or_else(|| Verify::default().into_scenario(), scenario),
        server: Some(ProcessId(server.child.id())),
        data_directory: Some(data.path().to_owned()),
        json: arguments.json,
        ..BenchOptions::default()
    };
    thalweg_bench::run(options, &locate)?;
    server.stop()
}

/// What the scenario wants of its server.
fn server_flags(which: &Which) -> Vec<String> {
    let Which::Flood { connections, memory, patience, .. } = which else { return Vec::new() };
    // Everybody comes from one address here, and attackers need some places beside the others.
    let mut flags = vec!["--memory".to_owned(), format!("{}B", memory.0)];
    for limit in [
        format!("connections={}", connections + 500),
        format!("connections-per-address={}", connections + 500),
        format!("first-command-seconds={}", patience.div_ceil(3)),
        format!("frame-seconds={patience}"),
        format!("replies-seconds={patience}"),
        format!("stall-seconds={patience}"),
        format!("silence-seconds={}", 2 * patience),
    ] {
        flags.extend(["--limit".to_owned(), limit]);
    }
    flags
}

/// A scenario out of its settings.
trait IntoScenario {
    fn into_scenario(self) -> Scenario;
}

impl IntoScenario for Verify {
    fn into_scenario(self) -> Scenario {
        Scenario::Verify(self)
    }
}

fn scenario(which: Which) -> Scenario {
    match which {
        Which::Verify { events } => Verify { events, ..Verify::default() }.into_scenario(),
        Which::Large { size, memory } => Verify::large(size.0, memory.0).into_scenario(),
        Which::OpenLoop { rate, event_bytes, segments, connections, seconds, hold_us } => {
            Scenario::OpenLoop(OpenLoop {
                events_per_second: rate,
                event_bytes,
                segments,
                connections,
                duration: Duration::from_secs(seconds),
                hold: Duration::from_micros(hold_us),
                ..OpenLoop::default()
            })
        }
        Which::MaxRate { blocks, seconds } => Scenario::MaxRate(MaxRate {
            block_events: blocks,
            step: Duration::from_secs(seconds),
            ..MaxRate::default()
        }),
        Which::Single { appends } => Scenario::Single(Single { appends, ..Single::default() }),
        Which::Bandwidth { slices, window } => {
            Scenario::Bandwidth(Bandwidth { slices, window, ..Bandwidth::default() })
        }
        Which::Flood {
            connections,
            writers,
            rate,
            seconds,
            slices,
            attempts,
            writer_ids,
            keep,
            overload,
            memory,
            patience,
        } => Scenario::Flood(Flood {
            connections,
            writers,
            events_per_second: rate,
            slice: Duration::from_secs_f64(seconds),
            slices,
            attempts,
            writer_ids,
            keep_percent: keep,
            overload_percent: overload,
            memory_bytes: memory.0,
            settle: Duration::from_secs(3 * patience + 10),
            ..Flood::default()
        }),
        Which::ManySegments { rate, many, seconds } => {
            let defaults = ManySegments::default();
            let load = OpenLoop {
                events_per_second: rate,
                duration: Duration::from_secs(seconds),
                ..defaults.load
            };
            Scenario::ManySegments(ManySegments { load, many, ..defaults })
        }
    }
}

/// A server process of this very program. Killed when dropped.
struct BenchServer {
    child: Child,
    addresses: Addresses,
}

impl BenchServer {
    fn start(data: &Path, shards: u16, cache: ByteSize, flags: &[String]) -> anyhow::Result<Self> {
        let (controller_port, data_port) = free_ports(shards)?;
        let config = Config {
            data: data.to_owned(),
            controller_port,
            data_port,
            shards: Some(shards),
            cache,
            ..Config::default()
        };
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--controller-port", &controller_port.to_string()])
            .args(["--data-port", &data_port.to_string()])
            .args(["--shards", &shards.to_string()])
            .args(["--cache", &format!("{}B", cache.0)])
            .args(["--admin", "off"])
            .args(flags)
            .env("THALWEG_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let output = child.stdout.take().context("read the server's output")?;
        let server = Self { child, addresses: Addresses::new(&config, shards) };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("await the server")?;
        ensure!(line.starts_with("ready"), "the server did not start: see its messages above");
        eprintln!("{}", line.trim_end());
        Ok(server)
    }

    /// Asks the server to stop and waits for it.
    fn stop(mut self) -> anyhow::Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)
            .context("stop the server")?;
        let status = self.child.wait().context("await the server's end")?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port, and another with as many free ones behind it as there are shards.
fn free_ports(shards: u16) -> anyhow::Result<(u16, u16)> {
    let controller = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    let controller_port = controller.local_addr()?.port();
    for _ in 0..100 {
        let first = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
        let first_port = first.local_addr()?.port();
        let others: Vec<_> = (1..shards)
            .map_while(|shard| first_port.checked_add(shard))
            .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .collect();
        if others.len() + 1 == usize::from(shards) {
            return Ok((controller_port, first_port));
        }
    }
    anyhow::bail!("find {shards} free ports in a row")
}
