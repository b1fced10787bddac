//! From a request to the segment that decides its container. An exhaustive match, so that a new
//! request cannot be routed by accident.

use thalweg_core::id::{ContainerId, SegmentName};
use thalweg_core::request::Request;

use crate::placement::Placement;

/// The segment whose container serves the request; `None` for an append, whose session knows it.
pub fn segment(request: &Request) -> Option<&SegmentName> {
    match request {
        Request::Append(_) => None,
        Request::Create(create) => Some(&create.segment),
        Request::CreateTransient { parent, .. } => Some(parent),
        Request::Merge { target, .. } | Request::MergeBatch { target, .. } => Some(target),
        Request::SetupAppend { segment, .. }
        | Request::Read { segment, .. }
        | Request::Info { segment }
        | Request::Seal { segment }
        | Request::Truncate { segment, .. }
        | Request::Delete { segment, .. }
        | Request::UpdatePolicy { segment, .. }
        | Request::Attribute { segment, .. }
        | Request::UpdateAttribute { segment, .. }
        | Request::TableInfo { segment }
        | Request::TableUpdate { segment, .. }
        | Request::TableRemove { segment, .. }
        | Request::TableGet { segment, .. }
        | Request::TableIterate { segment, .. }
        | Request::TableDelta { segment, .. } => Some(segment),
    }
}

/// The container that serves the request; `None` for an append.
pub fn container(request: &Request, placement: Placement) -> Option<ContainerId> {
    segment(request).map(|segment| placement.container(segment.as_str()))
}
