//! What is known of one table: keys with one owner each, and counters that everybody raises.
//!
//! Owners change their keys one request at a time and always under a version, so that a request
//! whose answer was lost either happens before the next one or never.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::trace::{Trace, check};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The value.
    pub(crate) value: Bytes,
    /// Its version.
    pub(crate) version: i64,
}

#[derive(Debug, Default)]
struct KeyModel {
    /// The last state that is certain; `None` when absent.
    certain: Option<Stored>,
    /// Changes sent since, without an answer: the value, or `None` for a removal.
    maybe: Vec<Option<Bytes>>,
    /// A put under the condition "absent" was lost: it may come back to life after a removal.
    may_revive: bool,
}

/// Everything known of one table.
#[derive(Debug)]
pub(crate) struct TableModel {
    name: String,
    trace: Trace,
    keys: BTreeMap<Bytes, KeyModel>,
    /// Each version that was told belongs to one change.
    versions: BTreeMap<i64, Bytes>,
    version_floor: i64,
}

impl TableModel {
    /// An empty table.
    pub(crate) fn new(name: &str, trace: Trace) -> Self {
        Self {
            name: name.to_owned(),
            trace,
            keys: BTreeMap::new(),
            versions: BTreeMap::new(),
            version_floor: -1,
        }
    }

    /// The highest version told so far.
    pub(crate) fn version_floor(&self) -> i64 {
        self.version_floor
    }

    /// The last certain state of a key.
    pub(crate) fn certain(&self, key: &Bytes) -> Option<&Stored> {
        self.keys.get(key).and_then(|state| state.certain.as_ref())
    }

    /// Whether changes of the key are without an answer.
    pub(crate) fn is_open(&self, key: &Bytes) -> bool {
        self.keys.get(key).is_some_and(|state| !state.maybe.is_empty())
    }

    /// Whether the owner may remove the key without losing sight of it.
    pub(crate) fn may_remove(&self, key: &Bytes) -> bool {
        self.keys.get(key).is_some_and(|state| state.certain.is_some() && !state.may_revive)
    }

    /// A change is being sent.
    pub(crate) fn changing(&mut self, key: &Bytes, value: Option<Bytes>) {
        self.keys.entry(key.clone()).or_default().maybe.push(value);
    }

    /// No answer came to the changes sent for this key.
    pub(crate) fn lost(&mut self, key: &Bytes) {
        if let Some(state) = self.keys.get_mut(key) {
            state.may_revive |= state.certain.is_none() && state.maybe.iter().any(Option::is_some);
        }
    }

    /// The newest change was refused: it did not happen. An older one must have.
    pub(crate) fn refused(&mut self, key: &Bytes) {
        if let Some(state) = self.keys.get_mut(key) {
            state.maybe.pop();
        }
    }

    /// After a refusal of a batch: at least one key must be in doubt, or the refusal was wrong.
    pub(crate) fn check_refusal(&self, keys: &[Bytes]) {
        let name = &self.name;
        let in_doubt = keys.iter().any(|key| self.is_open(key));
        check!(self.trace, "S12", in_doubt, "{name} refused the only change of {keys:?}");
    }

    /// A put was acknowledged.
    pub(crate) fn put(&mut self, key: &Bytes, value: Bytes, version: i64, floor_before: i64) {
        let name = self.name.clone();
        check!(
            self.trace,
            "S12",
            version > floor_before,
            "{name}: version {version} after {floor_before}"
        );
        self.learn(key, version);
        self.keys.insert(
            key.clone(),
            KeyModel {
                may_revive: self.keys.get(key).is_some_and(|state| state.may_revive),
                certain: Some(Stored { value, version }),
                maybe: Vec::new(),
            },
        );
    }

    /// A removal was acknowledged.
    pub(crate) fn removed(&mut self, key: &Bytes) {
        let state = self.keys.entry(key.clone()).or_default();
        state.certain = None;
        state.maybe.clear();
    }

    fn learn(&mut self, key: &Bytes, version: i64) {
        self.version_floor = self.version_floor.max(version);
        let owner = self.versions.entry(version).or_insert_with(|| key.clone());
        let (trace, name) = (&self.trace, &self.name);
        check!(trace, "S12", owner == key, "{name}: {key:?} and {owner:?} both have {version}");
    }

    /// A key of one owner was read, by its owner while nothing of his was under way.
    pub(crate) fn read(&mut self, key: &Bytes, found: Option<Stored>) {
        self.trace.count("table reads checked");
        if let Some(stored) = &found {
            self.learn(key, stored.version);
        }
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let state = self.keys.entry(key.clone()).or_default();
        if state.certain == found {
            return;
        }
        let value = found.as_ref().map(|stored| stored.value.clone());
        let holds = state.maybe.contains(&value);
        let certain = &state.certain;
        check!(
            trace,
            "S12",
            holds,
            "{name}: {key:?} reads {found:?}, certain is {certain:?}, open {:?}",
            state.maybe
        );
        state.certain = found;
        state.maybe.clear();
    }

    /// All keys of one owner that must be there, and those that may.
    pub(crate) fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<(Bytes, Option<Stored>, bool)> {
        self.keys
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, state)| {
                let is_open = !state.maybe.is_empty() || state.may_revive;
                (key.clone(), state.certain.clone(), is_open)
            })
            .collect()
    }
}
