//! Single bits flipped in directories at rest, one at a time.
//!
//! `THALWEG_FLIPS` sets how many.

use thalweg_journal::memory::Random;
use thalweg_sweep::reference::Reference;
use thalweg_sweep::rot::{Class, Specimen, Table};
use thalweg_sweep::scenarios;

const FLIPS: u64 = 600;

/// F6, F8, R4, R5: whatever bit is flipped, nothing wrong is served and nothing that is there is
/// denied; what cannot be served any more is named with file and offset, and only the containers
/// or bytes that it hit are closed.
#[test]
fn no_flipped_bit_is_served_and_each_is_named_or_harmless() {
    let flips = std::env::var("THALWEG_FLIPS").ok().and_then(|text| text.parse().ok());
    let flips: u64 = flips.unwrap_or(FLIPS);
    let scripts = scenarios::all();
    let mut random = Random(0xB17);
    let mut table = Table::new();
    let share = flips.div_ceil(scripts.len() as u64);
    for script in &scripts {
        let reference = Reference::of(script);
        let specimen = Specimen::of(script, &reference);
        for _ in 0..share {
            let (file, offset, bit) = specimen.draw(&mut random);
            match specimen.flip(&file, offset, bit) {
                Ok(class) => *table.entry(class).or_default() += 1,
                Err(error) => panic!("{}, {file} at {offset}, bit {bit}: {error}", script.name),
            }
        }
    }
    println!("flipped bits: {} in all, {table:?}", table.values().sum::<u64>());
    for class in [Class::ContainersClosed, Class::BytesClosed, Class::NamedAndHealed, Class::Unused]
    {
        assert!(table.contains_key(&class), "no flip came to {class:?}: {table:?}");
    }
}
