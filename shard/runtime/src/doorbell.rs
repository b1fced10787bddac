//! How a shard that sleeps is woken: an eventfd per shard, which its ring's completions signal, and
//! which other threads ring when they have mail for it or want it to stop.
//!
//! No wake-up is lost: the sleeper says that it sleeps and then looks whether there is something;
//! the caller puts something there and then looks whether the other sleeps. Both steps are
//! sequentially consistent, so at least one of the two sees the other. A caller writes to the
//! eventfd only when the shard sleeps, once per sleep.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One shard's bell. Shared by everybody who may wake it.
#[derive(Debug)]
pub struct Doorbell {
    counter: File,
    is_asleep: AtomicBool,
    has_news: AtomicBool,
    is_stopping: AtomicBool,
}

impl Doorbell {
    /// A bell with its eventfd.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            counter: thalweg_uring::event_counter()?,
            is_asleep: AtomicBool::new(false),
            has_news: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }))
    }

    /// The eventfd, for whoever waits on it.
    pub(crate) fn counter(&self) -> &File {
        &self.counter
    }

    /// Says that there is news for the shard (mail, room for mail, the wish to stop), and wakes it
    /// when it sleeps. Called after the news can be found.
    pub fn ring(&self) {
        self.has_news.store(true, Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            // Fails only when the count would overflow: the shard is being woken then.
            let _ = (&self.counter).write_all(&1_u64.to_ne_bytes());
        }
    }

    /// Takes the sign that there is news. Called before looking for it, so that what comes while
    /// looking raises the sign anew.
    pub fn take_news(&self) -> bool {
        // The plain look first: as a rule there is none, and it costs no bus traffic.
        self.has_news.load(Ordering::Relaxed) && self.has_news.swap(false, Ordering::SeqCst)
    }

    /// Whether there is news.
    pub fn has_news(&self) -> bool {
        self.has_news.load(Ordering::Relaxed)
    }

    /// Says that the shard is about to sleep. `false` when it must not, because there is news; it
    /// then counts as awake.
    pub fn begin_sleep(&self) -> bool {
        self.is_asleep.store(true, Ordering::SeqCst);
        if self.has_news.load(Ordering::SeqCst) {
            self.is_asleep.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Says that the shard is awake.
    pub fn end_sleep(&self) {
        self.is_asleep.store(false, Ordering::SeqCst);
    }

    /// Whether the shard is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.ring();
    }
}

/// Asks shards to end. May be called from any thread, and more than once.
#[derive(Clone, Debug)]
pub struct Stopper {
    bells: Vec<Arc<Doorbell>>,
}

impl Stopper {
    /// For the shards with these bells.
    pub fn new(bells: &[Arc<Doorbell>]) -> Self {
        Self { bells: bells.to_vec() }
    }

    /// Asks all of them to end.
    pub fn stop(&self) {
        for bell in &self.bells {
            bell.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A ring before the sleep forbids it; one during the sleep is in the eventfd; one while awake
    /// writes nothing.
    #[test]
    fn a_ring_is_seen_before_during_and_after_a_sleep() {
        let bell = Doorbell::new().expect("an eventfd");
        bell.ring();
        assert!(!bell.begin_sleep(), "there is news");
        assert!(bell.take_news());
        assert!(!bell.take_news());
        assert!(bell.begin_sleep());
        bell.ring();
        bell.ring();
        let mut count = [0; 8];
        bell.counter().read_exact(&mut count).expect("a count");
        assert_eq!(u64::from_ne_bytes(count), 1, "one write per sleep");
        bell.end_sleep();
        assert!(bell.take_news());
    }

    /// Rings and sleeps race without a wake-up being lost: every message of the other thread is
    /// taken, though the taker sleeps whenever it finds none.
    #[test]
    fn no_ring_is_lost_against_a_sleeper() {
        const ROUNDS: u32 = 20_000;
        let (mut sender, mut receiver) = rtrb::RingBuffer::new(4);
        let bell = Doorbell::new().expect("an eventfd");
        let caller = bell.clone();
        let calling = std::thread::spawn(move || {
            for number in 0..ROUNDS {
                while sender.push(number).is_err() {
                    std::thread::yield_now();
                }
                caller.ring();
            }
        });
        let mut expected = 0;
        while expected < ROUNDS {
            if bell.take_news() {
                while let Ok(number) = receiver.pop() {
                    assert_eq!(number, expected);
                    expected += 1;
                }
            } else if bell.begin_sleep() {
                // Hangs for ever when a wake-up is lost.
                bell.counter().read_exact(&mut [0; 8]).expect("a count");
                bell.end_sleep();
            }
        }
        calling.join().expect("the caller has come to its end");
    }
}
