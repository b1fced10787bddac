//! Segments: creating, sealing, truncating, deleting, merging, their facts and their attributes.

use crate::layout::layout;
use crate::text::Text;

/// Value of an attribute that is not set.
pub const NULL_ATTRIBUTE_VALUE: i64 = i64::MIN;

layout! {
    /// Asks for the facts of a segment.
    GetStreamSegmentInfo {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The facts of a segment.
    StreamSegmentInfo {
        /// Of the request.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Always true from us; a missing segment is answered otherwise.
        exists: bool,
        /// No more appends.
        is_sealed: bool,
        /// Always false from us.
        is_deleted: bool,
        /// Milliseconds since the epoch.
        last_modified: i64,
        /// Length of the segment.
        write_offset: i64,
        /// First byte still readable.
        start_offset: i64 = 0,
    }
}

layout! {
    /// Creates a segment.
    CreateSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Rate at which the stream should scale, in the unit of the scale type.
        target_rate: i32,
        /// 0 none, 1 KiB per second, 2 events per second; other values are stored as they are.
        scale_type: i8,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Size of chunks in long-term storage; 0 or less for the default.
        rollover_size_bytes: i64 = 0,
    }
}

layout! {
    /// The segment exists now.
    SegmentCreated {
        /// Of the request.
        request_id: i64,
        /// Its name, generated when the request was for a transient segment.
        segment: Text,
    }
}

layout! {
    /// Creates a segment that lives as long as the connection.
    CreateTransientSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// Becomes part of the name.
        writer_id: u128,
        /// First part of the name.
        parent_segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// Seals a segment.
    SealSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The segment is sealed.
    SegmentSealed {
        /// Of the request.
        request_id: i64,
        /// The segment.
        segment: Text,
    }
}

layout! {
    /// Deletes a segment.
    DeleteSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The segment is gone.
    SegmentDeleted {
        /// Of the request.
        request_id: i64,
        /// The segment.
        segment: Text,
    }
}

layout! {
    /// Changes the scale policy of a segment.
    UpdateSegmentPolicy {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Rate at which the stream should scale, in the unit of the scale type.
        target_rate: i32,
        /// 0 none, 1 KiB per second, 2 events per second; other values are stored as they are.
        scale_type: i8,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The policy is changed.
    SegmentPolicyUpdated {
        /// Of the request.
        request_id: i64,
        /// The segment.
        segment: Text,
    }
}

layout! {
    /// Asks for one attribute.
    GetSegmentAttribute {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// The attribute.
        attribute_id: u128,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The value of an attribute.
    SegmentAttribute {
        /// Of the request.
        request_id: i64,
        /// [`NULL_ATTRIBUTE_VALUE`] when not set.
        value: i64,
    }
}

layout! {
    /// Compares and sets one attribute.
    UpdateSegmentAttribute {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// The attribute.
        attribute_id: u128,
        /// [`NULL_ATTRIBUTE_VALUE`] unsets.
        new_value: i64,
        /// What the value must be; [`NULL_ATTRIBUTE_VALUE`] for unset.
        expected_value: i64,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// Result of a compare-and-set.
    SegmentAttributeUpdated {
        /// Of the request.
        request_id: i64,
        /// False when the value was another and nothing was changed.
        success: bool,
    }
}

layout! {
    /// Drops the front of a segment.
    TruncateSegment {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// The new start offset.
        truncation_offset: i64,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// The front is dropped.
    SegmentTruncated {
        /// Of the request.
        request_id: i64,
        /// The segment.
        segment: Text,
    }
}

layout! {
    /// Asks for an event boundary at or behind an offset. Only J sends it.
    LocateOffset {
        /// Echoed by the reply.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Where to look from.
        target_offset: i64,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// An event boundary. Never sent to R, which does not know it.
    OffsetLocated {
        /// Of the request.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// The boundary.
        offset: i64,
    }
}

layout! {
    /// A condition and change of one attribute, inside [`MergeSegments`].
    AttributeUpdate {
        /// The attribute.
        attribute_id: u128,
        /// 0 set if unset, 1 replace, 2 replace if greater, 3 accumulate, 4 replace if equal;
        /// others are refused later.
        update_type: i8,
        /// The value given.
        new_value: i64,
        /// What type 4 compares with.
        old_value: i64,
    }
}

layout! {
    /// Appends a whole segment to another and removes it.
    MergeSegments {
        /// Echoed by the reply.
        request_id: i64,
        /// Segment that grows.
        target: Text,
        /// Segment that ends.
        source: Text,
        /// Empty when authorization is off.
        delegation_token: Text,
        /// Applied to the target with the merge, or nothing is done.
        attribute_updates: Vec<AttributeUpdate> = Vec::new(),
    }
}

layout! {
    /// The source is part of the target.
    SegmentsMerged {
        /// Of the request.
        request_id: i64,
        /// Segment that grows.
        target: Text,
        /// Segment that ended.
        source: Text,
        /// Length of the target after the merge.
        new_target_write_offset: i64 = -1,
    }
}

layout! {
    /// Merges several segments into one, in order.
    MergeSegmentsBatch {
        /// Echoed by the reply.
        request_id: i64,
        /// Segment that grows.
        target: Text,
        /// Segments that end.
        sources: Vec<Text>,
        /// Empty when authorization is off.
        delegation_token: Text,
    }
}

layout! {
    /// One merge of a batch.
    MergedSource {
        /// Segment that ended.
        source: Text,
        /// Length of the target after this merge.
        new_target_write_offset: i64,
    }
}

layout! {
    /// The batch is merged. Written in the layout of J; R never asks.
    SegmentsBatchMerged {
        /// Of the request.
        request_id: i64,
        /// Segment that grows.
        target: Text,
        /// One for each source, in the order of the request.
        merged: Vec<MergedSource>,
    }
}
