//! Segments of a container: what is known of each, and where to find it by name or id.
//!
//! Three numbers only grow, and always in this order once nothing is in flight: start offset,
//! durable length, length. `length` is accepted: everything but data reads is judged by it. A
//! segment's slot is used again after its deletion, its id never; a handle holds both, so an old
//! one finds nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::attribute::Attributes;
use crate::canary::{self, Canary};
use crate::fault::Fault;
use crate::id::{SegmentId, SegmentName, SessionId, WriterId};
use crate::index::Index;
use crate::operation::corrupt;
use crate::position::Offset;
use crate::request::SegmentKind;
use crate::table::Table;
use crate::tail::ParkedId;

/// Memory of a segment without name, attributes and entries, bytes: itself, its places in the
/// lists by name and by id, a few extents.
const SEGMENT_MEMORY_BYTES: usize = 768;

/// A segment by slot and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHandle {
    pub(crate) slot: u32,
    pub(crate) id: SegmentId,
}

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) name: SegmentName,
    /// Ends with the connection that made it.
    pub(crate) is_transient: bool,
    /// Accepted.
    pub(crate) is_sealed: bool,
    pub(crate) is_sealed_durably: bool,
    /// Accepted.
    pub(crate) start_offset: Offset,
    /// Accepted.
    pub(crate) length: Offset,
    /// What readers may see; at most `length`.
    pub(crate) durable_length: Offset,
    /// Milliseconds since 1970; a hint, exact only since the last start.
    pub(crate) last_modified: i64,
    pub(crate) attributes: Attributes,
    /// The current session of each writer that is set up.
    pub(crate) writers: BTreeMap<WriterId, SessionId>,
    pub(crate) index: Index,
    /// Entries, when this is a table segment.
    pub(crate) table: Option<Box<Table>>,
    /// Reads that wait for its end to move.
    pub(crate) parked: BTreeSet<ParkedId>,
}

impl Segment {
    pub(crate) fn new(id: SegmentId, name: SegmentName, kind: SegmentKind) -> Self {
        let table = match kind {
            SegmentKind::Stream => None,
            SegmentKind::Table { key_length } => Some(Box::new(Table::new(key_length))),
        };
        Self {
            id,
            name,
            is_transient: false,
            is_sealed: false,
            is_sealed_durably: false,
            start_offset: Offset(0),
            length: Offset(0),
            durable_length: Offset(0),
            last_modified: 0,
            attributes: Attributes::default(),
            writers: BTreeMap::new(),
            index: Index::default(),
            table,
            parked: BTreeSet::new(),
        }
    }

    /// Memory of what clients made it hold, bytes, estimated. Not its index, which grows with the
    /// journal and is bounded by it.
    pub(crate) fn memory_bytes(&self) -> usize {
        let table = self.table.as_ref().map_or(0, |table| table.memory_bytes());
        SEGMENT_MEMORY_BYTES + self.name.as_str().len() + self.attributes.memory_bytes() + table
    }

    /// The durable length grows to `length`.
    pub(crate) fn commit_length(&mut self, length: Offset) {
        if canary::has(Canary::VisibleBeforeDurable) && length < self.durable_length {
            return;
        }
        assert!(length >= self.durable_length, "the durable length only grows");
        assert!(length <= self.length, "what becomes durable was accepted");
        self.durable_length = length;
    }
}

/// The segments of a container.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    slots: Vec<Option<Box<Segment>>>,
    free: Vec<u32>,
    by_name: BTreeMap<SegmentName, SegmentHandle>,
    by_id: BTreeMap<SegmentId, u32>,
    memory_bytes: usize,
}

impl Segments {
    /// Adds a segment.
    ///
    /// # Errors
    /// Corrupt, when its name or id is there already; live requests are checked before.
    pub(crate) fn insert(&mut self, segment: Segment) -> Result<SegmentHandle, Fault> {
        if self.by_name.contains_key(&segment.name) || self.by_id.contains_key(&segment.id) {
            return Err(corrupt(format!("segment {} is created twice", segment.name)));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("memory holds fewer segments")
        });
        let handle = SegmentHandle { slot, id: segment.id };
        self.by_name.insert(segment.name.clone(), handle);
        self.by_id.insert(segment.id, slot);
        self.memory_bytes += segment.memory_bytes();
        self.slots[slot as usize] = Some(Box::new(segment));
        Ok(handle)
    }

    pub(crate) fn remove(&mut self, handle: SegmentHandle) -> Option<Box<Segment>> {
        self.get(handle)?;
        let segment = self.slots[handle.slot as usize].take()?;
        self.free.push(handle.slot);
        self.by_name.remove(&segment.name);
        self.by_id.remove(&segment.id);
        self.resized(segment.memory_bytes(), 0);
        Some(segment)
    }

    /// Memory of all segments, bytes, estimated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// A segment that took `before` bytes takes `after`.
    pub(crate) fn resized(&mut self, before: usize, after: usize) {
        let others = self.memory_bytes.checked_sub(before);
        self.memory_bytes = others.expect("all segments are counted") + after;
    }

    pub(crate) fn find(&self, name: &SegmentName) -> Option<SegmentHandle> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn find_id(&self, id: SegmentId) -> Option<SegmentHandle> {
        self.by_id.get(&id).map(|&slot| SegmentHandle { slot, id })
    }

    pub(crate) fn get(&self, handle: SegmentHandle) -> Option<&Segment> {
        self.slots.get(handle.slot as usize)?.as_deref().filter(|held| held.id == handle.id)
    }

    pub(crate) fn get_mut(&mut self, handle: SegmentHandle) -> Option<&mut Segment> {
        self.slots.get_mut(handle.slot as usize)?.as_deref_mut().filter(|held| held.id == handle.id)
    }

    /// The segment of an id that the journal names.
    ///
    /// # Errors
    /// Corrupt, when there is none.
    pub(crate) fn expect_id(&self, id: SegmentId) -> Result<SegmentHandle, Fault> {
        self.find_id(id)
            .ok_or_else(|| corrupt(format!("operation on segment {} that is not there", id.0)))
    }

    /// All, by id.
    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &Segment> {
        self.by_id
            .values()
            .map(|&slot| self.slots[slot as usize].as_deref().expect("an id leads to a segment"))
    }

    /// Handles of all, by id.
    pub(crate) fn handles(&self) -> Vec<SegmentHandle> {
        self.by_id.iter().map(|(&id, &slot)| SegmentHandle { slot, id }).collect()
    }
}
