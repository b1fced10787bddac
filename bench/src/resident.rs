//! Samples the resident memory of a process while something runs.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::ProcessId;

const PERIOD: Duration = Duration::from_millis(100);

/// Milliseconds since the start, and resident bytes.
pub(crate) type Sample = (u64, u64);

/// A sampling thread; ends when stopped or dropped.
pub(crate) struct ResidentSampler {
    stop: Sender<()>,
    thread: JoinHandle<anyhow::Result<Vec<Sample>>>,
}

impl ResidentSampler {
    /// Samples `process` now and every tenth of a second.
    pub(crate) fn start(process: ProcessId) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let started = Instant::now();
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let mut samples = Vec::new();
            loop {
                let at = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                samples.push((at, process.resident_bytes()?));
                if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return Ok(samples);
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it and gives the samples.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<Sample>> {
        drop(self.stop);
        match self.thread.join() {
            Ok(samples) => samples,
            Err(_) => anyhow::bail!("the sampling thread died"),
        }
    }
}
