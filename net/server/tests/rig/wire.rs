//! One blocking connection in the segment-store protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlockEnd, Command, ConditionalBlockEnd, Decoder, FRAME_BYTES_MAX, Hello, SetupAppend,
    Text,
};

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The connection ended: the server closed it or is gone.
    Closed,
    /// The connection stands and nothing came for the time-out.
    Silent,
}

/// A reply, or none.
pub(crate) type Answer = Result<Command, Lost>;

/// Longer than any pause of a server that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open connection on which Hello was exchanged.
pub(crate) struct Wire {
    socket: TcpStream,
    decoder: Decoder,
    received: BytesMut,
    next_id: i64,
    scratch: Vec<u8>,
}

impl Wire {
    /// Connects to a port of this host.
    pub(crate) fn connect(port: u16) -> Result<Self, Lost> {
        let mut wire = Self::connect_silently(port)?;
        wire.send(Hello::OURS)?;
        match wire.receive()? {
            Command::Hello(hello) if hello.overlaps(&Hello::OURS) => Ok(wire),
            other => panic!("{} instead of Hello", other.name()),
        }
    }

    /// Connects and says nothing.
    pub(crate) fn connect_silently(port: u16) -> Result<Self, Lost> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .map_err(|_| Lost::Closed)?;
        socket.set_nodelay(true).expect("an option of TCP");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option of sockets");
        socket.set_write_timeout(Some(PATIENCE)).expect("an option of sockets");
        Ok(Self {
            socket,
            decoder: Decoder::new(FRAME_BYTES_MAX),
            received: BytesMut::new(),
            next_id: 1,
            scratch: vec![0; 256 << 10],
        })
    }

    /// Waits at most this long for the next replies, and for room to send.
    pub(crate) fn patience(&mut self, limit: Duration) {
        self.socket.set_read_timeout(Some(limit)).expect("an option of sockets");
        self.socket.set_write_timeout(Some(limit)).expect("an option of sockets");
    }

    /// A request id that was not used on this connection.
    pub(crate) fn fresh_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn send(&mut self, command: impl Into<Command>) -> Result<(), Lost> {
        let mut out = BytesMut::new();
        command.into().encode(&mut out);
        self.send_bytes(&out)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.socket.write_all(bytes).map_err(|error| lost(&error))
    }

    /// Sends what fits without waiting; gives the bytes taken.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> Result<usize, Lost> {
        self.socket.write(bytes).map_err(|error| lost(&error))
    }

    /// The next reply, whatever it answers. Echoed keep-alives are passed over.
    pub(crate) fn receive(&mut self) -> Answer {
        loop {
            match self.receive_frame()? {
                Command::KeepAlive(_) => {}
                command => return Ok(command),
            }
        }
    }

    /// The next frame, keep-alives included.
    pub(crate) fn receive_frame(&mut self) -> Answer {
        loop {
            match self.decoder.decode(&mut self.received) {
                Ok(Some(command)) => return Ok(command),
                Ok(None) => {}
                Err(error) => panic!("the server sent what is no command: {error}"),
            }
            match self.socket.read(&mut self.scratch) {
                Ok(0) => return Err(Lost::Closed),
                Ok(read) => self.received.extend_from_slice(&self.scratch[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
    }

    /// Sends a request made with a fresh id and waits for the reply, which must carry that id.
    pub(crate) fn ask(&mut self, make: impl FnOnce(i64) -> Command) -> Answer {
        let id = self.fresh_id();
        let request = make(id);
        let name = request.name();
        self.send(request)?;
        let reply = self.receive()?;
        assert_eq!(reply.request_id(), Some(id), "{} to {name}: request id", reply.name());
        Ok(reply)
    }

    /// Ends the connection abruptly, whatever is under way.
    pub(crate) fn cut(self) {
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Opens an append session: the reply, `AppendSetup` when all is well.
    pub(crate) fn set_up(&mut self, segment: &str, writer_id: u128) -> Answer {
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
    pub(crate) fn append(
        &mut self,
        writer_id: u128,
        data: Bytes,
        last_event_number: i64,
        event_count: i32,
    ) -> Result<(), Lost> {
        let request_id = self.fresh_id();
        self.send(AppendBlockEnd {
            writer_id,
            size_of_whole_events: i32::try_from(data.len()).expect("below 16 MiB"),
            data,
            event_count,
            last_event_number,
            request_id,
        })
    }

    /// One append on the condition that the segment has a certain length, and its reply.
    pub(crate) fn append_at(
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

fn lost(error: &std::io::Error) -> Lost {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Lost::Silent,
        _ => Lost::Closed,
    }
}
