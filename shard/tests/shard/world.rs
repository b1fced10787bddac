//! The world of these tests: shards whose journal, network, mailboxes and clock are in memory, and
//! clients that speak the wire protocol.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::Env;
use thalweg_core::env::clock::Clock;
use thalweg_core::env::journal::{Journal, JournalEvent, Opened, Recovered};
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::env::memory::MemoryJournal;
use thalweg_core::env::network::{Network, NetworkEvent};
use thalweg_core::fault::Fault;
use thalweg_core::frame::SealedFrame;
use thalweg_core::id::{ConnectionId, ShardId};
use thalweg_core::position::{FileId, JournalAddress};
use thalweg_core::time::{Instant, Now, WallTime};
use thalweg_shard::{CloseCause, Config, Placement, Shard, TurnOutcome};
use thalweg_wire::*;

pub(crate) const WRITER: u128 = 0xABCD;

/// A journal in memory whose next recoveries may fail.
pub(crate) struct TestJournal {
    pub(crate) memory: MemoryJournal,
    pub(crate) recover_faults: VecDeque<Fault>,
}

impl Journal for TestJournal {
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered)) -> Result<Opened, Fault> {
        match self.recover_faults.pop_front() {
            Some(fault) => Err(fault),
            None => self.memory.recover(visit),
        }
    }

    fn replay(
        &mut self,
        from: JournalAddress,
        visit: &mut dyn FnMut(Recovered),
    ) -> Result<(), Fault> {
        self.memory.replay(from, visit)
    }

    fn submit(
        &mut self,
        frame: SealedFrame,
        replay_from: Option<JournalAddress>,
        now: Instant,
    ) -> (JournalAddress, Bytes) {
        self.memory.submit(frame, replay_from, now)
    }

    fn can_submit(&self, frame_bytes: u64) -> bool {
        self.memory.can_submit(frame_bytes)
    }

    fn room_bytes(&self) -> u64 {
        self.memory.room_bytes()
    }

    fn fetch(&mut self, address: JournalAddress) {
        self.memory.fetch(address);
    }

    fn trim(&mut self, replay_from: JournalAddress, is_referenced: &dyn Fn(FileId) -> bool) {
        self.memory.trim(replay_from, is_referenced);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<JournalEvent>) {
        self.memory.poll(now, events);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.memory.next_deadline()
    }

    fn frames_in_flight(&self) -> usize {
        self.memory.frames_in_flight()
    }
}

/// One client's link.
#[derive(Default)]
pub(crate) struct Link {
    /// Sent by the client, not received by the shard.
    pub(crate) to_shard: BytesMut,
    /// The buffer that waits for bytes.
    armed: Option<BytesMut>,
    /// Sent by the shard, not looked at by the test.
    pub(crate) to_client: BytesMut,
    unreported: usize,
    /// The client does not read: nothing that is sent leaves.
    pub(crate) is_stuck: bool,
    /// The shard closed it, or the client.
    pub(crate) is_closed: bool,
    is_reported_closed: bool,
}

/// Byte streams that a test holds both ends of.
#[derive(Default)]
pub(crate) struct TestNetwork {
    next: u64,
    accepted: Vec<ConnectionId>,
    pub(crate) links: BTreeMap<ConnectionId, Link>,
}

impl Network for TestNetwork {
    fn receive(&mut self, connection: ConnectionId, buffer: BytesMut) {
        assert!(buffer.capacity() > buffer.len(), "there is room to receive into");
        let link = self.links.get_mut(&connection).expect("it was accepted");
        assert!(link.armed.is_none(), "at most one receive is out");
        if !link.is_closed {
            link.armed = Some(buffer);
        }
    }

    fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        let link = self.links.get_mut(&connection).expect("it was accepted");
        if !link.is_closed {
            link.to_client.extend_from_slice(&bytes);
            link.unreported += bytes.len();
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.links.get_mut(&connection).expect("it was accepted").is_closed = true;
    }

    fn poll(&mut self, events: &mut Vec<NetworkEvent>) {
        for connection in self.accepted.drain(..) {
            events.push(NetworkEvent::Accepted { connection });
        }
        for (&connection, link) in &mut self.links {
            if link.unreported > 0 && !link.is_stuck && !link.is_closed {
                let bytes = std::mem::take(&mut link.unreported);
                events.push(NetworkEvent::Sent { connection, bytes });
            }
            if link.is_closed {
                if !std::mem::replace(&mut link.is_reported_closed, true) {
                    events.push(NetworkEvent::Closed { connection });
                }
                continue;
            }
            if link.to_shard.is_empty() {
                continue;
            }
            if let Some(mut buffer) = link.armed.take() {
                let spare = buffer.capacity() - buffer.len();
                let bytes = link.to_shard.split_to(spare.min(link.to_shard.len()));
                buffer.extend_from_slice(&bytes);
                events.push(NetworkEvent::Received { connection, buffer });
            }
        }
    }
}

