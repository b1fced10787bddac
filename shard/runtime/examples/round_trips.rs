//! Measures, within seconds and by hand, what the runtime adds: an echo over loopback through a
//! shard against one through a plain blocking thread, and a round trip of mail between two shards.
//!
//! `cargo run --release -p thalweg-runtime --example round_trips [spin microseconds]`

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::id::{ConnectionId, ShardId};
use thalweg_runtime::{
    Doorbell, Drive, ShardMailbox, ShardStart, Stopper, TurnOutcome, choose_cpus, mailboxes,
    start_on_ring,
};
use thalweg_uring::{
    Admission, AdmissionConfig, Listeners, NetworkConfig, PortSharing, UringNetwork,
};

const ROUNDS: usize = 10_000;

struct Echo(UringNetwork);

impl Drive for Echo {
    fn turn(&mut self) -> TurnOutcome {
        let mut events = Vec::new();
        self.0.poll(&mut events);
        for event in events {
            match event {
                NetworkEvent::Accepted { connection } => {
                    self.0.receive(connection, BytesMut::with_capacity(64 << 10));
                }
                NetworkEvent::Received { connection, mut buffer } => {
                    self.0.send(connection, buffer.split().freeze());
                    buffer.reserve(4096);
                    self.0.receive(connection, buffer);
                }
                NetworkEvent::Sent { .. } | NetworkEvent::Closed { .. } => {}
            }
        }
        TurnOutcome::default()
    }
}

/// Returns mail; the first shard takes the time of each round.
struct PingPong {
    mailbox: ShardMailbox,
    shard: ShardId,
    sent_at: Option<Instant>,
    times: Vec<Duration>,
    told: mpsc::Sender<Vec<Duration>>,
}

impl PingPong {
    fn send(&mut self) {
        let mail = Mail::ConnectionClosed { shard: self.shard, connection: ConnectionId(0) };
        assert!(self.mailbox.send(ShardId(1 - self.shard.0), mail).is_ok(), "room for one");
    }
}

impl Drive for PingPong {
    fn turn(&mut self) -> TurnOutcome {
        let mut mail = Vec::new();
        self.mailbox.poll(&mut mail);
        if self.shard.0 == 1 {
            for _ in mail {
                self.send();
            }
            return TurnOutcome::default();
        }
        if self.times.len() < ROUNDS && (!mail.is_empty() || self.sent_at.is_none()) {
            let now = Instant::now();
            if let Some(sent_at) = self.sent_at.replace(now) {
                self.times.push(now - sent_at);
            }
            self.send();
            if self.times.len() == ROUNDS {
                let _ = self.told.send(std::mem::take(&mut self.times));
                self.times = vec![Duration::ZERO; ROUNDS];
            }
        }
        TurnOutcome::default()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spin = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let cpus = choose_cpus(2);
    let start = |shard: u16, bell: &Arc<Doorbell>| ShardStart {
        shard: ShardId(shard),
        cpu: cpus[usize::from(shard)],
        spin_before_park: Duration::from_micros(spin),
        bell: bell.clone(),
    };

    report("echo 128 B, blocking thread", echo_times(blocking_echo()?)?);

    let bells = [Doorbell::new()?];
    let listeners = Listeners::bind(&NetworkConfig {
        addresses: vec!["127.0.0.1:0".parse()?],
        port_sharing: PortSharing::Exclusive,
        admission: Admission::new(AdmissionConfig::default()),
    })?;
    let address = listeners.addresses()?[0];
    let shard = start_on_ring(start(0, &bells[0]), move |place| {
        Ok::<_, io::Error>(Echo(UringNetwork::new(&place.ring, listeners)))
    })?;
    report("echo 128 B, shard", echo_times(address)?);
    Stopper::new(&bells).stop();
    shard.join()?;

    let bells = [Doorbell::new()?, Doorbell::new()?];
    let (told, hears) = mpsc::channel();
    let mut shards = Vec::new();
    for (shard, mailbox) in (0u16..).zip(mailboxes(&bells)) {
        let (sent_at, times, told) = (None, Vec::new(), told.clone());
        let drive = PingPong { mailbox, shard: ShardId(shard), sent_at, times, told };
        let bell = &bells[usize::from(shard)];
        shards.push(start_on_ring(start(shard, bell), move |_| Ok::<_, io::Error>(drive))?);
    }
    report("mail there and back", hears.recv()?);
    Stopper::new(&bells).stop();
    shards.into_iter().try_for_each(|shard| shard.join())?;
    Ok(())
}

fn blocking_echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; 4096];
        loop {
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&bytes[..count])?;
        }
    });
    Ok(address)
}

fn echo_times(address: SocketAddr) -> io::Result<Vec<Duration>> {
    let mut client = TcpStream::connect(address)?;
    client.set_nodelay(true)?;
    let mut bytes = [7; 128];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        client.write_all(&bytes)?;
        client.read_exact(&mut bytes)?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: p50 {p50:?}, p99 {p99:?}");
}
