//! Follows the chain of records and judges what does not fit: a tail that was never acknowledged,
//! or damage to what was. Reads only; decides nothing but where the chain ends.
//!
//! The rule. A place where the record of sequence s is expected and is not found whole is *bad*.
//! Let W be the highest `durable_upto` of all headers that belong to this journal from there to the
//! end of the directory. s > W: nobody was told that s is durable; the journal ends here. s ≤ W: an
//! acknowledged record is lost; it is reported, and the walk goes on at the next record that
//! belongs to the chain, found block by block.
//!
//! What belongs to the chain: a header that names its own place, of an epoch not below the
//! chain's, of a sequence above s and below the first sequence of the next file that the journal
//! went on in. Records of a lower epoch were cut; they are passed over without a word.

use bytes::Bytes;
use thalweg_core::canary::{self, Canary};
use thalweg_core::env::device::Device;
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::frame::{ContainerMask, FRAME_HEADER_BYTES};
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, FrameNumber};

use crate::config::Config;
use crate::files::journal_name;
use crate::layout::{
    Checksum, FileHeader, Owner, RecordHeader, RecordKind, Sequence, payload_checksum,
};
use crate::port::Port;
use crate::recovery::reader::Reader;
use crate::recovery::survey::{Head, Surveyed};

mod scan;
use scan::Resumption;

/// A place in the list of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) file: usize,
    pub(crate) block: u32,
}

/// What the next record must be. `None`: any.
#[derive(Clone, Copy, Debug)]
struct Chain {
    expected: Option<Sequence>,
    checksum: Option<Checksum>,
    epoch: ContainerEpoch,
}

/// What a walk meets.
#[derive(Debug)]
pub(crate) enum Found {
    /// A good record.
    Record { header: RecordHeader, bytes: Bytes },
    /// Acknowledged records that cannot be read any more.
    Lost {
        /// Whose operations they held; `None` when not known.
        containers: Option<ContainerMask>,
        fault: Fault,
    },
    /// A record of the journal's own is unreadable: nothing is lost with it.
    Blemish { fault: Fault },
}

/// A record that no other tells to be durable: it may be readable and yet not be safe.
#[derive(Debug)]
struct Uncertain {
    sequence: Sequence,
    file: usize,
    offset: u64,
    bytes: Bytes,
}

/// A write that makes an accepted record safe.
#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// Where the chain ends.
#[derive(Debug)]
pub(crate) struct End {
    /// Where the next record would lie.
    pub(crate) at: Position,
    /// Its sequence; `None` when no chain was found at all.
    pub(crate) next: Option<Sequence>,
    /// Checksum of the last header, when that is known.
    pub(crate) checksum: Option<Checksum>,
    /// Number of the newest frame.
    pub(crate) last_frame: FrameNumber,
    /// Newest good record.
    pub(crate) last: Option<RecordHeader>,
    /// Highest epoch met.
    pub(crate) epoch: ContainerEpoch,
    /// Epoch of the last record.
    pub(crate) chain_epoch: ContainerEpoch,
    /// Highest sequence known durable.
    pub(crate) watermark: Sequence,
    /// The place cannot be written to: what lies there is not known.
    pub(crate) needs_new_file: bool,
    /// Bytes of records behind the end.
    pub(crate) tail_bytes: u64,
    /// A place at or behind the end that the device does not read: what lies there may have been
    /// acknowledged.
    pub(crate) unreadable: Option<Position>,
    /// Accepted records above the watermark, and the headers of files begun above it.
    pub(crate) rewrites: Vec<Rewrite>,
}

/// Where to begin and when to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) from: Position,
    /// From the beginning of a file, whose header says what comes first, or from the middle.
    pub(crate) is_file_start: bool,
    /// Size of the record to begin with, when that is known.
    pub(crate) first_blocks: Option<u32>,
    /// First sequence that is not to be accepted, whatever is there.
    pub(crate) limit: Option<Sequence>,
    /// The watermark, if known already.
    pub(crate) watermark: Option<Sequence>,
}

/// One pass over the files.
pub(crate) struct Walk<'a, D> {
    port: &'a mut Port<D>,
    #[cfg(any(test, feature = "canary"))]
    config: &'a Config,
    owner: Owner,
    /// By id, without prepared ones.
    files: &'a [Surveyed],
    reader: Reader,
    at: Position,
    chain: Chain,
    limit: Option<Sequence>,
    /// Where the journal went on behind the current file: first sequence and index.
    next_file: Option<(Sequence, usize)>,
    watermark: Option<Sequence>,
    last: Option<RecordHeader>,
    last_frame: FrameNumber,
    highest_epoch: ContainerEpoch,
    needs_new_file: bool,
    is_file_start: bool,
    first_blocks: Option<u32>,
    uncertain: Vec<Uncertain>,
    /// Bytes of unacknowledged records from this place on.
    tail: Option<(Position, u64)>,
    /// First place since the last good record that the device did not read.
    unreadable: Option<Position>,
}

