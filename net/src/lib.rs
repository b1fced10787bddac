//! One connection of the segment store: received bytes in, requests out; replies in, bytes out.
//!
//! The crate owns what lies between the bytes of the wire and the values of the engine: the order
//! of commands on a connection ([`Connection`]), its append sessions and their acknowledgements,
//! the translation both ways ([`translate`]), and which container a segment belongs to
//! ([`Placement`]). It holds no socket, reads no clock and starts nothing.
//!
//! It keeps true: a request id is echoed with all its bits; what breaks the protocol ends in a
//! [`Close`] and never in a half-done request; acknowledgements of a session leave in order,
//! chained by the number acknowledged before.

mod append_session;
mod close;
mod connection;
mod hash;
mod limits;
mod outbox;
mod placement;
mod route;
pub mod translate;

pub use append_session::SessionCounter;
pub use close::{Close, CloseCause};
pub use connection::{AfterReply, Connection, Routed};
pub use limits::ConnectionLimits;
pub use outbox::Outbox;
pub use placement::{Placement, colocation_name};
