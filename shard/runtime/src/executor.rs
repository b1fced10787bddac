//! Driving a shard on its ring, inside a glommio executor.
//!
//! The executor runs the turns in one task queue and [`Background`] tasks in another, with far
//! fewer shares. The shard's own ring is not the executor's. While there are no background tasks
//! the thread sleeps in the shard's ring: one system call, nothing between a completion and the
//! next turn. With background tasks it sleeps in the executor, which reads an eventfd that the ring
//! signals; that costs some 15 us of CPU per sleep. Deadlines are timers on the shard's ring, and
//! the shard's bell is watched by it, so that the ring is all there is to wait for.
//!
//! glommio 0.9 may go to sleep with runnable tasks: when its preemption timer has expired before it
//! looks at its queues, it takes them for empty (`run_task_queues`). A short timer and a busy
//! machine make that likely: with 2 ms it hung within seconds. So the timer is left at its 100 ms,
//! and while the thread sleeps there a pulse every 100 ms bounds what can be lost.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time;

use glommio::io::BufferedFile;
use glommio::{GlommioError, Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use thalweg_core::env::clock::Clock;
use thalweg_uring::{Ring, RingConfig};

use crate::clock::SystemClock;
use crate::drive::{Drive, TurnOutcome};
use crate::start::{RuntimeError, STOP_TIME, ShardHandle, ShardStart};

/// Memory that the executor registers for its own I/O, of which it does next to none. It counts
/// against the limit of locked memory, which unprivileged processes share among all shards.
const EXECUTOR_MEMORY_BYTES: usize = 1 << 20;

/// Entries of each of the executor's own rings.
const EXECUTOR_RING_DEPTH: usize = 128;

/// Shares of the turns against those of everything else on the thread.
const TURN_SHARES: usize = 1000;
const BACKGROUND_SHARES: usize = 50;

/// How long the executor may oversleep; see the module's comment.
const PULSE: time::Duration = time::Duration::from_millis(100);

/// What a shard is built from on its own thread.
pub struct RingPlace {
    /// What its device and network work on.
    pub ring: Ring,
    /// Time.
    pub clock: SystemClock,
    /// For work beside the turns.
    pub background: Background,
}

/// Runs tasks on the shard's thread when there is time, with few shares. They make sleeping dearer
/// while they live; see the module's comment.
#[derive(Clone, Debug)]
pub struct Background {
    queue: TaskQueueHandle,
    alive: Rc<Cell<usize>>,
    has_pulse: Rc<Cell<bool>>,
}

impl Background {
    /// Starts a task. It must give way often, and ends with the shard at the latest.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let alive = self.alive.clone();
        alive.set(alive.get() + 1);
        if !self.has_pulse.replace(true) {
            self.start_pulse();
        }
        self.start(async move {
            task.await;
            alive.set(alive.get() - 1);
        });
    }

    fn start_pulse(&self) {
        let Self { alive, has_pulse, .. } = self.clone();
        self.start(async move {
            while alive.get() > 0 {
                glommio::timer::sleep(PULSE).await;
            }
            has_pulse.set(false);
        });
    }

    fn start(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local_into(task, self.queue)
            .expect("the queue lives as long as the executor")
            .detach();
    }

    fn is_idle(&self) -> bool {
        self.alive.get() == 0
    }
}

