//! A segment store in memory that can fail or die at any one request.
//!
//! What it holds outlives it, as a disk would: a second one over the same contents is the store
//! after a restart. At its fatal request it either did what was asked or not; then nobody gets
//! an answer any more. At a failing request it answers that it is unavailable, having done it or
//! not, and goes on.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use thalweg_client::{ClientError, Refusal, TablePage};
use thalweg_wire::{KEY_NO_VERSION, KEY_NOT_EXISTS, TableEntry, TableKey};
use tokio::sync::Notify;

use crate::segments::{Outcome, SegmentPolicy, SegmentStore};

/// What is stored.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) segments: BTreeMap<String, Segment>,
    pub(crate) tables: BTreeMap<String, BTreeMap<Bytes, (Bytes, i64)>>,
    last_version: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) data: Vec<u8>,
    pub(crate) start: i64,
    pub(crate) is_sealed: bool,
}

/// What happens at one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    DieBefore,
    DieAfter,
    FailBefore,
    FailAfter,
}

/// The store.
pub(crate) struct Fake {
    pub(crate) contents: Arc<Mutex<Contents>>,
    /// Requests until the trouble, that one included.
    trouble: Mutex<Option<(u64, Trouble)>>,
    is_dead: Mutex<bool>,
    died: Notify,
}

impl Fake {
    pub(crate) fn new(contents: Arc<Mutex<Contents>>) -> Arc<Self> {
        Arc::new(Self {
            contents,
            trouble: Mutex::default(),
            is_dead: Mutex::default(),
            died: Notify::new(),
        })
    }

    /// Plans trouble at the `request`th request from now, the first being 1.
    pub(crate) fn plan(&self, request: u64, trouble: Trouble) {
        *self.trouble.lock().expect("tests do not panic with it") = Some((request, trouble));
    }

    /// Nobody gets an answer any more.
    pub(crate) fn kill(&self) {
        *self.is_dead.lock().expect("tests do not panic with it") = true;
    }

    /// Whether the planned trouble has not come yet; it will not come then.
    pub(crate) fn cancel(&self) -> bool {
        self.trouble.lock().expect("tests do not panic with it").take().is_some()
    }

    pub(crate) async fn died(&self) {
        self.died.notified().await;
    }

    fn trouble_now(&self) -> Option<Trouble> {
        let mut planned = self.trouble.lock().expect("tests do not panic with it");
        let (left, trouble) = (*planned)?;
        *planned = (left > 1).then_some((left - 1, trouble));
        (left == 1).then_some(trouble)
    }

    async fn run<T>(&self, work: impl FnOnce(&mut Contents) -> Outcome<T>) -> Outcome<T> {
        // Lets other tasks in between, as a network would.
        tokio::task::yield_now().await;
        let is_dead = *self.is_dead.lock().expect("tests do not panic with it");
        if is_dead {
            return pending().await;
        }
        let trouble = self.trouble_now();
        let outcome = match trouble {
            Some(Trouble::DieBefore | Trouble::FailBefore) => None,
            _ => Some(work(&mut self.contents.lock().expect("tests do not panic with it"))),
        };
        match (trouble, outcome) {
            (None, Some(outcome)) => outcome,
            (Some(Trouble::FailBefore | Trouble::FailAfter), _) | (None, None) => {
                Err(ClientError::Unavailable("as planned".to_owned()))
            }
            (Some(Trouble::DieBefore | Trouble::DieAfter), _) => {
                self.kill();
                self.died.notify_one();
                pending().await
            }
        }
    }
}

fn refused<T>(refusal: Refusal) -> Outcome<T> {
    Err(ClientError::Refused(refusal))
}

fn missing<T>(segment: &str) -> Outcome<T> {
    refused(Refusal::NoSuchSegment { segment: segment.to_owned() })
}

impl Contents {
    fn check_versions<'a>(
        &self,
        table: &str,
        keys: impl Iterator<Item = &'a TableKey>,
    ) -> Outcome<()> {
        let Some(present) = self.tables.get(table) else { return missing(table) };
        for key in keys {
            let version = present.get(&key.key).map_or(KEY_NOT_EXISTS, |(_, version)| *version);
            if key.version != KEY_NO_VERSION && key.version != version {
                return refused(Refusal::KeyVersionMismatch { segment: table.to_owned() });
            }
        }
        Ok(())
    }
}

impl SegmentStore for Fake {
    async fn create_segment(&self, segment: &str, _: SegmentPolicy) -> Outcome<()> {
        self.run(|contents| {
            contents.segments.entry(segment.to_owned()).or_default();
            Ok(())
        })
        .await
    }

