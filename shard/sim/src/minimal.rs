//! A list of faults made small: what is left still breaks the world, and little of it can go.
//!
//! First whole kinds are left out, then shares of the list, smaller and smaller, down to single
//! faults. Knows nothing of worlds: it asks whether a list still fails, at most so many times.

use std::collections::BTreeSet;

use crate::faults::{FaultId, FaultKind};

/// Finds a small part of `faults` for which `fails` says true, as it is known to say for all of
/// them. Asks at most `questions` times; the answer holds whenever they end.
pub fn minimal(
    faults: &BTreeSet<FaultId>,
    questions: usize,
    fails: &mut dyn FnMut(&BTreeSet<FaultId>) -> bool,
) -> BTreeSet<FaultId> {
    let mut left = questions;
    let mut ask = |list: &BTreeSet<FaultId>| {
        left = left.checked_sub(1)?;
        Some(fails(list))
    };
    let mut best = faults.clone();
    if ask(&BTreeSet::new()) != Some(false) {
        return if questions == 0 { best } else { BTreeSet::new() };
    }
    for kind in FaultKind::ALL {
        let rest: BTreeSet<FaultId> = best.iter().copied().filter(|id| id.kind != *kind).collect();
        if rest.len() < best.len() && ask(&rest) == Some(true) {
            best = rest;
        }
    }
    let mut share = best.len().div_ceil(2);
    while share > 0 {
        match without_a_share(&best, share, &mut ask) {
            Some(rest) => best = rest,
            None if share == 1 => break,
            None => share = share.div_ceil(2),
        }
        share = share.min(best.len());
    }
    best
}

/// The list without the first run of `share` faults that it can do without.
fn without_a_share(
    list: &BTreeSet<FaultId>,
    share: usize,
    ask: &mut dyn FnMut(&BTreeSet<FaultId>) -> Option<bool>,
) -> Option<BTreeSet<FaultId>> {
    let all: Vec<FaultId> = list.iter().copied().collect();
    for start in (0..all.len()).step_by(share) {
        let end = (start + share).min(all.len());
        let rest: BTreeSet<FaultId> = all[..start].iter().chain(&all[end..]).copied().collect();
        if ask(&rest)? {
            return Some(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: std::ops::Range<u64>) -> BTreeSet<FaultId> {
        let kinds = [FaultKind::LinkReset, FaultKind::ProcessKill];
        let of = |kind| numbers.clone().map(move |number| FaultId { kind, number });
        kinds.into_iter().flat_map(of).collect()
    }

    /// Two faults that matter together are found among a hundred.
    #[test]
    fn only_what_matters_is_left() {
        let needed: BTreeSet<FaultId> =
            [3, 41].map(|number| FaultId { kind: FaultKind::ProcessKill, number }).into();
        let mut asked = 0;
        let found = minimal(&faults(0..50), 200, &mut |list| {
            asked += 1;
            needed.is_subset(list)
        });
        assert_eq!(found, needed);
        assert!(asked < 100, "{asked} questions");
    }

    /// When no fault matters, none is left; when questions run out, the list still fails.
    #[test]
    fn bounds_are_kept() {
        assert!(minimal(&faults(0..50), 200, &mut |_| true).is_empty());
        let needed: BTreeSet<FaultId> = faults(7..8).into_iter().take(1).collect();
        let found = minimal(&faults(0..50), 5, &mut |list| needed.is_subset(list));
        assert!(needed.is_subset(&found) && found.len() < 100, "{}", found.len());
    }
}
