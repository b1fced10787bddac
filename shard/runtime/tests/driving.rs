//! Shards on real threads: they wake for sockets, files, mail, deadlines and the stop signal, and
//! sleep otherwise.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::BytesMut;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::device::{Device, DeviceOutcome, OperationToken};
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::frame::aligned_memory;
use thalweg_core::id::{ConnectionId, ShardId};
use thalweg_core::time::Instant;
use thalweg_runtime::{
    Doorbell, Drive, RingPlace, RuntimeError, ShardHandle, ShardMailbox, ShardStart, Stopper,
    SystemClock, TurnOutcome, mailboxes, start_on_ring, start_portable,
};
use thalweg_uring::portable::{PortableDevice, PortableNetwork};
use thalweg_uring::{
    Admission, AdmissionConfig, DurableWrite, Listeners, NetworkConfig, PortSharing,
};
use thalweg_uring::{UringDevice, UringNetwork};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(shard: u16, bell: &Arc<Doorbell>) -> ShardStart {
    ShardStart {
        shard: ShardId(shard),
        cpu: None,
        spin_before_park: Duration::ZERO,
        bell: bell.clone(),
    }
}

fn bells(count: usize) -> Vec<Arc<Doorbell>> {
    (0..count).map(|_| Doorbell::new().expect("an eventfd")).collect()
}

/// Answers each block of 16 bytes once it is durable in a file.
struct DurableEcho<N, D> {
    network: N,
    device: D,
    waiting: Vec<(OperationToken, ConnectionId, BytesMut)>,
    next: u64,
    file: thalweg_core::env::device::FileHandle,
}

impl<N: Network, D: Device> DurableEcho<N, D> {
    fn new(network: N, mut device: D) -> Self {
        device.open("echo", true, OperationToken(0));
        device.flush();
        device.wait();
        let mut events = Vec::new();
        device.poll(&mut events);
        let Some(Ok(DeviceOutcome::Opened(file, 0))) = events.pop().map(|event| event.outcome)
        else {
            panic!("a new file opens");
        };
        Self { network, device, waiting: Vec::new(), next: 1, file }
    }
}

impl<N: Network, D: Device> Drive for DurableEcho<N, D> {
    fn turn(&mut self) -> TurnOutcome {
        let mut arrived = Vec::new();
        self.network.poll(&mut arrived);
        for event in arrived {
            match event {
                NetworkEvent::Accepted { connection } => {
                    self.network.receive(connection, BytesMut::with_capacity(4096));
                }
                NetworkEvent::Received { connection, mut buffer } => {
                    let whole = buffer.len() - buffer.len() % 16;
                    if whole > 0 {
                        let message = buffer.split_to(whole);
                        let mut block = aligned_memory(4096);
                        block.extend_from_slice(&message);
                        block.resize(4096, 0);
                        let token = OperationToken(self.next);
                        self.next += 1;
                        let offset = token.0 * 4096;
                        self.device.write_durable(self.file, offset, block.freeze(), token);
                        self.waiting.push((token, connection, message));
                    }
                    buffer.reserve(4096);
                    self.network.receive(connection, buffer);
                }
                NetworkEvent::Sent { .. } | NetworkEvent::Closed { .. } => {}
            }
        }
        let mut written = Vec::new();
        self.device.poll(&mut written);
        for event in written {
            event.outcome.expect("a durable write");
            let place = self.waiting.iter().position(|(token, ..)| *token == event.token);
            let place = place.expect("a write that is waited for");
            let (_, connection, message) = self.waiting.swap_remove(place);
            self.network.send(connection, message.freeze());
        }
        TurnOutcome::default()
    }
}

fn listeners() -> (Listeners, SocketAddr) {
    let config = NetworkConfig {
        addresses: vec!["127.0.0.1:0".parse().expect("an address")],
        port_sharing: PortSharing::Exclusive,
        admission: Admission::new(AdmissionConfig::default()),
    };
    let listeners = Listeners::bind(&config).expect("a port");
    let address = listeners.addresses().expect("an address")[0];
    (listeners, address)
}

