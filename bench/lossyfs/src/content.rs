//! The bytes of one file: as the program sees them and as a power cut would leave them.
//!
//! Changes since the last sync are kept in order with a number each. What [`Content::sync`] covers
//! moves to the durable bytes; at a cut each sector of the rest is kept or not. Never asks a
//! clock and knows nothing of FUSE.

use crate::dice::Dice;
use crate::power::{Cut, CutReport};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A file's bytes.
#[derive(Debug, Default)]
pub(crate) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// In the order of their numbers.
    pending: Vec<Pending>,
    next_number: u64,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    change: Change,
    /// A sync that covered it failed: no later sync makes it durable.
    is_forsaken: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Size(usize),
}

/// Which changes a sync covers: those made before this mark was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Content {
    pub(crate) fn bytes(&self) -> usize {
        self.live.len()
    }

    /// Bytes that the file takes of the budget: a size that is not yet synced away counts too.
    pub(crate) fn taken(&self) -> usize {
        self.live.len().max(self.durable.len())
    }

    pub(crate) fn read(&self, offset: usize, length: usize) -> &[u8] {
        let start = offset.min(self.live.len());
        &self.live[start..start.saturating_add(length).min(self.live.len())]
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        self.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes != self.live.len() {
            self.live.resize(bytes, 0);
            self.push(Change::Size(bytes));
        }
    }

    fn push(&mut self, change: Change) {
        self.next_number += 1;
        self.pending.push(Pending { number: self.next_number, change, is_forsaken: false });
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.next_number)
    }

    /// Makes durable what was changed before the mark.
    pub(crate) fn sync(&mut self, mark: Mark) {
        let mut rest = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if pending.number > mark.0 || pending.is_forsaken {
                rest.push(pending);
                continue;
            }
            match &pending.change {
                Change::Write { offset, bytes } => {
                    put(&mut self.durable, *offset, bytes);
                    // What a failed sync left behind must not come back over newer bytes.
                    rest =
                        rest.into_iter().flat_map(|it| it.without(*offset, bytes.len())).collect();
                }
                Change::Size(bytes) => self.durable.resize(*bytes, 0),
            }
        }
        self.pending = rest;
    }

    /// A sync that failed: what it covered may be lost and is not asked for again.
    pub(crate) fn sync_failed(&mut self, mark: Mark) {
        for pending in self.pending.iter_mut().filter(|it| it.number <= mark.0) {
            pending.is_forsaken = true;
        }
    }

    /// What is left after a power cut.
    pub(crate) fn cut(&mut self, cut: Cut, dice: &mut Dice, report: &mut CutReport) {
        let pending = std::mem::take(&mut self.pending);
        let newest_size = self.live.len();
        let survival = Survival::draw(cut, dice, pending.len());
        let is_size_kept = match cut {
            Cut::DropAll => false,
            Cut::KeepAll => true,
            Cut::Seeded(_) => dice.coin(),
        };
        let size = if is_size_kept { newest_size } else { self.durable.len() };
        for (place, pending) in pending.into_iter().enumerate() {
            let Change::Write { offset, bytes } = pending.change else { continue };
            let mut kept = 0;
            let sectors = bytes.chunks(SECTOR_BYTES).len();
            for (sector, piece) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if survival.keeps(place, sector, sectors, dice) {
                    kept += 1;
                    put(&mut self.durable, offset + sector * SECTOR_BYTES, piece);
                }
            }
            report.pending_writes += 1;
            match kept {
                0 => report.lost_writes += 1,
                kept if kept == sectors => report.kept_writes += 1,
                _ => report.torn_writes += 1,
            }
        }
        self.durable.resize(size, 0);
        self.live.clone_from(&self.durable);
    }
}

impl Pending {
    /// What is left of it beside a range that was written and synced later.
    fn without(self, offset: usize, length: usize) -> Vec<Self> {
        let Change::Write { offset: own, bytes } = &self.change else { return vec![self] };
        let (own_end, end) = (own + bytes.len(), offset + length);
        if own_end <= offset || end <= *own {
            return vec![self];
        }
        let piece = |from: usize, to: usize| Self {
            number: self.number,
            change: Change::Write { offset: from, bytes: bytes[from - own..to - own].to_vec() },
            is_forsaken: self.is_forsaken,
        };
        let before = (*own < offset).then(|| piece(*own, offset));
        let behind = (end < own_end).then(|| piece(end, own_end));
        before.into_iter().chain(behind).collect()
    }
}

