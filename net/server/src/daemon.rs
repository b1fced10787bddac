//! Start, wait, stop.
//!
//! Everything that can be refused is refused before a thread starts: settings, data directory, what
//! the machine offers, ports. Then the shards recover in parallel, then the control plane starts on
//! a thread of its own, and only then is the server ready. Stopping goes the other way.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thalweg_control::{ControlConfig, ControlLimits, Locate};
use thalweg_core::id::ShardId;
use thalweg_core::limits::Limits;
use thalweg_net::Placement;
use thalweg_runtime::{
    Doorbell, RuntimeError, ShardHandle, ShardStart, Stopper, choose_cpus, mailboxes,
};
use thalweg_shard::{ConnectionLimits, Forwarding, Patience};
use thalweg_uring::{
    Admission, AdmissionConfig, DurableWrite, Listeners, NetworkConfig, PortSharing, ProbeError,
    probe,
};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::board::{Board, LimitLog, PERIOD};
use crate::config::{AdminPort, CONTAINERS_PER_SHARD, Config, DeviceKind, SHARDS_MAX};
use crate::data_directory::{self, DataDirectory};
use crate::limits::Limit;
use crate::patience;
use crate::shard_thread::{self, ShardParts};
use crate::space;

/// Where metrics and health are served unless told otherwise.
const ADMIN_PORT: u16 = 9099;

/// Descriptors that the process needs beside those of connections.
const DESCRIPTORS_BESIDE: u64 = 1000;

/// How long the line that says ready waits for a control plane whose tables may lie in a container
/// that refuses to serve.
const QUARANTINE_PATIENCE: Duration = Duration::from_secs(5);

/// Journal files prepared ahead: at full bandwidth one is filled while the next is being written.
const JOURNAL_FILES_AHEAD: usize = 2;

/// Bytes that the journal adds to the largest command at most: headers, and the blocks that a table
/// batch of small entries grows by.
const FRAME_OVERHEAD: usize = 64 << 10;

/// How long calls under way may take when the control plane is stopped.
const CONTROL_STOP_TIME: Duration = Duration::from_secs(2);

/// How often the starter looks whether a shard has died while recovering.
const BOOT_LOOK: Duration = Duration::from_millis(50);

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that cannot work.
    #[error("{0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDirectory(#[from] data_directory::Error),
    /// The machine lacks something.
    #[error(transparent)]
    Machine(#[from] ProbeError),
    /// A port cannot be had.
    #[error("listen on {address} ({setting}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The setting to change.
        setting: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A shard did not start or died.
    #[error(transparent)]
    Shard(#[from] RuntimeError),
    /// The control plane did not start or died.
    #[error("control plane: {0}")]
    Control(String),
}

fn system(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { action, source }
}

/// A running server. Dropping it without [`stop`](Self::stop) leaves its threads running.
pub struct Server {
    config: Config,
    placement: Placement,
    stopper: Stopper,
    shards: Vec<ShardHandle>,
    control: JoinHandle<Result<(), String>>,
    board: Arc<Board>,
    stop_control: oneshot::Sender<()>,
    // Last, so that the lock outlives everything that writes.
    directory: DataDirectory,
}

/// Where segments are: a pure function of the name.
#[derive(Clone, Debug)]
pub struct Addresses {
    placement: Placement,
    config: Config,
}

impl Addresses {
    /// Of a server with this configuration, whose data directory was made for `shards` shards.
    pub fn new(config: &Config, shards: u16) -> Self {
        let placement = Placement::new(shards * CONTAINERS_PER_SHARD, shards);
        Self { placement, config: config.clone() }
    }
}

impl Locate for Addresses {
    fn locate(&self, segment: &str) -> (String, u16) {
        let shard = self.placement.shard_of(segment);
        (self.config.listen.to_string(), self.config.shard_port(shard.0))
    }
}

/// Runs a server in the foreground until SIGTERM or SIGINT, and stops it then. Prints one line
/// beginning with `ready` on standard output once it serves.
///
/// # Errors
/// Why it did not start, or what died.
pub fn serve(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the signal runtime"))?;
    // Registered before anything starts, so that an early signal stops an early server cleanly.
    let signals = {
        let _inside = runtime.enter();
        let terminate = tokio::signal::unix::SignalKind::terminate();
        let interrupt = tokio::signal::unix::SignalKind::interrupt();
        (
            tokio::signal::unix::signal(terminate).map_err(system("await SIGTERM"))?,
            tokio::signal::unix::signal(interrupt).map_err(system("await SIGINT"))?,
        )
    };
    let server = Server::start(config)?;
    let (mut terminate, mut interrupt) = signals;
    let started = Instant::now();
    let mut is_told = false;
    let died = runtime.block_on(async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = terminate.recv() => return false,
                _ = interrupt.recv() => return false,
                _ = look.tick() => if server.has_died() { return true },
            }
            if !is_told && server.is_ready(started.elapsed()) {
                is_told = true;
                println!("{}", server.ready_line());
                look = tokio::time::interval(Duration::from_millis(200));
            }
        }
    });
    if died {
        warn!("a thread of the server has ended; stopping");
    } else {
        info!("asked to stop");
    }
    server.stop()
}

