//! The files of a journal: created and written ahead, put into use, recycled, removed.
//!
//! One job at a time and one operation of it in flight, so that preparing never disturbs commits.
//! A file goes *fresh* (being written with zeros) → *spare* (ready to get an id) → *ready* (named
//! with its id, the name durable, header says "prepared") → *live* → *retiring* → spare again or
//! removed. A file id is never used twice, so a stale record never matches its file. A failed job
//! gives its file up and is tried again a second later or when something was trimmed.
//!
//! Names: `journal-<id as 8 hex digits>`, `spare-<number>`, `fresh-<number>`; besides these and the
//! `owner-<number>` of `claim.rs` no file of the directory is ever touched.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::device::{Device, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::frame::aligned_memory;
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, FileId};
use thalweg_core::time::Instant;

use crate::config::{Config, blocks_of, reserve_blocks};
use crate::counters::Counters;
use crate::layout::{BLOCK, FileHeader, FileStart, Owner};
use crate::port::{Port, Purpose, wrong_outcome};

mod job;
use job::{Job, Progress};

/// How much larger the writes are that prepare a file when none is left: the disk serves writers in
/// turn, and appends that wait for the file are worse off than those that wait for the write.
const URGENT_FACTOR: usize = 4;
/// Pause after a failed job.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Files that are named ahead: one to roll into, one while the next is being named.
const READY_FILES: usize = 2;

/// A file with frames in it.
#[derive(Debug)]
pub(crate) struct LiveFile {
    pub(crate) handle: FileHandle,
    pub(crate) bytes: u64,
    /// Where its part of the journal begins; `None` when its header and first record are
    /// unreadable.
    pub(crate) start: Option<(FileStart, ContainerEpoch)>,
    /// Reads in flight; it is not recycled before they end.
    pub(crate) reads: u32,
    /// Never written to again, so removed, not recycled: a write or sync of it failed, or another
    /// process made it.
    pub(crate) is_spent: bool,
}

/// A file that records can go on in.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    pub(crate) id: FileId,
    pub(crate) handle: FileHandle,
    pub(crate) bytes: u64,
}

/// A written file without an id.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) number: u64,
    pub(crate) handle: FileHandle,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Retiring {
    id: FileId,
    file: LiveFile,
}

/// What jobs need to know beside the files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) owner: Owner,
    pub(crate) epoch: ContainerEpoch,
    pub(crate) now: Instant,
}

/// All files of one journal.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) live: BTreeMap<FileId, LiveFile>,
    pub(crate) ready: VecDeque<ReadyFile>,
    pub(crate) spares: VecDeque<Spare>,
    retiring: VecDeque<Retiring>,
    job: Option<(OperationToken, Job)>,
    /// A file of a failed job, to be removed before anything else.
    leavings: VecDeque<(String, u64)>,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) failure: Option<Fault>,
    /// Bytes of all files of the journal, whatever their state.
    pub(crate) total_bytes: u64,
    pub(crate) next_id: u32,
    pub(crate) next_number: u64,
    /// One more file than the budget allows: an opening needs a place.
    pub(crate) is_urgent: bool,
    zeros: Bytes,
    /// Bytes of zeros that the operation under way writes.
    piece_bytes: usize,
    prepare_write_bytes: usize,
    file_bytes: u64,
    budget: u64,
    files_ahead: usize,
    files_kept: usize,
}

pub(crate) fn journal_name(id: FileId) -> String {
    format!("journal-{:08x}", id.0)
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number}")
}

pub(crate) fn fresh_name(number: u64) -> String {
    format!("fresh-{number}")
}

pub(crate) fn owner_name(number: u64) -> String {
    format!("owner-{number}")
}

/// What a name of the directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Journal(FileId),
    Spare(u64),
    Fresh(u64),
    Owner(u64),
}

/// Reads a name; `None` for what is not ours.
pub(crate) fn parse_name(name: &str) -> Option<Named> {
    let named = if let Some(hex) = name.strip_prefix("journal-") {
        Named::Journal(FileId(u32::from_str_radix(hex, 16).ok()?))
    } else if let Some(number) = name.strip_prefix("spare-") {
        Named::Spare(number.parse().ok()?)
    } else if let Some(number) = name.strip_prefix("owner-") {
        Named::Owner(number.parse().ok()?)
    } else {
        Named::Fresh(name.strip_prefix("fresh-")?.parse().ok()?)
    };
    let written = match named {
        Named::Journal(id) if id > FileId::MAX || id.0 == 0 => return None,
        Named::Journal(id) => journal_name(id),
        Named::Spare(number) => spare_name(number),
        Named::Fresh(number) => fresh_name(number),
        Named::Owner(number) => owner_name(number),
    };
    // Only the one spelling that we write is ours.
    (written == name).then_some(named)
}

