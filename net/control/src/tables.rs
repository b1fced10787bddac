//! Reading and writing records in tables, so that the outcome is always known.
//!
//! A conditional write whose reply is lost may have been carried out. It is resolved here by
//! reading: the key holds either what was to be written (done), or still the old version (try
//! again), or something else (a conflict). A record is therefore never written twice with the same
//! bytes for different reasons, except where that does not matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use thalweg_client::{ClientError, Refusal};
use thalweg_wire::{KEY_NO_VERSION, KEY_NOT_EXISTS, TableEntry, TableKey};
use tokio::time::Instant;

use crate::error::ControlError;
use crate::segments::{Backoff, PATIENCE, SegmentStore, is_passing};

/// Version of a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(i64);

impl Version {
    /// Of a record that does not exist.
    pub(crate) const ABSENT: Self = Self(KEY_NOT_EXISTS);
    /// For writes without a condition.
    pub(crate) const ANY: Self = Self(KEY_NO_VERSION);
}

/// A record found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its bytes.
    pub(crate) value: Bytes,
    /// Its version.
    pub(crate) version: Version,
}

/// The tables of the control plane. Cheap to clone.
pub(crate) struct Tables<S> {
    store: Arc<S>,
}

impl<S> Clone for Tables<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<S: SegmentStore> Tables<S> {
    /// Tables in `store`.
    pub(crate) fn new(store: Arc<S>) -> Self {
        Self { store }
    }

    /// The record at `key`, if any. A table that does not exist has no records.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub(crate) async fn get(&self, table: &str, key: &str) -> Result<Option<Found>, ControlError> {
        let keys = vec![Bytes::copy_from_slice(key.as_bytes())];
        match self.store.table_get(table, keys).await {
            Ok(entries) => Ok(entries
                .into_iter()
                .next()
                .flatten()
                .map(|entry| Found { value: entry.value, version: Version(entry.key.version) })),
            Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a record whose version is `expected`; gives the new version.
    ///
    /// # Errors
    /// [`ControlError::Conflict`]: nothing was written. [`ControlError::Store`]: it is not known
    /// whether anything was.
    pub(crate) async fn put(
        &self,
        table: &str,
        key: &str,
        value: Bytes,
        expected: Version,
    ) -> Result<Version, ControlError> {
        let name = Bytes::copy_from_slice(key.as_bytes());
        let end = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        let mut is_uncertain = false;
        loop {
            let entry = TableEntry {
                key: TableKey { key: name.clone(), version: expected.0 },
                value: value.clone(),
            };
            let error = match self.store.table_update(table, vec![entry]).await {
                Ok(versions) => {
                    let version = versions.first().copied();
                    return version
                        .map(Version)
                        .ok_or(ClientError::Internal("TableEntriesUpdated").into());
                }
                Err(ClientError::Refused(Refusal::KeyVersionMismatch { .. })) => {
                    let found = if is_uncertain { self.get(table, key).await? } else { None };
                    return match found {
                        Some(found) if found.value == value => Ok(found.version),
                        _ => Err(ControlError::Conflict(format!("{table} {key}"))),
                    };
                }
                Err(error) => error,
            };
            if !is_passing(&error) || Instant::now() >= end {
                return Err(error.into());
            }
            is_uncertain = true;
            backoff.wait().await;
        }
    }

    /// Writes records without conditions, all or none. Repeated while the store is unavailable.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub(crate) async fn put_all(
        &self,
        table: &str,
        records: &BTreeMap<String, Bytes>,
    ) -> Result<(), ControlError> {
        let end = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            let entries = records
                .iter()
                .map(|(key, value)| TableEntry { key: unconditional(key), value: value.clone() });
            match self.store.table_update(table, entries.collect()).await {
                Ok(_) => return Ok(()),
                Err(error) if is_passing(&error) && Instant::now() < end => backoff.wait().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes the record at `key` if its version is `expected`; a record that is gone is a
    /// success.
    ///
    /// # Errors
    /// [`ControlError::Conflict`]: it has another version and stays.
    pub(crate) async fn remove(
        &self,
        table: &str,
        key: &str,
        expected: Version,
    ) -> Result<(), ControlError> {
        let name = Bytes::copy_from_slice(key.as_bytes());
        let end = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            let keys = vec![TableKey { key: name.clone(), version: expected.0 }];
            match self.store.table_remove(table, keys).await {
                Ok(()) => return Ok(()),
                Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => return Ok(()),
                Err(ClientError::Refused(Refusal::KeyVersionMismatch { .. })) => {
                    return match self.get(table, key).await? {
                        None => Ok(()),
                        Some(_) => Err(ControlError::Conflict(format!("{table} {key}"))),
                    };
                }
                Err(error) if is_passing(&error) && Instant::now() < end => backoff.wait().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes records without conditions, all or none. Repeated while the store is unavailable.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub(crate) async fn remove_all(
        &self,
        table: &str,
        keys: &[String],
    ) -> Result<(), ControlError> {
        let end = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            let named = keys.iter().map(|key| unconditional(key)).collect();
            match self.store.table_remove(table, named).await {
                Ok(()) => return Ok(()),
                Err(error) if is_passing(&error) && Instant::now() < end => backoff.wait().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A page of at most `count` records and where the next page begins, which is empty when there
    /// is none. A table that does not exist has no records.
    ///
    /// # Errors
    /// [`ControlError::Store`], also for a continuation that is none.
    pub(crate) async fn page(
        &self,
        table: &str,
        count: i32,
        continuation: Bytes,
    ) -> Result<(Vec<(String, Found)>, Bytes), ControlError> {
        let page = match self.store.table_entries(table, count, continuation).await {
            Ok(page) => page,
            Err(ClientError::Refused(Refusal::NoSuchSegment { .. })) => {
                return Ok((Vec::new(), Bytes::new()));
            }
            Err(error) => return Err(error.into()),
        };
        let records = page.entries.into_iter().map(|entry| {
            let key = String::from_utf8_lossy(&entry.key.key).into_owned();
            (key, Found { value: entry.value, version: Version(entry.key.version) })
        });
        let records: Vec<_> = records.collect();
        let continuation = if records.is_empty() { Bytes::new() } else { page.continuation };
        Ok((records, continuation))
    }

    /// All records of a table.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub(crate) async fn all(&self, table: &str) -> Result<Vec<(String, Found)>, ControlError> {
        let mut all = Vec::new();
        let mut continuation = Bytes::new();
        loop {
            let (records, next) = self.page(table, PAGE_RECORDS, continuation).await?;
            all.extend(records);
            if next.is_empty() {
                return Ok(all);
            }
            continuation = next;
        }
    }
}

/// Records asked for at a time when a whole table is read.
pub(crate) const PAGE_RECORDS: i32 = 1000;

fn unconditional(key: &str) -> TableKey {
    TableKey { key: Bytes::copy_from_slice(key.as_bytes()), version: KEY_NO_VERSION }
}
