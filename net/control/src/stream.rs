//! A stream as the control plane knows it, and the state machine of its changes. Pure.
//!
//! One record is the atom of every change: a change is begun by writing the record with the change
//! in it, carried out, and finished by writing the record that results. At most one change is under
//! way. A record with a change in it tells all that is needed to carry it out again.

use crate::cut::{self, CutError, StreamCut};
use crate::epoch::History;
use crate::id::{SegmentNumber, StreamEpoch, StreamSegmentId};
use crate::names::{TAG_BYTES_MAX, TAGS_MAX};
use crate::proto;

/// Most segments that a stream is created with; more than clients ever open.
pub(crate) const SEGMENTS_MAX: i32 = 10_000;

/// A change under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Segments are being created; the stream does not show yet.
    Create,
    /// The front is being dropped.
    Truncate(StreamCut),
    /// Transactions are being ended and segments sealed.
    Seal,
    /// Segments are being deleted; the stream does not show any more.
    Delete,
}

/// All that is stored of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamRecord {
    /// As the client gave it, without the stream's name.
    pub(crate) config: proto::StreamConfig,
    /// Its epochs.
    pub(crate) history: History,
    /// Where it was truncated last.
    pub(crate) head: Option<StreamCut>,
    /// Takes no more events.
    pub(crate) is_sealed: bool,
    /// What is being done to it.
    pub(crate) change: Option<Change>,
    /// When it was created, in milliseconds since 1970.
    pub(crate) created_ms: i64,
}

/// Why a change is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamRefusal {
    /// The stream is sealed.
    #[error("the stream is sealed")]
    Sealed,
    /// The stream is not sealed.
    #[error("the stream is not sealed")]
    NotSealed,
    /// It is so already; nothing is to be done.
    #[error("nothing to be done")]
    Done,
    /// The cut is none of this stream, or lies before its head.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// An offset of the cut is negative.
    #[error("segment {0} is cut at a negative offset")]
    NegativeOffset(StreamSegmentId),
    /// The number of segments would change, which needs scaling.
    #[error("changing the number of segments needs scaling, which is not there yet")]
    NeedsScaling,
}

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// No scaling policy, or one with no segment at all.
    #[error("a stream needs a scaling policy with at least one segment")]
    NoSegments,
    /// A number in it has no meaning.
    #[error("the configuration has {0}")]
    Meaningless(&'static str),
}

/// Checks a configuration and puts it into the form in which it is stored: tags sorted and once
/// each, no retention policy of no type, no name.
///
/// # Errors
/// [`ConfigError`].
pub(crate) fn normalize(
    mut config: proto::StreamConfig,
) -> Result<proto::StreamConfig, ConfigError> {
    use ConfigError::Meaningless;
    let scaling = config.scaling_policy.as_ref().ok_or(ConfigError::NoSegments)?;
    if scaling.min_num_segments <= 0 {
        return Err(ConfigError::NoSegments);
    }
    if scaling.min_num_segments > SEGMENTS_MAX {
        return Err(Meaningless("more than 10000 segments"));
    }
    if proto::scaling_policy::ScalingPolicyType::try_from(scaling.scale_type).is_err() {
        return Err(Meaningless("an unknown scale type"));
    }
    if config.rollover_size_bytes < 0 {
        return Err(Meaningless("a negative rollover size"));
    }
    if let Some(retention) = &config.retention_policy {
        use proto::retention_policy::RetentionPolicyType;
        match RetentionPolicyType::try_from(retention.retention_type) {
            Ok(RetentionPolicyType::Unknown) => config.retention_policy = None,
            Ok(_) => {}
            Err(_) => return Err(Meaningless("an unknown retention type")),
        }
    }
    let mut tags = config.tags.take().unwrap_or_default().tag;
    tags.sort();
    tags.dedup();
    if tags.len() > TAGS_MAX {
        return Err(Meaningless("more than 127 tags"));
    }
    if tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX) {
        return Err(Meaningless("a tag that is empty or over 255 bytes"));
    }
    config.tags = (!tags.is_empty()).then_some(proto::Tags { tag: tags });
    config.stream_info = None;
    Ok(config)
}

