//! The stock Python client, unmodified, against the real daemon.
//!
//! The client is installed once into a virtual environment below the target directory. Where that
//! cannot be had the tests fail and say so, unless `THALWEG_SKIP_PYTHON=1` is set: a green run must
//! not hide that nothing was checked.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use thalweg_crash::dice::Dice;

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::binary::target_directory;
use rig::dice::seed;
use rig::server::{Server, Settings, run_to_end, settings_for, wait_for_exit};

/// The client's version that is checked.
const CLIENT: &str = "pravega==0.3.8";

/// The checks of `wheel.py` that need nothing from an earlier one.
const CHECKS: [&str; 8] =
    ["scopes", "streams", "tags", "events", "keys", "transactions", "byte_stream", "large_event"];

/// For one check. The client retries most refusals for a minute, so what is hung is wrong.
const CHECK_MAX: Duration = Duration::from_secs(75);

/// The interpreter with the client installed, `None` when it is to be skipped.
fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        if std::env::var("THALWEG_SKIP_PYTHON").is_ok_and(|value| value == "1") {
            eprintln!("NOTICE: THALWEG_SKIP_PYTHON=1, so no Python client is checked");
            return None;
        }
        Some(install().unwrap_or_else(|why| {
            panic!("no Python client to check with: {why}\n(THALWEG_SKIP_PYTHON=1 skips this)")
        }))
    });
    found.as_deref()
}

/// Makes the virtual environment, or finds it made.
fn install() -> Result<PathBuf, String> {
    let (target, _) = target_directory();
    let home = target.join("python-client");
    let (interpreter, done) = (home.join("bin").join("python"), home.join("installed"));
    if std::fs::read_to_string(&done).is_ok_and(|version| version == CLIENT) {
        return Ok(interpreter);
    }
    let mut why = String::new();
    let given = std::env::var("THALWEG_PYTHON").ok();
    for base in given.iter().map(String::as_str).chain(["python3", "python3.11"]) {
        let result =
            run(Command::new(base).args(["-m", "venv", "--clear"]).arg(&home)).and_then(|()| {
                let mut pip = Command::new(&interpreter);
                pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", CLIENT]);
                run(&mut pip)
            });
        match result {
            Ok(()) => {
                std::fs::write(&done, CLIENT).map_err(|error| error.to_string())?;
                return Ok(interpreter);
            }
            Err(error) => why = format!("{why}\n{base}: {error}"),
        }
    }
    Err(why)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn script(python: &Path, name: &str, controller: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("conformance");
    let mut command = Command::new(python);
    command.arg(scripts.join(name)).env("CONTROLLER", controller);
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "error");
    }
    command
}

