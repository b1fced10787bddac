//! Rare branches on demand: places where the code may choose freely ask [`maybe`] whether to take
//! the branch that life takes seldom. Only the simulator ever says yes.
//!
//! Without the feature `rare` the question is a constant and vanishes. With it the answer comes
//! from a generator per thread that [`arm`] seeds; before that, and in every other thread, it is
//! no. A place may ask only where both branches keep every promise.

/// Declares the points together with the words for their counts.
macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A place that may take a rare branch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// The words of a report.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// The open frame is sealed before an operation that would fit.
    SealEarly = "rare: frame sealed early",
    /// A snapshot is taken though none is due.
    CheckpointNow = "rare: checkpoint taken early",
    /// The tail cache lets go of all but the newest frame.
    EvictTail = "rare: tail cache emptied",
    /// A read is answered with one byte.
    ShortRead = "rare: read answered short",
    /// The journal goes on in the next file though this one has room.
    RollFile = "rare: file left early",
    /// A beacon is written before its time.
    BeaconNow = "rare: beacon written early",
    /// A frame that was read right is read again.
    ReadAgain = "rare: frame read again",
    /// Files that may go stay a little longer.
    RetireLate = "rare: files kept longer",
}

#[cfg(feature = "rare")]
mod armed {
    use std::cell::RefCell;

    use super::Point;

    /// What a thread answers.
    #[derive(Clone, Debug)]
    struct Armed {
        state: u64,
        per_million: Vec<u32>,
        taken: Vec<u64>,
    }

    thread_local! {
        static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
    }

    /// Lets this thread take rare branches, each point by its own chance in a million, in the order
    /// of [`Point::ALL`].
    pub fn arm(seed: u64, per_million: Vec<u32>) {
        assert_eq!(per_million.len(), Point::ALL.len(), "each point has a chance");
        let taken = vec![0; per_million.len()];
        ARMED.set(Some(Armed { state: seed, per_million, taken }));
    }

    /// Takes no rare branch any more; says how often each was taken.
    pub fn disarm() -> Vec<(Point, u64)> {
        let taken = ARMED.take().map(|armed| armed.taken).unwrap_or_default();
        Point::ALL.iter().copied().zip(taken).collect()
    }

    /// Whether to take the rare branch.
    pub fn maybe(point: Point) -> bool {
        ARMED.with_borrow_mut(|armed| {
            let Some(armed) = armed else { return false };
            let chance = u64::from(armed.per_million[point as usize]);
            if chance == 0 {
                return false;
            }
            // A linear congruential step; the high bits are good enough to roll dice.
            armed.state = armed.state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            let is_taken = (armed.state >> 33) % 1_000_000 < chance;
            armed.taken[point as usize] += u64::from(is_taken);
            is_taken
        })
    }
}

#[cfg(feature = "rare")]
pub use armed::{arm, disarm, maybe};

/// No rare branch is taken.
#[cfg(not(feature = "rare"))]
#[inline(always)]
pub const fn maybe(_point: Point) -> bool {
    false
}
