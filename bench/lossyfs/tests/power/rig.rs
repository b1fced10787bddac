//! The real server on a lossy file system, and writers whose events can be judged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thalweg_crash::process::{Server, Settings};
use thalweg_crash::wire::{StopSwitch, Trouble};
use thalweg_lossyfs::power::{Cut, CutReport};
use thalweg_lossyfs::{Lossy, MountError};

use crate::writer::{self, Writer};

/// Longest wait for anything that is not itself measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const WRITERS: u64 = 4;

/// A number from the environment, or the default of the test command.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// The executable under test: `THALWEG_BIN`, or the one that cargo makes of the present sources.
fn thalweg() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var_os("THALWEG_BIN") {
        Some(given) => given.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    // <target>/<profile>/deps/<test>
    let profile = own.parent().and_then(Path::parent).expect("tests lie in a profile directory");
    let target = profile.parent().expect("profiles lie in the target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "thalweg-cli", "--bin", "thalweg"]);
    cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo build of thalweg: {status}");
    profile.join("thalweg")
}

/// A mount, the server on it, and what its writers know. The server ends before the mount.
pub(crate) struct Rig {
    pub(crate) server: Option<Server>,
    pub(crate) settings: Settings,
    pub(crate) writers: Vec<Writer>,
    pub(crate) lossy: Lossy,
    _home: TempDir,
}

impl Rig {
    /// Mounts; `None`, with the reason on standard output, where this machine cannot.
    pub(crate) fn mount() -> Option<Self> {
        let home = tempfile::Builder::new().prefix("thalweg-lossy-").tempdir();
        let home = home.expect("a temporary directory");
        let lossy = match Lossy::mount(home.path()) {
            Ok(lossy) => lossy,
            Err(error @ (MountError::NoFuse { .. } | MountError::Refused { .. })) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let data = home.path().join("data");
        let settings = Settings::new(thalweg(), &data, 2).expect("free ports");
        let settings = Settings { is_single_port: true, ..settings }
            .with("--cache", "64MiB")
            .with("--journal", "512MiB")
            .with("--journal-file", "4MiB");
        let writers = (1..=WRITERS).map(Writer::new).collect();
        Some(Self { server: None, settings, writers, lossy, _home: home })
    }

    /// Mounts and starts the server.
    pub(crate) fn start() -> Option<Self> {
        let mut rig = Self::mount()?;
        rig.boot();
        Some(rig)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.settings.addresses()[0]
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn boot(&mut self) -> Duration {
        let mut server = Server::launch(&self.settings).expect("it is executable");
        let time = server.wait_ready(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        self.server = Some(server);
        time
    }

    /// Cuts the power, kills the server, and brings the power back.
    pub(crate) fn power_cut(&mut self, cut: Cut) -> CutReport {
        let report = self.lossy.cut(cut);
        self.kill();
        self.lossy.power_on();
        report
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself when its disk was gone.
        drop(self.server.take());
    }

    /// Writers and readers work while `during` runs; they resume after each lost connection.
    pub(crate) fn load<R>(&mut self, during: impl FnOnce(&Load<'_>) -> R) -> R {
        let (address, stop) = (self.address(), StopSwitch::default());
        let acknowledged: Vec<_> = self.writers.iter().map(|_| AtomicU64::new(0)).collect();
        let lossy = &self.lossy;
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for (writer, acknowledged) in self.writers.iter_mut().zip(&acknowledged) {
                let stop = &stop;
                threads.push(scope.spawn(move || writer.work(address, stop, acknowledged)));
            }
            let _stops = StopOnDrop(&stop);
            let result = during(&Load { lossy, address, acknowledged: &acknowledged });
            stop.stop();
            for thread in threads {
                match thread.join().expect("a writer does not panic") {
                    Ok(()) => {}
                    Err(trouble) => panic!("{trouble}; log of the server:\n{}", {
                        self.server.as_ref().map_or_else(String::new, Server::log)
                    }),
                }
            }
            result
        })
    }

    /// Reads everything back and compares with what was acknowledged, seen and sent. Gives the
    /// number of events judged.
    pub(crate) fn verify(&mut self) -> u64 {
        self.judge().unwrap_or_else(|trouble| {
            let log = self.server.as_ref().map_or_else(String::new, Server::log);
            panic!("{trouble}; log of the server:\n{log}")
        })
    }

    /// As [`Rig::verify`]; what is wrong is the caller's to judge.
    pub(crate) fn judge(&mut self) -> Result<u64, Trouble> {
        let address = self.address();
        self.writers.iter_mut().map(|writer| writer.verify(address)).sum()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A process cannot end while a transfer of its is not answered.
        self.lossy.resume();
    }
}

struct StopOnDrop<'a>(&'a StopSwitch);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What a test sees of a load that runs.
pub(crate) struct Load<'a> {
    pub(crate) lossy: &'a Lossy,
    pub(crate) address: SocketAddr,
    acknowledged: &'a [AtomicU64],
}

impl Load<'_> {
    /// Events acknowledged since the load began.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|it| it.load(Ordering::Acquire)).sum()
    }

    /// Waits until each writer has `more` events acknowledged; gives the time that it took.
    pub(crate) fn wait_each(&self, more: u64) -> Duration {
        let read = |it: &AtomicU64| it.load(Ordering::Acquire);
        let goals: Vec<u64> = self.acknowledged.iter().map(|it| read(it) + more).collect();
        wait_until("every writer has appends acknowledged", || {
            self.acknowledged.iter().zip(&goals).all(|(it, goal)| read(it) >= *goal)
        })
    }

    /// Waits for `more` acknowledged events; gives the time that it took.
    pub(crate) fn wait_acknowledged(&self, more: u64) -> Duration {
        let goal = self.acknowledged() + more;
        wait_until("appends are acknowledged", || self.acknowledged() >= goal)
    }

    /// Waits until nothing is acknowledged any more for `silence`.
    pub(crate) fn wait_silent(&self, silence: Duration) {
        let (mut last, mut since) = (self.acknowledged(), Instant::now());
        wait_until("appends stall", || {
            let now = self.acknowledged();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() >= silence
        });
    }
}

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    begin.elapsed()
}

/// A connection for single requests.
pub(crate) fn connect(address: SocketAddr) -> thalweg_crash::wire::Wire {
    let connected = writer::connect(address, &StopSwitch::default());
    connected.unwrap_or_else(|trouble: Trouble| panic!("connect: {trouble}"))
}
