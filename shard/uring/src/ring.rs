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
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use io_uring::{IoUring, cqueue, squeue};

use crate::operation::{self, Operation};
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

struct Core {
    uring: IoUring,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    queue: VecDeque<Queued>,
    owners: Vec<Owner>,
    /// Counts hand-overs that the kernel took only in part: a link may have been cut by one, so
    /// whoever depends on the order inside a link submitted before must not rely on it.
    partial_submissions: u64,
    /// When the earliest timer that was set will fire, and which it is.
    timer: Option<(Instant, OperationId)>,
    /// The eventfd that is watched, and the read of it that is in flight.
    watched: Option<(Rc<OwnedFd>, OperationId)>,
    /// The timer has fired or the watched eventfd was written to, and nobody has been told.
    has_signal: bool,
    /// The ring is being dropped: nothing is started any more.
    is_closing: bool,
}

struct Slot {
    generation: u32,
    held: Option<Held>,
}

struct Held {
    owner: Option<OwnerId>,
    tag: u64,
    operation: Operation,
}

#[derive(Default)]
struct Owner {
    ready: VecDeque<Completion>,
    in_flight: usize,
    is_gone: bool,
}

/// One entry, or two that are linked.
struct Queued {
    first: squeue::Entry,
    second: Option<squeue::Entry>,
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
        let uring = IoUring::builder()
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(config.completion_entries)
            .build(config.submission_entries)?;
        // The kernel keeps the counter, whatever becomes of our descriptor.
        uring.submitter().register_eventfd(wake.as_raw_fd())?;
        let core = Core {
            uring,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            queue: VecDeque::new(),
            owners: Vec::new(),
            partial_submissions: 0,
            timer: None,
            watched: None,
            has_signal: false,
            is_closing: false,
        };
        core.set_wake(false);
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
        let mut core = self.shared.core.borrow_mut();
        core.set_wake(true);
        // Between allowing signals and looking, so that a completion is either seen or signalled.
        fence(Ordering::SeqCst);
        if core.has_ready() || core.has_queued() {
            core.set_wake(false);
            return false;
        }
        true
    }

    /// Stops completions from signalling; for the time between two sleeps.
    pub fn disarm_wake(&self) {
        self.shared.core.borrow_mut().set_wake(false);
    }

    /// Watches an eventfd, so that writing to it wakes a shard that waits in
    /// [`wait_any`](Self::wait_any) or for the ring's own eventfd. Nobody else may read it. Takes effect
    /// with the next flush.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn watch(&self, counter: &File) -> io::Result<()> {
        let counter = Rc::new(OwnedFd::from(counter.try_clone()?));
        let mut core = self.shared.core.borrow_mut();
        assert!(core.watched.is_none(), "one eventfd is watched");
        core.watched = Some((counter, OperationId(0)));
        core.watch_again();
        Ok(())
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

    /// Operations that the kernel has not completed, queued ones included.
    pub fn in_flight(&self) -> usize {
        self.shared.core.borrow().in_flight
    }

    /// Registers a user of the ring.
    pub(crate) fn register(&self) -> OwnerId {
        let mut core = self.shared.core.borrow_mut();
        core.owners.push(Owner::default());
        OwnerId(core.owners.len() - 1)
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
        let mut core = self.shared.core.borrow_mut();
        let (_, first) = core.hold(Some(owner), tag, first);
        let (_, second) = core.hold(Some(owner), tag, second);
        let first = first.flags(squeue::Flags::IO_LINK);
        core.queue.push_back(Queued { first, second: Some(second) });
    }

    /// Asks the kernel to give an operation up; it still completes, normally or with `ECANCELED`.
    pub(crate) fn cancel(&self, operation: OperationId) {
        self.shared.core.borrow_mut().cancel(operation);
    }

    /// How often the kernel took a batch only in part: a link submitted before may be cut then.
    pub(crate) fn partial_submissions(&self) -> u64 {
        self.shared.core.borrow().partial_submissions
    }

    /// The owner's next completion.
    pub(crate) fn next_ready(&self, owner: OwnerId) -> Option<Completion> {
        let mut core = self.shared.core.borrow_mut();
        if core.owners[owner.0].ready.is_empty() {
            core.drain();
        }
        core.owners[owner.0].ready.pop_front()
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

impl Core {
    fn submit(&mut self, owner: Option<OwnerId>, tag: u64, operation: Operation) -> OperationId {
        let (id, entry) = self.hold(owner, tag, operation);
        self.queue.push_back(Queued { first: entry, second: None });
        id
    }

    /// Puts an operation into the slab, and only there builds its entry.
    fn hold(
        &mut self,
        owner: Option<OwnerId>,
        tag: u64,
        operation: Operation,
    ) -> (OperationId, squeue::Entry) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, held: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 operations in flight")
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let id = OperationId((u64::from(slot.generation) << 32) | u64::from(index));
        assert!(slot.held.is_none(), "a free slot holds nothing");
        let held = slot.held.insert(Held { owner, tag, operation });
        let entry = held.operation.entry().user_data(id.0);
        self.in_flight += 1;
        if let Some(owner) = owner {
            self.owners[owner.0].in_flight += 1;
        }
        (id, entry)
    }

    fn cancel(&mut self, target: OperationId) {
        self.submit(None, 0, Operation::Cancel { target: target.0 });
    }

    fn flush(&mut self) {
        // Bounded, so that a kernel short of memory cannot hold the turn; the rest stays queued.
        const ATTEMPTS: usize = 16;
        for _ in 0..ATTEMPTS {
            let unsent = self.fill();
            if unsent == 0 && !self.uring.submission().cq_overflow() {
                return;
            }
            self.enter(0);
        }
    }

    /// Moves entries into the submission queue while they fit, linked ones side by side. Returns
    /// how many entries the submission queue then holds.
    fn fill(&mut self) -> usize {
        let mut submission = self.uring.submission();
        while let Some(queued) = self.queue.front() {
            let needed = 1 + usize::from(queued.second.is_some());
            if submission.capacity() - submission.len() < needed {
                break;
            }
            let queued = self.queue.pop_front().expect("its front has just been seen");
            for entry in [Some(queued.first), queued.second].into_iter().flatten() {
                // SAFETY: the entry was built from an operation that the slab keeps until its
                // completion has been taken.
                unsafe { submission.push(&entry) }.expect("room has just been checked");
            }
        }
        submission.len()
    }

    /// Submits what the submission queue holds and waits for `wanted` completions.
    fn enter(&mut self, wanted: usize) {
        let offered = self.uring.submission().len();
        match self.uring.submit_and_wait(wanted) {
            Ok(taken) => {
                if taken < offered {
                    self.partial_submissions += 1;
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // Too many completions wait, or no memory: make room, the caller comes again.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => self.drain(),
                _ => {
                    // What is in flight may still be written to: rather leak it than free it.
                    std::mem::forget(std::mem::take(&mut self.slots));
                    panic!("io_uring_enter refuses the shard's ring: {error}");
                }
            },
        }
    }

    fn has_queued(&mut self) -> bool {
        !self.queue.is_empty() || !self.uring.submission().is_empty()
    }

    fn has_ready(&mut self) -> bool {
        self.drain();
        std::mem::take(&mut self.has_signal)
            || self.uring.submission().cq_overflow()
            || self.owners.iter().any(|owner| !owner.ready.is_empty())
    }

    fn wait(&mut self, owner: OwnerId) {
        loop {
            self.drain();
            if !self.owners[owner.0].ready.is_empty() {
                return;
            }
            assert!(self.owners[owner.0].in_flight > 0, "waiting for nothing");
            self.fill();
            self.enter(1);
        }
    }

    fn wait_any(&mut self) {
        if !self.has_ready() {
            self.fill();
            self.enter(1);
        }
    }

    /// Takes all completions off the ring and sorts them to their owners.
    fn drain(&mut self) {
        loop {
            // The iterator borrows the ring, completing borrows the slab: one at a time.
            let next = self.uring.completion().next();
            match next {
                Some(entry) => self.complete(&entry),
                None => return,
            }
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry) {
        let id = OperationId(entry.user_data());
        let index = (id.0 & u64::from(u32::MAX)) as usize;
        let slot = &mut self.slots[index];
        assert!(u64::from(slot.generation) == id.0 >> 32, "a completion finds its operation");
        let held = slot.held.as_mut().expect("an operation is held until its last completion");
        let outcome = match usize::try_from(entry.result()) {
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            Ok(_) if held.operation.gives_descriptor() => {
                // SAFETY: the operation opens or accepts, so its positive result is a descriptor
                // made for us.
                Ok(Outcome::Descriptor(unsafe { operation::owned(entry.result()) }))
            }
            Ok(count) => {
                // SAFETY: this is the completion of the operation held under its number.
                unsafe { held.operation.take_in(count) };
                Ok(Outcome::Count(count))
            }
        };
        let (owner, tag) = (held.owner, held.tag);
        let operation = if cqueue::more(entry.flags()) {
            None
        } else {
            self.free.push(index as u32);
            self.in_flight -= 1;
            slot.held.take().map(|held| held.operation)
        };
        if self.timer.is_some_and(|(_, timer)| timer == id) {
            self.timer = None;
            self.has_signal = true;
        }
        if self.watched.as_ref().is_some_and(|(_, watching)| *watching == id) {
            self.has_signal = true;
            self.watch_again();
        }
        let Some(owner) = owner else { return };
        let owner = &mut self.owners[owner.0];
        if operation.is_some() {
            owner.in_flight -= 1;
        }
        if !owner.is_gone {
            let has_more_bytes = cqueue::sock_nonempty(entry.flags());
            owner.ready.push_back(Completion { tag, outcome, operation, has_more_bytes });
        }
    }

    fn wake_at(&mut self, deadline: Instant) {
        // A timer that has fired unseen would pass for one that is still to come.
        self.drain();
        if self.timer.is_some_and(|(armed, _)| armed <= deadline) {
            return;
        }
        // A later timer stays: it costs one needless wake-up, less than finding and moving it.
        let delay = deadline.saturating_duration_since(Instant::now()).min(TIMER_DELAY_MAX);
        let id = self.submit(None, 0, Operation::timeout(delay));
        self.timer = Some((deadline, id));
    }

    fn watch_again(&mut self) {
        let Some((counter, _)) = self.watched.take() else { return };
        if self.is_closing {
            return;
        }
        let (file, length) = (counter.clone(), size_of::<u64>());
        let memory = BytesMut::with_capacity(length);
        let id = self.submit(None, 0, Operation::Read { file, offset: 0, memory, length });
        self.watched = Some((counter, id));
    }

    fn set_wake(&self, enabled: bool) {
        // SAFETY: only the flag word of the completion queue is touched, through its atomic; no
        // other view of the queue is alive, since `Core` is borrowed here and makes views only
        // for the length of a statement.
        let completion = unsafe { self.uring.completion_shared() };
        if enabled {
            completion.enable_eventfd();
        } else {
            completion.disable_eventfd();
        }
    }

    fn abandon(&mut self, owner: OwnerId) {
        self.owners[owner.0].is_gone = true;
        self.owners[owner.0].ready.clear();
        self.cancel_where(|held| held.owner == Some(owner));
        while self.owners[owner.0].in_flight > 0 {
            self.fill();
            self.enter(1);
            self.drain();
        }
    }

    fn cancel_where(&mut self, is_meant: impl Fn(&Held) -> bool) {
        let targets: Vec<_> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.held.as_ref().is_some_and(&is_meant))
            .map(|(index, slot)| (u64::from(slot.generation) << 32) | index as u64)
            .collect();
        for target in targets {
            self.cancel(OperationId(target));
        }
    }
}

impl Drop for Core {
    /// Cancels everything and waits: the kernel must be done with the memory before it is freed.
    fn drop(&mut self) {
        self.is_closing = true;
        for owner in &mut self.owners {
            owner.is_gone = true;
        }
        self.cancel_where(|held| !matches!(held.operation, Operation::Cancel { .. }));
        while self.in_flight > 0 {
            self.fill();
            self.enter(1);
            self.drain();
        }
    }
}

/// No timer is set further ahead; a needless wake-up an hour costs nothing.
const TIMER_DELAY_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
