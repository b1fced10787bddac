//! Transactions from their making to their end.
//!
//! The record of a live transaction is the atom: it says open, committing or aborting, and what it
//! says is carried out after any crash. A completed transaction gets a record of its outcome, and
//! only then loses the live one; repeating the steps between is harmless, because a source that is
//! merged or deleted does not exist any more.
//!
//! Round trips: making is the live record, then all segments at once. A commit is one record before
//! the reply; after it one merge request per segment, one record of outcomes and one removal, each
//! for up to 100 transactions together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thalweg_client::{ClientError, Refusal};
use tokio::time::Instant;

use crate::controller::{Controller, Stream, now_ms};
use crate::epoch::SegmentRecord;
use crate::error::ControlError;
use crate::id::{StreamEpoch, TransactionId};
use crate::layout;
use crate::lease::Due;
use crate::live::Transaction;
use crate::names::StreamPath;
use crate::record::{self, LiveState, StoredOutcome, StoredTransaction};
use crate::segments::{Backoff, SegmentPolicy, SegmentStore};
use crate::tables::{Found, Version};
use crate::transaction::{self, COMPLETED_MS, Ending, Ping, TransactionState};

/// Pages looked through for a list of completed transactions.
const LIST_PAGES_MAX: usize = 20;

/// Why a transaction is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateRefusal {
    NoStream,
    Sealed,
    TooMany,
}

/// What came of merging transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merging {
    Done,
    /// A segment is sealed, deleted or truncated that should not be: it will never be done.
    Impossible,
    /// The epoch of the transactions is not known any more.
    EpochGone,
}

/// Answer to a commit or an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndOutcome {
    /// It will be done, or was.
    Accepted,
    /// It ends, or ended, the other way.
    Refused,
    NoTransaction,
    NoStream,
}

/// Which way a transaction is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Commit { writer: String, timestamp: i64 },
    Abort,
}

fn until(lease_ms: i64) -> Instant {
    Instant::now() + Duration::from_millis(u64::try_from(lease_ms).unwrap_or(0))
}

impl<S: SegmentStore> Controller<S> {
    /// Makes a transaction with a valid lease; gives it and the segments of its epoch.
    pub(crate) async fn create_transaction(
        &self,
        path: &StreamPath,
        lease_ms: i64,
    ) -> Result<Result<(TransactionId, Vec<SegmentRecord>), CreateRefusal>, ControlError> {
        let stream = self.stream(path);
        let _gate = stream.gate.read().await;
        let Some(record) = self.record(&stream).await?.filter(|it| it.is_visible()) else {
            return Ok(Err(CreateRefusal::NoStream));
        };
        if !record.takes_transactions() {
            return Ok(Err(CreateRefusal::Sealed));
        }
        if stream.transactions.is_full() {
            return Ok(Err(CreateRefusal::TooMany));
        }
        let counter = self.transaction_ids.next(&self.tables).await?;
        let epoch = record.history.active().reference;
        let id = TransactionId::new(epoch, counter);
        let created_ms = now_ms();
        let stored = StoredTransaction { created_ms, lease_ms, ..Default::default() };
        let key = layout::transaction_key(path, id);
        let table = layout::unfinished(path);
        // Before the segments, so that none is ever left over by a crash.
        let version =
            self.tables.put(&table, &key, record::encode(&stored), Version::ABSENT).await?;
        let lease_ends = until(lease_ms);
        let state = TransactionState::Open;
        let made = Transaction::new(id, created_ms, lease_ms, state, version, lease_ends);
        stream.transactions.insert(made);
        self.leases.look_at(Due { at: lease_ends, path: path.clone(), id });
        let segments: Vec<SegmentRecord> = record.history.active().segments.clone();
        let policy = SegmentPolicy {
            rollover_size_bytes: record.config.rollover_size_bytes,
            ..Default::default()
        };
        let known: Vec<SegmentRecord> = segments
            .into_iter()
            .map(|it| SegmentRecord { id: it.id.generalized(epoch), ..it })
            .collect();
        let names: Vec<String> =
            known.iter().map(|it| path.transaction_segment(it.id, id)).collect();
        let create = move |store: Arc<S>, name: String| async move {
            store.create_segment(&name, policy).await
        };
        // When this fails nobody learns of the transaction, and its lease ends it.
        self.each(names, create).await?;
        Ok(Ok((id, known)))
    }

