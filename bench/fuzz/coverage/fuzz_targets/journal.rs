//! The target `journal` under coverage.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (thalweg_fuzz::target("journal").expect("it is in the list").body)(input);
});
