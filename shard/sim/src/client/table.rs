//! A user of a table: owns some keys, always changes some of them together, raises counters that
//! others raise too, iterates, and reads what changed.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_wire::{
    Command, IterationArguments, KEY_NO_VERSION, KEY_NOT_EXISTS, ReadTable, ReadTableEntries,
    ReadTableEntriesDelta, RemoveTableKeys, TableEntry, TableKey, UpdateTableEntries,
};

use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};
use crate::model::table::Stored;
use crate::trace::check;

/// Keys that are always written together.
const GROUP_KEYS: u64 = 3;
/// Keys of one owner.
const OWN_KEYS: u64 = 10;
/// Counters of a table.
const COUNTERS: u64 = 2;

/// One key of a table, as its users name it.
pub(crate) fn table_key(prefix: &str, index: u64, key_length: usize) -> Bytes {
    let mut key = BytesMut::from(format!("{prefix}{index:03}").as_bytes());
    if key_length > 0 {
        key.resize(key_length, b'.');
    }
    key.freeze()
}

/// Prefix of the keys of an owner.
pub(crate) fn owner_prefix(owner: usize) -> String {
    format!("o{owner:02}/")
}

#[derive(Debug)]
enum Question {
    Get(Vec<Bytes>),
    Put { entries: Vec<(Bytes, Bytes)>, floor: i64 },
    Remove(Bytes),
    CounterGet { key: Bytes, floor: i64 },
    CounterPut { key: Bytes, value: i64, floor: i64 },
    Iterate,
    Delta,
}

/// The script.
pub(crate) struct TableUser {
    table: String,
    key_length: usize,
    prefix: String,
    stamp: u64,
    value_bytes_max: u64,
    needs_read: bool,
    question: Option<Question>,
    /// A counter as read: key, value, version.
    counter: Option<(Bytes, i64, i64)>,
    walk: Option<Walk>,
}

/// An iteration or a run of delta reads.
#[derive(Debug, Default)]
struct Walk {
    is_delta: bool,
    found: BTreeMap<Bytes, Stored>,
    token: Bytes,
    from: Bytes,
    position: i64,
}

/// Whether entries show a version that stands for absence.
pub(crate) fn stored_in(entry: &TableEntry) -> Option<Stored> {
    (entry.key.version != KEY_NOT_EXISTS)
        .then(|| Stored { value: entry.value.clone(), version: entry.key.version })
}

/// Asks for keys.
pub(crate) fn ask_keys(table: &str, request: i64, keys: &[Bytes]) -> Command {
    let keys =
        keys.iter().map(|key| TableKey { key: key.clone(), version: KEY_NO_VERSION }).collect();
    ReadTable { request_id: request, segment: table.into(), delegation_token: no_token(), keys }
        .into()
}

impl TableUser {
    /// User number `owner` of `table`, whose keys all have `key_length` bytes unless it is 0.
    pub(crate) fn new(table: &str, owner: usize, key_length: usize, value_bytes_max: u64) -> Self {
        Self {
            table: table.to_owned(),
            key_length,
            prefix: owner_prefix(owner),
            stamp: 0,
            value_bytes_max,
            needs_read: true,
            question: None,
            counter: None,
            walk: None,
        }
    }

    fn key(&self, index: u64) -> Bytes {
        table_key(&self.prefix, index, self.key_length)
    }

    fn own_keys(&self) -> Vec<Bytes> {
        (0..OWN_KEYS).map(|index| self.key(index)).collect()
    }

    fn condition(&self, context: &mut Context<'_>, key: &Bytes) -> i64 {
        context
            .model()
            .table(&self.table)
            .certain(key)
            .map_or(KEY_NOT_EXISTS, |stored| stored.version)
    }

