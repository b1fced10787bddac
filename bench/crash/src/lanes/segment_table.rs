//! A table in the layout for keys of any length and one with a fixed key length, under batches,
//! removals, reads, deltas, deletion and re-creation.
//!
//! Checked: a table holds exactly the keys, values and versions that were acknowledged; a batch
//! without an answer was carried out whole or not at all; new versions are larger than all before;
//! refused batches changed nothing; iteration and deltas tell every key.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_wire::{
    Command, CreateTableSegment, DeleteTableSegment, KEY_NO_VERSION, KEY_NOT_EXISTS,
    RemoveTableKeys, TableEntry, TableKey, UpdateTableEntries,
};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::Dice;
use crate::lane::{Lane, Verified};
use crate::store::{Route, Store, none};
use crate::wire::Trouble;

mod reading;

/// Keys in play.
const KEYS: u64 = 300;

type Model = BTreeMap<Bytes, (i64, Bytes)>;

/// What was asked for and not answered.
enum Asked {
    Create,
    Delete,
    Update(Vec<TableEntry>),
    Remove(Vec<TableKey>),
}

struct Table {
    name: String,
    /// 0 for keys of any length.
    key_length: i32,
    exists: bool,
    model: Model,
    /// Largest version that was ever told in the present life.
    version_max: i64,
    /// Where the next delta goes on, and what the deltas so far told.
    position: i64,
    mirror: Model,
    asked: Option<Asked>,
}

/// The lane.
pub(crate) struct SegmentTable {
    number: u64,
    tables: [Table; 2],
    /// Makes each value unlike all others.
    values: u64,
    dice: Dice,
}

impl SegmentTable {
    pub(crate) fn new(number: u64, dice: Dice) -> Self {
        let table = |kind: &str, key_length| Table {
            name: format!("crash/{kind}-{number}_kvtable/0.#epoch.0"),
            key_length,
            exists: false,
            model: Model::new(),
            version_max: -1,
            position: 0,
            mirror: Model::new(),
            asked: None,
        };
        Self { number, tables: [table("any", 0), table("fixed", 16)], values: 0, dice }
    }

    fn change(&mut self, store: &mut Store) -> Result<(), Trouble> {
        loop {
            let table = &mut self.tables[usize::from(self.dice.one_in(2))];
            if !table.exists {
                table.create(store)?;
                continue;
            }
            match self.dice.below(400) {
                0 => table.delete(store)?,
                1..=40 => table.remove(store, &mut self.dice)?,
                41..=60 => table.refused(store, &mut self.dice)?,
                61..=80 => table.read_some(store, &mut self.dice)?,
                81..=95 => table.delta(store, 20)?,
                _ => table.update(store, &mut self.dice, &mut self.values)?,
            }
        }
    }
}

impl Table {
    fn key(&self, dice: &mut Dice) -> Bytes {
        let number = dice.below(KEYS);
        if self.key_length > 0 {
            format!("{number:016}").into()
        } else {
            let length = usize::try_from(number % 60).expect("small");
            format!("key {number} {}", "x".repeat(length)).into()
        }
    }

    fn create(&mut self, store: &mut Store) -> Result<(), Trouble> {
        self.asked = Some(Asked::Create);
        let reply = store.ask(&self.name, |request_id| {
            CreateTableSegment {
                request_id,
                segment: self.name.as_str().into(),
                delegation_token: none(),
                sorted_deprecated: false,
                key_length: self.key_length,
                rollover_size_bytes: 0,
            }
            .into()
        })?;
        let name = &self.name;
        ensure!(matches!(reply, Command::SegmentCreated(_)), "{name}: {reply:?} to its creation");
        (self.exists, self.asked) = (true, None);
        Ok(())
    }

    fn delete(&mut self, store: &mut Store) -> Result<(), Trouble> {
        self.asked = Some(Asked::Delete);
        let reply = store.ask(&self.name, |request_id| {
            DeleteTableSegment {
                request_id,
                segment: self.name.as_str().into(),
                must_be_empty: false,
                delegation_token: none(),
            }
            .into()
        })?;
        let name = &self.name;
        ensure!(matches!(reply, Command::SegmentDeleted(_)), "{name}: {reply:?} to its deletion");
        self.forget();
        Ok(())
    }

    /// It does not exist any more.
    fn forget(&mut self) {
        self.exists = false;
        self.model.clear();
        self.mirror.clear();
        (self.version_max, self.position, self.asked) = (-1, 0, None);
    }

    fn update(
        &mut self,
        store: &mut Store,
        dice: &mut Dice,
        values: &mut u64,
    ) -> Result<(), Trouble> {
        let mut entries = Vec::new();
        for _ in 0..dice.range(1..12) {
            let key = self.key(dice);
            let version = match (dice.below(2), self.model.get(&key)) {
                (0, _) => KEY_NO_VERSION,
                (_, Some((version, _))) => *version,
                (_, None) => KEY_NOT_EXISTS,
            };
            *values += 1;
            let fill = usize::try_from(dice.below(300)).expect("small");
            let value = format!("value {values} {}", "v".repeat(fill)).into();
            entries.push(TableEntry { key: TableKey { key, version }, value });
        }
        self.asked = Some(Asked::Update(entries.clone()));
        match self.put(store, entries.clone())? {
            Command::TableEntriesUpdated(it) => {
                let versions = it.updated_versions;
                ensure_eq!(versions.len(), entries.len(), "{}: versions", self.name);
                self.apply(entries, &versions)?;
            }
            other => wrong!("{}: {other:?} to {entries:?}", self.name),
        }
        self.asked = None;
        Ok(())
    }

