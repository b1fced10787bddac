//! The wire: decoder and assembly of appends.

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlock, AppendBlockEnd, BlockAssembly, Command, DecodeError, Decoder, FRAME_BYTES_MAX,
};

/// Frames made by the encoders of stock clients, and sequences of them.
const VECTORS: &str = include_str!("../../../net/wire/tests/golden/wire-commands.json");

/// Frames of the golden vectors. They are found by their key, without a parser of JSON.
pub(crate) fn vectors() -> Vec<Vec<u8>> {
    VECTORS
        .split("\"frame_hex\": \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|hex| {
            hex.as_bytes()
                .chunks_exact(2)
                .map(|pair| {
                    let digits = std::str::from_utf8(pair).expect("vectors are text");
                    u8::from_str_radix(digits, 16).expect("vectors are hexadecimal")
                })
                .collect()
        })
        .collect()
}

/// Each vector behind a cut, and a few behind each other.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let vectors = vectors();
    let single = vectors.iter().map(|frame| [&[5], frame.as_slice()].concat());
    let several = vectors.chunks(5).map(|frames| [vec![40], frames.concat()].concat());
    single.chain(several).collect()
}

fn decoded(pieces: &[&[u8]]) -> (Vec<Command>, Option<DecodeError>) {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

/// Any bytes, cut anywhere, give the same commands, and every command encodes to bytes that decode
/// to it. The first byte of the input says where to cut.
pub(crate) fn decode(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = decoded(&[bytes]);
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(decoded(&[first, second]), whole);

    let mut encoded = BytesMut::new();
    for command in &whole.0 {
        let before = encoded.len();
        command.encode(&mut encoded);
        assert_eq!(encoded.len() - before, command.encoded_len());
    }
    assert_eq!(decoded(&[&encoded]), (whole.0, None));
}

/// Controls for blocks whole, cut inside, and absent.
pub(crate) fn block_seeds() -> Vec<Vec<u8>> {
    let content = [0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 2, 5, 6];
    [[1, 10, 12, 0, 12, 0, 0, 0], [0, 9, 0, 0, 0, 0, 0, 0], [5, 10, 4, 0, 0, 0, 0, 22]]
        .into_iter()
        .map(|control: [u8; 8]| [control.as_slice(), &content].concat())
        .collect()
}

/// Any block and end: an append is never longer than what was given to it, and its parts are what
/// came. The input is a control word of 8 bytes, then the bytes of the block and of its end.
pub(crate) fn block_assembly(input: &[u8]) {
    let Some((control, bytes)) = input.split_first_chunk::<8>() else { return };
    let [flags, events, cut, _, size @ ..] = *control;
    let received = Bytes::copy_from_slice(bytes);
    let cut = usize::from(cut).min(received.len());
    let (data, end_data) = (received.slice(..cut), received.slice(cut..));

    let mut assembly = BlockAssembly::new();
    let with_block = flags & 1 != 0;
    if with_block {
        let block = AppendBlock { writer_id: 1, data: data.clone() };
        assembly.begin(block.clone()).expect("nothing is open");
        assert!(assembly.interrupt().is_err());
        if flags & 2 != 0 {
            assert!(assembly.begin(block).is_err());
        }
    }
    // Mostly a small size, so that the block is often cut inside.
    let size_of_whole_events =
        if flags & 4 != 0 { i32::from_be_bytes(size) } else { i32::from(size[0]) };
    let result = assembly.end(AppendBlockEnd {
        writer_id: u128::from(flags >> 7) + 1,
        size_of_whole_events,
        data: end_data.clone(),
        event_count: i32::from(events) - 8,
        last_event_number: 1,
        request_id: 1,
    });
    assert!(!assembly.is_open());
    if let Ok(append) = result {
        assert!(append.event_count > 0);
        assert!(append.content.len() <= received.len());
        let joined = append.content.clone().into_bytes();
        let parts: Vec<u8> = append.content.into_parts().flat_map(|part| part.to_vec()).collect();
        assert_eq!(joined, parts);
        if !with_block {
            assert_eq!(joined, end_data);
        }
    }
}
