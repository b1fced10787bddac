//! The disk of one shard: [`Device`] over an [`Image`], with latency, chance and failure.
//!
//! Fault model. Within it nothing acknowledged may be lost:
//! * operations complete after a random time, in any order; stalls last up to 30 s;
//! * a power cut keeps, of the sectors (512 B) written since their last sync, any subset, each in
//!   any of its states; operations in flight happened for any subset of their sectors;
//! * the end of the process without a power cut does the same to what is in flight only, and what
//!   completed stays readable without being durable; where no lock outlives the process, writes in
//!   flight land at any later time, or never;
//! * several processes may use the disk at a time, each with handles of its own;
//! * creations, renames and removals are durable in order, up to any one of them; sizes each by
//!   chance; certainly only after a sync;
//! * write, sync, open, rename and read may fail with EIO; a failed write has happened for any
//!   subset of its sectors; after a failed sync sectors may be readable and yet never become
//!   durable, and a repeated sync reports success;
//! * a read may give wrong bytes once, and the right ones when it is repeated;
//! * allocation fails when the disk is full.
//!
//! Outside it: sectors are not torn inside. Damage at rest (rot, writes that went elsewhere or
//! nowhere) is `atlas.rs`. Short transfers are the real adapter's: the contract of `Device` hides
//! them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};

use crate::clock::{Clock, MICROSECOND, MILLISECOND};
use crate::faults::{FaultKind, Faults};
use crate::image::{Completion, Image, Inode, SECTOR_BYTES, Survival};
use crate::life::Life;
use crate::rng::Rng;
use crate::trace::{Trace, check, trace};

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
    /// Chance in a million that a read gives wrong bytes, once.
    pub(crate) wrong_read_per_million: u32,
    /// Longest stall, milliseconds.
    pub(crate) stall_ms_max: u64,
    /// Bytes that files may use together.
    pub(crate) capacity_bytes: u64,
    /// How long after the end of a process its writes may still land, milliseconds; 0: not at all.
    pub(crate) late_ms_max: u64,
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

/// An operation on its way.
#[derive(Debug)]
struct Flight {
    process: ProcessNumber,
    /// `None`: nobody waits for it any more.
    token: Option<OperationToken>,
    operation: Operation,
}

/// What a process has not taken yet.
#[derive(Debug, Default)]
struct Completed {
    events: Vec<DeviceEvent>,
    /// When the newest of them was due.
    newest: u64,
}

/// Who uses a disk: each attachment is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessNumber(u32);

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
    in_flight: BTreeMap<(u64, u64), Flight>,
    completed: BTreeMap<ProcessNumber, Completed>,
    handles: BTreeMap<FileHandle, (ProcessNumber, Inode)>,
    queued: u64,
    next_handle: u32,
    next_process: u32,
}

/// A process's way to its disk. Once dead every operation fails and nothing changes any more.
#[derive(Debug)]
pub(crate) struct DiskHandle {
    disk: Rc<RefCell<Disk>>,
    process: ProcessNumber,
    life: Life,
    /// What was asked for and not answered.
    waiting: BTreeSet<OperationToken>,
}

/// The world's way to a disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskControl(Rc<RefCell<Disk>>);

fn device_failed() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

