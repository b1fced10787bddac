//! Connections to a port of this host.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use thalweg_crash::store::{Route, Store};
use thalweg_crash::wire::{StopSwitch, Trouble, Wire};

/// Longer than any pause of a server that works.
const PATIENCE: Duration = Duration::from_secs(30);

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Connects to a port of this host and exchanges Hello.
pub(crate) fn connect(port: u16) -> Result<Wire, Trouble> {
    Wire::connect(address(port), PATIENCE, &StopSwitch::default())
}

/// Connects and says nothing.
pub(crate) fn connect_silently(port: u16) -> Result<Wire, Trouble> {
    Wire::connect_silently(address(port), PATIENCE, &StopSwitch::default())
}

/// The store behind these ports of this host.
pub(crate) fn open_store(ports: &[u16]) -> Store {
    let addresses = ports.iter().copied().map(address).collect();
    Store::new(&Route { patience: PATIENCE, ..Route::to(addresses) })
}
