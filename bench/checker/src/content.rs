//! The bytes of one segment as readers saw them: which event lies where.
//!
//! What was read without a gap from the beginning (or from the start offset) is the *known* part,
//! kept as runs of events; its end is the frontier. Every later read is held against it: bytes
//! follow from the event, so equal events are equal bytes. What was read behind a gap waits as an
//! island until the gap closes. What was truncated is forgotten.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use crate::breach::{Verdict, breach, hold};
use crate::id::Writer;
use crate::payload::{EVENT_BYTES_MIN, Event, Judged, judge, push_event};
use crate::record::{Data, Run};

/// A run at its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) offset: u64,
    pub(crate) run: Run,
    /// How often something before it was jumped over.
    pub(crate) jumps: u32,
    /// How often the process had ended when it was read.
    pub(crate) ends: u32,
}

impl Placed {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.run.all_bytes()
    }

    /// The event at this place of the run.
    fn event(&self, index: u64) -> Event {
        Event {
            writer: self.run.writer,
            number: self.run.first + index as i64,
            key: self.run.key,
            payload_bytes: self.run.bytes
                - (EVENT_BYTES_MIN - crate::payload::PAYLOAD_BYTES_MIN) as u32,
        }
    }
}

/// The content of one segment.
#[derive(Debug, Default)]
pub(crate) struct Content {
    known: VecDeque<Placed>,
    frontier: u64,
    /// Bytes behind the frontier that are not a whole event yet.
    loose: BytesMut,
    islands: BTreeMap<(u64, u64), Data>,
    islands_made: u64,
    /// The frontier jumped over bytes that were truncated before anybody read them.
    is_adrift: bool,
    /// How often it jumped.
    jumps: u32,
    /// Runs that became known and were not taken yet.
    fresh: Vec<Placed>,
}

impl Content {
    /// End of the known part.
    pub(crate) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// End of what was seen without a gap, incomplete events included.
    pub(crate) fn seen(&self) -> u64 {
        self.frontier + self.loose.len() as u64
    }

    /// Bytes of an incomplete event at the end.
    pub(crate) fn loose_bytes(&self) -> usize {
        self.loose.len()
    }

    /// How often some part that was truncated unread was jumped over.
    pub(crate) fn jumps(&self) -> u32 {
        self.jumps
    }

    /// Takes what became known, in order.
    pub(crate) fn take_fresh(&mut self, into: &mut Vec<Placed>) {
        into.append(&mut self.fresh);
    }

    /// The known run that holds the byte at `offset`.
    pub(crate) fn at(&self, offset: u64) -> Option<&Placed> {
        let at = self.known.partition_point(|placed| placed.end() <= offset);
        self.known.get(at).filter(|placed| placed.offset <= offset)
    }

    /// Whether this event is known to be stored before this place.
    pub(crate) fn holds_before(&self, writer: Writer, number: i64, offset: u64) -> bool {
        self.known.iter().take_while(|placed| placed.offset < offset).any(|placed| {
            let run = &placed.run;
            run.writer == writer && (run.first..=run.last()).contains(&number)
        })
    }

    /// The segment starts here: what was never read before it is jumped over.
    pub(crate) fn jump_to(&mut self, start: u64, ends: u32) -> Verdict {
        while start > self.seen() {
            self.jumps += 1;
            self.loose.clear();
            let island = self.islands.keys().next().map(|(offset, _)| *offset);
            match island.filter(|offset| *offset < start) {
                Some(offset) => {
                    self.frontier = offset;
                    self.is_adrift = false;
                    self.join_islands(ends)?;
                }
                None => {
                    self.frontier = start;
                    self.is_adrift = true;
                }
            }
        }
        Ok(())
    }

    /// All was read from the start on, which may have been inside an event: what follows is what
    /// was read first.
    pub(crate) fn come_ashore(&mut self, ends: u32) -> Verdict {
        let island = self.islands.keys().next().map(|(offset, _)| *offset);
        if let (true, Some(offset)) = (self.is_adrift, island) {
            self.frontier = offset;
            self.is_adrift = false;
            self.join_islands(ends)?;
        }
        Ok(())
    }

    /// What lies before this place need not be known any more.
    pub(crate) fn forget_before(&mut self, start: u64) {
        while self.known.front().is_some_and(|placed| placed.end() <= start) {
            self.known.pop_front();
        }
    }

    /// Something was read.
    pub(crate) fn read(&mut self, offset: u64, data: Data, ends: u32) -> Verdict {
        if self.is_adrift && offset >= self.frontier && matches!(data, Data::Bytes(_)) {
            // Nobody knows where an event begins.
            return Ok(());
        }
        if offset > self.seen() {
            self.islands_made += 1;
            self.islands.insert((offset, self.islands_made), data);
            return Ok(());
        }
        self.is_adrift &= offset < self.frontier;
        self.join(offset, data, ends)?;
        self.join_islands(ends)
    }

    fn join_islands(&mut self, ends: u32) -> Verdict {
        while let Some((key, _)) = self.islands.first_key_value() {
            let (offset, number) = *key;
            if offset > self.seen() {
                break;
            }
            if let Some(data) = self.islands.remove(&(offset, number)) {
                self.join(offset, data, ends)?;
            }
        }
        Ok(())
    }

    fn join(&mut self, offset: u64, data: Data, ends: u32) -> Verdict {
        match data {
            Data::Runs(runs) => {
                let mut offset = offset;
                for run in runs {
                    self.join_run(Placed { offset, run, jumps: self.jumps, ends })?;
                    offset += run.all_bytes();
                }
                Ok(())
            }
            Data::Bytes(bytes) => self.join_bytes(offset, &bytes, ends),
            Data::Wrong { at } => breach!("S2", "the bytes at {at} are not those of any event"),
        }
    }