    fn put(&mut self, context: &mut Context<'_>, request: i64, keys: Vec<Bytes>) -> Command {
        self.stamp += 1;
        let floor = context.model().table(&self.table).version_floor();
        let mut put = Vec::new();
        let mut entries = Vec::new();
        for key in keys {
            let mut value = BytesMut::new();
            value.put_u64(self.stamp);
            let filler = context.rng.below(self.value_bytes_max) as usize;
            value.put_bytes(self.stamp as u8, filler);
            let value = value.freeze();
            let version = self.condition(context, &key);
            context.model().table(&self.table).changing(&key, Some(value.clone()));
            let wire_key = TableKey { key: key.clone(), version };
            entries.push(TableEntry { key: wire_key, value: value.clone() });
            put.push((key, value));
        }
        self.question = Some(Question::Put { entries: put, floor });
        self.update(request, entries)
    }

    fn update(&self, request: i64, entries: Vec<TableEntry>) -> Command {
        UpdateTableEntries {
            request_id: request,
            segment: self.table.as_str().into(),
            delegation_token: no_token(),
            entries,
            table_segment_offset: -1,
        }
        .into()
    }

    fn remove(&mut self, context: &mut Context<'_>, request: i64, key: Bytes) -> Command {
        let version = self.condition(context, &key);
        context.model().table(&self.table).changing(&key, None);
        self.question = Some(Question::Remove(key.clone()));
        RemoveTableKeys {
            request_id: request,
            segment: self.table.as_str().into(),
            delegation_token: no_token(),
            keys: vec![TableKey { key, version }],
            table_segment_offset: -1,
        }
        .into()
    }

    fn count(&mut self, context: &mut Context<'_>, request: i64) -> Command {
        let counter = |table: &str, key: &Bytes| format!("{table} {key:?}");
        if let Some((key, value, version)) = self.counter.take() {
            let model = context.model().counter(&counter(&self.table, &key));
            model.attempted(value);
            let floor = model.floor();
            let entry = TableEntry {
                key: TableKey { key: key.clone(), version },
                value: Bytes::copy_from_slice(&(value + 1).to_be_bytes()),
            };
            self.question = Some(Question::CounterPut { key, value, floor });
            return self.update(request, vec![entry]);
        }
        let key = table_key("c/", context.rng.below(COUNTERS), self.key_length);
        let floor = context.model().counter(&counter(&self.table, &key)).floor();
        let command = ask_keys(&self.table, request, std::slice::from_ref(&key));
        self.question = Some(Question::CounterGet { key, floor });
        command
    }

    fn walk_on(&mut self, context: &mut Context<'_>, request: i64) -> Command {
        let walk = self.walk.get_or_insert_default();
        let segment = self.table.as_str().into();
        if walk.is_delta {
            self.question = Some(Question::Delta);
            return ReadTableEntriesDelta {
                request_id: request,
                segment,
                delegation_token: no_token(),
                from_position: walk.position,
                suggested_entry_count: context.rng.between(1, 20) as i32,
            }
            .into();
        }
        self.question = Some(Question::Iterate);
        ReadTableEntries {
            request_id: request,
            segment,
            delegation_token: no_token(),
            suggested_entry_count: context.rng.between(1, 8) as i32,
            iteration: IterationArguments {
                continuation_token: walk.token.clone(),
                from_key: walk.from.clone(),
                to_key: Bytes::new(),
            },
        }
        .into()
    }

    /// Judges what was read of own keys, and whether the group is of one piece.
    fn got(&mut self, context: &mut Context<'_>, keys: &[Bytes], entries: &[TableEntry]) {
        let name = &self.table;
        let is_paired = keys.len() == entries.len()
            && keys.iter().zip(entries).all(|(key, entry)| *key == entry.key.key);
        check!(context.trace(), "protocol", is_paired, "{name}: {keys:?} answered {entries:?}");
        for entry in entries {
            context.model().table(&self.table).read(&entry.key.key, stored_in(entry));
        }
        let stamps: Vec<Option<Bytes>> = entries
            .iter()
            .take(GROUP_KEYS as usize)
            .map(|entry| stored_in(entry).map(|stored| stored.value.slice(..8)))
            .collect();
        let is_whole = stamps.windows(2).all(|pair| pair[0] == pair[1]);
        check!(context.trace(), "S12", is_whole, "{name}: a batch is there in part: {stamps:?}");
        self.needs_read = false;
    }

