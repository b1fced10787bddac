//! Bytes of a journal file: the header of a file and the header of a record. Pure.
//!
//! Both headers take 128 bytes of one 512-byte sector, the smallest unit that a disk writes as a
//! whole. A header names its own place (directory, shard, file, block), so that a stale or
//! misdirected block is never taken for what belongs there. Tables: `docs/formats.md`, "Journal".

use thalweg_core::frame::{ContainerMask, FRAME_HEADER_BYTES};
use thalweg_core::id::ShardId;
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, FileId, FrameNumber, JournalAddress};

/// Format that this code writes and the only one it reads.
pub(crate) const FORMAT: u16 = 1;
/// One block, as a size in memory.
pub(crate) const BLOCK: usize = BLOCK_BYTES as usize;

const RECORD_MAGIC: [u8; 4] = *b"THWR";
const FILE_MAGIC: [u8; 4] = *b"THWF";
/// Where each header keeps the checksum of the bytes before it.
const CHECKSUM_AT: usize = 124;

const FLAG_BEACON: u16 = 1;
const FLAG_OPENING: u16 = 2;
const FLAG_PREPARED: u16 = 1;

/// Position of a record in the journal: 1 for the first, no gaps, over frames and the journal's
/// own records alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sequence(pub(crate) u64);

impl Sequence {
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 records are out of reach"))
    }

    /// The one before; of the first, 0, which no record has.
    #[must_use]
    pub(crate) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Counters above this are no honest header's; below it they cannot overflow.
const COUNTER_MAX: u64 = 1 << 62;

/// CRC32C of a header, by which the next record refers to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum(pub(crate) u32);

/// Whose files these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) directory: u64,
    pub(crate) shard: ShardId,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// A frame of the engine.
    Frame,
    /// Tells what is durable; has no payload.
    Beacon,
    /// First record of an epoch; has no payload. Replaces whatever was cut here.
    Opening,
}

/// Header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) owner: Owner,
    pub(crate) kind: RecordKind,
    /// Where it lies.
    pub(crate) address: JournalAddress,
    pub(crate) epoch: ContainerEpoch,
    pub(crate) sequence: Sequence,
    /// Its own number for a frame, otherwise that of the newest frame before it; 0 before the
    /// first.
    pub(crate) frame: FrameNumber,
    /// Newest record known durable when this one was composed.
    pub(crate) durable_upto: Sequence,
    /// Oldest frame that a recovery needs; `None`: this record.
    pub(crate) replay: Option<JournalAddress>,
    pub(crate) containers: ContainerMask,
    pub(crate) previous_containers: ContainerMask,
    pub(crate) operation_bytes: u32,
    /// CRC32C of everything behind the header, padding included.
    pub(crate) payload_checksum: Checksum,
    /// Checksum of the previous record's header; 0 for the first of a journal.
    pub(crate) previous_checksum: Checksum,
}

/// Header of a file, in its first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) owner: Owner,
    pub(crate) file: FileId,
    pub(crate) epoch: ContainerEpoch,
    pub(crate) file_bytes: u64,
    /// `None`: the file is prepared and holds no record yet.
    pub(crate) start: Option<FileStart>,
}

/// Where the journal stood when it went on in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStart {
    /// Sequence of the file's first record. Earlier files end before it, whatever they hold.
    pub(crate) first: Sequence,
    /// Number that the file's first frame will have.
    pub(crate) first_frame: FrameNumber,
    pub(crate) durable_upto: Sequence,
    pub(crate) previous_checksum: Checksum,
}

/// Why 128 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They do not begin like one.
    NotAHeader,
    /// They begin like one and the checksum is wrong.
    Checksum,
    /// A right header of a format that this code does not know.
    Format(u16),
    /// A right header with an impossible field.
    Field,
}

struct Put<'a>(&'a mut [u8]);

impl Put<'_> {
    fn u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// CRC32C of a record's bytes behind its header.
pub(crate) fn payload_checksum(record: &[u8]) -> Checksum {
    Checksum(crc32c::crc32c(&record[FRAME_HEADER_BYTES..]))
}

/// Writes what both headers have in common; the rest of the header is zeroed.
fn begin<'a>(
    out: &'a mut [u8],
    magic: [u8; 4],
    flags: u16,
    owner: Owner,
    file: FileId,
    epoch: ContainerEpoch,
) -> Put<'a> {
    let out = &mut out[..FRAME_HEADER_BYTES];
    out.fill(0);
    out[..4].copy_from_slice(&magic);
    let mut put = Put(out);
    put.u16(4, FORMAT);
    put.u16(6, flags);
    put.u32(8, file.0);
    put.u16(12, owner.shard.0);
    put.u64(16, owner.directory);
    put.u64(24, epoch.0);
    put
}

fn finish(mut put: Put<'_>) -> Checksum {
    let checksum = crc32c::crc32c(&put.0[..CHECKSUM_AT]);
    put.u32(CHECKSUM_AT, checksum);
    Checksum(checksum)
}

/// Checks magic, checksum and format; gives the checksum.
fn open(bytes: &[u8], magic: [u8; 4]) -> Result<Checksum, Unreadable> {
    if bytes.len() < FRAME_HEADER_BYTES || bytes[..4] != magic {
        return Err(Unreadable::NotAHeader);
    }
    let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
    if u32_at(bytes, CHECKSUM_AT) != checksum {
        return Err(Unreadable::Checksum);
    }
    match u16_at(bytes, 4) {
        FORMAT => Ok(Checksum(checksum)),
        other => Err(Unreadable::Format(other)),
    }
}

