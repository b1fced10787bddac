//! Frames of an engine, forged: operations and checkpoints that have right checksums and wrong
//! content. Beyond what a disk does, but a bug of ours could write it once and read it for ever.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use thalweg_core::frame::FRAME_HEADER_BYTES;
use thalweg_wire::*;

use crate::Input;
use crate::server::{Frame, Server};

const SEGMENTS: [&str; 3] = ["s/a/0.#epoch.0", "s/b/0.#epoch.0", "s/c/0.#epoch.0"];
const TABLE: &str = "s/t/0.#epoch.0";
const WRITER: u128 = 7;

fn put(command: impl Into<Command>, out: &mut BytesMut) {
    command.into().encode(out);
}

fn append(number: i64, bytes: usize) -> AppendBlockEnd {
    AppendBlockEnd {
        writer_id: WRITER,
        size_of_whole_events: 0,
        data: Bytes::from(vec![number as u8; bytes]),
        event_count: 1,
        last_event_number: number,
        request_id: 3,
    }
}

/// What a client sends that makes segments and a table and uses them in most ways.
pub(crate) fn session() -> Vec<u8> {
    let mut out = BytesMut::new();
    let token = Text::new();
    for segment in SEGMENTS {
        put(
            CreateSegment {
                request_id: 1,
                segment: segment.into(),
                target_rate: 0,
                scale_type: 0,
                delegation_token: token.clone(),
                rollover_size_bytes: 0,
            },
            &mut out,
        );
    }
    put(
        CreateTableSegment {
            request_id: 1,
            segment: TABLE.into(),
            delegation_token: token.clone(),
            sorted_deprecated: false,
            key_length: 0,
            rollover_size_bytes: 0,
        },
        &mut out,
    );
    for segment in SEGMENTS {
        let set_up = SetupAppend {
            request_id: 2,
            writer_id: WRITER,
            segment: segment.into(),
            delegation_token: token.clone(),
        };
        put(set_up, &mut out);
        for number in 0..6 {
            put(append(number, 300 * (number as usize + 1)), &mut out);
        }
    }
    let entry = |key: &'static str, value: &'static str| TableEntry {
        key: TableKey { key: Bytes::from_static(key.as_bytes()), version: KEY_NO_VERSION },
        value: Bytes::from_static(value.as_bytes()),
    };
    put(
        UpdateTableEntries {
            request_id: 4,
            segment: TABLE.into(),
            delegation_token: token.clone(),
            entries: vec![entry("key", "value"), entry("other", "")],
            table_segment_offset: -1,
        },
        &mut out,
    );
    put(
        RemoveTableKeys {
            request_id: 4,
            segment: TABLE.into(),
            delegation_token: token.clone(),
            keys: vec![entry("other", "").key],
            table_segment_offset: -1,
        },
        &mut out,
    );
    put(
        UpdateSegmentAttribute {
            request_id: 5,
            segment: SEGMENTS[0].into(),
            attribute_id: 99,
            new_value: 5,
            expected_value: NULL_ATTRIBUTE_VALUE,
            delegation_token: token.clone(),
        },
        &mut out,
    );
    let truncate = TruncateSegment {
        request_id: 6,
        segment: SEGMENTS[0].into(),
        truncation_offset: 500,
        delegation_token: token.clone(),
    };
    put(truncate, &mut out);
    let seal =
        SealSegment { request_id: 7, segment: SEGMENTS[2].into(), delegation_token: token.clone() };
    put(seal, &mut out);
    put(
        MergeSegments {
            request_id: 8,
            target: SEGMENTS[1].into(),
            source: SEGMENTS[2].into(),
            delegation_token: token,
            attribute_updates: Vec::new(),
        },
        &mut out,
    );
    out.to_vec()
}

/// Asks for what the session made. Answers are judged only as far as forged state allows: a read
/// is not longer than the segment is said to be, and nothing panics.
pub(crate) fn look_around(server: &mut Server) {
    let token = Text::new();
    for segment in SEGMENTS {
        let info = GetStreamSegmentInfo {
            request_id: 5,
            segment: segment.into(),
            delegation_token: token.clone(),
        };
        let Some(Command::StreamSegmentInfo(info)) = server.ask(&info).pop() else {
            server.reconnect();
            continue;
        };
        assert!(info.start_offset <= info.write_offset, "{info:?}");
        for offset in
            [info.start_offset, info.start_offset + (info.write_offset - info.start_offset) / 2]
        {
            let read = ReadSegment {
                segment: segment.into(),
                offset,
                suggested_length: 1 << 20,
                delegation_token: token.clone(),
                request_id: 4,
            };
            match server.ask(&read).pop() {
                Some(Command::SegmentRead(read)) => {
                    let end = read.offset + read.data.len() as i64;
                    assert!(end <= info.write_offset, "{read:?}");
                }
                // At the tail a read waits.
                _ => server.reconnect(),
            }
        }
        let set_up = SetupAppend {
            request_id: 2,
            writer_id: WRITER,
            segment: segment.into(),
            delegation_token: token.clone(),
        };
        let _ = server.ask(&set_up);
        let _ = server.ask(&append(i64::MAX - 1, 10));
        server.reconnect();
    }
    let keys = ReadTableKeys {
        request_id: 9,
        segment: TABLE.into(),
        delegation_token: token,
        suggested_key_count: 10,
        iteration: IterationArguments::default(),
    };
    let _ = server.ask(&keys);
}

