//! What a device really asks of the kernel, and a hand that can spoil it. For tests only: feature
//! `trace`.
//!
//! A [`Trace`] sits below the adapters, where file operations become submission entries or calls:
//! it notes each one when it is handed over and when it returns, and can make one of them fail,
//! fall short or not happen. Sockets, timers and cancellations are none of its business. It decides
//! nothing by itself: which operation is spoilt, and how, is told by the test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use bytes::Bytes;
use thalweg_core::position::BLOCK_BYTES;

use crate::operation::{Operation, SyncKind};

/// A file operation as the kernel is asked for it. Files are named by their descriptor, which is
/// theirs from the return of the opening until another opening returns the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Opens a name; makes it when `creates` says so.
    Open {
        /// The name within the directory.
        name: String,
        /// Whether the file is made if it is not there.
        creates: bool,
    },
    /// Allocates the first bytes of a file and sets its size.
    Allocate {
        /// Descriptor.
        file: i32,
        /// Bytes.
        bytes: u64,
    },
    /// Renames within the directory.
    Rename {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// Removes a name.
    Remove {
        /// The name.
        name: String,
    },
    /// Makes durable what was written before.
    Sync {
        /// Descriptor, of the directory too.
        file: i32,
    },
    /// Writes.
    Write {
        /// Descriptor.
        file: i32,
        /// Offset, bytes.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Whether these bytes are durable when the call returns.
        is_durable: bool,
    },
    /// Reads.
    Read {
        /// Descriptor.
        file: i32,
        /// Offset, bytes.
        offset: u64,
        /// Bytes asked for.
        length: usize,
    },
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A device was opened on the directory with this descriptor.
    Directory {
        /// Descriptor.
        file: i32,
    },
    /// A call was handed over.
    Called {
        /// Number of the call, which [`Note::Returned`] repeats.
        number: u64,
        /// The call.
        call: Call,
        /// It begins when the call before it has succeeded, not earlier.
        is_linked: bool,
    },
    /// A call came back.
    Returned {
        /// Number of the call.
        number: u64,
        /// As the adapter was told: a count or descriptor, or a negative error number.
        result: i32,
    },
    /// Something that the test noted itself.
    Mark(u64),
}

/// How a call is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// It is not carried out and returns this error number.
    Error(i32),
    /// A transfer moves less than it was asked to; anything else does not happen (`EINTR`).
    Short,
}

/// What the ring does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Normal,
    /// Hand over an entry that fails at once; [`Trace::returned`] tells the result instead.
    Fails,
    /// Hand over a transfer of so many bytes.
    Shortened(usize),
}

#[derive(Debug, Default)]
struct State {
    notes: Vec<Note>,
    keeps_notes: bool,
    calls: u64,
    spoils: BTreeMap<u64, Spoil>,
    spoilt: u64,
    /// The call before was spoilt: one that is linked to it is cancelled.
    is_link_cut: bool,
    /// Results to be told instead of the kernel's, by the number of the call.
    results: BTreeMap<u64, i32>,
    /// Numbers of calls in flight, by the ring's own number.
    in_flight: BTreeMap<u64, u64>,
}

/// A trace; clones name the same one.
#[derive(Clone, Debug, Default)]
pub struct Trace(Rc<RefCell<State>>);

impl Trace {
    /// A trace that keeps its notes.
    pub fn keeping_notes() -> Self {
        let trace = Self::default();
        trace.0.borrow_mut().keeps_notes = true;
        trace
    }

    /// Spoils call `number`, counted from 0 over the life of the trace.
    pub fn spoil(&self, number: u64, how: Spoil) {
        self.0.borrow_mut().spoils.insert(number, how);
    }

    /// Calls seen so far.
    pub fn calls(&self) -> u64 {
        self.0.borrow().calls
    }

    /// Calls spoilt so far, those cancelled with them not counted.
    pub fn spoilt(&self) -> u64 {
        self.0.borrow().spoilt
    }

    /// Notes something of the test's own.
    pub fn mark(&self, mark: u64) {
        self.note(Note::Mark(mark));
    }

