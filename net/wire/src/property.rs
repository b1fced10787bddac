//! Property tests of the whole codec: every command survives encoding, any cut of the input gives
//! the same commands, and no bytes make the decoder panic.
//!
//! Values come from [`Sample`], which the layout macro implements for every command, so that a new
//! command is tested without being named here.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::TestRunner;

use crate::*;

/// Values of a field or command, such as decoding can give.
pub(crate) trait Sample: Sized {
    fn strategy() -> BoxedStrategy<Self>;
}

macro_rules! any_sample {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn strategy() -> BoxedStrategy<Self> {
                let edges = prop_oneof![Just(<$type>::MAX), Just(<$type>::MIN)];
                prop_oneof![3 => any::<$type>(), 2 => edges].boxed()
            }
        }
    )*};
}

any_sample!(i8, i32, i64, u128);

impl Sample for bool {
    fn strategy() -> BoxedStrategy<Self> {
        any::<bool>().boxed()
    }
}

impl Sample for Text {
    fn strategy() -> BoxedStrategy<Self> {
        prop_oneof!["[a-zA-Z0-9/.#_-]{0,40}", any::<String>()].prop_map(Text::from).boxed()
    }
}

impl Sample for Bytes {
    fn strategy() -> BoxedStrategy<Self> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from).boxed()
    }
}

impl<T: Sample + std::fmt::Debug + 'static> Sample for Vec<T> {
    fn strategy() -> BoxedStrategy<Self> {
        vec(T::strategy(), 0..4).boxed()
    }
}

impl Sample for KeepAlive {
    fn strategy() -> BoxedStrategy<Self> {
        Just(Self).boxed()
    }
}

impl Sample for AppendBlock {
    fn strategy() -> BoxedStrategy<Self> {
        (any::<u128>(), Bytes::strategy())
            .prop_map(|(writer_id, data)| Self { writer_id, data })
            .boxed()
    }
}

impl Sample for Padding {
    fn strategy() -> BoxedStrategy<Self> {
        (0_usize..100).prop_map(|length| Self { length }).boxed()
    }
}

impl Sample for PartialEvent {
    fn strategy() -> BoxedStrategy<Self> {
        Bytes::strategy().prop_map(|data| Self { data }).boxed()
    }
}

impl Sample for Event {
    fn strategy() -> BoxedStrategy<Self> {
        Bytes::strategy().prop_map(|data| Self { data }).boxed()
    }
}

impl Sample for FramedEvent {
    fn strategy() -> BoxedStrategy<Self> {
        Bytes::strategy().prop_map(|payload| Self::new(&payload)).boxed()
    }
}

impl Sample for TableKey {
    fn strategy() -> BoxedStrategy<Self> {
        (Bytes::strategy(), i64::strategy())
            .prop_map(|(key, version)| {
                let version = if key.is_empty() { KEY_NO_VERSION } else { version };
                Self { key, version }
            })
            .boxed()
    }
}

impl Sample for TableEntry {
    fn strategy() -> BoxedStrategy<Self> {
        (TableKey::strategy(), Bytes::strategy())
            .prop_map(|(key, value)| Self { key, value })
            .boxed()
    }
}

