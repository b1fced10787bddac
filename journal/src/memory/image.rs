//! What the disk holds: contents now and contents that are sure, names now and names that are sure.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use thalweg_core::env::device::OperationToken;
use thalweg_core::position::BLOCK_BYTES;

use super::Random;

const SECTOR: usize = 512;
/// Age of what no sync covers.
const NEVER: u64 = u64::MAX;

/// States of a sector that are not durable, with the time of each.
type Versions = Vec<(u64, Vec<u8>)>;

#[derive(Debug, Default)]
pub(super) struct Inode {
    pub(super) current: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: BTreeMap<usize, Versions>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
pub(super) enum Operation {
    List,
    Open { name: String, create: bool },
    Allocate { inode: u64, bytes: u64 },
    Write { inode: u64, offset: u64, bytes: Bytes, is_durable: bool },
    Sync { inode: u64, covers: u64 },
    SyncDirectory { covers: usize },
    Read { inode: u64, offset: u64, length: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) random: Random,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) name_changes: Vec<NameChange>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) clock: u64,
    pub(super) capacity: u64,
    pub(super) in_flight: Vec<(OperationToken, Operation)>,
    /// Chance in a thousand that a write or sync fails.
    pub(super) write_failures: u64,
    /// Chance in a thousand that a read fails.
    pub(super) read_failures: u64,
    /// Inodes and offsets of blocks that cannot be read.
    pub(super) unreadable: Vec<(u64, u64)>,
    /// Which of the next reads give flipped bits; the disk is right.
    pub(super) wrong_reads: Range<u64>,
    /// Operations until the machine stops: later ones fail and do nothing.
    pub(super) fuse: Option<u64>,
    pub(super) completed_operations: u64,
}

pub(super) fn device_failed() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

pub(super) fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Inode {
    pub(super) fn put(&mut self, sector: usize, content: &[u8], age: u64) {
        let at = sector * SECTOR;
        self.current[at..at + SECTOR].copy_from_slice(content);
        self.pending.entry(sector).or_default().push((age, content.to_vec()));
    }

    pub(super) fn make_durable(&mut self, sector: usize, up_to: u64) {
        let Some(versions) = self.pending.get_mut(&sector) else { return };
        let covered = versions.iter().rposition(|&(age, _)| age <= up_to);
        if let Some(index) = covered {
            let at = sector * SECTOR;
            self.durable[at..at + SECTOR].copy_from_slice(&versions[index].1);
            versions.drain(..=index);
        }
        if versions.is_empty() {
            self.pending.remove(&sector);
        }
    }
}

impl State {
    pub(super) fn listed(&self) -> Vec<(String, u64)> {
        let size = |inode: &u64| self.inodes[inode].current.len() as u64;
        self.names.iter().map(|(name, inode)| (name.clone(), size(inode))).collect()
    }

    pub(super) fn change_name(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.name_changes.push(change);
    }

    /// Writes a random part of a write's sectors, out of reach of any sync.
    pub(super) fn write_partly(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        let first = offset as usize / SECTOR;
        let is_whole = self.random.one_in(4);
        for (index, content) in bytes.chunks(SECTOR).enumerate() {
            if (is_whole || self.random.one_in(2))
                && let Some(inode) = self.inodes.get_mut(&inode)
            {
                inode.put(first + index, content, NEVER);
            }
        }
    }

    pub(super) fn kill(&mut self) {
        for (_, operation) in std::mem::take(&mut self.in_flight) {
            match operation {
                Operation::Write { inode, offset, bytes, .. } => {
                    self.write_partly(inode, offset, &bytes);
                }
                Operation::Rename { from, to } if self.random.one_in(2) => {
                    self.change_name(NameChange::Rename(from, to));
                }
                Operation::Remove { name } if self.random.one_in(2) => {
                    self.change_name(NameChange::Remove(name));
                }
                _ => {}
            }
        }
        self.fuse = None;
    }

    pub(super) fn cut_power(&mut self) {
        self.kill();
        let kept = self.random.below(self.name_changes.len() as u64 + 1) as usize;
        for change in &std::mem::take(&mut self.name_changes)[..kept] {
            apply(&mut self.durable_names, change);
        }
        self.names = self.durable_names.clone();
        for inode in self.inodes.values_mut() {
            for (sector, versions) in std::mem::take(&mut inode.pending) {
                let chosen = self.random.below(versions.len() as u64 + 1) as usize;
                if let Some((_, content)) = versions.get(chosen) {
                    let at = sector * SECTOR;
                    inode.durable[at..at + SECTOR].copy_from_slice(content);
                }
            }
            inode.current = inode.durable.clone();
        }
    }

    /// Completes one operation in flight.
    pub(super) fn complete(&mut self, index: usize) -> (OperationToken, Operation, bool) {
        let (token, operation) = self.in_flight.swap_remove(index);
        self.completed_operations += 1;
        let has_blown = self.fuse == Some(0);
        if let Some(fuse) = &mut self.fuse {
            *fuse = fuse.saturating_sub(1);
        }
        (token, operation, has_blown)
    }

    pub(super) fn write(
        &mut self,
        inode: u64,
        offset: u64,
        bytes: &[u8],
        is_durable: bool,
    ) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES) && (bytes.len() as u64).is_multiple_of(BLOCK_BYTES)
        );
        if self.random.below(1000) < self.write_failures {
            self.write_partly(inode, offset, bytes);
            return Err(device_failed());
        }
        self.clock += 1;
        let clock = self.clock;
        let inode = self.inodes.get_mut(&inode).ok_or_else(device_failed)?;
        let first = offset as usize / SECTOR;
        for (index, content) in bytes.chunks(SECTOR).enumerate() {
            inode.put(first + index, content, clock);
            if is_durable {
                inode.make_durable(first + index, clock);
            }
        }
        Ok(())
    }
}
