//! Scripts of one connection: bytes in, requests out, replies in, bytes out.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use thalweg_core::id::{ConnectionId, SegmentName, SessionId, ShardId, Token, WriterId};
use thalweg_core::position::Offset;
use thalweg_core::request::{Append, Refusal, Reply, Request};
use thalweg_net::{
    AfterReply, Close, CloseCause, Connection, ConnectionLimits, Placement, Routed, SessionCounter,
};
use thalweg_wire::*;

const SEGMENT: &str = "scope/stream/0.#epoch.0";
const WRITER: u128 = 0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF;

/// A connection with its buffer.
struct Script {
    connection: Connection,
    counter: SessionCounter,
    buffer: BytesMut,
}

impl Script {
    fn new() -> Self {
        Self::with(ConnectionLimits::default())
    }

    fn with(limits: ConnectionLimits) -> Self {
        let (id, shard) = (ConnectionId(7), ShardId(1));
        Self {
            connection: Connection::new(id, shard, Placement::new(8, 2), limits),
            counter: SessionCounter::new(shard),
            buffer: BytesMut::new(),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    fn send(&mut self, command: impl Into<Command>) -> &mut Self {
        command.into().encode(&mut self.buffer);
        self
    }

    fn next(&mut self) -> Result<Option<Routed>, Close> {
        self.connection.next(&mut self.buffer, &mut self.counter)
    }

    fn request(&mut self) -> (Token, Request) {
        match self.next() {
            Ok(Some(Routed::Request { token, request, .. })) => (token, request),
            other => panic!("no request but {other:?}"),
        }
    }

    fn answered(&mut self) {
        assert!(matches!(self.next(), Ok(Some(Routed::Answered))));
    }

    fn close(&mut self) -> Close {
        loop {
            match self.next() {
                Err(close) => return close,
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was not closed"),
            }
        }
    }

    /// What was sent since the last call, decoded.
    fn sent(&mut self) -> Vec<Command> {
        self.connection.flush();
        let mut bytes = BytesMut::new();
        self.connection.drain(|piece| bytes.extend_from_slice(&piece));
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut commands = Vec::new();
        while let Some(command) = decoder.decode(&mut bytes).expect("we send commands") {
            commands.push(command);
        }
        assert!(bytes.is_empty(), "half a command was sent");
        commands
    }

    /// A session that is set up, its writer's last number being `last_event_number`.
    fn set_up(&mut self, last_event_number: i64) -> SessionId {
        self.send(set_up(1, SEGMENT));
        let (token, request) = self.request();
        let Request::SetupAppend { session, writer, segment } = request else {
            panic!("not a set-up: {request:?}")
        };
        assert_eq!((writer, segment.as_str()), (WriterId(WRITER), SEGMENT));
        let container = Placement::new(8, 2).container(SEGMENT);
        let reply = Reply::AppendSetup { session, container, segment, writer, last_event_number };
        assert_eq!(self.connection.reply(token.request, Ok(reply)), AfterReply::Continue);
        let expected = AppendSetup {
            request_id: 1,
            segment: SEGMENT.into(),
            writer_id: WRITER,
            last_event_number,
        };
        assert_eq!(self.sent(), [expected.into()]);
        session
    }
}

fn set_up(request_id: i64, segment: &str) -> SetupAppend {
    SetupAppend {
        request_id,
        writer_id: WRITER,
        segment: segment.into(),
        delegation_token: Text::new(),
    }
}

fn end(data: &'static [u8], event_count: i32, last_event_number: i64) -> AppendBlockEnd {
    AppendBlockEnd {
        writer_id: WRITER,
        size_of_whole_events: i32::try_from(data.len()).expect("short"),
        data: Bytes::from_static(data),
        event_count,
        last_event_number,
        request_id: 9,
    }
}

fn append(request: Request) -> Append {
    match request {
        Request::Append(append) => append,
        other => panic!("not an append: {other:?}"),
    }
}

/// A Hello is answered by ours, whenever it comes; one without a common version is also closed.
#[test]
fn hello_is_answered_and_versions_must_overlap() {
    let mut script = Script::new();
    for high_version in [15, 17, 99, 5] {
        script.send(Hello { high_version, low_version: 5 }).answered();
        assert_eq!(script.sent(), [Hello { high_version: 17, low_version: 5 }.into()]);
    }
    for (low_version, high_version) in [(18, 20), (1, 4)] {
        let mut script = Script::new();
        let close = script.send(Hello { high_version, low_version }).close();
        assert_eq!(close.cause(), CloseCause::Version);
        assert_eq!(script.sent().len(), 1);
    }
}

/// KeepAlive is echoed also between the parts of a block; Padding is ignored.
#[test]
fn keep_alive_is_echoed_and_padding_ignored() {
    let mut script = Script::new();
    script.set_up(0);
    script.send(Padding { length: 5 }).answered();
    let data = Bytes::from_static(b"abc");
    script.send(AppendBlock { writer_id: WRITER, data }).answered();
    script.send(KeepAlive).answered();
    assert_eq!(script.sent(), [KeepAlive.into()]);
    let (_, request) =
        script.send(AppendBlockEnd { size_of_whole_events: 3, ..end(b"", 1, 1) }).request();
    assert_eq!(append(request).data.concat(), b"abc");
}

/// Everything that a server does not take is closed and counted under its cause.
#[test]
fn what_is_not_served_is_closed() {
    let reply = SegmentCreated { request_id: 1, segment: SEGMENT.into() };
    let event = Event { data: Bytes::new() };
    let partial = PartialEvent { data: Bytes::new() };
    let flush = FlushToStorage { container_id: 0, delegation_token: Text::new(), request_id: 1 };
    let list =
        ListStorageChunks { segment: SEGMENT.into(), delegation_token: Text::new(), request_id: 1 };
    let commands: [Command; 5] =
        [reply.into(), event.into(), partial.into(), flush.into(), list.into()];
    for command in commands {
        assert_eq!(Script::new().send(command).close().cause(), CloseCause::NotServed);
    }
    for bytes in [
        &[0, 0, 0, 72, 0, 0, 0, 0][..],
        &[0, 0, 0, 9, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0, 0, 0, 9, 0, 0, 0, 1, 0],
    ] {
        assert_eq!(Script::new().bytes(bytes).close().cause(), CloseCause::Malformed);
    }
}

/// Every command of the append family needs its set-up on this connection.
#[test]
fn appends_before_their_set_up_are_closed() {
    let conditional = ConditionalAppend {
        writer_id: WRITER,
        event_number: 1,
        expected_offset: 0,
        event: FramedEvent::new(b"x"),
        request_id: 3,
    };
    let block = ConditionalBlockEnd {
        writer_id: WRITER,
        event_number: 1,
        expected_offset: 0,
        data: Bytes::new(),
        request_id: 3,
    };
    let begin = AppendBlock { writer_id: WRITER, data: Bytes::new() };
    let commands: [Command; 4] =
        [end(b"x", 1, 1).into(), conditional.into(), block.into(), begin.into()];
    for command in commands {
        assert_eq!(Script::new().send(command).close(), Close::NoSession { writer: WRITER });
    }
}

/// Blocks are joined as the original joins them.
#[test]
fn append_sequences_give_the_bytes_of_the_original() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/append-sequences.json");
    let text = std::fs::read_to_string(path).expect("the vectors are in the tree");
    let vectors: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let mut checked = 0;
    for vector in vectors["append_sequences"].as_array().expect("a list") {
        let mut script = Script::new();
        let session = script.set_up(i64::MIN);
        for frame in vector["frames_hex"].as_array().expect("a list") {
            script.bytes(&hex(frame.as_str().expect("hex")));
        }
        let found = loop {
            match script.next().expect("a good sequence") {
                Some(Routed::Request { request, .. }) => break append(request),
                Some(Routed::Answered) => {}
                None => panic!("no append in {vector}"),
            }
        };
        assert_eq!(found.data.concat(), hex(vector["appended_hex"].as_str().expect("hex")));
        assert_eq!(Some(u64::from(found.event_count)), vector["numEvents"].as_u64());
        assert_eq!(Some(found.event_number), vector["lastEventNumber"].as_i64());
        assert_eq!((found.session, found.expected_offset), (session, None));
        checked += 1;
    }
    assert_eq!(checked, 4);
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// Between the two parts of a block no other append command may come, and an append has events.
#[test]
fn broken_blocks_are_closed() {
    let between: [Command; 3] = [
        set_up(2, "scope/other/0").into(),
        AppendBlock { writer_id: WRITER, data: Bytes::new() }.into(),
        ConditionalBlockEnd {
            writer_id: WRITER,
            event_number: 1,
            expected_offset: 0,
            data: Bytes::new(),
            request_id: 3,
        }
        .into(),
    ];
    for command in between {
        let mut script = Script::new();
        script.set_up(0);
        script.send(AppendBlock { writer_id: WRITER, data: Bytes::new() });
        assert_eq!(script.send(command).close().cause(), CloseCause::Block);
    }
    for event_count in [0, -1] {
        let mut script = Script::new();
        script.set_up(0);
        assert_eq!(script.send(end(b"x", event_count, 1)).close().cause(), CloseCause::Block);
    }
    let mut script = Script::new();
    script.set_up(i64::MIN);
    assert_eq!(script.send(end(b"x", 1, -1)).close().cause(), CloseCause::Argument);
}

/// Conditional appends carry their condition; a negative one is none, and an event is framed.
#[test]
fn conditions_reach_the_engine() {
    let mut script = Script::new();
    script.set_up(0);
    script.send(ConditionalAppend {
        writer_id: WRITER,
        event_number: 1,
        expected_offset: 5,
        event: FramedEvent::new(b"xy"),
        request_id: 3,
    });
    let (token, request) = script.request();
    let found = append(request);
    assert_eq!((token.request, found.expected_offset), (3, Some(Offset(5))));
    assert_eq!(found.data.concat(), b"\0\0\0\0\0\0\0\x02xy");
    script.send(ConditionalBlockEnd {
        writer_id: WRITER,
        event_number: 2,
        expected_offset: -1,
        data: Bytes::from_static(b"raw"),
        request_id: 4,
    });
    let found = append(script.request().1);
    assert_eq!((found.expected_offset, found.event_count), (None, 1));
    assert_eq!(found.data.concat(), b"raw");
}

/// Acknowledgements that come together leave as one, chained to the one before.
#[test]
fn acknowledgements_coalesce_and_chain() {
    let mut script = Script::new();
    let session = script.set_up(4);
    for number in [5, 6, 7] {
        script.send(end(b"x", 1, number)).request();
    }
    assert_eq!(script.connection.outstanding(), 3);
    script.connection.appended(session, 9, 5, Offset(1));
    script.connection.appended(session, 9, 6, Offset(2));
    let acknowledged = |event_number, previous_event_number, length| DataAppended {
        writer_id: WRITER,
        event_number,
        previous_event_number,
        request_id: 9,
        current_segment_write_offset: length,
    };
    assert_eq!(script.sent(), [acknowledged(6, 4, 2).into()]);
    script.connection.appended(session, 9, 7, Offset(3));
    assert_eq!(script.sent(), [acknowledged(7, 6, 3).into()]);
    assert_eq!(script.connection.outstanding(), 0);
    assert!(!script.connection.has_output());
}

/// What is durable is acknowledged before the client learns that the segment is sealed.
#[test]
fn acknowledgements_leave_before_a_refusal() {
    let mut script = Script::new();
    let session = script.set_up(i64::MIN);
    script.send(end(b"x", 1, 1)).request();
    script.send(end(b"y", 1, 2)).request();
    script.connection.appended(session, 9, 1, Offset(1));
    let segment = SegmentName::from(SEGMENT);
    let sealed = Refusal::SegmentSealed { segment, offset: 2 };
    assert_eq!(script.connection.reply(9, Err(sealed)), AfterReply::Continue);
    let names: Vec<_> = script.sent().iter().map(Command::name).collect();
    assert_eq!(names, ["DataAppended", "SegmentIsSealed"]);
}

/// A wrong event number is told and then the connection ends.
#[test]
fn an_invalid_event_number_closes_behind_its_reply() {
    let mut script = Script::new();
    script.set_up(5);
    script.send(end(b"x", 1, 3)).request();
    let refusal = Refusal::InvalidEventNumber { writer: WriterId(WRITER), event_number: 3 };
    assert_eq!(script.connection.reply(9, Err(refusal)), AfterReply::Close);
    let expected = InvalidEventNumber {
        writer_id: WRITER,
        request_id: 9,
        server_stack_trace: Text::new(),
        event_number: 3,
    };
    assert_eq!(script.sent(), [expected.into()]);
}

/// The latest set-up of a writer decides where its appends go; a refused one leaves none.
#[test]
fn the_latest_set_up_decides() {
    let mut script = Script::new();
    let first = script.set_up(0);
    let second = script.set_up(3);
    assert_ne!(first, second);
    assert_eq!(append(script.send(end(b"x", 1, 4)).request().1).session, second);
    let (token, _) = script.send(set_up(77, "scope/gone/0")).request();
    let segment = SegmentName::from("scope/gone/0");
    let refusal = Refusal::NoSuchSegment { segment, offset: -1 };
    assert_eq!(script.connection.reply(token.request, Err(refusal)), AfterReply::Continue);
    assert_eq!(script.send(end(b"x", 1, 5)).close().cause(), CloseCause::NoSession);
}

/// Sessions are bounded, and those that were replaced do not count for ever.
#[test]
fn sessions_are_bounded() {
    let limits = ConnectionLimits { sessions_max: 3, ..ConnectionLimits::default() };
    let mut script = Script::with(limits);
    for _ in 0..20 {
        script.set_up(0);
    }
    for writer_id in [1, 2] {
        script.send(SetupAppend { writer_id, ..set_up(1, SEGMENT) }).request();
    }
    script.send(SetupAppend { writer_id: 3, ..set_up(1, SEGMENT) });
    assert_eq!(script.close().cause(), CloseCause::Limit);
}

/// Large data of a read leave as the slice they are, small ones in one piece with their command.
#[test]
fn read_data_are_not_copied() {
    let large = Bytes::from(vec![7; 5000]);
    for (data, pieces) in [(vec![large.clone()], 3), (vec![Bytes::from_static(b"ab")], 1)] {
        let mut script = Script::new();
        let expected = data.concat();
        let reply = Reply::Read {
            segment: SegmentName::from(SEGMENT),
            offset: Offset(11),
            data,
            at_tail: true,
            end_of_segment: false,
        };
        assert_eq!(script.connection.reply(5, Ok(reply)), AfterReply::Continue);
        let mut sent = Vec::new();
        let bytes = script.connection.drain(|piece| sent.push(piece));
        assert_eq!((sent.len(), sent.concat().len()), (pieces, bytes));
        assert!(pieces == 1 || sent.iter().any(|piece| piece.as_ptr() == large.as_ptr()));
        let mut received = BytesMut::from(&sent.concat()[..]);
        let read = Decoder::new(FRAME_BYTES_MAX).decode(&mut received).expect("a command");
        let Some(Command::SegmentRead(read)) = read else { panic!("not a read: {read:?}") };
        assert_eq!((&read.data[..], read.offset, read.request_id), (&expected[..], 11, 5));
        assert_eq!((&*read.segment, read.at_tail, read.end_of_segment), (SEGMENT, true, false));
    }
}

/// The receive size follows the traffic, and a large frame asks for exactly its rest.
#[test]
fn receive_sizes_follow_traffic_and_frames() {
    let mut script = Script::new();
    let size = |script: &Script| script.connection.receive_bytes(&script.buffer);
    assert_eq!(size(&script), 16 << 10);
    for _ in 0..10 {
        let spare = size(&script);
        script.connection.received(spare, spare);
    }
    assert_eq!(size(&script), 256 << 10);
    for _ in 0..10 {
        script.connection.received(10, 256 << 10);
    }
    assert_eq!(size(&script), 16 << 10);
    let mut header = BytesMut::new();
    let head =
        AppendBlockEndHead { writer_id: WRITER, size_of_whole_events: 0, data_length: 8 << 20 };
    head.encode(&mut header);
    let frame_bytes = header.len() + (8 << 20) + AppendBlockEndTail::ENCODED_LEN;
    assert!(matches!(script.send(KeepAlive).next(), Ok(Some(Routed::Answered))));
    script.bytes(&header);
    assert!(matches!(script.next(), Ok(None)));
    assert_eq!(size(&script), frame_bytes - header.len());
}

/// Shows that a merge of segments that do not live together is refused before anybody could take
/// the source for missing, or for merged before.
#[test]
fn a_merge_across_containers_is_refused() {
    let placement = Placement::new(8, 2);
    let home = placement.container(SEGMENT);
    let stray = (0..)
        .map(|number| format!("scope/other/{number}.#epoch.0"))
        .find(|name| placement.container(name) != home)
        .expect("names are spread");
    let mut script = Script::new();
    script.send(MergeSegments {
        request_id: 5,
        target: SEGMENT.into(),
        source: stray.as_str().into(),
        delegation_token: Text::new(),
        attribute_updates: Vec::new(),
    });
    script.send(MergeSegmentsBatch {
        request_id: 6,
        target: SEGMENT.into(),
        sources: vec![SEGMENT.into(), stray.as_str().into()],
        delegation_token: Text::new(),
    });
    for request_id in [5, 6] {
        script.answered();
        let refusal = ErrorMessage {
            request_id,
            segment: stray.as_str().into(),
            message: "source and target do not live together".into(),
            error_code: 0,
        };
        assert_eq!(script.sent(), [Command::from(refusal)]);
    }
}
