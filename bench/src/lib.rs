//! The load generator behind `thalweg bench`: scenarios, their measurements and reports.
//!
//! Loads speak the segment store's own protocol over plain sockets, from one thread, so that most
//! of a small machine is left to the server. Open loops count latency from the time an event was
//! meant to be sent; where a loop is closed, the scenario says so.

mod connection;
mod host;
mod latency;
mod locate;
mod open_loop;
mod options;
mod outbox;
mod payload;
mod process;
mod record;
mod rig;
mod schedule;
#[cfg(test)]
mod test_server;
mod truncation;
mod usage;

pub use host::HostFacts;
pub use latency::Latency;
pub use locate::Locator;
pub use open_loop::{OpenLoop, OpenLoopResult, Second};
pub use options::{BenchOptions, Scenario, run, run_recorded};
pub use process::ProcessId;
pub use record::{Record, Table};
pub use truncation::Truncation;
pub use usage::Usage;
