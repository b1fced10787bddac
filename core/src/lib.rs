//! The engine of thalweg: a deterministic state machine that stores segments.
//!
//! The crate reads no clock, opens no file, owns no thread and draws no random number. It takes
//! inputs (requests, durable frames, fetched frames, deadlines), changes its state and says in
//! [`Effect`](request::Effect)s what must happen outside. Everything that can go wrong outside
//! comes back as an input. `docs/ARCHITECTURE.md` draws the picture.

mod append;
mod apply;
mod attribute;
mod cache;
pub mod canary;
mod checkpoint;
mod container;
pub mod engine;
pub mod env;
pub mod fault;
mod fetch;
pub mod frame;
pub mod holdings;
pub mod id;
mod index;
pub mod limits;
mod log;
mod merge;
mod operation;
mod pending;
pub mod position;
pub mod rare;
mod read;
mod recovery;
pub mod request;
mod restore;
mod segment;
mod segment_request;
mod slab;
pub mod table;
mod table_request;
mod tail;
pub mod time;