    fn was_put(
        &mut self,
        context: &mut Context<'_>,
        entries: Vec<(Bytes, Bytes)>,
        floor: i64,
        versions: &[i64],
    ) {
        let name = &self.table;
        let fits =
            versions.len() == entries.len() && versions.windows(2).all(|two| two[0] < two[1]);
        check!(context.trace(), "S12", fits, "{name}: versions {versions:?} for {entries:?}");
        for ((key, value), version) in entries.into_iter().zip(versions) {
            context.model().table(&self.table).put(&key, value, *version, floor);
        }
        context.trace().count("table updates acknowledged");
    }

    fn was_refused(&mut self, context: &mut Context<'_>, keys: &[Bytes]) {
        let table = context.model().table(&self.table);
        keys.iter().for_each(|key| table.refused(key));
        table.check_refusal(keys);
        self.needs_read = true;
    }

    fn counted(&mut self, context: &mut Context<'_>, question: Question, reply: &Command) {
        let counter = |table: &str, key: &Bytes| format!("{table} {key:?}");
        match (question, reply) {
            (Question::CounterGet { key, floor }, Command::TableRead(read)) => {
                let Some(entry) = read.entries.first() else {
                    unexpected(context, "a key", reply);
                    return;
                };
                let value = <[u8; 8]>::try_from(&entry.value[..]).map_or(0, i64::from_be_bytes);
                context.model().counter(&counter(&self.table, &key)).read(value, floor);
                if context.rng.percent(80) {
                    self.counter = Some((key, value, entry.key.version));
                }
            }
            (Question::CounterPut { key, value, .. }, Command::TableEntriesUpdated(updated)) => {
                context.model().counter(&counter(&self.table, &key)).raised(value);
                if context.rng.percent(50) {
                    let version = updated.updated_versions.first().copied().unwrap_or(0);
                    self.counter = Some((key, value + 1, version));
                }
            }
            (
                Question::CounterPut { key, value, floor },
                Command::TableKeyBadVersion(_) | Command::TableKeyDoesNotExist(_),
            ) => context.model().counter(&counter(&self.table, &key)).refused(value, floor),
            (question, reply) => unexpected(context, &format!("{question:?}"), reply),
        }
    }

    fn walked(&mut self, context: &mut Context<'_>, entries: &[TableEntry], token: &Bytes) {
        let Some(walk) = &mut self.walk else { return };
        for entry in entries {
            let key = entry.key.key.clone();
            walk.from = key.clone();
            let stored = Stored { value: entry.value.clone(), version: entry.key.version };
            let earlier = walk.found.insert(key, stored);
            let holds = walk.is_delta || earlier.is_none();
            let name = &self.table;
            check!(context.trace(), "S12", holds, "{name}: {:?} iterated twice", entry.key.key);
        }
        if entries.is_empty() {
            let walk = self.walk.take().unwrap_or_default();
            check_walk(context, &self.table, &self.prefix, &walk.found);
            return;
        }
        if self.key_length > 0 {
            // Fixed keys: go on behind the last key, as stock clients do.
            let mut next = walk.from.to_vec();
            for byte in next.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
            walk.from = next.into();
        } else {
            walk.from = Bytes::new();
            walk.token = token.clone();
        }
    }
}

