//! Starts that must be refused, fast and without touching anything, and starts on damaged data.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use thalweg_crash::dice::{Dice, mix};
use thalweg_crash::store::{len, none};
use thalweg_wire::{Command, GetStreamSegmentInfo, ReadSegment};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::server::{Ended, Server, Settings, run_to_end, settings_for, signal};
use rig::wire::{connect, open_store};

/// A refusal must come within this time.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// Everything below a directory: kind, length and a sum of the content by path.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            found.insert(path.clone(), (0, 0));
            left.extend(
                std::fs::read_dir(&path)
                    .expect("a directory")
                    .map(|entry| entry.expect("an entry of a directory").path()),
            );
        } else {
            let content = std::fs::read(&path).expect("a file");
            let sum = content.chunks(8).fold(0_u64, |sum, chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01B3).rotate_left(7)
            });
            found.insert(path, (content.len() as u64, sum));
        }
    }
    found
}

/// A start that must end by itself, with a status that is not 0 and in time.
fn refused(settings: &Settings) -> Ended {
    let ended = run_to_end(&mut settings.command(), Duration::from_secs(20));
    assert!(!ended.status.success(), "started and ended well, instead of being refused");
    assert!(ended.time <= REFUSAL_MAX, "refused after {:?}: {}", ended.time, ended.stderr);
    println!("refused in {} ms: {}", ended.time.as_millis(), ended.stderr.trim_end());
    ended
}

fn assert_names(ended: &Ended, what: &str) {
    assert!(ended.stderr.contains(what), "the refusal does not name {what}: {}", ended.stderr);
}

/// A directory on which a server has worked and was stopped.
fn used_directory(home: &Path) -> Settings {
    let settings = settings_for(home, 1);
    let mut server = Server::start(&settings);
    server.terminate(Duration::from_secs(10));
    settings
}

/// Shows that a second start on the directory of a living server is refused and changes no byte.
/// The first one is stopped meanwhile, so that any change is the second one's.
#[test]
fn a_second_start_is_refused_and_touches_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1);
    let mut server = Server::start(&settings);
    signal("STOP", server.process_id());
    let before = snapshot(home.path());
    let ended = refused(&settings_for(home.path(), 1));
    assert_names(&ended, &home.path().display().to_string());
    assert_eq!(snapshot(home.path()), before, "the second start changed something");
    signal("CONT", server.process_id());
    let mut store = open_store(&server.ports());
    assert_eq!(store.create("start/first/0.#epoch.0"), Ok(true), "the first one works on");
    server.terminate(Duration::from_secs(10));
}

/// Shows that a directory of another format version is refused, by name, and changed in no byte.
#[test]
fn another_format_version_is_refused_and_touches_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = used_directory(home.path());
    let marker = home.path().join("thalweg.marker");
    let text = std::fs::read_to_string(&marker).expect("the marker is a text");
    let future = text.replace("format-version = 1", "format-version = 77");
    assert_ne!(text, future, "the marker names its version: {text}");
    std::fs::write(&marker, future).expect("the marker is ours to change");
    let before = snapshot(home.path());
    let ended = refused(&settings);
    assert_names(&ended, &home.path().display().to_string());
    assert_names(&ended, "77");
    assert_eq!(snapshot(home.path()), before, "the refused start changed something");
}

/// Shows that a directory is refused for another number of shards than it was made with, and that
/// a directory with other files in it is left alone.
#[test]
fn other_directories_are_refused_and_touch_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut settings = used_directory(home.path());
    settings.shards = 3;
    let before = snapshot(home.path());
    assert_names(&refused(&settings), &home.path().display().to_string());
    assert_eq!(snapshot(home.path()), before, "the refused start changed something");

    let home = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(home.path().join("letter.txt"), "dear").expect("a file");
    let before = snapshot(home.path());
    assert_names(&refused(&settings_for(home.path(), 1)), &home.path().display().to_string());
    assert_eq!(snapshot(home.path()), before, "the refused start changed something");
}

/// Shows that a port that somebody else has is named, and that the directory is free afterwards.
#[test]
fn a_taken_port_is_named() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1);
    for port in [settings.controller_port, settings.data_port] {
        let taken = TcpListener::bind(("127.0.0.1", port)).expect("the port is free so far");
        assert_names(&refused(&settings), &port.to_string());
        drop(taken);
    }
    let mut server = Server::start(&settings);
    server.terminate(Duration::from_secs(10));
}

/// Shows that a data directory that cannot be made or written is named.
#[test]
fn an_unusable_directory_is_named() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("file");
    std::fs::write(&file, "in the way").expect("a file");
    for path in [file.clone(), file.join("below")] {
        let ended = refused(&settings_for(&path, 1));
        assert_names(&ended, &file.display().to_string());
    }
    let closed = home.path().join("closed");
    std::fs::create_dir(&closed).expect("a directory");
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&closed, mode(0o555)).expect("our own directory");
    if std::fs::write(closed.join("probe"), "").is_ok() {
        println!("NOTICE: permissions do not bind this user, so no unwritable directory is tried");
        return;
    }
    assert_names(&refused(&settings_for(&closed, 1)), &closed.display().to_string());
    std::fs::set_permissions(&closed, mode(0o755)).expect("our own directory");
}