/// Runs checks, each in a process and with a time limit of its own; panics after all have run when
/// some failed.
fn check_all(python: &Path, server: &Server, checks: &[&str], mark: &str) {
    let mut failed = Vec::new();
    for check in checks {
        let begin = Instant::now();
        let controller = server.settings().controller();
        let mut command = script(python, "wheel.py", &controller);
        let result = thread::scope(|scope| {
            let run = scope.spawn(|| run_to_end(command.args([*check, mark]), CHECK_MAX));
            run.join()
        });
        let verdict = match result {
            Ok(ended) if ended.status.success() => "pass".to_owned(),
            Ok(ended) => ended.stderr.lines().rev().take(5).collect::<Vec<_>>().join(" | "),
            Err(_) => format!("hung for {CHECK_MAX:?}"),
        };
        println!("{check:12} {:5} ms  {verdict}", begin.elapsed().as_millis());
        if verdict != "pass" {
            failed.push(format!("{check}: {verdict}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} checks failed:\n{}",
        failed.len(),
        checks.len(),
        failed.join("\n")
    );
}

/// All checks on a new directory, then a kill, then all checks on what it left.
fn check_through_a_kill(python: &Path, settings: &Settings) {
    let mut server = Server::start(settings);
    check_all(python, &server, &CHECKS, "first");
    check_all(python, &server, &["leave"], "x");
    server.kill();
    let server = Server::start(settings);
    check_all(python, &server, &["find"], "x");
    check_all(python, &server, &CHECKS, "second");
}

/// Shows that the client works in full with the default layout, before and after kill -9.
#[test]
fn the_client_works_with_the_default_layout() {
    let Some(python) = python() else { return };
    let home = tempfile::tempdir().expect("a temporary directory");
    check_through_a_kill(python, &settings_for(home.path(), 2));
}

/// Shows that the client works in full with more shards than cores, each on a port of its own.
#[test]
fn the_client_works_with_four_shards() {
    let Some(python) = python() else { return };
    let home = tempfile::tempdir().expect("a temporary directory");
    check_through_a_kill(python, &settings_for(home.path(), 4));
}

/// Shows that the client works in full when all shards share one port.
#[test]
fn the_client_works_with_a_single_port() {
    let Some(python) = python() else { return };
    let home = tempfile::tempdir().expect("a temporary directory");
    check_through_a_kill(python, &settings_for(home.path(), 2).on_a_single_port());
}

/// A client in a process of its own that tells its progress. Dropping it kills it.
struct Mover {
    child: Child,
    verb: &'static str,
    progress: Receiver<u64>,
    at: u64,
    errors: Arc<Mutex<String>>,
}

impl Mover {
    fn start(python: &Path, settings: &Settings, verb: &'static str, events: u64) -> Self {
        let mut command = script(python, "keyed_crash.py", &settings.controller());
        command.args([verb, "moved", &events.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the interpreter is executable");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (numbers, progress) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(number) = line.parse() {
                    // Nobody may be waiting any more; the pipe must be emptied all the same.
                    let _ = numbers.send(number);
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let kept = errors.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("nobody panics with it");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { child, verb, progress, at: 0, errors }
    }

    /// Waits until this many events are moved.
    fn wait_for(&mut self, events: u64, limit: Duration) {
        let begin = Instant::now();
        while self.at < events {
            match self.progress.recv_timeout(limit.saturating_sub(begin.elapsed())) {
                Ok(at) => self.at = at,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: at {} of {events} after {limit:?}", self.verb, self.at);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.finish(limit);
                    return;
                }
            }
        }
    }

    /// Waits for its end, which must be a good one.
    fn finish(&mut self, limit: Duration) {
        let status = wait_for_exit(&mut self.child, limit);
        let errors = self.errors.lock().expect("nobody panics with it").clone();
        let lines: Vec<&str> = errors.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        match status {
            Some(status) => assert!(status.success(), "{}: {status}: {last}", self.verb),
            None => panic!("{}: not ended in {limit:?}, at {}: {last}", self.verb, self.at),
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        // Either fails only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows that a stock writer and a stock reader group move keyed events while the server is killed
/// five times, and that nothing is lost, doubled or out of order by key.
#[test]
fn keyed_events_move_through_kills() {
    let Some(python) = python() else { return };
    let events = rig::setting("THALWEG_KEYED_EVENTS", 10_000);
    let mut dice = Dice::new(seed());
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 2);
    let mut server = Server::start(&settings);
    // Each kill costs the clients their back-off, which grows to 10 s.
    let limit = Duration::from_secs(60 + events / 500);
    Mover::start(python, &settings, "make", events).finish(limit);
    let mut writer = Mover::start(python, &settings, "write", events);
    let mut reader = Mover::start(python, &settings, "read", events);
    let begin = Instant::now();
    for kill in 1..=5 {
        // Somewhere inside the next sixth.
        let at = events * kill / 6 - dice.below(events / 12);
        writer.wait_for(at, limit);
        server.kill();
        server = Server::start(&settings);
        println!("kill {kill} at event {} after {} ms", writer.at, begin.elapsed().as_millis());
    }
    writer.finish(limit);
    reader.finish(limit);
    println!("{events} keyed events through 5 kills in {} ms", begin.elapsed().as_millis());
    drop(server);
}