/// Asks and checks the answers, several times, so that the shard sleeps in between.
fn ask(address: SocketAddr, rounds: u32) {
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_nodelay(true).expect("an option");
    client.set_read_timeout(Some(PATIENCE)).expect("an option");
    for round in 0..rounds {
        let message = [round.to_be_bytes(); 4].concat();
        client.write_all(&message).expect("a send");
        let mut answer = [0; 16];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[..], message[..]);
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn device_on(place: &RingPlace, path: &Path) -> UringDevice {
    UringDevice::new(&place.ring, path, DurableWrite::ThenSync).expect("a device")
}

/// A shard on the ring sleeps between requests and answers each of them after a durable write;
/// stopping it closes the connections.
#[test]
fn a_shard_on_the_ring_serves_and_stops() {
    let (listeners, address) = listeners();
    let directory = directory();
    let path = directory.path().to_owned();
    let bells = bells(1);
    let shard = start_on_ring(start(0, &bells[0]), move |place| {
        let device = device_on(&place, &path);
        let network = UringNetwork::new(&place.ring, listeners);
        Ok::<_, std::io::Error>(DurableEcho::new(network, device))
    })
    .expect("a thread");
    let clients: Vec<_> = (0..4).map(|_| std::thread::spawn(move || ask(address, 200))).collect();
    for client in clients {
        client.join().expect("the client is content");
    }
    let mut open = TcpStream::connect(address).expect("a connection");
    Stopper::new(&bells).stop();
    shard.join().expect("a clean end");
    assert!(matches!(open.read(&mut [0]), Ok(0) | Err(_)), "the connection has ended");
}

/// The same over ordinary calls.
#[test]
fn a_portable_shard_serves_and_stops() {
    let (listeners, address) = listeners();
    let directory = directory();
    let path = directory.path().to_owned();
    let bells = bells(1);
    let shard = start_portable(start(0, &bells[0]), move |place| {
        let device = PortableDevice::new(&path)?;
        let network = PortableNetwork::new(&place.wait, listeners)?;
        Ok::<_, std::io::Error>(DurableEcho::new(network, device))
    })
    .expect("a thread");
    ask(address, 100);
    Stopper::new(&bells).stop();
    shard.join().expect("a clean end");
}

/// Asks for a turn a little later, a number of times, and tells how many turns it took.
struct Ticker {
    clock: SystemClock,
    due: Instant,
    left: u32,
    turns: u32,
    told: Sender<u32>,
}

impl Ticker {
    fn new(clock: SystemClock, told: Sender<u32>) -> Self {
        Self { clock, due: Instant(0), left: 20, turns: 0, told }
    }
}

impl Drive for Ticker {
    fn turn(&mut self) -> TurnOutcome {
        self.turns += 1;
        let now = self.clock.now().monotonic;
        if self.left > 0 && now >= self.due {
            self.due = now.after(Duration::from_millis(5));
            self.left -= 1;
            if self.left == 0 {
                self.told.send(self.turns).expect("the test listens");
            }
        }
        let next_deadline = (self.left > 0).then_some(self.due);
        TurnOutcome { has_work_left: false, next_deadline }
    }
}

fn expect_few_turns(turns: &Receiver<u32>) {
    let turns = turns.recv_timeout(PATIENCE).expect("deadlines wake the shard");
    // One each, and some room for a timer that fires a little early.
    assert!((20..80).contains(&turns), "{turns} turns for 20 deadlines");
}

/// Deadlines wake a sleeping shard, and it sleeps until then.
#[test]
fn deadlines_wake_and_nothing_spins() {
    let bells = bells(2);
    let (ring_told, ring_turns) = mpsc::channel();
    let on_ring = start_on_ring(start(0, &bells[0]), move |place| {
        Ok::<_, std::io::Error>(Ticker::new(place.clock, ring_told))
    });
    let (portable_told, portable_turns) = mpsc::channel();
    let portable = start_portable(start(1, &bells[1]), move |place| {
        Ok::<_, std::io::Error>(Ticker::new(place.clock, portable_told))
    });
    expect_few_turns(&ring_turns);
    expect_few_turns(&portable_turns);
    Stopper::new(&bells).stop();
    on_ring.expect("a thread").join().expect("a clean end");
    portable.expect("a thread").join().expect("a clean end");
}

/// Sends back the number in each mail, plus one, until it is large enough.
struct Returner {
    mailbox: ShardMailbox,
    shard: ShardId,
    other: ShardId,
    serves: bool,
    told: Sender<u64>,
}

const RETURNS: u64 = 5_000;

impl Drive for Returner {
    fn turn(&mut self) -> TurnOutcome {
        let mut mail = Vec::new();
        self.mailbox.poll(&mut mail);
        let mut numbers: Vec<_> = mail
            .iter()
            .map(|(from, mail)| match mail {
                Mail::ConnectionClosed { connection, shard } if shard == from => connection.0,
                other => panic!("other mail: {other:?}"),
            })
            .collect();
        if std::mem::take(&mut self.serves) {
            numbers.push(0);
        }
        for number in numbers {
            if number == RETURNS {
                self.told.send(number).expect("the test listens");
                continue;
            }
            let connection = ConnectionId(number + 1);
            let mail = Mail::ConnectionClosed { shard: self.shard, connection };
            assert!(self.mailbox.send(self.other, mail).is_ok(), "one message has room");
        }
        TurnOutcome::default()
    }
}

/// Two shards return mail to each other until one has had enough.
fn return_mail(
    start_first: impl FnOnce(ShardStart, Returner) -> Result<ShardHandle, RuntimeError>,
    start_second: impl FnOnce(ShardStart, Returner) -> Result<ShardHandle, RuntimeError>,
) {
    let bells = bells(2);
    let mut boxes = mailboxes(&bells).into_iter();
    let (told, hears) = mpsc::channel();
    let mut returner = |shard: u16| {
        let mailbox = boxes.next().expect("a mailbox for each");
        let (shard, other) = (ShardId(shard), ShardId(1 - shard));
        Returner { mailbox, shard, other, serves: shard.0 == 0, told: told.clone() }
    };
    let (first, second) = (returner(0), returner(1));
    let threads =
        [start_first(start(0, &bells[0]), first), start_second(start(1, &bells[1]), second)];
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(RETURNS), "no wake-up is lost");
    Stopper::new(&bells).stop();
    for thread in threads {
        thread.expect("a thread").join().expect("a clean end");
    }
}

