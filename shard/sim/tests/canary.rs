//! Planted bugs are caught, each within few seeds: the oracle and the faults are worth something.
#![cfg(feature = "canary")]

use thalweg_sim::{Canary, Run, run};

/// Seeds within which each planted bug must show.
const SEEDS: u64 = 400;

/// Begins at a seed that was once seen to catch it, so that the test is short; where worlds have
/// changed since, it takes a little longer. The world that shows the bug must hold without it.
fn is_caught(canary: Canary, first: u64) {
    let with_bug = Run { canary: Some(canary), ..Run::default() };
    let mut seeds = first..first + SEEDS;
    let caught = seeds.find(|seed| run(*seed, &with_bug).violation.is_some());
    let caught = caught.unwrap_or_else(|| panic!("{canary:?} was not noticed in {SEEDS} seeds"));
    let without_bug = Run { is_control: true, ..with_bug };
    let violation = run(caught, &without_bug).violation;
    assert_eq!(violation, None, "seed {caught} fails without {canary:?} too");
}

/// Acknowledging what is written and not synced loses it in a power cut.
#[test]
fn ack_before_sync_is_caught() {
    is_caught(Canary::AckBeforeSync, 0);
}

/// A sync that does not wait for its write covers nothing.
#[test]
fn a_sync_beside_its_write_is_caught() {
    is_caught(Canary::SyncBesideWrites, 2);
}

/// A file whose name is not synced is gone after a power cut, with what was acknowledged in it.
#[test]
fn an_unsynced_directory_is_caught() {
    is_caught(Canary::DirectoryNotSynced, 3);
}

/// Taking damage for the end of the journal loses what was acknowledged.
#[test]
fn a_cut_at_the_first_bad_record_is_caught() {
    is_caught(Canary::CutAcknowledgedTail, 132);
}

/// Torn frames whose checksum nobody looks at become data.
#[test]
fn skipped_payload_checksums_are_caught() {
    is_caught(Canary::SkipPayloadChecksum, 4);
}

/// Records of an epoch that was cut become data when nobody looks at epochs.
#[test]
fn ignored_epochs_are_caught() {
    is_caught(Canary::NoEpochInRecords, 23);
}

/// Without a record of the new epoch after a cut, what was cut comes back.
#[test]
fn revived_stale_bytes_are_caught() {
    is_caught(Canary::StaleBytesRevived, 466);
}

/// A writer that is set up anew may not lose its event number.
#[test]
fn deduplication_by_connection_is_caught() {
    is_caught(Canary::DedupeByConnection, 0);
}

/// Event numbers that a restart forgets let a resend in twice.
#[test]
fn event_numbers_forgotten_over_a_restart_are_caught() {
    is_caught(Canary::ForgetEventNumberOverRestart, 0);
}

/// A short write that counts as a whole one loses the rest.
#[test]
fn ignored_short_writes_are_caught() {
    is_caught(Canary::ShortWriteIgnored, 14);
}

/// After a failed sync no success of a later one can be believed.
#[test]
fn believed_retries_of_failed_syncs_are_caught() {
    is_caught(Canary::SyncRetriedAfterError, 3);
}

/// A merge takes all of its source.
#[test]
fn a_merge_without_the_last_append_is_caught() {
    is_caught(Canary::MergeDropsLastAppend, 0);
}

/// Nothing is appended behind a seal, durable or not.
#[test]
fn a_seal_that_misses_appends_in_flight_is_caught() {
    is_caught(Canary::SealMissesInFlight, 26);
}

/// A key that is put again after a removal gets a version that it never had.
#[test]
fn reused_table_versions_are_caught() {
    is_caught(Canary::TableVersionReused, 3);
}

/// A container that cannot serve does not say what it does not know.
#[test]
fn a_definite_answer_in_doubt_is_caught() {
    is_caught(Canary::NoSuchSegmentWhileRecovering, 31);
}

/// Bytes that were read once are read ever after.
#[test]
fn bytes_visible_before_they_are_durable_are_caught() {
    is_caught(Canary::VisibleBeforeDurable, 0);
}

/// Readers who wait at the tail are told of appends within a second.
#[test]
fn forgotten_readers_at_the_tail_are_caught() {
    is_caught(Canary::TailReadersForgotten, 0);
}
