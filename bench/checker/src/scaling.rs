//! Which segments took the places of which, and the order of each key across them.

use std::collections::{BTreeMap, BTreeSet};

use crate::breach::{Verdict, hold};
use crate::content::Placed;
use crate::id::{Segment, Writer};
use crate::record::Successor;

/// All keys, see [`Successor`].
const KEYS: u64 = 1 << 32;

#[derive(Debug, Default)]
struct Place {
    predecessors: Vec<Segment>,
    successors: Vec<Segment>,
    range: Option<(u64, u64)>,
    /// Least and greatest number found, by writer and key.
    found: BTreeMap<(Writer, u32), (i64, i64)>,
}

/// The family of all segments that were scaled.
#[derive(Debug, Default)]
pub(crate) struct Scaling {
    places: BTreeMap<Segment, Place>,
}

impl Scaling {
    /// These segments give way to those.
    pub(crate) fn scale(&mut self, predecessors: &[Segment], successors: &[Successor]) -> Verdict {
        let mut ranges: Vec<(u64, u64)> = successors.iter().map(|it| (it.from, it.to)).collect();
        ranges.sort_unstable();
        let is_sound = ranges.iter().all(|(from, to)| from < to && *to <= KEYS);
        let is_gapless = ranges.windows(2).all(|pair| pair[0].1 == pair[1].0);
        hold!(is_sound && is_gapless, "S16", "the ranges {ranges:?} overlap or leave a gap");
        let known: Option<Vec<(u64, u64)>> = predecessors
            .iter()
            .map(|name| self.places.get(name).and_then(|place| place.range))
            .collect();
        let replaced = match known {
            _ if predecessors.is_empty() => Some((0, KEYS)),
            Some(known) => {
                let from = known.iter().map(|(from, _)| *from).min();
                from.zip(known.iter().map(|(_, to)| *to).max())
            }
            None => None,
        };
        let taken = ranges.first().zip(ranges.last()).map(|(first, last)| (first.0, last.1));
        let is_same = replaced.is_none() || replaced == taken;
        hold!(is_same, "S16", "{ranges:?} take the place of {replaced:?}");
        for successor in successors {
            let place = self.places.entry(successor.segment.clone()).or_default();
            place.range = Some((successor.from, successor.to));
            place.predecessors.extend_from_slice(predecessors);
        }
        for name in predecessors {
            let place = self.places.entry(name.clone()).or_default();
            place.successors.extend(successors.iter().map(|successor| successor.segment.clone()));
        }
        Ok(())
    }

    /// Whose place the segment took.
    pub(crate) fn predecessors(&self, segment: &Segment) -> &[Segment] {
        self.places.get(segment).map_or(&[], |place| &place.predecessors)
    }

    /// Events with a key were found in a segment.
    pub(crate) fn find(&mut self, segment: &Segment, placed: &Placed) -> Verdict {
        let run = &placed.run;
        if run.key == 0 || !self.places.contains_key(segment) {
            return Ok(());
        }
        let key = (run.writer, run.key);
        for other in self.relatives(segment, |place| &place.predecessors) {
            let last = self.places[&other].found.get(&key).map(|found| found.1);
            hold!(last < Some(run.first), "S4", "{run:?} follows {last:?} of {other}");
        }
        for other in self.relatives(segment, |place| &place.successors) {
            let first = self.places[&other].found.get(&key).map(|found| found.0);
            let is_before = first.is_none_or(|first| run.last() < first);
            hold!(is_before, "S4", "{run:?} precedes {first:?} of {other}");
        }
        if let Some(place) = self.places.get_mut(segment) {
            let found = place.found.entry(key).or_insert((run.first, run.last()));
            *found = (found.0.min(run.first), found.1.max(run.last()));
        }
        Ok(())
    }

    fn relatives(
        &self,
        segment: &Segment,
        next: impl Fn(&Place) -> &Vec<Segment>,
    ) -> BTreeSet<Segment> {
        let mut all = BTreeSet::new();
        let mut todo = vec![segment.clone()];
        while let Some(name) = todo.pop() {
            for other in self.places.get(&name).map_or(&[][..], |place| next(place)) {
                if all.insert(other.clone()) {
                    todo.push(other.clone());
                }
            }
        }
        all
    }
}