    /// Renews a lease; `None` for an unknown transaction.
    pub(crate) async fn ping_transaction(
        &self,
        path: &StreamPath,
        id: TransactionId,
        lease_ms: i64,
    ) -> Result<Option<Ping>, ControlError> {
        let stream = self.stream(path);
        let Some(live) = stream.transactions.get(id) else {
            let outcome = self.outcome(&stream, id).await?;
            return Ok(outcome
                .map(|is_committed| if is_committed { Ping::Committed } else { Ping::Aborted }));
        };
        let answer = transaction::ping(live.state(), lease_ms, live.age_ms(), live.first_lease_ms);
        if answer == Ping::Renewed {
            let lease_ends = until(lease_ms);
            let is_shorter = lease_ends < live.lease_ends();
            live.renew(lease_ends);
            if is_shorter {
                self.leases.look_at(Due { at: lease_ends, path: path.clone(), id });
            }
        }
        Ok(Some(answer))
    }

    /// Where a transaction stands; `None` for an unknown one.
    pub(crate) async fn transaction_state(
        &self,
        path: &StreamPath,
        id: TransactionId,
    ) -> Result<Option<TransactionState>, ControlError> {
        let stream = self.stream(path);
        if let Some(live) = stream.transactions.get(id) {
            return Ok(Some(live.state()));
        }
        let outcome = self.outcome(&stream, id).await?;
        Ok(outcome.map(|is_committed| match is_committed {
            true => TransactionState::Committed,
            false => TransactionState::Aborted,
        }))
    }

    /// Completed transactions of a stream, not necessarily all.
    pub(crate) async fn completed_transactions(
        &self,
        path: &StreamPath,
        count: usize,
    ) -> Result<Vec<(TransactionId, bool)>, ControlError> {
        let recent = self.stream(path).transactions.all_recent();
        let mut found: BTreeMap<TransactionId, bool> = recent.into_iter().collect();
        let mut continuation = Bytes::new();
        for _ in 0..LIST_PAGES_MAX {
            let table = layout::completed(path);
            let (records, next) =
                self.tables.page(&table, crate::tables::PAGE_RECORDS, continuation).await?;
            for (key, record) in records {
                if let Some((_, id)) = layout::parse_completed(&key).filter(|it| it.0 == *path) {
                    found.insert(id, record::decode::<StoredOutcome>(&record.value)?.is_committed);
                }
            }
            if next.is_empty() || found.len() >= count {
                break;
            }
            continuation = next;
        }
        Ok(found.into_iter().take(count).collect())
    }

    /// Whether a completed transaction was committed.
    async fn outcome(
        &self,
        stream: &Stream,
        id: TransactionId,
    ) -> Result<Option<bool>, ControlError> {
        if let Some(is_committed) = stream.transactions.recent(id) {
            return Ok(Some(is_committed));
        }
        let key = layout::completed_key(&stream.path, id);
        let found = self.tables.get(&layout::completed(&stream.path), &key).await?;
        let Some(found) = found else { return Ok(None) };
        let stored: StoredOutcome = record::decode(&found.value)?;
        let is_remembered = now_ms() - stored.completed_ms < COMPLETED_MS;
        Ok(is_remembered.then_some(stored.is_committed))
    }

    /// Ends a transaction. What is accepted is durable, and is carried out afterwards.
    pub(crate) async fn end_transaction(
        self: &Arc<Self>,
        path: &StreamPath,
        id: TransactionId,
        end: End,
    ) -> Result<EndOutcome, ControlError> {
        let stream = self.stream(path);
        if let Some(live) = stream.transactions.get(id) {
            return self.end_live(&stream, &live, end, |_| true).await;
        }
        let state = match self.outcome(&stream, id).await? {
            Some(true) => TransactionState::Committed,
            Some(false) => TransactionState::Aborted,
            None if self.visible(path).await?.is_none() => return Ok(EndOutcome::NoStream),
            None => return Ok(EndOutcome::NoTransaction),
        };
        Ok(match ending(state, &end) {
            Ending::Repeated => EndOutcome::Accepted,
            Ending::Begin | Ending::Refused => EndOutcome::Refused,
        })
    }

