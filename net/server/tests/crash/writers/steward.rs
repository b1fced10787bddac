//! Seals, truncates and deletes segments under their writers.

use std::thread;
use std::time::Duration;

use thalweg_wire::Command;

use crate::rig::dice::Dice;
use crate::rig::store::Store;
use crate::rig::wire::Lost;

use super::{Chain, Done, Segment};

/// Sealed segments that are kept behind the newest one.
const KEPT: usize = 3;

/// Works until the server is gone.
pub(crate) fn run(chain: &Chain, store: &mut Store, dice: &mut Dice) {
    // A length at which the newest segment is sealed.
    let mut seal_at = i64::try_from(dice.range(200_000..3_000_000)).expect("small");
    loop {
        let result = match dice.below(4) {
            0 => truncate(chain, store, dice),
            1 => delete_oldest(chain, store),
            _ => {
                let newest = chain.newest();
                let (length, sealed) = {
                    let segment = &chain.lock()[newest];
                    (segment.length_min, segment.sealed)
                };
                if length > seal_at || sealed != Done::No {
                    seal_at = i64::try_from(dice.range(200_000..3_000_000)).expect("small");
                    replace(chain, store, newest)
                } else {
                    Ok(())
                }
            }
        };
        // The pace of the work, nothing waits for it.
        thread::sleep(Duration::from_millis(dice.range(1..30)));
        if result.is_err() || look(chain, store).is_err() {
            return;
        }
    }
}

/// What begins after an acknowledgement sees what was acknowledged.
fn look(chain: &Chain, store: &mut Store) -> Result<(), Lost> {
    let newest = chain.newest();
    let (name, least) = {
        let segment = &chain.lock()[newest];
        (segment.name.clone(), segment.length_min)
    };
    let info = store.info(&name)?.unwrap_or_else(|| panic!("{name} is gone"));
    let length = info.write_offset;
    assert!(length >= least, "{name}: {least} bytes acknowledged, {length} told afterwards");
    Ok(())
}

/// Seals a segment and makes its successor; goes on where a kill interrupted it.
fn replace(chain: &Chain, store: &mut Store, index: usize) -> Result<(), Lost> {
    let name = {
        let segment = &mut chain.lock()[index];
        segment.sealed = segment.sealed.max(Done::Asked);
        segment.name.clone()
    };
    store.seal(&name)?;
    chain.lock()[index].sealed = Done::Yes;
    let info = store.info(&name)?.unwrap_or_else(|| panic!("{name} is gone after its seal"));
    assert!(info.is_sealed, "{name} is not sealed after its seal");
    {
        let segment = &mut chain.lock()[index];
        let length = *segment.length_final.get_or_insert(info.write_offset);
        assert_eq!(length, info.write_offset, "{name}: length after the seal");
        assert!(length >= segment.length_min, "{name}: sealed at {length}, acknowledged beyond");
    }
    let name = {
        let mut segments = chain.lock();
        if segments.len() == index + 1 {
            segments.push(Segment::new(chain.lane, index as u64 + 1));
        }
        segments[index + 1].created = Done::Asked;
        segments[index + 1].name.clone()
    };
    assert!(store.create(&name)?, "{name} exists before it is created");
    chain.lock()[index + 1].created = Done::Yes;
    Ok(())
}

/// Truncates some segment at the end of an acknowledged block.
fn truncate(chain: &Chain, store: &mut Store, dice: &mut Dice) -> Result<(), Lost> {
    let (index, name, offset) = {
        let mut segments = chain.lock();
        let alive: Vec<usize> =
            (0..segments.len()).filter(|index| segments[*index].exists()).collect();
        let index = alive[usize::try_from(dice.below(alive.len() as u64)).expect("small")];
        let segment = &mut segments[index];
        let ends = &segment.boundaries;
        if ends.is_empty() || !dice.one_in(3) {
            return Ok(());
        }
        let offset = ends[usize::try_from(dice.below(ends.len() as u64)).expect("small")];
        if offset <= segment.start_min {
            return Ok(());
        }
        segment.start_max = offset;
        (index, segment.name.clone(), offset)
    };
    store.truncate(&name, offset)?;
    chain.lock()[index].start_min = offset;
    match store.read(&name, offset - 1, 10)? {
        Command::SegmentIsTruncated(it) if it.start_offset == offset => Ok(()),
        other => panic!("{name}: {other:?} to a read before the start offset {offset}"),
    }
}

/// Deletes the oldest segment when enough follow it and every writer has left it.
fn delete_oldest(chain: &Chain, store: &mut Store) -> Result<(), Lost> {
    let (index, name) = {
        let mut segments = chain.lock();
        let Some(index) = segments.iter().position(Segment::exists) else { return Ok(()) };
        let newest = segments.iter().rposition(Segment::exists).expect("there is one");
        if newest - index <= KEPT || segments[index].writers_left < chain.writers {
            return Ok(());
        }
        segments[index].deleted = Done::Asked;
        (index, segments[index].name.clone())
    };
    assert!(store.delete(&name)?, "{name} was gone before it was deleted");
    chain.lock()[index].deleted = Done::Yes;
    assert!(store.info(&name)?.is_none(), "{name} is there after it was deleted");
    Ok(())
}
