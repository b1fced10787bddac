//! The oracle: what was acknowledged, what may have happened, what readers have seen.
//!
//! Clients tell it what they send and what they are told; it holds every answer against all earlier
//! ones and records a violation with the invariant's number when they cannot both be true. An
//! operation without an answer may have happened or not, but not both.

pub(crate) mod counter;
pub(crate) mod segment;
pub(crate) mod table;

use std::collections::BTreeMap;

use crate::model::counter::CounterModel;
use crate::model::segment::SegmentModel;
use crate::model::table::TableModel;
use crate::payload::EventSizes;
use crate::trace::Trace;

/// Everything known about a world's content.
#[derive(Debug)]
pub(crate) struct Model {
    trace: Trace,
    sizes: EventSizes,
    segments: BTreeMap<String, SegmentModel>,
    tables: BTreeMap<String, TableModel>,
    counters: BTreeMap<String, CounterModel>,
}

impl Model {
    /// Knows nothing.
    pub(crate) fn new(trace: Trace, sizes: EventSizes) -> Self {
        Self {
            trace,
            sizes,
            segments: BTreeMap::new(),
            tables: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    /// The segment of this name, made when it is first spoken of.
    pub(crate) fn segment(&mut self, name: &str) -> &mut SegmentModel {
        if !self.segments.contains_key(name) {
            let segment = SegmentModel::new(name, self.sizes, self.trace.clone());
            self.segments.insert(name.to_owned(), segment);
        }
        self.segments.get_mut(name).expect("it was just made")
    }

    /// The table of this name, made when it is first spoken of.
    pub(crate) fn table(&mut self, name: &str) -> &mut TableModel {
        if !self.tables.contains_key(name) {
            self.tables.insert(name.to_owned(), TableModel::new(name, self.trace.clone()));
        }
        self.tables.get_mut(name).expect("it was just made")
    }

    /// The counter in an attribute of this segment, made when it is first spoken of.
    pub(crate) fn counter(&mut self, name: &str) -> &mut CounterModel {
        if !self.counters.contains_key(name) {
            self.counters.insert(name.to_owned(), CounterModel::new(name, self.trace.clone()));
        }
        self.counters.get_mut(name).expect("it was just made")
    }

    /// Forgets a segment that was deleted, so that its name can begin anew.
    pub(crate) fn forget_segment(&mut self, name: &str) {
        self.segments.remove(name);
    }

    /// Names of all segments.
    pub(crate) fn segment_names(&self) -> Vec<String> {
        self.segments.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
