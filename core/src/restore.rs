//! From a snapshot back to a container's state. The counterpart of `checkpoint.rs`; bytes come from
//! frames whose checksums were verified, and what does not decode is a fault.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::checkpoint::{FLAG_SEALED, FLAG_TRANSIENT, SNAPSHOT_FORMAT};
use crate::container::Container;
use crate::fault::Fault;
use crate::id::SegmentId;
use crate::index::{Extent, FileReferences, FrameReference, Index, Origin};
use crate::operation::{
    corrupt, take_attributes, take_i64, take_kind, take_name, take_offset, take_segment, take_u16,
    take_u32, take_u64,
};
use crate::position::{FrameNumber, JournalAddress, Offset, SequenceNumber};
use crate::request::SegmentKind;
use crate::segment::Segment;
use crate::table::Table;

/// Frames seen in recovery that hold operations: number and address, in order.
pub(crate) type SeenFrames = [(FrameNumber, JournalAddress)];

impl Container {
    /// Takes over the state of a snapshot. `frames` tells the addresses of frames that the snapshot
    /// knows by number only.
    ///
    /// # Errors
    /// Corrupt: another format, or no state can be so.
    pub(crate) fn restore(
        &mut self,
        snapshot: SequenceNumber,
        mut from: Bytes,
        frames: &SeenFrames,
        files: &mut FileReferences,
    ) -> Result<(), Fault> {
        let format = take_u16(&mut from)?;
        if format != SNAPSHOT_FORMAT {
            return Err(corrupt(format!("checkpoint of unknown format {format}")));
        }
        self.next_segment = take_u64(&mut from)?;
        for _ in 0..take_u32(&mut from)? {
            let segment = decode_segment(&mut from, frames)?;
            if segment.id.0 >= self.next_segment {
                return Err(corrupt(format!("segment id {} is not given yet", segment.id.0)));
            }
            for extent in segment.index.extents() {
                let address = extent.frame.address().expect("frames were resolved");
                files.add(address.file(), 1);
            }
            self.segments.insert(segment)?;
        }
        if !from.is_empty() {
            return Err(corrupt(format!("{} bytes left over behind a checkpoint", from.len())));
        }
        self.sequence_number = snapshot;
        Ok(())
    }
}

fn decode_segment(from: &mut Bytes, frames: &SeenFrames) -> Result<Segment, Fault> {
    let id = take_segment(from)?;
    let kind = take_kind(from)?;
    let flags = take_u16(from)?;
    let name = take_name(from)?;
    // The table itself follows at the end, with its key length.
    let mut segment = Segment::new(id, name, SegmentKind::Stream);
    segment.is_transient = flags & FLAG_TRANSIENT != 0;
    segment.is_sealed = flags & FLAG_SEALED != 0;
    segment.start_offset = take_offset(from)?;
    segment.length = take_offset(from)?;
    segment.last_modified = take_i64(from)?;
    for (attribute, value) in take_attributes(from)? {
        segment.attributes.set(attribute, value);
    }
    let extents = decode_extents(from, frames)?;
    let origins = decode_origins(from)?;
    check_extents(&segment, &extents)?;
    segment.index = Index::restore(extents, origins);
    if kind != SegmentKind::Stream {
        segment.table = Some(Box::new(Table::decode_snapshot(from)?));
    }
    Ok(segment)
}

fn decode_extents(from: &mut Bytes, frames: &SeenFrames) -> Result<VecDeque<Extent>, Fault> {
    let mut extents = VecDeque::new();
    for _ in 0..take_u32(from)? {
        let offset = take_offset(from)?;
        let frame = resolve(FrameReference::from_bits(take_u64(from)?), frames)?;
        extents.push_back(Extent {
            offset,
            frame,
            position: take_u32(from)?,
            length: take_u32(from)?,
        });
    }
    Ok(extents)
}

fn resolve(frame: FrameReference, frames: &SeenFrames) -> Result<FrameReference, Fault> {
    let Some(number) = frame.number() else { return Ok(frame) };
    match frames.binary_search_by_key(&number, |(seen, _)| *seen) {
        Ok(index) => Ok(FrameReference::at(frames[index].1)),
        Err(_) => Err(corrupt(format!("checkpoint refers to frame {}, not found", number.0))),
    }
}

fn decode_origins(from: &mut Bytes) -> Result<VecDeque<Origin>, Fault> {
    let mut origins: VecDeque<Origin> = VecDeque::new();
    for _ in 0..take_u32(from)? {
        let (start, end) = (take_offset(from)?, take_offset(from)?);
        let (segment, base): (SegmentId, Offset) = (take_segment(from)?, take_offset(from)?);
        let earlier = origins.back().map_or(Offset(0), |origin| origin.end);
        if start < earlier || start >= end || base > start {
            return Err(corrupt(format!("origin from {} to {} in a checkpoint", start.0, end.0)));
        }
        origins.push_back(Origin { start, end, segment, base });
    }
    Ok(origins)
}

/// Extents must cover a segment from its start offset to its length without gap.
fn check_extents(segment: &Segment, extents: &VecDeque<Extent>) -> Result<(), Fault> {
    let wrong =
        |what: &str| Err(corrupt(format!("checkpoint of segment {}: {what}", segment.name)));
    if segment.start_offset > segment.length {
        return wrong("it starts behind its end");
    }
    let first = extents.front().map_or(segment.length, |extent| extent.offset);
    if first > segment.start_offset {
        return wrong("bytes at its start are in no frame");
    }
    let mut end = first;
    for extent in extents {
        let fits = extent.offset == end && extent.length > 0;
        if !fits || end.0 + u64::from(extent.length) > segment.length.0 {
            return wrong("its extents do not follow each other");
        }
        end = extent.end();
    }
    if end == segment.length { Ok(()) } else { wrong("bytes at its end are in no frame") }
}
