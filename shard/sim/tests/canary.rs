//! Planted bugs are caught: the oracle and the faults are worth something.
#![cfg(feature = "canary")]

use thalweg_sim::{Canary, Run, run};

/// Seeds within which each planted bug must show.
const SEEDS: u64 = 1_000;

fn is_caught(canary: Canary) {
    let with_bug = Run { canary: Some(canary), ..Run::default() };
    let caught = (0..SEEDS).find(|seed| run(*seed, &with_bug).violation.is_some());
    assert!(caught.is_some(), "{canary:?} was not noticed in {SEEDS} seeds");
}

/// Acknowledging what is written and not synced loses it in a power cut.
#[test]
fn ack_before_sync_is_caught() {
    is_caught(Canary::AckBeforeSync);
}

/// Torn frames whose checksum nobody looks at become data.
#[test]
fn skipped_payload_checksums_are_caught() {
    is_caught(Canary::SkipPayloadChecksum);
}

/// Taking damage for the end of the journal loses what was acknowledged.
#[test]
fn a_cut_acknowledged_tail_is_caught() {
    is_caught(Canary::CutAcknowledgedTail);
}

/// Event numbers that a restart forgets let a resend in twice.
#[test]
fn forgotten_event_numbers_are_caught() {
    is_caught(Canary::ForgetEventNumberOverRestart);
}