/// Verdict on a place.
enum Verdict {
    Good(RecordHeader, Checksum, Bytes),
    /// The header fits the chain, the payload does not fit the header.
    BadPayload(RecordHeader, Checksum),
    Bad,
}

type Visitor<'v> = &'v mut dyn FnMut(Found);

impl<'a, D: Device> Walk<'a, D> {
    pub(crate) fn new(
        port: &'a mut Port<D>,
        config: &'a Config,
        owner: Owner,
        files: &'a [Surveyed],
        route: Route,
    ) -> Self {
        let start = files.get(route.from.file).and_then(Surveyed::start);
        let epoch = start.map(|(_, epoch)| epoch).unwrap_or_default();
        let start = start.map(|(start, _)| start).filter(|_| route.is_file_start);
        let chain = Chain {
            expected: start.map(|start| start.first),
            checksum: start.map(|start| start.previous_checksum),
            epoch,
        };
        let mut walk = Self {
            reader: Reader::new(config),
            port,
            #[cfg(any(test, feature = "canary"))]
            config,
            owner,
            files,
            at: route.from,
            chain,
            limit: route.limit,
            next_file: None,
            watermark: route.watermark,
            last: None,
            last_frame: start.map_or(FrameNumber(0), |start| before(start.first_frame)),
            highest_epoch: ContainerEpoch(0),
            needs_new_file: false,
            is_file_start: route.is_file_start,
            first_blocks: route.first_blocks,
            uncertain: Vec::new(),
            tail: None,
            unreadable: None,
        };
        for file in files {
            if let Head::Live(_, epoch) | Head::Prepared(epoch) = file.head {
                walk.highest_epoch = walk.highest_epoch.max(epoch);
            }
        }
        walk.find_next_file();
        if start.is_some() {
            walk.hold_file_header();
        }
        walk
    }

    /// Walks to the end of the chain.
    pub(crate) fn run(mut self, visit: Visitor<'_>) -> End {
        while self.step(visit) {}
        let tail = self.tail.filter(|(at, _)| *at == self.at && self.measures_tail());
        let tail_bytes = tail.map_or(0, |(_, bytes)| bytes);
        let watermark = self.watermark.unwrap_or_default();
        self.reader.close(self.port);
        let is_unsafe = |uncertain: &Uncertain| uncertain.sequence > watermark;
        let rewrites = self.uncertain.into_iter().filter(is_unsafe).map(|uncertain| Rewrite {
            file: uncertain.file,
            offset: uncertain.offset,
            bytes: uncertain.bytes,
        });
        End {
            at: self.at,
            next: self.chain.expected,
            checksum: self.chain.checksum,
            last_frame: self.last_frame,
            last: self.last,
            epoch: self.highest_epoch.max(self.chain.epoch),
            chain_epoch: self.chain.epoch,
            watermark,
            needs_new_file: self.needs_new_file,
            tail_bytes,
            unreadable: self.unreadable,
            rewrites: rewrites.collect(),
        }
    }

    /// One record, one file boundary, or one bad place; says whether to go on.
    fn step(&mut self, visit: Visitor<'_>) -> bool {
        if self.is_at_limit() {
            self.needs_new_file = true;
            if self.measures_tail() {
                self.scan_behind(self.at, 0);
            }
            return false;
        }
        if let (Some(expected), Some((first, next))) = (self.chain.expected, self.next_file)
            && expected >= first
        {
            self.enter(next, visit);
            return true;
        }
        match self.examine_twice() {
            Verdict::Good(header, checksum, bytes) => {
                self.accept(&header, checksum, &bytes);
                visit(Found::Record { header, bytes });
                true
            }
            Verdict::BadPayload(header, checksum) => self.pass(Some((header, checksum)), visit),
            Verdict::Bad => self.pass(None, visit),
        }
    }

    fn is_at_limit(&self) -> bool {
        self.limit.is_some_and(|limit| self.chain.expected.is_some_and(|next| next >= limit))
    }

