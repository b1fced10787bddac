//! L5: whoever waits at the tail hears of what is new within a second, once nothing fails any more.
//!
//! A read is due when its segment is known to reach beyond its offset, or to be sealed, because
//! somebody was told so. Only reads on connections that were made after the last fault count.

use std::collections::BTreeMap;

use thalweg_checker::id::Segment;

use crate::clock::SECOND;

/// Longest time from the acknowledgement of an append to the answer of a read that waits for it.
const WAKING_MAX: u64 = SECOND;

/// A read without an answer.
#[derive(Debug)]
struct Waiting {
    segment: Segment,
    offset: u64,
    since: u64,
}

/// A read that was due before it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Woken {
    /// Where it waited.
    pub(super) offset: u64,
    /// Nanoseconds from the time at which it was due.
    pub(super) after: u64,
}

impl Woken {
    /// Whether it took too long.
    pub(super) fn is_late(self) -> bool {
        self.after > WAKING_MAX
    }
}

/// Reads that wait, and how segments grew meanwhile.
#[derive(Debug, Default)]
pub(super) struct Tails {
    /// When segments were first known to reach beyond which offset.
    growths: BTreeMap<Segment, Vec<(u64, u64)>>,
    /// By client and request.
    reads: BTreeMap<(usize, i64), Waiting>,
}

impl Tails {
    /// A client asks for what is at `offset`.
    pub(super) fn asked(&mut self, read: (usize, i64), segment: &Segment, offset: u64, now: u64) {
        self.reads.insert(read, Waiting { segment: segment.clone(), offset, since: now });
    }

    /// Somebody was told that a segment is so long; `u64::MAX` when it is sealed.
    pub(super) fn grew(&mut self, segment: &Segment, length: u64, now: u64) {
        let growths = self.growths.entry(segment.clone()).or_default();
        if growths.last().is_none_or(|(_, known)| length > *known) {
            growths.push((now, length));
        }
    }

    /// A read was answered, or its connection is gone. Tells of one that was asked before it was
    /// due.
    pub(super) fn over(&mut self, read: (usize, i64), now: u64) -> Option<Woken> {
        let Waiting { segment, offset, since } = self.reads.remove(&read)?;
        let growths = self.growths.get(&segment)?;
        let first = growths.partition_point(|(_, length)| *length <= offset);
        let (due, _) = growths.get(first)?;
        (*due >= since).then(|| Woken { offset, after: now - due })
    }

    /// The reads of a client that are not over.
    pub(super) fn of(&self, client: usize) -> Vec<(usize, i64)> {
        self.reads.range((client, i64::MIN)..=(client, i64::MAX)).map(|(read, _)| *read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: (usize, i64) = (3, 7);

    fn waiting_at_100() -> (Tails, Segment) {
        let (mut tails, segment) = (Tails::default(), Segment::new("s"));
        tails.grew(&segment, 100, 5);
        tails.asked(READ, &segment, 100, 10);
        (tails, segment)
    }

    /// A reader is late when its answer comes more than a second after the append behind its
    /// offset was acknowledged, and not before.
    #[test]
    fn an_answer_more_than_a_second_after_the_append_is_late() {
        for (wait, is_late) in [(0, false), (WAKING_MAX, false), (WAKING_MAX + 1, true)] {
            let (mut tails, segment) = waiting_at_100();
            tails.grew(&segment, 150, 20);
            tails.grew(&segment, 200, 30);
            let woken = tails.over(READ, 20 + wait).expect("it waited");
            assert_eq!((woken, woken.is_late()), (Woken { offset: 100, after: wait }, is_late));
        }
    }

    /// However long a reader waits for nothing, it is not late; nor does it count when it asks for
    /// what is there.
    #[test]
    fn a_wait_for_nothing_is_not_late() {
        let (mut tails, segment) = waiting_at_100();
        assert_eq!(tails.over(READ, 100 * SECOND), None);
        tails.asked(READ, &segment, 50, 10);
        assert_eq!(tails.over(READ, 100 * SECOND), None);
    }

    /// A seal is news for everybody who waits at the end.
    #[test]
    fn a_seal_makes_reads_at_the_end_due() {
        let (mut tails, segment) = waiting_at_100();
        tails.grew(&segment, u64::MAX, 20);
        assert_eq!(tails.of(3), [READ]);
        assert!(tails.over(READ, 20 + 2 * SECOND).expect("it waited").is_late());
        assert!(tails.of(3).is_empty());
    }
}
