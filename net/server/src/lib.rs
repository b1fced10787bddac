//! The daemon: opens the data directory, starts a thread per shard and the control plane, and stops
//! them again. What each of them does is in their own crates; here they are only put together.

mod admin;
mod board;
pub mod config;
mod daemon;
pub mod data_directory;
pub mod limits;
mod metrics;
mod patience;
mod shard_thread;
mod space;

pub use daemon::{Addresses, Error, Server, serve};
pub use thalweg_control::Locate;
