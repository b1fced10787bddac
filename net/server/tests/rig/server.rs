//! The daemon as a process: that of the kill loop, with the failures of a test.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_crash::process;
pub(crate) use thalweg_crash::process::Settings;

use super::binary;

/// How long a start may take before the test fails. The bounds that are promised are asserted by
/// the tests that are about them.
const START_MAX: Duration = Duration::from_secs(60);

/// Settings for `data`, on ports that nobody has, with a cache and journal files that suit tests.
pub(crate) fn settings_for(data: &Path, shards: u16) -> Settings {
    Settings::new(binary::thalweg(), data, shards)
        .expect("there are free ports")
        .with("--cache", "64MiB")
        .with("--journal", &format!("{}MiB", 1024 * u32::from(shards)))
        .with("--journal-file", "16MiB")
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    process: process::Server,
    settings: Settings,
}

impl Server {
    /// Starts a server and waits until it says that it is ready.
    pub(crate) fn start(settings: &Settings) -> Self {
        let mut server = Self::launch(settings);
        server.wait_ready();
        server
    }

    /// Starts the process and waits for nothing.
    pub(crate) fn launch(settings: &Settings) -> Self {
        Self::launch_as(settings.command(), settings)
    }

    /// Starts the process with a command line that ends in that of `settings`.
    pub(crate) fn launch_as(command: Command, settings: &Settings) -> Self {
        let process = process::Server::launch_as(command).expect("the server is executable");
        Self { process, settings: settings.clone() }
    }

    /// Waits for the line that begins with `ready`; gives the time since the start.
    pub(crate) fn wait_ready(&mut self) -> Duration {
        self.process.wait_ready(START_MAX).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether the line that begins with `ready` has come since it was last asked.
    pub(crate) fn is_ready(&self) -> bool {
        self.process.is_ready()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ports that serve segments.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.settings.addresses().iter().map(|address| address.port()).collect()
    }

    /// What it wrote on standard error, the newest part if that is much.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.check_alive().is_err()
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap_or_else(|error| panic!("{error}"));
    }

    /// SIGTERM, and waits for the end, which must be in order; gives the time it took.
    pub(crate) fn terminate(&mut self, limit: Duration) -> Duration {
        self.process.terminate(limit).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Resident memory now, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        status_bytes(self.process_id(), "VmRSS:")
    }

    /// Highest resident memory so far, bytes.
    pub(crate) fn resident_bytes_peak(&self) -> u64 {
        status_bytes(self.process_id(), "VmHWM:")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("last lines of the server's log:\n{}", last.join("\n"));
        }
    }
}

/// Sends a signal by name to one process.
pub(crate) fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.expect("kill is a program").success(), "kill -s {name} {process}");
}

/// Waits at most `limit` for the end of a process.
pub(crate) fn wait_for_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        if begin.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// How a command ended, with its output.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) time: Duration,
    pub(crate) stderr: String,
}

/// Runs a command that must end by itself within `limit`; it is killed and the test fails if not.
pub(crate) fn run_to_end(command: &mut Command, limit: Duration) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.process_group(0).spawn().expect("the command is executable");
    let mut pipe = child.stderr.take().expect("standard error is a pipe");
    let reading = thread::spawn(move || {
        let mut text = String::new();
        // What is not text is not worth keeping.
        let _ = pipe.read_to_string(&mut text);
        text
    });
    let status = wait_for_exit(&mut child, limit);
    let time = begin.elapsed();
    if status.is_none() {
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
    let stderr = reading.join().expect("reading a pipe does not panic");
    let status = status.unwrap_or_else(|| panic!("not ended in {limit:?}: {stderr}"));
    Ended { status, time, stderr }
}

fn status_bytes(process: u32, field: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).expect("a living process has a status");
    let line = text.lines().find(|line| line.starts_with(field)).expect("the field is there");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}
