//! One socket to a segment store, speaking commands.
//!
//! A connection begins blocking, for the exchange of requests while a scenario is set up, and is
//! switched to non-blocking for a load that multiplexes several. It knows no segment and keeps no
//! time. A reply that reports a failure is an error here: no scenario expects one.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlockEndHead, AppendBlockEndTail, Command, Decoder, FRAME_BYTES_MAX, Hello, Message, Role,
};

use crate::outbox::Outbox;

/// How long a blocking exchange waits for the server.
const REPLY_WAIT: Duration = Duration::from_secs(60);

/// Requests under way at once in [`Connection::request_all`].
const PIPELINE_REQUESTS: usize = 128;

/// Bytes taken from the socket by one read.
const RECEIVE_BYTES: usize = 256 << 10;

/// A writer's identity on the wire. The low 32 bits are its index in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriterId(pub(crate) u128);

impl WriterId {
    /// Writer `index` of the run with this random number.
    pub(crate) fn new(run: u64, index: usize) -> Self {
        Self(u128::from(run) << 64 | index as u128)
    }

    /// The index given to [`WriterId::new`].
    pub(crate) fn index(id: u128) -> usize {
        (id & u128::from(u32::MAX)) as usize
    }
}

/// A connection whose server has answered the greeting.
pub(crate) struct Connection {
    socket: TcpStream,
    outbox: Outbox,
    decoder: Decoder,
    received: BytesMut,
    scratch: Box<[u8]>,
    next_request_id: i64,
}

impl Connection {
    /// Connects to `host:port` and exchanges greetings.
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let socket =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(REPLY_WAIT))?;
        socket.set_write_timeout(Some(REPLY_WAIT))?;
        let mut connection = Self {
            socket,
            outbox: Outbox::default(),
            decoder: Decoder::new(FRAME_BYTES_MAX),
            received: BytesMut::new(),
            scratch: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            next_request_id: 1,
        };
        connection.send(&Hello::OURS);
        connection.flush()?;
        match connection.wait_command().with_context(|| format!("greet {address}"))? {
            Command::Hello(theirs) if theirs.overlaps(&Hello::OURS) => Ok(connection),
            other => bail!("{address} answers the greeting with {other:?}"),
        }
    }

    /// From now on neither sending nor receiving waits.
    pub(crate) fn set_nonblocking(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.set_nonblocking(true)?)
    }

    /// An id for a request, different from all before on this connection.
    pub(crate) fn request_id(&mut self) -> i64 {
        self.next_request_id += 1;
        self.next_request_id
    }

    /// Queues a command.
    pub(crate) fn send(&mut self, message: &impl Message) {
        message.encode(self.outbox.open());
    }

    /// Queues one append of `event_count` events that end with number `last`, whose bytes are
    /// `data`.
    pub(crate) fn send_block(
        &mut self,
        writer: WriterId,
        event_count: u32,
        last: u64,
        data: &Bytes,
    ) {
        let head = AppendBlockEndHead {
            writer_id: writer.0,
            size_of_whole_events: i32::try_from(data.len()).expect("a block fits one frame"),
            data_length: data.len(),
        };
        head.encode(self.outbox.open());
        self.outbox.push(data);
        let tail = AppendBlockEndTail {
            event_count: i32::try_from(event_count).expect("a block fits one frame"),
            last_event_number: i64::try_from(last).expect("numbers count up from 1"),
            request_id: 1,
        };
        tail.encode(self.outbox.open());
    }

    /// Bytes queued that the kernel has not taken.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Gives the kernel what it takes.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.outbox.write_to(&mut self.socket).context("send to the server")
    }

    /// Takes what has arrived, once. False when nothing has.
    pub(crate) fn receive(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.socket.read(&mut self.scratch) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => {
                    self.received.extend_from_slice(&self.scratch[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("receive from the server"),
            }
        }
    }

    /// The next command that has arrived whole. A failure is an error.
    pub(crate) fn next_command(&mut self) -> anyhow::Result<Option<Command>> {
        match self.decoder.decode(&mut self.received)? {
            Some(command) if command.role() == Role::Failure => {
                bail!("the server refuses: {command:?}")
            }
            other => Ok(other),
        }
    }

    /// Waits for the next command; for blocking connections.
    pub(crate) fn wait_command(&mut self) -> anyhow::Result<Command> {
        loop {
            if let Some(command) = self.next_command()? {
                return Ok(command);
            }
            ensure!(self.receive()?, "the server does not answer within {REPLY_WAIT:?}");
        }
    }

    /// Waits for the next command, which may be a failure; for blocking connections.
    pub(crate) fn wait_any(&mut self) -> anyhow::Result<Command> {
        loop {
            if let Some(command) = self.decoder.decode(&mut self.received)? {
                return Ok(command);
            }
            ensure!(self.receive()?, "the server does not answer within {REPLY_WAIT:?}");
        }
    }

    /// Sends many requests and waits for all replies; for blocking connections. `request` makes the
    /// request for an item from an id that it must carry. Replies come in the order of the items.
    pub(crate) fn request_all<T, M: Message>(
        &mut self,
        items: &[T],
        mut request: impl FnMut(i64, &T) -> M,
    ) -> anyhow::Result<Vec<Command>> {
        let mut replies = Vec::with_capacity(items.len());
        for part in items.chunks(PIPELINE_REQUESTS) {
            let first = self.next_request_id + 1;
            for item in part {
                let id = self.request_id();
                let message = request(id, item);
                self.send(&message);
            }
            self.flush()?;
            let mut found: Vec<Option<Command>> = vec![None; part.len()];
            for _ in part {
                let reply = self.wait_command()?;
                let slot = reply
                    .request_id()
                    .and_then(|id| usize::try_from(id - first).ok())
                    .and_then(|index| found.get_mut(index))
                    .filter(|slot| slot.is_none())
                    .with_context(|| format!("an answer to nothing: {reply:?}"))?;
                *slot = Some(reply);
            }
            replies.extend(found.into_iter().flatten());
        }
        Ok(replies)
    }

    /// Sends one request and waits for its reply; for blocking connections.
    pub(crate) fn request<M: Message>(
        &mut self,
        request: impl FnOnce(i64) -> M,
    ) -> anyhow::Result<Command> {
        let id = self.request_id();
        self.send(&request(id));
        self.flush()?;
        let reply = self.wait_command()?;
        ensure!(reply.request_id() == Some(id), "an answer to nothing: {reply:?}");
        Ok(reply)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
