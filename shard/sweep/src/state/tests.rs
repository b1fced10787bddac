use thalweg_uring::trace::{Call, Note};

use super::*;

const FILE: i32 = 5;

fn called(number: u64, call: Call) -> Note {
    Note::Called { number, call, is_linked: false }
}

fn write(number: u64, offset: u64, content: u8, sectors: usize) -> Note {
    let bytes = Bytes::from(vec![content; sectors * SECTOR]);
    called(number, Call::Write { file: FILE, offset, bytes, is_durable: false })
}

/// A file of four sectors of ones whose sync failed; then the second sector written and synced.
fn failed_then_rewritten() -> Replay {
    let mut replay = Replay::default();
    for note in [
        Note::Directory { file: 3 },
        called(0, Call::Open { name: "file".to_owned(), creates: true }),
        Note::Returned { number: 0, result: FILE },
        called(1, Call::Sync { file: 3 }),
        Note::Returned { number: 1, result: 0 },
        write(2, 0, 1, 4),
        Note::Returned { number: 2, result: 4 * SECTOR as i32 },
        called(3, Call::Sync { file: FILE }),
        Note::Returned { number: 3, result: -libc::EIO },
        write(4, SECTOR as u64, 2, 1),
        Note::Returned { number: 4, result: SECTOR as i32 },
        called(5, Call::Sync { file: FILE }),
        Note::Returned { number: 5, result: 0 },
    ] {
        replay.take(&note);
    }
    replay
}

/// What a failed sync covered may be there or not, but never in the place of newer safe bytes.
#[test]
fn a_failed_write_does_not_come_back_over_what_was_rewritten() {
    let replay = failed_then_rewritten();
    let mut random = Random(1);
    let mut seen = BTreeMap::new();
    for _ in 0..200 {
        let image = replay.random(&mut random);
        let file = &image["file"];
        assert_eq!(file[SECTOR..2 * SECTOR], [2; SECTOR], "the safe sector");
        for sector in [0, 2, 3] {
            if let Some(byte) = file.get(sector * SECTOR) {
                *seen.entry((sector, *byte)).or_insert(0) += 1;
            }
        }
    }
    for sector in [0, 2, 3] {
        assert!(seen.contains_key(&(sector, 1)), "the failed write may be there: {seen:?}");
    }
    assert!(seen.contains_key(&(0, 0)), "the failed write may be missing: {seen:?}");
}
