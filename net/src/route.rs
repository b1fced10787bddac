//! From a request to its container: the segment it is about decides.

use thalweg_core::id::{ContainerId, SegmentName};
use thalweg_core::request::Request;

use crate::placement::Placement;

/// The container that serves the request; `None` for an append, whose session knows it.
pub(crate) fn container(request: &Request, placement: Placement) -> Option<ContainerId> {
    request.segment().map(|segment| placement.container(segment.as_str()))
}

/// A source of a merge that does not live with its target. Where the target lives it is unknown,
/// which must not be taken for missing, or for merged before.
pub(crate) fn stray_source(request: &Request, placement: Placement) -> Option<&SegmentName> {
    let (target, sources) = match request {
        Request::Merge { target, source, .. } => (target, std::slice::from_ref(source)),
        Request::MergeBatch { target, sources } => (target, &sources[..]),
        _ => return None,
    };
    let home = placement.container(target.as_str());
    sources.iter().find(|source| placement.container(source.as_str()) != home)
}