impl Operation {
    fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::WriteDurable { .. })
    }

    /// The file that it reaches without a name.
    fn inode(&self) -> Option<Inode> {
        match self {
            Self::Allocate { inode, .. }
            | Self::Write { inode, .. }
            | Self::WriteDurable { inode, .. }
            | Self::Sync { inode, .. }
            | Self::Read { inode, .. } => Some(*inode),
            _ => None,
        }
    }

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
    fn queue(&mut self, process: ProcessNumber, token: OperationToken, operation: Operation) {
        let mut delay = self.rng.between(5, self.options.latency_us_max) * MICROSECOND;
        let stalls = self.rng.per_million(self.options.stall_per_million);
        if self.faults.strike(FaultKind::DiskStall, stalls) {
            // Most stalls are short; a few are as long as devices ever take.
            let most = if self.rng.percent(90) { 300 } else { self.options.stall_ms_max };
            delay += self.rng.between(1, most) * MILLISECOND;
        }
        let flight = Flight { process, token: Some(token), operation };
        self.fly(self.clock.nanos() + delay, flight);
    }

    fn fly(&mut self, at: u64, flight: Flight) {
        self.queued += 1;
        self.in_flight.insert((at, self.queued), flight);
    }

    /// Completes what is due.
    fn advance(&mut self) {
        while let Some(entry) = self.in_flight.first_entry() {
            let at = entry.key().0;
            if at > self.clock.nanos() {
                return;
            }
            let Flight { process, token, operation } = entry.remove();
            let Some(token) = token else {
                self.land_late(operation);
                continue;
            };
            let outcome = self.complete(process, operation);
            let completed = self.completed.entry(process).or_default();
            completed.events.push(DeviceEvent { token, outcome });
            completed.newest = at;
        }
    }

    /// A write of a process that ended long ago arrives.
    fn land_late(&mut self, operation: Operation) {
        let (Operation::Write { inode, offset, bytes }
        | Operation::WriteDurable { inode, offset, bytes }) = operation
        else {
            return;
        };
        if self.image.has(inode) {
            let rng = &mut self.rng;
            let most = rng.pick(&[50, 100, 100]);
            self.image.write(inode, offset, &bytes, &mut || rng.percent(most));
            trace!(self.trace, "disk {}: a write lands late, {offset} {inode:?}", self.shard);
        }
    }

    fn complete(
        &mut self,
        process: ProcessNumber,
        operation: Operation,
    ) -> io::Result<DeviceOutcome> {
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
                self.handles.insert(handle, (process, inode));
                return Ok(DeviceOutcome::Opened(handle, size));
            }
            Operation::Read { inode, offset, length } => {
                let read = self.image.read(inode, offset, length);
                let mut bytes = read.ok_or(io::ErrorKind::UnexpectedEof)?;
                let is_wrong = self.rng.per_million(self.options.wrong_read_per_million);
                if self.faults.strike(FaultKind::WrongRead, is_wrong) {
                    let at = self.rng.index(length);
                    bytes[at] ^= 1 << self.rng.index(8);
                }
                return Ok(DeviceOutcome::Read(bytes));
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
                self.collect_unnamed();
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

    /// Drops files that nobody can come to any more.
    fn collect_unnamed(&mut self) {
        let open = self.handles.values().map(|(_, inode)| *inode);
        let reached = self.in_flight.values().filter_map(|flight| flight.operation.inode());
        let used: BTreeSet<Inode> = open.chain(reached).collect();
        self.image.collect_unnamed(&|inode| used.contains(&inode));
    }

    /// Ends a process: what is in flight happened in part, or will; handles are dead.
    fn end_process(&mut self, process: ProcessNumber) {
        let style = self.rng.below(5);
        let keys: Vec<(u64, u64)> = self.in_flight.keys().copied().collect();
        for key in keys {
            if self.in_flight[&key].process != process || self.in_flight[&key].token.is_none() {
                continue;
            }
            let flight = self.in_flight.remove(&key).expect("just listed");
            let lands_late = self.options.late_ms_max > 0 && style == 4;
            if lands_late
                && flight.operation.is_write()
                && self.faults.strike(FaultKind::LateWrite, true)
            {
                let most = self.options.late_ms_max * MILLISECOND;
                let at = self.clock.nanos() + self.rng.between(1, most);
                self.fly(at, Flight { token: None, ..flight });
                continue;
            }
            self.abandon(style, flight.operation);
        }
        self.completed.remove(&process);
        self.handles.retain(|_, (owner, _)| *owner != process);
        self.collect_unnamed();
    }

    /// What an operation did whose process or power ended.
    fn abandon(&mut self, style: u64, operation: Operation) {
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

    fn inode(&self, process: ProcessNumber, file: FileHandle) -> Option<Inode> {
        let open = self.handles.get(&file).filter(|(owner, _)| *owner == process);
        check!(self.trace, "device contract", open.is_some(), "{file:?} is not open");
        open.map(|(_, inode)| *inode)
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
            completed: BTreeMap::new(),
            handles: BTreeMap::new(),
            queued: 0,
            next_handle: 0,
            next_process: 0,
        })))
    }

    /// A handle for a process that starts now and lives as long as `life`.
    pub(crate) fn attach(&self, life: Life) -> DiskHandle {
        let mut disk = self.0.borrow_mut();
        disk.next_process += 1;
        let process = ProcessNumber(disk.next_process);
        DiskHandle { disk: Rc::clone(&self.0), process, life, waiting: BTreeSet::new() }
    }

    /// Ends a process that used the disk.
    pub(crate) fn end_process(&self, process: ProcessNumber) {
        self.0.borrow_mut().end_process(process);
    }

    /// The power fails. No process may be left.
    pub(crate) fn cut_power(&self, survival: Survival) {
        let disk = &mut *self.0.borrow_mut();
        assert!(disk.handles.is_empty(), "no process survives a power cut");
        for flight in std::mem::take(&mut disk.in_flight).into_values() {
            disk.abandon(3, flight.operation);
        }
        disk.image.power_cut(survival, &mut disk.rng);
    }

    /// Lets arrive what is due, whoever sent it.
    pub(crate) fn advance(&self) {
        self.0.borrow_mut().advance();
    }

    /// When the last of what is under way ends; 0 when nothing is.
    pub(crate) fn busy_until(&self) -> u64 {
        self.0.borrow().in_flight.last_key_value().map_or(0, |((at, _), _)| *at)
    }

    /// When the next operation of a process completes that was not complete at `seen`.
    pub(crate) fn next_completion(&self, process: ProcessNumber, seen: u64) -> Option<u64> {
        let disk = self.0.borrow();
        let waiting = disk.completed.get(&process).filter(|completed| !completed.events.is_empty());
        if let Some(completed) = waiting.filter(|completed| completed.newest > seen) {
            return Some(completed.newest);
        }
        let later = disk.in_flight.range((seen + 1, 0)..);
        let mut own = later.filter(|(_, flight)| flight.process == process);
        own.next().map(|((at, _), _)| *at)
    }

    /// Looks at what is on the disk, and may change it.
    pub(crate) fn with_image<T>(&self, look: impl FnOnce(&mut Image, &mut Rng) -> T) -> T {
        let disk = &mut *self.0.borrow_mut();
        look(&mut disk.image, &mut disk.rng)
    }

    /// Changes rates and sizes.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut DiskOptions)) {
        change(&mut self.0.borrow_mut().options);
    }
}

