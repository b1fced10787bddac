//! Bytes on their way into one socket: small pieces are copied together, large ones are kept where
//! they are and handed to the kernel in place.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes, BytesMut};

/// From this size on a piece is not copied. Copying costs less than another slice below it.
const IN_PLACE_BYTES_MIN: usize = 16 << 10;

/// Most slices of one write.
const SLICES_MAX: usize = 64;

/// Bytes not yet taken by the kernel, in order.
#[derive(Default)]
pub(crate) struct Outbox {
    closed: VecDeque<Bytes>,
    open: BytesMut,
    closed_bytes: usize,
}

impl Outbox {
    /// Bytes waiting.
    pub(crate) fn len(&self) -> usize {
        self.closed_bytes + self.open.len()
    }

    /// Where small pieces are written.
    pub(crate) fn open(&mut self) -> &mut BytesMut {
        &mut self.open
    }

    /// Adds a piece, in place when it is large.
    pub(crate) fn push(&mut self, piece: &Bytes) {
        if piece.len() < IN_PLACE_BYTES_MIN {
            self.open.extend_from_slice(piece);
            return;
        }
        self.close_open();
        self.closed_bytes += piece.len();
        self.closed.push_back(piece.clone());
    }

    /// Writes as much as `socket` takes. Returns when nothing is left or the socket would block.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<()> {
        self.close_open();
        while !self.closed.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.closed) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn close_open(&mut self) {
        if !self.open.is_empty() {
            self.closed_bytes += self.open.len();
            self.closed.push_back(self.open.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.closed_bytes -= written;
        while let Some(front) = self.closed.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.closed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes and then blocks.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Shows that small and large pieces keep their order through a socket that takes them in odd
    /// portions.
    #[test]
    fn pieces_keep_their_order_through_partial_writes() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for round in 0..20_u8 {
            let small = Bytes::from(vec![round; 100]);
            let large = Bytes::from(vec![round ^ 0xFF; IN_PLACE_BYTES_MIN + usize::from(round)]);
            for piece in [small, large] {
                outbox.push(&piece);
                expected.extend_from_slice(&piece);
            }
        }
        assert_eq!(outbox.len(), expected.len());
        let mut socket = Narrow { taken: Vec::new(), room: 0 };
        while outbox.len() > 0 {
            socket.room = 7_919;
            outbox.write_to(&mut socket).expect("it only blocks");
        }
        assert_eq!(socket.taken, expected);
    }
}
