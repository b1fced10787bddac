//! What a disk can hold after a power cut: a trace of a real device is replayed call by call, and
//! from each moment states are drawn.
//!
//! The model is the strict one: a write is in no safe place before a sync that was begun after it
//! returned has succeeded, or it was a data-sync write itself; until then each of its sectors may
//! be on the disk or not. A call in flight has happened in any part. A name is safe when the
//! directory was synced after the change; else the changes have happened up to any one of them,
//! or, as no file system we know does, in any selection. A file's size is safe with its data.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use thalweg_journal::memory::Random;
use thalweg_uring::trace::{Call, Note};

use crate::run::Mark;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
/// So many pending writes are tried in every selection.
const EXHAUSTIVE_MAX: usize = 3;

/// Names and contents of files.
pub type Image = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
struct Write {
    call: u64,
    offset: usize,
    bytes: Bytes,
    has_returned: bool,
    /// It failed: no sync can be counted on to cover it.
    has_failed: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    safe: Vec<u8>,
    size: usize,
    pending: Vec<Write>,
}

#[derive(Clone, Debug)]
struct Change {
    call: u64,
    kind: ChangeKind,
    has_returned: bool,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug)]
enum Flight {
    Other(Call),
    /// Calls that returned before it began, and the one it is linked to.
    Sync {
        file: i32,
        covers: Vec<u64>,
        size: usize,
    },
    DirectorySync {
        covers: Vec<u64>,
    },
}

/// The disk at one moment of a trace.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    descriptors: BTreeMap<i32, usize>,
    directory: i32,
    flights: BTreeMap<u64, Flight>,
    /// Steps acknowledged by now.
    pub acked: usize,
    /// Steps sent by now.
    pub sent: usize,
    /// Writes, syncs and changes of names seen so far.
    pub operations: u64,
}

impl Replay {
    /// Takes the next note. `false` when it cannot have changed what a power cut leaves.
    pub fn take(&mut self, note: &Note) -> bool {
        match note {
            Note::Directory { file } => {
                self.directory = *file;
                self.descriptors.clear();
                false
            }
            Note::Mark(mark) => {
                match Mark::decode(*mark) {
                    Mark::Acked(steps) => self.acked = steps,
                    Mark::Sent(steps) => self.sent = steps,
                }
                true
            }
            Note::Called { number, call, is_linked } => self.called(*number, call, *is_linked),
            Note::Returned { number, result } => self.returned(*number, *result),
        }
    }

    fn called(&mut self, number: u64, call: &Call, is_linked: bool) -> bool {
        let is_reading = matches!(call, Call::Read { .. } | Call::Open { creates: false, .. });
        self.operations += u64::from(!is_reading);
        let flight = match call {
            Call::Write { file, offset, bytes, .. } => {
                let write = Write {
                    call: number,
                    offset: *offset as usize,
                    bytes: bytes.clone(),
                    has_returned: false,
                    has_failed: false,
                };
                self.inode(*file).pending.push(write);
                Flight::Other(call.clone())
            }
            Call::Sync { file } if *file == self.directory => {
                let done = self.changes.iter().filter(|change| change.has_returned);
                Flight::DirectorySync { covers: done.map(|change| change.call).collect() }
            }
            Call::Sync { file } => {
                let linked = number.checked_sub(1).filter(|_| is_linked);
                let inode = self.inode(*file);
                let done = inode.pending.iter().filter(|write| {
                    (write.has_returned && !write.has_failed) || Some(write.call) == linked
                });
                let covers = done.map(|write| write.call).collect();
                Flight::Sync { file: *file, covers, size: inode.size }
            }
            Call::Rename { from, to } => {
                self.change(number, ChangeKind::Rename(from.clone(), to.clone()));
                Flight::Other(call.clone())
            }
            Call::Remove { name } => {
                self.change(number, ChangeKind::Remove(name.clone()));
                Flight::Other(call.clone())
            }
            Call::Open { .. } | Call::Allocate { .. } | Call::Read { .. } => {
                Flight::Other(call.clone())
            }
        };
        self.flights.insert(number, flight);
        !is_reading
    }

    fn change(&mut self, call: u64, kind: ChangeKind) {
        self.changes.push(Change { call, kind, has_returned: false });
    }

    fn inode(&mut self, file: i32) -> &mut Inode {
        let inode = self.descriptors.get(&file).expect("a file is opened before it is used");
        &mut self.inodes[*inode]
    }

