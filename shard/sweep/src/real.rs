//! A world on real files: the device adapters as shipped, below them a trace.

use std::path::{Path, PathBuf};

use thalweg_journal::Journal;
use thalweg_uring::portable::PortableDevice;
use thalweg_uring::trace::{Note, Trace};
use thalweg_uring::{DurableWrite, Ring, RingConfig, UringDevice};

use crate::reference::Reference;
use crate::run::{Course, Runner, drive};
use crate::script::{Script, Tuning};
use crate::world::World;

/// Starts a process on the ring, in the directory `home`.
///
/// # Errors
/// When it does not start; the fault as text.
///
/// # Panics
/// When the kernel gives no ring.
pub fn boot_ring(
    home: &Path,
    durable_write: DurableWrite,
    trace: &Trace,
    tuning: &Tuning,
) -> Result<World<Journal<UringDevice>>, String> {
    let config = RingConfig { submission_entries: 64, completion_entries: 256 };
    let ring = Ring::new(config).expect("this kernel has io_uring");
    ring.set_trace(trace);
    let device = UringDevice::new(&ring, home, durable_write).map_err(|error| error.to_string())?;
    let journal = Journal::new(device, tuning.journal()).map_err(|error| error.to_string())?;
    World::boot(journal, Some(ring), tuning).map_err(|fault| fault.to_string())
}

/// Starts a process on ordinary calls.
///
/// # Errors
/// As [`boot_ring`].
pub fn boot_portable(
    home: &Path,
    trace: &Trace,
    tuning: &Tuning,
) -> Result<World<Journal<PortableDevice>>, String> {
    let mut device = PortableDevice::new(home).map_err(|error| error.to_string())?;
    device.set_trace(trace);
    let journal = Journal::new(device, tuning.journal()).map_err(|error| error.to_string())?;
    World::boot(journal, None, tuning).map_err(|fault| fault.to_string())
}

/// Which adapter runs a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// The ring, each durable write one data-sync write.
    RingDataSync,
    /// The ring, each durable write a write and a linked sync.
    RingThenSync,
    /// Ordinary calls.
    Portable,
}

/// All of them.
pub const ADAPTERS: [Adapter; 3] =
    [Adapter::RingDataSync, Adapter::RingThenSync, Adapter::Portable];

/// Runs a script on real files in a fresh directory, with `trace` below the adapter.
///
/// # Errors
/// A sentence that says what is wrong.
///
/// # Panics
/// When there is no room for a temporary directory.
pub fn run(
    adapter: Adapter,
    script: &Script,
    reference: &Reference,
    trace: &Trace,
) -> Result<Course, String> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path: PathBuf = home.path().to_owned();
    let tuning = &script.tuning;
    let kept = Some(trace.clone());
    match adapter {
        Adapter::Portable => {
            let world = boot_portable(&path, trace, tuning)?;
            let runner = Runner::new(script, Some(reference), world, kept);
            let boot = &mut |old| {
                drop(old);
                first(&mut |()| boot_portable(&path, trace, tuning))
            };
            drive(runner, boot).map(|(_, course)| course)
        }
        Adapter::RingDataSync | Adapter::RingThenSync => {
            let durable_write = match adapter {
                Adapter::RingDataSync => DurableWrite::DataSync,
                _ => DurableWrite::ThenSync,
            };
            let mut boot = |_| boot_ring(&path, durable_write, trace, tuning);
            let world = first(&mut boot)?;
            let runner = Runner::new(script, Some(reference), world, kept);
            let boot = &mut |old| {
                drop(old);
                first(&mut boot)
            };
            drive(runner, boot).map(|(_, course)| course)
        }
    }
}

/// Starts, once more if the first start meets the one fault of a run: a server that does not start
/// is started again.
fn first<W>(boot: &mut impl FnMut(()) -> Result<W, String>) -> Result<W, String> {
    boot(()).or_else(|_| boot(()))
}

/// What the adapter asked of the kernel in a run without faults.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn record(
    adapter: Adapter,
    script: &Script,
    reference: &Reference,
) -> Result<Vec<Note>, String> {
    let trace = Trace::keeping_notes();
    run(adapter, script, reference, &trace)?;
    Ok(trace.take_notes())
}
