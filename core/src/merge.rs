//! Merges: the whole content of a source segment goes to the end of a target, and the source
//! ceases to exist, in one operation. No byte is copied: the target's index takes the source's
//! extents.
//!
//! The source is sealed first, also when the merge is refused then, as existing servers do. A
//! single merge that is repeated finds no source; a batch counts a missing source as merged before.

use crate::attribute::count_after;
use crate::canary::{self, Canary};
use crate::container::{Container, No, Shared, no_such_segment, segment_sealed};
use crate::id::{AttributeId, NULL_ATTRIBUTE_VALUE, SegmentName};
use crate::operation::{AttributeValue, MergeOperation, Operation};
use crate::pending::Step;
use crate::position::Offset;
use crate::request::{AttributeUpdate, CloseReason, Refusal, Reply};
use crate::segment::SegmentHandle;
use crate::time::Now;

impl Container {
    pub(crate) fn merge(
        &mut self,
        shared: &mut Shared,
        now: Now,
        target_name: &SegmentName,
        source_name: &SegmentName,
        updates: &[AttributeUpdate],
    ) -> Result<Reply, No> {
        let source = self.find(source_name)?;
        let target = self.segments.find(target_name);
        if self.is_table(source) || target.is_some_and(|target| self.is_table(target)) {
            return Err(Refusal::Unsupported { operation: "mergeSegments" }.into());
        }
        self.seal_segment(shared, now, source);
        let Some(target) = target else { return Err(no_such_segment(source_name, None)) };
        self.check_merge(target, source, source_name)?;
        let segment = self.segments.get(target).expect("it was found by name");
        let Some(attributes) = segment.attributes.check(updates) else {
            return Ok(Reply::AttributeUpdated { is_updated: false });
        };
        let target_length = self.merge_segment(shared, now, target, source, attributes);
        let (target, source) = (target_name.clone(), source_name.clone());
        Ok(Reply::Merged { target, source, target_length })
    }

    pub(crate) fn merge_batch(
        &mut self,
        shared: &mut Shared,
        now: Now,
        target_name: &SegmentName,
        sources: &[SegmentName],
    ) -> Result<Reply, No> {
        let mut merged = Vec::with_capacity(sources.len());
        let mut failed = None;
        // A source that fails does not stop those behind it.
        for source in sources {
            match self.merge_one(shared, now, target_name, source) {
                Ok(length) => merged.push((source.clone(), length)),
                Err(no) => failed = failed.or(Some(no)),
            }
        }
        match failed {
            Some(no) => Err(no),
            None => Ok(Reply::BatchMerged { target: target_name.clone(), sources: merged }),
        }
    }

    fn merge_one(
        &mut self,
        shared: &mut Shared,
        now: Now,
        target_name: &SegmentName,
        source_name: &SegmentName,
    ) -> Result<Offset, No> {
        let target = self.find(target_name)?;
        if self.is_table(target) {
            return Err(Refusal::Unsupported { operation: "mergeSegmentsBatch" }.into());
        }
        let Some(source) = self.segments.find(source_name) else {
            return Ok(self.segments.get(target).expect("it was found by name").length);
        };
        if self.is_table(source) {
            return Err(Refusal::Unsupported { operation: "mergeSegmentsBatch" }.into());
        }
        self.seal_segment(shared, now, source);
        self.check_merge(target, source, target_name)?;
        Ok(self.merge_segment(shared, now, target, source, Vec::new()))
    }

    /// Whether a sealed source may be merged; a sealed target is reported under `reported`.
    fn check_merge(
        &self,
        target: SegmentHandle,
        source: SegmentHandle,
        reported: &SegmentName,
    ) -> Result<(), No> {
        let source = self.segments.get(source).expect("it was found by name");
        if source.start_offset > Offset(0) {
            return Err(No::Close(CloseReason::Protocol));
        }
        // A target that is the source is sealed by now.
        let target = self.segments.get(target).expect("it was found by name");
        if target.is_sealed { Err(segment_sealed(reported)) } else { Ok(()) }
    }

    /// Merges; returns the length of the target after it. `attributes` are set on the target.
    fn merge_segment(
        &mut self,
        shared: &mut Shared,
        now: Now,
        target: SegmentHandle,
        source: SegmentHandle,
        mut attributes: Vec<AttributeValue>,
    ) -> Offset {
        let from = self.segments.get(source).expect("the caller found it");
        let end = from.length;
        let events = match from.attributes.value(AttributeId::EVENT_COUNT) {
            _ if end == Offset(0) => 0,
            _ if from.is_transient => 1,
            NULL_ATTRIBUTE_VALUE => 0,
            count => count,
        };
        let to = self.segments.get(target).expect("the caller found it");
        let target_offset = to.length;
        if events > 0 {
            // Behind an update of the same attribute, whose condition was judged without the merge.
            let earlier = attributes.iter().rev().find(|(id, _)| *id == AttributeId::EVENT_COUNT);
            let count = earlier
                .map_or_else(|| to.attributes.value(AttributeId::EVENT_COUNT), |(_, count)| *count);
            attributes.push((AttributeId::EVENT_COUNT, count_after(count, events)));
        }
        let parked = self.dismiss_parked(shared, source);
        let operation = Operation::Merge(MergeOperation {
            target: target.id,
            source: source.id,
            target_offset,
            attributes,
        });
        self.change(shared, now, Some(target), &operation);
        let length = self.segments.get(target).expect("the target stays").length;
        let is_whole = length == target_offset.advance(end.0);
        let is_cut = canary::has(Canary::MergeDropsLastAppend);
        assert!(is_whole || is_cut, "the target grows by the source");
        self.defer(Step::Grow { segment: target, length });
        self.answer_dismissed(parked, Some(end));
        length
    }

    fn is_table(&self, handle: SegmentHandle) -> bool {
        self.segments.get(handle).is_some_and(|segment| segment.table.is_some())
    }
}
