//! A process of a world: a thread for each shard, mail between them, one life each.
//!
//! Knows when its threads want turns. What befalls it, and when, is the world's business.

use std::cell::RefCell;
use std::rc::Rc;

use thalweg_journal::Journal;
use thalweg_shard::Shard;

use crate::client::Shared;
use crate::clock::{MICROSECOND, SECOND};
use crate::disk::{DiskControl, ProcessNumber};
use crate::environment::SimulatedEnv;
use crate::life::Life;
use crate::link::{LinkHandle, Seat};
use crate::post::{Post, PostHandle, SharedPost};
use crate::rng::Rng;
use crate::trace::trace;

/// Longest time from being asked to stop to the end: L9.
const STOPPING_MAX: u64 = 10 * SECOND;
/// What is left of it when a shard has lost its own patience; also after it stood still.
const STOPPING_REST: u64 = 2 * SECOND;

/// One shard and when it acts.
pub(crate) struct Thread {
    shard: Option<Shard<SimulatedEnv>>,
    life: Life,
    seat: Seat,
    disk: DiskControl,
    disk_user: ProcessNumber,
    /// When the next turn is, if it has something to do.
    turn_at: Option<u64>,
    /// When it wants a turn even if nothing happens.
    deadline: Option<u64>,
    /// When its last turn was. What it did not take then it is not offered again by itself.
    last_turn: u64,
    /// It takes no turns before.
    frozen_until: u64,
}

/// Threads that live and die together.
pub(crate) struct Process {
    threads: Vec<Thread>,
    post: SharedPost,
    /// When it ends, because a thread did.
    pub(crate) dies_at: Option<u64>,
    /// When it was asked to stop.
    pub(crate) stopping_since: Option<u64>,
    /// Until when a thread stood still, at the latest.
    still_until: u64,
    /// When it was started.
    pub(crate) started_at: u64,
    /// All shards have served at the same time.
    pub(crate) has_served: bool,
    /// Another one has taken over.
    pub(crate) is_former: bool,
}

/// Why a process did not start.
#[derive(Debug)]
pub(crate) enum BootFailure {
    /// It died on the way.
    Died,
    /// A journal cannot be served.
    Fault(String),
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It was not time for one.
    None,
    /// One was taken.
    Taken,
    /// The thread died in it.
    Died,
    /// The shard will not serve again.
    GaveUp,
}

impl Process {
    /// A process without threads.
    pub(crate) fn new(shared: &Shared) -> Self {
        let post = Post::new(shared.options.shards, shared.options.mailbox_capacity);
        Self {
            threads: Vec::new(),
            post: Rc::new(RefCell::new(post)),
            dies_at: None,
            stopping_since: None,
            still_until: 0,
            started_at: shared.clock.nanos(),
            has_served: false,
            is_former: false,
        }
    }

    /// Boots one shard more; `fuse`: effects after which the thread dies, 0 for none.
    pub(crate) fn boot_shard(
        &mut self,
        shared: &Shared,
        disk: &DiskControl,
        fuse: u64,
    ) -> Result<(), BootFailure> {
        let index = self.threads.len();
        let options = &shared.options;
        let life = Life::new();
        let device = disk.attach(life.clone());
        let disk_user = device.process();
        let seat = shared.links.borrow_mut().take_seat();
        life.set_fuse(fuse);
        let booted = Journal::new(device, options.journal_config(index))
            .map_err(|error| error.to_string())
            .and_then(|journal| {
                let env = SimulatedEnv {
                    journal,
                    network: LinkHandle::new(Rc::clone(&shared.links), seat, life.clone()),
                    mailbox: PostHandle::new(Rc::clone(&self.post), index),
                    clock: shared.clock.clone(),
                };
                Shard::boot(env, options.shard_config(index)).map_err(|error| error.to_string())
            });
        life.set_fuse(0);
        let is_alive = life.is_alive();
        let (shard, fault) = match booted {
            Ok(shard) => (Some(shard), None),
            Err(fault) => (None, Some(fault)),
        };
        let now = shared.clock.nanos();
        self.threads.push(Thread {
            shard,
            life,
            seat,
            disk: disk.clone(),
            disk_user,
            turn_at: Some(now),
            deadline: None,
            last_turn: 0,
            frozen_until: 0,
        });
        match fault {
            _ if !is_alive => Err(BootFailure::Died),
            Some(fault) => Err(BootFailure::Fault(fault)),
            None => {
                shared.links.borrow_mut().listen(index, seat);
                Ok(())
            }
        }
    }

    /// How many shards it has.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Whether every shard serves.
    pub(crate) fn is_serving(&self) -> bool {
        self.threads.iter().all(|thread| thread.shard.as_ref().is_some_and(Shard::is_serving))
    }

    /// Whether bytes or mail wait for a shard.
    fn has_input(&self, shared: &Shared, index: usize) -> bool {
        let seat = self.threads[index].seat;
        shared.links.borrow().has_events(seat) || self.post.borrow().has_mail(index)
    }

    /// When something is next to be done.
    pub(crate) fn next_time(&self, shared: &Shared) -> Option<u64> {
        let threads = (0..self.threads.len()).filter_map(|index| self.next_turn(shared, index));
        threads.chain(self.dies_at).min()
    }