/// Frames that a session left behind, with checkpoints among them.
fn base() -> &'static [Frame] {
    static FRAMES: OnceLock<Vec<Frame>> = OnceLock::new();
    FRAMES.get_or_init(|| {
        let mut server = Server::over(&[]);
        server.reconnect();
        server.receive(&session());
        let _ = server.replies();
        look_around(&mut server);
        assert!(!server.has_halted());
        server.frames()
    })
}

/// Nothing changed, and a change in each of the first frames.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..12).map(|frame| vec![frame, 9, 0, 1, 0x80]).collect();
    seeds.push(Vec::new());
    seeds
}

/// Applies the edits of `input` inside `places` (frame, and bytes in it), then opens the frames and
/// uses what they hold.
fn forge(input: &[u8], places: &[(usize, Range<usize>)]) {
    let mut frames = base().to_vec();
    let mut input = Input(input);
    while !input.is_empty() {
        let (frame, range) = &places[usize::from(input.byte()) % places.len()];
        edit(&mut frames, *frame, range.clone(), &mut input);
    }
    let mut server = Server::over(&frames);
    server.reconnect();
    look_around(&mut server);
}

/// One edit: where, what kind, and its bytes.
fn edit(frames: &mut [Frame], frame: usize, range: Range<usize>, input: &mut Input<'_>) {
    let mut bytes = frames[frame].2.to_vec();
    let control = input.byte();
    let at = range.start + usize::from(input.short()) % range.len();
    match control % 8 {
        0 => bytes[at] ^= input.byte(),
        1 | 2 => {
            let value = input.take(1 + usize::from(control >> 5));
            let length = value.len().min(range.end - at);
            bytes[at..at + length].copy_from_slice(&value[..length]);
        }
        3 => bytes[at] = input.byte(),
        4 => bytes[at..range.end].fill(0),
        5 => {
            // What stands in another frame, in place of this.
            let from = &frames[usize::from(input.byte()) % frames.len()].2;
            let length = range.len().min(from.len() - FRAME_HEADER_BYTES);
            let piece = &from[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length];
            bytes[range.start..range.start + length].copy_from_slice(piece);
        }
        6 => {
            let length = usize::from(input.byte()).min(range.end - at);
            bytes.copy_within(at..at + length, range.start);
        }
        _ => bytes[at] = bytes[at].wrapping_add(input.byte()),
    }
    frames[frame].2 = Bytes::from(bytes);
}

/// Forged operations of any kind.
pub(crate) fn operations(input: &[u8]) {
    static PLACES: OnceLock<Vec<(usize, Range<usize>)>> = OnceLock::new();
    forge(input, PLACES.get_or_init(|| places(|_| true)));
}

/// Forged pieces of checkpoints, their headers left alone.
pub(crate) fn checkpoints(input: &[u8]) {
    static PLACES: OnceLock<Vec<(usize, Range<usize>)>> = OnceLock::new();
    let of_checkpoint = || {
        let mut places = places(|kind| kind == CHECKPOINT);
        places.iter_mut().for_each(|(_, range)| range.start += OPERATION_HEADER_BYTES);
        places
    };
    forge(input, PLACES.get_or_init(of_checkpoint));
}

/// Where the operations of these kinds stand in the frames (`docs/formats.md`, "Operations and
/// checkpoints").
fn places(is_wanted: impl Fn(u8) -> bool) -> Vec<(usize, Range<usize>)> {
    let mut places = Vec::new();
    for (number, (_, _, frame)) in base().iter().enumerate() {
        let mut at = FRAME_HEADER_BYTES;
        while let Some((length, rest)) = frame[at..].split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length == 0 {
                break;
            }
            if is_wanted(rest[0]) {
                places.push((number, at..at + length));
            }
            at += length;
        }
    }
    assert!(!places.is_empty(), "a session leaves operations of every kind behind");
    places
}

const OPERATION_HEADER_BYTES: usize = 16;
const CHECKPOINT: u8 = 10;
