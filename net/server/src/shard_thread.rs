//! One shard's thread: its device, network, journal and mail put together, driven by the runtime.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::Sender;

use thalweg_core::env::Env;
use thalweg_core::env::device::Device;
use thalweg_core::env::network::Network;
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::id::ShardId;
use thalweg_journal::Journal;
use thalweg_runtime::{
    Drive, ProductionEnv, RuntimeError, ShardHandle, ShardMailbox, ShardStart, SystemClock,
    TurnOutcome, start_on_ring, start_portable,
};
use thalweg_shard::Shard;
use thalweg_uring::portable::{PortableDevice, PortableNetwork};
use thalweg_uring::{DurableWrite, Listeners, UringDevice, UringNetwork};

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
        boot(parts.journal, parts.shard, parts.booted, device, network, parts.mailbox, place.clock)
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
        boot(parts.journal, parts.shard, parts.booted, device, network, parts.mailbox, place.clock)
    })
}

fn directory_fault(parts: &ShardParts, error: &std::io::Error) -> Fault {
    let directory = parts.journal_directory.display();
    Fault::new(FaultClass::Device, format!("open journal directory {directory}: {error}"))
}

fn boot<D: Device, N: Network>(
    journal: thalweg_journal::Config,
    config: thalweg_shard::Config,
    booted: Sender<ShardId>,
    device: D,
    network: N,
    mailbox: ShardMailbox,
    clock: SystemClock,
) -> Result<DrivenShard<ProductionEnv<Journal<D>, N>>, Fault> {
    let shard = config.shard;
    let journal = Journal::new(device, journal)
        .map_err(|error| Fault::new(FaultClass::Device, error.to_string()))?;
    let env = ProductionEnv { journal, network, mailbox, clock };
    let driven = DrivenShard(Shard::boot(env, config)?);
    // Nobody listens any more when another shard has failed to start: then this one is stopped too.
    let _ = booted.send(shard);
    Ok(driven)
}

/// A shard as the runtime drives it.
struct DrivenShard<E: Env>(Shard<E>);

impl<E: Env> Drive for DrivenShard<E> {
    fn turn(&mut self) -> TurnOutcome {
        let outcome = self.0.turn();
        TurnOutcome { has_work_left: outcome.has_work_left, next_deadline: outcome.next_deadline }
    }

    fn begin_stop(&mut self) {
        self.0.stop();
    }

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}
