//! What a disk holds: the durable state, and beside it everything a power cut may take away.
//!
//! A file is durable bytes plus pending sector versions plus a size that may not be durable yet; a
//! directory is durable entries plus a list of changes. Only a sync moves things from pending to
//! durable, and only what completed before it was queued. Positions in time are numbers that grow
//! with every completed operation.

use std::collections::BTreeMap;
use std::io;

use bytes::{Bytes, BytesMut};

use crate::rng::Rng;

/// Smallest unit that is written whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A file, whatever its name is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inode(pub(crate) u64);

/// Position in the order of completed operations of one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Completion(pub(crate) u64);

/// How much of what is pending a power cut keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// All of it.
    Everything,
    /// None of it.
    Nothing,
    /// For each sector any one of its states since the last sync.
    Chance,
}

/// One state of a sector since its last sync.
#[derive(Debug)]
struct Version {
    /// [`SECTOR_BYTES`] bytes.
    bytes: Bytes,
    written: Completion,
    /// A failed sync gave this sector up: no later sync makes it durable.
    is_given_up: bool,
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// When each durable sector was written.
    written: BTreeMap<u64, Completion>,
    /// Oldest first; never an empty list.
    pending: BTreeMap<u64, Vec<Version>>,
    size: u64,
    resized: Completion,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, Inode),
    Rename(String, String),
    Remove(String),
}

/// The files of one directory.
#[derive(Debug, Default)]
pub(crate) struct Image {
    files: BTreeMap<Inode, File>,
    entries: BTreeMap<String, Inode>,
    durable_entries: BTreeMap<String, Inode>,
    changes: Vec<(Completion, Change)>,
    inodes: u64,
    completions: u64,
}

impl File {
    fn write(
        &mut self,
        offset: u64,
        bytes: &Bytes,
        keep: &mut dyn FnMut() -> bool,
        at: Completion,
    ) {
        for (index, start) in (0..bytes.len()).step_by(SECTOR_BYTES).enumerate() {
            if keep() {
                let sector = offset / SECTOR_BYTES as u64 + index as u64;
                let bytes = bytes.slice(start..start + SECTOR_BYTES);
                let version = Version { bytes, written: at, is_given_up: false };
                self.pending.entry(sector).or_default().push(version);
            }
        }
        let end = offset + bytes.len() as u64;
        if end > self.size {
            self.size = end;
            self.resized = at;
        }
    }

    fn set_durable(&mut self, sector: u64, bytes: &[u8], at: Completion) {
        self.written.insert(sector, at);
        let start = sector as usize * SECTOR_BYTES;
        if self.durable.len() < start + SECTOR_BYTES {
            self.durable.resize(start + SECTOR_BYTES, 0);
        }
        self.durable[start..start + SECTOR_BYTES].copy_from_slice(bytes);
    }

    fn sync(&mut self, covers: Completion) {
        if self.resized <= covers {
            self.durable.resize(self.size as usize, 0);
        }
        let sectors: Vec<u64> = self.pending.keys().copied().collect();
        for sector in sectors {
            let versions = self.pending.get_mut(&sector).expect("the key was just listed");
            let covered =
                versions.iter().rposition(|state| state.written <= covers && !state.is_given_up);
            if let Some(index) = covered {
                let version = versions.drain(..=index).next_back().expect("index exists");
                if versions.is_empty() {
                    self.pending.remove(&sector);
                }
                self.set_durable(sector, &version.bytes, version.written);
            }
        }
    }

    fn power_cut(&mut self, survival: Survival, rng: &mut Rng) {
        let keeps_size = match survival {
            Survival::Everything => true,
            Survival::Nothing => false,
            Survival::Chance => rng.percent(50),
        };
        if keeps_size {
            self.durable.resize(self.size as usize, 0);
        }
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            let states = versions.len();
            let kept = match survival {
                Survival::Everything => states,
                Survival::Nothing => 0,
                Survival::Chance => rng.index(states + 1),
            };
            let is_inside = (sector as usize + 1) * SECTOR_BYTES <= self.durable.len();
            if kept > 0 && is_inside {
                let version = versions.swap_remove(kept - 1);
                self.set_durable(sector, &version.bytes, version.written);
            }
        }
        self.size = self.durable.len() as u64;
    }

    fn read(&self, offset: u64, length: usize) -> Option<BytesMut> {
        if offset + length as u64 > self.size {
            return None;
        }
        let mut bytes = thalweg_core::frame::aligned_memory(length);
        let from = (offset as usize).min(self.durable.len());
        let to = (offset as usize + length).min(self.durable.len());
        bytes.extend_from_slice(&self.durable[from..to]);
        bytes.resize(length, 0);
        let sectors = offset / SECTOR_BYTES as u64..(offset + length as u64) / SECTOR_BYTES as u64;
        for (sector, versions) in self.pending.range(sectors) {
            let newest = versions.last().expect("a list of versions is not empty");
            let start = (sector * SECTOR_BYTES as u64 - offset) as usize;
            bytes[start..start + SECTOR_BYTES].copy_from_slice(&newest.bytes);
        }
        Some(bytes)
    }
}

