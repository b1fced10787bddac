//! A file system that loses what was not synced.
//!
//! It is mounted through FUSE, lives in memory, and keeps apart what a program has written and what
//! it has made durable. A test mounts it, runs the real server on it, and then cuts the power, or
//! lets writes, reads and syncs fail, fill up, or stall.
//!
//! What may happen at a power cut (and nothing else): each 512-byte sector of a file holds what was
//! synced last or anything written to it since; the size is the synced or the newest one; of the
//! changes of a directory since its last sync the first few are kept, in order, a renaming whole or
//! not at all. A synced file whose directory was not synced may be without a name. A sync covers
//! the writes that were answered before it was asked for, nothing else. After a sync that failed, a
//! later one does not bring back what the failed one should have covered.

mod content;
mod dice;
mod disk;
pub mod fault;
mod filesystem;
mod mount;
mod pace;
pub mod power;
mod tree;

pub use mount::{Lossy, MountError};
