//! A table against a model made of the whole log: a list of every change ever made, searched anew
//! for each answer. Random inputs with few keys, so that changes meet; replay and snapshots on the
//! side.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::operation::{decode_remove, decode_update};
use super::super::{Table, TableRefusal};
use crate::position::Offset;
use crate::request::{FoundEntry, TableEntry, TableItems, TableKey, VersionCondition};

/// One change of the log: where it begins and ends, its key, and the value unless it is a removal.
struct Change {
    start: i64,
    end: i64,
    key: Bytes,
    value: Option<Bytes>,
}

#[derive(Default)]
struct Model {
    key_length: u16,
    log: Vec<Change>,
}

impl Model {
    fn length(&self) -> i64 {
        self.log.last().map_or(0, |change| change.end)
    }

    fn push(&mut self, key: &Bytes, value: Option<&Bytes>) -> i64 {
        let start = self.length();
        let end = start + 17 + key.len() as i64 + value.map_or(0, Bytes::len) as i64;
        self.log.push(Change { start, end, key: key.clone(), value: value.cloned() });
        start
    }

    fn find(&self, key: &Bytes) -> Option<FoundEntry> {
        let last = self.log.iter().rev().find(|change| change.key == *key)?;
        let value = last.value.clone()?;
        Some(FoundEntry { key: key.clone(), value, version: last.start })
    }

    /// Live entries in the order of their versions.
    fn live(&self) -> Vec<FoundEntry> {
        let mut live: Vec<FoundEntry> = Vec::new();
        for change in &self.log {
            let entry = self.find(&change.key);
            live.extend(entry.filter(|entry| entry.version == change.start));
        }
        live
    }

    fn judge(&self, keys: &[&TableKey], expected: Option<Offset>) -> Result<(), TableRefusal> {
        let holds = |key: &&TableKey| {
            let version = self.find(&key.key).map(|entry| entry.version);
            match key.condition {
                VersionCondition::Any => true,
                VersionCondition::Absent => version.is_none(),
                VersionCondition::Exactly(expected) => version == Some(expected),
            }
        };
        let is_missing = |key: &&TableKey| {
            matches!(key.condition, VersionCondition::Exactly(_)) && self.find(&key.key).is_none()
        };
        if self.key_length == 0 && keys.iter().any(is_missing) {
            return Err(TableRefusal::KeyDoesNotExist);
        }
        if !keys.iter().all(holds) {
            return Err(TableRefusal::BadKeyVersion);
        }
        let length = Offset(self.length() as u64);
        match expected {
            Some(expected) if expected != length => {
                Err(TableRefusal::OtherLength { length, expected })
            }
            _ => Ok(()),
        }
    }
}

/// A condition, told in a way that can come true whatever happened before.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Any,
    Absent,
    Current,
    Wrong,
}

#[derive(Clone, Debug)]
enum Step {
    Update(Vec<(u8, Condition, u8)>, Option<bool>),
    Remove(Vec<(u8, Condition)>, Option<bool>),
    Snapshot,
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(Condition::Any),
        2 => Just(Condition::Absent),
        4 => Just(Condition::Current),
        1 => Just(Condition::Wrong),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let expected = || prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let updates = prop::collection::vec((0..8_u8, condition(), 0..5_u8), 0..5);
    let removes = prop::collection::vec((0..8_u8, condition()), 0..4);
    prop_oneof![
        6 => (updates, expected()).prop_map(|(entries, expected)| Step::Update(entries, expected)),
        3 => (removes, expected()).prop_map(|(keys, expected)| Step::Remove(keys, expected)),
        1 => Just(Step::Snapshot),
    ]
}

/// The real table, a second one that only replays bodies, and the model.
struct Pair {
    table: Table,
    replica: Table,
    model: Model,
}

impl Pair {
    fn new(key_length: u16) -> Self {
        let model = Model { key_length, ..Model::default() };
        Self { table: Table::new(key_length), replica: Table::new(key_length), model }
    }

    fn key(&self, number: u8, condition: Condition) -> TableKey {
        let mut key = vec![b'k'; 2];
        key[1] = number;
        if self.model.key_length == 0 {
            // Lengths differ and some keys are prefixes of others.
            key.truncate(2 - usize::from(number.is_multiple_of(3)));
            key.resize(key.len() + usize::from(number % 2), number);
        }
        let key = Bytes::from(key);
        let version = self.model.find(&key).map(|entry| entry.version);
        let condition = match condition {
            Condition::Any => VersionCondition::Any,
            Condition::Absent => VersionCondition::Absent,
            Condition::Current => {
                version.map_or(VersionCondition::Absent, VersionCondition::Exactly)
            }
            Condition::Wrong => VersionCondition::Exactly(version.unwrap_or(0) + 1),
        };
        TableKey { key, condition }
    }

