//! The ring's slab and queues: operations from the moment they are queued to their last completion.
//!
//! All of the ring's unsafe code is here and in `operation.rs`. The invariant: every entry handed
//! to the kernel was built from an operation that lies in the slab, under the number that the entry
//! carries, and stays there until the completion that carries this number for the last time
//! has been taken. Numbers hold a generation, so that a place used again is not mistaken.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use io_uring::{IoUring, cqueue, squeue};

use super::{Completion, OperationId, Outcome, OwnerId, RingConfig};
use crate::operation::{self, Operation};

/// What all handles of a ring share.
pub(super) struct Core {
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
    #[cfg(feature = "trace")]
    trace: Option<crate::trace::Trace>,
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

impl Core {
    pub(super) fn new(config: RingConfig, wake: &File) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(config.completion_entries)
            .build(config.submission_entries)?;
        // The kernel keeps the counter, whatever becomes of our descriptor.
        uring.submitter().register_eventfd(wake.as_raw_fd())?;
        let core = Self {
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
            #[cfg(feature = "trace")]
            trace: None,
        };
        core.set_wake(false);
        Ok(core)
    }

    /// The kernel lets go of registered files when the ring's last request has ended.
    pub(super) fn keep_open(&mut self, file: &File) -> io::Result<()> {
        self.uring.submitter().register_files(&[file.as_raw_fd()])
    }

    #[cfg(feature = "trace")]
    pub(super) fn set_trace(&mut self, trace: crate::trace::Trace) {
        self.trace = Some(trace);
    }

    #[cfg(feature = "trace")]
    pub(super) fn trace(&self) -> Option<&crate::trace::Trace> {
        self.trace.as_ref()
    }

    pub(super) fn register(&mut self) -> OwnerId {
        self.owners.push(Owner::default());
        OwnerId(self.owners.len() - 1)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn partial_submissions(&self) -> u64 {
        self.partial_submissions
    }

    pub(super) fn submit(
        &mut self,
        owner: Option<OwnerId>,
        tag: u64,
        operation: Operation,
    ) -> OperationId {
        let (id, entry) = self.hold(owner, tag, operation, false);
        self.queue.push_back(Queued { first: entry, second: None });
        id
    }

    pub(super) fn submit_linked(
        &mut self,
        owner: OwnerId,
        tag: u64,
        first: Operation,
        second: Operation,
    ) {
        let (_, first) = self.hold(Some(owner), tag, first, false);
        let (_, second) = self.hold(Some(owner), tag, second, true);
        let first = first.flags(squeue::Flags::IO_LINK);
        self.queue.push_back(Queued { first, second: Some(second) });
    }

    /// Puts an operation into the slab, and only there builds its entry. `is_linked` says that it
    /// follows the one before in a link.
    fn hold(
        &mut self,
        owner: Option<OwnerId>,
        tag: u64,
        operation: Operation,
        is_linked: bool,
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
        #[cfg(not(feature = "trace"))]
        let (entry, _) = (held.operation.entry(), is_linked);
        #[cfg(feature = "trace")]
        let entry = match &self.trace {
            Some(trace) => {
                let fate = trace.called(id.0, &held.operation, is_linked);
                held.operation.spoilt_entry(fate)
            }
            None => held.operation.entry(),
        };
        let entry = entry.user_data(id.0);
        self.in_flight += 1;
        if let Some(owner) = owner {
            self.owners[owner.0].in_flight += 1;
        }
        (id, entry)
    }

    pub(super) fn cancel(&mut self, target: OperationId) {
        self.submit(None, 0, Operation::Cancel { target: target.0 });
    }

    pub(super) fn flush(&mut self) {
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

    pub(super) fn has_queued(&mut self) -> bool {
        !self.queue.is_empty() || !self.uring.submission().is_empty()
    }

    pub(super) fn has_ready(&mut self) -> bool {
        self.drain();
        std::mem::take(&mut self.has_signal)
            || self.uring.submission().cq_overflow()
            || self.owners.iter().any(|owner| !owner.ready.is_empty())
    }

    pub(super) fn wait(&mut self, owner: OwnerId) {
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

    pub(super) fn wait_any(&mut self) {
        if !self.has_ready() {
            self.fill();
            self.enter(1);
        }
    }

    pub(super) fn next_ready(&mut self, owner: OwnerId) -> Option<Completion> {
        if self.owners[owner.0].ready.is_empty() {
            self.drain();
        }
        self.owners[owner.0].ready.pop_front()
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
        let result = entry.result();
        #[cfg(feature = "trace")]
        let result = self.trace.as_ref().map_or(result, |trace| trace.returned(id.0, result));
        let outcome = match usize::try_from(result) {
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
            Ok(_) if held.operation.gives_descriptor() => {
                // SAFETY: the operation opens or accepts, so its positive result is a descriptor
                // made for us.
                Ok(Outcome::Descriptor(unsafe { operation::owned(result) }))
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

    pub(super) fn wake_at(&mut self, deadline: Instant) {
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

    pub(super) fn watch(&mut self, counter: Rc<OwnedFd>) {
        assert!(self.watched.is_none(), "one eventfd is watched");
        self.watched = Some((counter, OperationId(0)));
        self.watch_again();
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

    pub(super) fn arm_wake(&mut self) -> bool {
        self.set_wake(true);
        // Between allowing signals and looking, so that a completion is either seen or signalled.
        fence(Ordering::SeqCst);
        if self.has_ready() || self.has_queued() {
            self.set_wake(false);
            return false;
        }
        true
    }

    pub(super) fn set_wake(&self, enabled: bool) {
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

    pub(super) fn abandon(&mut self, owner: OwnerId) {
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
