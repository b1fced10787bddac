//! The turn: collect what completed, handle it, seal a frame, carry out effects, ask for more.
//!
//! Everything that happened is taken at once; only commands of connections are budgeted, since they
//! make work and the rest finishes it. Journal events come first: they free what the others wait
//! for.

use std::collections::VecDeque;

use bytes::BytesMut;
use thalweg_core::engine::Engine;
use thalweg_core::env::Env;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::journal::{Journal, JournalEvent};
use thalweg_core::env::mailbox::Mail;
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::fault::Fault;
use thalweg_core::id::{ConnectionId, ContainerId, ShardId};
use thalweg_core::request::{Effect, Peer};
use thalweg_core::time::{Instant, Now, WallTime};
use thalweg_net::{CloseCause, Connection, SessionCounter};

use crate::boot::State;
use crate::budget::{ReceiveMemory, TurnLeft};
use crate::config::Config;
use crate::connections::{Connections, Slot, Stall};
use crate::counters::Counters;
use crate::gate::Stalled;
use crate::mailbox::Post;
use crate::patience::Looks;
use crate::trim::Trim;

/// What the driver must know after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnOutcome {
    /// Do not wait: the next turn has something to do already.
    pub has_work_left: bool,
    /// When the next turn is due even if nothing completes.
    pub next_deadline: Option<Instant>,
}

/// One shard. Lives on its thread from boot to stop; [`boot`](Self::boot) makes it.
#[derive(Debug)]
pub struct Shard<E> {
    pub(crate) env: E,
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) state: State,
    /// When it came into that state.
    pub(crate) state_since: WallTime,
    /// Containers that do not serve, with the reason and since when.
    pub(crate) quarantined: Vec<(ContainerId, Fault, WallTime)>,
    pub(crate) connections: Connections,
    pub(crate) sessions: SessionCounter,
    pub(crate) memory: ReceiveMemory,
    /// Connections with commands to handle.
    pub(crate) ready: VecDeque<ConnectionId>,
    /// Connections whose next command waits.
    pub(crate) stalled: Stalled,
    /// Connections with something to send at the end of the turn.
    pub(crate) dirty: Vec<ConnectionId>,
    pub(crate) post: Post,
    pub(crate) trim: Trim,
    pub(crate) counters: Counters,
    /// What the journal still takes, bytes; looked at once per turn.
    pub(crate) room_bytes: u64,
    /// Since when it has no place for the next frame, with nothing in flight that would make one.
    pub(crate) blocked_at: Option<Instant>,
    /// Whether the shard remembers as much as it may; looked at once per turn.
    pub(crate) is_state_full: bool,
    /// Reply bytes given to the network that have not left, of all connections.
    pub(crate) unsent: usize,
    pub(crate) looks: Looks,
    /// When this turn began.
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    /// When a look at connections that hold memory without sending is due.
    pub(crate) patience_due: Option<Instant>,
    // Kept between turns for their memory only.
    pub(crate) effects: Vec<Effect>,
    network_events: Vec<NetworkEvent>,
    journal_events: Vec<JournalEvent>,
    mail: Vec<(ShardId, Mail)>,
}

impl<E: Env> Shard<E> {
    /// A shard with a recovered engine.
    pub(crate) fn new(mut env: E, config: Config, engine: Engine, effects: Vec<Effect>) -> Self {
        let Now { monotonic, wall } = env.clock().now();
        Self {
            env,
            engine,
            state: State::Serving,
            state_since: wall,
            quarantined: Vec::new(),
            connections: Connections::new(),
            sessions: SessionCounter::new(config.shard),
            memory: ReceiveMemory::new(config.receive_bytes),
            ready: VecDeque::new(),
            stalled: Stalled::default(),
            dirty: Vec::new(),
            post: Post::default(),
            trim: Trim::default(),
            counters: Counters::default(),
            room_bytes: 0,
            blocked_at: None,
            is_state_full: false,
            unsent: 0,
            looks: Looks::default(),
            now: monotonic,
            wall,
            patience_due: None,
            effects,
            network_events: Vec::new(),
            journal_events: Vec::new(),
            mail: Vec::new(),
            config,
        }
    }

