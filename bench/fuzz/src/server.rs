//! A connection with an engine behind it, on a journal that is a map: the smallest thing that
//! answers commands.
//!
//! Frames are durable as soon as they are submitted. Nothing waits, so one call brings everything
//! to rest.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use thalweg_core::engine::Engine;
use thalweg_core::env::journal::{Opened, Recovered};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::id::{ConnectionId, ShardId};
use thalweg_core::limits::Limits;
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, FileId, FrameNumber, JournalAddress};
use thalweg_core::request::{Effect, Peer};
use thalweg_core::time::{Instant, Now, WallTime};
use thalweg_net::{AfterReply, Connection, ConnectionLimits, Placement, Routed, SessionCounter};
use thalweg_wire::{Command, Decoder, FRAME_BYTES_MAX, Hello, Message};

const SHARD: ShardId = ShardId(0);
const CONNECTION: ConnectionId = ConnectionId(1);
const NOW: Now = Now { monotonic: Instant(1), wall: WallTime(1_700_000_000_000) };
/// Rounds after which a server that still has work is taken to run in circles.
const ROUNDS_MAX: usize = 10_000;

/// A frame of a journal: address, number, bytes with header.
pub(crate) type Frame = (JournalAddress, FrameNumber, Bytes);

/// See the module's comment.
pub(crate) struct Server {
    engine: Engine,
    frames: BTreeMap<JournalAddress, Bytes>,
    numbers: BTreeMap<JournalAddress, FrameNumber>,
    next_block: u32,
    connection: Connection,
    sessions: SessionCounter,
    received: BytesMut,
    effects: Vec<Effect>,
    sent: BytesMut,
    is_closed: bool,
    halted: bool,
}

pub(crate) fn limits() -> Limits {
    Limits {
        frame_bytes: 4096,
        slab_bytes: 4 * 4096,
        tail_cache_bytes: 3 * 4096,
        history_cache_bytes: 3 * 4096,
        checkpoint_interval_bytes: 4 * 4096,
        checkpoint_part_bytes: 700,
        ..Limits::default()
    }
}

impl Server {
    /// A server over these frames, which may be anything.
    pub(crate) fn over(frames: &[Frame]) -> Self {
        let placement = Placement::new(1, 1);
        let containers: Vec<_> = placement.containers_of(SHARD).collect();
        let mut engine = Engine::new(SHARD, &containers, limits());
        let found = |frame: &Frame| {
            let (address, number, bytes) = frame.clone();
            Recovered::Frame { address, number, bytes }
        };
        for frame in frames {
            engine.recovered(found(frame));
        }
        if let Some(from) = engine.replay_start() {
            for frame in frames.iter().filter(|(address, ..)| *address >= from) {
                engine.replayed(found(frame));
            }
        }
        let last = frames.last().map_or(FrameNumber(0), |(_, number, _)| *number);
        let opened = Opened {
            epoch: ContainerEpoch(1),
            next_frame: last.next(),
            visited_from: None,
            tail_cut_bytes: 0,
        };
        let mut effects = Vec::new();
        engine.open(opened, NOW, &mut effects);
        let next_block = frames
            .iter()
            .map(|(address, ..)| address.first_block() + address.blocks())
            .max()
            .unwrap_or(1);
        let limits = ConnectionLimits {
            receive_bytes_min: 64,
            receive_bytes_max: 4096,
            ..ConnectionLimits::default()
        };
        let mut server = Self {
            engine,
            frames: frames.iter().map(|(address, _, bytes)| (*address, bytes.clone())).collect(),
            numbers: frames.iter().map(|(address, number, _)| (*address, *number)).collect(),
            next_block,
            connection: Connection::new(CONNECTION, SHARD, placement, limits),
            sessions: SessionCounter::new(SHARD),
            received: BytesMut::new(),
            effects,
            sent: BytesMut::new(),
            is_closed: false,
            halted: false,
        };
        server.settle();
        server
    }

