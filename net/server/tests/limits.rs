//! What the real server does when the machine gives little and when clients take much: refusals at
//! start, bounds on connections and on standing still, and what metrics and health say of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_crash::store::none;
use thalweg_crash::wire::Trouble;
use thalweg_wire::{AppendBlockEnd, Command, KeepAlive, ReadSegment};

#[allow(dead_code, reason = "each test executable uses its part of the rig")]
mod rig;

use rig::server::{Ended, Server, Settings, run_to_end, settings_for};
use rig::wire::{connect, connect_silently, open_store};

const SEGMENT: &str = "limits/stream/0.#epoch.0";

/// A refusal must come within this time.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A free port of loopback for metrics.
fn admin_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Status and body of a page of the administration port.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the port listens");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").expect("a request");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("a text");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.expect("a status"), body.expect("a body"))
}

/// The sum of a metric over all lines that begin so.
fn metric(port: u16, start: &str) -> u64 {
    let (_, text) = get(port, "/metrics");
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the server behind `wrapper`, which gets its command line behind its own arguments.
fn behind(settings: &Settings, program: &str, arguments: &[&str]) -> Process {
    let command = settings.command();
    let mut wrapped = Process::new(program);
    wrapped.args(arguments).arg(command.get_program()).args(command.get_args());
    wrapped
}

fn refused(mut command: Process, name: &str) -> Option<Ended> {
    let ended = run_to_end(&mut command, Duration::from_secs(20));
    println!("{name}: {:?} after {:?}: {}", ended.status, ended.time, ended.stderr.trim_end());
    assert!(!ended.status.success(), "{name}: it started");
    assert!(ended.time <= REFUSAL_MAX, "{name}: refused after {:?}", ended.time);
    Some(ended)
}

/// Refuses `io_uring_setup` as a container's seccomp profile does, then becomes the server.
const WITHOUT_RING: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
program = b''.join(struct.pack('HBBI', *one) for one in code)
memory = ctypes.create_string_buffer(program)
filter = struct.pack('HxxxxxxP', len(code), ctypes.addressof(memory))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

/// Shows that a start is refused in two seconds, with cause and remedy, when io_uring is forbidden,
/// when too little memory may be locked, and when there are too few descriptors.
#[test]
fn what_the_machine_does_not_give_is_named_with_its_remedy() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let settings = settings_for(home.path(), 1).with("--admin", "off");
    let shell = |limit: &str| {
        let script = format!("ulimit {limit} && exec \"$@\"");
        behind(&settings, "sh", &["-c", &script, "sh"])
    };
    let cases = [
        ("io_uring forbidden", behind(&settings, "python3", &["-c", WITHOUT_RING]), "io_uring"),
        ("memlock", shell("-l 64"), "ulimit -l"),
        ("descriptors", shell("-n 100"), "ulimit -n"),
    ];
    for (name, command, remedy) in cases {
        if let Some(ended) = refused(command, name) {
            assert!(ended.stderr.contains(remedy), "{name}: no {remedy} in: {}", ended.stderr);
        }
    }
}

