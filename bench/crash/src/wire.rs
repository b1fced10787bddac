//! One blocking connection in the segment-store protocol.
//!
//! Waits are cut into slices, so that a connection notices soon that its lane is to stop. What the
//! server sends is data to be judged: nothing here panics on it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlockEnd, Command, ConditionalBlockEnd, Decoder, FRAME_BYTES_MAX, Hello, KeepAlive,
    SetupAppend, Text,
};

/// Why there is no reply, or none that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The connection ended: the server closed it, is gone, or the network broke it.
    #[error("the connection ended")]
    Closed,
    /// The connection stands and nothing came for as long as the wire is patient.
    #[error("no reply within {0:?}, and the connection stands")]
    Silent(Duration),
    /// The lane was asked to end.
    #[error("the load is over")]
    Stopped,
    /// Something that must never be.
    #[error("{0}")]
    Wrong(String),
}

impl Trouble {
    /// Fails a lane with what must never be.
    pub fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }
}

/// A reply, or none.
pub type Answer = Result<Command, Trouble>;

/// A switch that ends waits of all connections that know it.
#[derive(Clone, Debug, Default)]
pub struct StopSwitch(Arc<AtomicBool>);

impl StopSwitch {
    /// Ends waits from now on.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether waits end.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Longest wait of one system call.
const SLICE: Duration = Duration::from_millis(50);

/// An open connection on which Hello was exchanged.
pub struct Wire {
    socket: TcpStream,
    decoder: Decoder,
    received: BytesMut,
    next_id: i64,
    scratch: Vec<u8>,
    patience: Duration,
    stop: StopSwitch,
}

impl Wire {
    /// Connects and exchanges Hello. `patience` bounds each wait for a reply and for room to send.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn connect(
        address: SocketAddr,
        patience: Duration,
        stop: &StopSwitch,
    ) -> Result<Self, Trouble> {
        let mut wire = Self::connect_silently(address, patience, stop)?;
        wire.send(Hello::OURS)?;
        match wire.receive()? {
            Command::Hello(hello) if hello.overlaps(&Hello::OURS) => Ok(wire),
            other => Err(Trouble::wrong(format!("{other:?} instead of Hello"))),
        }
    }

    /// Connects and says nothing.
    ///
    /// # Errors
    /// [`Trouble::Closed`] when nobody is there.
    pub fn connect_silently(
        address: SocketAddr,
        patience: Duration,
        stop: &StopSwitch,
    ) -> Result<Self, Trouble> {
        if stop.is_stopped() {
            return Err(Trouble::Stopped);
        }
        let socket = TcpStream::connect_timeout(&address, patience).map_err(|_| Trouble::Closed)?;
        // A connection that ended already refuses options.
        let is_set = socket.set_nodelay(true).is_ok()
            && socket.set_read_timeout(Some(SLICE)).is_ok()
            && socket.set_write_timeout(Some(SLICE)).is_ok();
        if !is_set {
            return Err(Trouble::Closed);
        }
        Ok(Self {
            socket,
            decoder: Decoder::new(FRAME_BYTES_MAX),
            received: BytesMut::new(),
            next_id: 1,
            scratch: vec![0; 256 << 10],
            patience,
            stop: stop.clone(),
        })
    }

    /// Waits at most this long for the next replies, and for room to send.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// A request id that was not used on this connection.
    pub fn fresh_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn send(&mut self, command: impl Into<Command>) -> Result<(), Trouble> {
        let mut out = BytesMut::new();
        command.into().encode(&mut out);
        self.send_bytes(&out)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// [`Trouble`]; part of the bytes may have been sent.
    pub fn send_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        let begin = Instant::now();
        while !bytes.is_empty() {
            // A block cut here is one that the server must discard whole.
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            match self.socket.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) => self.judge_wait(&error, begin)?,
            }
        }
        Ok(())
    }

    /// Whether to go on after a wait that ended with `error`.
    fn judge_wait(&self, error: &std::io::Error, begin: Instant) -> Result<(), Trouble> {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                if self.stop.is_stopped() {
                    Err(Trouble::Stopped)
                } else if begin.elapsed() > self.patience {
                    Err(Trouble::Silent(self.patience))
                } else {
                    Ok(())
                }
            }
            ErrorKind::Interrupted => Ok(()),
            _ => Err(Trouble::Closed),
        }
    }

    /// The next reply, whatever it answers. Echoed keep-alives are passed over.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn receive(&mut self) -> Answer {
        loop {
            match self.receive_frame()? {
                Command::KeepAlive(_) => {}
                command => return Ok(command),
            }
        }
    }

    /// The next frame, keep-alives included.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn receive_frame(&mut self) -> Answer {
        let begin = Instant::now();
        loop {
            // Also when there is never a wait: a busy server must not keep its load from ending.
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            match self.decoder.decode(&mut self.received) {
                Ok(Some(command)) => return Ok(command),
                Ok(None) => {}
                Err(error) => {
                    return Err(Trouble::wrong(format!("the server sent no command: {error}")));
                }
            }
            match self.socket.read(&mut self.scratch) {
                Ok(0) => return Err(Trouble::Closed),
                Ok(read) => self.received.extend_from_slice(&self.scratch[..read]),
                Err(error) => self.judge_wait(&error, begin)?,
            }
        }
    }

    /// Sends a request made with a fresh id and waits for the reply, which must carry that id.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn ask(&mut self, make: impl FnOnce(i64) -> Command) -> Answer {
        let id = self.fresh_id();
        let request = make(id);
        let name = request.name();
        self.send(request)?;
        let reply = self.receive()?;
        if reply.request_id() == Some(id) {
            return Ok(reply);
        }
        Err(Trouble::wrong(format!("{reply:?} to {name} with request id {id}")))
    }

    /// Sends a keep-alive.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn keep_alive(&mut self) -> Result<(), Trouble> {
        self.send(KeepAlive)
    }

    /// Ends the connection abruptly, whatever is under way.
    pub fn cut(self) {
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Opens an append session: the reply, `AppendSetup` when all is well.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn set_up(&mut self, segment: &str, writer_id: u128) -> Answer {
        self.ask(|request_id| {
            SetupAppend {
                request_id,
                writer_id,
                segment: segment.into(),
                delegation_token: Text::new(),
            }
            .into()
        })
    }

    /// Sends one block of whole events.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn append(
        &mut self,
        writer_id: u128,
        data: Bytes,
        last_event_number: i64,
        event_count: i32,
    ) -> Result<(), Trouble> {
        let request_id = self.fresh_id();
        let size = i32::try_from(data.len())
            .map_err(|_| Trouble::wrong("a block of this program is over 2 GiB"))?;
        self.send(AppendBlockEnd {
            writer_id,
            size_of_whole_events: size,
            data,
            event_count,
            last_event_number,
            request_id,
        })
    }

    /// One append on the condition that the segment has a certain length, and its reply.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn append_at(
        &mut self,
        writer_id: u128,
        data: Bytes,
        event_number: i64,
        expected_offset: i64,
    ) -> Answer {
        self.ask(|request_id| {
            ConditionalBlockEnd { writer_id, event_number, expected_offset, data, request_id }
                .into()
        })
    }
}
