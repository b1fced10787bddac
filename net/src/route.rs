//! From a request to its container: the segment it is about decides.

use thalweg_core::id::ContainerId;
use thalweg_core::request::Request;

use crate::placement::Placement;

/// The container that serves the request; `None` for an append, whose session knows it.
pub(crate) fn container(request: &Request, placement: Placement) -> Option<ContainerId> {
    request.segment().map(|segment| placement.container(segment.as_str()))
}
