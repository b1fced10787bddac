//! The server as a process: started, awaited, stopped for a while, killed, its output kept.
//!
//! It is the real `thalweg serve` on a real directory; what is learned of it is learned from its
//! standard output and error, its exit status and its sockets. A [`Server`] that is dropped is
//! killed.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Bytes of the newest output that are kept for messages.
const LOG_BYTES_MAX: usize = 256 << 10;

/// What a process did that it must not do, or what the system refused.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The executable does not run.
    #[error("start {program}: {source}")]
    Start {
        /// Which one.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended without having been asked.
    #[error("the server ended by itself: {status}; the end of its log:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// It did not do in time what was expected.
    #[error("the server {what} not within {limit:?}; the end of its log:\n{log}")]
    Late {
        /// What it was to do.
        what: &'static str,
        /// The time it had.
        limit: Duration,
        /// Its last lines.
        log: String,
    },
    /// It ended as asked, and said that something was wrong.
    #[error("the server ended with {status} after SIGTERM; the end of its log:\n{log}")]
    Status {
        /// How.
        status: ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// Whether a start was refused because the directory is somebody's: of a predecessor that was
    /// killed just now, whose last writes the kernel has not ended.
    pub fn is_locked_out(&self) -> bool {
        matches!(self, Self::Ended { log, .. } if log.contains("is in use by another process"))
    }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> ProcessError {
    move |source| ProcessError::System { what, source }
}

/// How a server is started; the same for each start on one directory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `thalweg` executable.
    pub program: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Port of the controller.
    pub controller_port: u16,
    /// Port of shard 0.
    pub data_port: u16,
    /// Number of shards.
    pub shards: u16,
    /// All shards share the one data port.
    pub is_single_port: bool,
    /// Further arguments of `serve`.
    pub flags: Vec<String>,
}

impl Settings {
    /// Settings for `data`, on ports that nobody has.
    ///
    /// # Errors
    /// When there are not enough free ports.
    pub fn new(program: &Path, data: &Path, shards: u16) -> Result<Self, ProcessError> {
        let first = free_ports(shards + 1)?;
        Ok(Self {
            program: program.to_owned(),
            data: data.to_owned(),
            controller_port: first,
            data_port: first + 1,
            shards,
            is_single_port: false,
            flags: Vec::new(),
        })
    }

    /// Sets a flag with a value, in place of an earlier value.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        if let Some(at) = self.flags.iter().position(|known| known == flag) {
            self.flags[at + 1] = value.to_owned();
        } else {
            self.flags.extend([flag.to_owned(), value.to_owned()]);
        }
        self
    }

    /// Lets all shards share the data port.
    #[must_use]
    pub fn on_a_single_port(mut self) -> Self {
        self.is_single_port = true;
        self
    }

    /// Where the controller is served, as host and port.
    pub fn controller(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.controller_port)
    }

    /// Where segments are served, one address for each shard that has a port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let count = if self.is_single_port { 1 } else { self.shards };
        (self.data_port..self.data_port + count)
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .collect()
    }

    /// `thalweg serve` with these settings.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(&self.data);
        command.args(["--listen", "127.0.0.1", "--no-pin"]);
        command.args(["--controller-port", &self.controller_port.to_string()]);
        command.args(["--data-port", &self.data_port.to_string()]);
        command.args(["--shards", &self.shards.to_string()]);
        if self.is_single_port {
            command.arg("--single-port");
        }
        command.args(&self.flags);
        // What is set for a test is not meant for the server.
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
#[derive(Debug)]
pub struct Server {
    child: Child,
    started: Instant,
    output: Receiver<String>,
    log: Arc<Mutex<String>>,
    /// Ends when the process has closed its standard error.
    log_reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the process and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(settings: &Settings) -> Result<Self, ProcessError> {
        Self::launch_as(settings.command())
    }

    /// Starts the process by a command that ends in that of some [`Settings`].
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_as(mut command: Command) -> Result<Self, ProcessError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In our own group, so that an interrupt at the terminal ends both.
        let started = Instant::now();
        let mut child = command.spawn().map_err(|source| {
            let program = PathBuf::from(command.get_program());
            ProcessError::Start { program, source }
        })?;
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
        let log_reader = thread::spawn(move || keep_lines(BufReader::new(stderr), &kept));
        Ok(Self { child, started, output, log, log_reader: Some(log_reader) })
    }

    /// Waits for the line that begins with `ready`; gives the time since the start.
    ///
    /// # Errors
    /// When it ends, or takes longer than `limit`.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<Duration, ProcessError> {
        loop {
            let left = limit.saturating_sub(self.started.elapsed());
            match self.output.recv_timeout(left) {
                Ok(line) if line.starts_with("ready") => return Ok(self.started.elapsed()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ProcessError::Late { what: "is ready", limit, log: self.log() });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map_err(system("await the server's end"))?;
                    return Err(self.ended(status));
                }
            }
        }
    }

    /// Whether the line that begins with `ready` has come since it was last asked.
    pub fn is_ready(&self) -> bool {
        self.output.try_iter().any(|line| line.starts_with("ready"))
    }

    /// The newest part of what it wrote on standard error.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// It has ended: with the last of what it wrote.
    fn ended(&mut self, status: ExitStatus) -> ProcessError {
        if let Some(reader) = self.log_reader.take() {
            // A reader that panicked has kept nothing more.
            let _ = reader.join();
        }
        ProcessError::Ended { status, log: self.log() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// [`ProcessError::Ended`] then.
    pub fn check_alive(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait().map_err(system("look at the server"))? {
            Some(status) => Err(self.ended(status)),
            None => Ok(()),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the system refuses, as for a process that has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|source| system("send a signal to the server")(source.into()))
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        self.check_alive()?;
        self.child.kill().map_err(system("kill the server"))?;
        self.child.wait().map_err(system("await the server's end"))?;
        Ok(())
    }

    /// SIGTERM, and waits for the end, which must be in order and within `limit`.
    ///
    /// # Errors
    /// When it had ended before, ends too late, or with another status than 0.
    pub fn terminate(&mut self, limit: Duration) -> Result<Duration, ProcessError> {
        self.check_alive()?;
        let begin = Instant::now();
        self.signal(Signal::TERM)?;
        loop {
            match self.child.try_wait().map_err(system("look at the server"))? {
                Some(status) if status.success() => return Ok(begin.elapsed()),
                Some(status) => return Err(ProcessError::Status { status, log: self.log() }),
                None if begin.elapsed() > limit => {
                    let what = "ends after SIGTERM";
                    return Err(ProcessError::Late { what, limit, log: self.log() });
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep_lines(lines: impl BufRead, kept: &Mutex<String>) {
    for line in lines.lines().map_while(Result::ok) {
        let mut kept = kept.lock().expect("nobody panics with it");
        kept.push_str(&line);
        kept.push('\n');
        if kept.len() > LOG_BYTES_MAX {
            let half = kept.len() / 2;
            let cut = kept[half..].find('\n').map_or(kept.len(), |at| half + at + 1);
            kept.drain(..cut);
        }
    }
}

/// First of `count` ports in a row that nobody has. Below the range that the system gives to
/// outgoing connections, and apart for each process and each call.
fn free_ports(count: u16) -> Result<u16, ProcessError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(u32::from(count) + 1, Ordering::Relaxed);
        let at = 11_000 + (std::process::id().wrapping_mul(97) + step) % 20_000;
        let first = u16::try_from(at).expect("below 31,000");
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    let source = std::io::Error::other(format!("no {count} free ports in a row"));
    Err(system("find ports for the server")(source))
}