    /// Ends a live transaction if, in its turn, it is still wanted.
    async fn end_live(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        live: &Arc<Transaction>,
        end: End,
        is_wanted: impl Fn(&Transaction) -> bool,
    ) -> Result<EndOutcome, ControlError> {
        let _turn = live.turn.lock().await;
        let version = match live.version() {
            Some(version) => version,
            None => match self.resolve_doubt(stream, live).await? {
                Some(version) => version,
                None => return Ok(EndOutcome::NoTransaction),
            },
        };
        match ending(live.state(), &end) {
            Ending::Repeated => return Ok(EndOutcome::Accepted),
            Ending::Refused => return Ok(EndOutcome::Refused),
            Ending::Begin if !is_wanted(live) => return Ok(EndOutcome::Refused),
            Ending::Begin => {}
        }
        let mut stored = StoredTransaction {
            state: LiveState::Aborting.into(),
            created_ms: live.created_ms,
            lease_ms: live.first_lease_ms,
            ..Default::default()
        };
        let End::Commit { writer, timestamp } = end else {
            let version = self.put_live(stream, live, &stored, version).await?;
            live.become_durably(TransactionState::Aborting, version);
            tokio::spawn(self.clone().abort(stream.clone(), live.clone()));
            return Ok(EndOutcome::Accepted);
        };
        let order = stream.transactions.take_order();
        stored.set_state(LiveState::Committing);
        stored.order = order;
        stored.writer = writer;
        stored.timestamp = timestamp;
        let written = self.put_live(stream, live, &stored, version).await;
        let must_begin = match &written {
            Ok(version) => {
                live.become_durably(TransactionState::Committing, *version);
                stream.transactions.enqueue(order, live.clone())
            }
            Err(_) => stream.transactions.give_up(order),
        };
        if must_begin {
            tokio::spawn(self.clone().commit_queued(stream.clone()));
        }
        written.map(|_| EndOutcome::Accepted)
    }

    async fn put_live(
        &self,
        stream: &Stream,
        live: &Transaction,
        stored: &StoredTransaction,
        version: Version,
    ) -> Result<Version, ControlError> {
        let table = layout::unfinished(&stream.path);
        let key = layout::transaction_key(&stream.path, live.id);
        let written = self.tables.put(&table, &key, record::encode(stored), version).await;
        written.inspect_err(|_| live.doubt())
    }

    /// Reads what became of a write that ended in doubt. The caller has the turn.
    async fn resolve_doubt(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        live: &Arc<Transaction>,
    ) -> Result<Option<Version>, ControlError> {
        let table = layout::unfinished(&stream.path);
        let key = layout::transaction_key(&stream.path, live.id);
        let Some(found) = self.tables.get(&table, &key).await? else {
            stream.transactions.complete(&[live.id], false);
            return Ok(None);
        };
        let stored: StoredTransaction = record::decode(&found.value)?;
        if stored.state() != LiveState::Open {
            self.carry_on(stream, live, &stored, found.version);
        }
        live.become_durably(state_of(&stored), found.version);
        Ok(Some(found.version))
    }

    /// Carries out what a stored record says.
    fn carry_on(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        live: &Arc<Transaction>,
        stored: &StoredTransaction,
        version: Version,
    ) {
        live.become_durably(state_of(stored), version);
        match stored.state() {
            LiveState::Open => self.leases.look_at(Due {
                at: live.lease_ends(),
                path: stream.path.clone(),
                id: live.id,
            }),
            LiveState::Committing => {
                if stream.transactions.enqueue(stored.order, live.clone()) {
                    tokio::spawn(self.clone().commit_queued(stream.clone()));
                }
            }
            LiveState::Aborting => {
                tokio::spawn(self.clone().abort(stream.clone(), live.clone()));
            }
        }
    }

    /// Takes up the live transactions found at start, all at once, so that commits are queued in
    /// their order before the first is carried out. Leases begin anew.
    pub(crate) fn adopt_transactions(
        self: &Arc<Self>,
        found: Vec<(StreamPath, TransactionId, Found)>,
    ) -> Result<(), ControlError> {
        let mut all = Vec::new();
        for (path, id, found) in found {
            let stored: StoredTransaction = record::decode(&found.value)?;
            all.push((path, id, stored, found.version));
        }
        all.sort_by_key(|(_, _, stored, _)| stored.order);
        for (path, id, stored, version) in all {
            let stream = self.stream(&path);
            let live = Transaction::new(
                id,
                stored.created_ms,
                stored.lease_ms,
                state_of(&stored),
                version,
                until(stored.lease_ms),
            );
            stream.transactions.insert(live.clone());
            // Spawned tasks do not run before this function, which never waits, has ended, or take
            // what is queued in order anyway.
            self.carry_on(&stream, &live, &stored, version);
        }
        Ok(())
    }

