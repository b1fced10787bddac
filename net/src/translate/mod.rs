//! Wire commands to requests, replies and refusals to wire commands: one function each way.
//!
//! Both are a `match` without a default, so that a new command, request or refusal does not compile
//! until it is decided here. The numbers of the wire are signed; what cannot be a position or a
//! condition ends here and never reaches the engine.

mod reply;
mod request;

pub use reply::reply;
pub use request::request;

use thalweg_core::id::ContainerId;
use thalweg_core::position::Offset;
use thalweg_core::request::{Refusal, Request};

/// A request and the container it goes to.
#[derive(Debug)]
pub struct Routing {
    /// The client's id of the request.
    pub request_id: i64,
    /// Who serves it.
    pub container: ContainerId,
    /// What is asked.
    pub request: Request,
}

/// What a command outside the append family comes to.
#[derive(Debug)]
pub enum Translated {
    /// To be asked of a container.
    Request(Request),
    /// Refused without asking.
    Refused(Refusal),
}

/// A length on the wire.
///
/// # Panics
/// Never: offsets stay below 2^63.
pub(crate) fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.0).expect("an offset stays below 2^63")
}

/// An expected length; a negative one is no condition.
pub(crate) fn condition(expected: i64) -> Option<Offset> {
    u64::try_from(expected).ok().map(Offset)
}
