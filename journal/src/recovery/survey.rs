//! What lies in the directory: names, sizes, and what the first blocks of each file say. Reads
//! only.

use thalweg_core::env::device::{Device, DeviceOutcome, FileHandle};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, FileId};

use crate::config::blocks_of;
use crate::files::{Named, fault_of, journal_name, opened, parse_name};
use crate::layout::{BLOCK, FileHeader, FileStart, Owner, RecordHeader, RecordKind, Unreadable};
use crate::port::{Port, Purpose, wrong_outcome};

/// A file named as part of the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surveyed {
    pub(crate) id: FileId,
    pub(crate) handle: FileHandle,
    pub(crate) bytes: u64,
    pub(crate) head: Head,
}

/// What the beginning of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// The journal went on in this file. Read from its header, or from its first record when
    /// the header is unreadable.
    Live(FileStart, ContainerEpoch),
    /// Prepared, nothing acknowledged in it.
    Prepared(ContainerEpoch),
    /// Neither header nor first record belong here. `is_blank` when that is what a crash while the
    /// file was being prepared leaves; otherwise something was lost.
    Unknown { is_blank: bool },
}

/// The whole directory.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By id.
    pub(crate) files: Vec<Surveyed>,
    /// Numbers and sizes.
    pub(crate) spares: Vec<(u64, u64)>,
    /// Never finished.
    pub(crate) fresh: Vec<(u64, u64)>,
}

impl Surveyed {
    pub(crate) fn blocks(&self) -> u32 {
        blocks_of(self.bytes)
    }

    pub(crate) fn start(&self) -> Option<(FileStart, ContainerEpoch)> {
        match self.head {
            Head::Live(start, epoch) => Some((start, epoch)),
            Head::Prepared(_) | Head::Unknown { .. } => None,
        }
    }
}

/// Names and sizes of all files of the directory.
pub(crate) fn list<D: Device>(port: &mut Port<D>) -> Result<Vec<(String, u64)>, Fault> {
    match port.run(|device, token| device.list(token)) {
        Ok(DeviceOutcome::Listed(names)) => Ok(names),
        Ok(_) => Err(fault_of("list", "journal directory", &wrong_outcome())),
        Err(error) => Err(fault_of("list", "journal directory", &error)),
    }
}

/// Lists the directory, opens every journal file and reads its head. Opened files are pushed as
/// they are opened, so that the caller can close them after a fault.
pub(crate) fn survey<D: Device>(
    port: &mut Port<D>,
    owner: Owner,
    survey: &mut Survey,
) -> Result<(), Fault> {
    let names = list(port)?;
    let mut ids = Vec::new();
    for (name, bytes) in names {
        match parse_name(&name) {
            Some(Named::Journal(id)) => ids.push(id),
            Some(Named::Spare(number)) => survey.spares.push((number, bytes)),
            Some(Named::Fresh(number)) => survey.fresh.push((number, bytes)),
            Some(Named::Owner(_)) => {}
            None => tracing::debug!(name, "not a journal file"),
        }
    }
    ids.sort_unstable();
    for id in ids {
        let (handle, bytes) = open_file(port, &journal_name(id))?;
        let unread = Head::Unknown { is_blank: false };
        survey.files.push(Surveyed { id, handle, bytes, head: unread });
        let mut judge = || {
            let first = read_block(port, handle, bytes, 0);
            let second = read_block(port, handle, bytes, 1);
            head(owner, id, first.as_deref(), second.as_deref())
        };
        // A transfer can fail where the disk is right.
        let head = match judge() {
            Ok(head @ Head::Live(..)) => head,
            _ => judge()?,
        };
        survey.files.last_mut().expect("was pushed").head = head;
    }
    Ok(())
}

/// Opens a file that the directory lists; one that fails is tried once more.
pub(crate) fn open_file<D: Device>(
    port: &mut Port<D>,
    name: &str,
) -> Result<(FileHandle, u64), Fault> {
    let first = port.run(|device, token| device.open(name, false, token)).and_then(opened);
    let outcome = first
        .or_else(|_| port.run(|device, token| device.open(name, false, token)).and_then(opened));
    outcome.map_err(|error| fault_of("open", name, &error))
}

