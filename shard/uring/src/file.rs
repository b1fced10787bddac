//! A directory of files on the ring: [`Device`] with direct I/O.
//!
//! Knows how to make a write durable on its disk and when a transfer is complete; knows nothing of
//! frames. `Done` is reported only when the whole range was written and then synced. A failed
//! sync is reported and never tried again, because the kernel may have dropped the dirty state with
//! the first report. `ECANCELED`, `EINTR` and `EAGAIN` mean that an operation was not carried out:
//! it is asked for again, a bounded number of times.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;
use thalweg_core::position::BLOCK_BYTES;

use crate::directory::{self, OpenFiles};
use crate::operation::{Operation, SyncKind};
use crate::probe::DurableWrite;
use crate::ring::{Completion, Outcome, OwnerId, Ring};

/// Transfers in a row that may end without progress before the operation fails. The kernel's
/// "try again" is rare and passes; a bound keeps a broken device from being asked for ever.
const FRUITLESS_MAX: u32 = 64;

/// A directory of files on a ring.
///
/// Dropping it waits for what is in flight.
pub struct UringDevice {
    ring: Ring,
    owner: OwnerId,
    path: PathBuf,
    directory: Rc<OwnedFd>,
    durable_write: DurableWrite,
    files: OpenFiles,
    pending: BTreeMap<u64, Pending>,
    next_tag: u64,
    done: VecDeque<DeviceEvent>,
}

/// An operation of the caller and how far it is.
struct Pending {
    token: OperationToken,
    work: Work,
    /// Times in a row that it was not carried out, as a whole.
    refused: u32,
}

enum Work {
    Open,
    Simple,
    Allocate { file: Rc<OwnedFd>, bytes_before: u64 },
    Write(Write),
    Read(Read),
}

struct Write {
    file: Rc<OwnedFd>,
    offset: u64,
    /// What is not written yet.
    rest: Bytes,
    kind: WriteKind,
    fruitless: u32,
    /// Of a linked pair: results still to come and what is known.
    round: Round,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteKind {
    Volatile,
    DataSync,
    ThenSync,
}

/// One linked pair of write and sync on its way.
#[derive(Default)]
struct Round {
    outstanding: u32,
    write: Option<io::Result<usize>>,
    sync: Option<io::Result<()>>,
    partial_submissions: u64,
}

struct Read {
    file: Rc<OwnedFd>,
    offset: u64,
    length: usize,
    fruitless: u32,
}

impl UringDevice {
    /// Opens the directory. It must exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(ring: &Ring, path: &Path, durable_write: DurableWrite) -> io::Result<Self> {
        let directory = Rc::new(OwnedFd::from(File::open(path)?));
        ring.note_directory(&directory);
        Ok(Self {
            owner: ring.register(),
            ring: ring.clone(),
            path: path.to_owned(),
            directory,
            durable_write,
            files: OpenFiles::default(),
            pending: BTreeMap::new(),
            next_tag: 0,
            done: VecDeque::new(),
        })
    }

    fn finish(&mut self, token: OperationToken, outcome: io::Result<DeviceOutcome>) {
        self.done.push_back(DeviceEvent { token, outcome });
    }