/// Shows that one address gets so many connections and no more, that this is counted and logged,
/// that who is connected is served meanwhile, and that places come back by themselves.
#[test]
fn connections_of_an_address_are_bounded() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let admin = admin_port();
    let settings = settings_for(home.path(), 1)
        .with("--admin", &format!("127.0.0.1:{admin}"))
        .with("--limit", "connections-per-address=20");
    let server = Server::start(&settings);
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "the segment is new");
    let port = server.ports()[0];
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        match connect_silently(port) {
            Ok(mut wire) => {
                match wire.send(thalweg_wire::Hello::OURS).and_then(|()| wire.receive()) {
                    Ok(_) => open.push(wire),
                    Err(_) => refused += 1,
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(open.len() <= 20 && refused >= 20, "{} open, {refused} refused", open.len());
    assert!(store.info(SEGMENT).is_ok_and(|info| info.is_some()), "who is connected is served");
    until("refusals are counted", || {
        metric(admin, "thalweg_refused_total{shard=\"0\",bound=\"address\"}") >= 20
    });
    until("refusals are logged", || server.log().contains("connections-per-address"));
    drop(open);
    until("places come back", || connect(port).is_ok());
}

/// Shows that without descriptors the server accepts no more but does not spin, serves whom it has,
/// says so, and goes on by itself.
#[test]
fn a_server_without_descriptors_pauses_and_heals() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let admin = admin_port();
    let settings = settings_for(home.path(), 1).with("--admin", &format!("127.0.0.1:{admin}"));
    let server = Server::start(&settings);
    let limit = format!("--nofile={0}:{0}", descriptors(server.process_id()) + 40);
    let process = server.process_id().to_string();
    let set = Process::new("prlimit").args(["--pid", &process, &limit]).status();
    assert!(set.expect("prlimit is a program").success(), "prlimit {limit}");
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "the segment is new");
    let port = server.ports()[0];
    let sockets: Vec<TcpStream> =
        (0..100).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    until("the pause is logged", || server.log().contains("out of descriptors"));
    let (before, begin) = (cpu_ticks(server.process_id()), Instant::now());
    while begin.elapsed() < Duration::from_secs(1) {
        assert!(store.info(SEGMENT).is_ok_and(|info| info.is_some()), "who is connected is served");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ticks = cpu_ticks(server.process_id()) - before;
    assert!(ticks < 50, "{ticks} hundredths of a second of CPU in about a second of pause");
    drop(sockets);
    until("it accepts again", || connect(port).is_ok());
    assert!(metric(admin, "thalweg_accept_pauses_total") > 0);
}

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).expect("a living process").count()
}

/// Hundredths of a second of CPU.
fn cpu_ticks(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let behind_name = text.rsplit(')').next().expect("a text");
    let field = |at| behind_name.split_whitespace().nth(at).and_then(|it| it.parse::<u64>().ok());
    field(11).expect("user time") + field(12).expect("system time")
}

/// Shows that peers that stand still are closed in bounded time while a writer beside them goes on:
/// one that says nothing at all, one that stops in the middle of a frame, one that takes no
/// replies, and a half-open one that waits for a reply. One that sends keep-alives stays.
#[test]
fn peers_that_stand_still_are_closed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let admin = admin_port();
    let settings =
        settings_for(home.path(), 1).with("--admin", &format!("127.0.0.1:{admin}")).with(
            "--limit",
            "first-command-seconds=2,frame-seconds=2,replies-seconds=2,silence-seconds=3",
        );
    let server = Server::start(&settings);
    let port = server.ports()[0];
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "the segment is new");
    let mut writer = store.session(SEGMENT).expect("the server lives");
    assert!(matches!(writer.set_up(SEGMENT, 1), Ok(Command::AppendSetup(_))), "set-up");
    let block = Bytes::from(vec![7; 1 << 20]);
    for number in 1..=4 {
        writer.append(1, block.clone(), number, 1).expect("the server lives");
        assert!(matches!(writer.receive(), Ok(Command::DataAppended(_))), "append {number}");
    }
    let connect = || connect(port).expect("the server accepts");
    let mut silent = connect_silently(port).expect("the server accepts");
    let mut slow_sender = connect();
    let mut frame = BytesMut::new();
    let append = AppendBlockEnd {
        writer_id: 2,
        size_of_whole_events: 1 << 20,
        data: block.clone(),
        event_count: 1,
        last_event_number: 1,
        request_id: 1,
    };
    Command::from(append).encode(&mut frame);
    slow_sender.send_bytes(&frame[..3000]).expect("the server accepts");
    let mut slow_receiver = connect();
    for request_id in 0..20 {
        slow_receiver.send(read(0, request_id)).expect("small");
    }
    let quiet = "limits/quiet/0.#epoch.0";
    assert_eq!(store.create(quiet), Ok(true), "the segment is new");
    let (mut half_open, mut alive) = (connect(), connect());
    for wire in [&mut half_open, &mut alive] {
        wire.send(ReadSegment { segment: quiet.into(), ..read(0, 1) }).expect("small");
    }
    let begin = Instant::now();
    let mut number = 4;
    let closed = |cause: &str| {
        metric(admin, &format!("thalweg_closes_total{{shard=\"0\",cause=\"{cause}\"}}"))
    };
    let causes = ["first_command", "slow_sender", "slow_receiver", "silent"];
    while causes.iter().any(|cause| closed(cause) == 0) {
        assert!(begin.elapsed() < PATIENCE, "closed: {:?}", causes.map(closed));
        number += 1;
        alive.send(KeepAlive).expect("it is not closed");
        writer.append(1, Bytes::from_static(&[7; 8]), number, 1).expect("the server lives");
        assert!(matches!(writer.receive(), Ok(Command::DataAppended(_))), "append {number}");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("all closed after {:?}, {number} appends beside", begin.elapsed());
    assert_eq!(causes.map(closed), [1, 1, 1, 1], "closes by cause");
    assert_eq!(silent.receive(), Err(Trouble::Closed));
    assert_eq!(slow_sender.receive(), Err(Trouble::Closed));
    assert_eq!(half_open.receive(), Err(Trouble::Closed));
    assert_eq!(store.delete(quiet), Ok(true), "its deletion wakes readers");
    assert!(matches!(alive.receive(), Ok(Command::SegmentRead(_))), "the keep-alive peer");
}

