use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::operation::SyncKind;

fn small() -> Ring {
    Ring::new(RingConfig { submission_entries: 8, completion_entries: 16 }).expect("a ring")
}

fn device(path: &str) -> Rc<OwnedFd> {
    let file = File::options().read(true).write(true).open(path).expect("a device");
    Rc::new(OwnedFd::from(file))
}

fn read(file: &Rc<OwnedFd>) -> Operation {
    let memory = BytesMut::with_capacity(64);
    Operation::Read { file: file.clone(), offset: 0, memory, length: 64 }
}

/// Many times more operations than either queue has entries all complete, once each, with their
/// memory.
#[test]
fn more_operations_than_entries_all_complete() {
    let ring = small();
    let owner = ring.register();
    let zeros = device("/dev/zero");
    for tag in 0..500 {
        ring.submit(owner, tag, read(&zeros));
    }
    ring.flush();
    let mut seen = vec![false; 500];
    for _ in 0..500 {
        let completion = ring.next_ready(owner).unwrap_or_else(|| {
            ring.wait(owner);
            ring.next_ready(owner).expect("waited for")
        });
        assert!(matches!(completion.outcome, Ok(Outcome::Count(64))));
        assert!(matches!(completion.operation, Some(Operation::Read { memory, .. })
            if memory.len() == 64));
        assert!(!std::mem::replace(&mut seen[completion.tag as usize], true));
    }
    assert!(ring.next_ready(owner).is_none());
    assert_eq!(ring.in_flight(), 0);
}

/// A failed write takes the sync that is linked to it with it: both are told, none is lost.
#[test]
fn a_failed_write_cancels_its_sync() {
    let ring = small();
    let owner = ring.register();
    let full = device("/dev/full");
    let bytes = Bytes::from_static(&[0; 64]);
    let write = Operation::Write { file: full.clone(), offset: 0, bytes, data_sync: false };
    ring.submit_linked(owner, 7, write, Operation::Sync { file: full, kind: SyncKind::Data });
    let mut errors = Vec::new();
    while errors.len() < 2 {
        ring.wait(owner);
        let completion = ring.next_ready(owner).expect("waited for");
        let error = completion.outcome.expect_err("no write, no sync").raw_os_error();
        errors.push((matches!(completion.operation, Some(Operation::Sync { .. })), error));
    }
    errors.sort();
    assert_eq!(errors, [(false, Some(libc::ENOSPC)), (true, Some(libc::ECANCELED))]);
}

/// Dropping the ring ends operations that would never end by themselves, and frees what they hold.
#[test]
fn dropping_the_ring_ends_what_is_in_flight() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(address).expect("a connection");
    let (accepted, _) = listener.accept().expect("a connection");
    let ring = small();
    let owner = ring.register();
    let socket = Rc::new(OwnedFd::from(accepted));
    let memory = BytesMut::with_capacity(64);
    ring.submit(owner, 0, Operation::Receive { socket, memory, poll_first: false });
    ring.submit(owner, 1, Operation::Accept { listener: Rc::new(OwnedFd::from(listener)) });
    ring.submit(owner, 2, Operation::timeout(Duration::from_secs(3600)));
    ring.wake_at(Instant::now() + Duration::from_secs(3600));
    ring.flush();
    // Queued and not handed over yet.
    ring.submit(owner, 3, Operation::timeout(Duration::from_secs(3600)));
    assert_eq!(ring.in_flight(), 5);
    drop(ring);
    assert_eq!(client.read(&mut [0]).expect("the end"), 0, "the socket is closed");
}

/// An owner that goes takes its operations with it and leaves those of others alone.
#[test]
fn abandoning_ends_the_operations_of_one_owner() {
    let ring = small();
    let (leaving, staying) = (ring.register(), ring.register());
    ring.submit(leaving, 0, Operation::timeout(Duration::from_secs(3600)));
    ring.submit(staying, 1, Operation::timeout(Duration::from_millis(1)));
    ring.flush();
    ring.abandon(leaving);
    assert!(ring.next_ready(leaving).is_none());
    ring.wait(staying);
    let completion = ring.next_ready(staying).expect("waited for");
    let error = completion.outcome.expect_err("a timeout").raw_os_error();
    assert_eq!(error, Some(libc::ETIME));
}

