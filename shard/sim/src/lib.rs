//! A simulator: the shipped shard and journal on a simulated disk, links and clock, from one seed.
//!
//! [`run`] takes a seed to a [`Verdict`]: options are drawn, clients work while things fail, faults
//! stop, everything must become available, everything is read back and compared with what clients
//! were told. The same seed and commit give the same trace hash. Fault models stand at the head of
//! `disk.rs`, `atlas.rs`, `link.rs` and `weather.rs`; the oracle is `model/`.

mod atlas;
mod cast;
mod client;
mod clock;
mod disk;
mod environment;
mod faults;
mod image;
mod life;
mod link;
mod minimal;
mod options;
mod payload;
mod post;
mod process;
mod rng;
mod router;
mod trace;
mod weather;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use faults::{Fault, FaultId, FaultKind, Mask};
pub use minimal::minimal;
pub use thalweg_core::canary::Canary;

use thalweg_core::rare;

use crate::clock::Clock;
use crate::faults::Faults;
use crate::options::Options;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::world::World;

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// A planted bug that must be caught.
    pub canary: Option<Canary>,
    /// The bug is not planted after all: the same world without it, which must hold.
    pub is_control: bool,
    /// Let acknowledged bytes rot at rest once: beyond the promise, where a server may refuse to
    /// serve but may not serve what is wrong.
    pub rots: bool,
    /// Faults that are held back.
    pub mask: Mask,
    /// At most so many operations.
    pub operations_max: Option<u64>,
    /// Print every line of the trace as it is written.
    pub is_verbose: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// The first invariant that did not hold.
    pub violation: Option<String>,
    /// Hash over every line of the trace.
    pub hash: u64,
    /// What was counted.
    pub counts: BTreeMap<&'static str, u64>,
    /// The faults that struck, in order.
    pub faults: Vec<Fault>,
    /// Operations that clients were free to begin.
    pub operations: u64,
    /// The options, for people.
    pub options: String,
    /// The last lines of the trace, oldest first, if an invariant did not hold.
    pub last_lines: Vec<String>,
}

/// A seed in its run.
#[derive(Clone)]
struct Running {
    seed: u64,
    operations: u64,
    options: String,
    clock: Clock,
    trace: Trace,
    faults: Faults,
}

impl Running {
    fn verdict(&self) -> Verdict {
        let violation = self.trace.violated();
        let last_lines = if violation.is_some() { self.trace.last_lines() } else { Vec::new() };
        Verdict {
            seed: self.seed,
            violation,
            hash: self.trace.hash(),
            counts: self.trace.counts(),
            faults: self.faults.struck(),
            operations: self.operations,
            options: self.options.clone(),
            last_lines,
        }
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Runs one seed.
pub fn run(seed: u64, run: &Run) -> Verdict {
    let rng = Rng::new(seed);
    let mut options = Options::draw(&mut rng.split(0), run.canary, run.rots);
    let planted = run.canary.filter(|_| !run.is_control);
    options.canary = planted;
    options.operations = options.operations.min(run.operations_max.unwrap_or(u64::MAX));
    #[cfg(feature = "canary")]
    thalweg_core::canary::plant(planted);
    let clock = Clock::default();
    let trace = Trace::new(clock.clone(), run.is_verbose);
    let faults = Faults::new(run.mask.clone(), clock.clone(), trace.clone());
    let running = Running {
        seed,
        operations: options.operations,
        options: options.to_string(),
        clock: clock.clone(),
        trace: trace.clone(),
        faults: faults.clone(),
    };
    RUNNING.set(Some(running.clone()));
    arm_rare_branches(&mut rng.split(5));
    let world = || World::new(options, &rng, trace.clone(), clock.clone(), faults).run();
    // Where panics abort, the hook of the program reports instead.
    if catch_unwind(AssertUnwindSafe(world)).is_err() {
        trace.violation("panic", format_args!("{}", PANIC.take()));
    }
    RUNNING.set(None);
    for (point, taken) in rare::disarm() {
        trace.add(point.name(), taken);
    }
    trace.add("virtual milliseconds", running.clock.nanos() / clock::MILLISECOND);
    running.verdict()
}

/// Half of the worlds take rare branches, each at some of its points, seldom or often.
fn arm_rare_branches(rng: &mut Rng) {
    let is_armed = rng.percent(50);
    let chances = rare::Point::ALL.iter().map(|_| {
        let chance = rng.pick(&[0, 0, 2_000, 20_000, 100_000]);
        if is_armed { chance } else { 0 }
    });
    let chances = chances.collect();
    rare::arm(rng.next(), chances);
}

/// Keeps the text of a panic for the verdict of the seed that this thread is running; says whether
/// there is one.
pub fn note_panic(text: String) -> bool {
    PANIC.set(text);
    RUNNING.with_borrow(Option::is_some)
}

/// The seed that this thread is running, with `panic` as its violation: for where panics abort.
pub fn verdict_of_panic(panic: &str) -> Option<Verdict> {
    let running = RUNNING.take()?;
    running.trace.violation("panic", format_args!("{panic}"));
    Some(running.verdict())
}
