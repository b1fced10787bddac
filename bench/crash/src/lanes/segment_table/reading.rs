//! Reading tables in every way there is.

use std::collections::BTreeSet;

use bytes::Bytes;
use thalweg_wire::{
    Command, IterationArguments, KEY_NO_VERSION, KEY_NOT_EXISTS, ReadTable, ReadTableEntries,
    ReadTableEntriesDelta, ReadTableKeys, TableEntriesDeltaRead, TableKey,
};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::Dice;
use crate::store::{Store, none};
use crate::wire::Trouble;

use super::{Model, Table};

impl Table {
    /// Arguments that ask for what follows: the fixed layout goes on by key, the other by token.
    fn after(&self, token: Bytes, last: Option<&Bytes>) -> IterationArguments {
        match last {
            Some(last) if self.key_length > 0 => {
                let mut next = last.to_vec();
                *next.last_mut().expect("keys are not empty") += 1;
                IterationArguments { from_key: next.into(), ..Default::default() }
            }
            _ => IterationArguments { continuation_token: token, ..Default::default() },
        }
    }

    /// All entries, page by page.
    pub(super) fn read_all(&self, store: &mut Store) -> Result<Model, Trouble> {
        let name = &self.name;
        let mut found = Model::new();
        let mut iteration = IterationArguments::default();
        loop {
            let reply = store.ask(name, |request_id| {
                ReadTableEntries {
                    request_id,
                    segment: name.as_str().into(),
                    delegation_token: none(),
                    suggested_entry_count: 70,
                    iteration,
                }
                .into()
            })?;
            let Command::TableEntriesRead(page) = reply else {
                wrong!("{name}: {reply:?} to ReadTableEntries");
            };
            let Some(last) = page.entries.last().map(|entry| entry.key.key.clone()) else {
                return Ok(found);
            };
            iteration = self.after(page.continuation_token, Some(&last));
            for entry in page.entries {
                let (key, version) = (entry.key.key, entry.key.version);
                let twice = found.insert(key.clone(), (version, entry.value));
                ensure!(twice.is_none(), "{name}: {key:?} is told twice");
            }
        }
    }

    /// All keys, page by page.
    fn read_keys(&self, store: &mut Store) -> Result<BTreeSet<(Bytes, i64)>, Trouble> {
        let name = &self.name;
        let mut found = BTreeSet::new();
        let mut iteration = IterationArguments::default();
        loop {
            let reply = store.ask(name, |request_id| {
                ReadTableKeys {
                    request_id,
                    segment: name.as_str().into(),
                    delegation_token: none(),
                    suggested_key_count: 50,
                    iteration,
                }
                .into()
            })?;
            let Command::TableKeysRead(page) = reply else {
                wrong!("{name}: {reply:?} to ReadTableKeys");
            };
            let Some(last) = page.keys.last().map(|key| key.key.clone()) else {
                return Ok(found);
            };
            iteration = self.after(page.continuation_token, Some(&last));
            found.extend(page.keys.into_iter().map(|key| (key.key, key.version)));
        }
    }

    /// Keys of which some are there and some are not.
    pub(super) fn read_some(&self, store: &mut Store, dice: &mut Dice) -> Result<(), Trouble> {
        let name = &self.name;
        let keys: Vec<Bytes> = (0..dice.range(1..30)).map(|_| self.key(dice)).collect();
        let asked = keys.clone();
        let reply = store.ask(name, |request_id| {
            ReadTable {
                request_id,
                segment: name.as_str().into(),
                delegation_token: none(),
                keys: asked
                    .into_iter()
                    .map(|key| TableKey { key, version: KEY_NO_VERSION })
                    .collect(),
            }
            .into()
        })?;
        let Command::TableRead(found) = reply else { wrong!("{name}: {reply:?} to ReadTable") };
        ensure_eq!(found.entries.len(), keys.len(), "{name}: entries of ReadTable");
        for (key, entry) in keys.iter().zip(found.entries) {
            let absent = (KEY_NOT_EXISTS, Bytes::new());
            let known = self.model.get(key).unwrap_or(&absent);
            ensure_eq!(entry.key.key, *key, "{name}: order of ReadTable");
            ensure_eq!((entry.key.version, entry.value), *known, "{name}: {key:?} read");
        }
        Ok(())
    }

    fn read_delta(
        &self,
        store: &mut Store,
        from_position: i64,
        count: i32,
    ) -> Result<TableEntriesDeltaRead, Trouble> {
        let name = &self.name;
        let reply = store.ask(name, |request_id| {
            ReadTableEntriesDelta {
                request_id,
                segment: name.as_str().into(),
                delegation_token: none(),
                from_position,
                suggested_entry_count: count,
            }
            .into()
        })?;
        match reply {
            Command::TableEntriesDeltaRead(delta) => Ok(delta),
            other => wrong!("{name}: {other:?} to a delta from {from_position}"),
        }
    }

    /// Goes on with the deltas until there is nothing new, as a synchronizer does.
    pub(super) fn delta(&mut self, store: &mut Store, count: i32) -> Result<(), Trouble> {
        if self.key_length > 0 {
            return Ok(());
        }
        loop {
            let delta = self.read_delta(store, self.position, count)?;
            let name = &self.name;
            if delta.should_clear {
                self.mirror.clear();
            }
            if delta.entries.is_empty() {
                break;
            }
            let position = delta.last_position;
            ensure!(position > self.position, "{name}: delta goes back to {position}");
            self.position = position;
            for entry in delta.entries {
                let (key, entry) = (entry.key.key, (entry.key.version, entry.value));
                ensure_eq!(self.model.get(&key), Some(&entry), "{name}: {key:?} in a delta");
                self.mirror.insert(key, entry);
            }
        }
        let name = &self.name;
        for (key, entry) in &self.model {
            ensure_eq!(self.mirror.get(key), Some(entry), "{name}: {key:?} after all deltas");
        }
        Ok(())
    }

    /// Keys, single reads and deltas tell the same as the model.
    pub(super) fn check_other_views(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let keys = self.read_keys(store)?;
        let known: BTreeSet<(Bytes, i64)> =
            self.model.iter().map(|(key, (version, _))| (key.clone(), *version)).collect();
        ensure_eq!(keys, known, "{}: keys", self.name);
        self.read_some(store, &mut Dice::new(self.version_max.unsigned_abs()))?;
        self.delta(store, 100)?;
        // A delta from the very beginning tells the same.
        (self.position, self.mirror) = (0, Model::new());
        self.delta(store, 35)
    }
}
