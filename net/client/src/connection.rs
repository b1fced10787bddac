//! One TCP connection with many requests in flight.
//!
//! Two tasks per connection: one writes what is queued, as much as is there with one call; the
//! other reads replies and hands each to whoever waits for its request id. When either ends, the
//! connection is dead for good: everything in flight is told so, and the pool makes another one.
//! A request that timed out leaves its id behind; a late reply to it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use thalweg_wire::{Command, Decoder, FRAME_BYTES_MAX, Hello, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::ClientError;
use crate::request_id::assign;

/// Requests queued for one connection before callers wait.
const QUEUE_REQUESTS_MAX: usize = 1024;

/// Bytes collected for one write call; more goes into the next.
const WRITE_BYTES: usize = 256 * 1024;

/// Room made for each read call.
const READ_BYTES: usize = 64 * 1024;

type Waiter = oneshot::Sender<Result<Command, ClientError>>;

/// Opens a socket and exchanges Hello; what the peer sent behind its Hello is in the buffer.
pub(crate) async fn open(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<(TcpStream, Decoder, BytesMut), ClientError> {
    let address = || format!("{host}:{port}");
    let work = async {
        let mut socket = TcpStream::connect((host, port))
            .await
            .map_err(|error| ClientError::Unavailable(format!("connect {}: {error}", address())))?;
        let lost =
            |error: std::io::Error| ClientError::Unavailable(format!("{}: {error}", address()));
        socket.set_nodelay(true).map_err(lost)?;
        let mut out = BytesMut::new();
        Hello::OURS.encode(&mut out);
        socket.write_all(&out).await.map_err(lost)?;
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut received = BytesMut::with_capacity(READ_BYTES);
        loop {
            match decoder.decode(&mut received)? {
                Some(Command::Hello(hello)) if hello.overlaps(&Hello::OURS) => break,
                Some(Command::Hello(hello)) => {
                    return Err(ClientError::Unavailable(format!(
                        "{} speaks versions {} to {}",
                        address(),
                        hello.low_version,
                        hello.high_version
                    )));
                }
                Some(other) => return Err(ClientError::Internal(other.name())),
                None => {}
            }
            if socket.read_buf(&mut received).await.map_err(lost)? == 0 {
                return Err(ClientError::Unavailable(format!("{} hung up", address())));
            }
        }
        Ok((socket, decoder, received))
    };
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(ClientError::Unavailable(format!("connect {}: timeout", address())))
    })
}

/// State that the caller, the writing and the reading task share.
#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<i64, Waiter>>,
    is_dead: AtomicBool,
}

impl Shared {
    fn take(&self, id: i64) -> Option<Waiter> {
        self.waiting.lock().expect("nobody panics with it").remove(&id)
    }

    /// Tells everyone in flight. Later requests find `is_dead`.
    fn die(&self, error: &ClientError) {
        let waiting = {
            let mut waiting = self.waiting.lock().expect("nobody panics with it");
            self.is_dead.store(true, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        for waiter in waiting.into_values() {
            // The caller may have given up; nothing is owed then.
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// A connection in use. Dropping it closes the socket and fails what is in flight.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    next_id: AtomicI64,
    tasks: [AbortHandle; 2],
}

impl Connection {
    pub(crate) async fn connect(
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let (socket, decoder, received) = open(host, port, limit).await?;
        let (read, write) = socket.into_split();
        let (queue, queued) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let shared = Arc::new(Shared::default());
        let writing = tokio::spawn(write_all(write, queued, shared.clone())).abort_handle();
        let reading =
            tokio::spawn(read_all(read, decoder, received, shared.clone())).abort_handle();
        Ok(Self { shared, queue, next_id: AtomicI64::new(1), tasks: [writing, reading] })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.shared.is_dead.load(Ordering::Acquire)
    }

    /// Sends a request and waits for the reply with its id.
    pub(crate) async fn request(
        &self,
        mut command: Command,
        limit: Duration,
    ) -> Result<Command, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if !assign(&mut command, id) {
            return Err(ClientError::Invalid(format!("{} is not a request", command.name())));
        }
        if command.encoded_len() > FRAME_BYTES_MAX {
            return Err(ClientError::Invalid(format!("{} is over 16 MiB", command.name())));
        }
        let name = command.name();
        let (waiter, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock().expect("nobody panics with it");
            if self.is_dead() {
                return Err(ClientError::Unavailable("connection lost".to_owned()));
            }
            waiting.insert(id, waiter);
        }
        // Forgets the id also when the caller drops this future.
        let forget = Forget { shared: &self.shared, id };
        let work = async {
            // A closed queue means that the tasks have ended, and then the waiter is told.
            let _ = self.queue.send(command).await;
            answer.await
        };
        let result = match timeout(limit, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ClientError::Unavailable("connection lost".to_owned())),
            Err(_) => Err(ClientError::Unavailable(format!("{name}: no answer in {limit:?}"))),
        };
        drop(forget);
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.die(&ClientError::Closed);
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    id: i64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.take(self.id);
    }
}

async fn write_all(
    mut socket: OwnedWriteHalf,
    mut queued: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
) {
    let mut out = BytesMut::new();
    while let Some(command) = queued.recv().await {
        command.encode(&mut out);
        while out.len() < WRITE_BYTES {
            match queued.try_recv() {
                Ok(command) => command.encode(&mut out),
                Err(_) => break,
            }
        }
        if let Err(error) = socket.write_all(&out).await {
            shared.die(&ClientError::Unavailable(format!("write: {error}")));
            return;
        }
        out.advance(out.len());
        if out.capacity() > 2 * WRITE_BYTES {
            out = BytesMut::new();
        }
    }
}

async fn read_all(
    mut socket: OwnedReadHalf,
    mut decoder: Decoder,
    mut received: BytesMut,
    shared: Arc<Shared>,
) {
    let error = loop {
        match decoder.decode(&mut received) {
            Ok(Some(reply)) => {
                // Without an id (a Hello, a KeepAlive) or without a waiter it is nobody's.
                if let Some(waiter) = reply.request_id().and_then(|id| shared.take(id)) {
                    let _ = waiter.send(Ok(reply));
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => break ClientError::Corrupt(error),
        }
        received.reserve(decoder.needed(&received).max(READ_BYTES));
        match socket.read_buf(&mut received).await {
            Ok(0) => break ClientError::Unavailable("the store hung up".to_owned()),
            Ok(_) => {}
            Err(error) => break ClientError::Unavailable(format!("read: {error}")),
        }
    };
    shared.die(&error);
}
