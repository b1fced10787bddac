//! The shard's one `io_uring`: a queue of operations, a slab of those in flight, and a ready queue
//! for each owner (device, network).
//!
//! Operations are queued by [`Ring::submit`] and handed to the kernel together by [`Ring::flush`],
//! once per turn. Completions are taken from the ring in one pass and sorted to their owners. The
//! slab owns each operation, its memory and its descriptors until the kernel has posted the last
//! completion for it, whatever happened to the connection or the file meanwhile; dropping an owner
//! or the ring cancels and waits.
//!
//! A ring belongs to one thread. It is plain: no kernel thread, no polled I/O.

mod slab;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Instant;

use self::slab::Core;
use crate::operation::Operation;
use crate::sockets;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submission entries: how many operations one system call can hand over.
    pub submission_entries: u32,
    /// Completion entries: how many completions fit before the kernel keeps them on a list.
    pub completion_entries: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { submission_entries: 1024, completion_entries: 8192 }
    }
}

/// Which user of the ring an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerId(usize);

/// Names an operation in flight, for [`Ring::cancel`]. Never means a later operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationId(u64);

/// What a successful operation gives.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Bytes moved, or nothing to tell.
    Count(usize),
    /// A new descriptor.
    Descriptor(OwnedFd),
}

/// A completed operation.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Of the call that queued it.
    pub(crate) tag: u64,
    /// What came of it.
    pub(crate) outcome: io::Result<Outcome>,
    /// The operation with its memory; `None` when further completions will follow.
    pub(crate) operation: Option<Operation>,
    /// Whether the socket had more bytes waiting.
    pub(crate) has_more_bytes: bool,
}

/// Something that queues its operations as late as possible, so that they are gathered.
pub(crate) trait BeforeFlush {
    /// Queues what is waiting. Called at the start of every flush.
    fn before_flush(&mut self);
}

/// A handle to the shard's ring; clones name the same ring.
#[derive(Clone)]
pub struct Ring {
    shared: Rc<Shared>,
}

struct Shared {
    core: RefCell<Core>,
    hooks: RefCell<Vec<Weak<RefCell<dyn BeforeFlush>>>>,
}

impl Ring {
    /// Makes a ring whose completions signal an eventfd of its own.
    ///
    /// # Errors
    /// As [`waking`](Self::waking).
    pub fn new(config: RingConfig) -> io::Result<Self> {
        Self::waking(config, &sockets::event_counter()?)
    }

    /// Makes a ring whose completions signal the eventfd `wake` while that is
    /// [armed](Self::arm_wake).
    ///
    /// # Errors
    /// When the kernel has no `io_uring`, forbids it, or is out of memory or descriptors;
    /// [`probe`](crate::probe::probe) says which and what to do.
    pub fn waking(config: RingConfig, wake: &File) -> io::Result<Self> {
        let core = Core::new(config, wake)?;
        let shared = Shared { core: RefCell::new(core), hooks: RefCell::new(Vec::new()) };
        Ok(Self { shared: Rc::new(shared) })
    }

    /// Hands queued operations to the kernel: one system call when there are any.
    ///
    /// # Panics
    /// When the kernel refuses the ring itself, which no caller can mend.
    pub fn flush(&self) {
        self.run_hooks();
        self.shared.core.borrow_mut().flush();
    }

    /// Whether operations wait for another [`flush`](Self::flush), because the kernel was out of
    /// some resource. The thread must not sleep then.
    pub fn has_queued(&self) -> bool {
        self.shared.core.borrow_mut().has_queued()
    }

    /// Whether a completion has arrived that nobody has polled yet, or the timer has fired or the
    /// watched eventfd was written to since this was last asked.
    pub fn has_ready(&self) -> bool {
        self.shared.core.borrow_mut().has_ready()
    }

    /// Makes completions signal the eventfd from now on. `false` means that something is ready or
    /// queued already: do not sleep; the signal is off again.
    pub fn arm_wake(&self) -> bool {
        self.shared.core.borrow_mut().arm_wake()
    }

    /// Stops completions from signalling; for the time between two sleeps.
    pub fn disarm_wake(&self) {
        self.shared.core.borrow_mut().set_wake(false);
    }

