//! The requests to one segment store, with types: what goes in is checked by the compiler, what
//! comes out is the one reply that fits or an error.

use bytes::Bytes;
use thalweg_wire::{
    AttributeUpdate, Command, CreateSegment, CreateTableSegment, CreateTransientSegment,
    DeleteSegment, DeleteTableSegment, GetSegmentAttribute, GetStreamSegmentInfo,
    GetTableSegmentInfo, IterationArguments, KEY_NOT_EXISTS, MergeSegments, MergeSegmentsBatch,
    ReadSegment, ReadTable, ReadTableEntries, ReadTableEntriesDelta, ReadTableKeys,
    RemoveTableKeys, SealSegment, SegmentRead, StreamSegmentInfo, TableEntry, TableKey,
    TableSegmentInfo, Text, TruncateSegment, UpdateSegmentAttribute, UpdateSegmentPolicy,
    UpdateTableEntries,
};

use crate::append::AppendSession;
use crate::{Address, ClientError, Pool, Refusal};

/// One segment store, through a pool. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    address: Address,
}

/// A page of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePage {
    /// What was found, each key with its version. None of them ends an iteration.
    pub entries: Vec<TableEntry>,
    /// Asks for the page after this one.
    pub continuation: Bytes,
}

/// Changes of a table since a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDelta {
    /// Each changed key once, with its latest value and version.
    pub entries: Vec<TableEntry>,
    /// The history before is gone: what was read before must be forgotten.
    pub should_clear: bool,
    /// There is nothing behind `position`.
    pub has_reached_end: bool,
    /// Where to go on.
    pub position: i64,
}

/// A reply of the wrong kind becomes an error, a fitting one what `$take` makes of it.
macro_rules! expect {
    ($reply:expr, $name:ident($it:ident) => $take:expr) => {
        match $reply {
            Command::$name($it) => Ok($take),
            other => Err(ClientError::Internal(other.name())),
        }
    };
}

fn none() -> Text {
    Text::new()
}

impl Store {
    /// The store at `host` and `port`, with a pool of its own and default time-outs. Connects now,
    /// so that an unreachable store is noticed here.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when nobody who speaks the protocol answers.
    pub async fn connect(host: &str, port: u16) -> Result<Self, ClientError> {
        let store = Self::of(Pool::default(), Address::new(host, port));
        store.pool.warm(&store.address).await?;
        Ok(store)
    }

    /// The store at `address`, through `pool`. Connects when first asked.
    pub fn of(pool: Pool, address: Address) -> Self {
        Self { pool, address }
    }

    /// Where this store is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Any request, with any reply; see [`Pool::request`].
    pub async fn request(&self, command: impl Into<Command>) -> Result<Command, ClientError> {
        self.pool.request(&self.address, command).await
    }

    /// Creates a segment. `scale_type` and `target_rate` are kept with it, as protocol numbers.
    pub async fn create_segment(
        &self,
        segment: &str,
        scale_type: i8,
        target_rate: i32,
        rollover_size_bytes: i64,
    ) -> Result<(), ClientError> {
        let request = CreateSegment {
            request_id: 0,
            segment: segment.into(),
            target_rate,
            scale_type,
            delegation_token: none(),
            rollover_size_bytes,
        };
        expect!(self.request(request).await?, SegmentCreated(_it) => ())
    }

    /// Creates a segment that lives as long as the pool's connection; gives its name.
    pub async fn create_transient(
        &self,
        parent: &str,
        writer_id: u128,
    ) -> Result<String, ClientError> {
        let request = CreateTransientSegment {
            request_id: 0,
            writer_id,
            parent_segment: parent.into(),
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentCreated(it) => it.segment.to_string())
    }

    /// Seals a segment; sealing a sealed one succeeds.
    pub async fn seal_segment(&self, segment: &str) -> Result<(), ClientError> {
        let request =
            SealSegment { request_id: 0, segment: segment.into(), delegation_token: none() };
        match self.request(request).await {
            // Other stores refuse the second time; the outcome is the same.
            Err(ClientError::Refused(Refusal::SegmentSealed { .. })) => Ok(()),
            reply => expect!(reply?, SegmentSealed(_it) => ()),
        }
    }