/// Shows that settings that mean nothing are refused by name, before anything is made.
#[test]
fn settings_without_meaning_are_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    for (flag, value) in [
        ("--no-such-flag", "1"),
        ("--cache", "much"),
        ("--cache", "1KiB"),
        ("--journal", "5MiB"),
        ("--journal-file", "17"),
        ("--device", "floppy"),
    ] {
        let ended = refused(&settings_for(&data, 1).with(flag, value));
        assert_names(&ended, flag);
        assert!(!data.exists(), "{flag} {value} left something behind");
    }
    let mut settings = settings_for(&data, 1);
    settings.shards = 0;
    assert_names(&refused(&settings), "--shards");
    assert!(!data.exists(), "--shards 0 left something behind");
}

const DAMAGED: usize = 5;

/// Bytes that occur nowhere else, so that their place on disk can be found without knowing the
/// layout of the journal.
fn pattern(number: usize) -> Bytes {
    let mut dice = Dice::new(mix(number as u64 + 4711));
    (0..1000).flat_map(|_| dice.draw().to_le_bytes()).collect::<Vec<u8>>().into()
}

fn segment(number: usize) -> String {
    format!("damage/stream-{number}/0.#epoch.0")
}

/// Flips bits in the middle of the one place below `directory` that holds `wanted`.
fn damage(directory: &Path, wanted: &[u8]) -> PathBuf {
    let middle = &wanted[wanted.len() / 2..][..64];
    let mut places = Vec::new();
    for path in snapshot(directory).into_keys().filter(|path| path.is_file()) {
        let content = std::fs::read(&path).expect("a file");
        let found = content.windows(middle.len()).position(|window| window == middle);
        places.extend(found.map(|at| (path, content, at)));
    }
    assert_eq!(places.len(), 1, "places of the acknowledged bytes on disk");
    let (path, mut content, at) = places.remove(0);
    content[at] ^= 0x40;
    content[at + 20] ^= 0xFF;
    std::fs::write(&path, content).expect("the file is ours to damage");
    path
}

/// What a segment answers to a read from its start: bytes, or `None` when it refuses by closing the
/// connection or `WrongHost`. Every other answer would be a wrong definite one.
fn read_or_refusal(port: u16, segment: &str) -> Option<Bytes> {
    let mut wire = connect(port).expect("the server accepts");
    let info = wire.ask(|request_id| {
        GetStreamSegmentInfo { request_id, segment: segment.into(), delegation_token: none() }
            .into()
    });
    let length = match info {
        Ok(Command::StreamSegmentInfo(info)) => info.write_offset,
        Ok(Command::WrongHost(_)) | Err(_) => return None,
        Ok(other) => panic!("{segment}: {other:?} to GetStreamSegmentInfo"),
    };
    let reply = wire.ask(|request_id| {
        ReadSegment {
            segment: segment.into(),
            offset: 0,
            suggested_length: i32::try_from(length).expect("short"),
            delegation_token: none(),
            request_id,
        }
        .into()
    });
    match reply {
        Ok(Command::SegmentRead(read)) => Some(read.data),
        Ok(Command::WrongHost(_)) | Err(_) => None,
        Ok(other) => panic!("{segment}: {other:?} to a read"),
    }
}

/// Shows that bits flipped at rest in acknowledged data are never served and never cut off: the
/// container refuses, the log names the file, and the other containers serve as before.
#[test]
fn damage_at_rest_is_refused_and_named() {
    const SEGMENTS: usize = 24;
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1);
    let mut server = Server::start(&settings);
    let mut store = open_store(&server.ports());
    // One after the other, so that each lies in a frame of its own and later ones vouch for it.
    for number in 0..SEGMENTS {
        let name = segment(number);
        assert_eq!(store.create(&name), Ok(true), "{name} is new");
        let mut wire = store.session(&name).expect("the server lives");
        assert!(matches!(wire.set_up(&name, 1), Ok(Command::AppendSetup(_))), "{name}: set-up");
        wire.append(1, pattern(number), 1, 1).expect("the server lives");
        let reply = wire.receive();
        assert!(matches!(reply, Ok(Command::DataAppended(_))), "{name}: {reply:?}");
    }
    server.kill();
    let file = damage(home.path(), &pattern(DAMAGED));
    let server = Server::start(&settings);
    let port = server.ports()[0];
    assert_eq!(read_or_refusal(port, &segment(DAMAGED)), None, "damaged data is served");
    let mut served = 0;
    for number in 0..SEGMENTS {
        if let Some(data) = read_or_refusal(port, &segment(number)) {
            assert!(data == pattern(number), "{}: {} other bytes", segment(number), len(&data));
            served += 1;
        }
    }
    assert!(served >= SEGMENTS / 2, "only {served} of {SEGMENTS} segments are served");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a file name");
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(name)).collect();
    let told = lines.iter().find(|line| line.contains("ERROR"));
    assert!(told.is_some(), "no error in the log names {name}:\n{log}");
    println!("{served} of {SEGMENTS} segments served beside the damage; the log says: {told:?}");
}
