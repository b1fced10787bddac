//! When leases of transactions run out.
//!
//! A list of times at which to look; whether a lease has really run out by then is for the one who
//! looks, since a ping does not touch the list. Time is monotonic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::id::TransactionId;
use crate::names::StreamPath;

/// A time to look at a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) path: StreamPath,
    pub(crate) id: TransactionId,
}

/// All times to look.
#[derive(Default)]
pub(crate) struct Leases {
    due: Mutex<BinaryHeap<Reverse<Due>>>,
    is_sooner: Notify,
}

impl Leases {
    /// Adds a time to look.
    pub(crate) fn look_at(&self, due: Due) {
        let mut all = self.due.lock().expect("nobody panics with it");
        let is_sooner = all.peek().is_none_or(|Reverse(first)| due.at < first.at);
        all.push(Reverse(due));
        if is_sooner {
            self.is_sooner.notify_one();
        }
    }

    /// Waits for the next transaction to look at. For one waiting task only.
    pub(crate) async fn next(&self) -> Due {
        loop {
            let first = {
                let mut all = self.due.lock().expect("nobody panics with it");
                match all.peek() {
                    Some(Reverse(first)) if first.at <= Instant::now() => {
                        all.pop().map(|Reverse(due)| (due.at, Some(due)))
                    }
                    first => first.map(|Reverse(first)| (first.at, None)),
                }
            };
            match first {
                Some((_, Some(due))) => return due,
                Some((at, None)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.is_sooner.notified() => {}
                },
                None => self.is_sooner.notified().await,
            }
        }
    }
}
