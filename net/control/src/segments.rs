//! The door to the engine: what the control plane asks of segment stores.
//!
//! [`SegmentStore`] is the part of a store that control needs; [`RemoteSegments`] reaches the real
//! ones over the wire, each segment where [`Locate`] says, like any client. Requests that are safe
//! to repeat are repeated there while the store is unavailable, for a bounded time; table updates
//! are not, since only their caller can tell whether one was carried out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_client::{Address, ClientError, Pool, Refusal, Store, TablePage, Timeouts};
use thalweg_wire::{TableEntry, TableKey};
use tokio::time::{Instant, sleep};

/// Knows who serves what. Implemented by the server, whose shards have the segments.
pub trait Locate: Send + Sync + 'static {
    /// Host and port for clients of a segment, which need not exist. The host is bare: a name, an
    /// IPv4 address, or a bracketed IPv6 address. The answer is a matter of the name alone, and
    /// ignores its transaction and epoch parts.
    fn locate(&self, segment: &str) -> (String, u16);
}

/// How a segment is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentPolicy {
    /// Protocol number of the scale type.
    pub(crate) scale_type: i8,
    /// Target rate.
    pub(crate) target_rate: i32,
    /// Size of chunks in long-term storage, 0 for the default.
    pub(crate) rollover_size_bytes: i64,
}

/// Outcome of a request to a store.
pub(crate) type Outcome<T> = Result<T, ClientError>;

/// A segment store, or all of them together. Every success is durable.
pub(crate) trait SegmentStore: Send + Sync + 'static {
    /// Creates a segment; one that exists is a success.
    fn create_segment(
        &self,
        segment: &str,
        policy: SegmentPolicy,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Seals a segment; a sealed one is a success.
    fn seal_segment(&self, segment: &str) -> impl Future<Output = Outcome<()>> + Send;

    /// Drops the bytes before `offset`; [`Refusal::SegmentTruncated`] when it lies outside of what
    /// is there.
    fn truncate_segment(
        &self,
        segment: &str,
        offset: i64,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Deletes a segment or table; a missing one is a success.
    fn delete_segment(&self, segment: &str) -> impl Future<Output = Outcome<()>> + Send;

    /// Length of a segment.
    fn segment_length(&self, segment: &str) -> impl Future<Output = Outcome<i64>> + Send;

    /// First byte of a segment that is not truncated away.
    fn segment_start(&self, segment: &str) -> impl Future<Output = Outcome<i64>> + Send;

    /// Appends the sources to `target` in order and deletes them; missing ones count as merged. A
    /// truncated one cannot be merged, which is answered like an absent store.
    fn merge(&self, target: &str, sources: &[String]) -> impl Future<Output = Outcome<()>> + Send;

    /// Creates a table; one that exists is a success.
    fn create_table(&self, table: &str) -> impl Future<Output = Outcome<()>> + Send;

    /// Writes entries, all or none, under the versions in their keys; gives the new versions. Not
    /// repeated: [`ClientError::Unavailable`] leaves open whether it was done.
    fn table_update(
        &self,
        table: &str,
        entries: Vec<TableEntry>,
    ) -> impl Future<Output = Outcome<Vec<i64>>> + Send;

    /// Removes keys, all or none, under their versions. Not repeated, like an update.
    fn table_remove(
        &self,
        table: &str,
        keys: Vec<TableKey>,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// The entries of keys, `None` for absent ones.
    fn table_get(
        &self,
        table: &str,
        keys: Vec<Bytes>,
    ) -> impl Future<Output = Outcome<Vec<Option<TableEntry>>>> + Send;

    /// A page of entries.
    fn table_entries(
        &self,
        table: &str,
        count: i32,
        continuation: Bytes,
    ) -> impl Future<Output = Outcome<TablePage>> + Send;
}

/// Waiting times of repeated attempts: short at first, then longer, up to a second.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(5) }
    }
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(1);

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).min(Self::LONGEST);
    }
}

/// How long a request is repeated before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether asking again may help.
pub(crate) fn is_passing(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unavailable(_)
            | ClientError::Closed
            | ClientError::Corrupt(_)
            | ClientError::Refused(Refusal::WrongHost { .. })
    )
}