    fn returned(&mut self, number: u64, result: i32) -> bool {
        let flight = self.flights.remove(&number).expect("what returns was called");
        match flight {
            Flight::Sync { file, covers, size } if result >= 0 => {
                let inode = self.inode(file);
                inode.grow_safe(size);
                inode.make_safe(&covers);
                true
            }
            Flight::DirectorySync { covers } if result >= 0 => {
                let (safe, kept) = std::mem::take(&mut self.changes)
                    .into_iter()
                    .partition(|change| covers.contains(&change.call));
                self.changes = kept;
                let safe: Vec<Change> = safe;
                for change in safe {
                    apply(&mut self.safe_names, &change.kind);
                }
                true
            }
            Flight::Sync { file, covers, .. } if !is_not_done(-result) => {
                // The kernel may have dropped what it could not write: no later sync covers it.
                let inode = self.inode(file);
                let lost = inode.pending.iter_mut().filter(|write| covers.contains(&write.call));
                lost.for_each(|write| write.has_failed = true);
                false
            }
            Flight::Sync { .. } | Flight::DirectorySync { .. } => false,
            Flight::Other(call) => self.call_returned(number, call, result),
        }
    }

    fn call_returned(&mut self, number: u64, call: Call, result: i32) -> bool {
        match call {
            Call::Open { name, creates } => {
                if result < 0 {
                    return false;
                }
                let known = self.names.get(&name).copied();
                let inode = known.unwrap_or_else(|| {
                    self.inodes.push(Inode::default());
                    self.inodes.len() - 1
                });
                self.descriptors.insert(result, inode);
                if known.is_none() {
                    assert!(creates, "{name} is opened and was never made");
                    self.change(number, ChangeKind::Create(name, inode));
                    self.finish_change(number);
                }
                known.is_none()
            }
            Call::Allocate { file, bytes } if result >= 0 => {
                let inode = self.inode(file);
                inode.size = inode.size.max(bytes as usize);
                true
            }
            Call::Rename { .. } | Call::Remove { .. } if result >= 0 => {
                self.finish_change(number);
                true
            }
            Call::Rename { .. } | Call::Remove { .. } => {
                self.changes.retain(|change| change.call != number);
                true
            }
            Call::Write { file, is_durable, .. } => {
                let written = usize::try_from(result).ok();
                let inode = self.inode(file);
                let write = inode.pending.iter_mut().find(|write| write.call == number);
                let write = write.expect("a write is pending until it is safe");
                write.has_returned = true;
                write.has_failed = written.is_none();
                if let Some(count) = written {
                    write.bytes.truncate(count / SECTOR * SECTOR);
                    inode.size = inode.size.max(inode.end());
                    if is_durable {
                        inode.grow_safe(inode.size);
                        inode.make_safe(&[number]);
                    }
                }
                true
            }
            _ => false,
        }
    }

    fn finish_change(&mut self, number: u64) {
        let change = self.changes.iter_mut().find(|change| change.call == number);
        let change = change.expect("a change is listed until it is safe");
        change.has_returned = true;
        apply(&mut self.names, &change.kind);
    }

    /// Number of changes of names that are not safe, and of writes.
    pub fn pending(&self) -> (usize, usize) {
        let writes = self.inodes.iter().map(|inode| inode.pending.len()).sum();
        (self.changes.len(), writes)
    }

    /// States in which whole calls have happened or not, all of them when there are few.
    pub fn exhaustive(&self) -> Vec<Image> {
        let (changes, writes) = self.pending();
        if writes > EXHAUSTIVE_MAX {
            return Vec::new();
        }
        let mut images = Vec::new();
        for kept_changes in 0..=changes {
            let names = self.names_after(|index| index < kept_changes);
            for selection in 0..1_u32 << writes {
                let mut number = 0;
                images.push(self.image(
                    &names,
                    |_, _, _| {
                        number += 1;
                        selection >> (number - 1) & 1 == 1
                    },
                    Grain::Write,
                    |_| selection % 2 == 1,
                ));
            }
        }
        images
    }

    /// One state drawn at random.
    pub fn random(&self, random: &mut Random) -> Image {
        let changes = self.changes.len() as u64;
        let names = if random.one_in(4) {
            let kept: Vec<bool> = (0..changes).map(|_| random.one_in(2)).collect();
            self.names_after(|index| kept[index])
        } else {
            let kept = random.below(changes + 1) as usize;
            self.names_after(|index| index < kept)
        };
        let grain = match random.below(4) {
            0 => Grain::Write,
            1 => Grain::Block,
            _ => Grain::Sector,
        };
        // How much survives differs from state to state: nearly nothing, half, nearly all.
        let eighths = 1 + random.below(7);
        let mut sizes = Random(random.number());
        let mut parts = Random(random.number());
        self.image(&names, |_, _, _| parts.below(8) < eighths, grain, |_| sizes.one_in(2))
    }