    fn start(&mut self, token: OperationToken, work: Work) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.pending.insert(tag, Pending { token, work, refused: 0 });
        tag
    }

    fn submit(&self, tag: u64, operation: Operation) {
        self.ring.submit(self.owner, tag, operation);
    }

    /// Starts an operation that completes in one step.
    fn submit_simple(&mut self, token: OperationToken, operation: io::Result<Operation>) {
        match operation {
            Ok(operation) => {
                let tag = self.start(token, Work::Simple);
                self.submit(tag, operation);
            }
            Err(error) => self.finish(token, Err(error)),
        }
    }

    fn start_write(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        kind: WriteKind,
        token: OperationToken,
    ) {
        if let Err(error) = directory::check_aligned(offset, bytes.len()) {
            return self.finish(token, Err(error));
        }
        let rest = directory::aligned(bytes);
        let file = self.files.descriptor(file);
        let write = Write { file, offset, rest, kind, fruitless: 0, round: Round::default() };
        let tag = self.start(token, Work::Write(write));
        self.continue_write(tag);
    }

    /// Submits what is left of a write, with its sync where it needs one.
    fn continue_write(&mut self, tag: u64) {
        let Some(Pending { work: Work::Write(write), .. }) = self.pending.get_mut(&tag) else {
            unreachable!("only a write is continued as one");
        };
        let operation = Operation::Write {
            file: write.file.clone(),
            offset: write.offset,
            bytes: write.rest.clone(),
            data_sync: write.kind == WriteKind::DataSync,
        };
        if write.kind != WriteKind::ThenSync {
            self.ring.submit(self.owner, tag, operation);
            return;
        }
        write.round = Round {
            outstanding: 2,
            partial_submissions: self.ring.partial_submissions(),
            ..Round::default()
        };
        let sync = Operation::Sync { file: write.file.clone(), kind: SyncKind::Data };
        self.ring.submit_linked(self.owner, tag, operation, sync);
    }

    fn continue_read(&mut self, tag: u64, memory: BytesMut) {
        let Some(Pending { work: Work::Read(read), .. }) = self.pending.get(&tag) else {
            unreachable!("only a read is continued as one");
        };
        let operation = Operation::Read {
            file: read.file.clone(),
            offset: read.offset + memory.len() as u64,
            length: read.length - memory.len(),
            memory,
        };
        self.submit(tag, operation);
    }

    fn completed(&mut self, completion: Completion) {
        let tag = completion.tag;
        let pending = self.pending.get_mut(&tag).expect("a completion belongs to an operation");
        if let (Work::Simple | Work::Allocate { .. } | Work::Open, Err(error)) =
            (&pending.work, &completion.outcome)
            && is_not_done(error)
            && pending.refused < FRUITLESS_MAX
        {
            pending.refused += 1;
            let operation = completion.operation.expect("these complete once");
            return self.submit(tag, operation);
        }
        let step = match &mut pending.work {
            Work::Simple => Step::Finished(completion.outcome.map(|_| DeviceOutcome::Done)),
            Work::Allocate { file, bytes_before } => {
                let outcome = completion.outcome.map(|_| DeviceOutcome::Done);
                Step::Finished(outcome.inspect_err(|_| directory::give_back(file, *bytes_before)))
            }
            Work::Open => {
                let opened = completion.outcome.and_then(|outcome| match outcome {
                    Outcome::Descriptor(descriptor) => self.files.add(descriptor),
                    Outcome::Count(_) => unreachable!("opening gives a descriptor"),
                });
                Step::Finished(opened.map(|(file, bytes)| DeviceOutcome::Opened(file, bytes)))
            }
            Work::Write(write) => write.completed(completion, self.ring.partial_submissions()),
            Work::Read(read) => read.completed(completion),
        };
        match step {
            Step::Finished(outcome) => {
                let token = pending.token;
                self.pending.remove(&tag);
                self.finish(token, outcome.map_err(directory::storage_error));
            }
            Step::WriteMore => self.continue_write(tag),
            Step::ReadMore(memory) => self.continue_read(tag, memory),
            Step::SyncAlone(file) => {
                self.submit(tag, Operation::Sync { file, kind: SyncKind::Data });
            }
            Step::Wait => {}
        }
    }
}

/// What a completion leads to.
enum Step {
    Finished(io::Result<DeviceOutcome>),
    WriteMore,
    ReadMore(BytesMut),
    SyncAlone(Rc<OwnedFd>),
    /// The other half of a pair is still out.
    Wait,
}

impl Write {
    fn completed(&mut self, completion: Completion, partial_submissions: u64) -> Step {
        let count = completion.outcome.map(|outcome| match outcome {
            Outcome::Count(count) => count,
            Outcome::Descriptor(_) => unreachable!("writing gives a count"),
        });
        if self.kind != WriteKind::ThenSync {
            return match self.written(count) {
                Ok(true) => Step::Finished(Ok(DeviceOutcome::Done)),
                Ok(false) => Step::WriteMore,
                Err(error) => Step::Finished(Err(error)),
            };
        }
        match completion.operation {
            Some(Operation::Write { .. }) => self.round.write = Some(count),
            Some(Operation::Sync { .. }) => self.round.sync = Some(count.map(|_| ())),
            _ => unreachable!("a durable write is a write and a sync"),
        }
        self.round.outstanding -= 1;
        if self.round.outstanding > 0 {
            return Step::Wait;
        }
        self.round_ended(partial_submissions)
    }

    /// Judges a pair of which both halves are back.
    fn round_ended(&mut self, partial_submissions: u64) -> Step {
        // Without a write result this was a sync on its own, behind a complete write.
        let write_was_before = self.round.write.is_none();
        let sync = self.round.sync.take().expect("a round ends with its sync");
        if let Some(count) = self.round.write.take() {
            match self.written(count) {
                Ok(true) => {}
                Ok(false) => {
                    return match sync {
                        // A sync that ran beside a write that did not finish: its failure is final.
                        Err(error) if !is_not_done(&error) => Step::Finished(Err(error)),
                        _ => Step::WriteMore,
                    };
                }
                Err(error) => return Step::Finished(Err(error)),
            }
        }
        let is_ordered = write_was_before || self.round.partial_submissions == partial_submissions;
        match sync {
            Ok(()) if is_ordered => Step::Finished(Ok(DeviceOutcome::Done)),
            Err(error) if !is_not_done(&error) => Step::Finished(Err(error)),
            // Not run, or perhaps run beside the write.
            outcome => {
                self.fruitless += 1;
                if self.fruitless > FRUITLESS_MAX {
                    let error = io::Error::from_raw_os_error(libc::ECANCELED);
                    return Step::Finished(Err(outcome.err().unwrap_or(error)));
                }
                self.round.outstanding = 1;
                Step::SyncAlone(self.file.clone())
            }
        }
    }

