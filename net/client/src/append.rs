//! One writer appending to one segment, with many blocks in flight.
//!
//! A session has a connection of its own, as clients' writers do. It numbers nothing and resends
//! nothing: the caller gives the event numbers, and after [`ClientError`] opens another session and
//! learns there what is durable.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlockEnd, Command, ConditionalBlockEnd, DataAppended, Decoder, Message, Role,
    SetupAppend, Text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::open;
use crate::{Address, ClientError, Refusal, Timeouts};

const READ_BYTES: usize = 64 * 1024;

/// An open append session.
pub struct AppendSession {
    socket: TcpStream,
    decoder: Decoder,
    received: BytesMut,
    out: BytesMut,
    writer_id: u128,
    last_event_number: i64,
    next_request_id: i64,
    limit: Duration,
}

impl AppendSession {
    /// Connects to a store and sets the writer up.
    ///
    /// # Errors
    /// [`Refusal::NoSuchSegment`] and the others of [`ClientError`].
    pub async fn open(
        address: &Address,
        segment: &str,
        writer_id: u128,
        timeouts: Timeouts,
    ) -> Result<Self, ClientError> {
        let (socket, decoder, received) =
            open(&address.host, address.port, timeouts.connect).await?;
        let mut session = Self {
            socket,
            decoder,
            received,
            out: BytesMut::new(),
            writer_id,
            last_event_number: thalweg_wire::NO_EVENT_NUMBER,
            next_request_id: 1,
            limit: timeouts.request,
        };
        let setup = SetupAppend {
            request_id: 0,
            writer_id,
            segment: segment.into(),
            delegation_token: Text::new(),
        };
        setup.encode(&mut session.out);
        session.flush().await?;
        match session.reply().await? {
            Command::AppendSetup(it) => session.last_event_number = it.last_event_number,
            other => return Err(ClientError::Internal(other.name())),
        }
        Ok(session)
    }

    /// Number of the last durable event when the session was opened, `i64::MIN` for a writer that
    /// the segment had never seen.
    pub fn last_event_number(&self) -> i64 {
        self.last_event_number
    }

    /// Queues one atomic append of `event_count` events, of which `event_number` is the last.
    /// `data` is appended as it is: framing is the caller's. Nothing is sent before
    /// [`AppendSession::flush`].
    pub fn append(&mut self, data: Bytes, event_number: i64, event_count: i32) {
        let request_id = self.take_request_id();
        let block = AppendBlockEnd {
            writer_id: self.writer_id,
            size_of_whole_events: i32::try_from(data.len()).unwrap_or(i32::MAX),
            data,
            event_count,
            last_event_number: event_number,
            request_id,
        };
        block.encode(&mut self.out);
    }

    /// Queues an append that is refused unless the segment's length is `expected_offset`.
    pub fn append_conditionally(&mut self, data: Bytes, event_number: i64, expected_offset: i64) {
        let request_id = self.take_request_id();
        let block = ConditionalBlockEnd {
            writer_id: self.writer_id,
            event_number,
            expected_offset,
            data,
            request_id,
        };
        block.encode(&mut self.out);
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`]: the session is lost, appends may have been carried out.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        let lost = |error| ClientError::Unavailable(format!("write: {error}"));
        self.socket.write_all_buf(&mut self.out).await.map_err(lost)
    }

    /// Waits for the next acknowledgement. One may cover several appends.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when an append is refused; the session goes on only after
    /// [`Refusal::ConditionFailed`]. After anything else it is lost.
    pub async fn acknowledgement(&mut self) -> Result<DataAppended, ClientError> {
        match self.reply().await? {
            Command::DataAppended(it) => Ok(it),
            other => Err(ClientError::Internal(other.name())),
        }
    }

    /// Appends and waits until everything up to `event_number` is durable; gives the segment's
    /// length then.
    ///
    /// # Errors
    /// As [`AppendSession::acknowledgement`].
    pub async fn append_durably(
        &mut self,
        data: Bytes,
        event_number: i64,
        event_count: i32,
    ) -> Result<i64, ClientError> {
        self.append(data, event_number, event_count);
        self.flush().await?;
        loop {
            let acknowledged = self.acknowledgement().await?;
            if acknowledged.event_number >= event_number {
                return Ok(acknowledged.current_segment_write_offset);
            }
        }
    }

    fn take_request_id(&mut self) -> i64 {
        let id = self.next_request_id;
        self.next_request_id += 1;
        id
    }

    async fn reply(&mut self) -> Result<Command, ClientError> {
        let limit = self.limit;
        let work = async {
            loop {
                match self.decoder.decode(&mut self.received)? {
                    Some(Command::KeepAlive(_) | Command::Hello(_)) => {}
                    Some(reply) => return Ok(reply),
                    None => {
                        self.received.reserve(READ_BYTES);
                        match self.socket.read_buf(&mut self.received).await {
                            Ok(0) => return Err(ClientError::Closed),
                            Ok(_) => {}
                            Err(error) => {
                                return Err(ClientError::Unavailable(format!("read: {error}")));
                            }
                        }
                    }
                }
            }
        };
        let reply = timeout(limit, work).await.unwrap_or_else(|_| {
            Err(ClientError::Unavailable(format!("no acknowledgement in {limit:?}")))
        })?;
        if reply.role() != Role::Failure
            && reply.code() != thalweg_wire::ConditionalCheckFailed::CODE
        {
            return Ok(reply);
        }
        Err(Refusal::error_of(&reply))
    }
}
