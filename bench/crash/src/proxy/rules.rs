//! What a proxy does to the bytes of one direction of one connection.

use std::time::Duration;

use crate::dice::Dice;

/// How a direction of a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides get a reset.
    Reset,
    /// The receiver gets an orderly end of this direction; the other direction goes on.
    HalfClose,
    /// Nothing more is delivered in this direction, and nobody is told.
    Blackhole,
}

/// Faults of one direction of one connection. The default passes everything on at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Each piece is held this long before it is passed on.
    pub delay: Duration,
    /// Pieces of at most this many bytes, each sent by itself. 0: as received.
    pub piece_bytes: usize,
    /// Bytes are held until so many are together or [`Self::coalesce_time`] is over. 0: not held.
    pub coalesce_bytes: usize,
    /// Longest time that bytes are held to be coalesced.
    pub coalesce_time: Duration,
    /// At most this many bytes per second. 0: no limit.
    pub bytes_per_second: u64,
    /// After exactly so many bytes were passed on, this happens.
    pub end: Option<(u64, End)>,
}

impl Rules {
    /// Rules for a network that works and is bad: mostly one mild fault, sometimes two, and in one
    /// of `end_one_in` directions an end, somewhere in the first `end_within` bytes.
    pub fn draw(dice: &mut Dice, end_one_in: u64, end_within: u64) -> Self {
        let mut rules = Self::default();
        for _ in 0..1 + dice.below(2) {
            match dice.below(8) {
                0 => rules.delay = Duration::from_micros(dice.range(100..4_000)),
                1 => rules.piece_bytes = dice.index(9) + 1,
                2 => rules.piece_bytes = dice.index(4_000) + 10,
                3 => {
                    rules.coalesce_bytes = dice.index(60_000) + 1_000;
                    rules.coalesce_time = dice.millis(1..12);
                }
                4 => rules.bytes_per_second = dice.range(2_000_000..20_000_000),
                _ => {}
            }
        }
        // Single bytes at full speed would only measure system calls.
        if (1..10).contains(&rules.piece_bytes) {
            rules.bytes_per_second = rules.bytes_per_second.clamp(200_000, 400_000);
        }
        if dice.one_in(end_one_in) {
            let end = match dice.below(6) {
                0..=2 => End::Reset,
                3 | 4 => End::HalfClose,
                _ => End::Blackhole,
            };
            rules.end = Some((dice.below(end_within), end));
        }
        rules
    }

    /// No fault at all.
    pub fn is_transparent(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a [`Proxy`](super::Proxy) gets the rules of the next connection: first those towards the
/// server, then those towards the client.
pub type Plan = Box<dyn FnMut() -> (Rules, Rules) + Send>;

/// Rules that are the same for every connection.
pub fn always(to_server: Rules, to_client: Rules) -> Plan {
    Box::new(move || (to_server.clone(), to_client.clone()))
}

/// A bad network that follows from a seed: see [`Rules::draw`]. One connection in three is good.
pub fn bad_network(seed: u64) -> Plan {
    let mut dice = Dice::new(seed);
    Box::new(move || {
        if dice.one_in(3) {
            return (Rules::default(), Rules::default());
        }
        (Rules::draw(&mut dice, 4, 2_000_000), Rules::draw(&mut dice, 6, 40_000))
    })
}
