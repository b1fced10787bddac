//! What befalls a world as a whole: threads that stand still or die, stops, takeovers, storms on
//! the links, jumps of the wall clock, damage at rest. When, says its weather; whether, its faults.

use super::World;
use crate::atlas::{self, Scope};
use crate::client::Phase;
use crate::clock::MICROSECOND;
use crate::faults::FaultKind;
use crate::trace::trace;
use crate::weather::Blow;

impl World {
    /// The next blow, while things fail.
    pub(super) fn schedule_blow(&mut self) {
        let mean = self.shared.options.crash_every_us;
        self.next_blow = (mean > 0 && self.shared.phase == Phase::Faults)
            .then(|| self.now() + self.rng.between(mean / 4, mean * 2) * MICROSECOND);
    }

    /// Lets a blow befall the world, unless it is held back.
    pub(super) fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::Kill => {
                if self.faults.strike(FaultKind::ProcessKill, true) {
                    self.crash();
                }
            }
            Blow::DieInTheMiddle => self.light_fuse(),
            Blow::Freeze => self.freeze(),
            Blow::Stop => self.stop(),
            Blow::Takeover => self.take_over(),
            Blow::LinkStorm => {
                if self.faults.strike(FaultKind::LinkStorm, true) {
                    self.storm = Some((self.now(), self.rng.between(1, 6)));
                }
            }
            Blow::ClockJump => {
                let hour: i64 = 3_600_000;
                let jump = self.rng.pick(&[-hour, hour, -hour * 8_766, hour * 8_766, 7, -7]);
                if self.faults.strike(FaultKind::WallClockJump, true) {
                    self.shared.clock.jump_wall(jump);
                }
            }
            Blow::Damage => self.damage(Scope::Promise),
        }
    }

    fn light_fuse(&mut self) {
        let effects = self.rng.between(1, 120);
        let index = self.rng.index(self.shared.options.shards);
        let Some(which) = self.current() else { return };
        if self.faults.strike(FaultKind::CrashAtEffect, true) {
            self.processes[which].set_fuse(index, effects);
        }
    }

    fn freeze(&mut self) {
        let most = self.shared.options.weather.freeze_us_max;
        let until = self.now() + self.rng.between(1, most) * MICROSECOND;
        let index = self.rng.index(self.shared.options.shards);
        let Some(which) = self.current() else { return };
        if self.faults.strike(FaultKind::FrozenShard, true) {
            self.processes[which].freeze(index, until);
        }
    }

    fn stop(&mut self) {
        let Some(which) = self.current() else { return };
        let process = &mut self.processes[which];
        if process.stopping_since.is_none() && self.faults.strike(FaultKind::OrderlyStop, true) {
            trace!(self.shared.trace, "the process is asked to stop");
            process.stop(&self.shared);
        }
    }

    /// A second process opens the directories. The first goes on, or stands still for a while and
    /// then goes on.
    fn take_over(&mut self) {
        let stands_still = self.rng.percent(70);
        let lease = self.shared.options.weather.lease_us.unwrap_or(1);
        let until = self.now() + self.rng.between(1, lease * 6) * MICROSECOND;
        let Some(which) = self.current().filter(|_| self.processes.len() == 1) else { return };
        if self.processes[which].stopping_since.is_some()
            || !self.faults.strike(FaultKind::Takeover, true)
        {
            return;
        }
        trace!(self.shared.trace, "another process takes over, stands still: {stands_still}");
        self.processes[which].is_former = true;
        if stands_still {
            for index in 0..self.processes[which].threads() {
                self.processes[which].freeze(index, until);
            }
        }
        self.boot();
    }

    /// Breaks all connections when it is time to.
    pub(super) fn advance_storm(&mut self) {
        let Some((at, left)) = self.storm.filter(|(at, _)| *at <= self.now()) else { return };
        trace!(self.shared.trace, "all connections break");
        self.shared.links.borrow_mut().reset_all();
        let next = at + self.rng.between(100, 20_000) * MICROSECOND;
        self.storm = (left > 1).then_some((next, left - 1));
    }

    fn damage(&mut self, scope: Scope) {
        let index = self.rng.index(self.disks.len());
        if self.has_rotted || self.damaged.is_some() {
            return;
        }
        let kind = if scope == Scope::Promise { FaultKind::DamagedRecord } else { FaultKind::Rot };
        if !self.faults.strike(kind, true) {
            return;
        }
        let mask = self.disks[index].with_image(|image, rng| atlas::damage(image, scope, rng));
        trace!(self.shared.trace, "disk {index} is damaged: {mask:x?}");
        match scope {
            Scope::Promise => self.damaged = mask,
            Scope::Anything => self.has_rotted = mask.is_some(),
        }
    }

    /// Beyond the promise, once in a world that asks for it.
    pub(super) fn rot(&mut self) {
        if self.shared.options.rots && !self.has_rotted && self.rng.percent(20) {
            self.damage(Scope::Anything);
        }
    }
}
