//! Bytes on their way to one client, before the network takes them.
//!
//! Small commands are written behind each other into one buffer that is used again once the network
//! has let go of it; large data are queued as the slices they came in.

use bytes::{Bytes, BytesMut};
use thalweg_wire::Message;

/// Memory reserved at a time for small commands: twenty acknowledgements.
const OPEN_BYTES: usize = 1024;

/// What is to be sent, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: Vec<Bytes>,
    open: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Queues a command.
    pub fn put(&mut self, message: &impl Message) {
        self.write(message.encoded_len(), |out| message.encode(out));
    }

    /// Writes about `bytes` bytes behind what is queued.
    pub(crate) fn write(&mut self, bytes: usize, write: impl FnOnce(&mut BytesMut)) {
        if self.open.capacity() - self.open.len() < bytes {
            self.open.reserve(bytes.max(OPEN_BYTES));
        }
        let before = self.open.len();
        write(&mut self.open);
        self.bytes += self.open.len() - before;
    }

    /// Queues a slice without copying it.
    pub(crate) fn share(&mut self, slice: Bytes) {
        self.seal();
        self.bytes += slice.len();
        self.pieces.push(slice);
    }

    /// Bytes queued.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands everything queued to `send`, in order, and says how many bytes it was.
    pub fn drain(&mut self, mut send: impl FnMut(Bytes)) -> usize {
        self.seal();
        self.pieces.drain(..).for_each(&mut send);
        std::mem::take(&mut self.bytes)
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(self.open.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Order is kept between written and shared bytes, and the count is right.
    #[test]
    fn pieces_leave_in_order() {
        let mut outbox = Outbox::default();
        outbox.write(2, |out| out.extend_from_slice(b"ab"));
        outbox.share(Bytes::from_static(b"cde"));
        outbox.write(1, |out| out.extend_from_slice(b"f"));
        let mut sent = Vec::new();
        assert_eq!(outbox.drain(|piece| sent.push(piece)), 6);
        assert_eq!(sent.concat(), b"abcdef");
        assert_eq!((sent.len(), outbox.bytes(), outbox.drain(|_| ())), (3, 0, 0));
    }

    /// The buffer of small commands is used again when what was sent is gone.
    #[test]
    fn the_small_buffer_is_used_again() {
        let mut outbox = Outbox::default();
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            outbox.write(50, |out| out.extend_from_slice(&[7; 50]));
            outbox.drain(|piece| {
                addresses.insert(piece.as_ptr() as usize / OPEN_BYTES);
            });
        }
        assert!(addresses.len() <= 4, "{} different buffers", addresses.len());
    }
}