/// The real stores, over the wire.
pub(crate) struct RemoteSegments {
    pool: Pool,
    locate: Arc<dyn Locate>,
}

impl RemoteSegments {
    /// Stores found through `locate`. Connects when first asked.
    pub(crate) fn new(locate: Arc<dyn Locate>) -> Self {
        let timeouts =
            Timeouts { connect: Duration::from_secs(3), request: Duration::from_secs(10) };
        Self { pool: Pool::new(timeouts), locate }
    }

    fn store(&self, segment: &str) -> Store {
        let (host, port) = self.locate.locate(segment);
        // Brackets are for those who put host and port together again.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Store::of(self.pool.clone(), Address::new(host, port))
    }

    async fn repeat<T, F>(&self, segment: &str, ask: impl Fn(Store) -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        let end = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            match ask(self.store(segment)).await {
                Err(error) if is_passing(&error) && Instant::now() < end => backoff.wait().await,
                outcome => return outcome,
            }
        }
    }
}

fn unless_exists(outcome: Outcome<()>) -> Outcome<()> {
    match outcome {
        Err(ClientError::Refused(Refusal::SegmentExists { .. })) => Ok(()),
        outcome => outcome,
    }
}

fn unless_missing(outcome: Outcome<()>) -> Outcome<()> {
    match outcome {
        Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => Ok(()),
        outcome => outcome,
    }
}

impl SegmentStore for RemoteSegments {
    async fn create_segment(&self, segment: &str, policy: SegmentPolicy) -> Outcome<()> {
        let SegmentPolicy { scale_type, target_rate, rollover_size_bytes } = policy;
        let ask = |store: Store| async move {
            store.create_segment(segment, scale_type, target_rate, rollover_size_bytes).await
        };
        unless_exists(self.repeat(segment, ask).await)
    }

    async fn seal_segment(&self, segment: &str) -> Outcome<()> {
        self.repeat(segment, |store| async move { store.seal_segment(segment).await }).await
    }

    async fn truncate_segment(&self, segment: &str, offset: i64) -> Outcome<()> {
        let ask = |store: Store| async move { store.truncate_segment(segment, offset).await };
        self.repeat(segment, ask).await
    }

    async fn delete_segment(&self, segment: &str) -> Outcome<()> {
        let ask = |store: Store| async move { store.delete_segment(segment).await };
        unless_missing(self.repeat(segment, ask).await)
    }

    async fn segment_length(&self, segment: &str) -> Outcome<i64> {
        let ask = |store: Store| async move { store.segment_info(segment).await };
        self.repeat(segment, ask).await.map(|info| info.write_offset)
    }

    async fn segment_start(&self, segment: &str) -> Outcome<i64> {
        let ask = |store: Store| async move { store.segment_info(segment).await };
        self.repeat(segment, ask).await.map(|info| info.start_offset)
    }

    async fn merge(&self, target: &str, sources: &[String]) -> Outcome<()> {
        let ask = |store: Store| async move { store.merge_batch(target, sources).await };
        self.repeat(target, ask).await.map(|_| ())
    }

    async fn create_table(&self, table: &str) -> Outcome<()> {
        let ask = |store: Store| async move { store.create_table(table, 0).await };
        unless_exists(self.repeat(table, ask).await)
    }

    async fn table_update(&self, table: &str, entries: Vec<TableEntry>) -> Outcome<Vec<i64>> {
        self.store(table).table_update(table, entries).await
    }

    async fn table_remove(&self, table: &str, keys: Vec<TableKey>) -> Outcome<()> {
        self.store(table).table_remove(table, keys).await
    }

    async fn table_get(&self, table: &str, keys: Vec<Bytes>) -> Outcome<Vec<Option<TableEntry>>> {
        let ask = |store: Store| {
            let keys = keys.clone();
            async move { store.table_get(table, keys).await }
        };
        self.repeat(table, ask).await
    }

    async fn table_entries(
        &self,
        table: &str,
        count: i32,
        continuation: Bytes,
    ) -> Outcome<TablePage> {
        let ask = |store: Store| {
            let continuation = continuation.clone();
            async move { store.table_entries(table, count, continuation).await }
        };
        self.repeat(table, ask).await
    }
}