impl StreamRecord {
    /// A stream about to be created, its configuration normalized. Segments are numbered from
    /// `first`.
    pub(crate) fn creating(config: proto::StreamConfig, first: SegmentNumber, now_ms: i64) -> Self {
        let count = config.scaling_policy.as_ref().map_or(1, |policy| policy.min_num_segments);
        let count = u32::try_from(count.max(1)).unwrap_or(1);
        Self {
            config,
            history: History::begin(count, first, now_ms),
            head: None,
            is_sealed: false,
            change: Some(Change::Create),
            created_ms: now_ms,
        }
    }

    /// Whether clients see the stream.
    pub(crate) fn is_visible(&self) -> bool {
        !matches!(self.change, Some(Change::Create | Change::Delete))
    }

    /// Whether transactions may be made.
    pub(crate) fn takes_transactions(&self) -> bool {
        !self.is_sealed
            && !matches!(self.change, Some(Change::Create | Change::Seal | Change::Delete))
    }

    /// Where the stream begins: one offset per segment.
    pub(crate) fn head(&self) -> StreamCut {
        self.head.clone().unwrap_or_else(|| cut::origin(&self.history))
    }

    /// Begins to seal.
    ///
    /// # Errors
    /// [`StreamRefusal::Done`] when sealed before.
    pub(crate) fn seal(&self) -> Result<Self, StreamRefusal> {
        if self.is_sealed {
            return Err(StreamRefusal::Done);
        }
        Ok(self.with(Change::Seal))
    }

    /// Begins to truncate.
    ///
    /// # Errors
    /// [`StreamRefusal::Sealed`], and whatever is wrong with the cut.
    pub(crate) fn truncate(&self, cut: StreamCut) -> Result<Self, StreamRefusal> {
        if self.is_sealed {
            return Err(StreamRefusal::Sealed);
        }
        cut::check(&self.history, &cut)?;
        if let Some((id, _)) = cut.iter().find(|(_, offset)| **offset < 0) {
            return Err(StreamRefusal::NegativeOffset(*id));
        }
        let head = self.head();
        if head == cut {
            return Err(StreamRefusal::Done);
        }
        cut::check_order(&self.history, &head, &cut)?;
        Ok(self.with(Change::Truncate(cut)))
    }

    /// Begins to delete.
    ///
    /// # Errors
    /// [`StreamRefusal::NotSealed`].
    pub(crate) fn delete(&self) -> Result<Self, StreamRefusal> {
        if !self.is_sealed {
            return Err(StreamRefusal::NotSealed);
        }
        Ok(self.with(Change::Delete))
    }

    /// The stream with another configuration, normalized. Is done at once.
    ///
    /// # Errors
    /// [`StreamRefusal::Sealed`] and [`StreamRefusal::NeedsScaling`].
    pub(crate) fn update(&self, config: proto::StreamConfig) -> Result<Self, StreamRefusal> {
        if self.is_sealed {
            return Err(StreamRefusal::Sealed);
        }
        let policy = config.scaling_policy.unwrap_or_default();
        let present = i32::try_from(self.history.active().segments.len()).unwrap_or(i32::MAX);
        let is_fixed = policy.scale_type
            == i32::from(proto::scaling_policy::ScalingPolicyType::FixedNumSegments);
        let wanted = policy.min_num_segments;
        if wanted > present || (is_fixed && wanted != present) {
            return Err(StreamRefusal::NeedsScaling);
        }
        Ok(Self { config, ..self.clone() })
    }

    /// The record after the change under way is carried out; `None` when the stream is gone then.
    pub(crate) fn finished(&self) -> Option<Self> {
        let mut record = Self { change: None, ..self.clone() };
        match self.change.clone() {
            None | Some(Change::Create) => {}
            Some(Change::Truncate(cut)) => record.head = Some(cut),
            Some(Change::Seal) => record.is_sealed = true,
            Some(Change::Delete) => return None,
        }
        Some(record)
    }

    /// The segments that a transaction of `epoch` is merged into, each with the id under which the
    /// transaction knows it. `None` when that epoch has been replaced.
    pub(crate) fn merge_targets(
        &self,
        epoch: StreamEpoch,
    ) -> Option<Vec<(StreamSegmentId, StreamSegmentId)>> {
        let active = self.history.active();
        (active.reference == epoch)
            .then(|| active.segments.iter().map(|it| (it.id, it.id.generalized(epoch))).collect())
    }

    fn with(&self, change: Change) -> Self {
        assert!(self.change.is_none(), "one change at a time");
        Self { change: Some(change), ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