fn on_ring(start: ShardStart, drive: Returner) -> Result<ShardHandle, RuntimeError> {
    start_on_ring(start, move |_| Ok::<_, std::io::Error>(drive))
}

/// With a task beside the turns, so that the shard sleeps in the executor.
fn in_executor(start: ShardStart, drive: Returner) -> Result<ShardHandle, RuntimeError> {
    start_on_ring(start, move |place| {
        place.background.spawn(std::future::pending());
        Ok::<_, std::io::Error>(drive)
    })
}

fn by_calls(start: ShardStart, drive: Returner) -> Result<ShardHandle, RuntimeError> {
    start_portable(start, move |_| Ok::<_, std::io::Error>(drive))
}

/// Mail wakes a shard that sleeps in its ring, thousands of times in a row.
#[test]
fn mail_wakes_a_shard_that_sleeps_in_its_ring() {
    return_mail(on_ring, on_ring);
}

/// Mail wakes a shard that sleeps in the executor because of a background task.
#[test]
fn mail_wakes_a_shard_that_sleeps_in_the_executor() {
    return_mail(in_executor, on_ring);
}

/// Mail wakes a shard without a ring.
#[test]
fn mail_wakes_a_portable_shard() {
    return_mail(by_calls, on_ring);
}

/// Always has work, until the background task beside it has run.
struct Busy {
    background_ran: Rc<Cell<bool>>,
    told: Option<Sender<()>>,
}

impl Drive for Busy {
    fn turn(&mut self) -> TurnOutcome {
        if self.background_ran.get()
            && let Some(told) = self.told.take()
        {
            told.send(()).expect("the test listens");
        }
        TurnOutcome { has_work_left: self.told.is_some(), next_deadline: None }
    }
}

/// A shard that never runs out of work still lets the background have its share, and can be
/// stopped.
#[test]
fn a_busy_shard_leaves_room_for_the_background() {
    let bells = bells(1);
    let (told, hears) = mpsc::channel();
    let shard = start_on_ring(start(0, &bells[0]), move |place| {
        let background_ran = Rc::new(Cell::new(false));
        let mark = background_ran.clone();
        place.background.spawn(async move { mark.set(true) });
        Ok::<_, std::io::Error>(Busy { background_ran, told: Some(told) })
    })
    .expect("a thread");
    hears.recv_timeout(PATIENCE).expect("the background runs");
    Stopper::new(&bells).stop();
    shard.join().expect("a clean end");
}

/// Takes a few turns to finish after being asked to stop.
struct Finishing {
    left: Option<u32>,
}

impl Drive for Finishing {
    fn turn(&mut self) -> TurnOutcome {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        TurnOutcome { has_work_left: self.left.is_some(), next_deadline: None }
    }

    fn begin_stop(&mut self) {
        assert!(self.left.is_none(), "asked once");
        self.left = Some(10);
    }

    fn is_stopped(&self) -> bool {
        self.left == Some(0)
    }
}

/// A shard that is asked to stop gets the turns it needs to finish.
#[test]
fn stopping_waits_for_what_is_unfinished() {
    let bells = bells(2);
    let build = |_| Ok::<_, std::io::Error>(Finishing { left: None });
    let on_ring = start_on_ring(start(0, &bells[0]), build).expect("a thread");
    let portable =
        start_portable(start(1, &bells[1]), |_| Ok::<_, std::io::Error>(Finishing { left: None }));
    let asked = std::time::Instant::now();
    Stopper::new(&bells).stop();
    on_ring.join().expect("a clean end");
    portable.expect("a thread").join().expect("a clean end");
    assert!(asked.elapsed() < Duration::from_secs(4), "turned, not waited for the last moment");
}

/// A shard that cannot be built ends its thread with the reason.
#[test]
fn a_failed_build_is_told() {
    let bells = bells(1);
    let shard = start_on_ring(start(3, &bells[0]), |_| {
        Err::<Finishing, _>(std::io::Error::other("journal is gone"))
    });
    let error = shard.expect("a thread").join().expect_err("it cannot be built");
    assert!(matches!(error, RuntimeError::Build { shard: 3, .. }));
    assert_eq!(error.to_string(), "build shard 3: journal is gone");
}
