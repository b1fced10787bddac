//! The open loop against the in-memory server: numbers, rates, and that a pause of the server
//! cannot hide.

use super::*;
use crate::test_server::{Faults, TestServer};

fn small() -> OpenLoop {
    OpenLoop {
        events_per_second: 20_000,
        event_bytes: 100,
        segments: 6,
        connections: 3,
        duration: Duration::from_millis(400),
        warm_up: Duration::from_millis(100),
        hold: Duration::from_millis(1),
        truncation: None,
    }
}

/// Shows that every scheduled event is sent once, acknowledged and counted, at the rate asked for,
/// and that nothing is left behind on the server.
#[test]
fn every_scheduled_event_is_sent_and_counted() {
    let server = TestServer::start(Faults::default());
    let load = small();
    let result = load.run(&server.locator(), "all", Some(ProcessId::own())).expect("it runs");
    assert_eq!(result.latency.count, 8_000);
    assert_eq!(result.unacknowledged, 0);
    assert!(result.usage.server_resident_bytes.is_some());
    assert_eq!(server.segment_count(), 0);
}

/// Shows that a pause of the server is the latency of all events meant to be sent in it, not only
/// of those under way: with an even schedule, a tenth of the events wait in a pause of a tenth of
/// the time, half of them longer than half the pause.
#[test]
fn a_stalled_server_shows_in_the_latency_of_the_intended_times() {
    let pause = Duration::from_millis(200);
    let server = TestServer::start(Faults { stall: Some((700, pause)), ..Faults::default() });
    let mut load = small();
    load.warm_up = Duration::ZERO;
    load.duration = Duration::from_millis(600);
    let result = load.run(&server.locator(), "stall", None).expect("it runs");
    assert_eq!(result.latency.count, 12_000);
    assert!(result.latency.max_us >= 195_000.0, "{:?}", result.latency);
    // Of 12,000 events 4,000 are meant for the pause; 2,000 of them wait for 100 ms or longer.
    assert!(result.latency.p95_us >= 150_000.0, "{:?}", result.latency);
    assert!(result.latency.mean_us >= 30_000.0, "{:?}", result.latency);
}

/// Shows that a second load on the same rig goes on with the writers' numbers.
#[test]
fn a_rig_carries_loads_one_after_the_other() {
    let server = TestServer::start(Faults::default());
    let load = small();
    let mut rig = load.set_up(&server.locator(), "twice").expect("it is set up");
    for _ in 0..2 {
        let result = load.load(&mut rig, None).expect("it runs");
        assert_eq!((result.latency.count, result.unacknowledged), (8_000, 0));
    }
    rig.take_down().expect("it is taken down");
}

/// Shows that segments are truncated behind the load.
#[test]
fn segments_are_truncated_behind_the_load() {
    let server = TestServer::start(Faults::default());
    let mut load = small();
    load.truncation = Some(Truncation { keep_bytes: 60_000, period: Duration::from_millis(20) });
    load.run(&server.locator(), "truncated", None).expect("it runs");
    assert!(server.truncations() > 6, "{}", server.truncations());
}
