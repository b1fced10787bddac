//! A small connection: a socket, what is to be sent, what was received. Thousands of them fit.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use thalweg_wire::{
    Command, CreateSegment, Decoder, FRAME_BYTES_MAX, Hello, Message, SetupAppend, Text,
};

use crate::locate::Place;

/// How long a blocking exchange waits.
const REPLY_WAIT: Duration = Duration::from_secs(60);

/// See the module's comment.
pub(crate) struct Wire {
    socket: TcpStream,
    pub(crate) out: BytesMut,
    received: BytesMut,
    decoder: Decoder,
}

impl Wire {
    /// Connects and exchanges greetings.
    pub(crate) fn greeted(address: &str) -> anyhow::Result<Self> {
        let socket =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(REPLY_WAIT))?;
        socket.set_write_timeout(Some(REPLY_WAIT))?;
        let decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut wire = Self { socket, out: BytesMut::new(), received: BytesMut::new(), decoder };
        match wire.ask(&Hello::OURS)? {
            Command::Hello(_) => Ok(wire),
            other => bail!("{address} answers the greeting with {other:?}"),
        }
    }

    /// Opens an append session; gives the last event number.
    pub(crate) fn set_up(&mut self, segment: &str, writer_id: u128) -> anyhow::Result<i64> {
        let (segment, delegation_token) = (Text::from(segment), Text::new());
        let reply = self.ask(&SetupAppend { request_id: 1, writer_id, segment, delegation_token });
        match reply? {
            Command::AppendSetup(reply) => Ok(reply.last_event_number),
            other => bail!("no set-up: {other:?}"),
        }
    }

    /// Sends a command and waits for the next reply; while blocking.
    pub(crate) fn ask(&mut self, message: &impl Message) -> anyhow::Result<Command> {
        message.encode(&mut self.out);
        self.socket.write_all(&self.out)?;
        self.out.clear();
        loop {
            if let Some(command) = self.decoder.decode(&mut self.received)? {
                return Ok(command);
            }
            ensure!(self.receive()?, "no reply within {REPLY_WAIT:?}");
        }
    }

    /// From now on neither sending nor receiving waits.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Gives the kernel what it takes of `out`; whether all of it went.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.out.split_to(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes what has arrived, once; false when nothing has. The end is an error.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        let mut scratch = [0; 4096];
        loop {
            match self.socket.read(&mut scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.received.extend_from_slice(&scratch[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next command that has arrived whole.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Command>> {
        Ok(self.decoder.decode(&mut self.received)?)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Creates all segments.
pub(crate) fn create_all(places: &[Place]) -> anyhow::Result<()> {
    for place in places {
        let reply = Wire::greeted(&place.address)?.ask(&CreateSegment {
            request_id: 1,
            segment: Text::from(place.segment.as_str()),
            target_rate: 0,
            scale_type: 0,
            delegation_token: Text::new(),
            rollover_size_bytes: 0,
        })?;
        ensure!(matches!(reply, Command::SegmentCreated(_)), "{}: {reply:?}", place.segment);
    }
    Ok(())
}
