//! When to tell the journal which files are still needed. The question costs a look at each file,
//! so it is asked only after something was let go, and not more often than the configuration says.

use std::collections::VecDeque;
use std::time::Duration;

use thalweg_core::env::Env;
use thalweg_core::env::journal::Journal;
use thalweg_core::position::{FrameNumber, JournalAddress};
use thalweg_core::time::{Instant, Now};

use crate::turn::Shard;

/// Whether a look is due, and from where on frames are needed.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    is_asked: bool,
    last: Option<Instant>,
    /// Frames in flight, each with the replay position that it records.
    in_flight: VecDeque<(FrameNumber, JournalAddress)>,
    /// What the newest durable frame records. A newer position does not count yet: recovery would
    /// look for the older one's file.
    replay: Option<JournalAddress>,
}

impl Trim {
    /// Bytes of segments may have gone.
    pub(crate) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// A frame was submitted that records `replay` as the oldest one needed; `None` for itself.
    pub(crate) fn submitted(
        &mut self,
        number: FrameNumber,
        address: JournalAddress,
        replay: Option<JournalAddress>,
    ) {
        self.in_flight.push_back((number, replay.unwrap_or(address)));
    }

    /// Frames are durable; looks whether the recorded position left a file behind.
    pub(crate) fn durable(&mut self, through: FrameNumber) {
        while let Some((number, replay)) = self.in_flight.front().copied()
            && number <= through
        {
            self.in_flight.pop_front();
            if self.replay.map(JournalAddress::file) != Some(replay.file()) {
                self.is_asked = true;
            }
            self.replay = Some(replay);
        }
    }

    /// The engine recovered and needs frames from `replay` on. Looks at once: a journal that is
    /// full to the last block takes no frame that would ask.
    pub(crate) fn recovered(&mut self, replay: Option<JournalAddress>) {
        self.replay = replay;
        self.is_asked = true;
    }

    /// The replay position that the newest durable frame records.
    pub(crate) fn recorded(&self) -> Option<JournalAddress> {
        self.replay
    }

    pub(crate) fn next_deadline(&self, interval: Duration) -> Option<Instant> {
        let last = self.last.filter(|_| self.is_asked && self.replay.is_some())?;
        Some(last.after(interval))
    }

    /// Addresses of a journal that is being recovered mean nothing.
    pub(crate) fn forget(&mut self) {
        *self = Self { is_asked: true, last: self.last, ..Self::default() };
    }
}

impl<E: Env> Shard<E> {
    /// Lets go of journal files, if it is time to look.
    pub(crate) fn trim(&mut self, now: Now) {
        let interval = self.config.trim_interval;
        let is_early = self.trim.last.is_some_and(|last| now.monotonic < last.after(interval));
        let Some(replay_from) = self.trim.replay.filter(|_| self.trim.is_asked && !is_early) else {
            return;
        };
        self.trim.is_asked = false;
        self.trim.last = Some(now.monotonic);
        self.counters.trims += 1;
        let engine = &self.engine;
        self.env.journal().trim(replay_from, &|file| engine.is_referenced(file));
    }
}
