//! Attributes of a segment: small numbers under 128-bit ids. The core ones that every segment has
//! are fields, the others (writers' last event numbers, what clients keep) a sorted map.
//!
//! Sorted, not hashed: writer ids are chosen by clients, and a fixed hash could be attacked.

use std::collections::BTreeMap;

use crate::id::{AttributeId, NULL_ATTRIBUTE_VALUE};
use crate::operation::AttributeValue;
use crate::request::{AttributeUpdate, AttributeUpdateKind};

/// Core attributes that are kept as fields: lower halves of their ids.
const FIELDS: usize = 5;

/// Memory of an attribute in the map, bytes: 24 in nodes that are about 70 % full when ids are
/// random, with what the allocator adds, and the copy that a checkpoint makes. A million writers
/// of a real server made 64 bytes each resident.
const ATTRIBUTE_MEMORY_BYTES: usize = 64;

/// See the module's comment. An attribute that is not set reads as the null value, and setting the
/// null value unsets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    core: [i64; FIELDS],
    others: BTreeMap<AttributeId, i64>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { core: [NULL_ATTRIBUTE_VALUE; FIELDS], others: BTreeMap::new() }
    }
}

impl Attributes {
    /// Memory of those in the map, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.others.len() * ATTRIBUTE_MEMORY_BYTES
    }

    pub(crate) fn value(&self, attribute: AttributeId) -> i64 {
        match field(attribute) {
            Some(index) => self.core[index],
            None => self.others.get(&attribute).copied().unwrap_or(NULL_ATTRIBUTE_VALUE),
        }
    }

    pub(crate) fn set(&mut self, attribute: AttributeId, value: i64) {
        match field(attribute) {
            Some(index) => self.core[index] = value,
            None if value == NULL_ATTRIBUTE_VALUE => {
                self.others.remove(&attribute);
            }
            None => {
                self.others.insert(attribute, value);
            }
        }
    }

    /// Counts `events` more.
    pub(crate) fn count_events(&mut self, events: i64) {
        let count = self.value(AttributeId::EVENT_COUNT);
        self.set(AttributeId::EVENT_COUNT, count_after(count, events));
    }

    /// The absolute values that `updates` lead to, or `None` when a condition fails. Each is judged
    /// after those before it.
    pub(crate) fn check(&self, updates: &[AttributeUpdate]) -> Option<Vec<AttributeValue>> {
        let mut values: Vec<AttributeValue> = Vec::with_capacity(updates.len());
        for update in updates {
            let earlier = values.iter().rev().find(|(attribute, _)| *attribute == update.attribute);
            let current = earlier.map_or_else(|| self.value(update.attribute), |(_, value)| *value);
            values.push((update.attribute, updated(update, current)?));
        }
        Some(values)
    }

    /// All that are set, by id.
    pub(crate) fn all(&self) -> Vec<AttributeValue> {
        let core = self.core.iter().enumerate().map(|(index, value)| (core_id(index), *value));
        let set = core.filter(|(_, value)| *value != NULL_ATTRIBUTE_VALUE);
        set.chain(self.others.iter().map(|(attribute, value)| (*attribute, *value))).collect()
    }
}

/// An event count after `events` more; the null value counts as 0.
pub(crate) fn count_after(count: i64, events: i64) -> i64 {
    if count == NULL_ATTRIBUTE_VALUE { events } else { count.saturating_add(events) }
}

fn updated(update: &AttributeUpdate, current: i64) -> Option<i64> {
    let is_set = current != NULL_ATTRIBUTE_VALUE;
    let value = update.value;
    match update.kind {
        AttributeUpdateKind::SetIfUnset => (!is_set).then_some(value),
        AttributeUpdateKind::Replace => Some(value),
        AttributeUpdateKind::ReplaceIfGreater => (!is_set || value > current).then_some(value),
        AttributeUpdateKind::Accumulate if is_set => Some(current.saturating_add(value)),
        AttributeUpdateKind::Accumulate => Some(value),
        AttributeUpdateKind::ReplaceIfEqual => (current == update.expected).then_some(value),
    }
}

fn field(attribute: AttributeId) -> Option<usize> {
    let low = attribute.0 as u64;
    let is_core = attribute.0 >> 64 == u128::from(AttributeId::CORE);
    (is_core && low < FIELDS as u64).then_some(low as usize)
}

fn core_id(index: usize) -> AttributeId {
    AttributeId((u128::from(AttributeId::CORE) << 64) | index as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(kind: AttributeUpdateKind, value: i64, expected: i64) -> AttributeUpdate {
        AttributeUpdate { attribute: AttributeId(9), kind, value, expected }
    }

    /// Shows each kind of update on a set and on an unset attribute.
    #[test]
    fn updates_follow_their_kind() {
        use AttributeUpdateKind::*;
        let unset = Attributes::default();
        let mut set = Attributes::default();
        set.set(AttributeId(9), 5);
        let null = NULL_ATTRIBUTE_VALUE;
        for (kind, value, expected, if_unset, if_five) in [
            (SetIfUnset, 7, 0, Some(7), None),
            (Replace, 7, 0, Some(7), Some(7)),
            (ReplaceIfGreater, 5, 0, Some(5), None),
            (ReplaceIfGreater, 6, 0, Some(6), Some(6)),
            (Accumulate, 2, 0, Some(2), Some(7)),
            (ReplaceIfEqual, 7, 5, None, Some(7)),
            (ReplaceIfEqual, 7, null, Some(7), None),
        ] {
            let updates = [update(kind, value, expected)];
            let told = |attributes: &Attributes| attributes.check(&updates).map(|all| all[0].1);
            assert_eq!((told(&unset), told(&set)), (if_unset, if_five), "{kind:?} {value}");
        }
    }

    /// Shows that updates of one attribute build on each other.
    #[test]
    fn updates_of_one_request_see_each_other() {
        let attributes = Attributes::default();
        let updates = [
            update(AttributeUpdateKind::Accumulate, 3, 0),
            update(AttributeUpdateKind::ReplaceIfEqual, 10, 3),
        ];
        assert_eq!(attributes.check(&updates).map(|all| all[1].1), Some(10));
    }

    /// Shows that the null value unsets, for fields and for others, and counting starts from unset.
    #[test]
    fn null_value_unsets() {
        let mut attributes = Attributes::default();
        assert_eq!(attributes.value(AttributeId::EVENT_COUNT), NULL_ATTRIBUTE_VALUE);
        attributes.count_events(2);
        attributes.set(AttributeId(4), 1);
        assert_eq!(attributes.all(), [(AttributeId::EVENT_COUNT, 2), (AttributeId(4), 1)]);
        attributes.set(AttributeId::EVENT_COUNT, NULL_ATTRIBUTE_VALUE);
        attributes.set(AttributeId(4), NULL_ATTRIBUTE_VALUE);
        assert_eq!(attributes, Attributes::default());
    }
}