impl Server {
    /// Starts a server and returns when it serves.
    ///
    /// # Errors
    /// Why it did not; nothing runs then.
    pub fn start(config: Config) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let default_shards = u16::try_from(cores).unwrap_or(SHARDS_MAX).min(SHARDS_MAX);
        config.check(config.shards.unwrap_or(default_shards)).map_err(Error::Config)?;
        let directory =
            DataDirectory::open(&config.data, config.shards, default_shards, CONTAINERS_PER_SHARD)?;
        let shards = directory.marker().shards;
        config.check(shards).map_err(Error::Config)?;
        raise_descriptors(config.limits.get(Limit::Connections));
        let writes = match config.device {
            DeviceKind::Ring => {
                let found = probe(directory.path())?;
                info!(disk = found.disk, writes = ?found.durable_write, "probed the machine");
                Some(found.durable_write)
            }
            DeviceKind::Portable => None,
        };
        let placement = Placement::new(directory.marker().containers, shards);
        let controller = bind_controller(&config)?;
        let admission = Admission::new(AdmissionConfig {
            connections_max: config.limits.size(Limit::Connections),
            connections_per_address_max: config.limits.size(Limit::ConnectionsPerAddress),
            accepts_per_second: config.limits.small(Limit::AcceptsPerSecond),
        });
        let listeners = bind_shards(&config, shards, &admission)?;
        let admin = bind_admin(&config)?;
        let board = Board::new(shards);
        let bells = (0..shards)
            .map(|_| Doorbell::new())
            .collect::<io::Result<Vec<_>>>()
            .map_err(system("make an eventfd"))?;
        let stopper = Stopper::new(&bells);
        if let Some(listener) = admin {
            let admin = Admin { board: board.clone(), admission };
            admin::start(listener, admin).map_err(system("start the administration port"))?;
        }
        let shards =
            start_shards(&config, &directory, placement, listeners, &bells, writes, &board);
        let shards = shards.inspect_err(|_| stopper.stop())?;
        let (stop_control, stopped) = oneshot::channel();
        let control = start_control(&config, placement, controller, stopped, board.clone());
        let control = control.inspect_err(|_| stopper.stop())?;
        Ok(Self { config, placement, stopper, shards, control, board, stop_control, directory })
    }

    /// Whether the control plane takes calls; or, this long after the start, whether it cannot be
    /// waited for because a container refuses to serve.
    fn is_ready(&self, since_start: Duration) -> bool {
        if self.board.is_control_serving() {
            return true;
        }
        let is_degraded = since_start > QUARANTINE_PATIENCE && self.board.has_quarantine();
        if is_degraded {
            warn!("the control plane still waits for its tables; some containers do not serve");
        }
        is_degraded
    }

    /// What the first line of output says.
    pub fn ready_line(&self) -> String {
        let listen = self.config.listen;
        let shards = self.placement.shards();
        let ports = match (self.config.single_port, shards) {
            (true, _) | (_, 1) => self.config.data_port.to_string(),
            (false, _) => {
                format!("{}-{}", self.config.data_port, self.config.shard_port(shards - 1))
            }
        };
        format!(
            "ready: controller tcp://{listen}:{}, {shards} shards on {listen}:{ports}, data in {}",
            self.config.controller_port,
            self.directory.path().display()
        )
    }

    /// Whether a thread has ended by itself, which none should.
    pub fn has_died(&self) -> bool {
        self.control.is_finished() || self.shards.iter().any(ShardHandle::is_finished)
    }

    /// Stops: the control plane first, then the shards, which finish and acknowledge what they have
    /// in flight.
    ///
    /// # Errors
    /// What had died before, or died while stopping.
    pub fn stop(self) -> Result<(), Error> {
        // The receiver is gone when the control plane has died.
        let _ = self.stop_control.send(());
        let control = self
            .control
            .join()
            .unwrap_or_else(|_| Err("panicked".to_owned()))
            .map_err(Error::Control);
        self.stopper.stop();
        let mut result = control;
        for shard in self.shards {
            result = result.and(shard.join().map_err(Error::Shard));
        }
        result
    }
}

