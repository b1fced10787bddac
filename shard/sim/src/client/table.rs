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
    Put(Vec<Bytes>),
    Remove(Bytes),
    CounterGet(Bytes),
    CounterPut { key: Bytes, value: i64 },
    Iterate,
    Delta,
}

/// What an owner was last told about a key of its own.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// `None` when it is absent.
    version: Option<i64>,
    /// A put under the condition "absent" was lost: it may come back to life after a removal.
    may_revive: bool,
}

/// The script.
pub(crate) struct TableUser {
    table: String,
    key_length: usize,
    prefix: String,
    stamp: u64,
    value_bytes_max: u64,
    needs_read: bool,
    known: BTreeMap<Bytes, Known>,
    question: Option<Question>,
    /// A counter as read: key, value, version.
    counter: Option<(Bytes, i64, i64)>,
    walk: Option<Walk>,
}

/// An iteration or a run of delta reads.
#[derive(Debug, Default)]
struct Walk {
    is_delta: bool,
    /// What it met, each key as it was met last.
    met: BTreeMap<Bytes, TableEntry>,
    token: Bytes,
    from: Bytes,
    position: i64,
}

/// The version of an entry that is there.
fn version_in(entry: &TableEntry) -> Option<i64> {
    (entry.key.version != KEY_NOT_EXISTS).then_some(entry.key.version)
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
            known: BTreeMap::new(),
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

    /// Owners change their keys one request at a time and always under a version, so that a request
    /// whose answer was lost either happens before the next one or never.
    fn condition(&self, key: &Bytes) -> i64 {
        self.known.get(key).and_then(|known| known.version).unwrap_or(KEY_NOT_EXISTS)
    }

    fn learn(&mut self, key: &Bytes, version: Option<i64>) {
        self.known.entry(key.clone()).or_default().version = version;
    }

    /// Whether the key may be removed without losing sight of it.
    fn may_remove(&self, key: &Bytes) -> bool {
        self.known.get(key).is_some_and(|known| known.version.is_some() && !known.may_revive)
    }

    fn put(&mut self, context: &mut Context<'_>, request: i64, keys: Vec<Bytes>) -> Command {
        self.stamp += 1;
        let mut entries = Vec::new();
        for key in &keys {
            let mut value = BytesMut::new();
            value.put_u64(self.stamp);
            let filler = context.rng.below(self.value_bytes_max) as usize;
            value.put_bytes(self.stamp as u8, filler);
            let wire_key = TableKey { key: key.clone(), version: self.condition(key) };
            entries.push(TableEntry { key: wire_key, value: value.freeze() });
        }
        self.question = Some(Question::Put(keys));
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

    fn remove(&mut self, request: i64, key: Bytes) -> Command {
        let version = self.condition(&key);
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
        if let Some((key, value, version)) = self.counter.take() {
            let entry = TableEntry {
                key: TableKey { key: key.clone(), version },
                value: Bytes::copy_from_slice(&(value + 1).to_be_bytes()),
            };
            self.question = Some(Question::CounterPut { key, value });
            return self.update(request, vec![entry]);
        }
        let key = table_key("c/", context.rng.below(COUNTERS), self.key_length);
        let command = ask_keys(&self.table, request, std::slice::from_ref(&key));
        self.question = Some(Question::CounterGet(key));
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
        context.trace().count("table reads checked");
        for entry in entries {
            self.learn(&entry.key.key, version_in(entry));
        }
        let stamps: Vec<Option<Bytes>> = entries
            .iter()
            .take(GROUP_KEYS as usize)
            .map(|entry| version_in(entry).map(|_| entry.value.slice(..8)))
            .collect();
        let (name, is_whole) = (&self.table, stamps.windows(2).all(|pair| pair[0] == pair[1]));
        check!(context.trace(), "S12", is_whole, "{name}: a batch is there in part: {stamps:?}");
        self.needs_read = false;
    }

    fn was_put(&mut self, context: &mut Context<'_>, keys: &[Bytes], versions: &[i64]) {
        for (key, version) in keys.iter().zip(versions) {
            self.learn(key, Some(*version));
        }
        context.trace().count("table updates acknowledged");
    }

    fn counted(&mut self, context: &mut Context<'_>, question: Question, reply: &Command) {
        match (question, reply) {
            (Question::CounterGet(key), Command::TableRead(read)) => {
                let Some(entry) = read.entries.first() else {
                    unexpected(context, "a key", reply);
                    return;
                };
                let value = <[u8; 8]>::try_from(&entry.value[..]).map_or(0, i64::from_be_bytes);
                if context.rng.percent(80) {
                    self.counter = Some((key, value, entry.key.version));
                }
            }
            (Question::CounterPut { key, value }, Command::TableEntriesUpdated(updated)) => {
                if context.rng.percent(50) {
                    let version = updated.updated_versions.first().copied().unwrap_or(0);
                    self.counter = Some((key, value + 1, version));
                }
            }
            (
                Question::CounterPut { .. },
                Command::TableKeyBadVersion(_) | Command::TableKeyDoesNotExist(_),
            ) => {}
            (question, reply) => unexpected(context, &format!("{question:?}"), reply),
        }
    }

    fn walked(&mut self, context: &mut Context<'_>, entries: &[TableEntry], token: &Bytes) {
        let Some(walk) = &mut self.walk else { return };
        for entry in entries {
            let key = entry.key.key.clone();
            walk.from = key.clone();
            let earlier = walk.met.insert(key, entry.clone());
            let holds = walk.is_delta || earlier.is_none();
            let name = &self.table;
            check!(context.trace(), "S12", holds, "{name}: {:?} iterated twice", entry.key.key);
        }
        if entries.is_empty() {
            let walk = self.walk.take().unwrap_or_default();
            context.shared.history.walk_ends(context.client, walk.met.values());
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
            9..12 if self.may_remove(&single) => self.remove(request, single),
            12..17 => self.count(context, request),
            17 => {
                let is_delta = self.key_length == 0 && context.rng.percent(50);
                self.walk = Some(Walk { is_delta, ..Walk::default() });
                context.shared.history.walk_begins(context.client, &table);
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
            (Question::Put(keys), Command::TableEntriesUpdated(updated)) => {
                self.was_put(context, &keys, &updated.updated_versions);
            }
            (Question::Remove(key), Command::TableKeysRemoved(_)) => self.learn(&key, None),
            (
                Question::Put(_) | Question::Remove(_),
                Command::TableKeyBadVersion(_) | Command::TableKeyDoesNotExist(_),
            ) => self.needs_read = true,
            (Question::Iterate, Command::TableEntriesRead(read)) => {
                self.walked(context, &read.entries, &read.continuation_token);
            }
            (Question::Delta, Command::TableEntriesDeltaRead(read)) => {
                if let Some(walk) = &mut self.walk {
                    walk.position = read.last_position;
                }
                self.walked(context, &read.entries, &Bytes::new());
            }
            (question @ (Question::CounterGet(_) | Question::CounterPut { .. }), reply) => {
                self.counted(context, question, &reply);
            }
            (question, reply) => unexpected(context, &format!("{question:?}"), &reply),
        }
    }

    fn disconnected(&mut self, context: &mut Context<'_>, _is_asking: bool) {
        self.counter = None;
        self.walk = None;
        context.shared.history.walk_lost(context.client);
        match self.question.take() {
            Some(Question::Put(keys)) => {
                for key in keys {
                    let known = self.known.entry(key).or_default();
                    known.may_revive |= known.version.is_none();
                }
                self.needs_read = true;
            }
            Some(Question::Remove(_)) => self.needs_read = true,
            _ => {}
        }
    }
}
