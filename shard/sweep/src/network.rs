//! Byte streams in memory, one shard's: what the client sends is received when the shard asks.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::id::ConnectionId;

/// One client's link.
#[derive(Debug, Default)]
struct Link {
    to_shard: BytesMut,
    armed: Option<BytesMut>,
    to_client: BytesMut,
    unreported: usize,
    is_closed: bool,
    is_reported: bool,
}

/// All links of a shard.
#[derive(Debug, Default)]
pub struct Loopback {
    next: u64,
    accepted: Vec<ConnectionId>,
    links: BTreeMap<ConnectionId, Link>,
}

impl Loopback {
    /// Connects a client.
    pub fn connect(&mut self) -> ConnectionId {
        self.next += 1;
        let connection = ConnectionId(self.next);
        self.accepted.push(connection);
        self.links.insert(connection, Link::default());
        connection
    }

    /// Bytes to be sent to the shard are put behind these.
    ///
    /// # Panics
    /// When it was never connected.
    pub fn to_shard(&mut self, connection: ConnectionId) -> &mut BytesMut {
        &mut self.links.get_mut(&connection).expect("it was connected").to_shard
    }

    /// Bytes that came from the shard.
    ///
    /// # Panics
    /// When it was never connected.
    pub fn to_client(&mut self, connection: ConnectionId) -> &mut BytesMut {
        &mut self.links.get_mut(&connection).expect("it was connected").to_client
    }

    /// Whether the link is closed.
    pub fn is_closed(&self, connection: ConnectionId) -> bool {
        self.links.get(&connection).is_none_or(|link| link.is_closed)
    }

    /// Closes a link from the client's side.
    pub fn hang_up(&mut self, connection: ConnectionId) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.is_closed = true;
        }
    }
}

impl Network for Loopback {
    fn receive(&mut self, connection: ConnectionId, buffer: BytesMut) {
        if let Some(link) = self.links.get_mut(&connection).filter(|link| !link.is_closed) {
            link.armed = Some(buffer);
        }
    }

    fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        if let Some(link) = self.links.get_mut(&connection).filter(|link| !link.is_closed) {
            link.to_client.extend_from_slice(&bytes);
            link.unreported += bytes.len();
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.hang_up(connection);
    }

    fn poll(&mut self, events: &mut Vec<NetworkEvent>) {
        for connection in self.accepted.drain(..) {
            events.push(NetworkEvent::Accepted { connection });
        }
        for (&connection, link) in &mut self.links {
            if link.is_closed {
                if !std::mem::replace(&mut link.is_reported, true) {
                    events.push(NetworkEvent::Closed { connection });
                }
                continue;
            }
            let bytes = std::mem::take(&mut link.unreported);
            if bytes > 0 {
                events.push(NetworkEvent::Sent { connection, bytes });
            }
            if link.to_shard.is_empty() {
                continue;
            }
            if let Some(mut buffer) = link.armed.take() {
                let spare = buffer.capacity() - buffer.len();
                let bytes = link.to_shard.split_to(spare.min(link.to_shard.len()));
                buffer.extend_from_slice(&bytes);
                events.push(NetworkEvent::Received { connection, buffer });
            }
        }
    }
}
