//! The disk of one shard: [`Device`] over an [`Image`], with latency, chance and failure.
//!
//! Fault model. Within it nothing acknowledged may be lost:
//! * operations complete after a random time, in any order;
//! * a power cut keeps, of the sectors (512 B) written since their last sync, any subset, each in
//!   any of its states; operations in flight happened for any subset of their sectors;
//! * the end of the process without a power cut does the same to what is in flight only, and what
//!   completed stays readable without being durable;
//! * creations, renames and removals are durable in order, up to any one of them; sizes each by
//!   chance; certainly only after a sync;
//! * write, sync, open, rename and read may fail with EIO; a failed write has happened for any
//!   subset of its sectors; after a failed sync sectors may be readable and yet never become
//!   durable, and a repeated sync reports success;
//! * allocation fails when the disk is full; stalls last up to some hundred milliseconds.
//!
//! Outside it: sectors are not torn inside, durable sectors do not rot, writes go where they were
//! sent, reads that succeed are right. A run may ask for rot all the same: one bit, once, in what
//! was acknowledged long ago; then a server may refuse to serve, but not serve what is wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};

use crate::clock::{Clock, MICROSECOND, MILLISECOND};
use crate::faults::{FaultKind, Faults};
use crate::image::{Completion, Image, Inode, SECTOR_BYTES, Survival};
use crate::rng::Rng;
use crate::trace::{Trace, check, trace};

/// Operations after which a record is certainly followed by one that tells it durable.
const ROT_AGE: u64 = 150;

/// Rates and sizes of one disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskOptions {
    /// Longest ordinary operation, microseconds.
    pub(crate) latency_us_max: u64,
    /// Chance in a million that an operation stalls.
    pub(crate) stall_per_million: u32,
    /// Chance in a million that a write or a sync fails.
    pub(crate) write_fault_per_million: u32,
    /// Chance in a million that a read fails.
    pub(crate) read_fault_per_million: u32,
    /// Chance in a million that a directory operation or an opening fails.
    pub(crate) directory_fault_per_million: u32,
    /// Bytes that files may use together.
    pub(crate) capacity_bytes: u64,
}

