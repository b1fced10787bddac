//! Where segments are served, and a spread of new segments over all places.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

/// Knows which segment store serves a segment. Answers may differ between segments but not over
/// time.
pub trait Locator: Sync {
    /// The `host:port` of the store that serves `segment`, a full name such as
    /// `scope/stream/0.#epoch.0`. The segment need not exist yet.
    ///
    /// # Errors
    /// When nobody can tell; the scenario then ends.
    fn locate(&self, segment: &str) -> anyhow::Result<String>;
}

impl<F: Fn(&str) -> anyhow::Result<String> + Sync> Locator for F {
    fn locate(&self, segment: &str) -> anyhow::Result<String> {
        self(segment)
    }
}

/// A segment of a load and its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: String,
    pub(crate) address: String,
}

/// Names looked at to learn which stores there are.
const SAMPLE: usize = 128;

/// Names looked at for each segment wanted, before a spread is called impossible.
const TRIES_PER_SEGMENT: usize = 1_000;

/// Names `count` new segments under `bench/<run>/` such that every store gets the same number, or
/// one more. A hash of few names would load the stores unevenly and measure the luck of the names.
pub(crate) fn spread(locator: &dyn Locator, run: &str, count: usize) -> anyhow::Result<Vec<Place>> {
    ensure!(count > 0, "a load without segments");
    let mut candidates = Vec::new();
    for index in 0..SAMPLE {
        candidates.push(place(locator, run, index)?);
    }
    let mut taken: BTreeMap<String, usize> =
        candidates.iter().map(|place| (place.address.clone(), 0)).collect();
    let share = count.div_ceil(taken.len());
    let mut places = Vec::with_capacity(count);
    for index in 0..SAMPLE.max(count * TRIES_PER_SEGMENT) {
        if places.len() == count {
            break;
        }
        let candidate = match candidates.get(index) {
            Some(candidate) => candidate.clone(),
            None => place(locator, run, index)?,
        };
        let here = taken.entry(candidate.address.clone()).or_default();
        if *here < share {
            *here += 1;
            places.push(candidate);
        }
    }
    ensure!(places.len() == count, "find no even spread of {count} segments over {taken:?}");
    Ok(places)
}

fn place(locator: &dyn Locator, run: &str, index: usize) -> anyhow::Result<Place> {
    let segment = format!("bench/{run}/{index}.#epoch.0");
    let address = locator.locate(&segment).with_context(|| format!("locate {segment}"))?;
    Ok(Place { segment, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a lopsided placement still gives every store its share.
    #[test]
    fn segments_are_spread_evenly_over_stores() {
        let lopsided = |segment: &str| -> anyhow::Result<String> {
            let sum: usize = segment.bytes().map(usize::from).sum();
            Ok(format!("store-{}:1", usize::from(sum.is_multiple_of(7))))
        };
        let places = spread(&lopsided, "r", 16).expect("there are enough names");
        let first = places.iter().filter(|place| place.address == "store-0:1").count();
        assert_eq!((places.len(), first), (16, 8));
        let mut names: Vec<&str> = places.iter().map(|place| place.segment.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 16);
    }
}
