//! Requests about one segment as a whole: create, seal, truncate, delete, its properties and
//! attributes.

use crate::apply::Applied;
use crate::container::{Container, No, Shared, no_such_segment, segment_sealed, signed};
use crate::id::{AttributeId, SegmentId, SegmentName, Token, WriterId};
use crate::operation::{AttributeValue, CreateOperation, Operation};
use crate::pending::Step;
use crate::position::Offset;
use crate::request::{
    AttributeUpdate, AttributeUpdateKind, CloseReason, Create, Peer, Refusal, Reply, SegmentKind,
};
use crate::segment::SegmentHandle;
use crate::time::Now;

/// Transient segments of a connection at which those that are gone are forgotten.
const FORGET_TRANSIENTS_AT: usize = 64;

impl Container {
    pub(crate) fn info(&self, name: &SegmentName) -> Result<Reply, No> {
        let handle = self.find(name)?;
        let segment = self.segments.get(handle).expect("it was found by name");
        Ok(Reply::Info {
            segment: name.clone(),
            is_sealed: segment.is_sealed,
            last_modified: segment.last_modified,
            length: segment.table.as_ref().map_or(segment.length, |table| table.length()),
            start_offset: segment.start_offset,
        })
    }

    pub(crate) fn create(
        &mut self,
        shared: &mut Shared,
        now: Now,
        create: Create,
    ) -> Result<Reply, No> {
        let name = create.segment;
        if name.as_str().is_empty() {
            return Err(No::Close(CloseReason::Protocol));
        }
        if self.segments.find(&name).is_some() {
            return Err(Refusal::SegmentExists { segment: name }.into());
        }
        let attributes = vec![
            (AttributeId::SCALE_POLICY_TYPE, i64::from(create.scale_type)),
            (AttributeId::SCALE_POLICY_RATE, i64::from(create.target_rate)),
            (AttributeId::ROLLOVER_SIZE, create.rollover_bytes.max(0)),
        ];
        self.make(shared, now, name.clone(), create.kind, attributes, None);
        Ok(Reply::Created { segment: name })
    }

    /// Creates a segment under a name that no other has: epoch and sequence number are part of it.
    pub(crate) fn create_transient(
        &mut self,
        shared: &mut Shared,
        now: Now,
        token: Token,
        parent: &SegmentName,
        writer: WriterId,
    ) -> Result<Reply, No> {
        let (epoch, sequence_number) = (self.epoch.0, self.sequence_number.next().0);
        let unique = (u128::from(epoch) << 64) | u128::from(sequence_number);
        let name = format!("{parent}#transient.{:032x}.{unique:032x}", writer.0);
        if name.len() > usize::from(u16::MAX) {
            return Err(No::Close(CloseReason::Protocol));
        }
        let name = SegmentName::new(name);
        if self.segments.find(&name).is_some() {
            return Err(Refusal::SegmentExists { segment: name }.into());
        }
        let owner = Some(Peer::from(token));
        self.make(shared, now, name.clone(), SegmentKind::Stream, Vec::new(), owner);
        Ok(Reply::Created { segment: name })
    }

    fn make(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: SegmentName,
        kind: SegmentKind,
        attributes: Vec<AttributeValue>,
        owner: Option<Peer>,
    ) {
        let operation = Operation::Create(CreateOperation {
            segment: SegmentId(self.next_segment),
            name,
            kind,
            is_transient: owner.is_some(),
            created: now.wall.0,
            attributes,
        });
        let Applied::Created(handle) = self.change(shared, now, None, &operation) else {
            unreachable!("a creation creates")
        };
        if let Some(peer) = owner {
            let made = self.transients.entry(peer).or_default();
            made.push(handle);
            // Most are merged soon: a long connection forgets them now and then.
            if made.len() >= FORGET_TRANSIENTS_AT && made.len().is_power_of_two() {
                let segments = &self.segments;
                made.retain(|handle| segments.get(*handle).is_some());
            }
        }
    }

    pub(crate) fn seal(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
    ) -> Result<Reply, No> {
        let handle = self.find(name)?;
        self.seal_segment(shared, now, handle);
        Ok(Reply::Sealed { segment: name.clone() })
    }

    /// Seals a segment, unless it is sealed; its readers are told when that is durable.
    pub(crate) fn seal_segment(&mut self, shared: &mut Shared, now: Now, handle: SegmentHandle) {
        let segment = self.segments.get(handle).expect("the caller found it");
        if segment.is_sealed {
            return;
        }
        let operation = Operation::Seal { segment: handle.id };
        self.change(shared, now, Some(handle), &operation);
        self.defer(Step::Seal(handle));
    }

