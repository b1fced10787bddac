//! Follows the chain and judges every event that it sees; what was once readable may never be
//! missing or different afterwards.

use thalweg_checker::payload::Judge;
use thalweg_checker::record::Run;

use crate::claim::{ensure, ensure_eq};
use crate::store::Route;
use crate::wire::Trouble;
use crate::witness::{Reading, Witness};

use super::{Chain, Done, Progress, breathe, count};

/// Reads until it is stopped.
pub(super) fn run(chain: &Chain, route: &Route) -> Result<(), Trouble> {
    let mut store = Witness::new(route, &chain.history);
    loop {
        let Some(index) = next_unread(chain) else {
            if route.stop.is_stopped() {
                return Ok(());
            }
            breathe();
            continue;
        };
        match follow(chain, &mut store, index) {
            Ok(()) => {}
            Err(trouble) => route.lost(trouble, &mut store.store)?,
        }
        if route.stop.is_stopped() {
            return Ok(());
        }
    }
}

/// The oldest segment that is there and not read to its end.
fn next_unread(chain: &Chain) -> Option<usize> {
    let segments = chain.lock();
    let is_unread = |it: &super::Segment| {
        it.exists() && it.length_final.is_none_or(|length| it.seen.at < length)
    };
    segments.iter().position(is_unread)
}

/// Reads one segment until it ends or is gone.
fn follow(chain: &Chain, store: &mut Witness<'_>, index: usize) -> Result<(), Trouble> {
    let (name, mut seen) = {
        let segment = &chain.lock()[index];
        (segment.name.clone(), segment.seen.clone())
    };
    let mut judge = Judge::new(seen.at.unsigned_abs());
    let mut runs = Vec::new();
    loop {
        let reading = store.read(&name, &mut judge, 1 << 20, &mut runs)?;
        let bytes = seen.take(&name, &runs)?;
        count(&chain.tally.items_read, items(&runs));
        count(&chain.tally.bytes_read, bytes);
        let segment = &mut chain.lock()[index];
        segment.seen.clone_from(&seen);
        match reading {
            Reading::On | Reading::Sealed => {}
            Reading::End => {
                ensure!(segment.sealed != Done::No, "{name}: ends at {} unsealed", seen.at);
                let last = *segment.length_final.get_or_insert(seen.at);
                ensure_eq!(last, seen.at, "{name}: length after the seal");
                return Ok(());
            }
            Reading::Truncated(told) => {
                let most = segment.start_max;
                ensure!(told <= most, "{name}: start told {told}, asked for {most}");
                // What was truncated unread can be read by nobody.
                seen = Progress { at: told, is_partial: true, ..Progress::default() };
                judge = Judge::new(told.unsigned_abs());
            }
            Reading::Missing => {
                let asked = segment.deleted != Done::No;
                ensure!(asked, "{name} is gone, which nobody asked for");
                // This answer is final: the segment may never be seen again.
                segment.deleted = Done::Yes;
                return Ok(());
            }
        }
    }
}

/// Events of all runs.
pub(super) fn items(runs: &[Run]) -> u64 {
    runs.iter().map(|run| u64::from(run.count)).sum()
}

impl Progress {
    /// Takes in what follows; gives its bytes.
    pub(super) fn take(&mut self, name: &str, runs: &[Run]) -> Result<u64, Trouble> {
        let mut bytes = 0;
        for run in runs {
            let (first, last) = (run.first.unsigned_abs(), run.last().unsigned_abs());
            let (_, before) =
                self.serials.entry(run.writer.0).or_insert((first, first.wrapping_sub(1)));
            let (before, author) = (std::mem::replace(before, last), run.writer.0);
            ensure!(
                before.wrapping_add(1) == first,
                "{name}: behind {} serial {first} of {author} follows {before}",
                self.at
            );
            bytes += run.all_bytes();
        }
        self.at += i64::try_from(bytes).expect("a length in memory");
        Ok(bytes)
    }
}