fn owner_at(bytes: &[u8]) -> Owner {
    Owner { directory: u64_at(bytes, 16), shard: ShardId(u16_at(bytes, 12)) }
}

impl RecordHeader {
    /// Writes the header into the first 128 bytes of `out`; gives its checksum.
    pub(crate) fn encode(&self, out: &mut [u8]) -> Checksum {
        let flags = match self.kind {
            RecordKind::Frame => 0,
            RecordKind::Beacon => FLAG_BEACON,
            RecordKind::Opening => FLAG_OPENING,
        };
        let mut put = begin(out, RECORD_MAGIC, flags, self.owner, self.address.file(), self.epoch);
        put.u64(32, self.sequence.0);
        put.u64(40, self.frame.0);
        put.u64(48, self.durable_upto.0);
        put.u64(56, self.replay.map_or(0, JournalAddress::to_bits));
        put.u64(64, self.containers.0);
        put.u64(72, self.previous_containers.0);
        put.u32(80, self.address.first_block());
        put.u32(84, self.address.blocks());
        put.u32(88, self.operation_bytes);
        put.u32(92, self.payload_checksum.0);
        put.u32(96, self.previous_checksum.0);
        finish(put)
    }

    /// Reads a header; gives it and its checksum. Says nothing about the payload.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, Checksum), Unreadable> {
        let checksum = open(bytes, RECORD_MAGIC)?;
        let kind = match u16_at(bytes, 6) {
            0 => RecordKind::Frame,
            FLAG_BEACON => RecordKind::Beacon,
            FLAG_OPENING => RecordKind::Opening,
            _ => return Err(Unreadable::Field),
        };
        let (file, first, blocks) =
            (FileId(u32_at(bytes, 8)), u32_at(bytes, 80), u32_at(bytes, 84));
        let fits = file <= FileId::MAX && first < 1 << 20 && blocks > 0 && blocks < 1 << 20;
        let operation_bytes = u32_at(bytes, 88);
        let room = (u64::from(blocks) * BLOCK_BYTES).saturating_sub(FRAME_HEADER_BYTES as u64);
        if !fits || u64::from(operation_bytes) > room {
            return Err(Unreadable::Field);
        }
        let header = Self {
            owner: owner_at(bytes),
            kind,
            address: JournalAddress::new(file, first, blocks),
            epoch: ContainerEpoch(u64_at(bytes, 24)),
            sequence: Sequence(u64_at(bytes, 32)),
            frame: FrameNumber(u64_at(bytes, 40)),
            durable_upto: Sequence(u64_at(bytes, 48)),
            replay: JournalAddress::from_bits(u64_at(bytes, 56)),
            containers: ContainerMask(u64_at(bytes, 64)),
            previous_containers: ContainerMask(u64_at(bytes, 72)),
            operation_bytes,
            payload_checksum: Checksum(u32_at(bytes, 92)),
            previous_checksum: Checksum(u32_at(bytes, 96)),
        };
        let counters = [header.epoch.0, header.sequence.0, header.frame.0];
        let is_ordered = header.durable_upto < header.sequence;
        if !is_ordered || counters.into_iter().any(|counter| counter > COUNTER_MAX) {
            return Err(Unreadable::Field);
        }
        Ok((header, checksum))
    }

    /// Whether this header belongs to `owner` and to this block of this file.
    pub(crate) fn lies_at(&self, owner: Owner, file: FileId, block: u32) -> bool {
        self.owner == owner && self.address.file() == file && self.address.first_block() == block
    }

    /// The replay position as an address of its own.
    pub(crate) fn replay_address(&self) -> JournalAddress {
        self.replay.unwrap_or(self.address)
    }
}

impl FileHeader {
    /// Writes the header into the first 128 bytes of `out`.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let flags = if self.start.is_none() { FLAG_PREPARED } else { 0 };
        let mut put = begin(out, FILE_MAGIC, flags, self.owner, self.file, self.epoch);
        put.u64(32, self.file_bytes);
        if let Some(start) = &self.start {
            put.u64(40, start.first.0);
            put.u64(48, start.first_frame.0);
            put.u64(56, start.durable_upto.0);
            put.u32(64, start.previous_checksum.0);
        }
        let _ = finish(put);
    }

    /// Reads a header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        open(bytes, FILE_MAGIC)?;
        let start = match u16_at(bytes, 6) {
            0 => Some(FileStart {
                first: Sequence(u64_at(bytes, 40)),
                first_frame: FrameNumber(u64_at(bytes, 48)),
                durable_upto: Sequence(u64_at(bytes, 56)),
                previous_checksum: Checksum(u32_at(bytes, 64)),
            }),
            FLAG_PREPARED => None,
            _ => return Err(Unreadable::Field),
        };
        let file = FileId(u32_at(bytes, 8));
        let is_possible = |start: FileStart| {
            start.durable_upto < start.first
                && start.first.0.max(start.first_frame.0) <= COUNTER_MAX
        };
        let is_epoch_possible = u64_at(bytes, 24) <= COUNTER_MAX;
        if file > FileId::MAX || !start.is_none_or(is_possible) || !is_epoch_possible {
            return Err(Unreadable::Field);
        }
        Ok(Self {
            owner: owner_at(bytes),
            file,
            epoch: ContainerEpoch(u64_at(bytes, 24)),
            file_bytes: u64_at(bytes, 32),
            start,
        })
    }
}

#[cfg(test)]
mod tests;
