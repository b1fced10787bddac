//! What happens to whole processes, and how often.

use crate::rng::Rng;

/// Something that befalls a process, its threads or all of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The process ends at once, perhaps with the power.
    Kill,
    /// A thread dies between two of its effects, and the process with it a little later.
    DieInTheMiddle,
    /// A shard takes no turns for a while; the others do.
    Freeze,
    /// The process is asked to stop.
    Stop,
    /// Another process opens the same directories while this one stands still or goes on.
    Takeover,
    /// All connections break, several times in a row.
    LinkStorm,
    /// Wall time jumps.
    ClockJump,
    /// What is durable gets damaged while it is in use.
    Damage,
}

/// Rates of a world. The mean time between blows is `Options::crash_every_us`.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// How long an owner may answer unasked, microseconds; `None`: a lock keeps owners apart.
    pub(crate) lease_us: Option<u64>,
    /// Share of each kind of blow.
    shares: [(Blow, u64); 7],
    /// Longest freeze, microseconds.
    pub(crate) freeze_us_max: u64,
    /// Records may be damaged at rest once, within the promise.
    pub(crate) damages: bool,
}

impl Weather {
    /// The weather of a world.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let lease_us = rng.percent(35).then(|| rng.pick(&[20_000, 100_000]));
        let mut share = |percent, most| if rng.percent(percent) { rng.between(1, most) } else { 0 };
        let shares = [
            (Blow::Kill, share(80, 10)),
            (Blow::DieInTheMiddle, share(60, 10)),
            (Blow::Freeze, share(40, 5)),
            (Blow::Stop, share(40, 5)),
            (Blow::Takeover, if lease_us.is_some() { share(70, 12) } else { 0 }),
            (Blow::LinkStorm, share(25, 4)),
            (Blow::ClockJump, share(30, 3)),
        ];
        Self {
            lease_us,
            shares,
            freeze_us_max: rng.pick(&[2_000, 50_000, 2_000_000]),
            damages: rng.percent(15),
        }
    }

    /// Ends of the process are to be expected.
    pub(crate) fn kill_often(&mut self) {
        self.shares[0].1 = self.shares[0].1.max(10);
    }

    /// What comes next.
    pub(crate) fn next(&self, rng: &mut Rng) -> Blow {
        if self.damages && rng.percent(20) {
            return Blow::Damage;
        }
        let all = self.shares.iter().map(|(_, share)| share).sum();
        let mut at = rng.below(all);
        for (blow, share) in self.shares {
            if at < share {
                return blow;
            }
            at -= share;
        }
        Blow::Kill
    }
}
