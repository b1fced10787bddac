use super::*;

const LENGTH: usize = 4 * 4096;

fn durable() -> Write {
    let file = Rc::new(OwnedFd::from(File::open("/dev/null").expect("a file")));
    let rest = Bytes::from(vec![1; LENGTH]);
    let round = Round { outstanding: 2, ..Round::default() };
    Write { file, offset: 8192, rest, kind: WriteKind::ThenSync, fruitless: 0, round }
}

fn outcome(result: Result<usize, i32>) -> io::Result<Outcome> {
    result.map(Outcome::Count).map_err(io::Error::from_raw_os_error)
}

/// The completions of a linked pair, in the order given, and what follows from the second.
fn pair(write: &mut Write, write_first: bool, of_write: Result<usize, i32>, of_sync: i32) -> Step {
    let of_sync = if of_sync == 0 { Ok(0) } else { Err(of_sync) };
    let file = write.file.clone();
    let written = Completion {
        tag: 0,
        outcome: outcome(of_write),
        operation: Some(Operation::Write {
            file: file.clone(),
            offset: 0,
            bytes: Bytes::new(),
            data_sync: false,
        }),
        has_more_bytes: false,
    };
    let synced = Completion {
        tag: 0,
        outcome: outcome(of_sync),
        operation: Some(Operation::Sync { file, kind: SyncKind::Data }),
        has_more_bytes: false,
    };
    let (first, second) = if write_first { (written, synced) } else { (synced, written) };
    assert!(matches!(write.completed(first, 0), Step::Wait), "one half decides nothing");
    write.completed(second, 0)
}

/// A durable write is done only when all was written and the sync behind it succeeded, in whichever
/// order the two are told.
#[test]
fn done_means_written_in_full_and_then_synced() {
    for write_first in [true, false] {
        let step = pair(&mut durable(), write_first, Ok(LENGTH), 0);
        assert!(matches!(step, Step::Finished(Ok(DeviceOutcome::Done))));
    }
}

/// A short write goes on at the last whole block, and the next sync covers it all.
#[test]
fn a_short_write_goes_on_at_a_whole_block() {
    for count in [4096, 4097, 5000, 8191] {
        let mut write = durable();
        let step = pair(&mut write, true, Ok(count), libc::ECANCELED);
        assert!(matches!(step, Step::WriteMore));
        assert_eq!((write.offset, write.rest.len()), (8192 + 4096, LENGTH - 4096));
    }
    // Also when a sync ran although its link was broken: it did not cover the rest.
    let step = pair(&mut durable(), true, Ok(4096), 0);
    assert!(matches!(step, Step::WriteMore));
}

/// A write that did not happen is written again; one that makes no progress fails in the end.
#[test]
fn a_write_that_did_not_happen_is_repeated_within_bounds() {
    for code in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
        let mut write = durable();
        for _ in 0..FRUITLESS_MAX {
            let step = pair(&mut write, true, Err(code), libc::ECANCELED);
            assert!(matches!(step, Step::WriteMore));
            write.round.outstanding = 2;
        }
        let step = pair(&mut write, true, Err(code), libc::ECANCELED);
        assert!(matches!(step, Step::Finished(Err(_))));
    }
    let step = pair(&mut durable(), true, Ok(0), libc::ECANCELED);
    assert!(matches!(step, Step::Finished(Err(error)) if error.kind() == io::ErrorKind::WriteZero));
}

/// Each failure is the operation's failure: of the write, of the sync, of a sync beside a short
/// write. A failed sync is never tried again.
#[test]
fn failures_are_final() {
    let cases = [
        (Err(libc::EIO), libc::ECANCELED),
        (Err(libc::ENOSPC), libc::ECANCELED),
        (Ok(LENGTH), libc::EIO),
        (Ok(LENGTH), libc::ENOSPC),
        (Ok(4096), libc::EIO),
    ];
    for (of_write, of_sync) in cases {
        for write_first in [true, false] {
            let step = pair(&mut durable(), write_first, of_write, of_sync);
            assert!(matches!(step, Step::Finished(Err(_))), "{of_write:?} {of_sync}");
        }
    }
}

/// A sync that was not carried out, or that may have run beside its write, is asked for once more,
/// alone; only its success counts.
#[test]
fn a_sync_that_proves_nothing_is_done_alone() {
    for code in [0, libc::ECANCELED, libc::EAGAIN, libc::EINTR] {
        let partial_submissions = u64::from(code == 0);
        let mut write = durable();
        write.round.write = Some(Ok(LENGTH));
        let error = io::Error::from_raw_os_error(code);
        write.round.sync = Some(if code == 0 { Ok(()) } else { Err(error) });
        let step = write.round_ended(partial_submissions);
        assert!(matches!(step, Step::SyncAlone(_)));
        assert_eq!(write.round.outstanding, 1);
        write.round.sync = Some(Ok(()));
        let step = write.round_ended(partial_submissions);
        assert!(matches!(step, Step::Finished(Ok(DeviceOutcome::Done))));
    }
}

fn read_completion(held: usize, result: Result<usize, i32>) -> Completion {
    // The ring has put what was read behind what the memory held.
    let mut memory = aligned_memory(LENGTH);
    memory.resize(held + result.unwrap_or(0), 0);
    let file = Rc::new(OwnedFd::from(File::open("/dev/null").expect("a file")));
    let operation = Operation::Read { file, offset: 0, memory, length: LENGTH };
    let outcome = outcome(result);
    Completion { tag: 0, outcome, operation: Some(operation), has_more_bytes: false }
}

/// Reads go on until all is there, from whole blocks; an end of the file before that is an error,
/// and so is a device that never gets further.
#[test]
fn reads_go_on_until_whole() {
    let file = Rc::new(OwnedFd::from(File::open("/dev/null").expect("a file")));
    let mut read = Read { file, offset: 0, length: LENGTH, fruitless: 0 };
    for count in [4096, 5000] {
        let step = read.completed(read_completion(4096, Ok(count)));
        assert!(matches!(step, Step::ReadMore(memory) if memory.len() == 8192));
    }
    let step = read.completed(read_completion(8192, Ok(8192)));
    assert!(matches!(step, Step::Finished(Ok(DeviceOutcome::Read(memory)))
        if memory.len() == LENGTH));
    for count in [0, 100] {
        let step = read.completed(read_completion(4096, Ok(count)));
        assert!(matches!(step, Step::Finished(Err(error))
            if error.kind() == io::ErrorKind::UnexpectedEof));
    }
    for _ in 0..FRUITLESS_MAX {
        let step = read.completed(read_completion(0, Err(libc::EINTR)));
        assert!(matches!(step, Step::ReadMore(_)));
    }
    let step = read.completed(read_completion(0, Err(libc::EINTR)));
    assert!(matches!(step, Step::Finished(Err(_))));
}
