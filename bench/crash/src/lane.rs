//! One kind of work on a server, with what it knows of the outcome.

use std::thread::ScopedJoinHandle;

use crate::store::Route;
use crate::wire::Trouble;

/// What a lane read back and judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified {
    /// Events, or entries of tables.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Verified {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
    }
}

/// What a lane did so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Connections that were lost and made anew.
    pub reconnects: u64,
}

/// Works on segments of its own, remembers every effect that was acknowledged and what was asked
/// and not answered, and compares with what the server tells afterwards.
pub trait Lane: Send {
    /// What it is, for messages.
    fn name(&self) -> String;

    /// Whether it goes on by itself when a connection is lost. One that does not ends its work
    /// then, and begins again in the next cycle.
    fn resumes(&self) -> bool {
        false
    }

    /// Whether it is to work behind a bad network, where there is one.
    fn wants_proxy(&self) -> bool {
        false
    }

    /// What it did so far.
    fn done(&self) -> Done {
        Done::default()
    }

    /// Works until the route's stop switch is thrown, or, where the lane cannot resume, until the
    /// connection is lost.
    ///
    /// # Errors
    /// [`Trouble::Wrong`] for what must never be; any other trouble is a plain end.
    fn work(&mut self, route: &Route) -> Result<(), Trouble>;

    /// Reads back and compares. What was unknown is known afterwards. A lane with much data reads
    /// all of it only when `is_full`.
    ///
    /// # Errors
    /// [`Trouble`]; during verification every trouble is a failure.
    fn verify(&mut self, route: &Route, is_full: bool) -> Result<Verified, Trouble>;
}

/// Waits for all threads of a lane; gives the worst trouble, what must never be before all else.
pub(crate) fn join_all(
    threads: Vec<ScopedJoinHandle<'_, Result<(), Trouble>>>,
) -> Result<(), Trouble> {
    let mut worst = Ok(());
    for thread in threads {
        let end =
            thread.join().unwrap_or_else(|_| Err(Trouble::wrong("a thread of the lane panicked")));
        if end.is_err() && !matches!(worst, Err(Trouble::Wrong(_))) {
            worst = end;
        }
    }
    worst
}
