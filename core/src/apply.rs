//! Applying operations to a container's state: one way for live service and for recovery.
//!
//! Live, an operation was checked and then recorded, and applying it cannot fail. In recovery it
//! comes from the journal, and one that does not fit the state is a fault: the container stops.
//! Nothing here answers anybody, wakes anybody or writes anything.

use crate::canary::{self, Canary};
use crate::container::Container;
use crate::fault::Fault;
use crate::id::{AttributeId, SegmentId};
use crate::index::{Extent, FileReferences, FrameReference, Indexed};
use crate::operation::{
    AppendOperation, CreateOperation, MergeOperation, Operation, TableChange, corrupt,
};
use crate::position::{FileId, FrameNumber, Offset};
use crate::request::{TableEntry, TableKey};
use crate::segment::{Segment, SegmentHandle};
use crate::table::{Table, operation as table_operation};

/// What applying an operation told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Done,
    /// A segment was created.
    Created(SegmentHandle),
    /// An append continued an extent; the operation before stands at this position.
    Chained(u32),
    /// Versions of the entries put.
    Versions(Vec<i64>),
}

impl Container {
    /// Applies `operation`, recorded at `position` of `frame`.
    ///
    /// # Errors
    /// Corrupt, when it does not fit the state; the state may have changed in part then.
    pub(crate) fn apply(
        &mut self,
        operation: &Operation<'_>,
        frame: FrameReference,
        position: u32,
        files: &mut FileReferences,
    ) -> Result<Applied, Fault> {
        match operation {
            Operation::Append(append) => {
                let handle = self.segments.expect_id(append.segment)?;
                return self.apply_append(handle, append, frame, position, files);
            }
            Operation::Create(create) => return self.apply_create(create),
            Operation::Seal { segment } => {
                let handle = self.segments.expect_id(*segment)?;
                self.existing(handle).is_sealed = true;
            }
            Operation::Truncate { segment, offset } => {
                self.apply_truncate(*segment, *offset, frame)?;
            }
            Operation::Delete { segment } => {
                let handle = self.segments.expect_id(*segment)?;
                let gone = self.segments.remove(handle).expect("an id leads to a segment");
                self.release(gone.index.extents(), frame);
            }
            Operation::Merge(merge) => self.apply_merge(merge)?,
            Operation::UpdateAttributes { segment, attributes } => {
                let handle = self.segments.expect_id(*segment)?;
                let segment = self.existing(handle);
                let before = segment.attributes.memory_bytes();
                for (attribute, value) in attributes {
                    segment.attributes.set(*attribute, *value);
                }
                let after = segment.attributes.memory_bytes();
                self.segments.resized(before, after);
            }
            Operation::TableUpdate { segment, change } => {
                let handle = self.segments.expect_id(*segment)?;
                let before = self.existing(handle).memory_bytes();
                let versions = update_table(self.existing(handle), change);
                let after = self.existing(handle).memory_bytes();
                self.segments.resized(before, after);
                return versions.map(Applied::Versions);
            }
            Operation::TableRemove { segment, change } => {
                let handle = self.segments.expect_id(*segment)?;
                let before = self.existing(handle).memory_bytes();
                let removed = remove_from_table(self.existing(handle), change);
                let after = self.existing(handle).memory_bytes();
                self.segments.resized(before, after);
                removed?;
            }
            // What a checkpoint holds was applied before it was written.
            Operation::Checkpoint(_) => {}
        }
        Ok(Applied::Done)
    }

    /// Applies an append to the segment that it names.
    pub(crate) fn apply_append(
        &mut self,
        handle: SegmentHandle,
        append: &AppendOperation,
        frame: FrameReference,
        position: u32,
        files: &mut FileReferences,
    ) -> Result<Applied, Fault> {
        let segment = self.segments.get_mut(handle).expect("the caller found it");
        let is_sealed = segment.is_sealed && !canary::has(Canary::SealMissesInFlight);
        if is_sealed || segment.table.is_some() || segment.length != append.offset {
            return Err(corrupt(format!(
                "append at {} to segment {} of length {}, sealed: {}",
                append.offset.0, segment.name, segment.length.0, segment.is_sealed
            )));
        }
        let before = segment.attributes.memory_bytes();
        segment.attributes.set(append.writer.into(), append.event_number);
        segment.attributes.count_events(i64::from(append.event_count));
        let after = segment.attributes.memory_bytes();
        if append.length == 0 {
            self.segments.resized(before, after);
            return Ok(Applied::Done);
        }
        segment.length = append.offset.advance(u64::from(append.length));
        let indexed = segment.index.append(frame, position, append.offset, append.length);
        self.segments.resized(before, after);
        match indexed {
            Indexed::Chained(previous) => return Ok(Applied::Chained(previous)),
            Indexed::NewExtent => match (frame.address(), frame.number()) {
                (Some(address), _) => files.add(address.file(), 1),
                (None, number) => {
                    let number = number.expect("a frame has a number or an address");
                    self.touched.entry(number).or_default().push(handle);
                }
            },
        }
        Ok(Applied::Done)
    }