/// Starts a shard on a thread with a ring and an executor of its own. `build` runs there and may
/// block, for recovery.
///
/// # Errors
/// When no thread can be started; later failures, a refused ring among them, are told by
/// [`ShardHandle::join`].
pub fn start_on_ring<D, E>(
    start: ShardStart,
    build: impl FnOnce(RingPlace) -> Result<D, E> + Send + 'static,
) -> Result<ShardHandle, RuntimeError>
where
    D: Drive + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shard = start.shard;
    ShardHandle::spawn(shard, move || {
        let failed = |cause| RuntimeError::Start { shard: shard.0, cause };
        let executor =
            LocalExecutorBuilder::new(start.cpu.map_or(Placement::Unbound, Placement::Fixed))
                .io_memory(EXECUTOR_MEMORY_BYTES)
                .ring_depth(EXECUTOR_RING_DEPTH)
                .make()
                .map_err(|error| failed(io::Error::from(error)))?;
        executor.run(async move {
            let wake = thalweg_uring::event_counter().map_err(failed)?;
            let ring = Ring::waking(RingConfig::default(), &wake).map_err(failed)?;
            ring.watch(start.bell.counter()).map_err(failed)?;
            let executor = glommio::executor();
            let turns = executor.create_task_queue(
                Shares::Static(TURN_SHARES),
                Latency::NotImportant,
                "turns",
            );
            let queue = executor.create_task_queue(
                Shares::Static(BACKGROUND_SHARES),
                Latency::NotImportant,
                "background",
            );
            let clock = SystemClock::new();
            let (alive, has_pulse) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let background = Background { queue, alive, has_pulse };
            let place = RingPlace { ring: ring.clone(), clock, background: background.clone() };
            let drive = build(place)
                .map_err(|cause| RuntimeError::Build { shard: shard.0, cause: cause.into() })?;
            let driver = Driver { drive, start, ring, clock, background, stop_by: None };
            let running = glommio::spawn_local_into(driver.run(wake), turns)
                .map_err(|error: GlommioError<()>| failed(io::Error::from(error)))?;
            running.await.map_err(failed)
        })
    })
}

struct Driver<D> {
    drive: D,
    start: ShardStart,
    ring: Ring,
    clock: SystemClock,
    background: Background,
    stop_by: Option<time::Instant>,
}

impl<D: Drive> Driver<D> {
    async fn run(mut self, wake: File) -> io::Result<()> {
        let wake: BufferedFile = thalweg_uring::adopt(wake.into());
        loop {
            self.start.bell.take_news();
            let outcome = self.drive.turn();
            if self.start.bell.is_stopping() {
                match self.stop_by {
                    Some(stop_by) if self.drive.is_stopped() || time::Instant::now() >= stop_by => {
                        break;
                    }
                    Some(_) => {}
                    None => {
                        self.drive.begin_stop();
                        self.stop_by = Some(time::Instant::now() + STOP_TIME);
                        continue;
                    }
                }
            }
            self.set_timer(outcome);
            self.ring.flush();
            if !outcome.has_work_left && !self.ring.has_queued() && !self.finds_work_spinning() {
                self.sleep(&wake).await?;
            }
            if !self.background.is_idle() {
                glommio::executor().yield_task_queue_now().await;
            }
        }
        // The drive goes first: its device and network wait for what they have in flight.
        drop(self);
        wake.close().await.map_err(io::Error::from)
    }

    fn set_timer(&self, outcome: TurnOutcome) {
        let deadline = outcome.next_deadline.map(|deadline| self.clock.to_standard(deadline));
        if let Some(earliest) = [deadline, self.stop_by].into_iter().flatten().min() {
            self.ring.wake_at(earliest);
        }
    }

    /// Looks for completions and news, at least once and as long as spinning is asked for.
    fn finds_work_spinning(&mut self) -> bool {
        let spin = self.start.spin_before_park;
        let started = self.clock.now().monotonic;
        loop {
            if self.ring.has_ready() || self.start.bell.has_news() {
                return true;
            }
            // The background has the time that turns do not need.
            let is_over = self.clock.now().monotonic.since(started) >= spin;
            if is_over || !self.background.is_idle() {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Sleeps until a completion, the timer or the bell. First makes sure that each of them would
    /// be noticed.
    async fn sleep(&self, wake: &BufferedFile) -> io::Result<()> {
        let bell = &self.start.bell;
        if !bell.begin_sleep() {
            return Ok(());
        }
        if self.background.is_idle() {
            self.ring.wait_any();
        } else if self.ring.arm_wake() {
            wake.read_at(0, size_of::<u64>()).await?;
            self.ring.disarm_wake();
        }
        bell.end_sleep();
        Ok(())
    }
}
