//! The strict wire test: every request of the protocol, well formed and in every wrong form that
//! the specification names, against the real server over TCP.
//!
//! Each [`Form`](desk::Form) states the exact reply, every field of it, or the close, and that
//! nothing was stored. [`EVERY`](every::EVERY) are the forms that all requests have in common. At
//! the end it is told how many requests were tried in how many forms. Where this protocol's
//! existing servers do several things, the comments say why we do what we do.
//!
//! `THALWEG_STRICT_ONLY` runs the forms whose description contains it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use thalweg_wire::{Command, Role};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
#[path = "../rig/mod.rs"]
mod rig;

mod appends;
mod blocks;
mod conditions;
mod desk;
mod every;
mod garbage;
mod merges;
mod pages;
mod reads;
mod segments;
mod sessions;
mod tables;
mod words;

use desk::{Desk, Form};
use every::Subjects;
use rig::server::{Server, Settings, settings_for};
use rig::wire::open_store;

/// All tables of forms.
fn tables() -> [&'static [Form]; 18] {
    [
        sessions::SESSIONS,
        sessions::FRAMES,
        appends::SET_UPS,
        appends::APPENDS,
        blocks::BLOCKS,
        conditions::CONDITIONS,
        conditions::EVENTS,
        reads::READS,
        reads::PARKED,
        segments::LIFE,
        segments::ATTRIBUTES,
        merges::MERGES,
        merges::BATCHES,
        tables::TABLES,
        tables::UPDATES,
        tables::GETS,
        pages::PAGES,
        pages::DELTAS,
    ]
}

/// How the server is started: its journal's files hold the largest frame that the protocol has.
fn settings(home: &Path, shards: u16) -> Settings {
    settings_for(home, shards).with("--journal-file", "64MiB")
}

/// What was tried, and what failed.
#[derive(Default)]
struct Tally {
    requests: BTreeSet<&'static str>,
    forms: u64,
    failures: Vec<String>,
}

impl Tally {
    /// Carries out one form; it may panic, and the others go on.
    fn attempt(&mut self, what: &str, run: impl FnOnce() -> u64) {
        if std::env::var("THALWEG_STRICT_ONLY").is_ok_and(|only| !what.contains(&only)) {
            return;
        }
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(forms) => self.forms += forms,
            Err(_) => self.failures.push(what.to_owned()),
        }
    }

    fn judge(&self, desk: &Desk) {
        let sent: u64 = desk.sent.values().sum();
        println!("{} requests, {} forms, {sent} sent", self.requests.len(), self.forms);
        let failures = &self.failures;
        assert!(failures.is_empty(), "{} forms failed:\n{}", failures.len(), failures.join("\n"));
    }
}

fn try_all(desk: &mut Desk) {
    let mut tally = Tally::default();
    for form in tables().into_iter().flatten() {
        if form.request != "any" {
            tally.requests.insert(form.request);
        }
        desk.clear();
        tally.attempt(&format!("{} {}", form.request, form.form), || {
            (form.run)(desk);
            1
        });
    }
    for every in every::EVERY {
        desk.clear();
        tally.attempt(&format!("every request {}", every.form), || {
            let subjects = Subjects::new(desk);
            (every.run)(desk, &subjects)
        });
    }
    tally.judge(desk);
    if std::env::var_os("THALWEG_STRICT_ONLY").is_none() {
        assert_eq!(tally.requests, requests(), "requests tried, and those of the protocol");
    }
}

/// Names of everything that a server may be sent.
fn requests() -> BTreeSet<&'static str> {
    let is_for_servers = |code: &i32| {
        Command::role_of(*code).is_some_and(|role| !matches!(role, Role::Reply | Role::Failure))
    };
    (-128..=128).filter(is_for_servers).filter_map(Command::name_of).collect()
}

/// The whole table against a server of one shard: every request, well formed and in every wrong
/// form, gets exactly the reply that is specified, or a close and nothing stored.
#[test]
fn every_request_in_every_form_is_answered_as_specified() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings(home.path(), 1));
    try_all(&mut Desk::new(server.ports()[0]));
}

/// The whole table again where half of all requests are handed to another shard: nobody can tell
/// by an answer, or by the order of answers.
#[test]
fn every_form_is_answered_the_same_by_a_forwarded_request() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings(home.path(), 2).on_a_single_port());
    try_all(&mut Desk::new(server.ports()[0]));
}

/// Every request about a segment of another shard, by name, is answered `WrongHost`, and the
/// connection stays; an append behind it closes.
#[test]
fn requests_for_another_shard_are_answered_wrong_host() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&settings(home.path(), 2));
    let ports = server.ports();
    let owner =
        open_store(&ports).owner(&Desk::new(ports[0]).name()).expect("the server lives").port();
    let other = *ports.iter().find(|port| **port != owner).expect("there are two");
    let mut desk = Desk::new(owner);
    let subjects = Subjects::new(&mut desk);
    let before = [desk.look(&subjects.segment), desk.look(&subjects.table)];
    desk.turn_to(other);
    let forms = every::elsewhere(&mut desk, &subjects);
    assert_eq!(
        [desk.look(&subjects.segment), desk.look(&subjects.table)],
        before,
        "after asking elsewhere"
    );
    println!("{forms} requests to another shard");
}

/// A container with damage at rest refuses every request about its segments, by `WrongHost` or by
/// closing the connection: never by a definite answer, and never with other bytes.
#[test]
fn a_damaged_container_gives_no_definite_answer_to_any_request() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings(home.path(), 1);
    let mut server = Server::start(&settings);
    let mut desk = Desk::new(server.ports()[0]);
    let data = b"bytes that occur but once in the journal, 4f1c63";
    let lost = desk.holding(data);
    let subjects = Subjects::new(&mut desk);
    // Later frames vouch for the damaged one.
    for _ in 0..3 {
        desk.fill(&subjects.segment, b"x");
    }
    desk.clear();
    server.kill();
    assert_eq!(damage(home.path(), data), 1, "places of the bytes");
    let server = Server::start(&settings);
    let mut desk = Desk::new(server.ports()[0]);
    let forms = every::refused(&mut desk, &subjects, &lost);
    println!("{forms} requests to a damaged container");
}

/// Flips bits of these bytes in all files below a directory; gives how often they were there.
fn damage(directory: &Path, wanted: &[u8]) -> usize {
    let mut places = 0;
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            places += damage(&path, wanted);
            continue;
        }
        let mut content = std::fs::read(&path).expect("a file");
        let found: Vec<usize> = memory_places(&content, wanted);
        for at in &found {
            content[at + 9] ^= 0x40;
        }
        if !found.is_empty() {
            std::fs::write(&path, content).expect("the file is ours to damage");
            places += found.len();
        }
    }
    places
}

fn memory_places(content: &[u8], wanted: &[u8]) -> Vec<usize> {
    content.windows(wanted.len()).enumerate().filter(|it| it.1 == wanted).map(|it| it.0).collect()
}
