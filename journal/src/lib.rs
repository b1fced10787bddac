//! The journal of a shard: frames on disk, durable in the order submitted.
//!
//! One directory of pre-written, recycled files on a [`Device`](thalweg_core::env::device::Device).
//! The caller decides what a frame is and when to submit it; the journal places frames one after
//! another, keeps several writes in flight, reports durability in order, and after a crash tells a
//! torn tail, which it cuts, from damage to acknowledged frames, which it reports and never cuts.
//!
//! Every frame is a *record*. The journal writes records of its own too: beacons, which tell what
//! is durable, and one record of a new epoch at every opening. Records have a sequence of their
//! own; frames keep the numbers the engine gave them. Byte tables: `docs/formats.md`.

mod claim;
mod config;
mod counters;
mod fence;
mod fetch;
mod files;
pub mod inspect;
mod journal;
mod layout;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
mod port;
mod recovery;
pub mod verify;
mod writer;

#[cfg(any(test, feature = "canary"))]
pub use config::Canary;
pub use config::{Config, ConfigError, Exclusion};
pub use counters::Counters;
pub use journal::Journal;

#[cfg(test)]
mod tests;