fn read(offset: i64, request_id: i64) -> ReadSegment {
    ReadSegment {
        segment: SEGMENT.into(),
        offset,
        suggested_length: 1 << 20,
        delegation_token: none(),
        request_id,
    }
}

/// Shows that health and readiness are told apart from a start on, that a container that refuses to
/// serve is named with its reason, and that nothing clients choose becomes a label.
#[test]
fn health_and_metrics_tell_how_it_is() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let admin = admin_port();
    let settings = settings_for(home.path(), 2).with("--admin", &format!("127.0.0.1:{admin}"));
    let server = Server::start(&settings);
    assert_eq!(get(admin, "/health"), (200, "ok\n".to_owned()));
    assert_eq!(get(admin, "/ready"), (200, "ok\n".to_owned()));
    assert_eq!(get(admin, "/elsewhere").0, 404);
    let mut store = open_store(&server.ports());
    assert_eq!(store.create("limits/secret/0.#epoch.0"), Ok(true), "the segment is new");
    let (status, text) = get(admin, "/metrics");
    assert_eq!(status, 200);
    for name in ["thalweg_events_total", "thalweg_closes_total", "thalweg_memory_bound_bytes"] {
        assert!(text.contains(&format!("# TYPE {name} ")), "no {name} in:\n{text}");
        assert!(text.contains(&format!("{name}{{shard=\"1\"")), "no {name} of shard 1");
    }
    assert!(text.contains("\nthalweg_controller_calls_total 0\n"), "no calls in:\n{text}");
    assert!(!text.contains("secret"), "the name of a segment is in the metrics");
}

/// How soon health must tell.
const TOLD_MAX: Duration = Duration::from_secs(10);

fn prlimit(server: &Server, limit: &str) {
    let process = server.process_id().to_string();
    let set = Process::new("prlimit").args(["--pid", &process, limit]).status();
    assert!(set.expect("prlimit is a program").success(), "prlimit {limit}");
}

/// Shows that a shard whose journal fails for good is named by health within ten seconds while the
/// process lives, and that it serves again by itself once the journal can be written. The journal
/// fails since the process may write no file behind its first block any more.
#[test]
fn a_shard_whose_journal_fails_is_named_and_heals() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let admin = admin_port();
    let settings = settings_for(home.path(), 1).with("--admin", &format!("127.0.0.1:{admin}"));
    // Without that the kernel ends a process that writes beyond its bound.
    let ignoring = ["-c", "trap '' XFSZ && exec \"$@\"", "sh"];
    let mut server = Server::launch_as(behind(&settings, "sh", &ignoring), &settings);
    server.wait_ready();
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "the segment is new");
    let mut writer = store.session(SEGMENT).expect("the server lives");
    assert!(matches!(writer.set_up(SEGMENT, 1), Ok(Command::AppendSetup(_))), "set-up");
    prlimit(&server, "--fsize=4096:unlimited");
    let begin = Instant::now();
    writer.append(1, Bytes::from_static(&[7; 8]), 1, 1).expect("the server lives");
    assert_eq!(writer.receive(), Err(Trouble::Closed), "what is not durable is not acknowledged");
    until("health names the shard", || {
        let (status, text) = get(admin, "/health");
        status == 503 && text.starts_with("shard 0: ")
    });
    println!("told after {:?}: {}", begin.elapsed(), get(admin, "/health").1);
    assert!(begin.elapsed() < TOLD_MAX, "health told after {:?}", begin.elapsed());
    assert!(!server.has_ended(), "the process lives");
    prlimit(&server, "--fsize=unlimited:unlimited");
    until("it serves again", || get(admin, "/health").0 == 200);
    println!("healed after {:?}", begin.elapsed());
    let mut writer = connect(server.ports()[0]).expect("the server accepts");
    assert!(matches!(writer.set_up(SEGMENT, 1), Ok(Command::AppendSetup(_))), "set-up");
    writer.append(1, Bytes::from_static(&[7; 8]), 1, 1).expect("the server lives");
    assert!(matches!(writer.receive(), Ok(Command::DataAppended(_))), "it is stored now");
}