impl DiskHandle {
    /// Which process it is.
    pub(crate) fn process(&self) -> ProcessNumber {
        self.process
    }

    fn queue(&mut self, token: OperationToken, make: impl FnOnce(&mut Disk) -> Option<Operation>) {
        self.waiting.insert(token);
        if !self.life.is_alive() {
            return;
        }
        let mut disk = self.disk.borrow_mut();
        if let Some(operation) = make(&mut disk) {
            disk.queue(self.process, token, operation);
        }
        self.life.spend();
        if !self.life.is_alive() {
            trace!(disk.trace, "disk {}: the process dies in the middle", disk.shard);
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
        if self.life.is_alive() {
            let mut disk = self.disk.borrow_mut();
            let inode = disk.handles.remove(&file);
            check!(disk.trace, "device contract", inode.is_some(), "{file:?} closed twice");
        }
    }

    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken) {
        let process = self.process;
        self.queue(token, |disk| {
            disk.inode(process, file).map(|inode| Operation::Allocate { inode, bytes })
        });
    }

    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken) {
        let process = self.process;
        self.queue(token, |disk| {
            disk.check_aligned(offset, bytes.len());
            disk.inode(process, file).map(|inode| Operation::Write { inode, offset, bytes })
        });
    }

    fn write_durable(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        token: OperationToken,
    ) {
        let process = self.process;
        self.queue(token, |disk| {
            disk.check_aligned(offset, bytes.len());
            disk.inode(process, file).map(|inode| Operation::WriteDurable { inode, offset, bytes })
        });
    }

    fn sync(&mut self, file: FileHandle, token: OperationToken) {
        let process = self.process;
        self.queue(token, |disk| {
            let covers = disk.image.completed();
            disk.inode(process, file).map(|inode| Operation::Sync { inode, covers })
        });
    }

    fn sync_directory(&mut self, token: OperationToken) {
        self.queue(token, |disk| Some(Operation::SyncDirectory { covers: disk.image.completed() }));
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken) {
        let process = self.process;
        self.queue(token, |disk| {
            disk.check_aligned(offset, length);
            disk.inode(process, file).map(|inode| Operation::Read { inode, offset, length })
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
        if !self.life.is_alive() {
            let waiting = std::mem::take(&mut self.waiting).into_iter();
            events
                .extend(waiting.map(|token| DeviceEvent { token, outcome: Err(device_failed()) }));
            return;
        }
        let mut disk = self.disk.borrow_mut();
        disk.advance();
        if let Some(completed) = disk.completed.get_mut(&self.process) {
            completed.events.iter().for_each(|event| {
                self.waiting.remove(&event.token);
            });
            events.append(&mut completed.events);
        }
    }

    fn wait(&mut self) {
        while self.life.is_alive() {
            let mut disk = self.disk.borrow_mut();
            if disk.completed.get(&self.process).is_some_and(|done| !done.events.is_empty()) {
                return;
            }
            let mut own =
                disk.in_flight.iter().filter(|(_, flight)| flight.process == self.process);
            let next = own.next().expect("something is in flight").0.0;
            disk.clock.advance_to(next);
            disk.advance();
        }
    }
}