#[derive(Debug)]
enum Operation {
    List,
    Open { name: String, create: bool },
    Allocate { inode: Inode, bytes: u64 },
    Write { inode: Inode, offset: u64, bytes: Bytes },
    WriteDurable { inode: Inode, offset: u64, bytes: Bytes },
    Sync { inode: Inode, covers: Completion },
    SyncDirectory { covers: Completion },
    Read { inode: Inode, offset: u64, length: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

/// State of a disk; survives the processes that use it.
#[derive(Debug)]
pub(crate) struct Disk {
    shard: usize,
    options: DiskOptions,
    image: Image,
    rng: Rng,
    clock: Clock,
    trace: Trace,
    faults: Faults,
    /// By time of completion and order of queueing.
    in_flight: BTreeMap<(u64, u64), (OperationToken, Operation)>,
    completed: Vec<DeviceEvent>,
    /// What the dead process waits for in vain, until it notices that it is dead.
    orphans: Vec<OperationToken>,
    handles: BTreeMap<FileHandle, Inode>,
    queued: u64,
    next_handle: u32,
    /// Which process may use the disk; handles of earlier ones are dead.
    process: u32,
    /// Operations until the process dies in the middle of what it does.
    fuse: Option<u64>,
    has_tripped: bool,
}

/// A process's way to its disk. Once dead every operation fails and
/// nothing changes any more.
#[derive(Debug)]
pub(crate) struct DiskHandle {
    disk: Rc<RefCell<Disk>>,
    process: u32,
    /// Failures of a dead handle, to be polled.
    refused: Vec<OperationToken>,
}

/// The world's way to a disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskControl(Rc<RefCell<Disk>>);

fn device_failed() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

impl Operation {
    fn fault_rate(&self, options: &DiskOptions) -> u32 {
        match self {
            Self::Write { .. } | Self::WriteDurable { .. } | Self::Sync { .. } => {
                options.write_fault_per_million
            }
            Self::Read { .. } => options.read_fault_per_million,
            Self::Allocate { .. } | Self::List => 0,
            Self::Open { .. }
            | Self::SyncDirectory { .. }
            | Self::Rename { .. }
            | Self::Remove { .. } => options.directory_fault_per_million,
        }
    }

    fn fault_kind(&self) -> FaultKind {
        match self {
            Self::Write { .. } | Self::WriteDurable { .. } => FaultKind::WriteError,
            Self::Sync { .. } => FaultKind::SyncError,
            Self::Read { .. } => FaultKind::ReadError,
            Self::SyncDirectory { .. } => FaultKind::DirectorySyncError,
            _ => FaultKind::DirectoryError,
        }
    }
}

impl Disk {
    fn queue(&mut self, token: OperationToken, operation: Operation) {
        let mut delay = self.rng.between(5, self.options.latency_us_max) * MICROSECOND;
        if self.rng.per_million(self.options.stall_per_million) {
            let stall = self.rng.between(1, 300) * MILLISECOND;
            delay += if self.faults.strike(FaultKind::DiskStall, true) { stall } else { 0 };
        }
        self.queued += 1;
        self.in_flight.insert((self.clock.nanos() + delay, self.queued), (token, operation));
        if let Some(fuse) = &mut self.fuse {
            *fuse = fuse.saturating_sub(1);
            if *fuse == 0 {
                trace!(self.trace, "disk {}: the process dies in the middle", self.shard);
                self.end_process();
                self.has_tripped = true;
            }
        }
    }

    /// Completes what is due.
    fn advance(&mut self) {
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > self.clock.nanos() {
                return;
            }
            let (token, operation) = entry.remove();
            let outcome = self.complete(operation);
            self.completed.push(DeviceEvent { token, outcome });
        }
    }

    fn complete(&mut self, operation: Operation) -> io::Result<DeviceOutcome> {
        let fails = self.rng.per_million(operation.fault_rate(&self.options));
        if self.faults.strike(operation.fault_kind(), fails) {
            trace!(self.trace, "disk {}: {:?}", self.shard, operation.fault_kind());
            self.fail(&operation);
            return Err(device_failed());
        }
        match operation {
            Operation::List => return Ok(DeviceOutcome::Listed(self.image.list())),
            Operation::Open { name, create } => {
                let (inode, size) = self.image.open(&name, create)?;
                self.next_handle += 1;
                let handle = FileHandle(self.next_handle);
                self.handles.insert(handle, inode);
                return Ok(DeviceOutcome::Opened(handle, size));
            }
            Operation::Read { inode, offset, length } => {
                let read = self.image.read(inode, offset, length);
                return read
                    .map(DeviceOutcome::Read)
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
            }
            Operation::Allocate { inode, bytes } => {
                let others = self.image.used_bytes() - self.image.size(inode);
                if others + bytes > self.options.capacity_bytes {
                    self.trace.count("disk full");
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.image.resize(inode, bytes);
            }
            Operation::Write { inode, offset, bytes } => {
                self.image.write(inode, offset, &bytes, &mut || true);
            }
            Operation::WriteDurable { inode, offset, bytes } => {
                self.image.write_durable(inode, offset, &bytes);
            }
            Operation::Sync { inode, covers } => self.image.sync(inode, covers),
            Operation::SyncDirectory { covers } => self.image.sync_directory(covers),
            Operation::Rename { from, to } => self.image.rename(&from, &to)?,
            Operation::Remove { name } => {
                self.image.remove(&name)?;
                let handles = &self.handles;
                self.image.collect_unnamed(&|inode| handles.values().any(|open| *open == inode));
            }
        }
        Ok(DeviceOutcome::Done)
    }

    /// What a failed operation leaves behind.
    fn fail(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { inode, offset, bytes } => {
                let rng = &mut self.rng;
                self.image.write(*inode, *offset, bytes, &mut || rng.percent(50));
            }
            Operation::WriteDurable { inode, offset, bytes } => {
                let rng = &mut self.rng;
                self.image.write(*inode, *offset, bytes, &mut || rng.percent(70));
                self.image.fail_sync(*inode, &mut self.rng);
            }
            Operation::Sync { inode, covers } => {
                self.image.fail_sync(*inode, &mut self.rng);
                self.image.sync(*inode, *covers);
            }
            _ => {}
        }
    }

    /// Ends the process: what is in flight happened in part, handles are dead.
    fn end_process(&mut self) {
        self.process += 1;
        let style = self.rng.below(4);
        self.orphans.extend(self.completed.drain(..).map(|event| event.token));
        for (token, operation) in std::mem::take(&mut self.in_flight).into_values() {
            self.orphans.push(token);
            let rng = &mut self.rng;
            match operation {
                Operation::Write { inode, offset, bytes }
                | Operation::WriteDurable { inode, offset, bytes } => match style {
                    0 => {}
                    1 => self.image.write(inode, offset, &bytes, &mut || true),
                    _ => self.image.write(inode, offset, &bytes, &mut || rng.percent(60)),
                },
                Operation::Allocate { inode, bytes } if rng.percent(50) => {
                    self.image.resize(inode, bytes);
                }
                Operation::Rename { from, to } if rng.percent(50) => {
                    let _ = self.image.rename(&from, &to);
                }
                Operation::Remove { name } if rng.percent(50) => {
                    let _ = self.image.remove(&name);
                }
                Operation::Open { name, create: true } if rng.percent(50) => {
                    let _ = self.image.open(&name, true);
                }
                _ => {}
            }
        }
        self.handles.clear();
        self.fuse = None;
        self.image.collect_unnamed(&|_| false);
    }

    fn inode(&self, file: FileHandle) -> Option<Inode> {
        let inode = self.handles.get(&file).copied();
        check!(self.trace, "device contract", inode.is_some(), "{file:?} is not open");
        inode
    }

    fn check_aligned(&self, offset: u64, length: usize) {
        let block = thalweg_core::position::BLOCK_BYTES;
        let is_aligned = offset.is_multiple_of(block) && (length as u64).is_multiple_of(block);
        check!(
            self.trace,
            "device contract",
            is_aligned && length > 0 && length.is_multiple_of(SECTOR_BYTES),
            "transfer of {length} bytes at {offset} is not aligned"
        );
    }
}

impl DiskControl {
    /// An empty disk.
    pub(crate) fn new(
        shard: usize,
        options: DiskOptions,
        rng: Rng,
        clock: Clock,
        trace: Trace,
        faults: Faults,
    ) -> Self {
        Self(Rc::new(RefCell::new(Disk {
            shard,
            options,
            image: Image::default(),
            rng,
            clock,
            trace,
            faults,
            in_flight: BTreeMap::new(),
            completed: Vec::new(),
            orphans: Vec::new(),
            handles: BTreeMap::new(),
            queued: 0,
            next_handle: 0,
            process: 0,
            fuse: None,
            has_tripped: false,
        })))
    }

