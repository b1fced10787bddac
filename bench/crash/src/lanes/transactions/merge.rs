//! Merging, in all its forms.

use std::thread;
use std::time::{Duration, Instant};

use thalweg_wire::{
    AttributeUpdate, Command, CreateTransientSegment, MergeSegments, MergeSegmentsBatch,
    NULL_ATTRIBUTE_VALUE,
};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::store::{Store, none};
use crate::wire::{Trouble, Wire};

use super::{Asked, MERGES, Transactions};

/// `update_type` of an attribute that must have the old value.
const REPLACE_IF_EQUAL: i8 = 4;

impl Transactions {
    /// Merges one transaction, sometimes with an attribute, sometimes twice.
    pub(super) fn merge_one(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let Some(number) = self.some_open() else { return Ok(()) };
        let parent = self.parent.clone();
        let source = self.open[&number].name.clone();
        let with_attribute = self.dice.one_in(2);
        let next = self.merges.max(0) + 1;
        let mut updates = Vec::new();
        if with_attribute {
            updates.push(AttributeUpdate {
                attribute_id: MERGES,
                update_type: REPLACE_IF_EQUAL,
                new_value: next,
                old_value: self.merges,
            });
        }
        self.asked = Some(Asked::Merge(vec![number], with_attribute));
        let reply = store.ask(&parent, |id| request(id, &parent, &source, updates))?;
        let marks = self.forget(number);
        self.marks.extend(marks);
        self.asked = None;
        match reply {
            Command::SegmentsMerged(it) => {
                ensure_eq!(it.source.as_str(), source, "source told merged");
                let length = self.length();
                ensure_eq!(it.new_target_write_offset, length, "{parent}: length after a merge");
            }
            other => wrong!("{parent}: {other:?} to the merge of {source}"),
        }
        if with_attribute {
            self.merges = next;
            ensure_eq!(store.attribute(&parent, MERGES)?, next, "{parent}: attribute of merges");
        }
        if self.dice.one_in(4) {
            match store.ask(&parent, |id| request(id, &parent, &source, Vec::new()))? {
                // Merged before, told in either way.
                Command::NoSuchSegment(it) => ensure_eq!(it.segment.as_str(), source, "name"),
                Command::SegmentsMerged(it) => {
                    ensure_eq!(it.new_target_write_offset, self.length(), "{parent}: twice");
                }
                other => wrong!("{parent}: {other:?} to the second merge of {source}"),
            }
        }
        Ok(())
    }

    /// Merges several transactions at once, and one that was merged before.
    pub(super) fn merge_some(&mut self, store: &mut Store) -> Result<(), Trouble> {
        let parent = self.parent.clone();
        let numbers: Vec<u64> = self.open.keys().copied().take(3).collect();
        let mut sources: Vec<String> =
            numbers.iter().map(|number| self.open[number].name.clone()).collect();
        sources.extend(self.gone.last().cloned());
        let before = self.length();
        self.asked = Some(Asked::Merge(numbers.clone(), false));
        let reply = store.ask(&parent, |request_id| {
            MergeSegmentsBatch {
                request_id,
                target: parent.as_str().into(),
                sources: sources.iter().map(|source| source.as_str().into()).collect(),
                delegation_token: none(),
            }
            .into()
        })?;
        let Command::SegmentsBatchMerged(merged) = reply else {
            wrong!("{parent}: {reply:?} to the merge of {sources:?}");
        };
        let names: Vec<&str> = merged.merged.iter().map(|it| it.source.as_str()).collect();
        ensure_eq!(names, sources, "{parent}: sources told merged");
        let mut expected = before;
        for (number, told) in numbers.into_iter().zip(&merged.merged) {
            let marks = self.forget(number);
            expected += super::bytes_of(&marks);
            if !marks.is_empty() {
                // For an empty or missing source the length may be told earlier or later.
                ensure_eq!(told.new_target_write_offset, expected, "{parent}: length after");
            }
            self.marks.extend(marks);
        }
        self.asked = None;
        Ok(())
    }
}

fn request(id: i64, target: &str, source: &str, updates: Vec<AttributeUpdate>) -> Command {
    debug_assert!(updates.iter().all(|it| it.new_value != NULL_ATTRIBUTE_VALUE));
    MergeSegments {
        request_id: id,
        target: target.into(),
        source: source.into(),
        delegation_token: none(),
        attribute_updates: updates,
    }
    .into()
}

/// Merges on a given connection; gives the length of the target then.
pub(super) fn merge_on(wire: &mut Wire, target: &str, source: &str) -> Result<i64, Trouble> {
    match wire.ask(|id| request(id, target, source, Vec::new()))? {
        Command::SegmentsMerged(it) => Ok(it.new_target_write_offset),
        other => wrong!("{target}: {other:?} to the merge of {source}"),
    }
}

/// A segment that lives as long as the connection; gives its name.
pub(super) fn create_transient(
    wire: &mut Wire,
    parent: &str,
    writer_id: u128,
) -> Result<String, Trouble> {
    let reply = wire.ask(|request_id| {
        CreateTransientSegment {
            request_id,
            writer_id,
            parent_segment: parent.into(),
            delegation_token: none(),
        }
        .into()
    })?;
    match reply {
        Command::SegmentCreated(it) => {
            let name = it.segment.to_string();
            ensure!(name.starts_with(&format!("{parent}#transient.")), "{name} of {parent}");
            Ok(name)
        }
        other => wrong!("{parent}: {other:?} to CreateTransientSegment"),
    }
}

/// Waits until the server has noticed that the connection of a transient segment is gone.
pub(super) fn await_absence(store: &mut Store, name: &str) -> Result<(), Trouble> {
    let begin = Instant::now();
    while store.info(name)?.is_some() {
        let limit = Duration::from_secs(10);
        ensure!(begin.elapsed() < limit, "{name} outlives its connection by {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