type Queues = Rc<RefCell<BTreeMap<(ShardId, ShardId), VecDeque<Mail>>>>;

/// Bounded queues between the shards of one test.
pub(crate) struct TestMailbox {
    shard: ShardId,
    capacity: usize,
    queues: Queues,
}

impl Mailbox for TestMailbox {
    fn send(&mut self, to: ShardId, mail: Mail) -> Result<(), Box<Mail>> {
        let mut queues = self.queues.borrow_mut();
        let queue = queues.entry((self.shard, to)).or_default();
        if queue.len() >= self.capacity {
            return Err(Box::new(mail));
        }
        queue.push_back(mail);
        Ok(())
    }

    fn poll(&mut self, mail: &mut Vec<(ShardId, Mail)>) {
        for ((from, to), queue) in self.queues.borrow_mut().iter_mut() {
            if *to == self.shard {
                mail.extend(queue.drain(..).map(|mail| (*from, mail)));
            }
        }
    }
}

/// Time that stands still until a test moves it.
#[derive(Default)]
pub(crate) struct TestClock {
    pub(crate) now: Instant,
}

impl Clock for TestClock {
    fn now(&mut self) -> Now {
        Now { monotonic: self.now, wall: WallTime(1_700_000_000_000) }
    }
}

/// Everything outside of one shard.
pub(crate) struct TestEnv {
    pub(crate) journal: TestJournal,
    pub(crate) network: TestNetwork,
    pub(crate) mailbox: TestMailbox,
    pub(crate) clock: TestClock,
}

impl Env for TestEnv {
    type Journal = TestJournal;
    type Network = TestNetwork;
    type Mailbox = TestMailbox;
    type Clock = TestClock;

    fn journal(&mut self) -> &mut TestJournal {
        &mut self.journal
    }

    fn network(&mut self) -> &mut TestNetwork {
        &mut self.network
    }

    fn mailbox(&mut self) -> &mut TestMailbox {
        &mut self.mailbox
    }

    fn clock(&mut self) -> &mut TestClock {
        &mut self.clock
    }
}

/// A client of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    shard: usize,
    connection: ConnectionId,
}

/// Some shards and their clients.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard<TestEnv>>,
    pub(crate) placement: Placement,
}

impl World {
    /// One shard with the default configuration.
    pub(crate) fn new() -> Self {
        Self::with(1, 64, |_| {})
    }

    /// `count` shards with mailboxes for `capacity` mails each, `change` applied to the defaults.
    pub(crate) fn with(count: u16, capacity: usize, change: impl Fn(&mut Config)) -> Self {
        let placement = Placement::new(4 * count, count);
        let queues = Queues::default();
        let shards = (0..count).map(ShardId).map(|shard| {
            let mut config = Config::new(shard, placement);
            config.limits.slab_bytes = 1 << 20;
            config.limits.frame_bytes = 64 << 10;
            change(&mut config);
            let memory = MemoryJournal::new(64);
            let env = TestEnv {
                journal: TestJournal { memory, recover_faults: VecDeque::new() },
                network: TestNetwork::default(),
                mailbox: TestMailbox { shard, capacity, queues: queues.clone() },
                clock: TestClock::default(),
            };
            Shard::boot(env, config).expect("an empty journal opens")
        });
        Self { shards: shards.collect(), placement }
    }

    pub(crate) fn env(&mut self) -> &mut TestEnv {
        self.shards[0].env_mut()
    }

    pub(crate) fn journal(&mut self) -> &mut MemoryJournal {
        &mut self.env().journal.memory
    }

    /// One turn of each shard; the outcome of the last.
    pub(crate) fn turn(&mut self) -> TurnOutcome {
        let outcomes: Vec<_> = self.shards.iter_mut().map(Shard::turn).collect();
        outcomes.last().copied().expect("there is a shard")
    }

    /// Turns until everything that can happen has happened.
    pub(crate) fn settle(&mut self) -> &mut Self {
        for _ in 0..40 {
            self.turn();
        }
        self
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        for shard in &mut self.shards {
            let clock = &mut shard.env_mut().clock;
            clock.now = clock.now.after(time);
        }
    }