    async fn seal_segment(&self, segment: &str) -> Outcome<()> {
        self.run(|contents| match contents.segments.get_mut(segment) {
            Some(found) => {
                found.is_sealed = true;
                Ok(())
            }
            None => missing(segment),
        })
        .await
    }

    async fn truncate_segment(&self, segment: &str, offset: i64) -> Outcome<()> {
        self.run(|contents| match contents.segments.get_mut(segment) {
            Some(found) if offset >= found.start && offset <= found.data.len() as i64 => {
                found.start = offset;
                Ok(())
            }
            Some(found) => refused(Refusal::SegmentTruncated {
                segment: segment.to_owned(),
                start_offset: found.start,
            }),
            None => missing(segment),
        })
        .await
    }

    async fn delete_segment(&self, segment: &str) -> Outcome<()> {
        self.run(|contents| {
            contents.segments.remove(segment);
            contents.tables.remove(segment);
            Ok(())
        })
        .await
    }

    async fn segment_length(&self, segment: &str) -> Outcome<i64> {
        self.run(|contents| match contents.segments.get(segment) {
            Some(found) => Ok(found.data.len() as i64),
            None => missing(segment),
        })
        .await
    }

    async fn segment_start(&self, segment: &str) -> Outcome<i64> {
        self.run(|contents| match contents.segments.get(segment) {
            Some(found) => Ok(found.start),
            None => missing(segment),
        })
        .await
    }

    async fn merge(&self, target: &str, sources: &[String]) -> Outcome<()> {
        self.run(|contents| {
            match contents.segments.get(target) {
                None => return missing(target),
                Some(found) if found.is_sealed => {
                    return refused(Refusal::SegmentSealed { segment: target.to_owned() });
                }
                Some(_) => {}
            }
            let mut outcome = Ok(());
            for source in sources {
                if let Some(truncated) = contents.segments.get_mut(source).filter(|it| it.start > 0)
                {
                    truncated.is_sealed = true;
                    outcome = Err(ClientError::Unavailable("closed".to_owned()));
                    continue;
                }
                let data = contents.segments.remove(source).unwrap_or_default().data;
                if let Some(target) = contents.segments.get_mut(target) {
                    target.data.extend(data);
                }
            }
            outcome
        })
        .await
    }

    async fn create_table(&self, table: &str) -> Outcome<()> {
        self.run(|contents| {
            contents.tables.entry(table.to_owned()).or_default();
            Ok(())
        })
        .await
    }

    async fn table_update(&self, table: &str, entries: Vec<TableEntry>) -> Outcome<Vec<i64>> {
        self.run(|contents| {
            contents.check_versions(table, entries.iter().map(|entry| &entry.key))?;
            let mut versions = Vec::new();
            for entry in entries {
                contents.last_version += 1;
                let version = contents.last_version;
                versions.push(version);
                if let Some(present) = contents.tables.get_mut(table) {
                    present.insert(entry.key.key, (entry.value, version));
                }
            }
            Ok(versions)
        })
        .await
    }

    async fn table_remove(&self, table: &str, keys: Vec<TableKey>) -> Outcome<()> {
        self.run(|contents| {
            contents.check_versions(table, keys.iter())?;
            if let Some(present) = contents.tables.get_mut(table) {
                keys.iter().for_each(|key| {
                    present.remove(&key.key);
                });
            }
            Ok(())
        })
        .await
    }

    async fn table_get(&self, table: &str, keys: Vec<Bytes>) -> Outcome<Vec<Option<TableEntry>>> {
        self.run(|contents| {
            let Some(present) = contents.tables.get(table) else { return missing(table) };
            let entry = |key: Bytes| {
                let (value, version) = present.get(&key)?.clone();
                Some(TableEntry { key: TableKey { key, version }, value })
            };
            Ok(keys.into_iter().map(entry).collect())
        })
        .await
    }

    /// At most two entries a page, so that every listing needs several; tokens are the last key.
    async fn table_entries(
        &self,
        table: &str,
        count: i32,
        continuation: Bytes,
    ) -> Outcome<TablePage> {
        self.run(|contents| {
            let Some(present) = contents.tables.get(table) else { return missing(table) };
            let entries: Vec<TableEntry> = present
                .iter()
                .filter(|(key, _)| **key > continuation)
                .take(count.clamp(0, 2) as usize)
                .map(|(key, (value, version))| TableEntry {
                    key: TableKey { key: key.clone(), version: *version },
                    value: value.clone(),
                })
                .collect();
            let continuation = entries.last().map(|entry| entry.key.key.clone());
            Ok(TablePage { entries, continuation: continuation.unwrap_or_default() })
        })
        .await
    }
}
