//! Single bits flipped in the data directory of the real server while it is stopped, one at a time:
//! the next start serves every byte right, or refuses what it cannot vouch for and names the file.
//!
//! Half of the flips hit bytes that are not zero, the others any byte of any file. `THALWEG_FLIPS`
//! sets how many (8), `THALWEG_SEED` where. The mass of flips is in the sweep, without a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_crash::dice::Dice;
use thalweg_crash::payload::Mark;
use thalweg_crash::wire::Trouble;
use thalweg_wire::{Command, CreateSegment, GetStreamSegmentInfo, ReadSegment, Text};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::dice::seed;
use rig::server::{Server, Settings, settings_for};
use rig::wire::connect;

const SEGMENTS: u64 = 6;
const APPENDS: i64 = 40;
const EVENTS_PER_APPEND: u64 = 10;

fn segment(number: u64) -> String {
    format!("flipped/stream-{number}/0.#epoch.0")
}

/// What a flip came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Everything was served as it had been written.
    Served,
    /// Some segments or bytes were closed, and the log or `thalweg verify` names the file.
    Closed,
    /// The server did not start and named the file.
    Refused,
}

/// Every file below a directory with its bytes.
fn files_of(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_of(&path, found);
        } else {
            let content = fs::read(&path).expect("a file");
            found.insert(path, content);
        }
    }
}

/// Puts every file back as it was and removes the others.
fn restore(directory: &Path, kept: &BTreeMap<PathBuf, Vec<u8>>) {
    let mut now = BTreeMap::new();
    files_of(directory, &mut now);
    for (path, content) in &now {
        match kept.get(path) {
            Some(wanted) if wanted == content => {}
            Some(wanted) => fs::write(path, wanted).expect("the file is ours"),
            None => fs::remove_file(path).expect("the file is ours"),
        }
    }
    for (path, content) in kept.iter().filter(|(path, _)| !now.contains_key(*path)) {
        fs::write(path, content).expect("the directory is ours");
    }
}

/// Segments with events, acknowledged, and what their bytes are.
fn fill(server: &Server) -> Vec<Bytes> {
    let port = server.ports()[0];
    (0..SEGMENTS)
        .map(|number| {
            let name = segment(number);
            let mut wire = connect(port).expect("the server lives");
            let created = wire.ask(|request_id| create(request_id, &name)).expect("an answer");
            assert!(matches!(created, Command::SegmentCreated(_)), "{created:?}");
            let set_up = wire.set_up(&name, 5).expect("an answer");
            assert!(matches!(set_up, Command::AppendSetup(_)), "{set_up:?}");
            let mut written = BytesMut::new();
            for append in 1..=APPENDS {
                let mut data = BytesMut::new();
                for event in 0..EVENTS_PER_APPEND {
                    Mark::new(number, append as u64 * EVENTS_PER_APPEND + event).frame(&mut data);
                }
                written.extend_from_slice(&data);
                wire.append(5, data.freeze(), append, 1).expect("the server lives");
                // One by one, so that there are many frames.
                let reply = wire.receive().expect("an acknowledgement");
                assert!(matches!(reply, Command::DataAppended(_)), "{reply:?}");
            }
            written.freeze()
        })
        .collect()
}

fn create(request_id: i64, name: &str) -> Command {
    CreateSegment {
        request_id,
        segment: name.into(),
        target_rate: 0,
        scale_type: 0,
        delegation_token: Text::new(),
        rollover_size_bytes: 0,
    }
    .into()
}

/// Reads a segment from its beginning; gives whether all of it was served. Closed connections and
/// `WrongHost` are refusals; anything else must be right.
fn is_served(port: u16, name: &str, written: &Bytes) -> bool {
    let Some(Command::StreamSegmentInfo(info)) = ask(port, |request_id| {
        let delegation_token = Text::new();
        GetStreamSegmentInfo { request_id, segment: name.into(), delegation_token }.into()
    }) else {
        return false;
    };
    assert_eq!(info.start_offset, 0, "{name}");
    assert_eq!(info.write_offset, written.len() as i64, "{name}");
    let mut at = 0;
    while at < written.len() {
        let read = ask(port, |request_id| {
            ReadSegment {
                segment: name.into(),
                offset: at as i64,
                suggested_length: 10_000,
                delegation_token: Text::new(),
                request_id,
            }
            .into()
        });
        let Some(Command::SegmentRead(read)) = read else { return false };
        assert!(!read.data.is_empty() && !read.end_of_segment, "{name} at {at}: {read:?}");
        let end = at + read.data.len();
        assert!(read.data == written[at..end], "{name}: other bytes at {at}");
        at = end;
    }
    true
}

