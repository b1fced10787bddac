//! Driving a shard on its ring, inside a glommio executor.
//!
//! The executor runs the turns in one task queue and whatever else the thread does in another, with far
//! fewer shares. The shard's own ring is not the executor's: between turns the thread sleeps in the executor,
//! which reads the shard's eventfd. Deadlines are timers on the shard's ring, so that the eventfd is the
//! only thing waited for.

use std::io;
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

/// How long turns may go on before the executor looks at the rest.
const TURN_LATENCY: time::Duration = time::Duration::from_millis(2);

/// What a shard is built from on its own thread.
pub struct RingPlace {
    /// What its device and network work on.
    pub ring: Ring,
    /// Time.
    pub clock: SystemClock,
    /// For work beside the turns.
    pub background: Background,
}

/// Runs tasks on the shard's thread when there is time, with few shares.
#[derive(Clone, Debug)]
pub struct Background {
    queue: TaskQueueHandle,
}

impl Background {
    /// Starts a task. It must give way often, and ends with the shard at the latest.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local_into(task, self.queue)
            .expect("the queue lives as long as the executor")
            .detach();
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
            let ring = Ring::waking(RingConfig::default(), start.bell.counter()).map_err(failed)?;
            let executor = glommio::executor();
            let turns = executor.create_task_queue(
                Shares::Static(TURN_SHARES),
                Latency::Matters(TURN_LATENCY),
                "turns",
            );
            let queue = executor.create_task_queue(
                Shares::Static(BACKGROUND_SHARES),
                Latency::NotImportant,
                "background",
            );
            let clock = SystemClock::new();
            let place = RingPlace { ring: ring.clone(), clock, background: Background { queue } };
            let drive = build(place)
                .map_err(|cause| RuntimeError::Build { shard: shard.0, cause: cause.into() })?;
            let driver = Driver { drive, start, ring, clock, stop_by: None };
            let running = glommio::spawn_local_into(driver.run(), turns)
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
    stop_by: Option<time::Instant>,
}

impl<D: Drive> Driver<D> {
    async fn run(mut self) -> io::Result<()> {
        let counter = self.start.bell.counter().try_clone()?;
        let counter: BufferedFile = thalweg_uring::adopt(counter.into());
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
            if outcome.has_work_left || self.ring.has_queued() {
                glommio::yield_if_needed().await;
            } else if !self.finds_work_spinning().await {
                self.sleep(&counter).await?;
            }
        }
        // The drive goes first: its device and network wait for what they have in flight.
        drop(self);
        counter.close().await.map_err(io::Error::from)
    }

    fn set_timer(&self, outcome: TurnOutcome) {
        let deadline = outcome.next_deadline.map(|deadline| self.clock.to_standard(deadline));
        if let Some(earliest) = [deadline, self.stop_by].into_iter().flatten().min() {
            self.ring.wake_at(earliest);
        }
    }

    /// Looks for completions and mail, at least once and as long as spinning is asked for.
    async fn finds_work_spinning(&mut self) -> bool {
        let spin = self.start.spin_before_park;
        let started = self.clock.now().monotonic;
        loop {
            if self.ring.has_ready() || self.start.bell.has_news() {
                glommio::yield_if_needed().await;
                return true;
            }
            if spin.is_zero() || self.clock.now().monotonic.since(started) >= spin {
                return false;
            }
            glommio::yield_if_needed().await;
            std::hint::spin_loop();
        }
    }

    /// Sleeps until a completion, the timer or a ring of the bell. First makes sure that each of
    /// them would be noticed.
    async fn sleep(&self, counter: &BufferedFile) -> io::Result<()> {
        let bell = &self.start.bell;
        if !bell.begin_sleep() {
            return Ok(());
        }
        if self.ring.arm_wake() {
            counter.read_at(0, size_of::<u64>()).await?;
            self.ring.disarm_wake();
        }
        bell.end_sleep();
        Ok(())
    }
}
