//! Journal files, damaged and forged, into recovery.
//!
//! Damage is what a disk may do: bytes changed, blocks zeroed, stale or elsewhere, files cut,
//! swapped, gone. Whatever it was, a frame that recovery gives out is one that was written, at its
//! place, byte for byte; and a record that an untouched later one vouches for is given out or
//! reported, never left out silently. Forgery also makes the checksums right: then recovery must
//! only end, and not take memory or time beyond the files' size.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use thalweg_core::env::journal::{Journal as _, JournalEvent, Recovered};
use thalweg_core::frame::{ContainerMask, FRAME_HEADER_BYTES, SealedFrame, aligned_memory};
use thalweg_core::id::{ContainerId, ShardId};
use thalweg_core::position::{BLOCK_BYTES, FrameNumber, JournalAddress};
use thalweg_core::time::Instant;
use thalweg_journal::{Config, Journal};

use crate::Input;
use crate::image::{Files, Image};

const BLOCK: usize = BLOCK_BYTES as usize;
const CHECKSUM_AT: usize = 124;
const BLOCKS_AT: usize = 84;
const PAYLOAD_CHECKSUM_AT: usize = 92;
const FRAMES: u64 = 10;

/// A journal as it was written.
struct Base {
    files: Files,
    frames: BTreeMap<JournalAddress, (FrameNumber, Bytes)>,
}

fn config() -> Config {
    Config {
        shard: ShardId(0),
        directory: 0xD1CE,
        file_bytes: 64 << 10,
        journal_bytes_max: 16 * (64 << 10),
        frames_in_flight_max: 2,
        files_kept: 0,
        prepare_write_bytes: 64 << 10,
        recovery_read_bytes: 32 << 10,
        recovery_reads: 2,
        ..Config::default()
    }
}

/// Frames over a file and into a second, written by the journal itself.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let image = Image::new(Files::new());
        let mut journal = Journal::new(image, config()).expect("settings are legal");
        journal.recover(&mut |_| panic!("nothing was written")).expect("an empty directory opens");
        let mut frames = BTreeMap::new();
        let mut events = Vec::new();
        for number in 1..=FRAMES {
            let frame = frame(FrameNumber(number));
            let now = Instant(number * 1_000_000);
            while !journal.can_submit(frame.bytes.len() as u64) {
                journal.poll(now, &mut events);
            }
            let oldest = frames.keys().next().copied();
            let (address, bytes) = journal.submit(frame, oldest, now);
            frames.insert(address, (FrameNumber(number), bytes));
            while journal.frames_in_flight() > 0 {
                journal.poll(now, &mut events);
            }
        }
        let is_failure = |event: &JournalEvent| matches!(event, JournalEvent::Failed { .. });
        assert!(!events.iter().any(is_failure), "{events:?}");
        Base { files: journal.device_mut().files().clone(), frames }
    })
}

fn frame(number: FrameNumber) -> SealedFrame {
    let blocks = 1 + number.0 as usize % 4;
    let operation_bytes = blocks * BLOCK - FRAME_HEADER_BYTES - 100;
    let mut bytes = aligned_memory(blocks * BLOCK);
    bytes.resize(FRAME_HEADER_BYTES, 0);
    for at in 0..operation_bytes {
        bytes.extend_from_slice(&[(at as u64 * 31 + number.0) as u8 | 1]);
    }
    bytes.resize(blocks * BLOCK, 0);
    let mut containers = ContainerMask::default();
    containers.insert(ContainerId(number.0 as u16 % 3));
    let operation_bytes = operation_bytes as u32;
    SealedFrame { number, bytes, operation_bytes, containers }
}

/// One edit of every kind, here and there.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let edits =
        (0..KINDS).flat_map(|kind| (0..3).map(move |file| vec![kind, file, 3, 200, 1, 9, 7]));
    edits.chain([Vec::new()]).collect()
}

const KINDS: u8 = 12;

/// Applies the edits of the input to the files, then recovers twice.
pub(crate) fn recover(input: &[u8]) {
    let base = base();
    let mut files = base.files.clone();
    let mut is_forged = false;
    let mut input = Input(input);
    for _ in 0..16 {
        if input.is_empty() || files.is_empty() {
            break;
        }
        is_forged |= edit(&mut files, &mut input);
    }
    let vouched = if is_forged { 0 } else { vouched(base, &files) };
    let mut journal = Journal::new(Image::new(files), config()).expect("settings are legal");
    let first = open(&mut journal, base, is_forged);
    let Some(first) = first else { return };
    if !first.is_damaged {
        let whole = first.frames.len() as u64;
        assert!(whole >= vouched, "{whole} frames, and {vouched} were known durable");
    }
    // What was cut stays cut, and what was found is found again.
    let files = journal.device_mut().files().clone();
    let mut again = Journal::new(Image::new(files), config()).expect("settings are legal");
    let second = open(&mut again, base, is_forged);
    if !is_forged && !first.is_damaged {
        let second = second.expect("what opened once opens again");
        assert_eq!(second.frames, first.frames);
    }
}

