//! Golden bytes: every vector made by the encoders of both client families is decoded to the value
//! its fields name, and that value is encoded to the same bytes.
//!
//! The vectors are in `golden/wire-commands.json`. Where we do not write the bytes of a vector, the
//! table `NOT_WRITTEN` says which and why, and the test shows what is written or refused instead.

#[path = "golden/expected.rs"]
mod expected;

use bytes::{Bytes, BytesMut};
use expected::{Fields, expected, hex};
use serde_json::Value;
use thalweg_wire::{
    BlockAssembly, Command, DecodeError, Decoder, FRAME_BYTES_MAX, FramedEvent, Message, Role,
    event,
};

/// What we do with a vector whose bytes we never write.
enum Instead {
    /// It decodes to the value of its fields, and is written as another vector (name and variant)
    /// of the same value.
    WrittenAs(&'static str, &'static str),
    /// It decodes to the value of its fields, with defaults for what it lacks.
    DecodedWithDefaults,
    /// Its code is unknown.
    Unknown,
    /// Its layout is another one, of a reply that we only send or a command never sent: not decoded
    /// to its fields.
    OtherLayout,
}

/// Vectors that are not re-encoded to their own bytes.
const NOT_WRITTEN: [(&str, &str, Instead, &str); 12] = [
    (
        "modified UTF-8",
        "quirk",
        Instead::WrittenAs("plain UTF-8", "rust"),
        "we write plain UTF-8, which both families read for every name in use",
    ),
    (
        "InvalidEventNumber",
        "rust",
        Instead::DecodedWithDefaults,
        "the short form is a prefix of what we send",
    ),
    ("CreateSegment", "rust", Instead::DecodedWithDefaults, "no rollover size"),
    ("CreateTableSegment", "rust", Instead::DecodedWithDefaults, "no key length and rollover size"),
    ("MergeSegments", "rust", Instead::DecodedWithDefaults, "no attribute updates"),
    ("ReadTableKeys", "rust", Instead::DecodedWithDefaults, "only a token"),
    ("ReadTableEntries", "rust", Instead::DecodedWithDefaults, "only a token"),
    ("MergeTableSegments", "rust", Instead::Unknown, "retired code, never sent"),
    ("SealTableSegment", "rust", Instead::Unknown, "retired code, never sent"),
    (
        "AppendBlock",
        "rust",
        Instead::OtherLayout,
        "a counted array that is never sent; the data is raw",
    ),
    (
        "TableSegmentInfo",
        "rust",
        Instead::OtherLayout,
        "a reply that servers send in the java layout",
    ),
    (
        "SegmentsBatchMerged",
        "rust",
        Instead::OtherLayout,
        "a reply that servers send in the java layout",
    ),
];

/// Vectors whose bytes are read as if they were in the java layout, and so with another meaning.
const READ_AS_JAVA: [(&str, &str); 1] = [("TableKey empty data", "rust")];

fn vectors() -> Vec<Value> {
    golden()["vectors"].as_array().expect("a list of vectors").clone()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/wire-commands.json"))
        .expect("the golden file is JSON")
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().expect("a string")
}

fn decode_all(bytes: &[u8]) -> Result<Vec<Command>, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut commands = Vec::new();
    while let Some(command) = decoder.decode(&mut buffer)? {
        commands.push(command);
    }
    assert!(buffer.is_empty(), "nothing is left of complete frames");
    Ok(commands)
}

fn decode_one(bytes: &[u8]) -> Result<Command, DecodeError> {
    let mut commands = decode_all(bytes)?;
    assert_eq!(commands.len(), 1);
    Ok(commands.remove(0))
}

fn encoded(command: &Command) -> Vec<u8> {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    assert_eq!(out.len(), command.encoded_len(), "encoded_len of {}", command.name());
    out.to_vec()
}

/// Each vector of the java dialect, and each of the rust dialect with the same layout, decodes to
/// its fields and encodes back to its bytes; the others do what the table says.
#[test]
fn golden_vectors_decode_and_encode_to_the_same_bytes() {
    let mut exact = 0;
    let mut otherwise = 0;
    for vector in vectors() {
        let (name, variant) = (text(&vector, "name"), text(&vector, "variant"));
        let frame = hex(text(&vector, "frame_hex"));
        if READ_AS_JAVA.contains(&(name, variant)) {
            continue;
        }
        match NOT_WRITTEN.iter().find(|row| (row.0, row.1) == (name, variant)) {
            None => {
                let command = expected(name, &Fields(&vector["fields"]));
                assert_eq!(decode_one(&frame), Ok(command.clone()), "{name} ({variant})");
                assert_eq!(encoded(&command), frame, "{name} ({variant})");
                assert_eq!(
                    i64::from(command.code()),
                    vector["type_code"].as_i64().expect("a code")
                );
                exact += 1;
            }
            Some((_, _, instead, why)) => {
                check_instead(name, &vector["fields"], &frame, instead, why);
                otherwise += 1;
            }
        }
    }
    assert_eq!(otherwise, NOT_WRITTEN.len(), "every row of the table is met");
    assert_eq!(exact, 87 - NOT_WRITTEN.len() - READ_AS_JAVA.len());
}

