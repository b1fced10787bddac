//! The rules between an AppendBlock and its AppendBlockEnd, each with its violations, and the
//! framing of events.

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_wire::event::{self, EventError};
use thalweg_wire::{
    AppendBlock, AppendBlockEnd, AssembledAppend, BlockAssembly, BlockViolation, Message, Padding,
    PartialEvent,
};

const WRITER: u128 = 0x00112233_4455_6677_8899_aabbccddeeff;

fn block(data: &[u8]) -> AppendBlock {
    AppendBlock { writer_id: WRITER, data: Bytes::copy_from_slice(data) }
}

fn end(size_of_whole_events: i32, data: &[u8]) -> AppendBlockEnd {
    AppendBlockEnd {
        writer_id: WRITER,
        size_of_whole_events,
        data: Bytes::copy_from_slice(data),
        event_count: 2,
        last_event_number: 9,
        request_id: 70,
    }
}

fn join(data: &[u8], end: AppendBlockEnd) -> Result<AssembledAppend, BlockViolation> {
    let mut assembly = BlockAssembly::new();
    assembly.begin(block(data))?;
    assert!(assembly.is_open());
    let result = assembly.end(end);
    assert!(!assembly.is_open());
    result
}

fn content(result: Result<AssembledAppend, BlockViolation>) -> Vec<u8> {
    let append = result.expect("the rules are kept");
    assert_eq!((append.writer_id, append.event_count), (WRITER, 2));
    assert_eq!((append.last_event_number, append.request_id), (9, 70));
    assert_eq!(append.content.is_empty(), append.content.parts().next().is_none());
    let parts: Vec<u8> = append.content.parts().flat_map(|part| part.to_vec()).collect();
    assert_eq!(append.content.into_bytes(), parts);
    parts
}

fn with(whole_events: &[u8], message: impl Message) -> Vec<u8> {
    let mut data = BytesMut::from(whole_events);
    message.encode(&mut data);
    data.to_vec()
}

fn partial(data: &'static [u8]) -> PartialEvent {
    PartialEvent { data: Bytes::from_static(data) }
}

/// A lone end is its data, whatever it says about whole events, also without any data.
#[test]
fn lone_end_is_its_data() {
    for size in [-1, 0, 3, i32::MAX, i32::MIN] {
        assert_eq!(content(BlockAssembly::new().end(end(size, b"abc"))), b"abc");
    }
    assert_eq!(content(BlockAssembly::new().end(end(0, b""))), b"");
}

/// A block full of whole events is the content, and data of the end is not appended.
#[test]
fn full_block_is_the_content_without_the_data_of_its_end() {
    assert_eq!(content(join(b"abcd", end(4, b""))), b"abcd");
    assert_eq!(content(join(b"abcd", end(4, b"xyz"))), b"abcd");
    assert_eq!(content(join(b"", end(0, b""))), b"");
}

/// Padding of any length is dropped with what follows it, and content before it is kept.
#[test]
fn padding_is_dropped_with_what_follows() {
    for length in [0, 1, 100] {
        let data = with(b"abcd", Padding { length });
        assert_eq!(content(join(&data, end(4, b""))), b"abcd");
        let followed = [&data[..], b"more"].concat();
        assert_eq!(content(join(&followed, end(4, b""))), b"abcd");
    }
}

/// A partial event continues with the data of the end, in slices of what was received.
#[test]
fn partial_event_is_continued_by_the_end() {
    let data = with(b"abcd", partial(b"efg"));
    assert_eq!(content(join(&data, end(4, b"hi"))), b"abcdefghi");
    assert_eq!(content(join(&data, end(4, b""))), b"abcdefg");
    assert_eq!(content(join(&with(b"", partial(b"efg")), end(0, b"hi"))), b"efghi");
    assert_eq!(content(join(&with(b"abcd", partial(b"")), end(4, b"hi"))), b"abcdhi");

    let mut assembly = BlockAssembly::new();
    let received = block(&data);
    let range = received.data.as_ptr_range();
    assembly.begin(received).expect("nothing is open");
    let append = assembly.end(end(4, b"hi")).expect("the rules are kept");
    let parts: Vec<Bytes> = append.content.into_parts().collect();
    assert_eq!(parts.len(), 3);
    assert!(parts[..2].iter().all(|part| range.contains(&part.as_ptr())));
}

/// Padding with data in the end is a violation.
#[test]
fn data_behind_padding_is_refused() {
    let data = with(b"abcd", Padding { length: 5 });
    let violation = join(&data, end(4, b"x")).expect_err("padded");
    assert_eq!(violation, BlockViolation::DataAfterPadding { data_bytes: 1 });
}

