//! Mutations of inputs, the same for the same seed: what a fuzzer does without looking at coverage.

/// Longest input made.
const INPUT_BYTES_MAX: usize = 4096;

/// Values at which arithmetic tends to break.
const EDGES: [u64; 8] = [0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0xFFFF_FFFF, i64::MAX as u64, u64::MAX];

/// Makes inputs out of seeds.
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    /// Begins with these inputs.
    pub fn new(seed: u64, mut pool: Vec<Vec<u8>>) -> Self {
        pool.push(Vec::new());
        Self { state: seed, pool }
    }

    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let chosen = self.below(self.pool.len());
        let mut input = self.pool[chosen].clone();
        for _ in 0..=self.below(6) {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            let length = self.below(64);
            input.extend((0..length).map(|_| self.number() as u8));
            return;
        }
        let at = self.below(input.len());
        match self.below(8) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.number() as u8,
            2 => {
                let edge = EDGES[self.below(EDGES.len())];
                let edge = if self.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
                let width = (1 << self.below(4)).min(input.len() - at);
                let from = if self.below(2) == 0 { 0 } else { 8 - width };
                input[at..at + width].copy_from_slice(&edge[from..from + width]);
            }
            3 => input.truncate(at),
            4 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            5 => {
                let end = (at + 1 + self.below(32)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            6 => {
                let other = self.below(self.pool.len());
                let from = self.below(self.pool[other].len());
                let tail = self.pool[other][from..].to_vec();
                input.truncate(at);
                input.extend(tail);
            }
            _ => input[at] = input[at].wrapping_add(if self.below(2) == 0 { 1 } else { 255 }),
        }
    }
}
