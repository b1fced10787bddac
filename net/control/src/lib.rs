//! The control plane: scopes, streams and transactions, served to stock clients over gRPC.
//!
//! Knows what streams there are, which segments they have, and which transactions are under way;
//! is not on the data path. Its state is in table segments of the engine, which it reaches over the
//! wire as any client does. It runs beside the shards, on a tokio runtime, as the only controller
//! of its tables.
//!
//! | layer | modules |
//! |---|---|
//! | rules, pure | `names`, `id`, `range`, `epoch`, `cut`, `transaction`, `stream` |
//! | records, pure | `layout`, `record` |
//! | stores | `segments` (the door to them), `tables`, `reserve` |
//! | memory | `controller` (cache and locks), `live`, `lease` |
//! | work | `workflow` (changes, recovery), `commit` (transactions), `listing` |
//! | calls | `service`, `answer`, `serve`, `incoming`, `counts` |
//!
//! It keeps true: a change that was answered is durable; one that was begun is finished, also
//! across crashes; a segment's name is never used for two segments; transactions of a stream are
//! merged in the order of their commits, and each merges whole or not at all into each segment.

mod answer;
mod commit;
mod controller;
mod counts;
mod cut;
mod epoch;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod id;
mod incoming;
mod layout;
mod lease;
mod listing;
mod live;
mod names;
pub mod proto;
mod range;
mod record;
mod reserve;
mod segments;
mod serve;
mod service;
mod stream;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod workflow;

pub use counts::ControlCounts;
pub use segments::Locate;
pub use serve::{ControlConfig, ControlLimits, ServeError, serve};
