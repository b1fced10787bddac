//! The load generator behind `thalweg bench`: scenarios, their measurements and reports.
//!
//! Loads speak the segment store's own protocol over plain sockets, from one thread, so that most
//! of a small machine is left to the server. Open loops count latency from the time an event was
//! meant to be sent; where a loop is closed, the scenario says so.

mod bandwidth;
mod checker;
mod closed_loop;
mod connection;
mod device;
mod flood;
mod host;
mod latency;
mod locate;
mod many_segments;
mod max_rate;
mod open_loop;
mod options;
mod outbox;
mod payload;
mod process;
mod record;
mod report;
mod resident;
mod rig;
mod schedule;
mod seconds;
mod single;
mod store_probe;
#[cfg(test)]
mod test_server;
mod truncation;
mod usage;
mod verify;

pub use bandwidth::{Bandwidth, BandwidthResult, BandwidthSlice};
pub use flood::{Flood, FloodResult, FloodRow};
pub use host::HostFacts;
pub use latency::Latency;
pub use locate::Locator;
pub use many_segments::{ManySegments, ManySegmentsResult, ManySegmentsSlice};
pub use max_rate::{MaxRate, MaxRateResult, WindowResult};
pub use open_loop::{OpenLoop, OpenLoopResult, Second};
pub use options::{BenchOptions, Scenario, run, run_recorded};
pub use process::ProcessId;
pub use record::{Record, Table};
pub use report::{ReportText, write_report};
pub use single::{Single, SingleResult};
pub use store_probe::StoreProbe;
pub use truncation::Truncation;
pub use usage::Usage;
pub use verify::{Verify, VerifyResult};
