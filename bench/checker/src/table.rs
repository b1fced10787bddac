//! What is known of one table: a search for each key, the versions given out, and that changes of
//! several keys are seen whole.

use std::collections::BTreeMap;

use crate::breach::{Verdict, breach, hold};
use crate::id::{Key, OperationId, Value};
use crate::record::{Entry, Put, Removal};
use crate::register::{KeyObject, KeyOperation, KeyOutcome, KeyState, Version};
use crate::search::Search;

/// Versions remembered, to see that none is given out twice.
const VERSIONS_MAX: usize = 8_192;
/// Changes of several keys remembered while their outcome is unknown.
const BATCHES_MAX: usize = 256;

#[derive(Debug)]
struct KeyHistory {
    search: Search<KeyObject>,
    /// Position of the last record at which something about the key changed or could have.
    touched: u64,
}

impl KeyHistory {
    /// Something ends at record `now`: with it a change that is open may have happened.
    fn touch(&mut self, now: u64) {
        if self.search.certain().is_none() {
            self.touched = now;
        }
    }
}

/// Everything known of one table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    keys: BTreeMap<Key, KeyHistory>,
    /// Whose each version is.
    versions: BTreeMap<i64, (Key, Value)>,
    version_floor: Option<i64>,
    /// Changes of several keys whose outcome is not known.
    batches: BTreeMap<OperationId, Vec<Key>>,
    /// The table is known from its beginning.
    is_young: bool,
    pub(crate) searched: u64,
}

impl Table {
    /// A table that is known from its beginning, or that was there before.
    pub(crate) fn new(is_young: bool) -> Self {
        Self { is_young, ..Self::default() }
    }

    /// The highest version told so far.
    pub(crate) fn version_floor(&self) -> Option<i64> {
        self.version_floor
    }

    /// Times that a search gave up.
    pub(crate) fn given_up(&self) -> u64 {
        self.keys.values().map(|history| history.search.given_up).sum()
    }

    /// What is certain of a key: `Some(None)` when it is certainly absent.
    pub(crate) fn certain(&self, key: &str) -> Option<Option<(Value, Option<i64>)>> {
        let Some(history) = self.keys.get(key) else { return self.is_young.then_some(None) };
        match history.search.certain()? {
            KeyState::Anything => None,
            KeyState::Absent => Some(None),
            KeyState::Present(value, Version::Told(version)) => {
                Some(Some((*value, Some(*version))))
            }
            KeyState::Present(value, Version::Of(_)) => Some(Some((*value, None))),
        }
    }

    /// Whether nothing that could still change the key is under way or in doubt.
    pub(crate) fn is_quiet(&self, key: &str) -> bool {
        self.keys.get(key).is_none_or(|history| history.search.is_quiet())
    }

