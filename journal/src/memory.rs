//! A small faulty device in memory, for tests. Seeded; the same calls give the same run.
//!
//! Fault model: operations complete in any order, some polls later; a write is readable when it
//! completed and durable only by `write_durable` or a later sync; a power cut keeps any subset of
//! the sectors (512 B) that are not durable, each in any state it had, and any prefix of the
//! changes to the directory that are not synced; writes in flight have happened for any subset of
//! their sectors. A write told to fail has happened for any subset of its sectors, and no sync
//! makes those durable. Allocation fails beyond the capacity.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;
use thalweg_core::position::BLOCK_BYTES;

mod image;
use image::{Inode, NameChange, Operation, State, apply, device_failed};

/// Random numbers of a test: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The disk itself: survives the devices opened on it.
#[derive(Clone, Debug)]
pub struct MemoryDisk(Rc<RefCell<State>>);

/// A process's way to the disk.
#[derive(Debug)]
pub struct MemoryDevice {
    disk: MemoryDisk,
    handles: BTreeMap<FileHandle, u64>,
    next_handle: u32,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(seed: u64, capacity_bytes: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            random: Random(seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
            clock: 0,
            capacity: capacity_bytes,
            in_flight: Vec::new(),
            write_failures: 0,
            read_failures: 0,
            unreadable: Vec::new(),
            wrong_reads: 0..0,
            fuse: None,
            completed_operations: 0,
        })))
    }

    /// A disk that holds these files, durably.
    pub fn holding(
        seed: u64,
        capacity_bytes: u64,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        let disk = Self::new(seed, capacity_bytes);
        let mut state = disk.0.borrow_mut();
        for (name, bytes) in files {
            let inode = state.next_inode;
            state.next_inode += 1;
            state.names.insert(name, inode);
            let durable = bytes.clone();
            let content = Inode { current: bytes, durable, pending: BTreeMap::new() };
            state.inodes.insert(inode, content);
        }
        state.durable_names = state.names.clone();
        drop(state);
        disk
    }

    /// A device for a new process.
    pub fn device(&self) -> MemoryDevice {
        MemoryDevice { disk: self.clone(), handles: BTreeMap::new(), next_handle: 1 }
    }

    /// Sets the chances in a thousand that writes and reads fail.
    pub fn set_failures(&self, writes_per_mille: u64, reads_per_mille: u64) {
        let mut state = self.0.borrow_mut();
        state.write_failures = writes_per_mille;
        state.read_failures = reads_per_mille;
    }

    /// Makes the block at `offset` of a file unreadable.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn make_unreadable(&self, name: &str, offset: u64) {
        let mut state = self.0.borrow_mut();
        let inode = state.names[name];
        state.unreadable.push((inode, offset));
    }

    /// Makes every block readable again.
    pub fn heal(&self) {
        self.0.borrow_mut().unreadable.clear();
    }

    /// Lets these of the next reads, counted from 0, come back with flipped bits.
    pub fn set_wrong_reads(&self, reads: Range<u64>) {
        self.0.borrow_mut().wrong_reads = reads;
    }

    /// Sets how much may be allocated, bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// After so many more operations every operation fails and does nothing, until a crash.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.0.borrow_mut().fuse = operations;
    }

    /// Operations completed so far.
    pub fn operations(&self) -> u64 {
        self.0.borrow().completed_operations
    }

    /// The process dies; what completed stays readable.
    pub fn kill(&self) {
        self.0.borrow_mut().kill();
    }

    /// The power fails: what is not durable survives or not, sector by sector.
    pub fn cut_power(&self) {
        self.0.borrow_mut().cut_power();
    }

    /// Names and sizes.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.0.borrow().listed()
    }

    /// The bytes of a file as they would be read now.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        let inode = state.names.get(name)?;
        Some(state.inodes[inode].current.clone())
    }

    /// Changes bytes of a file behind the journal's back, durably.
    ///
    /// # Panics
    /// When the file or the place is not there.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut [u8])) {
        let mut state = self.0.borrow_mut();
        let inode = state.names[name];
        let inode = state.inodes.get_mut(&inode).expect("a name has a file");
        change(&mut inode.current);
        inode.durable = inode.current.clone();
        inode.pending.clear();
    }

    /// Removes a file behind the journal's back, durably.
    pub fn remove(&self, name: &str) {
        let mut state = self.0.borrow_mut();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

impl MemoryDevice {
    fn inode(&self, file: FileHandle) -> u64 {
        self.handles[&file]
    }

    fn queue(&mut self, token: OperationToken, operation: Operation) {
        self.disk.0.borrow_mut().in_flight.push((token, operation));
    }

    fn carry_out(&mut self, operation: Operation) -> io::Result<DeviceOutcome> {
        let mut state = self.disk.0.borrow_mut();
        let state = &mut *state;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        match operation {
            Operation::List => return Ok(DeviceOutcome::Listed(state.listed())),
            Operation::Open { name, create } => {
                if !state.names.contains_key(&name) {
                    if !create {
                        return Err(missing());
                    }
                    let inode = state.next_inode;
                    state.next_inode += 1;
                    state.inodes.insert(inode, Inode::default());
                    state.change_name(NameChange::Create(name.clone(), inode));
                }
                let inode = state.names[&name];
                let bytes = state.inodes[&inode].current.len() as u64;
                let handle = FileHandle(self.next_handle);
                self.next_handle += 1;
                self.handles.insert(handle, inode);
                return Ok(DeviceOutcome::Opened(handle, bytes));
            }
            Operation::Allocate { inode, bytes } => {
                let used: u64 = state.listed().iter().map(|(_, bytes)| bytes).sum();
                if used + bytes > state.capacity {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let inode = state.inodes.get_mut(&inode).ok_or_else(missing)?;
                inode.current.resize(bytes as usize, 0);
                inode.durable.resize(bytes as usize, 0);
            }
            Operation::Write { inode, offset, bytes, is_durable } => {
                state.write(inode, offset, &bytes, is_durable)?;
            }
            Operation::Sync { inode, covers } => {
                if state.random.below(1000) < state.write_failures {
                    return Err(device_failed());
                }
                let inode = state.inodes.get_mut(&inode).ok_or_else(missing)?;
                let sectors: Vec<usize> = inode.pending.keys().copied().collect();
                for sector in sectors {
                    inode.make_durable(sector, covers);
                }
            }
            Operation::SyncDirectory { covers } => {
                let count = covers.min(state.name_changes.len());
                for change in state.name_changes.drain(..count) {
                    apply(&mut state.durable_names, &change);
                }
            }
            Operation::Read { inode, offset, length } => {
                if state.random.below(1000) < state.read_failures {
                    return Err(device_failed());
                }
                let is_hit = |&(of, at): &(u64, u64)| {
                    of == inode && at < offset + length as u64 && at + BLOCK_BYTES > offset
                };
                if state.unreadable.iter().any(is_hit) {
                    return Err(device_failed());
                }
                let current = &state.inodes.get(&inode).ok_or_else(missing)?.current;
                let part = current.get(offset as usize..offset as usize + length);
                let part = part.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                let mut bytes = aligned_memory(length);
                bytes.extend_from_slice(part);
                if state.wrong_reads.contains(&0) {
                    // A header and what lies in the middle.
                    bytes[20] ^= 1;
                    bytes[length / 2] ^= 1;
                }
                let (from, to) = (state.wrong_reads.start, state.wrong_reads.end);
                state.wrong_reads = from.saturating_sub(1)..to.saturating_sub(1);
                return Ok(DeviceOutcome::Read(bytes));
            }
            Operation::Rename { from, to } => {
                if !state.names.contains_key(&from) {
                    return Err(missing());
                }
                state.change_name(NameChange::Rename(from, to));
            }
            Operation::Remove { name } => {
                if !state.names.contains_key(&name) {
                    return Err(missing());
                }
                state.change_name(NameChange::Remove(name));
            }
        }
        Ok(DeviceOutcome::Done)
    }
}

impl Device for MemoryDevice {
    fn list(&mut self, token: OperationToken) {
        self.queue(token, Operation::List);
    }

    fn open(&mut self, name: &str, create: bool, token: OperationToken) {
        self.queue(token, Operation::Open { name: name.to_owned(), create });
    }

    fn close(&mut self, file: FileHandle) {
        let inode = self.handles.remove(&file).expect("an open file is closed");
        let state = self.disk.0.borrow();
        let is_used = state.in_flight.iter().any(|(_, operation)| match operation {
            Operation::Write { inode: of, .. } | Operation::Read { inode: of, .. } => *of == inode,
            _ => false,
        });
        assert!(!is_used, "a file is closed while an operation on it is in flight");
    }

    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken) {
        let inode = self.inode(file);
        self.queue(token, Operation::Allocate { inode, bytes });
    }

    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken) {
        let inode = self.inode(file);
        self.queue(token, Operation::Write { inode, offset, bytes, is_durable: false });
    }

    fn write_durable(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        token: OperationToken,
    ) {
        let inode = self.inode(file);
        self.queue(token, Operation::Write { inode, offset, bytes, is_durable: true });
    }

    fn sync(&mut self, file: FileHandle, token: OperationToken) {
        let (inode, covers) = (self.inode(file), self.disk.0.borrow().clock);
        self.queue(token, Operation::Sync { inode, covers });
    }

    fn sync_directory(&mut self, token: OperationToken) {
        let covers = self.disk.0.borrow().name_changes.len();
        self.queue(token, Operation::SyncDirectory { covers });
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken) {
        let inode = self.inode(file);
        self.queue(token, Operation::Read { inode, offset, length });
    }

    fn rename(&mut self, from: &str, to: &str, token: OperationToken) {
        self.queue(token, Operation::Rename { from: from.to_owned(), to: to.to_owned() });
    }

    fn remove(&mut self, name: &str, token: OperationToken) {
        self.queue(token, Operation::Remove { name: name.to_owned() });
    }

    fn flush(&mut self) {}

    /// Completes a random part of what is in flight.
    fn poll(&mut self, events: &mut Vec<DeviceEvent>) {
        loop {
            let mut state = self.disk.0.borrow_mut();
            let count = state.in_flight.len() as u64;
            if count == 0 || state.random.one_in(3) {
                return;
            }
            let index = state.random.below(count) as usize;
            let (token, operation, has_blown) = state.complete(index);
            drop(state);
            let outcome = if has_blown { Err(device_failed()) } else { self.carry_out(operation) };
            events.push(DeviceEvent { token, outcome });
        }
    }

    fn wait(&mut self) {
        assert!(!self.disk.0.borrow().in_flight.is_empty(), "something is in flight");
    }
}
