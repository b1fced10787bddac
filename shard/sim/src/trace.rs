//! What happened, line by line: a running hash of all lines, the last ones kept, counters.
//!
//! Two runs of one seed must write the same lines; the hash says so in 64 bits.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::rc::Rc;

use crate::clock::Clock;

/// Lines kept for the report of a failure.
const LINES_KEPT: usize = 200;

/// Counts by name; the names are the report's words.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// A shared handle to the world's trace.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    clock: Clock,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    hash: u64,
    kept: VecDeque<String>,
    is_printed: bool,
    counts: Counts,
    violation: Option<String>,
}

impl Trace {
    /// An empty trace; prints each line when asked to.
    pub(crate) fn new(clock: Clock, is_printed: bool) -> Self {
        // The start value and the prime below are those of the 64-bit FNV-1a hash.
        let state = State { hash: 0xCBF2_9CE4_8422_2325, is_printed, ..State::default() };
        Self { clock, state: Rc::new(RefCell::new(state)) }
    }

    /// Nanoseconds since the start.
    pub(crate) fn nanos(&self) -> u64 {
        self.clock.nanos()
    }

    /// Writes one line.
    pub(crate) fn line(&self, text: fmt::Arguments<'_>) {
        let mut state = self.state.borrow_mut();
        let mut line = if state.kept.len() < LINES_KEPT {
            String::with_capacity(120)
        } else {
            state.kept.pop_front().expect("lines are kept")
        };
        line.clear();
        let nanos = self.clock.nanos();
        write!(line, "{:>6}.{:06} {text}", nanos / 1_000_000, nanos % 1_000_000)
            .expect("writing to a string does not fail");
        for byte in line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if state.is_printed {
            println!("{line}");
        }
        state.kept.push_back(line);
    }

    /// Counts one of `what`.
    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts `number` of `what`.
    pub(crate) fn add(&self, what: &'static str, number: u64) {
        *self.state.borrow_mut().counts.entry(what).or_default() += number;
    }

    /// Records that something promised did not hold. The first one counts.
    pub(crate) fn violation(&self, invariant: &str, text: fmt::Arguments<'_>) {
        let message = format!("{invariant}: {text}");
        self.line(format_args!("VIOLATION {message}"));
        self.state.borrow_mut().violation.get_or_insert(message);
    }

    /// The first violation.
    pub(crate) fn violated(&self) -> Option<String> {
        self.state.borrow().violation.clone()
    }

    /// Whether there is a violation.
    pub(crate) fn is_violated(&self) -> bool {
        self.state.borrow().violation.is_some()
    }

    /// Hash of all lines so far.
    pub(crate) fn hash(&self) -> u64 {
        self.state.borrow().hash
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        self.state.borrow().counts.clone()
    }

    /// The last lines, oldest first.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.state.borrow().kept.iter().cloned().collect()
    }
}

/// Writes one line to a trace.
macro_rules! trace {
    ($trace:expr, $($arguments:tt)*) => {
        $trace.line(format_args!($($arguments)*))
    };
}

/// Records a violation of an invariant when a condition does not hold; gives whether it held.
macro_rules! check {
    ($trace:expr, $invariant:expr, $condition:expr, $($arguments:tt)*) => {{
        let holds = $condition;
        if !holds {
            $trace.violation($invariant, format_args!($($arguments)*));
        }
        holds
    }};
}

pub(crate) use {check, trace};
