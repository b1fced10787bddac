//! The decoder on a stream: what is refused at the header, what comes before an error, what shares
//! the received buffer.

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlockEnd, Command, DecodeError, Decoder, FRAME_BYTES_MAX, Hello, KeepAlive, Message,
    PayloadError, SegmentRead, TableEntry, TableKey, Text, UpdateTableEntries,
};

fn frame(code: i32, payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len()).expect("short");
    [&code.to_be_bytes(), &length.to_be_bytes(), payload].concat()
}

fn header(code: i32, length: i32) -> BytesMut {
    BytesMut::from([code.to_be_bytes(), length.to_be_bytes()].concat().as_slice())
}

fn decode(bytes: &[u8]) -> Result<Option<Command>, DecodeError> {
    Decoder::new(FRAME_BYTES_MAX).decode(&mut BytesMut::from(bytes))
}

/// Lengths are judged at the header alone: the largest frame is waited for, one byte more and any
/// negative length is an error, and the buffer has grown by nothing.
#[test]
fn frame_length_is_judged_at_the_header() {
    let largest = i32::try_from(FRAME_BYTES_MAX - 8).expect("16 MiB");
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut buffer = header(3, largest);
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(decoder.needed(&buffer), FRAME_BYTES_MAX - 8);
    assert!(buffer.capacity() < 64);
    for length in [largest + 1, i32::MAX, -1, i32::MIN] {
        let mut buffer = header(3, length);
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        assert_eq!(decoder.needed(&buffer), 0);
        let expected = DecodeError::FrameLength {
            name: "AppendBlock",
            length,
            frame_bytes_max: FRAME_BYTES_MAX,
        };
        assert_eq!(decoder.decode(&mut buffer), Err(expected));
        assert!(buffer.capacity() < 64);
    }
}

/// Every code outside the table, the retired ones among them, is refused before its payload comes.
#[test]
fn unknown_codes_are_refused_at_the_header() {
    let known: Vec<i32> = (-200..200).filter(|code| Command::name_of(*code).is_some()).collect();
    assert_eq!(known.len(), 70);
    for retired in [6, 54, 62, 63, 64, 65, 66, 67, 72, 73] {
        assert!(!known.contains(&retired));
    }
    for code in (-200..200).filter(|code| !known.contains(code)).chain([i32::MIN, i32::MAX]) {
        let result = Decoder::new(FRAME_BYTES_MAX).decode(&mut header(code, 1000));
        assert_eq!(result, Err(DecodeError::UnknownCommand { code }));
    }
}

/// Commands before a malformed frame are handed out; then its error, again and again, even when
/// good bytes follow.
#[test]
fn commands_before_an_error_are_handed_out_and_the_error_stays() {
    let mut good = BytesMut::new();
    Hello::OURS.encode(&mut good);
    KeepAlive.encode(&mut good);
    let malformed: [(Vec<u8>, DecodeError); 2] = [
        (
            frame(21, &[0; 9]),
            DecodeError::Payload { name: "SegmentCreated", source: PayloadError::TooShort },
        ),
        (frame(72, &[]), DecodeError::UnknownCommand { code: 72 }),
    ];
    for (bad, error) in malformed {
        let mut buffer = BytesMut::from([&good[..], &bad, &good].concat().as_slice());
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(Hello::OURS.into())));
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(KeepAlive.into())));
        assert_eq!(decoder.decode(&mut buffer), Err(error.clone()));
        assert_eq!(decoder.decode(&mut BytesMut::from(&good[..])), Err(error));
        assert_eq!(decoder.pending_bytes(), 0);
    }
}

/// Complete frames are taken off in one cut, the incomplete one stays, and nothing of the buffer
/// is kept once the last command is handed out.
#[test]
fn complete_frames_leave_the_buffer_in_one_cut() {
    let mut buffer = BytesMut::new();
    for _ in 0..1000 {
        Hello::OURS.encode(&mut buffer);
    }
    buffer.extend_from_slice(&header(3, 100));
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    assert_eq!(decoder.decode(&mut buffer), Ok(Some(Hello::OURS.into())));
    assert_eq!(buffer.len(), 8);
    assert_eq!(decoder.pending_bytes(), 999 * 16);
    assert_eq!(decoder.needed(&buffer), 0, "a complete frame is at the front");
    for _ in 0..999 {
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(Hello::OURS.into())));
    }
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(decoder.needed(&buffer), 100);
    assert_eq!(decoder.pending_bytes(), 0);
}

