//! Processor time and memory of generator and server over the measured part of a run.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process::{ProcessId, thread_cpu_time};

/// What a run used. A core is one second of processor time per second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// Cores the generating thread kept busy.
    pub generator_cores: f64,
    /// Cores the server kept busy, when its process is known; without the generating thread when
    /// both are one process.
    pub server_cores: Option<f64>,
    /// Resident memory of the server at the end, in bytes, when its process is known.
    pub server_resident_bytes: Option<u64>,
}

impl Usage {
    pub(crate) fn server_cores_text(&self) -> String {
        self.server_cores.map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}"))
    }

    pub(crate) fn server_resident_text(&self) -> String {
        self.server_resident_bytes
            .map_or_else(|| "?".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
    }
}

/// Measures from [`UsageMeter::start`] to [`UsageMeter::stop`], both on the generating thread.
pub(crate) struct UsageMeter {
    server: Option<ProcessId>,
    started: Instant,
    generator_before: Duration,
    server_before: Option<Duration>,
    usage: Usage,
}

impl UsageMeter {
    pub(crate) fn start(server: Option<ProcessId>) -> anyhow::Result<Self> {
        Ok(Self {
            server,
            started: Instant::now(),
            generator_before: thread_cpu_time(),
            server_before: server.map(ProcessId::cpu_time).transpose()?,
            usage: Usage::default(),
        })
    }

    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let generator = thread_cpu_time().saturating_sub(self.generator_before);
        self.usage.generator_cores = generator.as_secs_f64() / seconds;
        if let (Some(server), Some(before)) = (self.server, self.server_before) {
            let mut used = server.cpu_time()?.saturating_sub(before);
            if server == ProcessId::own() {
                used = used.saturating_sub(generator);
            }
            self.usage.server_cores = Some(used.as_secs_f64() / seconds);
            self.usage.server_resident_bytes = Some(server.resident_bytes()?);
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }
}
