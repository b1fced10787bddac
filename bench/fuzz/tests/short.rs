//! The short form of every target: its seeds and mutations that are the same every time.

use thalweg_fuzz::mutate::Mutator;
use thalweg_fuzz::{Target, target};

/// Runs the seeds of a target, then the mutations of its short form.
fn short(name: &str) {
    let Target { body, seeds, short_runs, .. } = target(name).expect("it is named as it is");
    let seeds = seeds();
    seeds.iter().for_each(|seed| body(seed));
    let mut mutator = Mutator::new(1, seeds);
    for run in 0..short_runs {
        let input = mutator.input();
        if std::panic::catch_unwind(|| body(&input)).is_err() {
            panic!("run {run} of {name} failed with {input:?}");
        }
    }
}

/// Shows that no bytes on the wire upset the decoder.
#[test]
fn hostile_frames_are_commands_or_refused() {
    short("decode");
}

/// Shows that no blocks upset the assembly of appends.
#[test]
fn hostile_blocks_are_appends_or_refused() {
    short("block_assembly");
}

/// Shows that a client may send anything and the server goes on for the next one.
#[test]
fn hostile_clients_harm_nobody_else() {
    short("exchange");
}

/// Shows that recovery gives out what was written or reports it, whatever became of the files.
#[test]
fn hostile_journals_are_recovered_or_refused() {
    short("journal");
}

/// Shows that forged operations are replayed or refused.
#[test]
fn hostile_operations_are_replayed_or_refused() {
    short("replay");
}

/// Shows that forged checkpoints are taken or refused.
#[test]
fn hostile_checkpoints_are_taken_or_refused() {
    short("checkpoint");
}

/// Shows that forged table changes and snapshots are taken or refused.
#[test]
fn hostile_tables_are_taken_or_refused() {
    short("table");
}

/// Shows that no message upsets the checks of the controller.
#[test]
fn hostile_messages_are_understood_or_refused() {
    short("messages");
}

/// Shows that no record upsets the control plane.
#[test]
fn hostile_records_are_understood_or_refused() {
    short("records");
}

/// Shows that no text upsets the reading of markers and sizes.
#[test]
fn hostile_configuration_is_understood_or_refused() {
    short("configuration");
}