    /// Watches an eventfd, so that writing to it wakes a shard that waits in
    /// [`wait_any`](Self::wait_any) or for the ring's own eventfd. Nobody else may read it. Takes
    /// effect with the next flush.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn watch(&self, counter: &File) -> io::Result<()> {
        let counter = Rc::new(OwnedFd::from(counter.try_clone()?));
        self.shared.core.borrow_mut().watch(counter);
        Ok(())
    }

    /// Keeps `file` open for as long as the kernel works on this ring's requests, which after a
    /// kill is longer than the process lives: a lock on it is not free before the last write has
    /// ended. At most once.
    ///
    /// # Errors
    /// When the kernel refuses, or something is held already.
    pub fn keep_open(&self, file: &File) -> io::Result<()> {
        self.shared.core.borrow_mut().keep_open(file)
    }

    /// Sets a timer, so that a sleeping shard wakes at `deadline` or earlier. Takes effect with the
    /// next flush; an earlier timer that is set already makes it unnecessary.
    pub fn wake_at(&self, deadline: Instant) {
        self.shared.core.borrow_mut().wake_at(deadline);
    }

    /// Hands over what is queued and blocks until [`has_ready`](Self::has_ready) would say yes; see
    /// [`wake_at`](Self::wake_at) and [`watch`](Self::watch). May return early.
    pub fn wait_any(&self) {
        self.run_hooks();
        self.shared.core.borrow_mut().wait_any();
    }

    /// Notes, and spoils, the file operations queued from now on.
    #[cfg(feature = "trace")]
    pub fn set_trace(&self, trace: &crate::trace::Trace) {
        self.shared.core.borrow_mut().set_trace(trace.clone());
    }

    /// Tells the trace, if there is one, which descriptor is a device's directory.
    pub(crate) fn note_directory(&self, directory: &OwnedFd) {
        #[cfg(not(feature = "trace"))]
        let _ = directory;
        #[cfg(feature = "trace")]
        if let Some(trace) = self.shared.core.borrow().trace() {
            let file = std::os::fd::AsRawFd::as_raw_fd(directory);
            trace.note(crate::trace::Note::Directory { file });
        }
    }

    /// Operations that the kernel has not completed, queued ones included.
    pub fn in_flight(&self) -> usize {
        self.shared.core.borrow().in_flight()
    }

    /// Registers a user of the ring.
    pub(crate) fn register(&self) -> OwnerId {
        self.shared.core.borrow_mut().register()
    }

    /// Registers something to be run at the start of every flush, while it lives.
    pub(crate) fn before_flush(&self, hook: Weak<RefCell<dyn BeforeFlush>>) {
        self.shared.hooks.borrow_mut().push(hook);
    }

    /// Queues an operation.
    pub(crate) fn submit(&self, owner: OwnerId, tag: u64, operation: Operation) -> OperationId {
        self.shared.core.borrow_mut().submit(Some(owner), tag, operation)
    }

    /// Queues two operations, the second to start when the first has completed in full. When the
    /// first fails or is short, the second completes with `ECANCELED`.
    pub(crate) fn submit_linked(
        &self,
        owner: OwnerId,
        tag: u64,
        first: Operation,
        second: Operation,
    ) {
        self.shared.core.borrow_mut().submit_linked(owner, tag, first, second);
    }

    /// Asks the kernel to give an operation up; it still completes, normally or with `ECANCELED`.
    pub(crate) fn cancel(&self, operation: OperationId) {
        self.shared.core.borrow_mut().cancel(operation);
    }

    /// How often the kernel took a batch only in part: a link submitted before may be cut then.
    pub(crate) fn partial_submissions(&self) -> u64 {
        self.shared.core.borrow().partial_submissions()
    }

    /// The owner's next completion.
    pub(crate) fn next_ready(&self, owner: OwnerId) -> Option<Completion> {
        self.shared.core.borrow_mut().next_ready(owner)
    }

    /// Blocks until the owner has a completion.
    ///
    /// # Panics
    /// When nothing of the owner is in flight.
    pub(crate) fn wait(&self, owner: OwnerId) {
        self.run_hooks();
        self.shared.core.borrow_mut().wait(owner);
    }

    /// Cancels everything of `owner` and waits until the kernel is done with it; its completions
    /// are dropped.
    pub(crate) fn abandon(&self, owner: OwnerId) {
        self.shared.core.borrow_mut().abandon(owner);
    }

    fn run_hooks(&self) {
        self.shared.hooks.borrow_mut().retain(|hook| match hook.upgrade() {
            Some(hook) => {
                hook.borrow_mut().before_flush();
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests;