    /// Takes a batch into the model.
    fn apply(&mut self, entries: Vec<TableEntry>, versions: &[i64]) -> Result<(), Trouble> {
        for (entry, version) in entries.into_iter().zip(versions) {
            let name = &self.name;
            let before = self.version_max;
            ensure!(*version > before, "{name}: new version {version}, there was {before}");
            self.version_max = *version;
            self.model.insert(entry.key.key, (*version, entry.value));
        }
        Ok(())
    }

    fn put(&self, store: &mut Store, entries: Vec<TableEntry>) -> Result<Command, Trouble> {
        store.ask(&self.name, |request_id| {
            UpdateTableEntries {
                request_id,
                segment: self.name.as_str().into(),
                delegation_token: none(),
                entries,
                table_segment_offset: -1,
            }
            .into()
        })
    }

    /// A batch of which one key has another version changes nothing.
    fn refused(&mut self, store: &mut Store, dice: &mut Dice) -> Result<(), Trouble> {
        let (right, wrong) = (self.key(dice), self.key(dice));
        let version = match self.model.get(&wrong) {
            Some((version, _)) => version + 1,
            None => 0,
        };
        let entry = |key, version| TableEntry {
            key: TableKey { key, version },
            value: Bytes::from_static(b"must not be stored"),
        };
        let entries = vec![entry(right, KEY_NO_VERSION), entry(wrong, version)];
        match self.put(store, entries)? {
            Command::TableKeyBadVersion(_) | Command::TableKeyDoesNotExist(_) => Ok(()),
            other => wrong!("{}: {other:?} to a wrong version", self.name),
        }
    }

    fn remove(&mut self, store: &mut Store, dice: &mut Dice) -> Result<(), Trouble> {
        let mut keys = Vec::new();
        for _ in 0..dice.range(1..4) {
            let key = self.key(dice);
            let version = match self.model.get(&key) {
                Some((version, _)) if dice.one_in(2) => *version,
                _ => KEY_NO_VERSION,
            };
            keys.push(TableKey { key, version });
        }
        self.asked = Some(Asked::Remove(keys.clone()));
        let reply = store.ask(&self.name, |request_id| {
            RemoveTableKeys {
                request_id,
                segment: self.name.as_str().into(),
                delegation_token: none(),
                keys: keys.clone(),
                table_segment_offset: -1,
            }
            .into()
        })?;
        let name = &self.name;
        ensure!(matches!(reply, Command::TableKeysRemoved(_)), "{name}: {reply:?} to {keys:?}");
        for key in keys {
            self.model.remove(&key.key);
        }
        self.asked = None;
        Ok(())
    }

    /// Takes in what became of the operation without an answer, given all that is stored.
    fn settle(&mut self, stored: Option<&Model>) -> Result<(), Trouble> {
        match (self.asked.take(), stored) {
            (Some(Asked::Create), Some(_)) => self.exists = true,
            (Some(Asked::Delete), None) => self.forget(),
            (Some(Asked::Update(entries)), Some(stored)) => {
                let name = &self.name;
                let last: BTreeMap<&Bytes, &Bytes> =
                    entries.iter().map(|entry| (&entry.key.key, &entry.value)).collect();
                let is_new = |key: &Bytes, value: &Bytes| {
                    stored.get(key).is_some_and(|(_, stored)| stored == value)
                };
                let count = last.iter().filter(|(key, value)| is_new(key, value)).count();
                ensure!(count == 0 || count == last.len(), "{name}: half a batch is stored");
                if count > 0 {
                    for (key, value) in last {
                        let version = stored[key].0;
                        let before = self.version_max;
                        ensure!(version > before, "{name}: version {version} after {before}");
                        self.model.insert(key.clone(), (version, value.clone()));
                    }
                    let versions = self.model.values().map(|(version, _)| *version);
                    self.version_max = versions.max().unwrap_or(-1);
                }
            }
            (Some(Asked::Remove(keys)), Some(stored)) => {
                let mut known: Vec<&Bytes> = keys.iter().map(|key| &key.key).collect();
                known.retain(|key| self.model.contains_key(*key));
                let left = known.iter().filter(|key| stored.contains_key(**key)).count();
                let name = &self.name;
                ensure!(left == 0 || left == known.len(), "{name}: half a removal is stored");
                if left == 0 {
                    for key in keys {
                        self.model.remove(&key.key);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn verify(&mut self, store: &mut Store) -> Result<Verified, Trouble> {
        let exists = store.info(&self.name)?.is_some();
        let stored = if exists { Some(self.read_all(store)?) } else { None };
        self.settle(stored.as_ref())?;
        let name = &self.name;
        ensure_eq!(exists, self.exists, "{name} exists");
        let Some(stored) = stored else { return Ok(Verified::default()) };
        for (key, entry) in &stored {
            ensure_eq!(self.model.get(key), Some(entry), "{name}: {key:?} as stored");
        }
        for key in self.model.keys() {
            ensure!(stored.contains_key(key), "{name}: {key:?} is lost");
        }
        self.check_other_views(store)?;
        let bytes = stored.values().map(|(_, value)| value.len() as u64).sum();
        Ok(Verified { items: stored.len() as u64, bytes })
    }
}

impl Lane for SegmentTable {
    fn name(&self) -> String {
        format!("tables {}", self.number)
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        self.change(&mut Store::new(route))
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        let mut store = Store::new(route);
        let mut verified = Verified::default();
        for table in &mut self.tables {
            verified += table.verify(&mut store)?;
        }
        Ok(verified)
    }
}