fn apply(entries: &mut BTreeMap<String, Inode>, change: &Change) {
    match change {
        Change::Link(name, inode) => {
            entries.insert(name.clone(), *inode);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = entries.remove(from) {
                entries.insert(to.clone(), inode);
            }
        }
        Change::Remove(name) => {
            entries.remove(name);
        }
    }
}

impl Image {
    /// The position of the operation that completed last.
    pub(crate) fn completed(&self) -> Completion {
        Completion(self.completions)
    }

    fn complete(&mut self) -> Completion {
        self.completions += 1;
        Completion(self.completions)
    }

    fn file(&mut self, inode: Inode) -> &mut File {
        self.files.get_mut(&inode).expect("an open file keeps its inode")
    }

    /// Names and sizes, sorted.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        self.entries.iter().map(|(name, inode)| (name.clone(), self.files[inode].size)).collect()
    }

    /// Finds or creates a file; creating is a change of the directory.
    pub(crate) fn open(&mut self, name: &str, create: bool) -> io::Result<(Inode, u64)> {
        if let Some(inode) = self.entries.get(name) {
            return Ok((*inode, self.files[inode].size));
        }
        if !create {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.inodes += 1;
        let inode = Inode(self.inodes);
        self.files.insert(inode, File::default());
        self.change(Change::Link(name.to_owned(), inode));
        Ok((inode, 0))
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.entries, &change);
        let at = self.complete();
        self.changes.push((at, change));
    }

    /// Renames, replacing the target.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if !self.entries.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Removes a name.
    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        if !self.entries.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    /// Sets a file's size.
    pub(crate) fn resize(&mut self, inode: Inode, bytes: u64) {
        let at = self.complete();
        let file = self.file(inode);
        file.size = bytes;
        file.resized = at;
    }

    /// Writes the sectors for which `keep` says so.
    pub(crate) fn write(
        &mut self,
        inode: Inode,
        offset: u64,
        bytes: &Bytes,
        keep: &mut dyn FnMut() -> bool,
    ) {
        let at = self.complete();
        self.file(inode).write(offset, bytes, keep, at);
    }

    /// Writes whole and makes these bytes durable, and nothing else.
    pub(crate) fn write_durable(&mut self, inode: Inode, offset: u64, bytes: &Bytes) {
        let at = self.complete();
        let file = self.file(inode);
        for (index, start) in (0..bytes.len()).step_by(SECTOR_BYTES).enumerate() {
            let sector = offset / SECTOR_BYTES as u64 + index as u64;
            file.pending.remove(&sector);
            file.set_durable(sector, &bytes[start..start + SECTOR_BYTES], at);
        }
        file.size = file.size.max(file.durable.len() as u64);
    }

    /// Makes durable what completed up to `covers`.
    pub(crate) fn sync(&mut self, inode: Inode, covers: Completion) {
        self.complete();
        self.file(inode).sync(covers);
    }

    /// A sync that failed: some sectors became durable, some stay as they are, some are given up.
    pub(crate) fn fail_sync(&mut self, inode: Inode, rng: &mut Rng) {
        let file = self.files.get_mut(&inode).expect("an open file keeps its inode");
        for versions in file.pending.values_mut() {
            let newest = versions.last_mut().expect("a list of versions is not empty");
            newest.is_given_up |= rng.percent(50);
        }
    }

    /// Makes directory changes up to `covers` durable.
    pub(crate) fn sync_directory(&mut self, covers: Completion) {
        self.complete();
        let durable = self.changes.partition_point(|(at, _)| *at <= covers);
        for (_, change) in self.changes.drain(..durable) {
            apply(&mut self.durable_entries, &change);
        }
    }

    /// Reads what the process would see; `None` past the end.
    pub(crate) fn read(&mut self, inode: Inode, offset: u64, length: usize) -> Option<BytesMut> {
        self.file(inode).read(offset, length)
    }

    /// Bytes of all files that somebody still names or may name again after a power cut.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// Size of one file.
    pub(crate) fn size(&self, inode: Inode) -> u64 {
        self.files.get(&inode).map_or(0, |file| file.size)
    }

    /// Drops files without a name. Open files without a name are not used by anybody here.
    pub(crate) fn collect_unnamed(&mut self, is_open: &dyn Fn(Inode) -> bool) {
        let linked: Vec<Inode> = self
            .changes
            .iter()
            .filter_map(|(_, change)| match change {
                Change::Link(_, inode) => Some(*inode),
                Change::Rename(..) | Change::Remove(_) => None,
            })
            .chain(self.entries.values().copied())
            .chain(self.durable_entries.values().copied())
            .collect();
        self.files.retain(|inode, _| linked.contains(inode) || is_open(*inode));
    }

    /// Whether a file is there, named or not.
    pub(crate) fn has(&self, inode: Inode) -> bool {
        self.files.contains_key(&inode)
    }

    /// Names that a power cut would leave, and their files.
    pub(crate) fn durable_names(&self) -> impl Iterator<Item = (&str, Inode)> {
        self.durable_entries.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    /// What a power cut would leave of a file.
    pub(crate) fn durable_bytes(&self, inode: Inode) -> &[u8] {
        self.files.get(&inode).map_or(&[], |file| &file.durable)
    }

    /// Whether part of a file is not durable as it is read.
    pub(crate) fn has_pending(&self, inode: Inode, at: usize, length: usize) -> bool {
        let sectors = (at / SECTOR_BYTES) as u64..((at + length) / SECTOR_BYTES) as u64;
        self.files.get(&inode).is_some_and(|file| file.pending.range(sectors).next().is_some())
    }

    /// Changes durable bytes behind everybody's back.
    pub(crate) fn patch(&mut self, inode: Inode, at: usize, bytes: &[u8]) {
        self.file(inode).durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Durable sectors that hold something and were written at least `age` operations ago.
    pub(crate) fn old_sectors(&self, age: u64) -> Vec<(Inode, u64)> {
        let before = Completion(self.completions.saturating_sub(age));
        let mut old: Vec<(Inode, u64)> = Vec::new();
        for (inode, file) in &self.files {
            old.extend(file.written.iter().filter_map(|(sector, written)| {
                let start = *sector as usize * SECTOR_BYTES;
                let bytes = file.durable.get(start..start + SECTOR_BYTES)?;
                let counts = *written < before && bytes.iter().any(|byte| *byte != 0);
                counts.then_some((*inode, *sector))
            }));
        }
        old
    }

    /// Takes away what was not durable, as far as `survival` says. What is left is durable.
    pub(crate) fn power_cut(&mut self, survival: Survival, rng: &mut Rng) {
        let kept = match survival {
            Survival::Everything => self.changes.len(),
            Survival::Nothing => 0,
            Survival::Chance => rng.index(self.changes.len() + 1),
        };
        for (_, change) in std::mem::take(&mut self.changes).iter().take(kept) {
            apply(&mut self.durable_entries, change);
        }
        self.entries = self.durable_entries.clone();
        for file in self.files.values_mut() {
            file.power_cut(survival, rng);
        }
        self.collect_unnamed(&|_| false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_sector(byte: u8) -> Bytes {
        Bytes::from(vec![byte; SECTOR_BYTES])
    }

    fn synced_file(image: &mut Image) -> Inode {
        let (inode, _) = image.open("a", true).expect("created");
        image.resize(inode, 4096);
        let covers = image.completed();
        image.sync(inode, covers);
        image.sync_directory(covers);
        inode
    }

    fn first_byte(image: &mut Image, inode: Inode) -> u8 {
        image.read(inode, 0, SECTOR_BYTES).expect("inside the file")[0]
    }

    /// A write is seen at once and gone after a power cut; with a sync between it stays.
    #[test]
    fn only_a_sync_makes_a_write_durable() {
        let (mut image, mut rng) = (Image::default(), Rng::new(1));
        let inode = synced_file(&mut image);
        image.write(inode, 0, &one_sector(7), &mut || true);
        assert_eq!(first_byte(&mut image, inode), 7);
        image.power_cut(Survival::Nothing, &mut rng);
        assert_eq!(first_byte(&mut image, inode), 0);
        image.write(inode, 0, &one_sector(8), &mut || true);
        let covers = image.completed();
        image.write(inode, 0, &one_sector(9), &mut || true);
        image.sync(inode, covers);
        assert_eq!(first_byte(&mut image, inode), 9);
        image.power_cut(Survival::Nothing, &mut rng);
        assert_eq!(first_byte(&mut image, inode), 8, "a sync covers only what completed before it");
    }

    /// After a failed sync some sector is given up for good, so that a second sync that reports
    /// success is a lie.
    #[test]
    fn a_failed_sync_gives_sectors_up() {
        let mut lost = false;
        for seed in 0..20 {
            let (mut image, mut rng) = (Image::default(), Rng::new(seed));
            let inode = synced_file(&mut image);
            image.write(inode, 0, &one_sector(7), &mut || true);
            image.fail_sync(inode, &mut rng);
            let covers = image.completed();
            image.sync(inode, covers);
            image.power_cut(Survival::Nothing, &mut rng);
            lost |= first_byte(&mut image, inode) == 0;
        }
        assert!(lost);
    }

    /// Names and sizes come back as they were at the last sync.
    #[test]
    fn names_and_sizes_are_volatile_until_synced() {
        let (mut image, mut rng) = (Image::default(), Rng::new(1));
        let inode = synced_file(&mut image);
        image.resize(inode, 8192);
        image.rename("a", "b").expect("is there");
        image.open("c", true).expect("created");
        image.power_cut(Survival::Nothing, &mut rng);
        assert_eq!(image.list(), [("a".to_owned(), 4096)]);
    }
}
