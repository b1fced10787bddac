//! Shows that the kill loop would find a loss: a disk that lies is planted under a right server.
//!
//! Between a kill and the next start the newest records of a journal are taken out, as by a device
//! that said it had synced them and had not. What is left is a journal that nothing is wrong with,
//! so only the clients' memory of what they were told can find it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thalweg_crash::run::{Ending, Options, RunError, run};
use thalweg_server::data_directory::DataDirectory;

/// Frames with operations that are taken out, more than can be under way at a kill: the older ones
/// of them were acknowledged.
const FRAMES: usize = 12;
/// Size of a block of a journal.
const BLOCK: usize = 4096;
/// Longest time until the plant must have been found.
const FOUND_MAX: Duration = Duration::from_secs(60);

/// A record of a journal file.
struct Record {
    /// Epoch and sequence: its place in the chain.
    place: (u64, u64),
    /// It holds operations.
    is_frame: bool,
    offset: usize,
    bytes: usize,
}

/// A number of a header.
fn number<const BYTES: usize>(block: &[u8], at: usize) -> u64 {
    block[at..at + BYTES].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn is_header(block: &[u8], magic: &[u8]) -> bool {
    block.starts_with(magic) && u64::from(crc32c::crc32c(&block[..124])) == number::<4>(block, 124)
}

/// The file's own records, newest first, with the id of the file.
fn records(path: &Path) -> Option<(u64, Vec<Record>)> {
    let content = fs::read(path).expect("a file of the journal");
    let blocks: Vec<&[u8]> = content.chunks_exact(BLOCK).collect();
    let first = blocks.first().filter(|block| is_header(block, b"THWF"))?;
    let file = number::<4>(first, 8);
    let mut records = Vec::new();
    for (index, block) in blocks.iter().enumerate().skip(1) {
        let is_own = is_header(block, b"THWR")
            && number::<4>(block, 8) == file
            && number::<4>(block, 80) == index as u64;
        if is_own {
            records.push(Record {
                place: (number::<8>(block, 24), number::<8>(block, 32)),
                is_frame: number::<2>(block, 6) == 0,
                offset: index * BLOCK,
                bytes: usize::try_from(number::<4>(block, 84)).expect("small") * BLOCK,
            });
        }
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.place));
    Some((file, records))
}

/// Overwrites the end of each shard's journal with zeros, within its newest file.
fn lose_the_newest_frames(data: &Path) {
    // The kernel may still be at work on what the killed server wrote; it keeps the lock then.
    let begin = Instant::now();
    while let Err(error) = DataDirectory::reopen(data) {
        assert!(begin.elapsed() < FOUND_MAX, "the directory of a dead server: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
    for directory in fs::read_dir(data).expect("a data directory").flatten() {
        if !directory.file_name().to_string_lossy().starts_with("journal-") {
            continue;
        }
        let files = fs::read_dir(directory.path()).expect("a journal").flatten();
        let files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
        let newest = files
            .iter()
            .filter_map(|path| Some((records(path)?, path)))
            .filter(|((_, records), _)| !records.is_empty())
            .max_by_key(|((file, _), _)| *file);
        let Some(((_, records), path)) = newest else { continue };
        let file = fs::OpenOptions::new().write(true).open(path).expect("it is ours");
        let mut frames = 0;
        for record in records.iter().take_while(|record| {
            frames += usize::from(record.is_frame);
            frames <= FRAMES
        }) {
            file.write_all_at(&vec![0; record.bytes], record.offset as u64).expect("it is ours");
        }
        file.sync_all().expect("it is ours");
    }
}

fn options(home: &Path) -> Options {
    let mut options = super::options(home, 3, 2);
    options.endings = vec![Ending::Kill];
    options
}

/// Shows that the loop reports a loss of what was acknowledged, as one and in time.
#[test]
fn a_disk_that_loses_what_it_said_to_be_synced_is_caught() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(home.path());
    options.at_rest = Some(lose_the_newest_frames);
    let begin = Instant::now();
    let outcome = run(options, |_, _| ());
    let Err(error) = outcome else { panic!("nothing was found") };
    println!("found after {:?}: {error:.300}", begin.elapsed());
    assert!(matches!(error, RunError::Violation(_)), "another failure: {error}");
    assert!(begin.elapsed() < FOUND_MAX, "found after {:?}", begin.elapsed());
    let kept = home.path().join("run/violation.txt");
    assert!(kept.is_file(), "the evidence is not kept");
}

/// Shows that the same loop without the plant finds nothing: looking at the journal between the
/// kill and the start is not what fails it.
#[test]
fn the_same_disk_without_the_lie_passes() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(home.path());
    options.at_rest = Some(|data| drop(DataDirectory::reopen(data)));
    super::run_to_verdict(home, options);
}