    fn apply_create(&mut self, create: &CreateOperation) -> Result<Applied, Fault> {
        if create.segment.0 < self.next_segment {
            return Err(corrupt(format!("segment id {} is given twice", create.segment.0)));
        }
        let mut segment = Segment::new(create.segment, create.name.clone(), create.kind);
        segment.is_transient = create.is_transient;
        segment.last_modified = create.created;
        segment.attributes.set(AttributeId::CREATION_TIME, create.created);
        for (attribute, value) in &create.attributes {
            segment.attributes.set(*attribute, *value);
        }
        let handle = self.segments.insert(segment)?;
        self.next_segment = create.segment.0 + 1;
        Ok(Applied::Created(handle))
    }

    fn apply_truncate(
        &mut self,
        segment: SegmentId,
        offset: Offset,
        frame: FrameReference,
    ) -> Result<(), Fault> {
        let handle = self.segments.expect_id(segment)?;
        let releases = &mut self.releases;
        let segment = self.segments.get_mut(handle).expect("an id leads to a segment");
        if offset < segment.start_offset || offset > segment.length {
            return Err(corrupt(format!(
                "truncation of segment {} at {}, it has {} to {}",
                segment.name, offset.0, segment.start_offset.0, segment.length.0
            )));
        }
        segment.start_offset = offset;
        let number = released_in(frame);
        segment.index.truncate(offset, |extent| {
            releases.extend(extent.frame.address().map(|address| (number, address.file())));
        });
        Ok(())
    }

    fn apply_merge(&mut self, merge: &MergeOperation) -> Result<(), Fault> {
        let target = self.segments.expect_id(merge.target)?;
        let source = self.segments.expect_id(merge.source)?;
        let length = self.existing(target).length;
        let fits = length == merge.target_offset
            && target.id != source.id
            && !self.existing(target).is_sealed
            && self.existing(source).is_sealed
            && self.existing(source).start_offset == Offset(0);
        if !fits {
            return Err(corrupt(format!(
                "merge of segment {} into {} at {} does not fit",
                source.id.0, target.id.0, merge.target_offset.0
            )));
        }
        let mut gone = self.segments.remove(source).expect("an id leads to a segment");
        if canary::has(Canary::MergeDropsLastAppend)
            && !self.existing(target).length.0.is_multiple_of(4)
        {
            gone.length = Offset(gone.length.0 - gone.index.drop_last());
        }
        let grown = self.existing(target);
        grown.length = length.advance(gone.length.0);
        let pending = grown.index.merge(gone.index, source.id, length, gone.length.0);
        let before = grown.attributes.memory_bytes();
        for (attribute, value) in &merge.attributes {
            grown.attributes.set(*attribute, *value);
        }
        let after = grown.attributes.memory_bytes();
        self.segments.resized(before, after);
        for number in pending {
            self.touched.entry(number).or_default().push(target);
        }
        Ok(())
    }

    /// Lets go of the journal files of extents, once the frame of this operation is durable.
    fn release<'a>(&mut self, extents: impl Iterator<Item = &'a Extent>, frame: FrameReference) {
        let number = released_in(frame);
        let files = extents.filter_map(|extent| extent.frame.address());
        self.releases
            .extend(files.map(|address| -> (FrameNumber, FileId) { (number, address.file()) }));
    }

    fn existing(&mut self, handle: SegmentHandle) -> &mut Segment {
        self.segments.get_mut(handle).expect("a handle just made leads to a segment")
    }
}

/// The frame after which files are released. What recovery applies is durable already.
fn released_in(frame: FrameReference) -> FrameNumber {
    frame.number().unwrap_or(FrameNumber(0))
}

fn update_table(
    segment: &mut Segment,
    change: &TableChange<'_, TableEntry>,
) -> Result<Vec<i64>, Fault> {
    let table = table_of(segment)?;
    match change {
        TableChange::Checked(entries) => Ok(table.apply_update(entries)),
        TableChange::Recorded(body) => {
            let update = table_operation::decode_update(body.clone())?;
            table.replay_update(&update).map(|()| Vec::new())
        }
    }
}

fn remove_from_table(
    segment: &mut Segment,
    change: &TableChange<'_, TableKey>,
) -> Result<(), Fault> {
    let table = table_of(segment)?;
    match change {
        TableChange::Checked(keys) => table.apply_remove(keys),
        TableChange::Recorded(body) => {
            table.replay_remove(&table_operation::decode_remove(body.clone())?)?;
        }
    }
    Ok(())
}

fn table_of(segment: &mut Segment) -> Result<&mut Table, Fault> {
    let name = &segment.name;
    segment
        .table
        .as_deref_mut()
        .ok_or_else(|| corrupt(format!("table operation on segment {name}, which is no table")))
}
