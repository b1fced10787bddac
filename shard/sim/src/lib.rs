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
mod model;
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

pub use faults::{Fault, FaultKind, Mask};
pub use options::Canary;

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
    /// Let acknowledged bytes rot at rest once: beyond the promise, where a server may refuse to
    /// serve but may not serve what is wrong.
    pub rots: bool,
    /// Faults that are held back.
    pub mask: Mask,
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
    /// The options, for people.
    pub options: String,
    /// The last lines of the trace, oldest first.
    pub last_lines: Vec<String>,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static RUNNING: RefCell<Option<(u64, String, Trace)>> = const { RefCell::new(None) };
}

/// Runs one seed.
pub fn run(seed: u64, run: &Run) -> Verdict {
    let rng = Rng::new(seed);
    let options = Options::draw(&mut rng.split(0), run.canary, run.rots);
    #[cfg(feature = "canary")]
    thalweg_core::canary::forget_event_numbers(
        run.canary == Some(Canary::ForgetEventNumberOverRestart),
    );
    let clock = Clock::default();
    let trace = Trace::new(clock.clone(), run.is_verbose);
    let text = options.to_string();
    RUNNING.set(Some((seed, text.clone(), trace.clone())));
    let faults = Faults::new(run.mask.clone(), clock.clone(), trace.clone());
    let world = || {
        World::new(options, &rng, trace.clone(), clock.clone(), faults.clone()).run();
    };
    // Where panics abort, the hook of the program reports instead.
    if catch_unwind(AssertUnwindSafe(world)).is_err() {
        trace.violation("panic", format_args!("{}", PANIC.take()));
    }
    RUNNING.set(None);
    trace.add("virtual milliseconds", clock.nanos() / clock::MILLISECOND);
    Verdict {
        seed,
        violation: trace.violated(),
        hash: trace.hash(),
        counts: trace.counts(),
        faults: faults.struck(),
        options: text,
        last_lines: trace.last_lines(),
    }
}

/// Keeps the text of a panic for the verdict of the seed that this thread is running; says whether
/// there is one.
pub fn note_panic(text: String) -> bool {
    PANIC.set(text);
    RUNNING.with_borrow(Option::is_some)
}

/// The seed that this thread is running, its options and its last lines: for a panic's report.
pub fn running() -> Option<(u64, String, Vec<String>)> {
    RUNNING.with_borrow(|running| {
        running.as_ref().map(|(seed, options, trace)| (*seed, options.clone(), trace.last_lines()))
    })
}
