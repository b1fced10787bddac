//! Reading on behind a bad place: what is the highest sequence known durable, how much would be
//! cut, where does the chain go on.

use thalweg_core::env::device::Device;
use thalweg_core::frame::ContainerMask;
use thalweg_core::position::ContainerEpoch;

use super::{Position, Walk};
use crate::layout::{Checksum, RecordHeader, Sequence};
use crate::recovery::survey::Surveyed;

/// Where a chain can go on behind damage.
pub(super) struct Resumption {
    pub(super) at: Position,
    pub(super) first: Sequence,
    pub(super) epoch: ContainerEpoch,
    pub(super) checksum: Option<Checksum>,
    /// Whose operations the record before it held, when that is known.
    pub(super) before: Option<ContainerMask>,
}

/// What a scan does next.
enum Scan {
    On,
    NextFile,
    Stop,
}

impl<D: Device> Walk<'_, D> {
    /// Calls `look` with every header that belongs to its place, from `from` to the end of the
    /// directory, until it says stop. Steps over the payload of records that may be the
    /// chain's, and through that of others: newer records may lie inside what they claim.
    fn scan(&mut self, from: Position, look: &mut dyn FnMut(Position, &RecordHeader) -> Scan) {
        for index in from.file..self.files.len() {
            let file = &self.files[index];
            // Block 0 holds no record; that of a file without a start may still be unreadable.
            let first = u32::from(file.start().is_some());
            let mut block = if index == from.file { from.block } else { first };
            while block < file.blocks() {
                let Some((header, _)) = self.header_at(Position { file: index, block }) else {
                    block += 1;
                    continue;
                };
                self.highest_epoch = self.highest_epoch.max(header.epoch);
                match look(Position { file: index, block }, &header) {
                    Scan::On => {}
                    Scan::Stop => return,
                    Scan::NextFile => break,
                }
                let is_current = header.epoch >= self.chain.epoch;
                block += if is_current { header.address.blocks() } else { 1 };
            }
        }
    }

    /// W: the highest sequence that anything in the directory tells to be durable. Found once: it
    /// only depends on the end of the journal.
    pub(super) fn find_watermark(&mut self, behind: Position, own_bytes: u64) -> Sequence {
        if let Some(watermark) = self.watermark {
            return watermark;
        }
        let starts = self.files.iter().filter_map(Surveyed::start);
        let told = starts.map(|(start, _)| start.durable_upto).max().unwrap_or_default();
        let met = self.last.map(|last| last.durable_upto).unwrap_or_default();
        let watermark = self.scan_behind(behind, own_bytes).max(told).max(met);
        self.watermark = Some(watermark);
        watermark
    }

    /// Reads on to the end of the directory: gives the highest `durable_upto` met, and notes the
    /// bytes of records that would be cut if the chain ended here.
    pub(super) fn scan_behind(&mut self, behind: Position, own_bytes: u64) -> Sequence {
        let chain = self.chain;
        let mut bytes = own_bytes;
        let mut watermark = Sequence(0);
        self.scan(behind, &mut |_, header| {
            watermark = watermark.max(header.durable_upto);
            let is_cut = chain.expected.is_none_or(|expected| header.sequence >= expected);
            if is_cut && header.epoch >= chain.epoch {
                bytes += header.address.frame_bytes();
            }
            Scan::On
        });
        self.tail = Some((self.at, bytes));
        watermark
    }

    /// The pass that finds the end measures what is cut; the pass over known records does not.
    pub(super) fn measures_tail(&self) -> bool {
        self.is_file_start
    }

    /// Where the chain goes on behind a bad place.
    pub(super) fn find_resumption(&mut self, behind: Position) -> Option<Resumption> {
        let chain = self.chain;
        let next_file = self.next_file;
        let mut found = None;
        let fits = |header: &RecordHeader| {
            header.epoch >= chain.epoch
                && chain.expected.is_none_or(|expected| header.sequence > expected)
                && next_file.is_none_or(|(first, _)| header.sequence < first)
        };
        let files = self.files;
        self.scan(behind, &mut |at, header| {
            if at.file != behind.file && files[at.file].start().is_some() {
                // Files that the journal went on in are entered by their header, below.
                let is_next = next_file.is_some_and(|(_, next)| at.file >= next);
                return if is_next { Scan::Stop } else { Scan::NextFile };
            }
            if !fits(header) {
                return Scan::On;
            }
            found = Some(Resumption {
                at,
                first: header.sequence,
                epoch: header.epoch,
                checksum: None,
                before: Some(header.previous_containers),
            });
            Scan::Stop
        });
        if found.is_some() {
            return found;
        }
        let (first, index) = next_file?;
        let (start, epoch) = files[index].start()?;
        let before = self
            .header_at(Position { file: index, block: 1 })
            .filter(|(header, _)| header.sequence == first && header.epoch >= epoch);
        Some(Resumption {
            at: Position { file: index, block: 1 },
            first,
            epoch,
            checksum: Some(start.previous_checksum),
            before: before.map(|(header, _)| header.previous_containers),
        })
    }
}