/// The size of whole events must lie within the block.
#[test]
fn size_of_whole_events_outside_the_block_is_refused() {
    for size in [-1, i32::MIN, 5, i32::MAX] {
        let violation = join(b"abcd", end(size, b"")).expect_err("outside");
        assert_eq!(violation, BlockViolation::SizeOfWholeEvents { size, block_bytes: 4 });
    }
}

/// An append needs events, alone or joined.
#[test]
fn append_without_events_is_refused() {
    for event_count in [0, -1, i32::MIN] {
        let end = AppendBlockEnd { event_count, ..end(4, b"") };
        let violation = BlockViolation::EventCount { event_count };
        assert_eq!(BlockAssembly::new().end(end.clone()).expect_err("alone"), violation);
        assert_eq!(join(b"abcd", end).expect_err("joined"), violation);
    }
}

/// Both parts must be of one writer.
#[test]
fn end_of_another_writer_is_refused() {
    let other = AppendBlockEnd { writer_id: 5, ..end(4, b"") };
    let violation = join(b"abcd", other).expect_err("another writer");
    assert_eq!(violation, BlockViolation::OtherWriter { block: WRITER, end: 5 });
}

/// Behind whole events only one Padding or one PartialEvent may stand: too few bytes for a header,
/// other commands, negative lengths, lengths over the rest, and bytes behind a partial event are
/// violations.
#[test]
fn any_other_rest_of_the_block_is_refused() {
    let nested = |code: i32, length: i32, body: &[u8]| {
        let mut data = BytesMut::from(&b"abcd"[..]);
        data.put_i32(code);
        data.put_i32(length);
        data.put_slice(body);
        data.to_vec()
    };
    let mut rests = vec![nested(0, 3, b"xyz"), nested(100, 0, b""), nested(-3, 3, b"xyz")];
    for code in [Padding::CODE, PartialEvent::CODE] {
        for length in [-1, i32::MIN, 4, i32::MAX] {
            rests.push(nested(code, length, b"xyz"));
        }
    }
    rests.push(nested(PartialEvent::CODE, 2, b"xyz"));
    for short in 1..8 {
        rests.push(nested(Padding::CODE, 0, b"")[..4 + short].to_vec());
    }
    for rest in rests {
        let violation = join(&rest, end(4, b"")).expect_err("no padding or partial event");
        assert_eq!(violation, BlockViolation::BlockRest, "{rest:x?}");
    }
}

/// Between the two parts no other append command may come; before and after, any may.
#[test]
fn append_commands_between_the_parts_are_refused() {
    let mut assembly = BlockAssembly::new();
    assert_eq!(assembly.interrupt(), Ok(()));
    assembly.begin(block(b"abcd")).expect("nothing is open");
    assert_eq!(assembly.interrupt(), Err(BlockViolation::Interrupted));
    assert_eq!(assembly.begin(block(b"efgh")), Err(BlockViolation::Interrupted));
    assert_eq!(content(assembly.end(end(4, b""))), b"abcd");
    assert_eq!(assembly.interrupt(), Ok(()));
}

/// Events written one behind the other are taken off one by one; an incomplete one is left until
/// its last byte is there.
#[test]
fn events_are_taken_off_as_they_become_complete() {
    let payloads: [&[u8]; 3] = [b"abc", b"", &[9; 300]];
    let mut written = BytesMut::new();
    payloads.iter().for_each(|payload| event::encode(payload, &mut written));
    let written = written.freeze();
    for available in 0..=written.len() {
        let mut data = written.slice(..available);
        let mut found = Vec::new();
        while let Some(payload) = event::decode(&mut data).expect("events") {
            found.push(payload);
        }
        let taken: usize = found.iter().map(|payload| payload.len() + 8).sum();
        assert_eq!(taken + data.len(), available);
        assert!(found.iter().zip(payloads).all(|(found, payload)| found == payload));
        let complete = [11, 19, 327].iter().filter(|end| **end <= available).count();
        assert_eq!(found.len(), complete);
    }
}

/// What is no event boundary is told, and nothing is taken off.
#[test]
fn what_is_no_event_is_refused() {
    let mut data = Bytes::from_static(b"\0\0\0\x01\0\0\0\x01x");
    assert_eq!(event::decode(&mut data), Err(EventError::NotAnEvent { code: 1 }));
    let mut data = Bytes::from_static(b"\0\0\0\0\xff\xff\xff\xffx");
    assert_eq!(event::decode(&mut data), Err(EventError::Length { length: -1 }));
    let mut data = Bytes::from_static(b"\0\0\0\0\0\x80\0\x01x");
    assert_eq!(event::decode(&mut data), Err(EventError::Length { length: 0x80_0001 }));
    assert_eq!(data.len(), 9);
}
