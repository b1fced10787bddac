//! What the ring can be asked to do, as values that own everything the kernel will touch.
//!
//! An [`Operation`] holds its descriptors, names and memory. The ring keeps it in its slab from
//! the moment the submission entry is built until the kernel has posted the last completion, so
//! the pointers inside an entry are valid for as long as the kernel may follow them. Everything a
//! pointer leads to lies on the heap: moving an operation does not move it.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use io_uring::types::{Fd, FsyncFlags, Timespec};
use io_uring::{opcode, squeue};

/// Most pieces that one send gathers. The kernel's bound is 1024; 64 pieces of a few hundred bytes
/// fill a packet burst already, and the vector stays within a page.
const SEND_PIECES_MAX: usize = 64;

/// Receive only once the socket is readable: spares the attempt that would find nothing.
const RECEIVE_POLL_FIRST: u16 = 1;

/// What a sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncKind {
    /// Data, and the metadata needed to read them back.
    Data,
    /// Everything.
    Full,
}

/// One thing for the kernel to do, with all that it needs.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Opens `name` in a directory.
    Open { directory: Rc<OwnedFd>, name: CString, flags: i32, mode: u32 },
    /// Allocates the file's first `bytes` bytes and grows it to that size.
    Allocate { file: Rc<OwnedFd>, bytes: u64 },
    /// Renames within a directory.
    Rename { directory: Rc<OwnedFd>, from: CString, to: CString },
    /// Removes a name of a directory.
    Remove { directory: Rc<OwnedFd>, name: CString },
    /// Makes completed writes durable.
    Sync { file: Rc<OwnedFd>, kind: SyncKind },
    /// Writes `bytes` at `offset`; durable on completion when `data_sync` says so.
    Write { file: Rc<OwnedFd>, offset: u64, bytes: Bytes, data_sync: bool },
    /// Reads up to `length` bytes into the spare capacity of `memory`.
    Read { file: Rc<OwnedFd>, offset: u64, memory: BytesMut, length: usize },
    /// Accepts one connection: many at once could not be slowed down.
    Accept { listener: Rc<OwnedFd> },
    /// Receives into the spare capacity of `memory`.
    Receive { socket: Rc<OwnedFd>, memory: BytesMut, poll_first: bool },
    /// Sends the pieces of a message.
    Send { socket: Rc<OwnedFd>, message: Box<Message> },
    /// Completes after a time.
    Timeout { after: Box<Timespec> },
    /// Asks the kernel to give up the operation that was submitted under this number.
    Cancel { target: u64 },
}

impl Operation {
    /// A timeout that completes after `delay`.
    pub(crate) fn timeout(delay: Duration) -> Self {
        Self::Timeout { after: Box::new(Timespec::from(delay)) }
    }