struct Found {
    frames: Vec<FrameNumber>,
    is_damaged: bool,
}

fn open(journal: &mut Journal<Image>, base: &Base, is_forged: bool) -> Option<Found> {
    let mut found = Found { frames: Vec::new(), is_damaged: false };
    let opened = journal.recover(&mut |recovered| match recovered {
        Recovered::Frame { address, number, bytes } => {
            if !is_forged {
                let (written, content) = &base.frames[&address];
                assert_eq!((number, &bytes), (*written, content), "a frame is changed");
            }
            found.frames.push(number);
        }
        Recovered::Damaged { .. } => found.is_damaged = true,
    });
    opened.is_ok().then_some(found)
}

/// Number of frames that must be found or reported: those known durable to a record that stands
/// untouched in a file whose header is untouched.
fn vouched(base: &Base, files: &Files) -> u64 {
    let mut vouched = 0;
    for (name, content) in &base.files {
        let Some(now) = files.get(name).filter(|now| now.get(..BLOCK) == content.get(..BLOCK))
        else {
            continue;
        };
        let is_untouched = Arc::ptr_eq(now, content);
        for (address, (number, bytes)) in &base.frames {
            let at = address.file_offset() as usize;
            let is_here = name.ends_with(&format!("{:08x}", address.file().0));
            let is_same = || now.get(at..at + bytes.len()) == Some(bytes.as_ref());
            if is_here && (is_untouched || is_same()) {
                // Each frame was composed after all before it were durable.
                vouched = vouched.max(number.0 - 1);
            }
        }
    }
    vouched
}

/// One edit; says whether it was forgery.
fn edit(files: &mut Files, input: &mut Input<'_>) -> bool {
    let kind = input.byte() % KINDS;
    let name = |files: &Files, number: u8| {
        let at = usize::from(number) % files.len();
        files.keys().nth(at).expect("it is below the number of files").clone()
    };
    let chosen = name(files, input.byte());
    let block = usize::from(input.byte());
    let offset = usize::from(input.short());
    let value = input.byte();
    let other = usize::from(input.byte());
    let content = Arc::make_mut(files.get_mut(&chosen).expect("it was chosen among them"));
    if content.is_empty() {
        return false;
    }
    let blocks = content.len() / BLOCK;
    let start = block % blocks.max(1) * BLOCK;
    let at = (start + offset % BLOCK).min(content.len() - 1);
    match kind {
        0 => content[at] ^= 1 << (value % 8),
        1 => content[at] = value,
        2 => content[start..].iter_mut().take(BLOCK).for_each(|byte| *byte = 0),
        3 => {
            // A write that went elsewhere.
            let from = other % blocks.max(1) * BLOCK;
            if from + BLOCK <= content.len() && start + BLOCK <= content.len() {
                content.copy_within(from..from + BLOCK, start);
            }
        }
        4 => content.truncate(start),
        5 => drop(files.remove(&chosen)),
        6 => {
            // Two files under each other's name.
            let with = name(files, value);
            let (left, right) = (files[&chosen].clone(), files[&with].clone());
            files.insert(chosen, right);
            files.insert(with, left);
        }
        7 => {
            let copy = Arc::new(content.clone());
            files.insert(format!("journal-{value:08x}"), copy);
        }
        8 => content[at & !511..].iter_mut().take(512).for_each(|byte| *byte = value),
        9 | 10 => {
            forge_header(content, start, offset, value);
            return true;
        }
        _ => {
            content[at] = value;
            forge_payload(content, start);
            return true;
        }
    }
    false
}

/// Changes a byte of the header in this block and makes its checksum right.
fn forge_header(content: &mut [u8], start: usize, offset: usize, value: u8) {
    let Some(header) = content.get_mut(start..start + FRAME_HEADER_BYTES) else { return };
    header[offset % CHECKSUM_AT] = value;
    let checksum = crc32c::crc32c(&header[..CHECKSUM_AT]);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
}

/// Makes both checksums of the record in this block right, if it looks like one.
fn forge_payload(content: &mut [u8], start: usize) {
    let Some(record) = content.get_mut(start..) else { return };
    if record.len() < BLOCK {
        return;
    }
    let blocks = record[BLOCKS_AT..BLOCKS_AT + 4].try_into().expect("four bytes");
    let end = (u32::from_le_bytes(blocks) as usize).saturating_mul(BLOCK);
    let Some(payload) = record.get(FRAME_HEADER_BYTES..end) else { return };
    let checksum = crc32c::crc32c(payload);
    record[PAYLOAD_CHECKSUM_AT..PAYLOAD_CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    let header = crc32c::crc32c(&record[..CHECKSUM_AT]);
    record[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&header.to_le_bytes());
}
