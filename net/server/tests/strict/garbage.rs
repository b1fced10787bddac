//! Garbage at the live server: frames of requests with some of their bits, bytes, lengths and
//! counts changed, cut and mixed, from a printed seed, many to a connection, on many connections.
//!
//! The server may answer what is a request all the same, or close. It must stay up, keep its
//! memory, give back its connections, and serve others as before. `THALWEG_GARBAGE_FRAMES` sets
//! how many frames (2,000).

use std::time::{Duration, Instant};
use thalweg_crash::dice::Dice;

use crate::desk::{Desk, encoded};
use crate::every::{Subjects, samples};
use crate::rig;
use crate::rig::dice::seed;
use crate::rig::server::Server;
use crate::rig::wire::connect;
use crate::settings;
use crate::words::*;

/// Growth of the server's memory that is not garbage kept: caches that fill, and segments that
/// changed names happened to create.
const GROWTH_MAX: u64 = 64 << 20;

/// Changes a frame.
fn spoil(frame: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..dice.range(1..4) {
        let at = usize::try_from(dice.below(frame.len() as u64)).expect("an index");
        match dice.below(7) {
            0 => frame[at] ^= 1 << dice.below(8),
            1 => frame[at] = u8::try_from(dice.below(256)).expect("a byte"),
            2 => frame.truncate(at.max(1)),
            3 => frame.extend_from_within(at..),
            4 => frame.insert(at, 0xFF),
            5 => {
                // A whole number, where there may be a length, a count, an offset or a version.
                let numbers = [0, -1, 1, i32::MIN, i32::MAX, 0x00FF_FFFF, 0x7FFF_0000];
                let number = numbers[usize::try_from(dice.below(7)).expect("an index")];
                let end = frame.len().min(at + 4);
                frame[at..end].copy_from_slice(&i32::to_be_bytes(number)[..end - at]);
            }
            _ => {
                // The right length for what the frame is now, so that its payload is looked at.
                if let Some(length) = frame.len().checked_sub(8) {
                    let length = i32::try_from(length).expect("short");
                    frame[4..8].copy_from_slice(&length.to_be_bytes());
                }
            }
        }
    }
}

fn open_files(server: &Server) -> usize {
    let path = format!("/proc/{}/fd", server.process_id());
    std::fs::read_dir(path).expect("a living process has files").count()
}

/// Shows that garbage neither ends nor fattens the server, nor disturbs another connection, and
/// that its connections are given back.
#[test]
fn garbage_frames_leave_the_server_as_it_was() {
    let frames = rig::setting("THALWEG_GARBAGE_FRAMES", 2000);
    let mut dice = Dice::new(seed());
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(&settings(home.path(), 1));
    let mut desk = Desk::new(server.ports()[0]);
    let subjects = Subjects::new(&mut desk);
    let known: Vec<Vec<u8>> =
        samples(&subjects).iter().map(|it| encoded(std::slice::from_ref(&it.command))).collect();
    // The honest writer lives where no changed name leads.
    desk.clear();
    let honest = desk.empty();
    desk.sets_up(&honest, BERT);
    let (mut sent, mut events) = (0, 0);
    let (mut files_before, mut memory_before) = (0, 0);
    while sent < frames {
        let mut wire = connect(server.ports()[0]).expect("the server accepts");
        if dice.one_in(2) {
            // Most of the append family is looked at only behind a set-up.
            let _ = wire.set_up(&subjects.segment, ANNA);
        }
        for _ in 0..dice.range(1..10) {
            let mut frame =
                known[usize::try_from(dice.below(known.len() as u64)).expect("an index")].clone();
            spoil(&mut frame, &mut dice);
            sent += 1;
            if wire.send_bytes(&frame).is_err() {
                break;
            }
        }
        wire.cut();
        if dice.one_in(10) {
            events += 1;
            let previous = if events == 1 { UNSET } else { events - 1 };
            desk.gets(
                append(BERT, b"honest", 1, events),
                appended(BERT, events, previous, 6 * events),
            );
        }
        if memory_before == 0 && sent > frames / 5 {
            (files_before, memory_before) = (open_files(&server), server.resident_bytes());
        }
    }
    desk.holds(&honest, &b"honest".repeat(usize::try_from(events).expect("small")));
    let begin = Instant::now();
    // What is under way in the moment of the first look is in its number.
    while open_files(&server) > files_before {
        assert!(begin.elapsed() < Duration::from_secs(60), "connections of garbage stay");
        std::thread::sleep(Duration::from_millis(10));
    }
    let grown = server.resident_bytes().saturating_sub(memory_before);
    assert!(grown < GROWTH_MAX, "{} MiB more after {sent} frames", grown >> 20);
    assert!(!server.has_ended(), "the server ended");
    assert!(!server.log().contains("panicked"), "a panic in the log:\n{}", server.log());
    println!(
        "{sent} frames of garbage, {events} honest events beside them, {} KiB more",
        grown >> 10
    );
}
