//! Truncation of the segments behind a load. Without it the journal would fill: there is nowhere
//! else for the data to go.
//!
//! A thread with connections of its own asks once per period how far each segment has been
//! acknowledged and truncates all but the last bytes. What is truncated is decided by [`Pacing`],
//! which reads no clock.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use thalweg_wire::{Text, TruncateSegment};

use crate::connection::Connection;
use crate::rig::Segments;

/// Settings of the truncation behind a load.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Truncation {
    /// Bytes kept of all segments together. Default 256 MiB. More than the server's cache makes
    /// sure that truncation itself never reads.
    pub keep_bytes: u64,
    /// Time between two rounds. Default one second.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub period: Duration,
}

impl Default for Truncation {
    fn default() -> Self {
        Self { keep_bytes: 256 << 20, period: Duration::from_secs(1) }
    }
}

/// What has been truncated, and what may be next.
pub(crate) struct Pacing {
    keep_each: i64,
    truncated: Vec<i64>,
}

impl Pacing {
    pub(crate) fn new(segments: usize, keep_bytes: u64) -> Self {
        let keep_each = i64::try_from(keep_bytes / segments.max(1) as u64).unwrap_or(i64::MAX);
        Self { keep_each, truncated: vec![0; segments] }
    }

    /// The offset to truncate a segment of this length at, if that frees anything worth a request:
    /// at least half of what is kept.
    pub(crate) fn next(&mut self, segment: usize, length: i64) -> Option<i64> {
        let offset = length.saturating_sub(self.keep_each);
        let done = &mut self.truncated[segment];
        if offset <= *done || offset - *done < self.keep_each / 2 {
            return None;
        }
        *done = offset;
        Some(offset)
    }
}

/// A running truncation; ends when dropped or stopped.
pub(crate) struct Truncator {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<u64>>>,
}

impl Truncator {
    /// Starts truncating. Connects before it returns, so that the load does not pay for it.
    pub(crate) fn start(segments: Arc<Segments>, settings: Truncation) -> anyhow::Result<Self> {
        let mut stores = Vec::new();
        for (address, own) in segments.by_address() {
            stores.push((Connection::connect(address)?, own));
        }
        let (stop, stopped) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("truncation".to_owned()).spawn(move || {
                let mut pacing = Pacing::new(segments.places.len(), settings.keep_bytes);
                let mut requests = 0;
                while stopped.recv_timeout(settings.period) == Err(RecvTimeoutError::Timeout) {
                    for (connection, own) in &mut stores {
                        requests += round(connection, own, &segments, &mut pacing)?;
                    }
                }
                Ok(requests)
            })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends it; gives the number of truncations done.
    ///
    /// # Errors
    /// What a truncation met; the load then ran without any from that moment.
    pub(crate) fn stop(mut self) -> anyhow::Result<u64> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("the truncating thread died"),
            None => Ok(0),
        }
    }
}

impl Drop for Truncator {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Only reached when the load failed; its error is the one to be told.
            let _ = thread.join();
        }
    }
}

fn round(
    connection: &mut Connection,
    own: &[usize],
    segments: &Segments,
    pacing: &mut Pacing,
) -> anyhow::Result<u64> {
    let due: Vec<(usize, i64)> = own
        .iter()
        .filter_map(|segment| Some((*segment, pacing.next(*segment, segments.length(*segment))?)))
        .collect();
    connection.request_all(&due, |request_id, (segment, offset)| TruncateSegment {
        request_id,
        segment: Text::from(segments.places[*segment].segment.as_str()),
        truncation_offset: *offset,
        delegation_token: Text::new(),
    })?;
    Ok(due.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that truncation keeps the last bytes, never goes back, never passes the acknowledged
    /// length, and waits until it is worth a request.
    #[test]
    fn truncation_follows_the_length_at_a_distance() {
        let mut pacing = Pacing::new(4, 4_000);
        assert_eq!(pacing.next(0, 0), None);
        assert_eq!(pacing.next(0, 1_000), None);
        assert_eq!(pacing.next(0, 1_499), None, "not worth it yet");
        assert_eq!(pacing.next(0, 1_500), Some(500));
        assert_eq!(pacing.next(0, 1_500), None, "nothing new");
        assert_eq!(pacing.next(0, 1_200), None, "lengths seen late do not go back");
        assert_eq!(pacing.next(1, 9_000), Some(8_000), "segments are apart");
        let mut last = 500;
        for length in (1_500..50_000).step_by(333) {
            if let Some(offset) = pacing.next(0, length) {
                assert!(offset > last);
                assert_eq!(offset, length - 1_000);
                last = offset;
            }
        }
        assert!(last >= 48_000, "{last}");
    }
}
