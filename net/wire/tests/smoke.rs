//! A short fuzz run that is the same each time: golden frames, mutated, into the decoder and the
//! block assembly. The long runs are the targets in `fuzz/`.

use bytes::BytesMut;
use thalweg_wire::{BlockAssembly, Command, Decoder, FRAME_BYTES_MAX};

const ROUNDS: u32 = 200_000;

/// xorshift64*, so that the run does not depend on a library's generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a size fits 64 bits");
        usize::try_from(self.next() % bound).expect("below a size")
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn golden_frames() -> Vec<Vec<u8>> {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("golden/wire-commands.json")).expect("JSON");
    let vectors = golden["vectors"].as_array().expect("a list");
    let frames = vectors.iter().map(|vector| hex(vector["frame_hex"].as_str().expect("hex")));
    let sequences = golden["append_sequences"].as_array().expect("a list").iter().map(|sequence| {
        let frames = sequence["frames_hex"].as_array().expect("a list");
        frames.iter().flat_map(|frame| hex(frame.as_str().expect("hex"))).collect()
    });
    frames.chain(sequences).collect()
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next().to_le_bytes()[0],
            2 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
            3 => drop(bytes.splice(at..at, [0; 4])),
            4 if bytes.len() > 8 => drop(bytes.drain(at..(at + 3).min(bytes.len()))),
            _ => bytes.swap(at, 0),
        }
        if bytes.len() < 8 {
            bytes.resize(8, 0);
        }
    }
    // Most mutations should reach the payload: make the header agree with what is there.
    if random.below(4) != 0 {
        let payload = u32::try_from(bytes.len() - 8).expect("short");
        bytes[4..8].copy_from_slice(&payload.to_be_bytes());
    }
}

/// Two hundred thousand mutated frames, cut at one byte, end in commands that encode to what
/// decodes to the same, or in errors; blocks in appends no longer than what was received.
#[test]
fn mutated_golden_frames_never_panic() {
    let frames = golden_frames();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut commands, mut errors, mut appends) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let mut bytes = frames[random.below(frames.len())].clone();
        mutate(&mut bytes, &mut random);
        let cut = random.below(bytes.len() + 1);
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut assembly = BlockAssembly::new();
        let mut buffer = BytesMut::new();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(None) => break,
                    Err(_) => {
                        errors += 1;
                        break;
                    }
                    Ok(Some(command)) => {
                        commands += 1;
                        check_again(&command);
                        appends += u32::from(assemble(&mut assembly, command, bytes.len()));
                    }
                }
            }
        }
    }
    // The run is worth something only if it reaches all three ends often.
    assert!(commands > 50_000, "{commands} commands");
    assert!(errors > 20_000, "{errors} errors");
    assert!(appends > 1_000, "{appends} appends");
}

fn check_again(command: &Command) {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    assert_eq!(out.len(), command.encoded_len());
    let again = Decoder::new(FRAME_BYTES_MAX).decode(&mut out);
    assert_eq!(again.as_ref(), Ok(&Some(command.clone())));
}

fn assemble(assembly: &mut BlockAssembly, command: Command, received_bytes: usize) -> bool {
    match command {
        Command::AppendBlock(block) => {
            *assembly = BlockAssembly::new();
            assembly.begin(block).expect("nothing is open");
            false
        }
        Command::AppendBlockEnd(end) => match assembly.end(end) {
            Ok(append) => {
                assert!(append.content.len() <= received_bytes);
                true
            }
            Err(_) => false,
        },
        _ => false,
    }
}