    /// Whether a positive result is a new descriptor.
    pub(crate) fn gives_descriptor(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Accept { .. })
    }

    /// The submission entry. Its pointers are valid while `self` lives.
    pub(crate) fn entry(&mut self) -> squeue::Entry {
        match self {
            Self::Write { .. } | Self::Read { .. } | Self::Receive { .. } | Self::Send { .. } => {
                self.transfer_entry()
            }
            Self::Open { directory, name, flags, mode } => {
                opcode::OpenAt::new(descriptor(directory), name.as_ptr())
                    .flags(*flags)
                    .mode(*mode)
                    .build()
            }
            Self::Allocate { file, bytes } => {
                opcode::Fallocate::new(descriptor(file), *bytes).build()
            }
            Self::Rename { directory, from, to } => {
                let directory = descriptor(directory);
                opcode::RenameAt::new(directory, from.as_ptr(), directory, to.as_ptr()).build()
            }
            Self::Remove { directory, name } => {
                opcode::UnlinkAt::new(descriptor(directory), name.as_ptr()).build()
            }
            Self::Sync { file, kind } => {
                let flags = match kind {
                    SyncKind::Data => FsyncFlags::DATASYNC,
                    SyncKind::Full => FsyncFlags::empty(),
                };
                opcode::Fsync::new(descriptor(file)).flags(flags).build()
            }
            Self::Accept { listener } => {
                let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
                opcode::Accept::new(descriptor(listener), address, length)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Self::Timeout { after } => opcode::Timeout::new(&raw const **after).build(),
            Self::Cancel { target } => opcode::AsyncCancel::new(*target).build(),
        }
    }

    /// The entry of an operation that a test spoils. It never lets the kernel touch more than
    /// [`entry`](Self::entry) would.
    #[cfg(feature = "trace")]
    pub(crate) fn spoilt_entry(&mut self, fate: crate::trace::Fate) -> squeue::Entry {
        use crate::trace::Fate;
        match (fate, self) {
            (Fate::Normal, operation) => operation.entry(),
            // No such descriptor: fails at once, and cuts a link as any failure does.
            (Fate::Fails, _) => opcode::Fsync::new(Fd(-1)).build(),
            (Fate::Shortened(count), Self::Write { file, offset, bytes, data_sync }) => {
                let count = bounded(count.min(bytes.len()));
                opcode::Write::new(descriptor(file), bytes.as_ptr(), count)
                    .offset(*offset)
                    .rw_flags(if *data_sync { libc::RWF_DSYNC } else { 0 })
                    .build()
            }
            (Fate::Shortened(count), Self::Read { file, offset, memory, length }) => {
                let count = bounded(count.min(*length));
                let spare = memory.spare_capacity_mut();
                assert!(count as usize <= spare.len(), "a read fits the memory given for it");
                opcode::Read::new(descriptor(file), spare.as_mut_ptr().cast(), count)
                    .offset(*offset)
                    .build()
            }
            (Fate::Shortened(_), _) => unreachable!("only transfers of files are shortened"),
        }
    }

    fn transfer_entry(&mut self) -> squeue::Entry {
        match self {
            Self::Write { file, offset, bytes, data_sync } => {
                opcode::Write::new(descriptor(file), bytes.as_ptr(), bounded(bytes.len()))
                    .offset(*offset)
                    .rw_flags(if *data_sync { libc::RWF_DSYNC } else { 0 })
                    .build()
            }
            Self::Read { file, offset, memory, length } => {
                let spare = memory.spare_capacity_mut();
                assert!(*length <= spare.len(), "a read fits the memory given for it");
                opcode::Read::new(descriptor(file), spare.as_mut_ptr().cast(), bounded(*length))
                    .offset(*offset)
                    .build()
            }
            Self::Receive { socket, memory, poll_first } => {
                let spare = memory.spare_capacity_mut();
                let length = bounded(spare.len());
                opcode::Recv::new(descriptor(socket), spare.as_mut_ptr().cast(), length)
                    .ioprio(if *poll_first { RECEIVE_POLL_FIRST } else { 0 })
                    .build()
            }
            Self::Send { socket, message } => {
                opcode::SendMsg::new(descriptor(socket), message.prepare())
                    .flags(libc::MSG_NOSIGNAL as u32)
                    .build()
            }
            _ => unreachable!("only transfers come here"),
        }
    }

    /// Takes over `count` bytes that the kernel put into the spare capacity of this operation's
    /// memory.
    ///
    /// # Safety
    /// The kernel has completed this very operation with the result `count`, which is thus not
    /// more than the length that [`entry`](Self::entry) named.
    pub(crate) unsafe fn take_in(&mut self, count: usize) {
        if let Self::Read { memory, .. } | Self::Receive { memory, .. } = self {
            let length = memory.len() + count;
            assert!(length <= memory.capacity(), "the kernel wrote within the memory given to it");
            // SAFETY: the kernel initialised `count` bytes behind the old length (contract of this
            // function), and the capacity has just been checked.
            unsafe { memory.set_len(length) };
        }
    }
}

/// Pieces to be sent together, with the arrays that the kernel reads them through.
pub(crate) struct Message {
    pieces: VecDeque<Bytes>,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Message {
    /// An empty message.
    pub(crate) fn new() -> Self {
        // SAFETY: a msghdr is plain numbers and pointers; all zero means no name, no pieces.
        let header = unsafe { std::mem::zeroed() };
        Self { pieces: VecDeque::new(), vectors: Vec::new(), header }
    }

    /// Moves pieces from the front of `queue` into the message, up to its bound.
    pub(crate) fn gather(&mut self, queue: &mut VecDeque<Bytes>) {
        while self.pieces.len() < SEND_PIECES_MAX
            && let Some(piece) = queue.pop_front()
        {
            self.pieces.push_back(piece);
        }
    }

    /// Whether nothing is left to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Drops the first `count` bytes: they have left.
    ///
    /// # Panics
    /// When the message is shorter.
    pub(crate) fn sent(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.pieces.front_mut().expect("no more bytes leave than were given");
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }

    fn prepare(&mut self) -> *const libc::msghdr {
        self.vectors.clear();
        self.vectors.extend(self.pieces.iter().map(|piece| libc::iovec {
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        }));
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        &raw const self.header
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Message").field("pieces", &self.pieces.len()).finish()
    }
}

/// Makes an owned descriptor from what the kernel returned.
///
/// # Safety
/// `result` is a descriptor that the kernel has just created for us and that nobody else owns.
pub(crate) unsafe fn owned(result: i32) -> OwnedFd {
    // SAFETY: passed on to the caller.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// Turns an owned descriptor into any type that can own one; for types of other crates that offer
/// no safe way in.
pub fn adopt<T: FromRawFd>(descriptor: OwnedFd) -> T {
    // SAFETY: the descriptor is open, and its ownership passes over.
    unsafe { T::from_raw_fd(descriptor.into_raw_fd()) }
}

fn descriptor(owner: &Rc<OwnedFd>) -> Fd {
    Fd(owner.as_raw_fd())
}

/// A length for one submission entry. Longer transfers end short, and their owner goes on.
fn bounded(length: usize) -> u32 {
    const TRANSFER_BYTES_MAX: usize = 1 << 30;
    u32::try_from(length.min(TRANSFER_BYTES_MAX)).expect("2^30 fits 32 bits")
}