    fn expected_length(&self, is_right: Option<bool>) -> Option<Offset> {
        is_right.map(|is_right| Offset(self.model.length() as u64 + u64::from(!is_right)))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Update(entries, expected) => self.update(entries, *expected),
            Step::Remove(keys, expected) => self.remove(keys, *expected),
            Step::Snapshot => {
                let mut bytes = BytesMut::new();
                self.replica.encode_snapshot(&mut bytes);
                self.replica =
                    Table::decode_snapshot(&mut bytes.freeze()).expect("our own snapshot");
            }
        }
    }

    fn update(&mut self, entries: &[(u8, Condition, u8)], expected: Option<bool>) {
        let expected = self.expected_length(expected);
        let entries: Vec<TableEntry> = entries
            .iter()
            .map(|&(number, condition, value)| TableEntry {
                key: self.key(number, condition),
                value: vec![value; usize::from(value)].into(),
            })
            .collect();
        let keys: Vec<&TableKey> = entries.iter().map(|entry| &entry.key).collect();
        let verdict = self.table.check_update(&entries, expected);
        assert_eq!(verdict, self.model.judge(&keys, expected));
        if verdict.is_err() {
            return;
        }
        let mut body = BytesMut::new();
        self.table.encode_update(&entries, &mut body);
        let versions = self.table.apply_update(&entries);
        let expected: Vec<i64> = entries
            .iter()
            .map(|entry| self.model.push(&entry.key.key, Some(&entry.value)))
            .collect();
        assert_eq!(versions, expected);
        let recorded = decode_update(body.freeze()).expect("our own body");
        self.replica.replay_update(&recorded).expect("next in order");
    }

    fn remove(&mut self, keys: &[(u8, Condition)], expected: Option<bool>) {
        let expected = self.expected_length(expected);
        let keys: Vec<TableKey> =
            keys.iter().map(|&(number, condition)| self.key(number, condition)).collect();
        let verdict = self.table.check_remove(&keys, expected);
        assert_eq!(verdict, self.model.judge(&keys.iter().collect::<Vec<_>>(), expected));
        if verdict.is_err() {
            return;
        }
        let mut body = BytesMut::new();
        self.table.encode_remove(&keys, &mut body);
        self.table.apply_remove(&keys);
        for key in &keys {
            self.model.push(&key.key, None);
        }
        let recorded = decode_remove(body.freeze()).expect("our own body");
        self.replica.replay_remove(&recorded).expect("next in order");
    }

    /// Both tables answer what the model says.
    fn compare(&self) {
        let mut by_key = self.model.live();
        by_key.sort_by(|left, right| left.key.cmp(&right.key));
        for table in [&self.table, &self.replica] {
            assert_eq!(table.length(), Offset(self.model.length() as u64));
            assert_eq!(table.entry_count(), by_key.len() as u64);
            let (entries, _) = table
                .iterate(100, b"", b"", b"", TableItems::Entries)
                .expect("an iteration from the beginning");
            assert_eq!(entries, by_key);
        }
        assert_eq!(self.table.memory_bytes(), self.replica.memory_bytes());
        for number in 0..8 {
            let key = self.key(number, Condition::Any).key;
            let expected = self.model.find(&key).unwrap_or(FoundEntry {
                key: key.clone(),
                value: Bytes::new(),
                version: -1,
            });
            assert_eq!(self.table.get(&[key]), Ok(vec![expected]));
        }
    }
}

proptest! {
    /// Verdicts, versions, length and content agree with the model after every step, in the table
    /// and in its replica made of bodies and snapshots.
    #[test]
    fn tables_agree_with_their_log(
        key_length in prop::sample::select(vec![0_u16, 2]),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut pair = Pair::new(key_length);
        for step in &steps {
            pair.step(step);
            pair.compare();
        }
    }

    /// While the table changes between pages, every key that stays is told exactly once and no key
    /// is told twice.
    #[test]
    fn iterations_tell_stable_keys_exactly_once(
        before in prop::collection::vec(step(), 0..20),
        between in prop::collection::vec(step(), 0..12),
        count in 1..4_i32,
    ) {
        let mut pair = Pair::new(0);
        before.iter().for_each(|step| pair.step(step));
        let mut stable: Vec<Bytes> = pair.model.live().into_iter().map(|entry| entry.key).collect();
        let mut between = between.iter();
        let (mut told, mut token) = (Vec::new(), Bytes::new());
        loop {
            let page = pair.table.iterate(count, &token, b"", b"", TableItems::Keys);
            let (entries, next) = page.expect("our token");
            prop_assert!(entries.len() <= count as usize);
            if entries.is_empty() {
                break;
            }
            told.extend(entries.into_iter().map(|entry| entry.key));
            prop_assert!(told.len() < 1000, "the iteration does not end");
            token = next;
            if let Some(step) = between.next() {
                pair.step(step);
                stable.retain(|key| pair.model.find(key).is_some());
            }
        }
        for key in &stable {
            prop_assert!(told.contains(key), "{key:?} was there all along");
        }
        let count = told.len();
        told.sort();
        told.dedup();
        prop_assert_eq!(told.len(), count);
    }

    /// A client that repeats delta reads with the last position until a reply is empty, and keeps
    /// its position then, knows every live entry with its version, whatever changes between.
    #[test]
    fn delta_readers_catch_up(
        steps in prop::collection::vec((step(), any::<bool>()), 0..30),
        count in 1..4_i32,
    ) {
        let mut pair = Pair::new(0);
        let mut known = std::collections::BTreeMap::new();
        let mut position = 0;
        let mut read = |pair: &Pair| -> bool {
            let page = pair.table.delta(position, count).expect("a position we were told");
            let left: Vec<FoundEntry> =
                pair.model.live().into_iter().filter(|entry| entry.version >= position).collect();
            let expected = &left[..left.len().min(count as usize)];
            assert_eq!(page.entries, expected);
            assert_eq!(page.reached_end, expected.len() == left.len());
            if page.entries.is_empty() {
                return false;
            }
            assert!(page.last_position > position);
            position = page.last_position;
            known.extend(page.entries.into_iter().map(|entry| (entry.key.clone(), entry)));
            true
        };
        for (step, is_reading) in &steps {
            pair.step(step);
            if *is_reading {
                read(&pair);
            }
        }
        while read(&pair) {}
        for entry in pair.model.live() {
            prop_assert_eq!(known.get(&entry.key), Some(&entry));
        }
    }
}