fn check_instead(name: &str, fields: &Value, frame: &[u8], instead: &Instead, why: &str) {
    match instead {
        Instead::WrittenAs(other_name, other_variant) => {
            let other = vectors()
                .into_iter()
                .find(|other| {
                    (text(other, "name"), text(other, "variant")) == (*other_name, *other_variant)
                })
                .expect("the other vector");
            let command = expected(name, &Fields(fields));
            assert_eq!(decode_one(frame), Ok(command.clone()), "{name}: {why}");
            assert_eq!(encoded(&command), hex(text(&other, "frame_hex")), "{name}: {why}");
        }
        Instead::DecodedWithDefaults => {
            let command = expected(name, &Fields(fields));
            assert_eq!(decode_one(frame), Ok(command.clone()), "{name}: {why}");
            let whole = encoded(&command);
            assert!(
                whole.len() > frame.len() && whole[8..].starts_with(&frame[8..]),
                "{name}: {why}"
            );
        }
        Instead::Unknown => {
            assert!(
                matches!(decode_one(frame), Err(DecodeError::UnknownCommand { .. })),
                "{name}: {why}"
            );
        }
        Instead::OtherLayout => {
            // Whatever comes out, it is not a panic, and it is not taken for a java value with
            // these bytes.
            if let Ok(command) = decode_one(frame) {
                assert_eq!(command.name(), name, "{name}: {why}");
            }
        }
    }
}

/// A key without bytes in R's layout has a version that J's layout lacks: it decodes to an empty
/// key, for the server to refuse, and the version is taken for trailing bytes.
#[test]
fn empty_table_key_of_either_family_decodes_to_an_empty_key() {
    let mut seen = 0;
    for vector in
        vectors().iter().filter(|vector| text(vector, "name").starts_with("TableKey empty data"))
    {
        let command =
            decode_one(&hex(text(vector, "frame_hex"))).expect("both layouts are readable");
        let keys = match command {
            Command::ReadTable(read) => read.keys,
            Command::RemoveTableKeys(remove) => remove.keys,
            other => panic!("a command with keys, not {}", other.name()),
        };
        assert_eq!(keys.len(), 1);
        assert!(keys[0].key.is_empty());
        seen += 1;
    }
    assert_eq!(seen, 2);
}

/// Every trailing optional field may be left out: each golden frame, cut where an optional field
/// begins, decodes to the value with the stated default, checked by encoding it whole.
#[test]
fn absent_optional_fields_take_their_defaults() {
    // Command, bytes of optional fields at the end of its golden frame, what the whole frame ends
    // in then.
    let cut_and_default: [(&str, usize, &str); 12] = [
        ("AppendBlockEnd", 8, "ffffffffffffffff"),
        ("ConditionalAppend", 8, "ffffffffffffffff"),
        ("DataAppended", 24, "ffffffffffffffffffffffffffffffffffffffffffffffff"),
        ("DataAppended", 16, "ffffffffffffffffffffffffffffffff"),
        ("DataAppended", 8, "ffffffffffffffff"),
        ("ConditionalCheckFailed", 8, "ffffffffffffffff"),
        ("ReadSegment", 8, "ffffffffffffffff"),
        ("SegmentRead", 8, "ffffffffffffffff"),
        ("StreamSegmentInfo", 8, "0000000000000000"),
        ("SegmentsMerged", 8, "ffffffffffffffff"),
        ("NoSuchSegment", 10, "0000ffffffffffffffff"),
        ("AuthTokenCheckFailed", 6, "0000ffffffff"),
    ];
    for (name, cut, default) in cut_and_default {
        let vector =
            vectors().into_iter().find(|vector| text(vector, "name") == name).expect("a vector");
        let mut frame = hex(text(&vector, "frame_hex"));
        frame.truncate(frame.len() - cut);
        let payload = u32::try_from(frame.len() - 8).expect("short");
        frame[4..8].copy_from_slice(&payload.to_be_bytes());
        let whole = encoded(&decode_one(&frame).expect("optional fields may be absent"));
        assert_eq!(whole[8..], [&frame[8..], &hex(default)].concat(), "{name} without {cut} bytes");
    }
}

/// Bytes behind the last field are ignored in every command whose layout ends, Hello and KeepAlive
/// among them.
#[test]
fn extra_trailing_bytes_are_ignored() {
    let raw_to_the_end = ["AppendBlock", "Padding", "PartialEvent"];
    for vector in vectors() {
        let (name, variant) = (text(&vector, "name"), text(&vector, "variant"));
        if raw_to_the_end.contains(&name)
            || NOT_WRITTEN.iter().any(|row| (row.0, row.1) == (name, variant))
        {
            continue;
        }
        let mut frame = hex(text(&vector, "frame_hex"));
        let plain = decode_one(&frame).expect("golden");
        frame.extend_from_slice(&[0xAB; 5]);
        let payload = u32::try_from(frame.len() - 8).expect("short");
        frame[4..8].copy_from_slice(&payload.to_be_bytes());
        assert_eq!(decode_one(&frame), Ok(plain), "{name} ({variant})");
    }
}

