//! Seals, truncates and deletes segments under their writers. It asks directly and waits for every
//! answer that the server can give, so that nothing of it is under way during verification.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use thalweg_checker::payload::Judge;

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::Dice;
use crate::store::Route;
use crate::wire::Trouble;
use crate::witness::{Reading, Witness};

use super::{Chain, Done, Segment};

/// Sealed segments that are kept behind the newest one.
const KEPT: usize = 3;
/// Lengths at which the newest segment is sealed.
const SEAL_AT: std::ops::Range<u64> = 300_000..6_000_000;

/// Time without an acknowledgement after which the journal counts as full.
const STANDSTILL: Duration = Duration::from_millis(200);

/// How much is to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// What is old.
    Usual,
    /// As much as may go: appends wait for room.
    Room,
}

/// Whether the writers get on.
struct Pace {
    acknowledged: u64,
    since: Instant,
}

impl Pace {
    fn new(chain: &Chain) -> Self {
        let acknowledged = chain.tally.acknowledged.load(Ordering::Relaxed);
        Self { acknowledged, since: Instant::now() }
    }

    fn need(&mut self, chain: &Chain) -> Need {
        let now = Self::new(chain);
        if now.acknowledged != self.acknowledged {
            *self = now;
        }
        if self.since.elapsed() < STANDSTILL { Need::Usual } else { Need::Room }
    }
}

/// Works until it is stopped.
pub(super) fn run(chain: &Chain, route: &Route, dice: &mut Dice) -> Result<(), Trouble> {
    let direct = route.direct();
    let mut store = Witness::new(&direct, &chain.history);
    let mut seal_at = i64::try_from(dice.range(SEAL_AT)).expect("small");
    let mut pace = Pace::new(chain);
    while !route.stop.is_stopped() {
        let need = pace.need(chain);
        let result = match dice.below(4) {
            0 => truncate(chain, &mut store, dice, need),
            1 => delete_oldest(chain, &mut store, need),
            _ => {
                let newest = chain.newest();
                let (length, sealed) = {
                    let segment = &chain.lock()[newest];
                    (segment.length_min, segment.sealed)
                };
                if length > seal_at || sealed != Done::No {
                    seal_at = i64::try_from(dice.range(SEAL_AT)).expect("small");
                    replace(chain, &mut store, newest)
                } else {
                    Ok(())
                }
            }
        };
        if let Err(trouble) = result.and_then(|()| look(chain, &mut store)) {
            direct.lost(trouble, &mut store.store)?;
        }
        // The pace of the work, nothing waits for it.
        thread::sleep(dice.millis(1..20));
    }
    Ok(())
}

/// What begins after an acknowledgement sees what was acknowledged.
fn look(chain: &Chain, store: &mut Witness<'_>) -> Result<(), Trouble> {
    let newest = chain.newest();
    let (name, least) = {
        let segment = &chain.lock()[newest];
        (segment.name.clone(), segment.length_min)
    };
    let Some(info) = store.info(&name)? else { wrong!("{name} is gone") };
    let length = info.write_offset;
    ensure!(length >= least, "{name}: {least} bytes acknowledged, {length} told afterwards");
    Ok(())
}

/// Seals a segment and makes its successor; goes on where a kill interrupted it.
fn replace(chain: &Chain, store: &mut Witness<'_>, index: usize) -> Result<(), Trouble> {
    let name = {
        let segment = &mut chain.lock()[index];
        segment.sealed = segment.sealed.max(Done::Asked);
        segment.name.clone()
    };
    store.seal(&name)?;
    chain.lock()[index].sealed = Done::Yes;
    let Some(info) = store.info(&name)? else { wrong!("{name} is gone after its seal") };
    ensure!(info.is_sealed, "{name} is not sealed after its seal");
    {
        let segment = &mut chain.lock()[index];
        let length = *segment.length_final.get_or_insert(info.write_offset);
        ensure_eq!(length, info.write_offset, "{name}: length after the seal");
        let least = segment.length_min;
        ensure!(length >= least, "{name}: sealed at {length}, acknowledged up to {least}");
    }
    let (name, before) = {
        let mut segments = chain.lock();
        if segments.len() == index + 1 {
            segments.push(Segment::new(chain.lane, index as u64 + 1));
        }
        let next = &mut segments[index + 1];
        (next.name.clone(), std::mem::replace(&mut next.created, Done::Asked))
    };
    let is_new = store.create(&name)?;
    ensure!(is_new || before == Done::Asked, "{name} exists before it is created");
    chain.lock()[index + 1].created = Done::Yes;
    Ok(())
}

/// Truncates some segment at the end of an acknowledged block.
fn truncate(
    chain: &Chain,
    store: &mut Witness<'_>,
    dice: &mut Dice,
    need: Need,
) -> Result<(), Trouble> {
    let (index, name, offset) = {
        let mut segments = chain.lock();
        let alive: Vec<usize> =
            (0..segments.len()).filter(|index| segments[*index].exists()).collect();
        if alive.is_empty() || !(need == Need::Room || dice.one_in(3)) {
            return Ok(());
        }
        let index = alive[dice.index(alive.len())];
        let segment = &mut segments[index];
        if segment.boundaries.is_empty() {
            return Ok(());
        }
        let some = segment.boundaries[dice.index(segment.boundaries.len())];
        let last = segment.boundaries.iter().copied().max().unwrap_or(some);
        let offset = if need == Need::Room { last } else { some };
        // Mostly behind the reader, so that most events are read once; and never backwards.
        let is_unread = need == Need::Usual && offset > segment.seen.at && !dice.one_in(8);
        if offset <= segment.start_max || is_unread {
            return Ok(());
        }
        segment.start_max = offset;
        (index, segment.name.clone(), offset)
    };
    store.truncate(&name, offset)?;
    chain.lock()[index].start_min = offset;
    let mut judge = Judge::new(offset.unsigned_abs() - 1);
    match store.read(&name, &mut judge, 10, &mut Vec::new())? {
        Reading::Truncated(start) if start == offset => Ok(()),
        other => wrong!("{name}: {other:?} to a read before the start offset {offset}"),
    }
}

/// Deletes the oldest segment when enough follow it, every writer has left it and it was read.
fn delete_oldest(chain: &Chain, store: &mut Witness<'_>, need: Need) -> Result<(), Trouble> {
    let (index, name, before) = {
        let mut segments = chain.lock();
        let is_left = |it: &Segment| it.created == Done::Yes && it.deleted != Done::Yes;
        let Some(index) = segments.iter().position(is_left) else { return Ok(()) };
        let newest = segments.iter().rposition(Segment::exists).unwrap_or(index);
        let segment = &mut segments[index];
        let is_read = segment.length_final.is_some_and(|length| segment.seen.at >= length);
        let is_far = newest > index + KEPT + 4;
        let kept = if need == Need::Room { 0 } else { KEPT };
        if newest <= index + kept || segment.writers_left < chain.writers || !(is_read || is_far) {
            return Ok(());
        }
        let before = std::mem::replace(&mut segment.deleted, Done::Asked);
        (index, segment.name.clone(), before)
    };
    let was_there = store.delete(&name)?;
    ensure!(was_there || before == Done::Asked, "{name} was gone before it was deleted");
    chain.lock()[index].deleted = Done::Yes;
    ensure!(store.info(&name)?.is_none(), "{name} is there after it was deleted");
    Ok(())
}
