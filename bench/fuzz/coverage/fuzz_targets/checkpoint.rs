//! The target `checkpoint` under coverage.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (thalweg_fuzz::target("checkpoint").expect("it is in the list").body)(input);
});