    fn join_run(&mut self, placed: Placed) -> Verdict {
        let run = placed.run;
        let least = EVENT_BYTES_MIN as u32;
        hold!(run.count > 0 && run.bytes >= least, "history", "a run without events: {run:?}");
        if placed.offset < self.frontier {
            self.compare_run(&placed)?;
        }
        if placed.end() <= self.frontier {
            return Ok(());
        }
        let old = self.frontier.saturating_sub(placed.offset);
        let bytes = u64::from(run.bytes);
        hold!(
            old.is_multiple_of(bytes),
            "S6",
            "{run:?} at {} lies across {}, where an event begins",
            placed.offset,
            self.frontier
        );
        let skipped = old / bytes;
        let new = Placed {
            offset: placed.offset + old,
            run: Run {
                first: run.first + skipped as i64,
                count: run.count - skipped as u32,
                ..run
            },
            ..placed
        };
        self.compare_loose(&new)?;
        self.frontier = new.end();
        self.known.push_back(new);
        self.fresh.push(new);
        Ok(())
    }

    /// Holds the loose bytes against the events that now are known to lie there.
    fn compare_loose(&mut self, new: &Placed) -> Verdict {
        let mut index = 0;
        let mut expected = BytesMut::new();
        while !self.loose.is_empty() && index < u64::from(new.run.count) {
            expected.clear();
            new.event(index).encode(&mut expected);
            let length = self.loose.len().min(expected.len());
            let is_same = self.loose[..length] == expected[..length];
            let at = new.offset + index * u64::from(new.run.bytes);
            hold!(is_same, "S6", "reads of the event at {at} differ");
            let _ = self.loose.split_to(length);
            index += 1;
        }
        Ok(())
    }

    fn compare_run(&self, placed: &Placed) -> Verdict {
        let from = self.known.partition_point(|known| known.end() <= placed.offset);
        for known in self.known.range(from..) {
            if known.offset >= placed.end() {
                break;
            }
            let distance = placed.offset as i64 - known.offset as i64;
            let bytes = i64::from(known.run.bytes);
            let is_same = known.run.writer == placed.run.writer
                && known.run.key == placed.run.key
                && known.run.bytes == placed.run.bytes
                && distance % bytes == 0
                && known.run.first + distance / bytes == placed.run.first;
            hold!(
                is_same,
                Self::difference(known, placed.ends),
                "{:?} at {} was read as {:?} at {} before",
                placed.run,
                placed.offset,
                known.run,
                known.offset
            );
        }
        Ok(())
    }

    /// Two reads that differ, or one before and one after the process had ended.
    fn difference(known: &Placed, ends: u32) -> &'static str {
        if known.ends == ends { "S6" } else { "S7" }
    }

    fn join_bytes(&mut self, offset: u64, bytes: &[u8], ends: u32) -> Verdict {
        let known = usize::try_from(self.frontier.saturating_sub(offset)).unwrap_or(usize::MAX);
        let known = known.min(bytes.len());
        self.compare_bytes(offset, &bytes[..known], ends)?;
        let new = &bytes[known..];
        if new.is_empty() {
            return Ok(());
        }
        let skipped = usize::try_from(offset.saturating_sub(self.frontier)).unwrap_or(usize::MAX);
        let overlap = self.loose.len().saturating_sub(skipped).min(new.len());
        let is_same = self.loose[skipped..skipped + overlap] == new[..overlap];
        hold!(is_same, "S6", "reads of the event at {} differ", self.frontier);
        self.loose.extend_from_slice(&new[overlap..]);
        self.judge_loose(ends)
    }

    fn compare_bytes(&self, offset: u64, bytes: &[u8], ends: u32) -> Verdict {
        let end = offset + bytes.len() as u64;
        let from = self.known.partition_point(|known| known.end() <= offset);
        let mut expected = BytesMut::new();
        for known in self.known.range(from..) {
            if known.offset >= end {
                break;
            }
            let event_bytes = u64::from(known.run.bytes);
            let first = offset.saturating_sub(known.offset) / event_bytes;
            for index in first..u64::from(known.run.count) {
                let at = known.offset + index * event_bytes;
                if at >= end {
                    break;
                }
                expected.clear();
                known.event(index).encode(&mut expected);
                let (low, high) = (at.max(offset), (at + event_bytes).min(end));
                let is_same = expected[(low - at) as usize..(high - at) as usize]
                    == bytes[(low - offset) as usize..(high - offset) as usize];
                hold!(
                    is_same,
                    Self::difference(known, ends),
                    "the event at {at} was read otherwise before"
                );
            }
        }
        Ok(())
    }

    fn judge_loose(&mut self, ends: u32) -> Verdict {
        let mut runs: Vec<Run> = Vec::new();
        let mut used = 0;
        let verdict = loop {
            match judge(&self.loose[used..]) {
                Judged::Event(event) => {
                    used += event.framed_bytes() as usize;
                    push_event(&mut runs, &event);
                }
                Judged::Incomplete => break Ok(()),
                Judged::Wrong => {
                    let at = self.frontier + used as u64;
                    break Err(at);
                }
            }
        };
        let _ = self.loose.split_to(used);
        for run in runs {
            let placed = Placed { offset: self.frontier, run, jumps: self.jumps, ends };
            self.frontier = placed.end();
            self.known.push_back(placed);
            self.fresh.push(placed);
        }
        if let Err(at) = verdict {
            breach!("S2", "the bytes at {at} are not those of any event");
        }
        Ok(())
    }
}