/// Shows that a bit that flips at rest in what was acknowledged is found at the next start, and
/// that health names shard, container and place.
#[test]
fn health_names_a_container_with_damaged_data() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let admin = admin_port();
    let settings = settings_for(home.path(), 1)
        .with("--admin", &format!("127.0.0.1:{admin}"))
        .with("--journal", "128MiB");
    let mut server = Server::start(&settings);
    let mut store = open_store(&server.ports());
    assert_eq!(store.create(SEGMENT), Ok(true), "the segment is new");
    let mut writer = store.session(SEGMENT).expect("the server lives");
    assert!(matches!(writer.set_up(SEGMENT, 1), Ok(Command::AppendSetup(_))), "set-up");
    let pattern = b"a needle of which there is one in the whole journal";
    let blocks: [&'static [u8]; 3] = [pattern, b"behind it", b"and more"];
    for (number, data) in (1..).zip(blocks) {
        writer.append(1, Bytes::from_static(data), number, 1).expect("the server lives");
        assert!(matches!(writer.receive(), Ok(Command::DataAppended(_))), "append {number}");
    }
    server.kill();
    assert_eq!(flip(home.path(), pattern), 1, "places where the data lie");
    let server = Server::launch(&settings);
    until("the start is over", || TcpStream::connect(("127.0.0.1", admin)).is_ok());
    until("health names the container", || {
        let (status, text) = get(admin, "/health");
        status == 503 && text.contains("shard 0: container ") && text.contains("quarantined since")
    });
    println!("{}", get(admin, "/health").1);
    drop(server);
}

/// Flips a bit of each place in the files below `directory` that holds `pattern`; gives how many
/// there were.
fn flip(directory: &std::path::Path, pattern: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found += flip(&path, pattern);
            continue;
        }
        let mut data = std::fs::read(&path).expect("a file");
        let before = found;
        for at in 0..data.len().saturating_sub(pattern.len()) {
            if data[at] == pattern[0] && data[at..].starts_with(pattern) {
                data[at + 1] ^= 1;
                found += 1;
            }
        }
        if found > before {
            std::fs::write(&path, data).expect("our file");
        }
    }
    found
}

/// Shows that established writers keep their rate through floods of connections, slow senders,
/// readers that never read, half-open peers, 8 MiB events and new writer ids, that memory stays
/// within the budget and a quarter, and that everything closes by itself. The bounds of this short
/// form are loose; `thalweg bench flood` has those that are promised.
#[test]
fn established_writers_go_on_through_floods() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut flood = Process::new(rig::binary::thalweg());
    flood.args(["bench", "flood", "--connections", "1000", "--writers", "100", "--rate", "5000"]);
    flood.args(["--seconds", "1", "--slices", "2", "--attempts", "3000"]);
    flood.args(["--writer-ids", "20000", "--keep", "30", "--overload", "40"]);
    flood.args(["--memory", "512MiB", "--cache", "64MiB", "--patience", "3"]);
    flood.arg("--directory").arg(home.path());
    let ended = run_to_end(&mut flood, Duration::from_secs(300));
    println!("{}", ended.stderr);
    assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
}
