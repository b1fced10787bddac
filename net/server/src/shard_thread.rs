//! One shard's thread: its device, network, journal and mail put together, driven by the runtime.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use thalweg_core::env::device::Device;
use thalweg_core::env::network::Network;
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::id::ShardId;
use thalweg_core::time::Instant;
use thalweg_journal::Journal;
use thalweg_runtime::{
    Drive, ProductionEnv, RuntimeError, ShardHandle, ShardMailbox, ShardStart, SystemClock,
    TurnOutcome, start_on_ring, start_portable,
};
use thalweg_shard::{Health, Shard};
use thalweg_uring::portable::{PortableDevice, PortableNetwork};
use thalweg_uring::{DurableWrite, Listeners, NetworkCounts, UringDevice, UringNetwork};

use crate::board::{Board, LimitLog, PERIOD, Report};

/// Everything a shard is made of, put together before its thread starts.
pub(crate) struct ShardParts {
    pub(crate) start: ShardStart,
    pub(crate) listeners: Listeners,
    pub(crate) mailbox: ShardMailbox,
    /// The data directory's lock, to be held until the kernel has ended the shard's last write.
    pub(crate) lock: File,
    pub(crate) journal_directory: PathBuf,
    pub(crate) journal: thalweg_journal::Config,
    pub(crate) shard: thalweg_shard::Config,
    /// Told when recovery is done and the shard serves.
    pub(crate) booted: Sender<ShardId>,
    /// Where the shard tells how it is.
    pub(crate) board: Arc<Board>,
}

/// Starts a shard on a ring of its own.
pub(crate) fn on_ring(
    parts: ShardParts,
    writes: DurableWrite,
) -> Result<ShardHandle, RuntimeError> {
    let start = parts.start.clone();
    start_on_ring(start, move |place| {
        let device = UringDevice::new(&place.ring, &parts.journal_directory, writes)
            .map_err(|error| directory_fault(&parts, &error))?;
        let network = UringNetwork::new(&place.ring, parts.listeners);
        place.ring.keep_open(&parts.lock).map_err(|error| {
            Fault::new(FaultClass::Device, format!("keep the data directory's lock: {error}"))
        })?;
        let env = (parts.journal, device, network, parts.mailbox, place.clock);
        boot(env, parts.shard, parts.booted, parts.board)
    })
}

/// Starts a shard on ordinary system calls.
pub(crate) fn portable(parts: ShardParts) -> Result<ShardHandle, RuntimeError> {
    let start = parts.start.clone();
    start_portable(start, move |place| {
        let device = PortableDevice::new(&parts.journal_directory)
            .map_err(|error| directory_fault(&parts, &error))?;
        let network = PortableNetwork::new(&place.wait, parts.listeners)
            .map_err(|error| Fault::new(FaultClass::Device, format!("listen: {error}")))?;
        let env = (parts.journal, device, network, parts.mailbox, place.clock);
        boot(env, parts.shard, parts.booted, parts.board)
    })
}

fn directory_fault(parts: &ShardParts, error: &std::io::Error) -> Fault {
    let directory = parts.journal_directory.display();
    Fault::new(FaultClass::Device, format!("open journal directory {directory}: {error}"))
}

/// The parts of a shard's outside world: the journal's settings, its device, and the rest.
type Parts<D, N> = (thalweg_journal::Config, D, N, ShardMailbox, SystemClock);

fn boot<D: Device, N: CountedNetwork>(
    (journal, device, network, mailbox, clock): Parts<D, N>,
    config: thalweg_shard::Config,
    booted: Sender<ShardId>,
    board: Arc<Board>,
) -> Result<DrivenShard<D, N>, Fault> {
    let shard = config.shard;
    let journal = Journal::new(device, journal)
        .map_err(|error| Fault::new(FaultClass::Device, error.to_string()))?;
    let env = ProductionEnv { journal, network, mailbox, clock };
    let mut driven = DrivenShard {
        shard: Shard::boot(env, config)?,
        board,
        health: Health::Serving,
        tell_at: Instant::default(),
        log: LimitLog::default(),
    };
    driven.tell();
    // Nobody listens any more when another shard has failed to start: then this one is stopped too.
    let _ = booted.send(shard);
    Ok(driven)
}

/// A network that counts.
trait CountedNetwork: Network {
    fn counted(&self) -> NetworkCounts;
}

impl CountedNetwork for UringNetwork {
    fn counted(&self) -> NetworkCounts {
        self.counts()
    }
}

impl CountedNetwork for PortableNetwork {
    fn counted(&self) -> NetworkCounts {
        self.counts()
    }
}

/// A shard as the runtime drives it, telling now and then how it is.
struct DrivenShard<D: Device, N: Network> {
    shard: Shard<ProductionEnv<Journal<D>, N>>,
    board: Arc<Board>,
    /// What was told last.
    health: Health,
    /// When the next telling is due.
    tell_at: Instant,
    log: LimitLog,
}

impl<D: Device, N: CountedNetwork> DrivenShard<D, N> {
    fn tell(&mut self) {
        let status = self.shard.status();
        self.health = status.health;
        self.tell_at = self.shard.now().after(PERIOD);
        let env = self.shard.env_mut();
        let (network, journal) = (env.network.counted(), env.journal.counters());
        let counters = *self.shard.counters();
        self.log.look(status.shard.0, &counters, &network);
        let at = std::time::Instant::now();
        self.board.publish(Report { status, counters, network, journal, at });
    }
}

impl<D: Device, N: CountedNetwork> Drive for DrivenShard<D, N> {
    fn turn(&mut self) -> TurnOutcome {
        let outcome = self.shard.turn();
        if self.shard.now() >= self.tell_at || self.shard.health() != self.health {
            self.tell();
        }
        let next_deadline = outcome.next_deadline.map_or(self.tell_at, |at| at.min(self.tell_at));
        let has_work_left = outcome.has_work_left;
        TurnOutcome { has_work_left, next_deadline: Some(next_deadline) }
    }

    fn begin_stop(&mut self) {
        self.shard.stop();
    }

    fn is_stopped(&self) -> bool {
        self.shard.is_stopped()
    }
}