    /// One pass. Call it when anything completed, when the last outcome's deadline has come, and at
    /// once when that had work left.
    pub fn turn(&mut self) -> TurnOutcome {
        let now = self.env.clock().now();
        self.now = now.monotonic;
        self.wall = now.wall;
        self.counters.turns += 1;
        self.collect_journal(now);
        self.boot_again(now);
        self.collect_mail(now);
        self.collect_network(now);
        if self.is_serving() {
            self.handle(now);
            self.seal(now);
            self.trim(now);
        }
        // Behind the work: who got on in this turn is not found standing still.
        self.look(now);
        self.flush();
        self.advance_stop(now);
        self.outcome(now)
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When the present or last turn began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The settings it was booted with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The outside world, for its owner. Must not be used to take a shard's events away.
    pub fn env_mut(&mut self) -> &mut E {
        &mut self.env
    }

    /// Ends the shard without ceremony and gives its outside world back: what a crash leaves.
    pub fn into_env(self) -> E {
        self.env
    }

    fn collect_journal(&mut self, now: Now) {
        if !self.is_serving() {
            return;
        }
        let mut events = std::mem::take(&mut self.journal_events);
        self.env.journal().poll(now.monotonic, &mut events);
        let mut failed: Option<Fault> = None;
        for event in events.drain(..) {
            match event {
                JournalEvent::Durable { through } => {
                    self.trim.durable(through);
                    self.engine.durable(now, through, &mut self.effects);
                }
                JournalEvent::Fetched { address, frame } => {
                    self.engine.fetched(now, address, frame, &mut self.effects);
                }
                // Nothing that the journal says behind this counts.
                JournalEvent::Failed { fault } => {
                    failed = Some(fault);
                    break;
                }
            }
        }
        self.journal_events = events;
        self.perform();
        if let Some(fault) = failed {
            self.fail(now, fault);
        }
        self.room_bytes = self.env.journal().room_bytes();
        self.is_state_full = self.engine.state_bytes() >= self.config.state_bytes_max;
    }

    fn collect_mail(&mut self, now: Now) {
        let mut mail = std::mem::take(&mut self.mail);
        self.poll_mail(&mut mail);
        for (from, mail) in mail.drain(..) {
            self.receive_mail(now, from, mail);
        }
        self.mail = mail;
    }

    fn collect_network(&mut self, now: Now) {
        let mut events = std::mem::take(&mut self.network_events);
        self.env.network().poll(&mut events);
        for event in events.drain(..) {
            match event {
                NetworkEvent::Accepted { connection } => self.accepted(now, connection),
                NetworkEvent::Received { connection, buffer } => {
                    self.received(now, connection, buffer);
                }
                NetworkEvent::Sent { connection, bytes } => self.sent(now, connection, bytes),
                NetworkEvent::Closed { connection } => self.closed(now, connection),
            }
        }
        self.network_events = events;
        self.perform();
    }

    fn accepted(&mut self, now: Now, id: ConnectionId) {
        self.counters.accepted += 1;
        let cause = if !self.is_serving() {
            CloseCause::Down
        } else if self.is_stopping() {
            CloseCause::Stop
        } else if self.connections.len() >= self.config.connections_max {
            CloseCause::Limit
        } else {
            let Config { shard, placement, connection: limits, .. } = self.config;
            let connection = Connection::new(id, shard, placement, limits);
            let index = self.connections.insert(Slot::new(connection, now.monotonic));
            self.counters.connections += 1;
            self.arm(index);
            return;
        };
        self.counters.count_close(cause);
        self.env.network().close(id);
    }

    fn received(&mut self, now: Now, id: ConnectionId, buffer: BytesMut) {
        let Some(index) = self.connections.find(id) else { return };
        let slot = &mut self.connections[index];
        let (length, spare) = slot.armed;
        let received = buffer.len().saturating_sub(length);
        slot.is_receiving = false;
        slot.received_at = now.monotonic;
        if length == 0 {
            slot.frame_at = now.monotonic;
        }
        slot.connection.received(received, spare);
        self.counters.received_bytes += received as u64;
        if slot.is_closing {
            return;
        }
        slot.buffer = buffer;
        self.make_ready(index);
    }

    fn sent(&mut self, now: Now, id: ConnectionId, bytes: usize) {
        let Some(index) = self.connections.find(id) else { return };
        let slot = &mut self.connections[index];
        let left = bytes.min(slot.unsent);
        slot.unsent -= left;
        slot.sent_at = now.monotonic;
        self.unsent -= left;
        let may_go_on = slot.stall == Some(Stall::Unsent);
        if may_go_on && self.connections[index].unsent <= self.unsent_bytes_max() / 2 {
            self.make_ready(index);
        }
    }

    fn closed(&mut self, now: Now, id: ConnectionId) {
        let Some(slot) = self.connections.remove(id) else { return };
        self.counters.connections -= 1;
        if !slot.is_closing {
            self.counters.count_close(CloseCause::Peer);
        }
        self.memory.release(slot.charged);
        self.unsent -= slot.unsent;
        let peer = Peer { shard: self.config.shard, connection: id };
        if self.is_serving() {
            self.engine.connection_closed(now, peer, &mut self.effects);
            // Transient segments of the connection may have gone.
            self.trim.ask();
        }
        for shard in slot.forwarded {
            let mail = Mail::ConnectionClosed { shard: peer.shard, connection: id };
            self.send_mail(shard, mail);
        }
    }

    /// Hands commands of ready connections to the engine until the budget is spent.
    fn handle(&mut self, now: Now) {
        let mut left = TurnLeft::new(self.config.turn);
        if self.engine.next_deadline().is_some_and(|due| due <= now.monotonic) {
            self.engine.tick(now, &mut self.effects);
        }
        self.handle_held_mail(now);
        self.give_up_late_peers(now);
        self.wake_stalled();
        // Each connection gets its turn before any gets a second one.
        while !left.is_spent() && !self.is_stopping() {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(index) = self.connections.find(id) else { continue };
            self.connections[index].is_ready = false;
            self.handle_connection(now, index, &mut left);
        }
        self.perform();
        self.grant_waiting(now);
    }

    fn outcome(&mut self, now: Now) -> TurnOutcome {
        let deadlines = [
            self.state_deadline(),
            self.engine.next_deadline().filter(|_| self.is_serving()),
            self.env.journal().next_deadline().filter(|_| self.is_serving()),
            self.trim.next_deadline(self.config.trim_interval).filter(|_| self.is_serving()),
            self.post.next_deadline(now.monotonic),
            self.patience_due,
            self.looks.next_deadline(),
        ];
        TurnOutcome {
            has_work_left: self.is_serving() && !self.is_stopping() && !self.ready.is_empty(),
            next_deadline: deadlines.into_iter().flatten().min(),
        }
    }
}