fn bind_controller(config: &Config) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(config.listen, config.controller_port);
    let failed = |source| Error::Listen { address, setting: "--controller-port", source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The soft limit of descriptors goes up to the hard one: it is low for the sake of old programs.
fn raise_descriptors(connections_max: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(found) = current else { return };
    if maximum.is_none_or(|maximum| maximum > found) {
        let raised = maximum.unwrap_or(1 << 20);
        let wanted = Rlimit { current: Some(raised), maximum };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            info!(from = found, to = raised, "raised the limit of open descriptors");
        }
    }
    let found = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = connections_max + DESCRIPTORS_BESIDE;
    if found < needed {
        warn!(
            found,
            needed, "few descriptors for that many connections: raise `ulimit -n` or LimitNOFILE="
        );
    }
}

/// The administration port's listener. The default port is nobody's wish: when it is taken the
/// server does without.
fn bind_admin(config: &Config) -> Result<Option<TcpListener>, Error> {
    let (address, is_asked_for) = match config.admin {
        AdminPort::Off => return Ok(None),
        AdminPort::Default => (SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)), false),
        AdminPort::At(address) => (address, true),
    };
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if is_asked_for => Err(Error::Listen { address, setting: "--admin", source }),
        Err(error) => {
            warn!(%address, %error, "no metrics: the port is taken; choose one with --admin");
            Ok(None)
        }
    }
}

fn bind_shards(
    config: &Config,
    shards: u16,
    admission: &Arc<Admission>,
) -> Result<Vec<Listeners>, Error> {
    (0..shards)
        .map(|shard| {
            let address = SocketAddr::new(config.listen, config.shard_port(shard));
            let port_sharing =
                if config.single_port { PortSharing::Shared } else { PortSharing::Exclusive };
            let network = NetworkConfig {
                addresses: vec![address],
                port_sharing,
                admission: admission.clone(),
            };
            let setting = "--data-port";
            bind_patiently(&network).map_err(|source| Error::Listen { address, setting, source })
        })
        .collect()
}

/// Sockets that the ring of a killed server held go on listening until the kernel has taken the
/// ring apart, 10 to 30 ms after the process is gone: a port that is taken may come free at once.
fn bind_patiently(network: &NetworkConfig) -> io::Result<Listeners> {
    let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    patience::retry(|| Listeners::bind(network), is_taken)
}