/// Data, keys, values and names are slices of the received bytes.
#[test]
fn payloads_share_the_received_buffer() {
    let value = Bytes::from_static(&[7; 50]);
    let key = TableKey { key: Bytes::from_static(b"key"), version: 3 };
    let commands: [Command; 3] = [
        AppendBlockEnd {
            writer_id: 1,
            size_of_whole_events: 0,
            data: value.clone(),
            event_count: 1,
            last_event_number: 1,
            request_id: 1,
        }
        .into(),
        SegmentRead {
            segment: Text::from("a/b/0"),
            offset: 0,
            at_tail: true,
            end_of_segment: false,
            data: value.clone(),
            request_id: 1,
        }
        .into(),
        UpdateTableEntries {
            request_id: 1,
            segment: Text::from("a/b/0"),
            delegation_token: Text::new(),
            entries: vec![TableEntry { key, value }],
            table_segment_offset: -1,
        }
        .into(),
    ];
    let mut buffer = BytesMut::new();
    commands.iter().for_each(|command| command.encode(&mut buffer));
    let received = buffer.as_ptr_range();
    let shares = |bytes: &[u8]| {
        let part = bytes.as_ptr_range();
        received.start <= part.start && part.end <= received.end
    };
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    while let Some(command) = decoder.decode(&mut buffer).expect("well formed") {
        match command {
            Command::AppendBlockEnd(end) => assert!(shares(&end.data)),
            Command::SegmentRead(read) => {
                assert!(shares(&read.data) && shares(read.segment.as_bytes()));
            }
            Command::UpdateTableEntries(update) => {
                let entry = &update.entries[0];
                assert!(shares(&entry.key.key) && shares(&entry.value));
            }
            other => panic!("unexpected {}", other.name()),
        }
    }
}

/// Counts that the payload cannot hold are refused by their number, before any item is read: in
/// byte arrays, lists, strings and the embedded event.
#[test]
fn counts_over_the_payload_are_refused() {
    let count_error =
        |name, count| Err(DecodeError::Payload { name, source: PayloadError::Count { count } });
    for count in [i32::MAX, i32::MIN, -1, 1] {
        // TableEntriesUpdated: request id and a list of i64 of which not one is there.
        let payload = [&[0; 8][..], &count.to_be_bytes(), &[0; 7]].concat();
        assert_eq!(decode(&frame(75, &payload)), count_error("TableEntriesUpdated", count));
    }
    for count in [i32::MAX, i32::MIN, -1, 21] {
        // AppendBlockEnd with 20 bytes behind the count.
        let payload = [&[0; 20][..], &count.to_be_bytes(), &[0; 20]].concat();
        assert_eq!(decode(&frame(4, &payload)), count_error("AppendBlockEnd", count));
        // ConditionalAppend with an event of 20 bytes.
        let payload = [&[0; 36][..], &count.to_be_bytes(), &[0; 20]].concat();
        assert_eq!(decode(&frame(5, &payload)), count_error("ConditionalAppend", count));
    }
    // A string of 3 bytes with 2 there, and one that is not UTF-8.
    let short = DecodeError::Payload { name: "SegmentSealed", source: PayloadError::TooShort };
    assert_eq!(decode(&frame(29, &[&[0; 8][..], &[0, 3, b'a', b'b']].concat())), Err(short));
    let bad = DecodeError::Payload { name: "SegmentSealed", source: PayloadError::NotText };
    assert_eq!(decode(&frame(29, &[&[0; 8][..], &[0, 2, 0xFF, b'b']].concat())), Err(bad));
    // An embedded event with another type code.
    let other = PayloadError::NotAnEvent { code: -1 };
    let payload = [&[0; 32][..], &(-1_i32).to_be_bytes(), &[0; 12]].concat();
    let error = DecodeError::Payload { name: "ConditionalAppend", source: other };
    assert_eq!(decode(&frame(5, &payload)), Err(error));
}

/// Any byte but zero is true, and true is written as 1.
#[test]
fn bool_is_read_as_non_zero_and_written_as_one() {
    for byte in 0..=u8::MAX {
        let payload = [&[0; 8][..], &[byte]].concat();
        let Ok(Some(Command::SegmentAttributeUpdated(updated))) = decode(&frame(37, &payload))
        else {
            panic!("{byte} is no bool");
        };
        assert_eq!(updated.success, byte != 0);
        let mut out = BytesMut::new();
        updated.encode(&mut out);
        assert_eq!(out[out.len() - 1], u8::from(byte != 0));
    }
}

/// Shows that a table key or value whose total contradicts the length inside it is malformed,
/// whichever of the two is the lie.
#[test]
fn totals_of_keys_and_values_must_agree_with_their_lengths() {
    let entry = TableEntry {
        key: TableKey { key: Bytes::from_static(b"key"), version: 5 },
        value: Bytes::from_static(b"value"),
    };
    let mut frame = BytesMut::new();
    Command::from(UpdateTableEntries {
        request_id: 1,
        segment: "t".into(),
        delegation_token: "".into(),
        entries: vec![entry],
        table_segment_offset: -1,
    })
    .encode(&mut frame);
    // Header, request id, name, token and count come before the entry.
    let entry_at = 8 + 8 + 3 + 2 + 4;
    for (at, right) in [(0, 15), (19, 9)] {
        let at = entry_at + at;
        assert_eq!(frame[at..at + 4], i32::to_be_bytes(right), "a total is here");
        for lie in [right - 1, right + 1, 0, -1, i32::MIN, i32::MAX] {
            let mut bad = frame.clone();
            bad[at..at + 4].copy_from_slice(&lie.to_be_bytes());
            let decoded = Decoder::new(FRAME_BYTES_MAX).decode(&mut bad);
            assert!(matches!(decoded, Err(DecodeError::Payload { .. })), "{lie}: {decoded:?}");
        }
    }
    assert!(Decoder::new(FRAME_BYTES_MAX).decode(&mut frame).is_ok_and(|it| it.is_some()));
}
