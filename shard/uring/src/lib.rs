//! Files and sockets of a shard on one `io_uring`: the production implementations of
//! `core::env::device::Device` and `core::env::network::Network`, and a portable pair over
//! ordinary system calls.
//!
//! This is the only crate with unsafe code, in `operation.rs` (entries and the memory they point
//! to), `ring/slab.rs` (the slab that keeps that memory) and `sockets.rs` (socket calls that the
//! standard library lacks). Everything else here is safe code over those three. The crate holds no
//! policy: what to write, when to receive and when to close is decided by its callers.

mod admission;
mod directory;
pub mod file;
pub mod measure;
mod operation;
pub mod portable;
pub mod probe;
pub mod ring;
pub mod socket;
mod sockets;
#[cfg(feature = "trace")]
pub mod trace;

pub use admission::{Admission, AdmissionConfig};
pub use file::UringDevice;
pub use measure::{DiskMeasurement, measure};
pub use operation::adopt;
pub use probe::{DurableWrite, Probe, ProbeError, probe};
pub use ring::{Ring, RingConfig};
pub use socket::UringNetwork;
pub use sockets::{Listeners, NetworkConfig, NetworkCounts, PortSharing, event_counter};
