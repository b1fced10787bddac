//! Changes of streams and scopes, step by step, so that a crash between any two steps is harmless.
//!
//! A change of a stream is noted as unfinished, then begun in the stream's record, carried out and
//! finished in the record; then the note is removed. Each step can be repeated. After a crash
//! the notes tell which streams to look at and the record tells what to do. A scope's record tells
//! both.

use std::sync::Arc;

use bytes::Bytes;
use thalweg_client::{ClientError, Refusal};

use crate::controller::{Controller, Stream, now_ms};
use crate::cut::{self, StreamCut};
use crate::error::ControlError;
use crate::id::SegmentNumber;
use crate::layout::{self, Unfinished};
use crate::names::{SYSTEM_SCOPE, StreamPath};
use crate::proto;
use crate::record::{self, ScopeChange, StoredCount, StoredScope};
use crate::segments::{Backoff, Outcome, SegmentPolicy, SegmentStore};
use crate::stream::{Change, StreamRecord, StreamRefusal};
use crate::tables::Version;

/// Answer to a change of an object that may be there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeOutcome {
    Done,
    NotFound,
    ScopeNotFound,
    Exists,
    NotEmpty,
    Refused(StreamRefusal),
    /// An offset lies behind the end of its segment.
    BehindTheEnd,
}

impl<S: SegmentStore> Controller<S> {
    /// Creates a stream with a normalized configuration; its names are valid.
    pub(crate) async fn create_stream(
        self: &Arc<Self>,
        path: &StreamPath,
        config: proto::StreamConfig,
    ) -> Result<ChangeOutcome, ControlError> {
        let scope = self.scope_gate(path.scope());
        let _scope = scope.read().await;
        if !self.scope_exists(path.scope()).await? {
            return Ok(ChangeOutcome::ScopeNotFound);
        }
        let stream = self.stream(path);
        let _gate = stream.gate.write().await;
        if let Some(present) = self.record(&stream).await? {
            let is_half_created = present.change == Some(Change::Create);
            self.carry_out(&stream).await?;
            let is_same = is_half_created && present.config == config;
            if self.record(&stream).await?.is_some() {
                // The one who began it never learnt that it was done, and asks again.
                return Ok(if is_same { ChangeOutcome::Done } else { ChangeOutcome::Exists });
            }
        }
        let first = match self.tables.get(layout::COUNTS, &layout::segment_count_key(path)).await? {
            Some(found) => record::decode::<StoredCount>(&found.value)?.next,
            None => 0,
        };
        let first = SegmentNumber(u32::try_from(first).unwrap_or(u32::MAX));
        self.begin(&stream, StreamRecord::creating(config, first, now_ms())).await?;
        Ok(ChangeOutcome::Done)
    }

    /// Gives a stream another configuration, normalized.
    pub(crate) async fn update_stream(
        self: &Arc<Self>,
        path: &StreamPath,
        config: proto::StreamConfig,
    ) -> Result<ChangeOutcome, ControlError> {
        let stream = self.stream(path);
        let _gate = stream.gate.write().await;
        let Some(record) = self.settled(&stream).await? else { return Ok(ChangeOutcome::NotFound) };
        match record.update(config) {
            Ok(record) => self.write(&stream, Some(record)).await.map(|()| ChangeOutcome::Done),
            Err(refusal) => Ok(ChangeOutcome::Refused(refusal)),
        }
    }