    /// Aborts what is open and waits until nothing is live. The caller holds the gate for writing.
    pub(crate) async fn end_all_transactions(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
    ) -> Result<(), ControlError> {
        for live in stream.transactions.all() {
            self.end_live(stream, &live, End::Abort, |_| true).await?;
        }
        stream.transactions.wait_until_empty().await;
        Ok(())
    }

    /// Aborts transactions whose lease has run out, for ever.
    pub(crate) async fn watch_leases(self: Arc<Self>) {
        loop {
            let due = self.leases.next().await;
            let controller = self.clone();
            tokio::spawn(async move { controller.look_at_lease(due).await });
        }
    }

    async fn look_at_lease(self: Arc<Self>, due: Due) {
        let stream = self.stream(&due.path);
        let Some(live) = stream.transactions.get(due.id) else { return };
        let has_ended = |live: &Transaction| live.lease_ends() <= Instant::now();
        if live.state() != TransactionState::Open {
            return;
        }
        let mut at = live.lease_ends();
        if has_ended(&live) {
            match self.end_live(&stream, &live, End::Abort, has_ended).await {
                Ok(EndOutcome::Accepted) => {
                    tracing::debug!(stream = %due.path, transaction = %due.id, "lease ran out");
                    return;
                }
                // Renewed or ended at the last moment; the next look tells.
                Ok(_) => at = live.lease_ends(),
                Err(error) => {
                    tracing::warn!(stream = %due.path, %error, "end a lease: trying again");
                    at = until(1000);
                }
            }
        }
        self.leases.look_at(Due { at, ..due });
    }

    /// Commits what is queued until nothing is.
    async fn commit_queued(self: Arc<Self>, stream: Arc<Stream>) {
        loop {
            let (epoch, batch) = stream.transactions.next_commits();
            if batch.is_empty() {
                return;
            }
            let ids: Vec<TransactionId> = batch.iter().map(|it| it.id).collect();
            let mut backoff = Backoff::default();
            while let Err(error) = self.commit_batch(&stream, epoch, &ids).await {
                tracing::warn!(stream = %stream.path, %error, "commit: trying again");
                backoff.wait().await;
            }
        }
    }

    /// Commits transactions together; when one of them stands in the way, one by one.
    async fn commit_batch(
        &self,
        stream: &Stream,
        epoch: StreamEpoch,
        ids: &[TransactionId],
    ) -> Result<(), ControlError> {
        match self.merge_all(stream, epoch, ids).await? {
            Merging::Done => self.complete(stream, ids, true).await,
            Merging::EpochGone => {
                tracing::error!(stream = %stream.path, "transactions of an epoch that is gone");
                self.complete(stream, ids, false).await
            }
            Merging::Impossible => {
                for id in ids {
                    self.commit_or_give_up(stream, epoch, *id).await?;
                }
                Ok(())
            }
        }
    }

    /// Commits one transaction. Somebody may have sealed or deleted the stream's segment, or
    /// truncated the transaction's, behind our back: then the promise cannot be kept, and is given
    /// up for this one only. The outcome is written before the rest is dropped, so that after a
    /// crash nobody takes what is dropped for merged.
    async fn commit_or_give_up(
        &self,
        stream: &Stream,
        epoch: StreamEpoch,
        id: TransactionId,
    ) -> Result<(), ControlError> {
        if stream.transactions.recent(id).is_some() {
            // In an attempt before this one.
            return Ok(());
        }
        if let Merging::Done = self.merge_all(stream, epoch, &[id]).await? {
            return self.complete(stream, &[id], true).await;
        }
        tracing::error!(stream = %stream.path, transaction = %id, "a commit cannot be merged");
        self.complete(stream, &[id], false).await?;
        self.drop_segments(stream, &[id]).await
    }

