//! Acknowledged blocks of events: where they were said to end, held against each other and against
//! what was read there.

use super::{Block, SegmentState};
use crate::breach::{Verdict, breach, hold};
use crate::id::Writer;
use crate::writer::WriterState;

impl SegmentState {
    /// Events were acknowledged; the length is where they end.
    pub(crate) fn placed(
        &mut self,
        writer: Writer,
        (first, last): (i64, i64),
        (bytes, length): (u64, Option<u64>),
        is_conditional: bool,
        ends: u32,
    ) -> Verdict {
        let Some(length) = length else { return Ok(()) };
        let Some(start) = length.checked_sub(bytes) else {
            breach!("S1", "{bytes} bytes of {writer:?} were acknowledged to end at {length}");
        };
        self.acknowledged(Block { writer, first, last, start, is_conditional }, length, ends)
    }

    /// Whether this event was found.
    pub(crate) fn holds(&self, writer: Writer, number: i64) -> bool {
        let found = self.writers.get(&writer).and_then(WriterState::found);
        found >= Some(number) && self.content.holds_before(writer, number, u64::MAX)
    }

    /// An append was acknowledged that ends at `length`.
    pub(crate) fn acknowledged(&mut self, block: Block, length: u64, ends: u32) -> Verdict {
        let own = (length, block);
        let next = self.blocks.range(block.start + 1..).next().map(|(end, other)| (*end, *other));
        if let Some((end, other)) = next {
            let kind = if block.is_conditional || other.is_conditional { "S11" } else { "S1" };
            let is_apart = other.start >= length || (end, other) == own;
            hold!(is_apart, kind, "{other:?} up to {end} and {block:?} up to {length} overlap");
        }
        if self.content.frontier() >= length {
            self.check_block(&block, length)?;
        } else {
            let found = self.writers.get(&block.writer).and_then(WriterState::found);
            let is_new = found < Some(block.last);
            hold!(is_new, "S1", "{block:?} was read before {length}, where it is said to end");
            self.blocks.insert(length, block);
        }
        self.is_told(length, ends)
    }

    /// A block lies where it was acknowledged.
    fn check_block(&self, block: &Block, end: u64) -> Verdict {
        let boundary = |at: u64, offset: u64| {
            let placed = self.content.at(at)?;
            let distance = offset - placed.offset;
            let bytes = u64::from(placed.run.bytes);
            let number = placed.run.first + (distance / bytes) as i64;
            Some((placed.run.writer, number, distance.is_multiple_of(bytes)))
        };
        // What is not known before the frontier was truncated.
        let starts = boundary(block.start, block.start)
            .is_none_or(|found| found == (block.writer, block.first, true));
        let ends = boundary(end - 1, end)
            .is_none_or(|found| found == (block.writer, block.last + 1, true));
        let kind = if block.is_conditional { "S11" } else { "S1" };
        hold!(
            starts && ends,
            kind,
            "{block:?} was acknowledged up to {end} and does not lie there"
        );
        Ok(())
    }

    /// Acknowledged blocks lie where they were acknowledged, as far as that is known by now.
    pub(super) fn check_blocks(&mut self) -> Verdict {
        while let Some(entry) = self.blocks.first_entry() {
            if *entry.key() > self.content.frontier() {
                break;
            }
            let (end, block) = entry.remove_entry();
            self.check_block(&block, end)?;
        }
        Ok(())
    }
}