    /// Its frames, oldest first.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let frame = |(address, bytes): (&JournalAddress, &Bytes)| {
            (*address, self.numbers[address], bytes.clone())
        };
        self.frames.iter().map(frame).collect()
    }

    /// Whether a container refused to serve.
    pub(crate) fn has_halted(&self) -> bool {
        self.halted
    }

    /// Takes bytes of the client; nothing once the connection is closed.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        self.received.extend_from_slice(bytes);
        while !self.is_closed {
            match self.connection.next(&mut self.received, &mut self.sessions) {
                Ok(Some(Routed::Request { container, token, request })) => {
                    self.engine.request(NOW, container, token, request, &mut self.effects);
                    self.settle();
                }
                Ok(Some(Routed::Answered)) => self.drain(),
                Ok(None) => break,
                Err(_) => self.close(),
            }
        }
    }

    /// Sends one command, if the connection is still there, and gives what was answered to it.
    pub(crate) fn ask(&mut self, command: &impl Message) -> Vec<Command> {
        let mut bytes = BytesMut::new();
        command.encode(&mut bytes);
        self.receive(&bytes);
        self.replies()
    }

    /// What the client received since the last call: all of it commands.
    pub(crate) fn replies(&mut self) -> Vec<Command> {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut commands = Vec::new();
        while let Some(command) = decoder.decode(&mut self.sent).expect("a server sends commands") {
            commands.push(command);
        }
        assert!(self.sent.is_empty(), "a reply was sent in part");
        commands
    }

    /// A new connection in place of the old.
    pub(crate) fn reconnect(&mut self) {
        if !self.is_closed {
            self.close();
        }
        let placement = Placement::new(1, 1);
        self.connection =
            Connection::new(CONNECTION, SHARD, placement, ConnectionLimits::default());
        self.received.clear();
        self.is_closed = false;
        let _ = self.ask(&Hello::OURS);
    }

    fn close(&mut self) {
        self.drain();
        self.is_closed = true;
        let peer = Peer { shard: SHARD, connection: CONNECTION };
        self.engine.connection_closed(NOW, peer, &mut self.effects);
        self.settle();
    }

    fn drain(&mut self) {
        self.connection.flush();
        let Self { connection, sent, .. } = self;
        connection.drain(|piece| sent.extend_from_slice(&piece));
    }

    /// Lets everything happen that can.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let is_idle = self.effects.is_empty() && self.engine.next_frame_bytes().is_none();
            if is_idle {
                return self.drain();
            }
            for effect in std::mem::take(&mut self.effects) {
                self.perform(effect);
            }
            if self.engine.next_frame_bytes().is_some() {
                self.submit();
            }
        }
        panic!("the engine did not come to rest");
    }

    fn submit(&mut self) {
        let frame = self.engine.seal_frame().expect("one was announced");
        let blocks =
            u32::try_from(frame.bytes.len() as u64 / BLOCK_BYTES).expect("frames are small");
        let address = JournalAddress::new(FileId(1), self.next_block, blocks);
        self.next_block += blocks;
        let (number, bytes) = (frame.number, frame.bytes.freeze());
        self.frames.insert(address, bytes.clone());
        self.numbers.insert(address, number);
        self.engine.submitted(number, address, bytes);
        self.engine.durable(NOW, number, &mut self.effects);
    }

    fn perform(&mut self, effect: Effect) {
        let is_ours = |token: thalweg_core::id::Token| token.connection == CONNECTION;
        match effect {
            Effect::Reply { token, reply } if is_ours(token) && !self.is_closed => {
                if self.connection.reply(token.request, reply) == AfterReply::Close {
                    self.close();
                }
            }
            Effect::Appended { token, session, event_number, length }
                if is_ours(token) && !self.is_closed =>
            {
                self.connection.appended(session, token.request, event_number, length);
            }
            Effect::Close { .. } if !self.is_closed => self.close(),
            Effect::Fetch { address } => {
                let frame = self.frames.get(&address).cloned().ok_or_else(|| {
                    Fault::new(FaultClass::Corrupt, format!("no frame at {address:?}"))
                });
                self.engine.fetched(NOW, address, frame, &mut self.effects);
            }
            Effect::Halt { .. } => self.halted = true,
            Effect::Reply { .. } | Effect::Appended { .. } | Effect::Close { .. } => {}
        }
    }
}

/// Commands of the golden vectors behind a greeting, and a session that works.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut hello = BytesMut::new();
    Hello::OURS.encode(&mut hello);
    let single = crate::wire::vectors().into_iter().map(|frame| [&hello[..], &frame].concat());
    let session = crate::replay::session();
    single.chain([[&hello[..], &session].concat()]).collect()
}

/// Any bytes at a server with one segment and one table: it answers in commands or closes, and
/// serves a new connection afterwards.
pub(crate) fn exchange(input: &[u8]) {
    let mut server = Server::over(&[]);
    server.receive(input);
    let _ = server.replies();
    server.reconnect();
    crate::replay::look_around(&mut server);
    assert!(!server.has_halted(), "a client halted a container");
}