    /// A handle for a process that starts now.
    pub(crate) fn attach(&self) -> DiskHandle {
        let process = self.0.borrow().process;
        DiskHandle { disk: Rc::clone(&self.0), process, refused: Vec::new() }
    }

    /// Lets the process die after this many more operations.
    pub(crate) fn set_fuse(&self, operations: Option<u64>) {
        self.0.borrow_mut().fuse = operations;
    }

    /// Whether the process died by its fuse since the last [`kill`](Self::kill).
    pub(crate) fn has_tripped(&self) -> bool {
        self.0.borrow().has_tripped
    }

    /// Ends the process that uses the disk, with a power cut if `survival` is given.
    pub(crate) fn kill(&self, survival: Option<Survival>) {
        let mut disk = self.0.borrow_mut();
        if !std::mem::take(&mut disk.has_tripped) {
            disk.end_process();
        }
        disk.orphans.clear();
        if let Some(survival) = survival {
            let disk = &mut *disk;
            disk.image.power_cut(survival, &mut disk.rng);
        }
    }

    /// When the next operation completes that was not complete at `seen`.
    pub(crate) fn next_completion(&self, seen: u64) -> Option<u64> {
        let disk = self.0.borrow();
        disk.in_flight.range((seen + 1, 0)..).next().map(|((at, _), _)| *at)
    }

