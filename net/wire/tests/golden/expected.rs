//! The value that the fields of a golden vector name, built field by field and without our decoder.

use bytes::Bytes;
use serde_json::Value;
use thalweg_wire::*;

/// The fields of one vector. A field that the vector lacks is the default of the protocol.
pub(crate) struct Fields<'a>(pub(crate) &'a Value);

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

impl Fields<'_> {
    fn field(&self, key: &str) -> &Value {
        &self.0[key]
    }

    fn i64(&self, key: &str) -> i64 {
        match self.field(key) {
            Value::Null if key == "rolloverSizeBytes" => 0,
            Value::Null if key == "eventNumber" => -1,
            value => value.as_i64().expect(key),
        }
    }

    fn i32(&self, key: &str) -> i32 {
        match self.field(key) {
            Value::Null if key == "keyLength" => 0,
            value => value.as_i64().and_then(|value| i32::try_from(value).ok()).expect(key),
        }
    }

    fn i8(&self, key: &str) -> i8 {
        self.field(key).as_i64().and_then(|value| i8::try_from(value).ok()).expect(key)
    }

    fn bool(&self, key: &str) -> bool {
        match self.field(key) {
            Value::Null if key == "sortedDeprecated" => false,
            value => value.as_bool().expect(key),
        }
    }

    fn uuid(&self, key: &str) -> u128 {
        u128::from_str_radix(&self.field(key).as_str().expect(key).replace('-', ""), 16).expect(key)
    }

    fn text(&self, key: &str) -> Text {
        Text::from(self.field(key).as_str().expect(key))
    }

    fn hex(&self, key: &str) -> Bytes {
        match self.field(key) {
            Value::Null if ["fromKey", "toKey"].contains(&key) => Bytes::new(),
            value => Bytes::from(hex(value.as_str().expect(key))),
        }
    }

    fn event(&self, key: &str) -> FramedEvent {
        FramedEvent::new(&self.hex(key))
    }

    fn list<T>(&self, key: &str, item: impl Fn(&Fields<'_>) -> T) -> Vec<T> {
        match self.field(key) {
            Value::Null if key == "attributeUpdates" => Vec::new(),
            value => {
                value.as_array().expect(key).iter().map(|value| item(&Fields(value))).collect()
            }
        }
    }

    fn texts(&self, key: &str) -> Vec<Text> {
        self.list(key, |item| Text::from(item.0.as_str().expect("a string")))
    }

    fn integers(&self, key: &str) -> Vec<i64> {
        self.list(key, |item| item.0.as_i64().expect("an integer"))
    }

    fn key(&self) -> TableKey {
        let key = self.hex("key");
        let version = if key.is_empty() { KEY_NO_VERSION } else { self.i64("version") };
        TableKey { key, version }
    }

    fn keys(&self, key: &str) -> Vec<TableKey> {
        self.list(key, |item| item.key())
    }

    fn entries(&self, key: &str) -> Vec<TableEntry> {
        self.list(key, |item| TableEntry { key: item.key(), value: item.hex("value") })
    }

    fn iteration(&self) -> IterationArguments {
        IterationArguments {
            continuation_token: self.hex("continuationToken"),
            from_key: self.hex("fromKey"),
            to_key: self.hex("toKey"),
        }
    }

    fn attribute_updates(&self, key: &str) -> Vec<AttributeUpdate> {
        self.list(key, |item| AttributeUpdate {
            attribute_id: item.uuid("attributeId"),
            update_type: item.i8("updateType"),
            new_value: item.i64("newValue"),
            old_value: item.i64("oldValue"),
        })
    }

    fn chunks(&self, key: &str) -> Vec<StorageChunk> {
        self.list(key, |item| StorageChunk {
            length_in_metadata: item.i64("lengthInMetadata"),
            length_in_storage: item.i64("lengthInStorage"),
            start_offset: item.i64("startOffset"),
            chunk_name: item.text("chunkName"),
            exists_in_storage: item.bool("existsInStorage"),
        })
    }

    fn merged_sources(&self) -> Vec<MergedSource> {
        let offsets = self.integers("newTargetWriteOffset");
        let merged = self.texts("sources").into_iter().zip(offsets);
        merged
            .map(|(source, new_target_write_offset)| MergedSource {
                source,
                new_target_write_offset,
            })
            .collect()
    }
}