/// Cancelling what has completed already does not hit the operation that has its place now.
#[test]
fn a_late_cancellation_hits_nobody_else() {
    let ring = small();
    let owner = ring.register();
    let early = ring.submit(owner, 0, read(&device("/dev/zero")));
    ring.wait(owner);
    ring.next_ready(owner).expect("waited for");
    ring.submit(owner, 1, Operation::timeout(Duration::from_millis(20)));
    ring.cancel(early);
    ring.wait(owner);
    let completion = ring.next_ready(owner).expect("waited for");
    let error = completion.outcome.expect_err("a timeout").raw_os_error();
    assert_eq!((completion.tag, error), (1, Some(libc::ETIME)));
}

/// The eventfd is signalled only while armed, and arming is refused when something is there
/// already.
#[test]
fn completions_signal_only_while_armed() {
    let mut wake = sockets::event_counter().expect("an eventfd");
    let ring = Ring::waking(RingConfig::default(), &wake).expect("a ring");
    let owner = ring.register();
    let zeros = device("/dev/zero");
    ring.submit(owner, 0, read(&zeros));
    assert!(!ring.arm_wake(), "something is queued");
    ring.flush();
    ring.wait(owner);
    assert!(!ring.arm_wake(), "something is ready");
    ring.next_ready(owner).expect("waited for");
    ring.submit(owner, 1, Operation::timeout(Duration::from_millis(1)));
    ring.flush();
    if ring.arm_wake() {
        let mut count = [0; 8];
        wake.read_exact(&mut count).expect("a signal");
        assert_eq!(u64::from_ne_bytes(count), 1, "only the armed completion signalled");
        ring.disarm_wake();
    }
    assert!(ring.has_ready());
}

/// A timer that fires between setting it and going to sleep forbids the sleep.
#[test]
fn a_timer_that_has_fired_is_not_slept_over() {
    let ring = small();
    ring.wake_at(Instant::now());
    ring.flush();
    let started = Instant::now();
    while ring.arm_wake() {
        ring.disarm_wake();
        assert!(started.elapsed() < Duration::from_secs(10), "the timer is never told");
    }
    assert!(ring.arm_wake(), "it is told once");
    // It is gone, so that the next one is set anew.
    ring.disarm_wake();
    ring.wake_at(Instant::now());
    assert!(ring.has_queued());
}

/// Writing to the watched eventfd ends a wait, every time, and dropping the ring ends the watch.
#[test]
fn a_watched_eventfd_ends_a_wait() {
    let ring = small();
    let bell = sockets::event_counter().expect("an eventfd");
    ring.watch(&bell).expect("a descriptor");
    ring.flush();
    assert!(!ring.has_ready());
    for _ in 0..100 {
        let mut caller = bell.try_clone().expect("a descriptor");
        let calling = std::thread::spawn(move || caller.write_all(&1_u64.to_ne_bytes()));
        // Hangs for ever when the watch has ended.
        while !ring.has_ready() {
            ring.wait_any();
        }
        calling.join().expect("a thread").expect("a write");
    }
    drop(ring);
}

/// A lock on a file that a ring holds outlives every descriptor of ours, and ends with the ring.
#[test]
fn a_held_lock_ends_with_the_ring() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || {
        let path = directory.path().join("lock");
        File::options().create(true).truncate(false).write(true).open(path).expect("a file")
    };
    let ring = small();
    let ours = open();
    ours.try_lock().expect("nobody else has it");
    ring.keep_open(&ours).expect("the kernel takes it");
    drop(ours);
    let theirs = open();
    assert!(theirs.try_lock().is_err(), "the ring holds it");
    drop(ring);
    // The kernel takes rings apart on its own time; without end the test would hang.
    theirs.lock().expect("it becomes free");
}