/// Times a block is asked for before it counts as unreadable: a transient error must not
/// quarantine a container.
const BLOCK_READS: u32 = 4;

/// Reads one block, several times if need be; `None` when it cannot be read.
pub(crate) fn read_block<D: Device>(
    port: &mut Port<D>,
    handle: FileHandle,
    file_bytes: u64,
    block: u32,
) -> Option<bytes::BytesMut> {
    let offset = u64::from(block) * BLOCK_BYTES;
    if offset + BLOCK_BYTES > file_bytes {
        return None;
    }
    for _ in 0..BLOCK_READS {
        let token = port.start(Purpose::Recovery, |device, token| {
            device.read(handle, offset, BLOCK, token);
        });
        match port.wait_for(token) {
            Ok(DeviceOutcome::Read(bytes)) if bytes.len() == BLOCK => return Some(bytes),
            outcome => tracing::warn!(?handle, block, ?outcome, "journal block cannot be read"),
        }
    }
    None
}

/// Judges a file by its first two blocks.
///
/// # Errors
/// When the file is of another format or belongs to another directory or shard: then nothing of
/// this directory may be touched.
fn head(
    owner: Owner,
    id: FileId,
    first: Option<&[u8]>,
    second: Option<&[u8]>,
) -> Result<Head, Fault> {
    let name = journal_name(id);
    let refuse = |detail: String| Err(Fault::new(FaultClass::Corrupt, detail));
    let header = first.map_or(Err(Unreadable::Checksum), FileHeader::decode);
    match header {
        Err(Unreadable::Format(format)) => {
            return refuse(format!("{name} has format {format}, this version reads 1"));
        }
        Ok(header) if header.owner != owner => {
            let theirs = header.owner;
            return refuse(format!(
                "{name} belongs to shard {} of data directory {:016x}, this is shard {} of {:016x}",
                theirs.shard.0, theirs.directory, owner.shard.0, owner.directory
            ));
        }
        _ => {}
    }
    let header = header.ok().filter(|header| header.file == id);
    if let Some((start, epoch)) =
        header.and_then(|header| header.start.map(|start| (start, header.epoch)))
    {
        return Ok(Head::Live(start, epoch));
    }
    let record = second.and_then(|bytes| RecordHeader::decode(bytes).ok());
    let has_record = record.is_some();
    // A record that is older than the header was there before the file got this name again.
    let oldest = header.map_or(ContainerEpoch(0), |header| header.epoch);
    let is_first = |record: &RecordHeader| record.lies_at(owner, id, 1) && record.epoch >= oldest;
    if let Some((record, _)) = record.filter(|(record, _)| is_first(record)) {
        if header.is_none() {
            tracing::warn!(
                file = name,
                "journal file header is unreadable, the first record is not"
            );
        }
        let first_frame = match record.kind {
            RecordKind::Frame => record.frame,
            RecordKind::Beacon | RecordKind::Opening => record.frame.next(),
        };
        let start = FileStart {
            first: record.sequence,
            first_frame,
            durable_upto: record.durable_upto,
            previous_checksum: record.previous_checksum,
        };
        return Ok(Head::Live(start, record.epoch));
    }
    Ok(match header {
        Some(header) => Head::Prepared(header.epoch),
        None => Head::Unknown { is_blank: is_blank(id, first, has_record) },
    })
}

/// Whether a file is as it is before its header is written: zeros, or under the header of the file
/// it was recycled from, whose id is lower. Zeros before a record are no such state: a file never
/// has records before it has had a header.
fn is_blank(id: FileId, first: Option<&[u8]>, has_record: bool) -> bool {
    first.is_some_and(|bytes| {
        let is_recycled = FileHeader::decode(bytes).is_ok_and(|header| header.file < id);
        is_recycled || (!has_record && bytes.iter().all(|&byte| byte == 0))
    })
}
