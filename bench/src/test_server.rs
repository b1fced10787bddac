//! A segment store for tests of the generator: keeps segments in memory, acknowledges at once, and
//! misbehaves on request. It is no model of durability.
//!
//! One thread for each connection, all blocking. Faults are set before the load begins.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlockEnd, AppendSetup, Command, DataAppended, Decoder, FRAME_BYTES_MAX,
    GetStreamSegmentInfo, Hello, NO_EVENT_NUMBER, NoSuchSegment, ReadSegment, SegmentCreated,
    SegmentDeleted, SegmentRead, SegmentTruncated, StreamSegmentInfo, Text, TruncateSegment,
    WrongHost,
};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The first append of a number at or above this one is served so much later.
    pub(crate) stall: Option<(i64, Duration)>,
    /// Content of the n-th append (from 0) is changed before it is kept.
    pub(crate) damage: Option<(u64, Damage)>,
    /// It serves nothing and says so.
    pub(crate) is_elsewhere: bool,
}

/// What happens to the content of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One bit of its last byte is flipped.
    FlippedByte,
    /// It is not kept.
    Lost,
    /// It is kept twice.
    Doubled,
    /// Its first half comes behind its second.
    Reordered,
}

#[derive(Default)]
struct Segment {
    data: Vec<u8>,
    start: i64,
}

#[derive(Default)]
struct Kept {
    segments: BTreeMap<String, Segment>,
    appends: u64,
    has_stalled: bool,
    truncations: u64,
}

/// A running server.
pub(crate) struct TestServer {
    address: String,
    kept: Arc<Mutex<Kept>>,
}

impl TestServer {
    /// Listens on a free port of loopback. Its threads end with the test process.
    pub(crate) fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound").to_string();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Arc::clone(&kept);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let kept = Arc::clone(&shared);
                std::thread::spawn(move || serve(socket, &kept, faults));
            }
        });
        Self { address, kept }
    }

    /// Every segment is here.
    pub(crate) fn locator(&self) -> impl Fn(&str) -> anyhow::Result<String> + Sync {
        let address = self.address.clone();
        move |_| Ok(address.clone())
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.kept.lock().expect("no serving thread panics").segments.len()
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.kept.lock().expect("no serving thread panics").truncations
    }
}

fn serve(mut socket: TcpStream, kept: &Mutex<Kept>, faults: Faults) {
    socket.set_nodelay(true).expect("the socket is open");
    let mut session = Session { sessions: BTreeMap::new(), faults };
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let (mut received, mut replies) = (BytesMut::new(), BytesMut::new());
    let mut scratch = vec![0; 64 << 10];
    while let Ok(count @ 1..) = socket.read(&mut scratch) {
        received.extend_from_slice(&scratch[..count]);
        while let Some(command) = decoder.decode(&mut received).expect("the generator is correct") {
            session.handle(command, kept, &mut replies);
        }
        if socket.write_all(&replies).is_err() {
            return;
        }
        replies.clear();
    }
}

/// State of one connection.
struct Session {
    /// Segment and last number by writer.
    sessions: BTreeMap<u128, (String, i64)>,
    faults: Faults,
}

impl Session {
    fn handle(&mut self, command: Command, kept: &Mutex<Kept>, replies: &mut BytesMut) {
        let reply: Command = match command {
            Command::Hello(_) => Hello::OURS.into(),
            Command::CreateSegment(it) => {
                let name = it.segment.to_string();
                kept.lock().expect("no panics").segments.insert(name, Segment::default());
                SegmentCreated { request_id: it.request_id, segment: it.segment }.into()
            }
            Command::DeleteSegment(it) => {
                kept.lock().expect("no panics").segments.remove(it.segment.as_str());
                SegmentDeleted { request_id: it.request_id, segment: it.segment }.into()
            }
            Command::SetupAppend(it) => {
                self.sessions.insert(it.writer_id, (it.segment.to_string(), NO_EVENT_NUMBER));
                AppendSetup {
                    request_id: it.request_id,
                    segment: it.segment,
                    writer_id: it.writer_id,
                    last_event_number: NO_EVENT_NUMBER,
                }
                .into()
            }
            Command::AppendBlockEnd(it) => self.append(it, kept).into(),
            Command::TruncateSegment(it) => truncate(it, kept).into(),
            Command::GetStreamSegmentInfo(it) if self.faults.is_elsewhere => WrongHost {
                request_id: it.request_id,
                segment: it.segment,
                correct_host: Text::new(),
                server_stack_trace: Text::new(),
            }
            .into(),
            Command::GetStreamSegmentInfo(it) => facts(it, kept),
            Command::ReadSegment(it) => read(it, kept).into(),
            other => panic!("the generator never sends {other:?}"),
        };
        reply.encode(replies);
    }

