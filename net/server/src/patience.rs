//! Waiting for what a killed predecessor still holds: its ports and its lock come free only when
//! the kernel has ended the last request of its rings, some 15 to 30 ms after the process is gone.

use std::time::{Duration, Instant};

/// How long a start waits: much longer than the kernel needs on a healthy disk, and as long as a
/// second start on a living server's directory may take to be refused within two seconds, its own
/// beginning on a busy machine included.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Tries until it works, fails for another reason than `is_passing`, or patience ends.
pub(crate) fn retry<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_passing: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if is_passing(&error) && Instant::now() < end => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}