    fn file(&self) -> Option<&'a Surveyed> {
        self.files.get(self.at.file)
    }

    /// Finds the file in which the journal went on: of the later ones that with the lowest first
    /// sequence, and of several with the same the last, because the others were given up unused.
    fn find_next_file(&mut self) {
        let later = self.files.iter().enumerate().skip(self.at.file + 1);
        let starts = later.filter_map(|(index, file)| {
            let (start, epoch) = file.start()?;
            let is_ours = epoch >= self.chain.epoch || canary::has(Canary::NoEpochInRecords);
            is_ours.then_some((start.first, index))
        });
        self.next_file = starts.min_by_key(|&(first, index)| (first, std::cmp::Reverse(index)));
    }

    /// Goes on at the beginning of file `index`, which begins with the expected record.
    fn enter(&mut self, index: usize, visit: Visitor<'_>) {
        let (start, epoch) = self.files[index].start().expect("only live files are next");
        let fits = self.chain.checksum.is_none_or(|own| own == start.previous_checksum);
        if !fits && self.chain.expected == Some(start.first) {
            let name = journal_name(self.files[index].id);
            let detail = format!("{name} does not follow the record before it");
            visit(Found::Lost { containers: None, fault: Fault::new(FaultClass::Corrupt, detail) });
        }
        self.at = Position { file: index, block: 1 };
        self.chain =
            Chain { expected: Some(start.first), checksum: Some(start.previous_checksum), epoch };
        self.last_frame = self.last_frame.max(before(start.first_frame));
        self.find_next_file();
        self.hold_file_header();
    }

    /// Keeps the current file's header until its first record is known durable.
    fn hold_file_header(&mut self) {
        let Some(file) = self.file().copied() else { return };
        let Some((start, _)) = file.start() else { return };
        let bytes = self.reader.read(self.port, &file, 0, 1);
        // Only what was read right is worth writing again.
        let is_right = |bytes: &Bytes| {
            FileHeader::decode(bytes).is_ok_and(|header| header.start == Some(start))
        };
        if let Some(bytes) = bytes.filter(is_right) {
            let held = Uncertain { sequence: start.first, file: self.at.file, offset: 0, bytes };
            self.uncertain.push(held);
        }
    }

    /// Judges the record at the current place; what is bad is read once more, because a transfer
    /// can fail where the disk is right.
    fn examine_twice(&mut self) -> Verdict {
        self.unreadable = None;
        let first = self.examine();
        if matches!(first, Verdict::Good(..)) || self.file().is_none() {
            return first;
        }
        self.reader.close(self.port);
        self.unreadable = None;
        let second = self.examine();
        if let Verdict::Good(header, ..) = &second {
            tracing::warn!(place = self.place(), sequence = header.sequence.0, "read wrong once");
        }
        second
    }

    /// Judges the record at the current place.
    fn examine(&mut self) -> Verdict {
        let Some((header, checksum)) = self.header_at(self.at) else {
            return Verdict::Bad;
        };
        let chain = &self.chain;
        let has_epochs = !canary::has(Canary::NoEpochInRecords);
        let is_chained = has_epochs && !canary::has(Canary::StaleBytesRevived);
        let epoch_fits = !has_epochs
            || header.epoch == chain.epoch
            || (header.epoch > chain.epoch
                && (chain.expected.is_none() || header.kind == RecordKind::Opening));
        let fits = epoch_fits
            && chain.expected.is_none_or(|expected| expected == header.sequence)
            && (!is_chained
                || chain.checksum.is_none_or(|checksum| checksum == header.previous_checksum));
        if !fits {
            return Verdict::Bad;
        }
        let blocks = header.address.blocks();
        let Some(file) = self.file() else { return Verdict::Bad };
        match self.reader.read(self.port, file, self.at.block, blocks) {
            Some(bytes) if self.is_payload_good(&header, &bytes) => {
                Verdict::Good(header, checksum, bytes)
            }
            None if self.at.block + blocks <= file.blocks() => {
                self.unreadable.get_or_insert(self.at);
                Verdict::BadPayload(header, checksum)
            }
            _ => Verdict::BadPayload(header, checksum),
        }
    }

    fn is_payload_good(&self, header: &RecordHeader, bytes: &[u8]) -> bool {
        #[cfg(any(test, feature = "canary"))]
        if self.config.has(crate::Canary::SkipPayloadChecksum) {
            return true;
        }
        payload_checksum(bytes) == header.payload_checksum
    }

    /// The header at a place, if there is one that belongs there.
    fn header_at(&mut self, at: Position) -> Option<(RecordHeader, Checksum)> {
        let file = self.files.get(at.file).filter(|file| at.block < file.blocks())?;
        let Some(bytes) = self.reader.read(self.port, file, at.block, 1) else {
            self.unreadable.get_or_insert(at);
            return None;
        };
        let (header, checksum) = RecordHeader::decode(&bytes[..FRAME_HEADER_BYTES]).ok()?;
        header.lies_at(self.owner, file.id, at.block).then_some((header, checksum))
    }

    fn accept(&mut self, header: &RecordHeader, checksum: Checksum, bytes: &Bytes) {
        self.uncertain.retain(|uncertain| uncertain.sequence > header.durable_upto);
        self.uncertain.push(Uncertain {
            sequence: header.sequence,
            file: self.at.file,
            offset: header.address.file_offset(),
            bytes: bytes.clone(),
        });
        self.follow(header, checksum);
        self.last = Some(*header);
    }

    /// Moves the chain behind a record whose header is good.
    fn follow(&mut self, header: &RecordHeader, checksum: Checksum) {
        let had_epoch = self.chain.epoch;
        self.chain = Chain {
            expected: Some(header.sequence.next()),
            checksum: Some(checksum),
            epoch: header.epoch,
        };
        self.last_frame = self.last_frame.max(header.frame);
        self.at.block += header.address.blocks();
        if header.epoch != had_epoch {
            self.find_next_file();
        }
    }

    /// Decides about a bad place; says whether the walk goes on behind it.
    fn pass(&mut self, own: Option<(RecordHeader, Checksum)>, visit: Visitor<'_>) -> bool {
        let blocks = own.map_or(1, |(header, _)| header.address.blocks());
        let behind = Position { file: self.at.file, block: self.at.block.saturating_add(blocks) };
        let own_bytes = own.map_or(0, |(header, _)| header.address.frame_bytes());
        let watermark = self.find_watermark(behind, own_bytes);
        if self.is_tail(watermark) {
            if self.measures_tail() && self.tail.is_none_or(|(at, _)| at != self.at) {
                self.scan_behind(behind, own_bytes);
            }
            return false;
        }
        let expected = self.chain.expected;
        if let Some((header, checksum)) = own {
            self.report("payload checksum mismatch", Some(header.containers), visit);
            self.follow(&header, checksum);
            return true;
        }
        let resumption = self.find_resumption(behind);
        match (resumption, expected) {
            (Some(found), Some(expected)) if found.first.before() <= watermark => {
                let known = found.before.filter(|_| found.first == expected.next());
                self.report("no good record", known, visit);
                self.resume(&found);
                true
            }
            (Some(found), None) => {
                // Nothing is known of the place: all that may have been there counts as lost. A
                // walk that visits frames begins where a good record says that one is.
                let only = self.first_blocks.is_some_and(|blocks| {
                    let next = self.at.block.saturating_add(blocks);
                    found.at == Position { file: self.at.file, block: next }
                });
                self.report("no good record", found.before.filter(|_| only), visit);
                self.resume(&found);
                true
            }
            (_, Some(_)) => {
                // Everything up to the watermark is lost and what lies behind was never
                // acknowledged: where it begins is not known, so the journal goes on elsewhere.
                self.report("no good record", None, visit);
                self.chain.expected = Some(watermark.next());
                self.chain.checksum = None;
                self.needs_new_file = true;
                false
            }
            (None, None) => {
                if !self.measures_tail() {
                    self.report("no good record", None, visit);
                }
                false
            }
        }
    }

    fn is_tail(&self, watermark: Sequence) -> bool {
        #[cfg(any(test, feature = "canary"))]
        if self.config.has(crate::Canary::CutAcknowledgedTail) {
            return true;
        }
        self.chain.expected.is_some_and(|expected| expected > watermark)
    }

    fn resume(&mut self, found: &Resumption) {
        let changes_file = found.at.file != self.at.file;
        self.at = found.at;
        self.chain =
            Chain { expected: Some(found.first), checksum: found.checksum, epoch: found.epoch };
        self.find_next_file();
        if changes_file {
            self.hold_file_header();
        }
    }

    fn report(&self, what: &str, containers: Option<ContainerMask>, visit: Visitor<'_>) {
        // A record of the journal's own holds nobody's operations.
        if containers == Some(ContainerMask(0)) {
            let detail =
                format!("record without operations is damaged: {what} in {}", self.place());
            visit(Found::Blemish { fault: Fault::new(FaultClass::Corrupt, detail) });
            return;
        }
        let what = if self.unreadable.is_some() { "the device does not read it" } else { what };
        let detail = format!("acknowledged frame is damaged: {what} in {}", self.place());
        visit(Found::Lost { containers, fault: Fault::new(FaultClass::Corrupt, detail) });
    }

    fn place(&self) -> String {
        let name = self.file().map_or_else(String::new, |file| journal_name(file.id));
        format!("{name} at offset {}", u64::from(self.at.block) * BLOCK_BYTES)
    }
}

fn before(frame: FrameNumber) -> FrameNumber {
    FrameNumber(frame.0.saturating_sub(1))
}