/// The golden append sequences, each given to a fresh assembly, append exactly the bytes that the
/// original decoder did.
#[test]
fn golden_append_sequences_assemble() {
    let golden = golden();
    let sequences = golden["append_sequences"].as_array().expect("a list of sequences");
    assert_eq!(sequences.len(), 4);
    for sequence in sequences {
        let name = text(sequence, "name");
        let frames: Vec<u8> = sequence["frames_hex"]
            .as_array()
            .expect("a list of frames")
            .iter()
            .flat_map(|frame| hex(frame.as_str().expect("hex")))
            .collect();
        let mut assembly = BlockAssembly::new();
        let mut appended = None;
        for command in decode_all(&frames).expect("golden") {
            match command {
                Command::AppendBlock(block) => assembly.begin(block).expect(name),
                Command::AppendBlockEnd(end) => appended = Some(assembly.end(end).expect(name)),
                other => panic!("{name} has a {}", other.name()),
            }
        }
        let appended = appended.expect("each sequence ends in an AppendBlockEnd");
        assert_eq!(
            i64::from(appended.event_count),
            sequence["numEvents"].as_i64().expect("a count"),
            "{name}"
        );
        assert_eq!(
            appended.last_event_number,
            sequence["lastEventNumber"].as_i64().expect("a number"),
            "{name}"
        );
        assert_eq!(appended.request_id, 0x0000_0007_0000_0009, "{name}");
        let content = hex(text(sequence, "appended_hex"));
        assert_eq!(appended.content.len(), content.len(), "{name}");
        assert_eq!(appended.content.into_bytes(), content, "{name}");
    }
}

/// The golden event framing, written and read.
#[test]
fn golden_event_framing() {
    let golden = golden();
    let (payload, framed) = (
        hex(text(&golden["event_framing"], "payload_hex")),
        hex(text(&golden["event_framing"], "framed_hex")),
    );
    let mut out = BytesMut::new();
    event::encode(&payload, &mut out);
    assert_eq!(out, framed);
    assert_eq!(FramedEvent::new(&payload).framed(), framed);
    let mut data = out.freeze();
    assert_eq!(event::decode(&mut data), Ok(Some(Bytes::from(payload))));
    assert!(data.is_empty());
}

/// The parts of the commands sent around their data are the bytes of the whole command.
#[test]
fn heads_and_tails_around_data_are_the_whole_command() {
    for vector in vectors() {
        let frame = hex(text(&vector, "frame_hex"));
        let mut out = BytesMut::new();
        match decode_one(&frame) {
            Ok(Command::SegmentRead(read)) => {
                let head = thalweg_wire::SegmentReadHead {
                    segment: read.segment,
                    offset: read.offset,
                    at_tail: read.at_tail,
                    end_of_segment: read.end_of_segment,
                    data_length: read.data.len(),
                };
                head.encode(&mut out);
                assert_eq!(out.len(), head.encoded_len());
                out.extend_from_slice(&read.data);
                thalweg_wire::SegmentReadTail { request_id: read.request_id }.encode(&mut out);
            }
            Ok(Command::AppendBlockEnd(end)) => {
                let head = thalweg_wire::AppendBlockEndHead {
                    writer_id: end.writer_id,
                    size_of_whole_events: end.size_of_whole_events,
                    data_length: end.data.len(),
                };
                head.encode(&mut out);
                assert_eq!(out.len(), thalweg_wire::AppendBlockEndHead::ENCODED_LEN);
                out.extend_from_slice(&end.data);
                thalweg_wire::AppendBlockEndTail {
                    event_count: end.event_count,
                    last_event_number: end.last_event_number,
                    request_id: end.request_id,
                }
                .encode(&mut out);
            }
            _ => continue,
        }
        assert_eq!(out, frame, "{}", text(&vector, "name"));
    }
}

/// Names, codes, parts and request ids of the commands are those of the vectors.
#[test]
fn names_codes_and_request_ids_are_those_of_the_protocol() {
    for vector in vectors() {
        let Ok(command) = decode_one(&hex(text(&vector, "frame_hex"))) else { continue };
        assert_eq!(Command::name_of(command.code()), Some(command.name()));
        if command.name() == text(&vector, "name") {
            let request_id =
                vector["fields"].get("requestId").map(|id| id.as_i64().expect("an id"));
            assert_eq!(command.request_id(), request_id, "{}", command.name());
            let without_id = matches!(command.role(), Role::Session | Role::Framing)
                || command.name() == "AppendBlock";
            assert_eq!(request_id.is_none(), without_id, "{}", command.name());
        }
    }
    assert_eq!(thalweg_wire::Hello::CODE, -127);
    for retired in [6, 54, 62, 63, 64, 65, 66, 67, 72, 73, 101, i32::MIN, i32::MAX] {
        assert_eq!(Command::name_of(retired), None);
    }
}
