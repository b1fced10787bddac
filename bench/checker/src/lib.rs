//! Judges histories of a stream store against its invariants.
//!
//! A [`Record`](record::Record) is one thing that happened: a client asked, was told something, or
//! the server was killed. A [`Checker`] takes the records in order and ends with the first that
//! contradicts earlier ones, naming the invariant. It holds a constant amount per operation in
//! flight, per writer and segment, and per run of events that was read and not truncated.
//!
//! The crate knows nothing of where a history comes from: the simulator, the kill loop and a file
//! use it alike. [`payload`] makes the events that all of them write.

mod breach;
mod checker;
mod content;
mod file;
pub mod id;
pub mod payload;
pub mod record;
mod register;
mod scaling;
mod search;
mod segment;
mod table;
mod violation;
mod writer;

pub use checker::{Certain, Checker};
pub use file::{FileError, judge_file, judge_lines};
pub use violation::{Summary, Violation};