/// A zeroed block for a header or a record of the journal's own.
pub(crate) fn zero_block() -> BytesMut {
    let mut block = aligned_memory(BLOCK);
    block.resize(BLOCK, 0);
    block
}

/// The block that a file header is written as.
pub(crate) fn header_block(header: &FileHeader) -> Bytes {
    let mut block = zero_block();
    header.encode(&mut block);
    block.freeze()
}

/// A fault about a file.
pub(crate) fn fault_of(action: &str, name: &str, error: &io::Error) -> Fault {
    let class = match error.kind() {
        io::ErrorKind::StorageFull => FaultClass::NoSpace,
        _ => FaultClass::Device,
    };
    Fault::new(class, format!("{action} {name}: {error}"))
}

impl LiveFile {
    pub(crate) fn blocks(&self) -> u32 {
        blocks_of(self.bytes)
    }
}

impl Files {
    pub(crate) fn new(config: &Config) -> Self {
        let most = config.prepare_write_bytes * URGENT_FACTOR;
        let mut zeros = aligned_memory(most);
        zeros.resize(most, 0);
        Self {
            live: BTreeMap::new(),
            ready: VecDeque::new(),
            spares: VecDeque::new(),
            retiring: VecDeque::new(),
            job: None,
            leavings: VecDeque::new(),
            retry_at: None,
            failure: None,
            total_bytes: 0,
            next_id: 1,
            next_number: 1,
            is_urgent: false,
            zeros: zeros.freeze(),
            piece_bytes: config.prepare_write_bytes,
            prepare_write_bytes: config.prepare_write_bytes,
            file_bytes: config.file_bytes,
            budget: config.journal_bytes_max,
            files_ahead: config.files_ahead,
            files_kept: config.files_kept,
        }
    }

    /// Forgets everything and closes every file. Nothing may be in flight.
    pub(crate) fn close<D: Device>(&mut self, port: &mut Port<D>) {
        let job = self.job.take().and_then(|(_, job)| job.handle());
        let live = std::mem::take(&mut self.live).into_values().map(|file| file.handle);
        let ready = self.ready.drain(..).map(|file| file.handle);
        let spares = self.spares.drain(..).map(|file| file.handle);
        let retiring = self.retiring.drain(..).map(|retiring| retiring.file.handle);
        for handle in job.into_iter().chain(live).chain(ready).chain(spares).chain(retiring) {
            port.device.close(handle);
        }
        self.leavings.clear();
        self.retry_at = None;
        self.failure = None;
        self.total_bytes = 0;
        self.is_urgent = false;
    }

    /// Bytes that frames can take in prepared files.
    pub(crate) fn prepared_bytes(&self) -> u64 {
        let sizes = self.ready.iter().map(|file| file.bytes);
        sizes.chain(self.spares.iter().map(|file| file.bytes)).map(usable_bytes).sum()
    }

    /// Takes a file out of use for good: nothing refers to it any more.
    pub(crate) fn retire(&mut self, id: FileId) {
        let file = self.live.remove(&id).expect("only a live file is retired");
        self.retiring.push_back(Retiring { id, file });
        self.retry_at = None;
    }

    /// The open file of `id`, live or about to go.
    pub(crate) fn handle_of(&self, id: FileId) -> Option<FileHandle> {
        let retiring = self.retiring.iter().find(|retiring| retiring.id == id);
        let file = self.live.get(&id).or(retiring.map(|retiring| &retiring.file));
        file.map(|file| file.handle)
    }

    /// A read of `id` ended.
    pub(crate) fn read_ended(&mut self, id: FileId) {
        let retiring = self.retiring.iter_mut().find(|retiring| retiring.id == id);
        let file = self.live.get_mut(&id).or(retiring.map(|retiring| &mut retiring.file));
        let file = file.expect("a file stays while reads of it are in flight");
        file.reads = file.reads.checked_sub(1).expect("each read ends once");
    }

    /// Starts the next job if none runs.
    pub(crate) fn start_work<D: Device>(&mut self, port: &mut Port<D>, situation: Situation) {
        if self.job.is_some() {
            return;
        }
        if let Some((name, bytes)) = self.leavings.pop_front() {
            return self.begin(port, Job::remove(name, bytes));
        }
        if self.retry_at.is_some_and(|at| situation.now < at) {
            return;
        }
        self.retry_at = None;
        if let Some(job) = self.next_job(port, situation) {
            self.begin(port, job);
        }
    }