    fn names_after(&self, is_kept: impl Fn(usize) -> bool) -> BTreeMap<String, usize> {
        let mut names = self.safe_names.clone();
        for (index, change) in self.changes.iter().enumerate() {
            if is_kept(index) {
                apply(&mut names, &change.kind);
            }
        }
        names
    }

    fn image(
        &self,
        names: &BTreeMap<String, usize>,
        mut is_kept: impl FnMut(usize, usize, usize) -> bool,
        grain: Grain,
        mut is_sized: impl FnMut(usize) -> bool,
    ) -> Image {
        let mut image = Image::new();
        for (name, &index) in names {
            let inode = &self.inodes[index];
            let mut bytes = inode.safe.clone();
            if inode.size > bytes.len() && is_sized(index) {
                bytes.resize(inode.size, 0);
            }
            for (number, write) in inode.pending.iter().enumerate() {
                for (part, content) in
                    write.bytes.chunks(grain.bytes(write.bytes.len())).enumerate()
                {
                    let at = write.offset + part * grain.bytes(write.bytes.len());
                    if is_kept(index, number, part) && at + content.len() <= bytes.len() {
                        bytes[at..at + content.len()].copy_from_slice(content);
                    }
                }
            }
            image.insert(name.clone(), bytes);
        }
        image
    }
}

/// Whether an error says that the call was not carried out.
fn is_not_done(code: i32) -> bool {
    matches!(code, libc::ECANCELED | libc::EAGAIN | libc::EINTR)
}

/// In what parts a write happens.
#[derive(Clone, Copy)]
enum Grain {
    Write,
    Block,
    Sector,
}

impl Grain {
    fn bytes(self, whole: usize) -> usize {
        match self {
            Self::Write => whole.max(1),
            Self::Block => BLOCK,
            Self::Sector => SECTOR,
        }
    }
}

impl Inode {
    fn end(&self) -> usize {
        self.pending.iter().map(|write| write.offset + write.bytes.len()).max().unwrap_or(0)
    }

    fn grow_safe(&mut self, size: usize) {
        if self.safe.len() < size {
            self.safe.resize(size, 0);
        }
    }

    /// These writes are safe. What returned before they were begun is no state any more where they
    /// overwrote it, failed or not: the newer bytes are behind it in every cache.
    fn make_safe(&mut self, calls: &[u64]) {
        for call in calls {
            let (safe, others) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition::<Vec<Write>, _>(|write| write.call == *call);
            self.pending = others;
            for write in safe {
                let range = write.offset..write.offset + write.bytes.len();
                self.grow_safe(range.end);
                self.safe[range.clone()].copy_from_slice(&write.bytes);
                let left_of = |other: Write| {
                    let is_earlier = other.call < write.call && other.has_returned;
                    if is_earlier { other.without(&range) } else { vec![other] }
                };
                let pending = std::mem::take(&mut self.pending);
                self.pending = pending.into_iter().flat_map(left_of).collect();
            }
        }
    }
}

impl Write {
    /// The parts outside a range.
    fn without(self, range: &Range<usize>) -> Vec<Self> {
        let end = self.offset + self.bytes.len();
        let mut parts = Vec::new();
        for part in [self.offset..end.min(range.start), self.offset.max(range.end)..end] {
            if part.start < part.end {
                let bytes = self.bytes.slice(part.start - self.offset..part.end - self.offset);
                parts.push(Self { offset: part.start, bytes, ..self.clone() });
            }
        }
        parts
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &ChangeKind) {
    match change {
        ChangeKind::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        ChangeKind::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        ChangeKind::Remove(name) => {
            names.remove(name);
        }
    }
}

/// Tells images apart.
pub fn fingerprint(image: &Image) -> u64 {
    let mut low = 0;
    let mut high = 0x9E37;
    for (name, bytes) in image {
        low = crc32c::crc32c_append(crc32c::crc32c_append(low, name.as_bytes()), bytes);
        high = crc32c::crc32c_append(high ^ bytes.len() as u32, &low.to_le_bytes());
    }
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests;
