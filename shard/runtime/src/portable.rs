//! Driving a shard without `io_uring` or an executor: a plain thread that sleeps in `poll(2)`.

use std::io;
use std::time;

use thalweg_core::env::clock::Clock;
use thalweg_uring::portable::PortableWait;

use crate::clock::SystemClock;
use crate::drive::{Drive, TurnOutcome};
use crate::start::{RuntimeError, STOP_TIME, ShardHandle, ShardStart};

/// What a shard is built from on its own thread.
pub struct PortablePlace {
    /// What its network registers with.
    pub wait: PortableWait,
    /// Time.
    pub clock: SystemClock,
}

/// Starts a shard on a thread of its own. `build` runs there and may block, for recovery. Pinning
/// and spinning are not offered.
///
/// # Errors
/// When no thread can be started; later failures are told by [`ShardHandle::join`].
pub fn start_portable<D, E>(
    start: ShardStart,
    build: impl FnOnce(PortablePlace) -> Result<D, E> + Send + 'static,
) -> Result<ShardHandle, RuntimeError>
where
    D: Drive + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shard = start.shard;
    ShardHandle::spawn(shard, move || {
        let failed = |cause| RuntimeError::Start { shard: shard.0, cause };
        let wake = start.bell.counter().try_clone().map_err(failed)?;
        let wait = PortableWait::new(wake);
        let clock = SystemClock::new();
        let mut drive = build(PortablePlace { wait: wait.clone(), clock })
            .map_err(|cause| RuntimeError::Build { shard: shard.0, cause: cause.into() })?;
        run(&mut drive, &start, &wait, clock).map_err(failed)
    })
}

fn run(
    drive: &mut impl Drive,
    start: &ShardStart,
    wait: &PortableWait,
    mut clock: SystemClock,
) -> io::Result<()> {
    let mut stop_by = None;
    loop {
        start.bell.take_news();
        let TurnOutcome { has_work_left, mut next_deadline } = drive.turn();
        if start.bell.is_stopping() {
            let now = clock.now().monotonic;
            let Some(stop_by) = stop_by else {
                drive.begin_stop();
                stop_by = Some(now.after(STOP_TIME));
                continue;
            };
            if drive.is_stopped() || now >= stop_by {
                return Ok(());
            }
            next_deadline = Some(next_deadline.map_or(stop_by, |it| it.min(stop_by)));
        }
        // Sockets are asked even when there is work left, so that they are not starved.
        let longest = if has_work_left {
            Some(time::Duration::ZERO)
        } else {
            next_deadline.map(|deadline| deadline.since(clock.now().monotonic))
        };
        if start.bell.begin_sleep() {
            wait.wait(longest)?;
            start.bell.end_sleep();
        }
    }
}