    pub(crate) fn truncate(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
        offset: Offset,
    ) -> Result<Reply, No> {
        let Some(handle) = self.segments.find(name) else {
            return Err(no_such_segment(name, Some(offset)));
        };
        let segment = self.segments.get(handle).expect("it was found by name");
        if segment.table.is_some() {
            return Err(Refusal::Unsupported { operation: "truncateSegment" }.into());
        }
        let start_offset = segment.start_offset;
        if offset < start_offset || offset > segment.length {
            let (segment, offset) = (name.clone(), signed(offset));
            return Err(Refusal::SegmentTruncated { segment, start_offset, offset }.into());
        }
        if offset > start_offset {
            let operation = Operation::Truncate { segment: handle.id, offset };
            self.change(shared, now, Some(handle), &operation);
            self.defer(Step::Truncate(handle, offset));
        }
        Ok(Reply::Truncated { segment: name.clone() })
    }

    pub(crate) fn delete(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
        kind: SegmentKind,
        must_be_empty: bool,
    ) -> Result<Reply, No> {
        let handle = self.find(name)?;
        let segment = self.segments.get(handle).expect("it was found by name");
        if kind != SegmentKind::Stream {
            let Some(table) = &segment.table else { return Err(not_a_table(name)) };
            if must_be_empty && table.key_length() > 0 {
                return Err(Refusal::Unsupported { operation: "deleteTableSegment" }.into());
            }
            if must_be_empty && !table.is_empty() {
                return Err(Refusal::TableNotEmpty { segment: name.clone() }.into());
            }
        }
        self.delete_segment(shared, now, handle);
        Ok(Reply::Deleted { segment: name.clone() })
    }

    fn delete_segment(&mut self, shared: &mut Shared, now: Now, handle: SegmentHandle) {
        let parked = self.dismiss_parked(shared, handle);
        self.change(shared, now, None, &Operation::Delete { segment: handle.id });
        self.answer_dismissed(parked, None);
    }

    /// Deletes the transient segments of a connection that is gone, unless they were merged.
    pub(crate) fn delete_transients_of(&mut self, shared: &mut Shared, now: Now, peer: Peer) {
        for handle in self.transients.remove(&peer).unwrap_or_default() {
            if self.segments.get(handle).is_some() {
                self.delete_segment(shared, now, handle);
            }
        }
    }

    /// Deletes all transient segments: after a restart their connections are gone.
    pub(crate) fn delete_transients(&mut self, shared: &mut Shared, now: Now) {
        for handle in self.segments.handles() {
            if self.segments.get(handle).is_some_and(|segment| segment.is_transient) {
                self.delete_segment(shared, now, handle);
            }
        }
    }

    pub(crate) fn update_policy(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
        scale_type: i8,
        target_rate: i32,
    ) -> Result<Reply, No> {
        let handle = self.find_unsealed(name)?;
        let attributes = vec![
            (AttributeId::SCALE_POLICY_TYPE, i64::from(scale_type)),
            (AttributeId::SCALE_POLICY_RATE, i64::from(target_rate)),
        ];
        let operation = Operation::UpdateAttributes { segment: handle.id, attributes };
        self.change(shared, now, Some(handle), &operation);
        Ok(Reply::PolicyUpdated { segment: name.clone() })
    }

    pub(crate) fn attribute(
        &self,
        name: &SegmentName,
        attribute: AttributeId,
    ) -> Result<Reply, No> {
        let handle = self.find(name)?;
        let segment = self.segments.get(handle).expect("it was found by name");
        Ok(Reply::Attribute { value: segment.attributes.value(attribute) })
    }

    pub(crate) fn update_attribute(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
        attribute: AttributeId,
        value: i64,
        expected: i64,
    ) -> Result<Reply, No> {
        let handle = self.find_unsealed(name)?;
        let segment = self.segments.get(handle).expect("it was found by name");
        let kind = AttributeUpdateKind::ReplaceIfEqual;
        let update = AttributeUpdate { attribute, kind, value, expected };
        let Some(attributes) = segment.attributes.check(&[update]) else {
            return Ok(Reply::AttributeUpdated { is_updated: false });
        };
        let operation = Operation::UpdateAttributes { segment: handle.id, attributes };
        self.change(shared, now, Some(handle), &operation);
        Ok(Reply::AttributeUpdated { is_updated: true })
    }

    /// The segment of this name, if it can be changed.
    pub(crate) fn find_unsealed(&self, name: &SegmentName) -> Result<SegmentHandle, No> {
        let handle = self.find(name)?;
        let segment = self.segments.get(handle).expect("it was found by name");
        if segment.is_sealed { Err(segment_sealed(name)) } else { Ok(handle) }
    }
}

/// The refusal of a table request to a segment of another kind.
pub(crate) fn not_a_table(name: &SegmentName) -> No {
    let message = "not a table segment".to_owned();
    Refusal::IllegalArgument { segment: name.clone(), message }.into()
}
