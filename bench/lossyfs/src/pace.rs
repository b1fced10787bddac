//! Work on its way: operations that were asked for and are carried out later, by one thread, in the
//! order of their times; while the device stalls, only those that a stall does not hold.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::dice::Dice;

/// What a stall does to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    Holds,
    Passes,
}

/// Operations waiting for their time.
pub(crate) struct Pace<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

struct State<J> {
    jobs: BTreeMap<(Instant, u64), (J, Stall)>,
    next: u64,
    latency_max: Duration,
    dice: Dice,
    is_stalled: bool,
    is_over: bool,
}

impl<J> Pace<J> {
    pub(crate) fn new() -> Self {
        let state = State {
            jobs: BTreeMap::new(),
            next: 0,
            latency_max: Duration::ZERO,
            dice: Dice::new(1),
            is_stalled: false,
            is_over: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Adds an operation; it happens after a random part of the latency.
    pub(crate) fn add(&self, job: J, stall: Stall) {
        let mut state = self.state();
        let nanoseconds = u64::try_from(state.latency_max.as_nanos()).unwrap_or(u64::MAX - 1);
        let delay = Duration::from_nanos(state.dice.below(nanoseconds + 1));
        let place = (Instant::now() + delay, state.next);
        state.next += 1;
        state.jobs.insert(place, (job, stall));
        self.changed.notify_one();
    }

    /// Longest time that an operation takes from now on.
    pub(crate) fn set_latency(&self, latency_max: Duration) {
        self.state().latency_max = latency_max;
    }

    /// Begins or ends a stall.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.state().is_stalled = is_stalled;
        self.changed.notify_one();
    }

    /// Operations on their way.
    pub(crate) fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// No more work will come; what is left happens at once.
    pub(crate) fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_one();
    }

    /// The next operation when its time has come; `None` when there is none and none will come.
    pub(crate) fn next(&self) -> Option<J> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let is_held = state.is_stalled && !state.is_over;
            let mut ready = state.jobs.iter().filter(|it| !is_held || it.1.1 == Stall::Passes);
            let first = ready.next().map(|(place, _)| *place);
            match first {
                Some(place) if place.0 <= now || state.is_over => {
                    return state.jobs.remove(&place).map(|(job, _)| job);
                }
                Some(place) => {
                    let waited = self.changed.wait_timeout(state, place.0 - now);
                    state = waited.expect("nobody panics with it").0;
                }
                None if state.is_over => return None,
                None => state = self.changed.wait(state).expect("nobody panics with it"),
            }
        }
    }
}
