//! Finds the store of a segment by asking the stores themselves, for servers whose controller is
//! not at hand: the one that does not answer "wrong host" serves it.

use std::sync::Mutex;

use anyhow::bail;
use thalweg_wire::{Command, GetStreamSegmentInfo, Text};

use crate::connection::Connection;
use crate::locate::Locator;

/// A locator that knows the addresses of all stores.
pub struct StoreProbe {
    stores: Mutex<Vec<(String, Connection)>>,
}

impl StoreProbe {
    /// Connects to every store, each a `host:port`.
    ///
    /// # Errors
    /// When one of them cannot be reached.
    pub fn connect<'a>(addresses: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut stores = Vec::new();
        for address in addresses {
            stores.push((address.to_owned(), Connection::connect(address)?));
        }
        Ok(Self { stores: Mutex::new(stores) })
    }
}

impl Locator for StoreProbe {
    fn locate(&self, segment: &str) -> anyhow::Result<String> {
        let Ok(mut stores) = self.stores.lock() else {
            bail!("an earlier look-up died");
        };
        for (address, connection) in stores.iter_mut() {
            let request_id = connection.request_id();
            connection.send(&GetStreamSegmentInfo {
                request_id,
                segment: Text::from(segment),
                delegation_token: Text::new(),
            });
            connection.flush()?;
            match connection.wait_any()? {
                Command::WrongHost(_) => {}
                Command::NoSuchSegment(_) | Command::StreamSegmentInfo(_) => {
                    return Ok(address.clone());
                }
                other => bail!("{address} answers {other:?}"),
            }
        }
        bail!("no store serves {segment}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Faults, TestServer};

    /// Shows that the store that serves a segment is found, also when it is not the first.
    #[test]
    fn the_store_that_serves_a_segment_is_found() {
        let other = TestServer::start(Faults { is_elsewhere: true, ..Faults::default() });
        let right = TestServer::start(Faults::default());
        let addresses = [other.address(), right.address()];
        let probe = StoreProbe::connect(addresses).expect("both listen");
        assert_eq!(probe.locate("s/t/0").expect("the second serves it"), right.address());
        let nowhere = StoreProbe::connect([other.address()]).expect("it listens");
        assert!(nowhere.locate("s/t/0").is_err());
    }
}
