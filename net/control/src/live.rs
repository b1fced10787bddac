//! Transactions of one stream that are not completed, and the last that were. In memory only.
//!
//! Commits are numbered in the order in which they are asked for. The queue gives out a commit only
//! when no earlier one is still being written down, so that all segments see the same order, also
//! after a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::id::{StreamEpoch, TransactionId};
use crate::tables::Version;
use crate::transaction::TransactionState;

/// Completed transactions of a stream kept in memory; older ones are looked up in their table.
pub(crate) const RECENT_MAX: usize = 500;

/// Open transactions of a stream; more are refused.
pub(crate) const LIVE_MAX: usize = 10_000;

/// Most transactions merged with one request.
const BATCH_MAX: usize = 100;

/// A transaction that is not completed.
pub(crate) struct Transaction {
    pub(crate) id: TransactionId,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
    /// When this process made or found it. Its age counts from here, so that a restart gives time
    /// and never takes it, whatever the wall clock says.
    begun: Instant,
    /// The lease it was made with.
    pub(crate) first_lease_ms: i64,
    /// Held while its record is changed.
    pub(crate) turn: tokio::sync::Mutex<()>,
    status: Mutex<Status>,
}

#[derive(Clone, Copy, Debug)]
struct Status {
    state: TransactionState,
    /// Of its record; `None` when a write ended in doubt.
    version: Option<Version>,
    lease_ends: Instant,
}

impl Transaction {
    pub(crate) fn new(
        id: TransactionId,
        created_ms: i64,
        first_lease_ms: i64,
        state: TransactionState,
        version: Version,
        lease_ends: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            created_ms,
            begun: Instant::now(),
            first_lease_ms,
            turn: tokio::sync::Mutex::default(),
            status: Mutex::new(Status { state, version: Some(version), lease_ends }),
        })
    }

    /// Milliseconds that it has lived in this process.
    pub(crate) fn age_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().expect("nobody panics with it")
    }

    pub(crate) fn state(&self) -> TransactionState {
        self.status().state
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.status().version
    }

    pub(crate) fn lease_ends(&self) -> Instant {
        self.status().lease_ends
    }

    pub(crate) fn renew(&self, lease_ends: Instant) {
        self.status().lease_ends = lease_ends;
    }

    /// What its record says now.
    pub(crate) fn become_durably(&self, state: TransactionState, version: Version) {
        let mut status = self.status();
        status.state = state;
        status.version = Some(version);
    }

    /// Nobody knows what its record says.
    pub(crate) fn doubt(&self) {
        self.status().version = None;
    }

    fn complete(&self, state: TransactionState) {
        self.status().state = state;
    }
}

/// All live transactions of a stream.
#[derive(Default)]
pub(crate) struct LiveTransactions {
    inner: Mutex<Inner>,
    /// Told whenever one is completed.
    completed: Notify,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<TransactionId, Arc<Transaction>>,
    next_order: u64,
    /// Commits that are being written down.
    accepting: BTreeSet<u64>,
    /// Commits that are written down and not begun.
    queue: BTreeMap<u64, Arc<Transaction>>,
    is_committing: bool,
    recent: BTreeMap<TransactionId, bool>,
    recent_order: VecDeque<TransactionId>,
}