/// One request on a connection of its own; `None` when it is refused.
fn ask(port: u16, make: impl FnOnce(i64) -> Command) -> Option<Command> {
    let mut wire = connect(port).ok()?;
    match wire.ask(make) {
        Ok(Command::WrongHost(_)) => None,
        Ok(Command::NoSuchSegment(it)) => panic!("an acknowledged segment is denied: {it:?}"),
        Ok(answer) => Some(answer),
        Err(Trouble::Closed) => None,
        Err(other) => panic!("no reply and no end: {other}"),
    }
}

/// What `thalweg verify` says, and whether it found damage.
fn verify(directory: &Path) -> (String, bool) {
    let output = Process::new(rig::binary::thalweg())
        .args(["verify", "--read-only", "--data"])
        .arg(directory)
        .output()
        .expect("the program runs");
    let text = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    (text.concat(), !output.status.success())
}

/// Flips a bit, starts, reads everything; gives what it came to.
fn judge(settings: &Settings, home: &Path, file: &Path, written: &[Bytes]) -> Class {
    let (found, is_damaged) = verify(home);
    let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
    let mut server = Server::launch(settings);
    let begin = Instant::now();
    let has_ended = loop {
        if server.is_ready() {
            break false;
        }
        if server.has_ended() {
            break true;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "neither ready nor ended");
        std::thread::sleep(Duration::from_millis(5));
    };
    if has_ended {
        let log = server.log();
        assert!(log.contains(&name), "refused without naming {name}: {log}");
        return Class::Refused;
    }
    let port = server.ports()[0];
    let served =
        written.iter().zip(0..).filter(|(it, number)| is_served(port, &segment(*number), it));
    let is_all = served.count() == written.len();
    let log = server.log();
    server.kill();
    if is_all {
        return Class::Served;
    }
    assert!(log.contains(&name) || found.contains(&name), "closed without naming {name}: {log}");
    assert!(is_damaged && found.contains(&name), "verify does not name {name}: {found}");
    Class::Closed
}

/// F6, F8: whatever single bit is flipped at rest, no wrong byte and no wrong definite answer
/// leaves the server, and what is closed is named.
#[test]
fn no_flipped_bit_is_served_by_the_real_server() {
    let mut dice = Dice::new(seed());
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1).with("--journal-file", "1MiB");
    let mut server = Server::start(&settings);
    let written = fill(&server);
    // Later frames and a beacon vouch for all of it.
    server.terminate(Duration::from_secs(20));
    let mut kept = BTreeMap::new();
    files_of(home.path(), &mut kept);
    let (text, is_damaged) = verify(home.path());
    assert!(!is_damaged, "{text}");
    let files: Vec<(&PathBuf, &Vec<u8>)> = kept.iter().filter(|it| !it.1.is_empty()).collect();
    let mut classes: BTreeMap<Class, u64> = BTreeMap::new();
    for flip in 0..rig::setting("THALWEG_FLIPS", 8) {
        let (file, content) = files[dice.below(files.len() as u64) as usize];
        let used: Vec<usize> = (0..content.len()).filter(|&at| content[at] != 0).collect();
        let at = if flip % 2 == 0 && !used.is_empty() {
            used[dice.below(used.len() as u64) as usize]
        } else {
            dice.below(content.len() as u64) as usize
        };
        let mut changed = content.clone();
        changed[at] ^= 1 << dice.below(8);
        fs::write(file, changed).expect("the file is ours");
        let class = judge(&settings, home.path(), file, &written);
        *classes.entry(class).or_default() += 1;
        restore(home.path(), &kept);
    }
    println!("flipped bits at the real server: {classes:?}");
    assert!(classes.contains_key(&Class::Closed), "no flip closed anything: {classes:?}");
}
