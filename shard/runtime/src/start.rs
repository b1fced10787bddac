//! Starting a shard's thread and hearing of its end.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thalweg_core::id::ShardId;

use crate::doorbell::Doorbell;

/// How long a shard may take to finish after it was asked to stop; then its connections are cut.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(5);

/// What a shard's thread is started with.
#[derive(Clone, Debug)]
pub struct ShardStart {
    /// Which shard.
    pub shard: ShardId,
    /// The CPU it keeps to; `None` leaves the choice to the kernel. See
    /// [`choose_cpus`](crate::pinning::choose_cpus).
    pub cpu: Option<usize>,
    /// How long to look for work before sleeping. Zero unless the CPU is the shard's alone:
    /// looking takes all of it.
    pub spin_before_park: Duration,
    /// How the shard is woken.
    pub bell: Arc<Doorbell>,
}

/// Why a shard ended other than by being stopped.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The thread, its ring or its executor could not be made.
    #[error("start shard {shard}: {cause}")]
    Start {
        /// Which shard.
        shard: u16,
        /// What the system said.
        cause: io::Error,
    },
    /// What builds the shard failed.
    #[error("build shard {shard}: {cause}")]
    Build {
        /// Which shard.
        shard: u16,
        /// What it said.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The thread panicked.
    #[error("shard {shard} panicked")]
    Panicked {
        /// Which shard.
        shard: u16,
    },
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    shard: ShardId,
    thread: JoinHandle<Result<(), RuntimeError>>,
}

impl ShardHandle {
    pub(crate) fn spawn(
        shard: ShardId,
        run: impl FnOnce() -> Result<(), RuntimeError> + Send + 'static,
    ) -> Result<Self, RuntimeError> {
        let thread = thread::Builder::new()
            .name(format!("thalweg-shard-{}", shard.0))
            .spawn(run)
            .map_err(|cause| RuntimeError::Start { shard: shard.0, cause })?;
        Ok(Self { shard, thread })
    }

    /// Whether the shard has come to its end.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the shard's end.
    ///
    /// # Errors
    /// When it ended other than by being stopped.
    pub fn join(self) -> Result<(), RuntimeError> {
        let panicked = RuntimeError::Panicked { shard: self.shard.0 };
        self.thread.join().unwrap_or(Err(panicked))
    }
}