impl LiveTransactions {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner().by_id.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.inner().by_id.len() >= LIVE_MAX
    }

    pub(crate) fn get(&self, id: TransactionId) -> Option<Arc<Transaction>> {
        self.inner().by_id.get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Transaction>> {
        self.inner().by_id.values().cloned().collect()
    }

    pub(crate) fn insert(&self, transaction: Arc<Transaction>) {
        self.inner().by_id.insert(transaction.id, transaction);
    }

    /// Takes the next place among the commits. It must be given back to `enqueue` or `give_up`.
    pub(crate) fn take_order(&self) -> u64 {
        let mut inner = self.inner();
        let order = inner.next_order;
        inner.next_order += 1;
        inner.accepting.insert(order);
        order
    }

    /// The commit at this place is written down. Gives whether the caller must begin to commit.
    #[must_use]
    pub(crate) fn enqueue(&self, order: u64, transaction: Arc<Transaction>) -> bool {
        let mut inner = self.inner();
        inner.accepting.remove(&order);
        inner.next_order = inner.next_order.max(order + 1);
        inner.queue.insert(order, transaction);
        !std::mem::replace(&mut inner.is_committing, true)
    }

    /// Nothing is written down at this place. Gives whether the caller must begin to commit, since
    /// others may have waited for this one.
    #[must_use]
    pub(crate) fn give_up(&self, order: u64) -> bool {
        let mut inner = self.inner();
        inner.accepting.remove(&order);
        !inner.queue.is_empty() && !std::mem::replace(&mut inner.is_committing, true)
    }

    /// The next commits, in order, all of one epoch; empty when there are none, and then whoever
    /// commits must stop.
    pub(crate) fn next_commits(&self) -> (StreamEpoch, Vec<Arc<Transaction>>) {
        let mut inner = self.inner();
        let before = inner.accepting.first().copied().unwrap_or(u64::MAX);
        let mut epoch = StreamEpoch(0);
        let mut batch: Vec<Arc<Transaction>> = Vec::new();
        while batch.len() < BATCH_MAX {
            let Some(first) = inner.queue.first_entry().filter(|it| *it.key() < before) else {
                break;
            };
            if batch.is_empty() {
                epoch = first.get().id.epoch();
            } else if first.get().id.epoch() != epoch {
                break;
            }
            batch.push(first.remove());
        }
        inner.is_committing = !batch.is_empty();
        (epoch, batch)
    }

    /// These are completed, durably.
    pub(crate) fn complete(&self, ids: &[TransactionId], is_committed: bool) {
        let state =
            if is_committed { TransactionState::Committed } else { TransactionState::Aborted };
        let mut inner = self.inner();
        for id in ids {
            if let Some(transaction) = inner.by_id.remove(id) {
                transaction.complete(state);
            }
            if inner.recent.insert(*id, is_committed).is_none() {
                inner.recent_order.push_back(*id);
            }
            if inner.recent_order.len() > RECENT_MAX
                && let Some(oldest) = inner.recent_order.pop_front()
            {
                inner.recent.remove(&oldest);
            }
        }
        drop(inner);
        self.completed.notify_waiters();
    }

    /// Whether a transaction completed lately was committed.
    pub(crate) fn recent(&self, id: TransactionId) -> Option<bool> {
        self.inner().recent.get(&id).copied()
    }

    /// What was completed lately.
    pub(crate) fn all_recent(&self) -> Vec<(TransactionId, bool)> {
        self.inner().recent.iter().map(|(id, is_committed)| (*id, *is_committed)).collect()
    }

    /// Waits until none is live. None may be made meanwhile.
    pub(crate) async fn wait_until_empty(&self) {
        loop {
            let completed = self.completed.notified();
            tokio::pin!(completed);
            completed.as_mut().enable();
            if self.is_empty() {
                return;
            }
            completed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(epoch: u32, counter: u64) -> Arc<Transaction> {
        let id = TransactionId::new(StreamEpoch(epoch), counter);
        let state = TransactionState::Committing;
        Transaction::new(id, 0, 10_000, state, Version::ABSENT, Instant::now())
    }

    fn ids(batch: &[Arc<Transaction>]) -> Vec<TransactionId> {
        batch.iter().map(|transaction| transaction.id).collect()
    }

    /// Shows that a commit waits for an earlier one that is being written down, and goes on when
    /// that one is given up.
    #[test]
    fn commits_keep_their_order() {
        let live = LiveTransactions::default();
        let (first, second) = (live.take_order(), live.take_order());
        assert!(live.enqueue(second, transaction(0, 2)));
        assert!(live.next_commits().1.is_empty());
        assert!(live.enqueue(first, transaction(0, 1)));
        let expected = [transaction(0, 1).id, transaction(0, 2).id];
        assert_eq!(ids(&live.next_commits().1), expected);
        // Someone commits: a new one need not begin.
        let third = live.take_order();
        assert!(!live.enqueue(third, transaction(0, 3)));
        assert_eq!(ids(&live.next_commits().1), [transaction(0, 3).id]);
        let (fourth, fifth) = (live.take_order(), live.take_order());
        assert!(!live.enqueue(fifth, transaction(0, 5)));
        assert!(live.next_commits().1.is_empty());
        assert!(live.give_up(fourth));
        assert_eq!(ids(&live.next_commits().1), [transaction(0, 5).id]);
    }

    /// Shows that transactions of different epochs are not merged with one request.
    #[test]
    fn a_batch_has_one_epoch() {
        let live = LiveTransactions::default();
        for (epoch, counter) in [(0, 1), (0, 2), (1, 3)] {
            let order = live.take_order();
            let _ = live.enqueue(order, transaction(epoch, counter));
        }
        assert_eq!(ids(&live.next_commits().1).len(), 2);
        assert_eq!(live.next_commits().0, StreamEpoch(1));
    }

    /// Shows that only so many completed ones are kept, the latest.
    #[test]
    fn recent_ones_are_bounded() {
        let live = LiveTransactions::default();
        for counter in 0..=RECENT_MAX as u64 {
            live.complete(&[transaction(0, counter).id], true);
        }
        assert_eq!(live.all_recent().len(), RECENT_MAX);
        assert_eq!(live.recent(transaction(0, 0).id), None);
        assert_eq!(live.recent(transaction(0, 1).id), Some(true));
    }
}
