//! What happens when the process runs out of descriptors. A process of its own, because it takes
//! them all.

use std::fs::File;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_uring::portable::{PortableNetwork, PortableWait};
use thalweg_uring::{
    Admission, AdmissionConfig, Listeners, NetworkConfig, NetworkCounts, PortSharing,
};
use thalweg_uring::{Ring, RingConfig, UringNetwork, event_counter};

fn listeners() -> Listeners {
    Listeners::bind(&NetworkConfig {
        addresses: vec!["127.0.0.1:0".parse().expect("an address")],
        port_sharing: PortSharing::Exclusive,
        admission: Admission::new(AdmissionConfig::default()),
    })
    .expect("a port")
}

/// Takes all descriptors, lets a client knock, and gives them back after a few pauses.
fn knock<N: Network>(
    network: &mut N,
    listeners_address: std::net::SocketAddr,
    wait: impl Fn(),
    counts: impl Fn(&N) -> NetworkCounts,
) {
    let mut events = Vec::new();
    network.poll(&mut events);
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.pop();
    let _client = TcpStream::connect(listeners_address).expect("the last descriptor");
    let started = Instant::now();
    let mut waits = 0;
    while counts(network).accept_pauses < 4 {
        wait();
        network.poll(&mut events);
        waits += 1;
        assert!(started.elapsed() < Duration::from_secs(30), "accepting does not pause");
    }
    assert!(events.is_empty(), "nothing was accepted: {events:?}");
    assert!(started.elapsed() >= Duration::from_millis(250), "four pauses, three of them over");
    assert!(waits < 40, "{waits} waits in {:?}", started.elapsed());
    drop(taken);
    while events.is_empty() {
        wait();
        network.poll(&mut events);
        assert!(started.elapsed() < Duration::from_secs(30), "accepting does not go on");
    }
    assert!(matches!(events[..], [NetworkEvent::Accepted { .. }]), "{events:?}");
}

/// Without descriptors, accepting pauses instead of spinning, and goes on by itself when there are
/// some again; the waiting client is then served.
#[test]
fn accepting_pauses_while_descriptors_are_short() {
    let ring = Ring::new(RingConfig::default()).expect("a ring");
    let sockets = listeners();
    let address = sockets.addresses().expect("an address")[0];
    let mut network = UringNetwork::new(&ring, sockets);
    ring.flush();
    knock(&mut network, address, || ring.wait_any(), UringNetwork::counts);
    drop(network);

    let wait = PortableWait::new(event_counter().expect("an eventfd"));
    let sockets = listeners();
    let address = sockets.addresses().expect("an address")[0];
    let mut network = PortableNetwork::new(&wait, sockets).expect("a network");
    let sleep = || wait.wait(Some(Duration::from_secs(1))).expect("a wait");
    knock(&mut network, address, sleep, PortableNetwork::counts);
}
