//! The target `block_assembly` under coverage.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (thalweg_fuzz::target("block_assembly").expect("it is in the list").body)(input);
});
