//! A client of segment stores, for the control plane, tools and tests.
//!
//! [`Pool`] keeps connections by address, with many requests in flight on each; [`Store`] gives the
//! requests types; [`AppendSession`] appends. The crate speaks the protocol as any other client
//! does and knows nothing of the engine. It does not know the controller either: who serves a
//! segment is the caller's knowledge.
//!
//! It keeps true: a reply reaches only the request that caused it; an error says whether the
//! request may have been carried out (see [`ClientError`]); nothing is sent twice.

mod append;
mod connection;
mod error;
mod pool;
mod request_id;
mod store;

pub use append::AppendSession;
pub use error::{ClientError, Refusal};
pub use pool::{Address, Pool, Timeouts};
pub use store::{Store, TableDelta, TablePage};