    /// All keys ever spoken of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    fn history(&mut self, key: &Key) -> &mut KeyHistory {
        let first = if self.is_young { KeyState::Absent } else { KeyState::Anything };
        self.keys
            .entry(key.clone())
            .or_insert_with(|| KeyHistory { search: Search::new(first), touched: 0 })
    }

    fn invoke(&mut self, now: u64, id: OperationId, key: &Key, operation: KeyOperation) {
        let history = self.history(key);
        if !matches!(operation, KeyOperation::Read) {
            history.touched = now;
        }
        history.search.invoke(id, operation);
    }

    fn complete(&mut self, now: u64, id: OperationId, key: &Key, outcome: KeyOutcome) -> Verdict {
        self.searched += 1;
        let history = self.history(key);
        history.touch(now);
        let Err(_) = history.search.complete(id, &outcome) else { return Ok(()) };
        breach!("S12", "{key:?}: no order of the operations explains {outcome:?}")
    }

    fn batch(&mut self, id: OperationId, keys: Vec<Key>) {
        if keys.len() > 1 {
            self.batches.insert(id, keys);
            if self.batches.len() > BATCHES_MAX {
                self.batches.pop_first();
            }
        }
    }

    pub(crate) fn put_invoked(&mut self, now: u64, id: OperationId, entries: &[Put]) {
        for entry in entries {
            let operation = KeyOperation::Put(entry.condition, entry.value);
            self.invoke(now, id, &entry.key, operation);
        }
        self.batch(id, entries.iter().map(|entry| entry.key.clone()).collect());
    }

    pub(crate) fn remove_invoked(&mut self, now: u64, id: OperationId, keys: &[Removal]) {
        for removal in keys {
            self.invoke(now, id, &removal.key, KeyOperation::Remove(removal.condition));
        }
        self.batch(id, keys.iter().map(|removal| removal.key.clone()).collect());
    }

    pub(crate) fn read_invoked(&mut self, now: u64, id: OperationId, keys: &[Key]) {
        keys.iter().for_each(|key| self.invoke(now, id, key, KeyOperation::Read));
    }

    /// Entries were put, and given these versions; `floor` is the highest version that was known
    /// when they were sent.
    pub(crate) fn put(
        &mut self,
        now: u64,
        id: OperationId,
        entries: &[Put],
        versions: &[i64],
        floor: Option<i64>,
    ) -> Verdict {
        let is_whole = versions.len() == entries.len();
        hold!(is_whole, "S12", "{} versions for {} entries", versions.len(), entries.len());
        let mut last = floor;
        for (entry, version) in entries.iter().zip(versions) {
            hold!(
                Some(*version) > last,
                "S12",
                "{:?} was given version {version} after {last:?}",
                entry.key
            );
            last = Some(*version);
            self.learn(&entry.key, entry.value, *version)?;
            self.history(&entry.key).touched = now;
            self.complete(now, id, &entry.key, KeyOutcome::Put(*version))?;
        }
        self.batches.remove(&id);
        Ok(())
    }

    pub(crate) fn removed(&mut self, now: u64, id: OperationId, keys: &[Removal]) -> Verdict {
        for removal in keys {
            self.history(&removal.key).touched = now;
            self.complete(now, id, &removal.key, KeyOutcome::Removed)?;
        }
        self.batches.remove(&id);
        Ok(())
    }

    /// A change was refused because of a version: at least one key must explain that.
    pub(crate) fn refused<'k>(
        &mut self,
        now: u64,
        id: OperationId,
        keys: impl Iterator<Item = &'k Key> + Clone,
    ) -> Verdict {
        self.searched += 1;
        self.batches.remove(&id);
        let can_be = |key: &&Key| {
            let history = self.keys.get(key.as_str());
            history.is_none_or(|history| history.search.can_end(id, &KeyOutcome::Refused))
        };
        let mut guilty = keys.clone().filter(can_be);
        let first = guilty.next();
        let is_only = guilty.next().is_none();
        let Some(first) = first else {
            let keys: Vec<&Key> = keys.collect();
            breach!("S12", "a change of {keys:?} was refused and every condition held");
        };
        let first = first.clone();
        for key in keys {
            if is_only && *key == first {
                self.complete(now, id, key, KeyOutcome::Refused)?;
            } else if self.history(key).search.withdraw(id).is_err() {
                breach!("S12", "{key:?} was read changed by a change that was refused");
            }
        }
        Ok(())
    }

    pub(crate) fn withdrawn<'k>(
        &mut self,
        id: OperationId,
        keys: impl Iterator<Item = &'k Key>,
    ) -> Verdict {
        self.batches.remove(&id);
        for key in keys {
            if self.history(key).search.withdraw(id).is_err() {
                breach!("S12", "{key:?} was read changed by a change that was refused");
            }
        }
        Ok(())
    }

    pub(crate) fn unknown<'k>(
        &mut self,
        now: u64,
        id: OperationId,
        keys: impl Iterator<Item = &'k Key>,
    ) {
        for key in keys {
            let history = self.history(key);
            history.touch(now);
            history.search.unknown(id);
        }
    }

    /// Keys were read together.
    pub(crate) fn read(
        &mut self,
        now: u64,
        id: OperationId,
        keys: &[Key],
        entries: &[Entry],
    ) -> Verdict {
        for entry in entries {
            let is_asked = keys.contains(&entry.key);
            hold!(is_asked, "S12", "{:?} was read and not asked for", entry.key);
            self.learn(&entry.key, entry.value, entry.version)?;
        }
        let mut undisturbed = Vec::new();
        for key in keys {
            if self.history(key).search.is_undisturbed(id) {
                undisturbed.push(key.clone());
            }
            let mut found = entries.iter().filter(|entry| entry.key == *key);
            let entry = found.next().map(|entry| (entry.value, entry.version));
            hold!(found.next().is_none(), "S12", "{key:?} was read twice in one answer");
            self.complete(now, id, key, KeyOutcome::Read(entry))?;
        }
        self.check_batches(&undisturbed)
    }

    /// Of each change of several keys, what was read together shows all or nothing. Keys that
    /// changed while they were read may have been read before or after the change, so they do not
    /// count.
    fn check_batches(&self, read: &[Key]) -> Verdict {
        for (id, keys) in &self.batches {
            let (mut shown, mut hidden) = (None, None);
            for key in keys.iter().filter(|key| read.contains(key)) {
                let Some(history) = self.keys.get(key) else { continue };
                match history.search.has_happened(*id) {
                    Some(true) => shown = Some(key),
                    Some(false) => hidden = Some(key),
                    None => {}
                }
            }
            if let (Some(shown), Some(hidden)) = (shown, hidden) {
                breach!("S12", "one change of {shown:?} and {hidden:?} is there in part");
            }
        }
        Ok(())
    }

    fn learn(&mut self, key: &Key, value: Value, version: i64) -> Verdict {
        self.version_floor = self.version_floor.max(Some(version));
        let owner = self.versions.entry(version).or_insert_with(|| (key.clone(), value));
        hold!(
            *owner == (key.clone(), value),
            "S12",
            "version {version} is {:?} with {:?} and {key:?} with {value:?}",
            owner.0,
            owner.1
        );
        if self.versions.len() > VERSIONS_MAX {
            self.versions.pop_first();
        }
        Ok(())
    }

    /// A walk over all keys with this prefix ended; it began at record `since`. A key about which
    /// nothing could change meanwhile was read by it.
    pub(crate) fn walked(
        &mut self,
        id: OperationId,
        since: u64,
        prefix: &str,
        entries: &[Entry],
    ) -> Verdict {
        self.searched += 1;
        let mut found: BTreeMap<&Key, &Entry> = BTreeMap::new();
        for entry in entries {
            let earlier = found.insert(&entry.key, entry);
            hold!(earlier.is_none(), "S12", "a walk met {:?} twice", entry.key);
            self.learn(&entry.key, entry.value, entry.version)?;
            let is_known = !self.is_young || self.keys.contains_key(&entry.key);
            hold!(is_known, "S12", "a walk met {:?}, which was never put", entry.key);
        }
        for (key, history) in &mut self.keys {
            let is_asked = key.as_str().starts_with(prefix);
            if !is_asked || history.touched >= since || history.search.certain().is_none() {
                continue;
            }
            let entry = found.get(key).map(|entry| (entry.value, entry.version));
            history.search.invoke(id, KeyOperation::Read);
            let verdict = history.search.complete(id, &KeyOutcome::Read(entry));
            let state = history.search.certain();
            hold!(
                verdict.is_ok(),
                "S12",
                "a walk has {entry:?} for {key:?}, which was {state:?} all along"
            );
        }
        Ok(())
    }

    pub(crate) fn doom(&mut self) {
        self.keys.values_mut().for_each(|history| history.search.doom());
    }

    pub(crate) fn settle(&mut self) {
        self.keys.values_mut().for_each(|history| history.search.settle());
    }
}