    fn append(&mut self, it: AppendBlockEnd, kept: &Mutex<Kept>) -> DataAppended {
        let (name, last) = self.sessions.get_mut(&it.writer_id).expect("set up before");
        let floor = (*last).max(0);
        assert_eq!(it.last_event_number, floor + i64::from(it.event_count), "numbers are dense");
        let previous = std::mem::replace(last, it.last_event_number);
        let mut kept = kept.lock().expect("no panics");
        if let Some((number, pause)) = self.faults.stall
            && it.last_event_number >= number
            && !kept.has_stalled
        {
            kept.has_stalled = true;
            // With the lock held: the whole server stands still.
            std::thread::sleep(pause);
        }
        let index = kept.appends;
        kept.appends += 1;
        let damage = self.faults.damage.filter(|(at, _)| *at == index).map(|(_, damage)| damage);
        let segment = kept.segments.get_mut(name.as_str()).expect("created before");
        for part in damaged(&it.data, damage) {
            segment.data.extend_from_slice(&part);
        }
        DataAppended {
            writer_id: it.writer_id,
            event_number: it.last_event_number,
            previous_event_number: previous,
            request_id: it.request_id,
            current_segment_write_offset: i64::try_from(segment.data.len()).expect("small"),
        }
    }
}

fn damaged(data: &Bytes, damage: Option<Damage>) -> Vec<Bytes> {
    match damage {
        None => vec![data.clone()],
        Some(Damage::Lost) => vec![],
        Some(Damage::Doubled) => vec![data.clone(), data.clone()],
        Some(Damage::Reordered) => {
            let half = data.len() / 2;
            vec![data.slice(half..), data.slice(..half)]
        }
        Some(Damage::FlippedByte) => {
            let mut data = data.to_vec();
            *data.last_mut().expect("appends are not empty") ^= 1;
            vec![data.into()]
        }
    }
}

fn truncate(it: TruncateSegment, kept: &Mutex<Kept>) -> SegmentTruncated {
    let mut kept = kept.lock().expect("no panics");
    kept.truncations += 1;
    let segment = kept.segments.get_mut(it.segment.as_str()).expect("created before");
    assert!(it.truncation_offset <= i64::try_from(segment.data.len()).expect("small"));
    assert!(it.truncation_offset >= segment.start);
    segment.start = it.truncation_offset;
    SegmentTruncated { request_id: it.request_id, segment: it.segment }
}

fn facts(it: GetStreamSegmentInfo, kept: &Mutex<Kept>) -> Command {
    let kept = kept.lock().expect("no panics");
    match kept.segments.get(it.segment.as_str()) {
        Some(segment) => StreamSegmentInfo {
            request_id: it.request_id,
            segment: it.segment,
            exists: true,
            is_sealed: false,
            is_deleted: false,
            last_modified: 0,
            write_offset: i64::try_from(segment.data.len()).expect("small"),
            start_offset: segment.start,
        }
        .into(),
        None => NoSuchSegment {
            request_id: it.request_id,
            segment: it.segment,
            server_stack_trace: Text::new(),
            offset: -1,
        }
        .into(),
    }
}

fn read(it: ReadSegment, kept: &Mutex<Kept>) -> SegmentRead {
    let kept = kept.lock().expect("no panics");
    let segment = kept.segments.get(it.segment.as_str()).expect("created before");
    let from =
        usize::try_from(it.offset).expect("the generator is correct").min(segment.data.len());
    // Odd sizes, so that events are cut anywhere.
    let wanted = usize::try_from(it.suggested_length).expect("positive").min(99_991);
    let to = segment.data.len().min(from + wanted);
    SegmentRead {
        segment: it.segment,
        offset: it.offset,
        at_tail: to == segment.data.len(),
        end_of_segment: false,
        data: Bytes::copy_from_slice(&segment.data[from..to]),
        request_id: it.request_id,
    }
}