    async fn merge_all(
        &self,
        stream: &Stream,
        epoch: StreamEpoch,
        ids: &[TransactionId],
    ) -> Result<Merging, ControlError> {
        let record = self.record(stream).await?;
        let targets = record.and_then(|record| record.merge_targets(epoch));
        let Some(targets) = targets else { return Ok(Merging::EpochGone) };
        let path = &stream.path;
        let merges: Vec<(String, Vec<String>)> = targets
            .into_iter()
            .map(|(target, known)| {
                let sources = ids.iter().map(|id| path.transaction_segment(known, *id));
                (path.segment(target), sources.collect())
            })
            .collect();
        let merge = |store: Arc<S>, (target, sources): (String, Vec<String>)| async move {
            store.merge(&target, &sources).await
        };
        match self.each(merges.clone(), merge).await {
            Ok(()) => Ok(Merging::Done),
            Err(ClientError::Refused(
                refusal @ (Refusal::SegmentSealed { .. } | Refusal::NoSuchSegment { .. }),
            )) => {
                tracing::warn!(stream = %path, %refusal, "merge");
                Ok(Merging::Impossible)
            }
            // A store closes the connection on a truncated source, as it does for want of time.
            Err(error) => {
                for source in merges.into_iter().flat_map(|(_, sources)| sources) {
                    match self.store.segment_start(&source).await {
                        Ok(0) | Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => {}
                        Ok(_) => return Ok(Merging::Impossible),
                        Err(_) => break,
                    }
                }
                Err(error.into())
            }
        }
    }

    /// Drops an aborted transaction.
    async fn abort(self: Arc<Self>, stream: Arc<Stream>, live: Arc<Transaction>) {
        let mut backoff = Backoff::default();
        loop {
            let dropped = match self.drop_segments(&stream, &[live.id]).await {
                Ok(()) => self.complete(&stream, &[live.id], false).await,
                Err(error) => Err(error),
            };
            let Err(error) = dropped else { return };
            tracing::warn!(stream = %stream.path, %error, "abort: trying again");
            backoff.wait().await;
        }
    }

    async fn drop_segments(
        &self,
        stream: &Stream,
        ids: &[TransactionId],
    ) -> Result<(), ControlError> {
        let Some(record) = self.record(stream).await? else { return Ok(()) };
        let mut names = Vec::new();
        for id in ids {
            let segments = record.history.epoch(id.epoch()).map(|epoch| &epoch.segments);
            names.extend(segments.into_iter().flatten().map(|segment| {
                stream.path.transaction_segment(segment.id.generalized(id.epoch()), *id)
            }));
        }
        let delete = |store: Arc<S>, name: String| async move { store.delete_segment(&name).await };
        Ok(self.each(names, delete).await?)
    }

    /// Writes outcomes, then forgets the live records.
    async fn complete(
        &self,
        stream: &Stream,
        ids: &[TransactionId],
        is_committed: bool,
    ) -> Result<(), ControlError> {
        let path = &stream.path;
        let outcome = record::encode(&StoredOutcome { is_committed, completed_ms: now_ms() });
        let outcomes =
            ids.iter().map(|id| (layout::completed_key(path, *id), outcome.clone())).collect();
        self.tables.put_all(&layout::completed(path), &outcomes).await?;
        let keys: Vec<String> = ids.iter().map(|id| layout::transaction_key(path, *id)).collect();
        self.tables.remove_all(&layout::unfinished(path), &keys).await?;
        stream.transactions.complete(ids, is_committed);
        Ok(())
    }

    /// Forgets outcomes that are old enough, once.
    pub(crate) async fn forget_completed(&self) -> Result<(), ControlError> {
        for table in layout::all_completed() {
            let mut continuation = Bytes::new();
            loop {
                let (records, next) =
                    self.tables.page(&table, crate::tables::PAGE_RECORDS, continuation).await?;
                let mut old = Vec::new();
                for (key, record) in records {
                    let stored: StoredOutcome = record::decode(&record.value)?;
                    if now_ms() - stored.completed_ms >= COMPLETED_MS {
                        old.push(key);
                    }
                }
                if !old.is_empty() {
                    self.tables.remove_all(&table, &old).await?;
                }
                if next.is_empty() {
                    break;
                }
                continuation = next;
            }
        }
        Ok(())
    }
}

fn ending(state: TransactionState, end: &End) -> Ending {
    match end {
        End::Commit { .. } => state.commit(),
        End::Abort => state.abort(),
    }
}

fn state_of(stored: &StoredTransaction) -> TransactionState {
    match stored.state() {
        LiveState::Open => TransactionState::Open,
        LiveState::Committing => TransactionState::Committing,
        LiveState::Aborting => TransactionState::Aborting,
    }
}