    fn next_turn(&self, shared: &Shared, index: usize) -> Option<u64> {
        let thread = &self.threads[index];
        thread.shard.as_ref()?;
        let next = match thread.turn_at {
            // A turn that is due anyway comes before what would make it due.
            Some(at) => Some(at),
            None if self.has_input(shared, index) => Some(shared.clock.nanos()),
            None => [thread.deadline, thread.next_completion()].into_iter().flatten().min(),
        };
        next.map(|at| at.max(thread.frozen_until))
    }

    /// Lets a shard have its turn if it has something to do and its time has come.
    pub(crate) fn give_turn(&mut self, shared: &Shared, rng: &mut Rng, index: usize) -> Turn {
        let now = shared.clock.nanos();
        let has_input = self.has_input(shared, index);
        let thread = &mut self.threads[index];
        if thread.frozen_until > now {
            return Turn::None;
        }
        let is_due = thread.is_due(now);
        let Some(shard) = &mut thread.shard else { return Turn::None };
        if thread.turn_at.is_none() && (is_due || has_input) {
            // A busy shard comes to it a little later and finds more.
            let most = shared.options.turn_delay_us_max;
            thread.turn_at = Some(now + rng.below(most) * MICROSECOND);
        }
        if thread.turn_at.is_none_or(|at| at > now) {
            return Turn::None;
        }
        self.post.borrow_mut().answer_bell(index);
        let outcome = shard.turn();
        let after = shared.clock.nanos();
        thread.last_turn = after;
        thread.turn_at = outcome.has_work_left.then_some(after);
        thread.deadline = outcome.next_deadline.map(|due| due.0.max(after + 1));
        if !thread.life.is_alive() {
            return Turn::Died;
        }
        let is_over = !shard.is_serving() && outcome.next_deadline.is_none();
        if is_over && self.stopping_since.is_none() {
            let fault = shard.fault().map(ToString::to_string).unwrap_or_default();
            trace!(shared.trace, "shard {index} gave up: {fault}");
            return Turn::GaveUp;
        }
        Turn::Taken
    }

    /// Which containers are refused and why, and what else does not serve.
    pub(crate) fn refusals(&mut self) -> Vec<String> {
        let shards = self.threads.iter_mut().filter_map(|thread| thread.shard.as_mut());
        let statuses = shards.map(Shard::status);
        statuses
            .flat_map(|status| {
                let state = format!("{:?} {:?} {}", status.shard, status.health, status.reason);
                let refused = status
                    .quarantined
                    .into_iter()
                    .map(|refused| format!("{:?} {}", refused.container, refused.reason));
                refused.chain([state]).collect::<Vec<_>>()
            })
            .collect()
    }

    /// A thread is gone; the others do not know yet.
    pub(crate) fn bury(&mut self, shared: &Shared, index: usize) {
        let thread = &mut self.threads[index];
        thread.life.end();
        thread.shard = None;
        shared.links.borrow_mut().end_seat(thread.seat);
    }

    /// Lets a thread die after so many effects.
    pub(crate) fn set_fuse(&self, index: usize, effects: u64) {
        self.threads[index].life.set_fuse(effects);
    }

    /// Lets a thread stand still.
    pub(crate) fn freeze(&mut self, index: usize, until: u64) {
        self.threads[index].frozen_until = until;
        self.still_until = self.still_until.max(until);
    }

    /// Nothing stands still any more.
    pub(crate) fn thaw(&mut self, now: u64) {
        self.threads.iter_mut().for_each(|thread| thread.frozen_until = 0);
        self.still_until = self.still_until.min(now);
    }

    /// Whether it should have stopped by now: a thread that stands still cannot.
    pub(crate) fn is_late_to_stop(&self, now: u64) -> bool {
        let may_take = |since: u64| (since + STOPPING_MAX).max(self.still_until + STOPPING_REST);
        self.stopping_since.is_some_and(|since| now > may_take(since))
    }

    /// Asks every shard to stop in order.
    pub(crate) fn stop(&mut self, shared: &Shared) {
        let now = shared.clock.nanos();
        self.stopping_since = Some(now);
        for (index, thread) in self.threads.iter_mut().enumerate() {
            shared.links.borrow_mut().close_port(index);
            if let Some(shard) = &mut thread.shard {
                shard.stop();
                thread.turn_at = Some(now);
            }
        }
    }

    /// Whether it was asked to stop and has.
    pub(crate) fn is_stopped(&self) -> bool {
        let is_gone = |thread: &Thread| thread.shard.as_ref().is_none_or(Shard::is_stopped);
        self.stopping_since.is_some() && self.threads.iter().all(is_gone)
    }

    /// Everything of it ends now.
    pub(crate) fn end(mut self, shared: &Shared) {
        for index in 0..self.threads.len() {
            self.bury(shared, index);
            let thread = &self.threads[index];
            thread.disk.end_process(thread.disk_user);
        }
    }
}

impl Thread {
    fn next_completion(&self) -> Option<u64> {
        self.disk.next_completion(self.disk_user, self.last_turn)
    }

    fn is_due(&self, now: u64) -> bool {
        self.deadline.is_some_and(|at| at <= now)
            || self.next_completion().is_some_and(|at| at <= now)
    }
}