/// The command of a vector by its name and fields.
pub(crate) fn expected(name: &str, fields: &Fields<'_>) -> Command {
    match name {
        "Hello" => {
            Hello { high_version: fields.i32("highVersion"), low_version: fields.i32("lowVersion") }
                .into()
        }
        "SetupAppend" => SetupAppend {
            request_id: fields.i64("requestId"),
            writer_id: fields.uuid("writerId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "AppendSetup" => AppendSetup {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            writer_id: fields.uuid("writerId"),
            last_event_number: fields.i64("lastEventNumber"),
        }
        .into(),
        "AppendBlockEnd" => AppendBlockEnd {
            writer_id: fields.uuid("writerId"),
            size_of_whole_events: fields.i32("sizeOfWholeEvents"),
            data: fields.hex("data"),
            event_count: fields.i32("numEvents"),
            last_event_number: fields.i64("lastEventNumber"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "ConditionalAppend" => ConditionalAppend {
            writer_id: fields.uuid("writerId"),
            event_number: fields.i64("eventNumber"),
            expected_offset: fields.i64("expectedOffset"),
            event: fields.event("event"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "ConditionalBlockEnd" => ConditionalBlockEnd {
            writer_id: fields.uuid("writerId"),
            event_number: fields.i64("eventNumber"),
            expected_offset: fields.i64("expectedOffset"),
            data: fields.hex("data"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "DataAppended" => DataAppended {
            writer_id: fields.uuid("writerId"),
            event_number: fields.i64("eventNumber"),
            previous_event_number: fields.i64("previousEventNumber"),
            request_id: fields.i64("requestId"),
            current_segment_write_offset: fields.i64("currentSegmentWriteOffset"),
        }
        .into(),
        "ConditionalCheckFailed" => ConditionalCheckFailed {
            writer_id: fields.uuid("writerId"),
            event_number: fields.i64("eventNumber"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "ReadSegment" => ReadSegment {
            segment: fields.text("segment"),
            offset: fields.i64("offset"),
            suggested_length: fields.i32("suggestedLength"),
            delegation_token: fields.text("delegationToken"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "SegmentRead" => SegmentRead {
            segment: fields.text("segment"),
            offset: fields.i64("offset"),
            at_tail: fields.bool("atTail"),
            end_of_segment: fields.bool("endOfSegment"),
            data: fields.hex("data"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "GetStreamSegmentInfo" => GetStreamSegmentInfo {
            request_id: fields.i64("requestId"),
            segment: fields.text("segmentName"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "StreamSegmentInfo" => StreamSegmentInfo {
            request_id: fields.i64("requestId"),
            segment: fields.text("segmentName"),
            exists: fields.bool("exists"),
            is_sealed: fields.bool("isSealed"),
            is_deleted: fields.bool("isDeleted"),
            last_modified: fields.i64("lastModified"),
            write_offset: fields.i64("writeOffset"),
            start_offset: fields.i64("startOffset"),
        }
        .into(),
        "CreateSegment" => CreateSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            target_rate: fields.i32("targetRate"),
            scale_type: fields.i8("scaleType"),
            delegation_token: fields.text("delegationToken"),
            rollover_size_bytes: fields.i64("rolloverSizeBytes"),
        }
        .into(),
        "SegmentCreated" => {
            SegmentCreated { request_id: fields.i64("requestId"), segment: fields.text("segment") }
                .into()
        }
        "CreateTransientSegment" => CreateTransientSegment {
            request_id: fields.i64("requestId"),
            writer_id: fields.uuid("writerId"),
            parent_segment: fields.text("parentSegment"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SealSegment" => SealSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentSealed" => {
            SegmentSealed { request_id: fields.i64("requestId"), segment: fields.text("segment") }
                .into()
        }
        "DeleteSegment" => DeleteSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentDeleted" => {
            SegmentDeleted { request_id: fields.i64("requestId"), segment: fields.text("segment") }
                .into()
        }
        "UpdateSegmentPolicy" => UpdateSegmentPolicy {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            target_rate: fields.i32("targetRate"),
            scale_type: fields.i8("scaleType"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentPolicyUpdated" => SegmentPolicyUpdated {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
        }
        .into(),
        "GetSegmentAttribute" => GetSegmentAttribute {
            request_id: fields.i64("requestId"),
            segment: fields.text("segmentName"),
            attribute_id: fields.uuid("attributeId"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentAttribute" => {
            SegmentAttribute { request_id: fields.i64("requestId"), value: fields.i64("value") }
                .into()
        }
        "UpdateSegmentAttribute" => UpdateSegmentAttribute {
            request_id: fields.i64("requestId"),
            segment: fields.text("segmentName"),
            attribute_id: fields.uuid("attributeId"),
            new_value: fields.i64("newValue"),
            expected_value: fields.i64("expectedValue"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentAttributeUpdated" => SegmentAttributeUpdated {
            request_id: fields.i64("requestId"),
            success: fields.bool("success"),
        }
        .into(),
        "TruncateSegment" => TruncateSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            truncation_offset: fields.i64("truncationOffset"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentTruncated" => SegmentTruncated {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
        }
        .into(),
        "LocateOffset" => LocateOffset {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            target_offset: fields.i64("targetOffset"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "OffsetLocated" => OffsetLocated {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            offset: fields.i64("offset"),
        }
        .into(),
        "MergeSegments" => MergeSegments {
            request_id: fields.i64("requestId"),
            target: fields.text("target"),
            source: fields.text("source"),
            delegation_token: fields.text("delegationToken"),
            attribute_updates: fields.attribute_updates("attributeUpdates"),
        }
        .into(),
        "SegmentsMerged" => SegmentsMerged {
            request_id: fields.i64("requestId"),
            target: fields.text("target"),
            source: fields.text("source"),
            new_target_write_offset: fields.i64("newTargetWriteOffset"),
        }
        .into(),
        "MergeSegmentsBatch" => MergeSegmentsBatch {
            request_id: fields.i64("requestId"),
            target: fields.text("targetSegmentId"),
            sources: fields.texts("sourceSegmentIds"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "SegmentsBatchMerged" => SegmentsBatchMerged {
            request_id: fields.i64("requestId"),
            target: fields.text("target"),
            merged: fields.merged_sources(),
        }
        .into(),
        "CreateTableSegment" => CreateTableSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            sorted_deprecated: fields.bool("sortedDeprecated"),
            key_length: fields.i32("keyLength"),
            rollover_size_bytes: fields.i64("rolloverSizeBytes"),
        }
        .into(),
        "DeleteTableSegment" => DeleteTableSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            must_be_empty: fields.bool("mustBeEmpty"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "GetTableSegmentInfo" => GetTableSegmentInfo {
            request_id: fields.i64("requestId"),
            segment: fields.text("segmentName"),
            delegation_token: fields.text("delegationToken"),
        }
        .into(),
        "TableSegmentInfo" => TableSegmentInfo {
            request_id: fields.i64("requestId"),
            segment: fields.text("segmentName"),
            start_offset: fields.i64("startOffset"),
            length: fields.i64("length"),
            entry_count: fields.i64("entryCount"),
            key_length: fields.i32("keyLength"),
        }
        .into(),
        "UpdateTableEntries" => UpdateTableEntries {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            entries: fields.entries("entries"),
            table_segment_offset: fields.i64("tableSegmentOffset"),
        }
        .into(),
        "TableEntriesUpdated" => TableEntriesUpdated {
            request_id: fields.i64("requestId"),
            updated_versions: fields.integers("updatedVersions"),
        }
        .into(),
        "RemoveTableKeys" => RemoveTableKeys {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            keys: fields.keys("keys"),
            table_segment_offset: fields.i64("tableSegmentOffset"),
        }
        .into(),
        "TableKeysRemoved" => TableKeysRemoved {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
        }
        .into(),
        "ReadTable" => ReadTable {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            keys: fields.keys("keys"),
        }
        .into(),
        "TableRead" => TableRead {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            entries: fields.entries("entries"),
        }
        .into(),
        "ReadTableKeys" => ReadTableKeys {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            suggested_key_count: fields.i32("suggestedKeyCount"),
            iteration: fields.iteration(),
        }
        .into(),
        "TableKeysRead" => TableKeysRead {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            keys: fields.keys("keys"),
            continuation_token: fields.hex("continuationToken"),
        }
        .into(),
        "ReadTableEntries" => ReadTableEntries {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            suggested_entry_count: fields.i32("suggestedEntryCount"),
            iteration: fields.iteration(),
        }
        .into(),
        "TableEntriesRead" => TableEntriesRead {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            entries: fields.entries("entries"),
            continuation_token: fields.hex("continuationToken"),
        }
        .into(),
        "ReadTableEntriesDelta" => ReadTableEntriesDelta {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            from_position: fields.i64("fromPosition"),
            suggested_entry_count: fields.i32("suggestedEntryCount"),
        }
        .into(),
        "TableEntriesDeltaRead" => TableEntriesDeltaRead {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            entries: fields.entries("entries"),
            should_clear: fields.bool("shouldClear"),
            reached_end: fields.bool("reachedEnd"),
            last_position: fields.i64("lastPosition"),
        }
        .into(),
        "WrongHost" => WrongHost {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            correct_host: fields.text("correctHost"),
            server_stack_trace: fields.text("serverStackTrace"),
        }
        .into(),
        "SegmentIsSealed" => SegmentIsSealed {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            server_stack_trace: fields.text("serverStackTrace"),
            offset: fields.i64("offset"),
        }
        .into(),
        "SegmentAlreadyExists" => SegmentAlreadyExists {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            server_stack_trace: fields.text("serverStackTrace"),
        }
        .into(),
        "NoSuchSegment" => NoSuchSegment {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            server_stack_trace: fields.text("serverStackTrace"),
            offset: fields.i64("offset"),
        }
        .into(),
        "InvalidEventNumber" => InvalidEventNumber {
            writer_id: fields.uuid("writerId"),
            request_id: fields.i64("requestId"),
            server_stack_trace: fields.text("serverStackTrace"),
            event_number: fields.i64("eventNumber"),
        }
        .into(),
        "SegmentIsTruncated" => SegmentIsTruncated {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            start_offset: fields.i64("startOffset"),
            server_stack_trace: fields.text("serverStackTrace"),
            offset: fields.i64("offset"),
        }
        .into(),
        "OperationUnsupported" => OperationUnsupported {
            request_id: fields.i64("requestId"),
            operation_name: fields.text("operationName"),
            server_stack_trace: fields.text("serverStackTrace"),
        }
        .into(),
        "AuthTokenCheckFailed" => AuthTokenCheckFailed {
            request_id: fields.i64("requestId"),
            server_stack_trace: fields.text("serverStackTrace"),
            error_code: fields.i32("errorCode"),
        }
        .into(),
        "ErrorMessage" => ErrorMessage {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            message: fields.text("message"),
            error_code: fields.i32("errorCode"),
        }
        .into(),
        "TableSegmentNotEmpty" => TableSegmentNotEmpty {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            server_stack_trace: fields.text("serverStackTrace"),
        }
        .into(),
        "TableKeyDoesNotExist" => TableKeyDoesNotExist {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            server_stack_trace: fields.text("serverStackTrace"),
        }
        .into(),
        "TableKeyBadVersion" => TableKeyBadVersion {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            server_stack_trace: fields.text("serverStackTrace"),
        }
        .into(),
        "FlushToStorage" => FlushToStorage {
            container_id: fields.i32("containerId"),
            delegation_token: fields.text("delegationToken"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "StorageFlushed" => StorageFlushed { request_id: fields.i64("requestId") }.into(),
        "ListStorageChunks" => ListStorageChunks {
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            request_id: fields.i64("requestId"),
        }
        .into(),
        "StorageChunksListed" => StorageChunksListed {
            request_id: fields.i64("requestId"),
            chunks: fields.chunks("chunks"),
        }
        .into(),
        "AppendBlock" => {
            AppendBlock { writer_id: fields.uuid("writerId"), data: Bytes::new() }.into()
        }
        "Padding" => {
            Padding { length: usize::try_from(fields.i64("length")).expect("a length") }.into()
        }
        "PartialEvent" => PartialEvent { data: fields.hex("data") }.into(),
        "KeepAlive" => KeepAlive.into(),
        "modified UTF-8" | "plain UTF-8" => {
            SegmentCreated { request_id: fields.i64("requestId"), segment: fields.text("segment") }
                .into()
        }
        "TableKey empty data omits version" => ReadTable {
            request_id: fields.i64("requestId"),
            segment: fields.text("segment"),
            delegation_token: fields.text("delegationToken"),
            keys: fields.keys("keys"),
        }
        .into(),
        other => panic!("the golden file has an unexpected {other}"),
    }
}
