//! Who may connect: bounds on connections of the process and of one address, and on how fast they
//! are taken in. Shared by the listeners of all shards; asked once for each connection and never
//! while it lives.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bounds for all listeners that share an [`Admission`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Connections at a time. Default 10,000.
    pub connections_max: usize,
    /// Connections of one address at a time; of one network of 64 bits for IPv6. Loopback is an
    /// address like any other. Default 1,000.
    pub connections_per_address_max: usize,
    /// Connections taken in per second, in the long run; as many may come at once. More stay in the
    /// listener's queue. Default 500.
    pub accepts_per_second: u32,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { connections_max: 10_000, connections_per_address_max: 1000, accepts_per_second: 500 }
    }
}

/// See the module's comment.
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
    /// Connections that may be taken in now, in thousandths. Below zero when several listeners took
    /// the last one.
    tokens: i64,
    counted_at: Instant,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The process has as many as it may have.
    Full,
    /// The address has.
    AddressFull,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

const TOKEN: i64 = 1000;

impl Admission {
    /// Nobody is there yet.
    pub fn new(config: AdmissionConfig) -> Arc<Self> {
        let state = State {
            total: 0,
            by_address: BTreeMap::new(),
            tokens: i64::from(config.accepts_per_second) * TOKEN,
            counted_at: Instant::now(),
        };
        Arc::new(Self { config, state: Mutex::new(state) })
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.lock().total
    }

    /// The bounds.
    pub fn config(&self) -> AdmissionConfig {
        self.config
    }

    /// Whether the rate allows to take in another connection.
    pub(crate) fn is_open(&self) -> bool {
        let mut state = self.lock();
        state.refill(self.config.accepts_per_second, Instant::now());
        state.tokens >= TOKEN
    }

    /// A connection was taken in from `address`: it may stay, or why not. `None` is an address that
    /// the kernel does not tell any more.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admitted, Refused> {
        let address = address.map(network_of);
        let mut state = self.lock();
        state.tokens -= TOKEN;
        if state.total >= self.config.connections_max {
            return Err(Refused::Full);
        }
        if let Some(address) = address {
            let count = state.by_address.entry(address).or_default();
            if *count >= self.config.connections_per_address_max {
                return Err(Refused::AddressFull);
            }
            *count += 1;
        }
        state.total += 1;
        Ok(Admitted { admission: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with it")
    }
}

impl State {
    fn refill(&mut self, per_second: u32, now: Instant) {
        let burst = i64::from(per_second) * TOKEN;
        let time = now.saturating_duration_since(self.counted_at).min(Duration::from_secs(3600));
        let new = i64::try_from(time.as_millis()).unwrap_or(i64::MAX) * i64::from(per_second);
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new).min(burst);
            self.counted_at = now;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.total -= 1;
        let Some(address) = self.address else { return };
        let count = state.by_address.get_mut(&address).expect("it was counted when admitted");
        *count -= 1;
        if *count == 0 {
            state.by_address.remove(&address);
        }
    }
}

/// What counts as one address: a host has a network of 64 bits of IPv6 at least.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(config: AdmissionConfig) -> Arc<Admission> {
        Admission::new(config)
    }

    /// One address cannot take all places, the process has a bound of its own, and places come
    /// back.
    #[test]
    fn places_are_bounded_by_address_and_in_all() {
        let admission = admission(AdmissionConfig {
            connections_max: 3,
            connections_per_address_max: 2,
            ..AdmissionConfig::default()
        });
        let (one, other) = ("10.0.0.1".parse().ok(), "10.0.0.2".parse().ok());
        let first = admission.admit(one).expect("a place");
        let second = admission.admit(one).expect("a place");
        assert_eq!(admission.admit(one).expect_err("two are there"), Refused::AddressFull);
        let third = admission.admit(other).expect("a place");
        assert_eq!(admission.admit(other).expect_err("three are there"), Refused::Full);
        drop((first, third));
        assert_eq!(admission.connections(), 1);
        let again = admission.admit(one).expect("a place");
        drop((second, again));
        assert_eq!(admission.connections(), 0);
        assert!(admission.lock().by_address.is_empty());
    }

    /// Hosts of one network of IPv6 count together, and a mapped address is its IPv4 one.
    #[test]
    fn addresses_are_counted_by_network() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }

    /// The rate holds over time and allows a burst of one second.
    #[test]
    fn connections_are_taken_in_at_a_rate() {
        let config = AdmissionConfig { accepts_per_second: 10, ..AdmissionConfig::default() };
        let admission = admission(config);
        let mut kept = Vec::new();
        while admission.lock().tokens >= TOKEN {
            kept.push(admission.admit(None).expect("a place"));
        }
        assert_eq!(kept.len(), 10);
        let mut state = admission.lock();
        let later = state.counted_at + Duration::from_millis(250);
        state.refill(10, later);
        assert_eq!(state.tokens, 2 * TOKEN + TOKEN / 2);
        state.refill(10, later + Duration::from_secs(100));
        assert_eq!(state.tokens, 10 * TOKEN);
    }
}