    fn next_job<D: Device>(&mut self, port: &mut Port<D>, situation: Situation) -> Option<Job> {
        let ahead = self.ready.len() + self.spares.len();
        let wanted = self.files_ahead.max(1);
        if self.ready.len() < READY_FILES.min(wanted)
            && self.next_id <= FileId::MAX.0
            && let Some(spare) = self.spares.pop_front()
        {
            let id = FileId(self.next_id);
            self.next_id += 1;
            return Some(Job::promote(spare, id, situation));
        }
        let idle = self.retiring.iter().position(|retiring| retiring.file.reads == 0);
        if let Some(index) = idle {
            let Retiring { id, file } = self.retiring.remove(index)?;
            let is_good = !file.is_spent && file.bytes == self.file_bytes;
            if is_good && ahead < wanted + self.files_kept {
                let number = self.take_number();
                return Some(Job::recycle(id, file.handle, file.bytes, number));
            }
            port.device.close(file.handle);
            return Some(Job::remove(journal_name(id), file.bytes));
        }
        let fits = self.total_bytes + self.file_bytes <= self.budget;
        if (ahead < wanted && fits) || (ahead == 0 && self.is_urgent) {
            let number = self.take_number();
            self.total_bytes += self.file_bytes;
            return Some(Job::create(number, self.file_bytes));
        }
        None
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn begin<D: Device>(&mut self, port: &mut Port<D>, job: Job) {
        let is_urgent = self.ready.is_empty() && self.spares.is_empty();
        self.piece_bytes = self.prepare_write_bytes * if is_urgent { URGENT_FACTOR } else { 1 };
        let zeros = self.zeros.slice(..self.piece_bytes);
        let token = port.start(Purpose::Files, |device, token| job.queue(device, &zeros, token));
        self.job = Some((token, job));
    }

    /// Takes the outcome of the running job's operation and goes on with it.
    pub(crate) fn completed<D: Device>(
        &mut self,
        port: &mut Port<D>,
        token: OperationToken,
        outcome: io::Result<DeviceOutcome>,
        now: Instant,
        counters: &mut Counters,
    ) {
        let Some((expected, job)) = self.job.take() else { return };
        assert_eq!(expected, token, "a job has one operation in flight");
        match job.advance(outcome, self.piece_bytes as u64) {
            Ok(Progress::Next(job)) => self.begin(port, job),
            Ok(Progress::Created(spare)) => {
                counters.files_prepared += 1;
                self.spares.push_back(spare);
            }
            Ok(Progress::Recycled(spare)) => {
                counters.files_recycled += 1;
                self.spares.push_back(spare);
            }
            Ok(Progress::Promoted(ready)) => self.ready.push_back(ready),
            Ok(Progress::Removed { bytes }) => self.total_bytes -= bytes.min(self.total_bytes),
            Err(failed) => {
                counters.file_failures += 1;
                tracing::warn!(fault = %failed.fault, "journal file job failed");
                if let Some(handle) = failed.handle {
                    port.device.close(handle);
                }
                self.leavings.extend(failed.leaves);
                self.failure = Some(failed.fault);
                self.retry_at = Some(now.after(RETRY_AFTER));
            }
        }
    }

    /// Whether a job is under way.
    pub(crate) fn is_working(&self) -> bool {
        self.job.is_some()
    }
}

/// Bytes that frames can take in a file of this size.
pub(crate) fn usable_bytes(file_bytes: u64) -> u64 {
    let blocks = blocks_of(file_bytes);
    u64::from(blocks.saturating_sub(1 + reserve_blocks(blocks))) * BLOCK_BYTES
}

/// The handle and size that an opening gives.
pub(crate) fn opened(outcome: DeviceOutcome) -> io::Result<(FileHandle, u64)> {
    match outcome {
        DeviceOutcome::Opened(handle, bytes) => Ok((handle, bytes)),
        _ => Err(wrong_outcome()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are read back, and only the spelling that we write is taken for ours.
    #[test]
    fn only_our_own_names_are_ours() {
        assert_eq!(parse_name(&journal_name(FileId(0x1f))), Some(Named::Journal(FileId(0x1f))));
        assert_eq!(parse_name("journal-0000001f"), Some(Named::Journal(FileId(31))));
        assert_eq!(parse_name(&spare_name(12)), Some(Named::Spare(12)));
        assert_eq!(parse_name(&fresh_name(0)), Some(Named::Fresh(0)));
        assert_eq!(parse_name(&owner_name(3)), Some(Named::Owner(3)));
        for name in [
            "journal-0000001F",
            "journal-1f",
            "journal-00000000",
            "journal-ffffffff",
            "journal-",
            "spare-01",
            "spare--1",
            "fresh-+1",
            "fresh-",
            "notes.txt",
            "",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