    /// Takes the notes so far.
    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.0.borrow_mut().notes)
    }

    pub(crate) fn note(&self, note: Note) {
        let mut state = self.0.borrow_mut();
        if state.keeps_notes {
            state.notes.push(note);
        }
    }

    /// An operation is about to be handed over under the ring's number `id`.
    pub(crate) fn called(&self, id: u64, operation: &Operation, is_linked: bool) -> Fate {
        let Some(call) = call_of(operation) else { return Fate::Normal };
        let (number, fate) = self.begin(&call, is_linked);
        self.0.borrow_mut().in_flight.insert(id, number);
        self.note(Note::Called { number, call, is_linked });
        fate
    }

    fn begin(&self, call: &Call, is_linked: bool) -> (u64, Fate) {
        let mut state = self.0.borrow_mut();
        let number = state.calls;
        state.calls += 1;
        if std::mem::take(&mut state.is_link_cut) && is_linked {
            state.results.insert(number, -libc::ECANCELED);
            return (number, Fate::Fails);
        }
        let Some(how) = state.spoils.remove(&number) else { return (number, Fate::Normal) };
        state.spoilt += 1;
        state.is_link_cut = true;
        let half = |length: usize| length / 2 / BLOCK_BYTES as usize * BLOCK_BYTES as usize;
        let result = match (how, call) {
            (Spoil::Error(code), _) => -code,
            (Spoil::Short, Call::Write { bytes, .. }) if half(bytes.len()) > 0 => {
                return (number, Fate::Shortened(half(bytes.len())));
            }
            (Spoil::Short, Call::Read { length, .. }) if half(*length) > 0 => {
                return (number, Fate::Shortened(half(*length)));
            }
            // A part of a block: the adapter must not count on it, so nothing need be there.
            (Spoil::Short, Call::Write { .. }) => 512,
            (Spoil::Short, _) => -libc::EINTR,
        };
        state.results.insert(number, result);
        (number, Fate::Fails)
    }

    /// The kernel completed operation `id` with `result`; gives what the adapter is told.
    pub(crate) fn returned(&self, id: u64, result: i32) -> i32 {
        let mut state = self.0.borrow_mut();
        let Some(number) = state.in_flight.remove(&id) else { return result };
        let result = state.results.remove(&number).unwrap_or(result);
        drop(state);
        self.note(Note::Returned { number, result });
        result
    }

    /// A call that returns at once: `carry_out` makes it unless it is spoilt.
    pub(crate) fn call<T>(
        &self,
        call: Call,
        result: impl Fn(&T) -> i32,
        carry_out: impl FnOnce() -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let (number, fate) = self.begin(&call, false);
        self.note(Note::Called { number, call, is_linked: false });
        // Behind an ordinary call a short transfer is the standard library's to go on with.
        let told = self.0.borrow_mut().results.remove(&number).filter(|told| *told < 0);
        let outcome = match told {
            Some(code) if fate == Fate::Fails => Err(std::io::Error::from_raw_os_error(-code)),
            _ => carry_out(),
        };
        let code = |error: &std::io::Error| -error.raw_os_error().unwrap_or(libc::EIO);
        let result = outcome.as_ref().map_or_else(code, result);
        self.note(Note::Returned { number, result });
        outcome
    }
}

fn call_of(operation: &Operation) -> Option<Call> {
    let text = |name: &std::ffi::CString| name.to_string_lossy().into_owned();
    Some(match operation {
        Operation::Open { name, flags, .. } => {
            Call::Open { name: text(name), creates: flags & libc::O_CREAT != 0 }
        }
        Operation::Allocate { file, bytes } => {
            Call::Allocate { file: file.as_raw_fd(), bytes: *bytes }
        }
        Operation::Rename { from, to, .. } => Call::Rename { from: text(from), to: text(to) },
        Operation::Remove { name, .. } => Call::Remove { name: text(name) },
        Operation::Sync { file, kind: SyncKind::Data | SyncKind::Full } => {
            Call::Sync { file: file.as_raw_fd() }
        }
        Operation::Write { file, offset, bytes, data_sync } => Call::Write {
            file: file.as_raw_fd(),
            offset: *offset,
            bytes: bytes.clone(),
            is_durable: *data_sync,
        },
        Operation::Read { file, offset, length, .. } => {
            Call::Read { file: file.as_raw_fd(), offset: *offset, length: *length }
        }
        _ => return None,
    })
}
