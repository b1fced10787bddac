//! One shard with a journal of the caller's choice, a client that speaks the wire protocol, and a
//! clock that only turns move. The same code drives a journal in memory, on an image of a disk, and
//! on real files.

use std::collections::VecDeque;
use std::time::Duration;

use thalweg_core::env::Env;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::journal::Journal;
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::fault::Fault;
use thalweg_core::id::{ConnectionId, ShardId};
use thalweg_core::time::{Instant, Now, WallTime};
use thalweg_shard::{Config, Placement, Shard};
use thalweg_uring::Ring;
use thalweg_wire::{Command, Decoder, FRAME_BYTES_MAX};

use crate::network::Loopback;
use crate::script::Tuning;

/// Containers of a shard in these tests: few, so that each has many operations.
pub const CONTAINERS: u16 = 4;
/// Time that one turn takes.
const TURN: Duration = Duration::from_micros(50);
/// Turns after which an answer is not expected any more.
const TURNS_MAX: u32 = 40_000;

/// The shard or its client closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct SteppedClock(Instant);

impl Clock for SteppedClock {
    fn now(&mut self) -> Now {
        Now { monotonic: self.0, wall: WallTime(1_700_000_000_000) }
    }
}

/// No other shard is ever written to.
#[derive(Debug)]
pub struct NoMail;

impl Mailbox for NoMail {
    fn send(&mut self, _: ShardId, mail: Mail) -> Result<(), Box<Mail>> {
        Err(Box::new(mail))
    }

    fn poll(&mut self, _: &mut Vec<(ShardId, Mail)>) {}
}

/// Everything outside of the shard.
#[derive(Debug)]
pub struct SweepEnv<J> {
    journal: J,
    network: Loopback,
    mailbox: NoMail,
    clock: SteppedClock,
}

impl<J: Journal> Env for SweepEnv<J> {
    type Journal = J;
    type Network = Loopback;
    type Mailbox = NoMail;
    type Clock = SteppedClock;

    fn journal(&mut self) -> &mut J {
        &mut self.journal
    }

    fn network(&mut self) -> &mut Loopback {
        &mut self.network
    }

    fn mailbox(&mut self) -> &mut NoMail {
        &mut self.mailbox
    }

    fn clock(&mut self) -> &mut SteppedClock {
        &mut self.clock
    }
}

/// A booted shard and a client's connection to it.
pub struct World<J: Journal> {
    shard: Shard<SweepEnv<J>>,
    /// The ring below the journal, when it is real: waited on instead of turned idly.
    ring: Option<Ring>,
    connection: ConnectionId,
    arrived: VecDeque<Command>,
}

impl<J: Journal> World<J> {
    /// Boots a shard on `journal` and connects.
    ///
    /// # Errors
    /// When the journal cannot be served at all.
    pub fn boot(journal: J, ring: Option<Ring>, tuning: &Tuning) -> Result<Self, Fault> {
        let placement = Placement::new(CONTAINERS, 1);
        let mut config = Config::new(ShardId(0), placement);
        config.limits = tuning.limits();
        let network = Loopback::default();
        let clock = SteppedClock(Instant(1_000_000_000));
        let env = SweepEnv { journal, network, mailbox: NoMail, clock };
        let shard = Shard::boot(env, config)?;
        let mut world = Self { shard, ring, connection: ConnectionId(0), arrived: VecDeque::new() };
        world.connect();
        Ok(world)
    }

    /// Connects anew; what came on the old connection is forgotten.
    pub fn connect(&mut self) {
        let old = self.connection;
        let network = self.shard.env_mut().network();
        network.hang_up(old);
        self.connection = network.connect();
        self.arrived.clear();
    }

    /// The shard.
    pub fn shard(&mut self) -> &mut Shard<SweepEnv<J>> {
        &mut self.shard
    }

    /// One turn, without waiting for anything.
    pub fn turn(&mut self) {
        let clock = &mut self.shard.env_mut().clock;
        clock.0 = clock.0.after(TURN);
        self.shard.turn();
        self.take_replies();
    }

    /// Lets time pass between two turns.
    pub fn advance(&mut self, time: Duration) {
        let clock = &mut self.shard.env_mut().clock;
        clock.0 = clock.0.after(time);
    }

    fn take_replies(&mut self) {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let bytes = self.shard.env_mut().network.to_client(self.connection);
        while let Some(command) = decoder.decode(bytes).expect("a shard sends commands") {
            self.arrived.push_back(command);
        }
    }

    /// Whether the connection is closed and everything that came on it was taken.
    pub fn is_closed(&mut self) -> bool {
        self.arrived.is_empty() && self.shard.env_mut().network.is_closed(self.connection)
    }

    /// Sends a command, without a turn.
    pub fn send(&mut self, command: impl Into<Command>) {
        command.into().encode(self.shard.env_mut().network.to_shard(self.connection));
    }

    /// A reply that has arrived.
    pub fn arrived(&mut self) -> Option<Command> {
        self.arrived.pop_front()
    }

    /// Turns until `is_done` gives something. Waits for the ring where there is one; moves the
    /// clock when nothing happens.
    ///
    /// # Panics
    /// When it never does: the shard stands still.
    pub fn until<T>(&mut self, mut is_done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let mut idle = Duration::from_millis(5);
        for turn in 0..TURNS_MAX {
            if let Some(done) = is_done(self) {
                return done;
            }
            self.turn();
            if let Some(ring) = self.ring.as_ref().filter(|ring| ring.in_flight() > 0) {
                ring.wait_any();
            } else if turn % 64 == 63 {
                self.advance(idle);
                idle = (2 * idle).min(Duration::from_secs(1));
            }
        }
        panic!("the shard stands still: {:?}", self.shard.fault());
    }

    /// Waits for a reply.
    ///
    /// # Errors
    /// When the connection is closed instead.
    pub fn reply(&mut self) -> Result<Command, Closed> {
        self.until(|world| match world.arrived.pop_front() {
            Some(reply) => Some(Ok(reply)),
            None => world.is_closed().then_some(Err(Closed)),
        })
    }

    /// Sends a command and waits for its reply; nothing else may be outstanding.
    ///
    /// # Errors
    /// When the connection is closed instead.
    pub fn ask(&mut self, command: impl Into<Command>) -> Result<Command, Closed> {
        self.send(command);
        self.reply()
    }

    /// Lets `time` of silence pass, in steps of a millisecond, with all that it brings.
    pub fn rest(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.advance(Duration::from_millis(1));
            self.turn();
            for _ in 0..100_000 {
                match self.ring.as_ref().filter(|ring| ring.in_flight() > 0) {
                    Some(ring) => ring.wait_any(),
                    None => break,
                }
                self.turn();
            }
        }
    }

    /// Waits until the shard serves again after a failure of its journal; `false` when it gave up.
    pub fn recover_in_place(&mut self) -> bool {
        let mut waited = Duration::ZERO;
        while !self.shard.is_serving() {
            if waited > Duration::from_secs(120) {
                return false;
            }
            self.turn();
            self.advance(Duration::from_millis(50));
            waited += Duration::from_millis(50);
        }
        true
    }

    /// Ends the process, as a kill does: what is in flight completes or not.
    pub fn kill(self) -> J {
        self.shard.into_env().journal
    }
}