    /// Lets time pass in steps of a second, a turn each.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.advance(Duration::from_secs(1));
            self.turn();
        }
    }

    pub(crate) fn closed(&self, cause: CloseCause) -> u64 {
        self.shards[0].counters().closed(cause)
    }

    pub(crate) fn connect(&mut self) -> Client {
        self.connect_to(0)
    }

    pub(crate) fn connect_to(&mut self, shard: usize) -> Client {
        let network = &mut self.shards[shard].env_mut().network;
        network.next += 1;
        let connection = ConnectionId(network.next);
        network.accepted.push(connection);
        network.links.insert(connection, Link::default());
        Client { shard, connection }
    }

    pub(crate) fn link(&mut self, client: Client) -> &mut Link {
        let network = &mut self.shards[client.shard].env_mut().network;
        network.links.get_mut(&client.connection).expect("it was connected")
    }

    pub(crate) fn is_closed(&mut self, client: Client) -> bool {
        self.link(client).is_closed
    }

    pub(crate) fn send(&mut self, client: Client, command: impl Into<Command>) -> &mut Self {
        command.into().encode(&mut self.link(client).to_shard);
        self
    }

    /// Commands that came to the client since the last call.
    pub(crate) fn replies(&mut self, client: Client) -> Vec<Command> {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let bytes = &mut self.link(client).to_client;
        let mut commands = Vec::new();
        while let Some(command) = decoder.decode(bytes).expect("shards send commands") {
            commands.push(command);
        }
        commands
    }

    /// Sends a command, lets everything happen, and gives the one reply.
    pub(crate) fn ask(&mut self, client: Client, command: impl Into<Command>) -> Command {
        self.send(client, command).settle();
        let mut replies = self.replies(client);
        assert_eq!(replies.len(), 1, "one request, one reply: {replies:?}");
        replies.remove(0)
    }

    pub(crate) fn create(&mut self, client: Client, segment: &str) {
        let reply = self.ask(client, create(segment));
        assert_eq!(reply, SegmentCreated { request_id: 1, segment: segment.into() }.into());
    }

    /// Sets the writer up and gives its last event number.
    pub(crate) fn set_up(&mut self, client: Client, segment: &str) -> i64 {
        match self.ask(client, set_up(segment)) {
            Command::AppendSetup(reply) => reply.last_event_number,
            other => panic!("not set up: {other:?}"),
        }
    }

    /// A client with a new segment that it may append to.
    pub(crate) fn writer(&mut self, segment: &str) -> Client {
        let client = self.connect();
        self.create(client, segment);
        assert_eq!(self.set_up(client, segment), i64::MIN);
        client
    }

    pub(crate) fn length(&mut self, client: Client, segment: &str) -> i64 {
        match self.ask(client, info(segment)) {
            Command::StreamSegmentInfo(info) => info.write_offset,
            other => panic!("no info: {other:?}"),
        }
    }
}

pub(crate) fn create(segment: &str) -> CreateSegment {
    CreateSegment {
        request_id: 1,
        segment: segment.into(),
        target_rate: 0,
        scale_type: 0,
        delegation_token: Text::new(),
        rollover_size_bytes: 0,
    }
}

pub(crate) fn set_up(segment: &str) -> SetupAppend {
    SetupAppend {
        request_id: 2,
        writer_id: WRITER,
        segment: segment.into(),
        delegation_token: Text::new(),
    }
}

pub(crate) fn append(data: &[u8], number: i64) -> AppendBlockEnd {
    AppendBlockEnd {
        writer_id: WRITER,
        size_of_whole_events: 0,
        data: Bytes::copy_from_slice(data),
        event_count: 1,
        last_event_number: number,
        request_id: 3,
    }
}

pub(crate) fn appended(number: i64, previous: i64, length: i64) -> Command {
    DataAppended {
        writer_id: WRITER,
        event_number: number,
        previous_event_number: previous,
        request_id: 3,
        current_segment_write_offset: length,
    }
    .into()
}

pub(crate) fn read(segment: &str, offset: i64) -> ReadSegment {
    ReadSegment {
        segment: segment.into(),
        offset,
        suggested_length: 1 << 20,
        delegation_token: Text::new(),
        request_id: 4,
    }
}

pub(crate) fn info(segment: &str) -> GetStreamSegmentInfo {
    let (segment, delegation_token) = (segment.into(), Text::new());
    GetStreamSegmentInfo { request_id: 5, segment, delegation_token }
}

pub(crate) fn seal(segment: &str) -> SealSegment {
    let (segment, delegation_token) = (segment.into(), Text::new());
    SealSegment { request_id: 6, segment, delegation_token }
}

pub(crate) fn truncate(segment: &str, truncation_offset: i64) -> TruncateSegment {
    TruncateSegment {
        request_id: 7,
        segment: segment.into(),
        truncation_offset,
        delegation_token: Text::new(),
    }
}

/// The data of a read's reply.
pub(crate) fn data(reply: &Command) -> &[u8] {
    match reply {
        Command::SegmentRead(read) => &read.data,
        other => panic!("not a read: {other:?}"),
    }
}
