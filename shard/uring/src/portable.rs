//! The same device and network over ordinary system calls, for machines without a usable
//! `io_uring` and for comparison. Chosen only by name. Correct rather than fast: files block the
//! thread, sockets are asked in turn.

mod device;
mod network;

pub use device::PortableDevice;
pub use network::{PortableNetwork, PortableWait};
