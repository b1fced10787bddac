use thalweg_core::fault::FaultClass;
use thalweg_core::position::{FileId, FrameNumber};

use super::world::{World, tiny};
use crate::files::journal_name;
use crate::inspect::{FileState, Item, Summary, inspect};

fn written(frames: usize) -> World {
    let mut world = World::open(1, tiny());
    world.replay_from = Some(FrameNumber(1));
    for _ in 0..frames {
        world.write(2);
    }
    world.settle();
    world.rest();
    world.restart();
    world
}

fn list(world: &World) -> (Vec<Item>, Summary) {
    let mut items = Vec::new();
    let device = world.disk.device();
    let summary = inspect(device, world.config.clone(), &mut |item| items.push(item));
    (items, summary.expect("can be listed"))
}

/// Every file and record is listed once and in order, and nothing is changed by listing.
#[test]
fn the_list_is_complete_and_changes_nothing() {
    let world = written(30);
    let names = world.disk.files();
    let before: Vec<_> = names.iter().map(|(name, _)| world.disk.read(name)).collect();
    let (items, summary) = list(&world);
    let after: Vec<_> = names.iter().map(|(name, _)| world.disk.read(name)).collect();
    assert_eq!((world.disk.files(), before), (names.clone(), after));
    let frames: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            Item::Record(record) if record.kind == "frame" => Some(record.frame.0),
            _ => None,
        })
        .collect();
    assert_eq!(frames, (1..=30).collect::<Vec<_>>());
    let files = items.iter().filter(|item| matches!(item, Item::File { .. })).count();
    assert_eq!(files, names.len());
    let first = &items[0];
    let Item::File { name, state: FileState::InUse { first_sequence: 1, .. }, .. } = first else {
        panic!("{first:?}");
    };
    assert_eq!(name, &journal_name(FileId(1)));
    assert_eq!((summary.last_frame, summary.damaged, summary.tail_bytes), (FrameNumber(30), 0, 0));
    assert_eq!(summary.next_sequence, 1 + 30 + 1 + 1, "opening, frames, beacon");
}

/// Damage is listed where it is.
#[test]
fn damage_is_listed_with_its_place() {
    let world = written(30);
    let address = world.written[&FrameNumber(9)].address;
    world.disk.change(&journal_name(address.file()), |bytes| {
        bytes[usize::try_from(address.file_offset()).expect("small") + 200] ^= 1;
    });
    let (items, summary) = list(&world);
    assert_eq!(summary.damaged, 1);
    let fault = items.iter().find_map(|item| match item {
        Item::Damage { fault, .. } => Some(fault.clone()),
        _ => None,
    });
    let fault = fault.expect("is listed");
    assert_eq!(fault.class, FaultClass::Corrupt);
    assert!(fault.detail.contains(&address.file_offset().to_string()), "{fault}");
}

/// An empty directory is an empty list.
#[test]
fn an_empty_directory_is_listed() {
    let world = World::new(1, tiny());
    let (items, summary) = list(&world);
    assert_eq!(items, []);
    assert_eq!((summary.end, summary.next_sequence), (None, 1));
}