    /// Takes the result of one write; `true` when nothing is left.
    fn written(&mut self, count: io::Result<usize>) -> io::Result<bool> {
        let count = match count {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(error) if is_not_done(&error) => 0,
            Err(error) => return Err(error),
        };
        let progress = whole_blocks(count);
        self.fruitless = if progress > 0 { 0 } else { self.fruitless + 1 };
        if self.fruitless > FRUITLESS_MAX {
            return Err(io::Error::other("write makes no progress"));
        }
        let _ = self.rest.split_to(progress);
        self.offset += progress as u64;
        Ok(self.rest.is_empty())
    }
}

impl Read {
    fn completed(&mut self, completion: Completion) -> Step {
        let Some(Operation::Read { mut memory, .. }) = completion.operation else {
            unreachable!("a read comes back as one");
        };
        let count = match completion.outcome {
            Ok(Outcome::Count(count)) => count,
            Ok(Outcome::Descriptor(_)) => unreachable!("reading gives a count"),
            Err(error) if is_not_done(&error) => {
                self.fruitless += 1;
                if self.fruitless > FRUITLESS_MAX {
                    return Step::Finished(Err(error));
                }
                return Step::ReadMore(memory);
            }
            Err(error) => return Step::Finished(Err(error)),
        };
        if memory.len() == self.length {
            return Step::Finished(Ok(DeviceOutcome::Read(memory)));
        }
        // Going on within a block would break the alignment: read that block again.
        let progress = whole_blocks(count);
        if progress == 0 {
            return Step::Finished(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.fruitless = 0;
        memory.truncate(whole_blocks(memory.len()));
        Step::ReadMore(memory)
    }
}

/// Whether an error says that the operation has not been carried out at all.
fn is_not_done(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN))
}

fn whole_blocks(bytes: usize) -> usize {
    bytes - bytes % BLOCK_BYTES as usize
}

impl Device for UringDevice {
    fn list(&mut self, token: OperationToken) {
        let listed = directory::list(&self.path).map(DeviceOutcome::Listed);
        self.finish(token, listed);
    }

    fn open(&mut self, name: &str, create: bool, token: OperationToken) {
        match directory::checked_name(name) {
            Ok(name) => {
                let tag = self.start(token, Work::Open);
                let operation = Operation::Open {
                    directory: self.directory.clone(),
                    name,
                    flags: directory::open_flags(create),
                    mode: directory::FILE_MODE,
                };
                self.submit(tag, operation);
            }
            Err(error) => self.finish(token, Err(error)),
        }
    }

    fn close(&mut self, file: FileHandle) {
        self.files.remove(file);
    }

    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken) {
        let file = self.files.descriptor(file);
        // Shrinking is rare and quick, and allocation does not do it.
        match directory::shrink(&file, bytes) {
            Ok(bytes_before) => {
                let work = Work::Allocate { file: file.clone(), bytes_before };
                let tag = self.start(token, work);
                self.submit(tag, Operation::Allocate { file, bytes });
            }
            Err(error) => self.finish(token, Err(error)),
        }
    }

    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken) {
        self.start_write(file, offset, bytes, WriteKind::Volatile, token);
    }

    fn write_durable(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        token: OperationToken,
    ) {
        let kind = match self.durable_write {
            DurableWrite::DataSync => WriteKind::DataSync,
            DurableWrite::ThenSync => WriteKind::ThenSync,
        };
        self.start_write(file, offset, bytes, kind, token);
    }

    fn sync(&mut self, file: FileHandle, token: OperationToken) {
        let file = self.files.descriptor(file);
        self.submit_simple(token, Ok(Operation::Sync { file, kind: SyncKind::Full }));
    }

    fn sync_directory(&mut self, token: OperationToken) {
        let file = self.directory.clone();
        self.submit_simple(token, Ok(Operation::Sync { file, kind: SyncKind::Full }));
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken) {
        if let Err(error) = directory::check_aligned(offset, length) {
            return self.finish(token, Err(error));
        }
        let file = self.files.descriptor(file);
        let tag = self.start(token, Work::Read(Read { file, offset, length, fruitless: 0 }));
        self.continue_read(tag, aligned_memory(length));
    }

    fn rename(&mut self, from: &str, to: &str, token: OperationToken) {
        let names =
            directory::checked_name(from).and_then(|from| Ok((from, directory::checked_name(to)?)));
        let operation = names.map(|(from, to): (CString, CString)| Operation::Rename {
            directory: self.directory.clone(),
            from,
            to,
        });
        self.submit_simple(token, operation);
    }

    fn remove(&mut self, name: &str, token: OperationToken) {
        let directory = self.directory.clone();
        let operation =
            directory::checked_name(name).map(|name| Operation::Remove { directory, name });
        self.submit_simple(token, operation);
    }

    fn flush(&mut self) {
        self.ring.flush();
    }

    fn poll(&mut self, events: &mut Vec<DeviceEvent>) {
        while let Some(completion) = self.ring.next_ready(self.owner) {
            self.completed(completion);
        }
        events.extend(self.done.drain(..));
    }

    fn wait(&mut self) {
        while self.done.is_empty() {
            self.ring.wait(self.owner);
            while let Some(completion) = self.ring.next_ready(self.owner) {
                self.completed(completion);
            }
        }
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        self.ring.abandon(self.owner);
    }
}

#[cfg(test)]
mod tests;