    /// Lets old durable bytes rot; says whether there were any.
    pub(crate) fn rot(&self) -> bool {
        let disk = &mut *self.0.borrow_mut();
        disk.image.rot(ROT_AGE, &mut disk.rng)
    }

    /// Changes rates and sizes.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut DiskOptions)) {
        change(&mut self.0.borrow_mut().options);
    }
}

impl DiskHandle {
    fn queue(&mut self, token: OperationToken, make: impl FnOnce(&mut Disk) -> Option<Operation>) {
        let mut disk = self.disk.borrow_mut();
        let operation = if disk.process == self.process { make(&mut disk) } else { None };
        match operation {
            Some(operation) => disk.queue(token, operation),
            None => self.refused.push(token),
        }
    }
}

impl Device for DiskHandle {
    fn list(&mut self, token: OperationToken) {
        self.queue(token, |_| Some(Operation::List));
    }

    fn open(&mut self, name: &str, create: bool, token: OperationToken) {
        self.queue(token, |_| Some(Operation::Open { name: name.to_owned(), create }));
    }

    fn close(&mut self, file: FileHandle) {
        let mut disk = self.disk.borrow_mut();
        if disk.process == self.process {
            let inode = disk.handles.remove(&file);
            check!(disk.trace, "device contract", inode.is_some(), "{file:?} closed twice");
        }
    }

    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken) {
        self.queue(token, |disk| {
            disk.inode(file).map(|inode| Operation::Allocate { inode, bytes })
        });
    }

    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken) {
        self.queue(token, |disk| {
            disk.check_aligned(offset, bytes.len());
            disk.inode(file).map(|inode| Operation::Write { inode, offset, bytes })
        });
    }

    fn write_durable(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        token: OperationToken,
    ) {
        self.queue(token, |disk| {
            disk.check_aligned(offset, bytes.len());
            disk.inode(file).map(|inode| Operation::WriteDurable { inode, offset, bytes })
        });
    }

    fn sync(&mut self, file: FileHandle, token: OperationToken) {
        self.queue(token, |disk| {
            let covers = disk.image.completed();
            disk.inode(file).map(|inode| Operation::Sync { inode, covers })
        });
    }

    fn sync_directory(&mut self, token: OperationToken) {
        self.queue(token, |disk| Some(Operation::SyncDirectory { covers: disk.image.completed() }));
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken) {
        self.queue(token, |disk| {
            disk.check_aligned(offset, length);
            disk.inode(file).map(|inode| Operation::Read { inode, offset, length })
        });
    }

    fn rename(&mut self, from: &str, to: &str, token: OperationToken) {
        self.queue(token, |_| Some(Operation::Rename { from: from.to_owned(), to: to.to_owned() }));
    }

    fn remove(&mut self, name: &str, token: OperationToken) {
        self.queue(token, |_| Some(Operation::Remove { name: name.to_owned() }));
    }

    fn flush(&mut self) {}

    fn poll(&mut self, events: &mut Vec<DeviceEvent>) {
        let mut disk = self.disk.borrow_mut();
        if disk.process == self.process {
            disk.advance();
            events.append(&mut disk.completed);
        } else {
            self.refused.append(&mut disk.orphans);
        }
        for token in self.refused.drain(..) {
            events.push(DeviceEvent { token, outcome: Err(device_failed()) });
        }
    }

    fn wait(&mut self) {
        let mut disk = self.disk.borrow_mut();
        if !self.refused.is_empty() || !disk.completed.is_empty() {
            return;
        }
        if disk.process != self.process {
            return;
        }
        let (next, _) = *disk.in_flight.first_key_value().expect("something is in flight").0;
        disk.clock.advance_to(next);
        disk.advance();
    }
}