    /// Drops the bytes before `offset`.
    pub async fn truncate_segment(&self, segment: &str, offset: i64) -> Result<(), ClientError> {
        let request = TruncateSegment {
            request_id: 0,
            segment: segment.into(),
            truncation_offset: offset,
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentTruncated(_it) => ())
    }

    /// Deletes a segment.
    pub async fn delete_segment(&self, segment: &str) -> Result<(), ClientError> {
        let request =
            DeleteSegment { request_id: 0, segment: segment.into(), delegation_token: none() };
        expect!(self.request(request).await?, SegmentDeleted(_it) => ())
    }

    /// The facts of a segment.
    pub async fn segment_info(&self, segment: &str) -> Result<StreamSegmentInfo, ClientError> {
        let request = GetStreamSegmentInfo {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
        };
        expect!(self.request(request).await?, StreamSegmentInfo(it) => it)
    }

    /// Changes scale type and rate kept with a segment.
    pub async fn update_policy(
        &self,
        segment: &str,
        scale_type: i8,
        target_rate: i32,
    ) -> Result<(), ClientError> {
        let request = UpdateSegmentPolicy {
            request_id: 0,
            segment: segment.into(),
            target_rate,
            scale_type,
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentPolicyUpdated(_it) => ())
    }

    /// The value of an attribute, `i64::MIN` when not set.
    pub async fn attribute(&self, segment: &str, attribute_id: u128) -> Result<i64, ClientError> {
        let request = GetSegmentAttribute {
            request_id: 0,
            segment: segment.into(),
            attribute_id,
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentAttribute(it) => it.value)
    }

    /// Sets an attribute that has the value `expected` (`i64::MIN` for not set); false when it has
    /// another one.
    pub async fn update_attribute(
        &self,
        segment: &str,
        attribute_id: u128,
        expected: i64,
        value: i64,
    ) -> Result<bool, ClientError> {
        let request = UpdateSegmentAttribute {
            request_id: 0,
            segment: segment.into(),
            attribute_id,
            new_value: value,
            expected_value: expected,
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentAttributeUpdated(it) => it.success)
    }

    /// Appends `source` to `target` and removes it; gives the length of the target after it. A
    /// failed attribute condition is [`Refusal::ConditionFailed`].
    pub async fn merge_segments(
        &self,
        target: &str,
        source: &str,
        attribute_updates: Vec<AttributeUpdate>,
    ) -> Result<i64, ClientError> {
        let request = MergeSegments {
            request_id: 0,
            target: target.into(),
            source: source.into(),
            delegation_token: none(),
            attribute_updates,
        };
        match self.request(request).await? {
            Command::SegmentAttributeUpdated(_) => {
                Err(ClientError::Refused(Refusal::ConditionFailed))
            }
            reply => expect!(reply, SegmentsMerged(it) => it.new_target_write_offset),
        }
    }

    /// Appends each source to `target` and removes it, in order; a source that does not exist
    /// counts as merged before. Gives the length of the target after each.
    pub async fn merge_batch(
        &self,
        target: &str,
        sources: &[String],
    ) -> Result<Vec<i64>, ClientError> {
        let request = MergeSegmentsBatch {
            request_id: 0,
            target: target.into(),
            sources: sources.iter().map(|source| source.as_str().into()).collect(),
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentsBatchMerged(it) => {
            it.merged.iter().map(|merged| merged.new_target_write_offset).collect()
        })
    }

    /// Reads at most `length` bytes from `offset`. At the tail the reply comes with the next data,
    /// or not before the time-out.
    pub async fn read(
        &self,
        segment: &str,
        offset: i64,
        length: i32,
    ) -> Result<SegmentRead, ClientError> {
        let request = ReadSegment {
            segment: segment.into(),
            offset,
            suggested_length: length,
            delegation_token: none(),
            request_id: 0,
        };
        expect!(self.request(request).await?, SegmentRead(it) => it)
    }

    /// Opens an append session of a writer, on a connection of its own.
    pub async fn append_session(
        &self,
        segment: &str,
        writer_id: u128,
    ) -> Result<AppendSession, ClientError> {
        AppendSession::open(&self.address, segment, writer_id, self.pool.timeouts()).await
    }

