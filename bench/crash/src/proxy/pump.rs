//! One direction of one connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::rules::{End, Rules};
use super::{Direction, Link, Shared, count};

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// How often a writer whose peer takes nothing looks whether it is still wanted.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_millis(100);

/// How a direction ended.
enum Over {
    /// Its source ended in order, or a rule ended it in order.
    Ended,
    /// Its source ended and nobody is to know.
    Swallowed,
    /// A socket failed, a rule said so, or the proxy is closed.
    Broken,
}

/// Passes bytes on until an end.
pub(super) fn run(link: &Link, direction: Direction, rules: &Rules, shared: &Shared) {
    let (from, to) = match direction {
        Direction::ToServer => (&link.client, &link.server),
        Direction::ToClient => (&link.server, &link.client),
    };
    let begun = Instant::now();
    let mut pump = Pump { link, from, to, direction, rules, shared, passed: 0, begun };
    match pump.pass() {
        Over::Ended if !link.is_broken() => {
            let _ = to.shutdown(Shutdown::Write);
        }
        Over::Swallowed => {}
        Over::Ended | Over::Broken => {
            link.break_up();
            shared.changed.notify_all();
        }
    }
}

struct Pump<'a> {
    link: &'a Link,
    from: &'a TcpStream,
    to: &'a TcpStream,
    direction: Direction,
    rules: &'a Rules,
    shared: &'a Shared,
    /// Bytes passed on so far.
    passed: u64,
    begun: Instant,
}

impl Pump<'_> {
    fn pass(&mut self) -> Over {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut held = match self.read(&mut buffer) {
                Ok(0) => return Over::Ended,
                Ok(read) => read,
                Err(_) => return Over::Broken,
            };
            if held < self.rules.coalesce_bytes {
                held = self.coalesce(&mut buffer, held);
            }
            if !self.rules.delay.is_zero() {
                count(&self.shared.tally.delayed, 1);
                if !self.shared.pause(self.rules.delay) {
                    return Over::Broken;
                }
            }
            let is_open = self.shared.await_passage(self.direction, || !self.link.is_broken());
            // What a partition held when the connection was reset is lost.
            if !is_open || self.link.is_broken() {
                return Over::Broken;
            }
            match self.deliver(&buffer[..held]) {
                Ok(None) => {}
                Ok(Some(End::Reset)) => {
                    count(&self.shared.tally.resets, 1);
                    return Over::Broken;
                }
                Ok(Some(End::HalfClose)) => {
                    count(&self.shared.tally.half_closes, 1);
                    let _ = self.to.shutdown(Shutdown::Write);
                    return self.swallow(&mut buffer);
                }
                Ok(Some(End::Blackhole)) => {
                    count(&self.shared.tally.blackholes, 1);
                    return self.swallow(&mut buffer);
                }
                Err(_) => return Over::Broken,
            }
        }
    }

    fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match (&mut &*self.from).read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Holds what was read until more is there or the time is over; gives the bytes held.
    fn coalesce(&self, buffer: &mut [u8], mut held: usize) -> usize {
        count(&self.shared.tally.coalesced, 1);
        let end = Instant::now() + self.rules.coalesce_time;
        let wanted = self.rules.coalesce_bytes.min(buffer.len());
        while held < wanted {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.from.set_read_timeout(Some(left)).is_err() {
                break;
            }
            match (&mut &*self.from).read(&mut buffer[held..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => held += read,
            }
        }
        // An end or a failure is met again by the next read.
        let _ = self.from.set_read_timeout(None);
        held
    }

    /// Writes in pieces, at the pace of the rules; gives the end when its byte is reached.
    fn deliver(&mut self, bytes: &[u8]) -> std::io::Result<Option<End>> {
        let mut left = bytes;
        let mut end = None;
        if let Some((at, how)) = self.rules.end {
            let room = usize::try_from(at - self.passed).unwrap_or(usize::MAX);
            if room <= left.len() {
                left = &left[..room];
                end = Some(how);
            }
        }
        let piece_bytes =
            if self.rules.piece_bytes == 0 { left.len() } else { self.rules.piece_bytes };
        while !left.is_empty() {
            let (piece, rest) = left.split_at(piece_bytes.min(left.len()));
            if !rest.is_empty() {
                count(&self.shared.tally.splits, 1);
            }
            self.write(piece)?;
            self.passed += piece.len() as u64;
            count(&self.shared.tally.bytes, piece.len() as u64);
            left = rest;
            self.keep_pace()?;
        }
        Ok(end)
    }

    fn write(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match (&mut &*self.to).write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.link.is_broken() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the bytes passed so far are due.
    fn keep_pace(&self) -> std::io::Result<()> {
        if self.rules.bytes_per_second == 0 {
            return Ok(());
        }
        let due = Duration::from_secs_f64(self.passed as f64 / self.rules.bytes_per_second as f64);
        let ahead = due.saturating_sub(self.begun.elapsed());
        // Shorter waits than the system can keep would only slow everything down.
        if ahead < Duration::from_millis(1) {
            return Ok(());
        }
        count(&self.shared.tally.delayed, 1);
        if self.shared.pause(ahead) { Ok(()) } else { Err(ErrorKind::Interrupted.into()) }
    }

    /// Takes bytes and drops them until the source ends.
    fn swallow(&self, buffer: &mut [u8]) -> Over {
        loop {
            match self.read(buffer) {
                // The other direction ends by itself or with the proxy.
                Ok(0) => return Over::Swallowed,
                Ok(read) => count(&self.shared.tally.swallowed_bytes, read as u64),
                Err(_) => return Over::Broken,
            }
        }
    }
}