    /// Drops what lies before a cut.
    pub(crate) async fn truncate_stream(
        self: &Arc<Self>,
        path: &StreamPath,
        cut: StreamCut,
    ) -> Result<ChangeOutcome, ControlError> {
        let stream = self.stream(path);
        let _gate = stream.gate.write().await;
        let Some(record) = self.settled(&stream).await? else { return Ok(ChangeOutcome::NotFound) };
        let begun = match record.truncate(cut.clone()) {
            Ok(begun) => begun,
            Err(StreamRefusal::Done) => return Ok(ChangeOutcome::Done),
            Err(refusal) => return Ok(ChangeOutcome::Refused(refusal)),
        };
        // Looked at before the change is begun, since a change that is begun must be possible.
        for (id, offset) in cut {
            match self.store.segment_length(&path.segment(id)).await {
                Ok(length) if offset > length => return Ok(ChangeOutcome::BehindTheEnd),
                Ok(_) | Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.begin(&stream, begun).await.map(|()| ChangeOutcome::Done)
    }

    /// Seals a stream, after its transactions have ended.
    pub(crate) async fn seal_stream(
        self: &Arc<Self>,
        path: &StreamPath,
    ) -> Result<ChangeOutcome, ControlError> {
        let stream = self.stream(path);
        let _gate = stream.gate.write().await;
        let Some(record) = self.settled(&stream).await? else { return Ok(ChangeOutcome::NotFound) };
        match record.seal() {
            Ok(begun) => self.begin(&stream, begun).await.map(|()| ChangeOutcome::Done),
            Err(StreamRefusal::Done) => Ok(ChangeOutcome::Done),
            Err(refusal) => Ok(ChangeOutcome::Refused(refusal)),
        }
    }

    /// Deletes a sealed stream.
    pub(crate) async fn delete_stream(
        self: &Arc<Self>,
        path: &StreamPath,
    ) -> Result<ChangeOutcome, ControlError> {
        let stream = self.stream(path);
        let _gate = stream.gate.write().await;
        let Some(record) = self.settled(&stream).await? else { return Ok(ChangeOutcome::NotFound) };
        match record.delete() {
            Ok(begun) => self.begin(&stream, begun).await.map(|()| ChangeOutcome::Done),
            Err(refusal) => Ok(ChangeOutcome::Refused(refusal)),
        }
    }

    /// The record after whatever was under way. The caller holds the gate for writing.
    async fn settled(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
    ) -> Result<Option<Arc<StreamRecord>>, ControlError> {
        self.carry_out(stream).await?;
        self.record(stream).await
    }

    /// Notes, begins and carries out a change. The caller holds the gate for writing.
    async fn begin(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        begun: StreamRecord,
    ) -> Result<(), ControlError> {
        let (table, key) = (layout::unfinished(&stream.path), layout::change_key(&stream.path));
        let note = record::encode(&StoredCount { next: 0 });
        let noted = self.tables.put(&table, &key, note, Version::ANY).await?;
        let carried_out = match self.write(stream, Some(begun)).await {
            Ok(()) => self.carry_out(stream).await,
            Err(error) => Err(error),
        };
        let controller = self.clone();
        match &carried_out {
            Ok(()) => {
                // The next change's note has another version and stays.
                tokio::spawn(async move { controller.tables.remove(&table, &key, noted).await });
            }
            Err(error) => {
                tracing::warn!(stream = %stream.path, %error, "change: going on in the background");
                tokio::spawn(controller.resume(stream.path.clone()));
            }
        }
        carried_out
    }

    /// Carries out the change under way, if any, and finishes it. The caller holds the gate for
    /// writing.
    async fn carry_out(self: &Arc<Self>, stream: &Arc<Stream>) -> Result<(), ControlError> {
        let Some(record) = self.record(stream).await? else { return Ok(()) };
        match &record.change {
            None => return Ok(()),
            Some(Change::Create) => self.create_segments(stream, &record).await?,
            Some(Change::Truncate(cut)) => self.truncate_segments(stream, &record, cut).await?,
            Some(Change::Seal) => {
                self.end_all_transactions(stream).await?;
                let active = record.history.active().segments.iter();
                let names: Vec<String> = active.map(|it| stream.path.segment(it.id)).collect();
                let seal = |store: Arc<S>, name: String| async move {
                    unless_gone(store.seal_segment(&name).await)
                };
                self.each(names, seal).await?;
            }
            Some(Change::Delete) => {
                let all = record.history.segments();
                self.delete_segments(stream, all.iter().map(|it| it.id)).await?;
                let next = u64::from(record.history.last_number().0) + 1;
                let key = layout::segment_count_key(&stream.path);
                let value = record::encode(&StoredCount { next });
                self.tables.put(layout::COUNTS, &key, value, Version::ANY).await?;
            }
        }
        self.write(stream, record.finished()).await
    }

    async fn create_segments(
        &self,
        stream: &Stream,
        record: &StreamRecord,
    ) -> Result<(), ControlError> {
        let scaling = record.config.scaling_policy.unwrap_or_default();
        let policy = SegmentPolicy {
            scale_type: i8::try_from(scaling.scale_type).unwrap_or(0),
            target_rate: scaling.target_rate,
            rollover_size_bytes: record.config.rollover_size_bytes,
        };
        let segments = record.history.active().segments.iter();
        let names: Vec<String> = segments.map(|it| stream.path.segment(it.id)).collect();
        let create = move |store: Arc<S>, name: String| async move {
            store.create_segment(&name, policy).await
        };
        Ok(self.each(names, create).await?)
    }

    async fn truncate_segments(
        &self,
        stream: &Stream,
        record: &StreamRecord,
        cut: &StreamCut,
    ) -> Result<(), ControlError> {
        let offsets: Vec<(String, i64)> =
            cut.iter().map(|(id, offset)| (stream.path.segment(*id), *offset)).collect();
        let truncate = |store: Arc<S>, (name, offset): (String, i64)| async move {
            match store.truncate_segment(&name, offset).await {
                // Its writer has truncated it further, without asking us.
                Err(ClientError::Refused(Refusal::SegmentTruncated { .. })) => Ok(()),
                outcome => unless_gone(outcome),
            }
        };
        self.each(offsets, truncate).await?;
        self.delete_segments(stream, cut::before(&record.history, cut)).await
    }

    async fn delete_segments(
        &self,
        stream: &Stream,
        ids: impl IntoIterator<Item = crate::id::StreamSegmentId>,
    ) -> Result<(), ControlError> {
        let names: Vec<String> = ids.into_iter().map(|id| stream.path.segment(id)).collect();
        let delete = |store: Arc<S>, name: String| async move { store.delete_segment(&name).await };
        Ok(self.each(names, delete).await?)
    }

    /// Carries out what is under way on a stream and removes the note of it; again and again until
    /// it is done.
    pub(crate) async fn resume(self: Arc<Self>, path: StreamPath) {
        let stream = self.stream(&path);
        let mut backoff = Backoff::default();
        loop {
            let done = {
                let _gate = stream.gate.write().await;
                match self.carry_out(&stream).await {
                    Ok(()) => {
                        let keys = [layout::change_key(&path)];
                        self.tables.remove_all(&layout::unfinished(&path), &keys).await
                    }
                    Err(error) => Err(error),
                }
            };
            match done {
                Ok(()) => return,
                Err(error) => tracing::warn!(stream = %path, %error, "resume: trying again"),
            }
            backoff.wait().await;
        }
    }

    /// Creates a scope; its name is valid.
    pub(crate) async fn create_scope(&self, scope: &str) -> Result<ChangeOutcome, ControlError> {
        let gate = self.scope_gate(scope);
        let _gate = gate.write().await;
        if self.settle_scope(scope).await?.is_some() {
            return Ok(ChangeOutcome::Exists);
        }
        let begun = StoredScope { change: ScopeChange::Create.into(), created_ms: now_ms() };
        let version = self.put_scope(scope, &begun, Version::ABSENT).await?;
        self.carry_out_scope(scope, begun, version).await?;
        Ok(ChangeOutcome::Done)
    }

    /// Deletes a scope without streams.
    pub(crate) async fn delete_scope(&self, scope: &str) -> Result<ChangeOutcome, ControlError> {
        let gate = self.scope_gate(scope);
        let _gate = gate.write().await;
        let Some((mut stored, version)) = self.settle_scope(scope).await? else {
            return Ok(ChangeOutcome::NotFound);
        };
        let (streams, _) = self.tables.page(&layout::streams(scope), 1, Bytes::new()).await?;
        if !streams.is_empty() || scope == SYSTEM_SCOPE {
            return Ok(ChangeOutcome::NotEmpty);
        }
        stored.set_change(ScopeChange::Delete);
        let version = self.put_scope(scope, &stored, version).await?;
        self.carry_out_scope(scope, stored, version).await?;
        Ok(ChangeOutcome::Done)
    }

    /// Whether a scope is there, and not half created or half deleted.
    pub(crate) async fn scope_exists(&self, scope: &str) -> Result<bool, ControlError> {
        let Some(found) = self.tables.get(layout::SCOPES, scope).await? else { return Ok(false) };
        let stored: StoredScope = record::decode(&found.value)?;
        Ok(stored.change() == ScopeChange::None)
    }

    async fn put_scope(
        &self,
        scope: &str,
        stored: &StoredScope,
        expected: Version,
    ) -> Result<Version, ControlError> {
        self.tables.put(layout::SCOPES, scope, record::encode(stored), expected).await
    }

    /// The scope's record after whatever was under way. The caller holds its gate for writing.
    async fn settle_scope(
        &self,
        scope: &str,
    ) -> Result<Option<(StoredScope, Version)>, ControlError> {
        let Some(found) = self.tables.get(layout::SCOPES, scope).await? else { return Ok(None) };
        let stored = record::decode(&found.value)?;
        self.carry_out_scope(scope, stored, found.version).await
    }

    async fn carry_out_scope(
        &self,
        scope: &str,
        mut stored: StoredScope,
        version: Version,
    ) -> Result<Option<(StoredScope, Version)>, ControlError> {
        match stored.change() {
            ScopeChange::None => Ok(Some((stored, version))),
            ScopeChange::Create => {
                self.store.create_table(&layout::streams(scope)).await?;
                stored.set_change(ScopeChange::None);
                let version = self.put_scope(scope, &stored, version).await?;
                Ok(Some((stored, version)))
            }
            ScopeChange::Delete => {
                self.store.delete_segment(&layout::streams(scope)).await?;
                self.tables.remove(layout::SCOPES, scope, version).await?;
                Ok(None)
            }
        }
    }

    /// Waits for the stores, makes the tables that are missing, takes up what was under way when
    /// the process before this one ended.
    pub(crate) async fn open(self: &Arc<Self>) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.try_open().await {
            tracing::warn!(%error, "open the control plane: trying again");
            backoff.wait().await;
        }
    }

    async fn try_open(self: &Arc<Self>) -> Result<(), ControlError> {
        let fixed = [layout::SCOPES.to_owned(), layout::COUNTS.to_owned()];
        let tables = layout::all_unfinished().chain(layout::all_completed()).chain(fixed);
        let create = |store: Arc<S>, table: String| async move { store.create_table(&table).await };
        self.each(tables, create).await?;
        self.create_scope(SYSTEM_SCOPE).await?;
        for (scope, found) in self.tables.all(layout::SCOPES).await? {
            let stored: StoredScope = record::decode(&found.value)?;
            if stored.change() != ScopeChange::None {
                let gate = self.scope_gate(&scope);
                let _gate = gate.write().await;
                self.settle_scope(&scope).await?;
            }
        }
        let mut changes = Vec::new();
        let mut transactions = Vec::new();
        for table in layout::all_unfinished() {
            for (key, found) in self.tables.all(&table).await? {
                match layout::parse_unfinished(&key) {
                    Some(Unfinished::Change(path)) => changes.push(path),
                    Some(Unfinished::Transaction(path, id)) => transactions.push((path, id, found)),
                    None => tracing::error!(table, key, "a record that nobody wrote"),
                }
            }
        }
        let (changed, live) = (changes.len(), transactions.len());
        self.adopt_transactions(transactions)?;
        for path in changes {
            tokio::spawn(self.clone().resume(path));
        }
        tracing::info!(changes = changed, transactions = live, "control plane open");
        Ok(())
    }
}

/// A segment that is not there any more needs nothing done to it.
fn unless_gone(outcome: Outcome<()>) -> Outcome<()> {
    match outcome {
        Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => Ok(()),
        outcome => outcome,
    }
}