fn start_shards(
    config: &Config,
    directory: &DataDirectory,
    placement: Placement,
    listeners: Vec<Listeners>,
    bells: &[Arc<Doorbell>],
    writes: Option<DurableWrite>,
    board: &Arc<Board>,
) -> Result<Vec<ShardHandle>, Error> {
    let shards = placement.shards();
    let journals: Vec<PathBuf> = (0..shards).map(|shard| directory.journal(shard)).collect();
    let journal_bytes = match config.journal {
        Some(size) => size.0,
        None => space::default_journal_bytes(directory.path(), &journals)
            .map_err(system("ask for free disk space"))?,
    };
    let cpus =
        if config.pin { choose_cpus(usize::from(shards)) } else { vec![None; usize::from(shards)] };
    let (booted, boots) = mpsc::channel();
    let mut handles = Vec::new();
    let parts = listeners.into_iter().zip(mailboxes(bells)).zip(bells).zip(cpus).zip(0..);
    for ((((listeners, mailbox), bell), cpu), number) in parts {
        let shard = ShardId(number);
        let journal = journal_config(config, directory, placement, shard, journal_bytes);
        let parts = ShardParts {
            start: ShardStart { shard, cpu, spin_before_park: Duration::ZERO, bell: bell.clone() },
            listeners,
            mailbox,
            lock: directory.lock().try_clone().map_err(system("copy the lock's descriptor"))?,
            journal_directory: directory.journal(number),
            shard: shard_config(config, placement, shard, &journal),
            journal,
            booted: booted.clone(),
            board: board.clone(),
        };
        handles.push(match writes {
            Some(writes) => shard_thread::on_ring(parts, writes)?,
            None => shard_thread::portable(parts)?,
        });
    }
    drop(booted);
    await_boots(handles, &boots)
}

/// Waits until every shard serves, or returns what the first one that failed says.
fn await_boots(
    mut handles: Vec<ShardHandle>,
    boots: &mpsc::Receiver<ShardId>,
) -> Result<Vec<ShardHandle>, Error> {
    let mut serving = 0;
    while serving < handles.len() {
        match boots.recv_timeout(BOOT_LOOK) {
            Ok(_) => serving += 1,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                if let Some(dead) = handles.iter().position(ShardHandle::is_finished) {
                    handles.swap_remove(dead).join()?;
                    return Err(Error::Config("a shard ended before it served".to_owned()));
                }
            }
        }
    }
    Ok(handles)
}

fn journal_config(
    config: &Config,
    directory: &DataDirectory,
    placement: Placement,
    shard: ShardId,
    journal_bytes: u64,
) -> thalweg_journal::Config {
    // At least the four files that a journal must be able to have.
    let least = config.journal_file.0 * 4;
    thalweg_journal::Config {
        shard,
        directory: directory.marker().instance_bits(),
        containers: placement.containers_of(shard).collect(),
        file_bytes: config.journal_file.0,
        journal_bytes_max: (journal_bytes / u64::from(placement.shards())).max(least),
        files_ahead: JOURNAL_FILES_AHEAD,
        ..thalweg_journal::Config::default()
    }
}