/// Holds the outcome of a whole iteration against the keys of one owner, none of which changed
/// meanwhile.
pub(crate) fn check_walk(
    context: &mut Context<'_>,
    table: &str,
    prefix: &str,
    found: &BTreeMap<Bytes, Stored>,
) {
    context.trace().count("table iterations checked");
    let expected = context.model().table(table).keys_with_prefix(prefix.as_bytes());
    for (key, certain, is_open) in &expected {
        let holds = *is_open || found.get(key) == certain.as_ref();
        let seen = found.get(key);
        check!(
            context.trace(),
            "S12",
            holds,
            "{table}: iteration has {seen:?} for {key:?}, certain is {certain:?}"
        );
    }
    for key in found.keys().filter(|key| key.starts_with(prefix.as_bytes())) {
        let is_known = expected.iter().any(|(known, ..)| known == key);
        check!(context.trace(), "S12", is_known, "{table}: {key:?} was never written");
    }
}

impl Script for TableUser {
    fn name(&self) -> &'static str {
        "table user"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        let table = self.table.clone();
        if self.needs_read {
            let keys = self.own_keys();
            let command = ask_keys(&table, request, &keys);
            self.question = Some(Question::Get(keys));
            return Step::Ask(table, command);
        }
        if context.is_finishing() {
            return Step::Done;
        }
        if self.walk.is_some() {
            return Step::Ask(table, self.walk_on(context, request));
        }
        let single = self.key(context.rng.between(GROUP_KEYS, OWN_KEYS - 1));
        let command = match context.rng.below(20) {
            0..5 => {
                let keys = (0..GROUP_KEYS).map(|index| self.key(index)).collect();
                self.put(context, request, keys)
            }
            5..9 => self.put(context, request, vec![single]),
            9..12 if context.model().table(&table).may_remove(&single) => {
                self.remove(context, request, single)
            }
            12..17 => self.count(context, request),
            17 => {
                let is_delta = self.key_length == 0 && context.rng.percent(50);
                self.walk = Some(Walk { is_delta, ..Walk::default() });
                self.walk_on(context, request)
            }
            _ => {
                let keys = self.own_keys();
                let command = ask_keys(&table, request, &keys);
                self.question = Some(Question::Get(keys));
                command
            }
        };
        Step::Ask(table, command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let Some(question) = self.question.take() else { return };
        match (question, reply) {
            (Question::Get(keys), Command::TableRead(read)) => {
                self.got(context, &keys, &read.entries);
            }
            (Question::Put { entries, floor }, Command::TableEntriesUpdated(updated)) => {
                self.was_put(context, entries, floor, &updated.updated_versions);
            }
            (
                Question::Put { entries, .. },
                Command::TableKeyBadVersion(_) | Command::TableKeyDoesNotExist(_),
            ) => {
                let keys: Vec<Bytes> = entries.into_iter().map(|(key, _)| key).collect();
                self.was_refused(context, &keys);
            }
            (Question::Remove(key), Command::TableKeysRemoved(_)) => {
                context.model().table(&self.table).removed(&key);
            }
            (
                Question::Remove(key),
                Command::TableKeyBadVersion(_) | Command::TableKeyDoesNotExist(_),
            ) => self.was_refused(context, &[key]),
            (Question::Iterate, Command::TableEntriesRead(read)) => {
                self.walked(context, &read.entries, &read.continuation_token);
            }
            (Question::Delta, Command::TableEntriesDeltaRead(read)) => {
                if let Some(walk) = &mut self.walk {
                    walk.position = read.last_position;
                }
                self.walked(context, &read.entries, &Bytes::new());
            }
            (question @ (Question::CounterGet { .. } | Question::CounterPut { .. }), reply) => {
                self.counted(context, question, &reply);
            }
            (question, reply) => unexpected(context, &format!("{question:?}"), &reply),
        }
    }

    fn disconnected(&mut self, context: &mut Context<'_>, _is_asking: bool) {
        self.counter = None;
        self.walk = None;
        match self.question.take() {
            Some(Question::Put { entries, .. }) => {
                let table = context.model().table(&self.table);
                entries.iter().for_each(|(key, _)| table.lost(key));
                self.needs_read = true;
            }
            Some(Question::Remove(_)) => self.needs_read = true,
            _ => {}
        }
    }
}
