//! The model: what the engine's segments are, without frames, journals and waiting.

use std::collections::BTreeMap;

pub(crate) const NULL: i64 = i64::MIN;
/// Upper half of core attributes, and the event count.
pub(crate) const EVENT_COUNT: u128 = (0x8000_0000_0000_0000 << 64) | 1;

/// One segment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Differs between segments that have the same name one after the other.
    pub(crate) incarnation: u64,
    /// From offset 0 on, truncated bytes included.
    pub(crate) content: Vec<u8>,
    pub(crate) start: u64,
    pub(crate) is_sealed: bool,
    pub(crate) is_transient: bool,
    pub(crate) attributes: BTreeMap<u128, i64>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum: u64 = self.content.iter().map(|byte| u64::from(*byte)).sum();
        write!(
            formatter,
            "{}..{} (sum {sum}), sealed {}, attributes {:x?}",
            self.start,
            self.content.len(),
            self.is_sealed,
            self.attributes
        )
    }
}

impl Segment {
    pub(crate) fn new(incarnation: u64, is_transient: bool) -> Self {
        Self {
            incarnation,
            content: Vec::new(),
            start: 0,
            is_sealed: false,
            is_transient,
            attributes: BTreeMap::new(),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.content.len() as u64
    }

    pub(crate) fn attribute(&self, id: u128) -> i64 {
        self.attributes.get(&id).copied().unwrap_or(NULL)
    }

    pub(crate) fn set(&mut self, id: u128, value: i64) {
        if value == NULL {
            self.attributes.remove(&id);
        } else {
            self.attributes.insert(id, value);
        }
    }

    pub(crate) fn count_events(&mut self, events: i64) {
        let count = self.attribute(EVENT_COUNT);
        self.set(EVENT_COUNT, if count == NULL { events } else { count + events });
    }
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) segments: BTreeMap<String, Segment>,
    /// Of the one table.
    pub(crate) keys: BTreeMap<u8, u8>,
}

/// What a merge came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    Length(u64),
    NoSuchSegment,
    Close,
    Sealed,
    ConditionFailed,
}

impl State {
    /// Merges as the protocol says. `update`: an attribute of the target, expected and new value.
    pub(crate) fn merge(
        &mut self,
        target: &str,
        source: &str,
        update: Option<(u128, i64, i64)>,
    ) -> Merged {
        let Some(from) = self.segments.get_mut(source) else { return Merged::NoSuchSegment };
        from.is_sealed = true;
        let from = from.clone();
        let Some(to) = self.segments.get_mut(target) else { return Merged::NoSuchSegment };
        if from.start > 0 {
            return Merged::Close;
        }
        if to.is_sealed {
            return Merged::Sealed;
        }
        if let Some((id, expected, value)) = update {
            if to.attribute(id) != expected {
                return Merged::ConditionFailed;
            }
            to.set(id, value);
        }
        if !from.content.is_empty() {
            let count = from.attribute(EVENT_COUNT);
            to.content.extend_from_slice(&from.content);
            to.count_events(if from.is_transient { 1 } else { count });
        }
        let length = to.length();
        self.segments.remove(source);
        Merged::Length(length)
    }
}