/// Which sectors of a file's unsynced writes survive.
enum Survival {
    Nothing,
    Everything,
    /// Each write whole or not at all, by the bits of the words.
    Writes(Vec<bool>),
    /// Writes before the place, and a first part of that one.
    Prefix {
        place: usize,
        quarters: usize,
    },
    /// Each sector by itself.
    Sectors,
}

impl Survival {
    fn draw(cut: Cut, dice: &mut Dice, writes: usize) -> Self {
        match cut {
            Cut::DropAll => Self::Nothing,
            Cut::KeepAll => Self::Everything,
            Cut::Seeded(_) => match dice.below(5) {
                0 => Self::Nothing,
                1 => Self::Everything,
                2 => Self::Writes((0..writes).map(|_| dice.coin()).collect()),
                3 => Self::Prefix { place: dice.cut(writes), quarters: dice.cut(4) },
                _ => Self::Sectors,
            },
        }
    }

    fn keeps(&self, place: usize, sector: usize, sectors: usize, dice: &mut Dice) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Writes(kept) => kept[place],
            Self::Prefix { place: torn, quarters } => {
                place < *torn || (place == *torn && sector * 4 < sectors * quarters)
            }
            Self::Sectors => dice.coin(),
        }
    }
}

/// Writes into memory, which grows by zeros where needed.
fn put(memory: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if memory.len() < end {
        memory.resize(end, 0);
    }
    memory[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(content: &mut Content, cut: Cut) -> CutReport {
        let seed = if let Cut::Seeded(seed) = cut { seed } else { 0 };
        let mut report = CutReport::default();
        content.cut(cut, &mut Dice::new(seed), &mut report);
        report
    }

    fn written(byte: u8) -> Content {
        let mut content = Content::default();
        content.write(0, &[byte; 4096]);
        content.sync(content.mark());
        content
    }

    /// Shows that a cut takes back exactly what no sync covered, size included.
    #[test]
    fn what_no_sync_covered_is_lost() {
        let mut content = written(1);
        content.write(0, &[2; 512]);
        let mark = content.mark();
        content.write(512, &[3; 8192]);
        content.sync(mark);
        let report = cut(&mut content, Cut::DropAll);
        assert_eq!((report.pending_writes, report.lost_writes), (1, 1));
        assert_eq!(content.bytes(), 4096);
        assert_eq!(content.read(0, 512), [2; 512]);
        assert_eq!(content.read(512, 9999), [1; 3584]);
    }

    /// Shows that every seed leaves each sector as it was or as it was written, and that over some
    /// seeds both happen, torn writes too.
    #[test]
    fn a_seeded_cut_leaves_each_sector_old_or_new() {
        let mut all = CutReport::default();
        for seed in 0..100 {
            let mut content = written(1);
            content.write(0, &[2; 2048]);
            content.write(2048, &[3; 2048]);
            all += cut(&mut content, Cut::Seeded(seed));
            for (number, sector) in content.read(0, 4096).chunks(SECTOR_BYTES).enumerate() {
                let new = if number < 4 { 2 } else { 3 };
                assert!(sector == [1; SECTOR_BYTES] || sector == [new; SECTOR_BYTES], "{seed}");
            }
        }
        assert_eq!(all.pending_writes, 200);
        assert!(all.kept_writes > 20 && all.lost_writes > 20 && all.torn_writes > 20, "{all:?}");
    }

    /// Shows that a sync after a failed one makes durable only what was written since, and that the
    /// lost bytes do not come back over newer ones.
    #[test]
    fn a_sync_after_a_failed_one_brings_nothing_back() {
        let mut content = written(1);
        content.write(0, &[2; 2048]);
        content.sync_failed(content.mark());
        content.write(512, &[3; 512]);
        content.sync(content.mark());
        assert_eq!(content.read(0, 512), [2; 512]);
        assert_eq!(content.pending.len(), 2);
        for (how, lost) in [(Cut::DropAll, 1), (Cut::KeepAll, 2)] {
            let mut again = Content {
                live: content.live.clone(),
                durable: content.durable.clone(),
                pending: std::mem::take(&mut content.pending),
                next_number: 9,
            };
            cut(&mut again, how);
            assert_eq!(again.read(512, 512), [3; 512]);
            if how == Cut::DropAll {
                assert_eq!(again.read(0, 512), [lost; 512]);
            }
        }
    }
}
