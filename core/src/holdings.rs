//! What a container holds, told to tools that check a journal at rest. Changes nothing.

use crate::container::{Container, ContainerState};
use crate::fault::Fault;
use crate::id::{ContainerId, SegmentName};
use crate::position::{JournalAddress, Offset};
use crate::request::SegmentKind;

/// A container as recovered.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// Which.
    pub container: ContainerId,
    /// Why it would refuse to serve, if it would.
    pub fault: Option<Fault>,
    /// Its segments, by id.
    pub segments: Vec<HeldSegment>,
}

/// A segment of a container.
#[derive(Clone, Debug)]
pub struct HeldSegment {
    /// Its name.
    pub name: SegmentName,
    /// Stream or table.
    pub kind: SegmentKind,
    /// First readable byte.
    pub start_offset: Offset,
    /// Behind the last byte.
    pub length: Offset,
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// Where its bytes lie: offset of the first, how many, and the frame.
    pub extents: Vec<(Offset, u32, Option<JournalAddress>)>,
}

impl Container {
    pub(crate) fn holdings(&self) -> Holdings {
        let fault = match &self.state {
            ContainerState::Damaged(fault) => Some(fault.clone()),
            ContainerState::Recovering | ContainerState::Serving => None,
        };
        let segments = self.segments.all().map(|segment| {
            let table = segment.table.as_deref();
            let kind = table.map_or(SegmentKind::Stream, |table| SegmentKind::Table {
                key_length: table.key_length(),
            });
            let extents = segment.index.extents();
            HeldSegment {
                name: segment.name.clone(),
                kind,
                start_offset: segment.start_offset,
                length: segment.durable_length,
                is_sealed: segment.is_sealed,
                extents: extents
                    .map(|extent| (extent.offset, extent.length, extent.frame.address()))
                    .collect(),
            }
        });
        Holdings { container: self.id, fault, segments: segments.collect() }
    }
}
