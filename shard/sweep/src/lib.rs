//! Machines that break a disk in every way at every moment, and see whether a shard still keeps
//! what it acknowledged.
//!
//! Three of them share this crate. *Crash states*: a script runs on the real device; what the
//! device asked of the kernel is replayed, and at every point each state that a power cut could
//! leave is recovered in memory ([`state`]). *Operation sweep*: a script runs as often as it has
//! device operations, and each time another one fails (`sweep`). *Flipped bits*: a directory at
//! rest is recovered with each of many bits changed ([`rot`]).
//!
//! The oracle is the same everywhere (`reference`): the script runs once on a shard whose journal
//! never fails, and what every segment answers is kept after each step. Since one journal orders
//! all changes of a shard, whatever is recovered must equal one of these moments, not before the
//! last acknowledged step and not behind the last one sent.

pub mod network;
pub mod real;
pub mod recovered;
pub mod reference;
pub mod rot;
pub mod run;
pub mod scenarios;
pub mod script;
pub mod state;
pub mod world;
