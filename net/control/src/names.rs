//! Names of scopes, streams and segments: which are allowed, and how the strings are put together.
//! Pure.

use std::fmt;
use std::sync::Arc;

use crate::id::{StreamSegmentId, TransactionId};

/// The scope that holds what is the system's own.
pub(crate) const SYSTEM_SCOPE: &str = "_system";

/// Longest name of a scope or stream, in bytes (all are ASCII).
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Most tags of a stream.
pub(crate) const TAGS_MAX: usize = 127;

/// Longest tag, in bytes.
pub(crate) const TAG_BYTES_MAX: usize = 255;

/// Whether `name` may name a scope or stream: letters, digits, `.` and `-`, at least one of them,
/// behind at most one leading `_`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let body = name.strip_prefix('_').unwrap_or(name);
    name.len() <= NAME_BYTES_MAX
        && !body.is_empty()
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

/// A stream with its scope. Cheap to clone. Not necessarily valid: an invalid one just does not
/// exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamPath {
    scope: Arc<str>,
    stream: Arc<str>,
}

impl StreamPath {
    /// The path of its parts.
    pub(crate) fn new(scope: &str, stream: &str) -> Self {
        Self { scope: scope.into(), stream: stream.into() }
    }

    /// Reads `scope/stream`.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (scope, stream) = path.split_once('/')?;
        Some(Self::new(scope, stream))
    }

    /// The scope's name.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// The stream's name within the scope.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Name of a segment of this stream.
    pub(crate) fn segment(&self, id: StreamSegmentId) -> String {
        format!("{self}/{id}")
    }

    /// Name of the segment that holds what a transaction writes for the segment `id`.
    pub(crate) fn transaction_segment(
        &self,
        id: StreamSegmentId,
        transaction: TransactionId,
    ) -> String {
        format!("{self}/{id}#transaction.{transaction}")
    }
}

/// `scope/stream`.
impl fmt::Display for StreamPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.scope, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SegmentNumber, StreamEpoch};

    /// Shows which names are taken and which are not.
    #[test]
    fn names_follow_the_rule() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for name in ["a", "A-z.0", ".", "-", "_x", "_RGgroup", "_MARKstream", &long] {
            assert!(is_valid_name(name), "{name}");
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "_", "__x", "a_b", "a/b", "a b", "ü", "a\0", &too_long] {
            assert!(!is_valid_name(name), "{name}");
        }
    }

    /// Shows that segment names are spelt as clients spell them.
    #[test]
    fn segment_names_are_spelt_as_clients_do() {
        let path = StreamPath::new("scope", "stream");
        let id = StreamSegmentId::new(StreamEpoch(3), SegmentNumber(5));
        assert_eq!(path.segment(id), "scope/stream/5.#epoch.3");
        assert_eq!(
            path.transaction_segment(id, TransactionId::new(StreamEpoch(1), 42)),
            "scope/stream/5.#epoch.3#transaction.0000000100000000000000000000002a"
        );
        assert_eq!(StreamPath::parse(&path.to_string()), Some(path));
    }
}
