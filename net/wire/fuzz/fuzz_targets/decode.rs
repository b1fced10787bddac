//! Any bytes, cut anywhere, into the decoder: no panic, the same commands however the input is
//! cut, and every command encodes to bytes that decode to it.
//!
//! The first byte of the input says where to cut.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use thalweg_wire::{Command, DecodeError, Decoder, FRAME_BYTES_MAX};

fn decode(pieces: &[&[u8]]) -> (Vec<Command>, Option<DecodeError>) {
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

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = decode(&[bytes]);
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(decode(&[first, second]), whole);

    let mut encoded = BytesMut::new();
    for command in &whole.0 {
        let before = encoded.len();
        command.encode(&mut encoded);
        assert_eq!(encoded.len() - before, command.encoded_len());
    }
    assert_eq!(decode(&[&encoded]), (whole.0, None));
});
