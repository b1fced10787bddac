//! Counters of transactions: given out one by one, made durable by the block.
//!
//! A block is reserved by one conditional write before the first of it is used; what is left of a
//! block at a restart is never used. So no counter is given out twice, whatever happens.

use tokio::sync::Mutex;

use crate::error::ControlError;
use crate::layout;
use crate::record::{self, StoredCount};
use crate::segments::SegmentStore;
use crate::tables::{Tables, Version};

/// Counters reserved by one write.
const BLOCK: u64 = 1 << 16;

/// Counters reserved and not used.
#[derive(Default)]
pub(crate) struct Reserve {
    rest: Mutex<std::ops::Range<u64>>,
}

impl Reserve {
    /// A counter never given out before; at most 2^63 − 1.
    pub(crate) async fn next<S: SegmentStore>(
        &self,
        tables: &Tables<S>,
    ) -> Result<u64, ControlError> {
        let mut rest = self.rest.lock().await;
        if rest.is_empty() {
            let found = tables.get(layout::COUNTS, layout::TRANSACTION_COUNT).await?;
            let (first, version) = match found {
                Some(found) => (record::decode::<StoredCount>(&found.value)?.next, found.version),
                None => (0, Version::ABSENT),
            };
            let next = first + BLOCK;
            let value = record::encode(&StoredCount { next });
            tables.put(layout::COUNTS, layout::TRANSACTION_COUNT, value, version).await?;
            *rest = first..next;
        }
        Ok(rest.next().expect("a block was just reserved"))
    }
}