impl Sample for IterationArguments {
    fn strategy() -> BoxedStrategy<Self> {
        (Bytes::strategy(), Bytes::strategy(), Bytes::strategy())
            .prop_map(|(continuation_token, from_key, to_key)| Self {
                continuation_token,
                from_key,
                to_key,
            })
            .boxed()
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    Union::new(Command::strategies())
}

fn config(cases: u32) -> ProptestConfig {
    // Seeds are printed; files of them beside the source would be written in every checkout.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn encode_all(commands: &[Command]) -> BytesMut {
    let mut out = BytesMut::new();
    for command in commands {
        let before = out.len();
        command.encode(&mut out);
        assert_eq!(out.len() - before, command.encoded_len(), "{}", command.name());
    }
    out
}

/// Gives `bytes` to one decoder in the pieces that `cuts` make of them.
fn decode_in_pieces(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Vec<Command>, DecodeError> {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    let mut fed = 0;
    for cut in cuts.into_iter().chain([bytes.len()]) {
        buffer.extend_from_slice(&bytes[fed..cut]);
        fed = cut;
        while let Some(command) = decoder.decode(&mut buffer)? {
            commands.push(command);
        }
        assert_eq!(decoder.pending_bytes(), 0);
        if let Some(header) = buffer.first_chunk::<8>() {
            let length = i32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let frame = 8 + usize::try_from(length).expect("checked by the decoder");
            assert_eq!(decoder.needed(&buffer), frame - buffer.len());
        } else {
            assert_eq!(decoder.needed(&buffer), 0);
        }
    }
    Ok(commands)
}

fn frame(code: i32, payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len()).expect("short");
    [&code.to_be_bytes(), &length.to_be_bytes(), payload].concat()
}

/// What decodes is a value that survives encoding, even where other bytes mean the same value.
fn check_decoded_is_stable(bytes: &[u8]) {
    let Ok(commands) = decode_in_pieces(bytes, []) else { return };
    let again = decode_in_pieces(&encode_all(&commands), []).expect("what we write we read");
    assert_eq!(again, commands);
}

/// Each command of the table, with values from its fields' whole ranges, is read back as written.
#[test]
fn decode_undoes_encode_for_every_command() {
    let strategies = Command::strategies();
    assert_eq!(strategies.len(), 70);
    for strategy in strategies {
        let result = TestRunner::new(config(48)).run(&strategy, |command| {
            let bytes = encode_all(std::slice::from_ref(&command));
            prop_assert_eq!(decode_in_pieces(&bytes, []), Ok(vec![command]));
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A short run of commands, cut at every single byte, gives the same commands.
#[test]
fn one_cut_at_any_byte_changes_nothing() {
    let commands: Vec<Command> = vec![
        Hello::OURS.into(),
        AppendBlock { writer_id: 7, data: Bytes::from_static(b"abc") }.into(),
        KeepAlive.into(),
        SegmentCreated { request_id: 3, segment: Text::from("scope/stream/0.#epoch.0") }.into(),
        Padding { length: 11 }.into(),
    ];
    let bytes = encode_all(&commands);
    for cut in 0..=bytes.len() {
        assert_eq!(decode_in_pieces(&bytes, [cut]), Ok(commands.clone()), "cut at {cut}");
    }
    assert_eq!(decode_in_pieces(&bytes, 0..bytes.len()), Ok(commands));
}

proptest! {
    #![proptest_config(config(256))]

    /// Any commands, cut at any bytes, give the same commands.
    #[test]
    fn any_cuts_change_nothing(
        commands in vec(any_command(), 1..8),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = encode_all(&commands);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode_in_pieces(&bytes, cuts), Ok(commands));
    }

    /// Bytes without any order decode to an error, nothing or commands, never to a panic.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        check_decoded_is_stable(&bytes);
    }

    /// Valid headers around payloads without any order never panic.
    #[test]
    fn arbitrary_payloads_never_panic(
        code in -6..=100_i32,
        payload in vec(prop_oneof![Just(0_u8), Just(0xFF), 0..8_u8, any::<u8>()], 0..120),
    ) {
        check_decoded_is_stable(&frame(code, &payload));
    }

    /// Valid frames with some bytes changed, or cut short with a header that says so, never panic.
    #[test]
    fn mutated_frames_never_panic(
        command in any_command(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_all(std::slice::from_ref(&command)).to_vec();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        check_decoded_is_stable(&bytes);
        let payload = &bytes[8..];
        check_decoded_is_stable(&frame(command.code(), &payload[..cut.index(payload.len() + 1)]));
    }

    /// What Java writes for any string is read as that string.
    #[test]
    fn modified_utf8_is_read(text in any::<String>(), ascii in "[a-z\\x00]{0,8}") {
        let text = ascii + &text;
        let mut payload = vec![0; 8];
        let modified = modified_utf8(&text);
        payload.extend_from_slice(&u16::try_from(modified.len()).expect("short").to_be_bytes());
        payload.extend_from_slice(&modified);
        let expected = SegmentSealed { request_id: 0, segment: Text::from(text) };
        prop_assert_eq!(decode_in_pieces(&frame(29, &payload), []), Ok(vec![expected.into()]));
    }
}

/// Java's encoding: each UTF-16 unit by itself, and U+0000 in two bytes.
fn modified_utf8(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for unit in text.encode_utf16().map(u32::from) {
        let low = |shift: u32| u8::try_from(0x80 | (unit >> shift & 0x3F)).expect("six bits");
        let top = |mark: u32, shift: u32| u8::try_from(mark | unit >> shift).expect("few bits");
        match unit {
            1..0x80 => out.push(top(0, 0)),
            0 | 0x80..0x800 => out.extend([top(0xC0, 6), low(0)]),
            _ => out.extend([top(0xE0, 12), low(6), low(0)]),
        }
    }
    out
}
