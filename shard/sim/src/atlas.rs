//! Damage at rest, aimed: which durable bytes may go wrong so that the promise still says what must
//! hold.
//!
//! Within the promise one record is damaged that another, later record tells to be durable, and
//! whose successor is whole and lies behind it in the same file (when the last record of a file is
//! lost and is the one that replay begins with, nobody knows how many were there, and all
//! containers of the shard are refused): a bit flips, its sectors turn to zeros (a write that was
//! reported and never landed), or another record's blocks lie in its place (a write that went
//! elsewhere, which is then missing where it belongs). Containers without operations in these
//! records must be served as if nothing had happened, the others may be refused. Beyond the promise
//! anything durable and old is damaged, and only "right or refused" is asked.

use std::collections::BTreeMap;

use thalweg_core::frame::ContainerMask;

use crate::image::{Image, Inode, SECTOR_BYTES};
use crate::rng::Rng;

const BLOCK: usize = thalweg_core::position::BLOCK_BYTES as usize;
/// Operations after which a record is certainly followed by one that tells it durable.
const OLD_AGE: u64 = 150;
/// Bytes of a record's header.
const HEADER: usize = thalweg_core::frame::FRAME_HEADER_BYTES;

/// How much may be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What the promise says something about.
    Promise,
    /// Whatever was acknowledged long ago.
    Anything,
}

/// A record on the disk. Fields: `docs/formats.md`, "Journal".
#[derive(Clone, Copy, Debug)]
struct Record {
    inode: Inode,
    at: usize,
    bytes: usize,
    epoch: u64,
    sequence: u64,
    durable_upto: u64,
    containers: ContainerMask,
    is_frame: bool,
}

/// Damages something; gives whose it was, `None` when there is nothing to damage.
pub(crate) fn damage(image: &mut Image, scope: Scope, rng: &mut Rng) -> Option<ContainerMask> {
    match scope {
        Scope::Promise => damage_record(image, rng),
        Scope::Anything => damage_anything(image, rng).then_some(ContainerMask(u64::MAX)),
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn record_at(inode: Inode, file: u64, at: usize, bytes: &[u8]) -> Option<Record> {
    let header = bytes.get(at..at + HEADER)?;
    let length = number(header, 84, 4) as usize * BLOCK;
    let is_here = header[..4] == *b"THWR"
        && number(header, 8, 4) == file
        && number(header, 80, 4) as usize * BLOCK == at
        && length > 0
        && at + length <= bytes.len();
    is_here.then(|| Record {
        inode,
        at,
        bytes: length,
        epoch: number(header, 24, 8),
        sequence: number(header, 32, 8),
        durable_upto: number(header, 48, 8),
        containers: ContainerMask(number(header, 64, 8)),
        is_frame: number(header, 6, 2) == 0,
    })
}

/// The newest record of each sequence.
fn chain(image: &Image) -> BTreeMap<u64, Record> {
    let mut chain: BTreeMap<u64, Record> = BTreeMap::new();
    for (name, inode) in image.durable_names() {
        let Some(file) = name.strip_prefix("journal-") else { continue };
        let Ok(file) = u64::from_str_radix(file, 16) else { continue };
        let bytes = image.durable_bytes(inode);
        let mut at = BLOCK;
        while at < bytes.len() {
            let Some(record) = record_at(inode, file, at, bytes) else {
                at += BLOCK;
                continue;
            };
            at += record.bytes;
            let known = chain.entry(record.sequence).or_insert(record);
            if known.epoch < record.epoch {
                *known = record;
            }
        }
    }
    chain
}

fn damage_record(image: &mut Image, rng: &mut Rng) -> Option<ContainerMask> {
    let chain = chain(image);
    let told = chain.values().map(|record| record.durable_upto).max()?;
    let is_followed = |record: &Record| {
        let next = chain.get(&(record.sequence + 1));
        let is_next = |next: &Record| {
            next.inode == record.inode
                && next.at == record.at + record.bytes
                && next.epoch >= record.epoch
        };
        record.sequence < told && next.is_some_and(is_next)
    };
    let candidates: Vec<Record> = chain
        .values()
        .filter(|record| record.is_frame && is_followed(record))
        .filter(|record| !image.has_pending(record.inode, record.at, record.bytes))
        .copied()
        .collect();
    if candidates.is_empty() {
        return None;
    }
    let record = candidates[rng.index(candidates.len())];
    let other = candidates[rng.index(candidates.len())];
    match rng.below(4) {
        0 => flip(image, &record, HEADER, rng),
        1 => flip(image, &record, 0, rng),
        2 if other.sequence.abs_diff(record.sequence) > 1 => {
            let length = record.bytes.min(other.bytes);
            let bytes = image.durable_bytes(other.inode)[other.at..other.at + length].to_vec();
            image.patch(record.inode, record.at, &bytes);
            image.patch(other.inode, other.at, &vec![0; other.bytes]);
            return Some(ContainerMask(record.containers.0 | other.containers.0));
        }
        _ => image.patch(record.inode, record.at, &vec![0; record.bytes]),
    }
    Some(record.containers)
}

fn flip(image: &mut Image, record: &Record, from: usize, rng: &mut Rng) {
    let to = if from == 0 { HEADER } else { record.bytes };
    let at = record.at + from + rng.index(to - from);
    let byte = image.durable_bytes(record.inode)[at];
    image.patch(record.inode, at, &[byte ^ (1 << rng.index(8))]);
}

fn damage_anything(image: &mut Image, rng: &mut Rng) -> bool {
    let old = image.old_sectors(OLD_AGE);
    if old.is_empty() {
        return false;
    }
    let (inode, sector) = old[rng.index(old.len())];
    let at = sector as usize * SECTOR_BYTES;
    match rng.below(4) {
        0 | 1 => {
            let at = at + rng.index(SECTOR_BYTES);
            let byte = image.durable_bytes(inode)[at];
            image.patch(inode, at, &[byte ^ (1 << rng.index(8))]);
        }
        2 => {
            let start = at / BLOCK * BLOCK;
            let length = BLOCK.min(image.durable_bytes(inode).len() - start);
            image.patch(inode, start, &vec![0; length]);
        }
        _ => {
            let (from, other) = old[rng.index(old.len())];
            let from_at = other as usize * SECTOR_BYTES / BLOCK * BLOCK;
            let source = image.durable_bytes(from);
            let bytes = source[from_at..(from_at + BLOCK).min(source.len())].to_vec();
            let start = at / BLOCK * BLOCK;
            let length = bytes.len().min(image.durable_bytes(inode).len() - start);
            image.patch(inode, start, &bytes[..length]);
        }
    }
    true
}
