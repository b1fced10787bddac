//! The daemon as a process: started, awaited, killed, stopped, its output kept.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::binary;

/// How long a start may take before the test fails. The bounds that are promised are asserted by
/// the tests that are about them.
const START_MAX: Duration = Duration::from_secs(60);

/// How a server is started; the same for each start on one directory.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) controller_port: u16,
    pub(crate) data_port: u16,
    pub(crate) shards: u16,
    pub(crate) is_single_port: bool,
    /// Further flags.
    pub(crate) flags: Vec<String>,
}

impl Settings {
    /// Settings for `data`, on ports that nobody has, with a cache and journal files that suit
    /// tests.
    pub(crate) fn new(data: &Path, shards: u16) -> Self {
        let first = free_ports(shards + 1);
        Self {
            data: data.to_owned(),
            controller_port: first,
            data_port: first + 1,
            shards,
            is_single_port: false,
            flags: Vec::new(),
        }
        .with("--cache", "64MiB")
        .with("--journal", &format!("{}MiB", 1024 * u32::from(shards)))
        .with("--journal-file", "16MiB")
    }

    /// Sets a flag with a value, in place of an earlier value.
    pub(crate) fn with(mut self, flag: &str, value: &str) -> Self {
        if let Some(at) = self.flags.iter().position(|known| known == flag) {
            self.flags[at + 1] = value.to_owned();
        } else {
            self.flags.extend([flag.to_owned(), value.to_owned()]);
        }
        self
    }

    pub(crate) fn single_port(mut self) -> Self {
        self.is_single_port = true;
        self
    }

    /// Ports that serve segments.
    pub(crate) fn data_ports(&self) -> Vec<u16> {
        let count = if self.is_single_port { 1 } else { self.shards };
        (self.data_port..self.data_port + count).collect()
    }

    pub(crate) fn controller(&self) -> String {
        format!("127.0.0.1:{}", self.controller_port)
    }

    /// `thalweg serve` with these settings.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary::thalweg());
        command.arg("serve").arg("--data").arg(&self.data);
        command.args(["--listen", "127.0.0.1", "--no-pin"]);
        command.args(["--controller-port", &self.controller_port.to_string()]);
        command.args(["--data-port", &self.data_port.to_string()]);
        command.args(["--shards", &self.shards.to_string()]);
        if self.is_single_port {
            command.arg("--single-port");
        }
        command.args(&self.flags);
        // What is set for the tests is not meant for the server.
        for (name, _) in std::env::vars_os() {
            let is_ours = name.to_str().is_some_and(|name| name.starts_with("THALWEG_"));
            if is_ours && name != "THALWEG_LOG" && name != "THALWEG_DEVICE" {
                command.env_remove(&name);
            }
        }
        command
    }
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    settings: Settings,
    started: Instant,
    output: Receiver<String>,
    log: Arc<Mutex<String>>,
    /// Until it was waited for behind the end of the process: then the log is whole.
    log_reader: Option<thread::JoinHandle<()>>,
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
    pub(crate) fn launch_as(mut command: Command, settings: &Settings) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().expect("the server is executable");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (lines, output) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may be waiting any more; the pipe must be emptied all the same.
                let _ = lines.send(line);
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let kept = log.clone();
        let log_reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("nobody panics with it");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let log_reader = Some(log_reader);
        Self { child, settings: settings.clone(), started, output, log, log_reader }
    }

    /// Waits for the line that begins with `ready`; gives the time since the start.
    pub(crate) fn wait_ready(&mut self) -> Duration {
        loop {
            let left = START_MAX.saturating_sub(self.started.elapsed());
            match self.output.recv_timeout(left) {
                Ok(line) if line.starts_with("ready") => return self.started.elapsed(),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not ready in {START_MAX:?}; its log:\n{}", self.log());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.wait();
                    panic!("ended before it was ready: {status}; its log:\n{}", self.log());
                }
            }
        }
    }

    /// Whether the line that begins with `ready` has come since it was last asked.
    pub(crate) fn is_ready(&self) -> bool {
        self.output.try_iter().any(|line| line.starts_with("ready"))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.settings.data_ports()
    }

    /// What it wrote on standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself; the log is whole then.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        let has_ended = self.child.try_wait().expect("it is our child").is_some();
        has_ended.then(|| self.wait())
    }

    /// Waits for the end of the process and of its log.
    fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it is our child");
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("keeping lines does not panic");
        }
        status
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(status) = self.has_ended() {
            panic!("ended by itself: {status}; its log:\n{}", self.log());
        }
        self.child.kill().expect("it is our child");
        self.wait();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        signal("TERM", self.child.id());
        if wait_for_exit(&mut self.child, limit).is_none() {
            panic!("alive {limit:?} after SIGTERM; its log:\n{}", self.log());
        }
        (self.wait(), begin.elapsed())
    }

    /// Resident memory now, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        status_bytes(self.child.id(), "VmRSS:")
    }

    /// Highest resident memory so far, bytes.
    pub(crate) fn resident_bytes_peak(&self) -> u64 {
        status_bytes(self.child.id(), "VmHWM:")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// First of `count` ports in a row that nobody has. Below the range that the system gives to
/// outgoing connections, and apart for each test process and each call.
fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(u32::from(count) + 1, Ordering::Relaxed);
        let at = 11_000 + (std::process::id().wrapping_mul(97) + step) % 20_000;
        let first = u16::try_from(at).expect("below 31,000");
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}