fn shard_config(
    config: &Config,
    placement: Placement,
    shard: ShardId,
    journal: &thalweg_journal::Config,
) -> thalweg_shard::Config {
    let cache = usize::try_from(config.cache.0).unwrap_or(usize::MAX);
    let share = cache / usize::from(placement.shards());
    let file = config.journal_file.0;
    let defaults = thalweg_shard::Config::new(shard, placement);
    // What no frame of the journal can hold is refused at the connection.
    let frame = usize::try_from(journal.frame_bytes_max()).unwrap_or(usize::MAX);
    let command = frame.saturating_sub(FRAME_OVERHEAD).min(defaults.connection.frame_bytes_max);
    let set = &config.limits;
    let memory = config.shard_memory_bytes(placement.shards());
    let memory = usize::try_from(memory).unwrap_or(usize::MAX);
    let state_bytes_max = memory / 2;
    let engine = Limits::default();
    thalweg_shard::Config {
        connection: ConnectionLimits {
            frame_bytes_max: command,
            first_command_bytes_max: set.size(Limit::FirstCommandBytes),
            event_bytes_max: set.size(Limit::EventBytes),
            sessions_max: set.size(Limit::Writers),
            ..defaults.connection
        },
        connections_max: set.size(Limit::Connections),
        outstanding_max: set.size(Limit::Outstanding),
        unsent_bytes_max: set.size(Limit::UnsentBytes),
        unsent_bytes_close: defaults.unsent_bytes_close.max(set.size(Limit::UnsentBytes)),
        unsent_bytes_total: memory / 8,
        receive_bytes: (memory / 8).max(command),
        state_bytes_max,
        patience: Patience {
            first_command: set.time(Limit::FirstCommandSeconds),
            frame: set.time(Limit::FrameSeconds),
            replies: set.time(Limit::RepliesSeconds),
            stall: set.time(Limit::StallSeconds),
            silence: set.time(Limit::SilenceSeconds),
            idle: set.time(Limit::IdleSeconds),
        },
        limits: Limits {
            accepted_bytes_max: set.size(Limit::AcceptedBytes).min(memory / 8),
            parked_reads_per_connection_max: set.size(Limit::TailReads),
            parked_reads_max: engine.parked_reads_max.min(state_bytes_max / 1024),
            frame_bytes: frame.min(Limits::default().frame_bytes),
            tail_cache_bytes: share / 4 * 3,
            history_cache_bytes: share / 4,
            // Room is the rest of one file and the next: a reserve near a file's size would stall
            // at every roll.
            journal_reserve_bytes: (file / 4).min(Limits::default().journal_reserve_bytes),
            checkpoint_interval_bytes: file.min(Limits::default().checkpoint_interval_bytes),
            ..Limits::default()
        },
        forwarding: if config.single_port { Forwarding::Mailbox } else { Forwarding::WrongHost },
        ..defaults
    }
}

/// Starts the control plane. Its port is open already: calls wait until it has found the shards and
/// what was under way when the process before this one ended.
fn start_control(
    config: &Config,
    placement: Placement,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
    board: Arc<Board>,
) -> Result<JoinHandle<Result<(), String>>, Error> {
    let locate = Arc::new(Addresses { placement, config: config.clone() });
    let set = &config.limits;
    let limits = ControlLimits {
        connections_max: set.size(Limit::ControllerConnections),
        streams_max: set.small(Limit::ControllerStreams),
        message_bytes_max: set.size(Limit::ControllerMessageBytes),
        header_bytes_max: set.small(Limit::ControllerHeaderBytes),
        resets_max: set.size(Limit::ControllerResets),
    };
    let (host, port) = (config.listen.to_string(), config.controller_port);
    let counts = board.control.clone();
    let control_config = ControlConfig { host, port, limits, counts };
    std::thread::Builder::new()
        .name("thalweg-control".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            runtime.block_on(run_control(control_config, locate, listener, stopped, &board))
        })
        .map_err(system("start the control thread"))
}

async fn run_control(
    config: ControlConfig,
    locate: Arc<Addresses>,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
    board: &Board,
) -> Result<(), String> {
    let listener =
        tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let (stopping, is_stopping) = oneshot::channel();
    let on_open = || board.control_serves();
    let serving = thalweg_control::serve(config, locate, listener, on_open, async {
        // An error means that the server's handle is gone: stop as well.
        let _ = stopped.await;
        let _ = stopping.send(());
    });
    let patience = async {
        // Calls under way get a while; then the process goes on without them.
        let _ = is_stopping.await;
        tokio::time::sleep(CONTROL_STOP_TIME).await;
    };
    let telling = async {
        let mut log = LimitLog::default();
        loop {
            tokio::time::sleep(PERIOD).await;
            log.look_at_control(&board.control);
        }
    };
    tokio::select! {
        () = telling => Ok(()),
        result = serving => result.map_err(|error| error.to_string()),
        () = patience => Ok(()),
    }
}
