//! Connections by address: made when first needed, shared by all requests to that address, made
//! anew after they died.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_wire::{Command, Role};

use crate::connection::Connection;
use crate::{ClientError, Refusal};

/// Where a segment store listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// An address of its parts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the socket and the exchange of Hello. Default 5 s.
    pub connect: Duration,
    /// From asking to the reply. Default 30 s. Reads at the tail wait this long for data.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(30) }
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

/// Connections to any number of segment stores. Cheap to clone; clones share the connections.
///
/// Lives on any tokio runtime. Nothing is retried here: a request whose connection breaks fails
/// with [`ClientError::Unavailable`], and the next request to the address connects again.
#[derive(Clone, Default)]
pub struct Pool {
    slots: Arc<Mutex<HashMap<Address, Slot>>>,
    timeouts: Timeouts,
}

impl Pool {
    /// A pool without connections.
    pub fn new(timeouts: Timeouts) -> Self {
        Self { slots: Arc::default(), timeouts }
    }

    /// The times to wait that this pool was made with.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Sends a request, whose request id is set here, and waits for its reply.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for every error reply of the store; see [`ClientError`] for the
    /// others.
    pub async fn request(
        &self,
        address: &Address,
        command: impl Into<Command>,
    ) -> Result<Command, ClientError> {
        let connection = self.connection(address).await?;
        let reply = connection.request(command.into(), self.timeouts.request).await?;
        match reply.role() {
            Role::Failure => Err(Refusal::error_of(&reply)),
            _ => Ok(reply),
        }
    }

    /// Makes the connection to `address` now, unless it is there.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when nobody who speaks the protocol answers.
    pub async fn warm(&self, address: &Address) -> Result<(), ClientError> {
        self.connection(address).await.map(|_| ())
    }

    async fn connection(&self, address: &Address) -> Result<Arc<Connection>, ClientError> {
        let slot = {
            let mut slots = self.slots.lock().expect("nobody panics with it");
            slots.entry(address.clone()).or_default().clone()
        };
        // Held while connecting, so that a thousand requests make one connection.
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_dead()) {
            return Ok(connection.clone());
        }
        let made = Connection::connect(&address.host, address.port, self.timeouts.connect).await;
        let connection = Arc::new(made?);
        *slot = Some(connection.clone());
        Ok(connection)
    }
}
