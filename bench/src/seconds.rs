//! Durations in records are seconds, as numbers.

use std::time::Duration;

use serde::Serializer;

/// For `#[serde(serialize_with)]`.
pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
