//! The engine of thalweg: a deterministic state machine that stores segments.
//!
//! The crate reads no clock, opens no file, owns no thread and draws no random number. It takes
//! inputs (requests, durable frames, fetched frames, deadlines), changes its state and says in
//! [`Effect`](request::Effect)s what must happen outside. Everything that can go wrong outside
//! comes back as an input. `docs/ARCHITECTURE.md` draws the picture.

pub mod engine;
pub mod env;
pub mod fault;
pub mod frame;
pub mod id;
pub mod limits;
pub mod position;
pub mod request;
pub mod table;
pub mod time;