    /// Creates a table; `key_length` 0 is for keys of any length.
    pub async fn create_table(&self, segment: &str, key_length: i32) -> Result<(), ClientError> {
        let request = CreateTableSegment {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            sorted_deprecated: false,
            key_length,
            rollover_size_bytes: 0,
        };
        expect!(self.request(request).await?, SegmentCreated(_it) => ())
    }

    /// Deletes a table, if `must_be_empty` only one without keys.
    pub async fn delete_table(
        &self,
        segment: &str,
        must_be_empty: bool,
    ) -> Result<(), ClientError> {
        let request = DeleteTableSegment {
            request_id: 0,
            segment: segment.into(),
            must_be_empty,
            delegation_token: none(),
        };
        expect!(self.request(request).await?, SegmentDeleted(_it) => ())
    }

    /// The facts of a table.
    pub async fn table_info(&self, segment: &str) -> Result<TableSegmentInfo, ClientError> {
        let request = GetTableSegmentInfo {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
        };
        expect!(self.request(request).await?, TableSegmentInfo(it) => it)
    }

    /// Writes entries under the versions in their keys, all or none; gives the new versions.
    pub async fn table_update(
        &self,
        segment: &str,
        entries: Vec<TableEntry>,
    ) -> Result<Vec<i64>, ClientError> {
        let request = UpdateTableEntries {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            entries,
            table_segment_offset: -1,
        };
        expect!(self.request(request).await?, TableEntriesUpdated(it) => it.updated_versions)
    }

    /// Removes keys under their versions, all or none.
    pub async fn table_remove(
        &self,
        segment: &str,
        keys: Vec<TableKey>,
    ) -> Result<(), ClientError> {
        let request = RemoveTableKeys {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            keys,
            table_segment_offset: -1,
        };
        expect!(self.request(request).await?, TableKeysRemoved(_it) => ())
    }

    /// The entries of keys, in their order; `None` for an absent key.
    pub async fn table_get(
        &self,
        segment: &str,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Option<TableEntry>>, ClientError> {
        let asked = keys.len();
        let request = ReadTable {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            keys: keys
                .into_iter()
                .map(|key| TableKey { key, version: thalweg_wire::KEY_NO_VERSION })
                .collect(),
        };
        let entries = expect!(self.request(request).await?, TableRead(it) => it.entries)?;
        if entries.len() != asked {
            return Err(ClientError::Internal("TableRead"));
        }
        let found = |entry: TableEntry| (entry.key.version != KEY_NOT_EXISTS).then_some(entry);
        Ok(entries.into_iter().map(found).collect())
    }

    /// A page of at most `count` entries; `continuation` is empty for the first.
    pub async fn table_entries(
        &self,
        segment: &str,
        count: i32,
        continuation: Bytes,
    ) -> Result<TablePage, ClientError> {
        let request = ReadTableEntries {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            suggested_entry_count: count,
            iteration: IterationArguments {
                continuation_token: continuation,
                ..Default::default()
            },
        };
        expect!(self.request(request).await?, TableEntriesRead(it) => TablePage {
            entries: it.entries,
            continuation: it.continuation_token,
        })
    }

    /// A page of at most `count` keys and the token for the next; `continuation` is empty for the
    /// first.
    pub async fn table_keys(
        &self,
        segment: &str,
        count: i32,
        continuation: Bytes,
    ) -> Result<(Vec<TableKey>, Bytes), ClientError> {
        let request = ReadTableKeys {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            suggested_key_count: count,
            iteration: IterationArguments {
                continuation_token: continuation,
                ..Default::default()
            },
        };
        expect!(self.request(request).await?, TableKeysRead(it) => (it.keys, it.continuation_token))
    }

    /// At most `count` entries changed at or after `position`; 0 for everything.
    pub async fn table_delta(
        &self,
        segment: &str,
        position: i64,
        count: i32,
    ) -> Result<TableDelta, ClientError> {
        let request = ReadTableEntriesDelta {
            request_id: 0,
            segment: segment.into(),
            delegation_token: none(),
            from_position: position,
            suggested_entry_count: count,
        };
        expect!(self.request(request).await?, TableEntriesDeltaRead(it) => TableDelta {
            entries: it.entries,
            should_clear: it.should_clear,
            has_reached_end: it.reached_end,
            position: it.last_position,
        })
    }
}
