//! The segment-store wire protocol: commands, their bytes, and the rules that need nothing but
//! bytes.
//!
//! This crate owns the layout of every command ([`Command`] and one struct per command), the
//! cutting of a received byte stream into commands ([`Decoder`]), the joining of append blocks
//! ([`BlockAssembly`]) and the framing of events inside segment data ([`event`]). It does no I/O,
//! keeps no time and knows no segment.
//!
//! It keeps true: decoding any bytes ends in a command or a [`DecodeError`], never in a panic;
//! payloads and names are slices of the received buffer, never copies; nothing is reserved for
//! bytes that have not arrived; what `encode` writes, [`Decoder`] reads back as the same value.
//!
//! All integers on the wire are big-endian. Request ids, event numbers and offsets are plain `i64`
//! and ids are plain `u128` here, because that is what travels; their own types begin where the
//! server translates.

mod admin;
mod append;
mod block;
mod command;
mod decoder;
pub mod event;
mod failure;
mod field;
mod hello;
mod layout;
#[cfg(test)]
mod property;
mod read;
mod segment;
mod table;
mod text;

pub use admin::{
    FlushToStorage, ListStorageChunks, StorageChunk, StorageChunksListed, StorageFlushed,
};
pub use append::{
    AppendBlock, AppendBlockEnd, AppendBlockEndHead, AppendBlockEndTail, AppendSetup,
    ConditionalAppend, ConditionalBlockEnd, ConditionalCheckFailed, DataAppended, NO_EVENT_NUMBER,
    Padding, PartialEvent, SetupAppend,
};
pub use block::{AssembledAppend, BlockAssembly, BlockContent, BlockViolation};
pub use command::{Command, Message, Role};
pub use decoder::{DecodeError, Decoder};
pub use event::{Event, FramedEvent};
pub use failure::{
    AuthTokenCheckFailed, ErrorMessage, InvalidEventNumber, NoSuchSegment, OperationUnsupported,
    SegmentAlreadyExists, SegmentIsSealed, SegmentIsTruncated, TableKeyBadVersion,
    TableKeyDoesNotExist, TableSegmentNotEmpty, WrongHost,
};
pub use field::PayloadError;
pub use hello::{Hello, KeepAlive, WIRE_VERSION_HIGH, WIRE_VERSION_LOW};
pub use read::{ReadSegment, SegmentRead, SegmentReadHead, SegmentReadTail};
pub use segment::{
    AttributeUpdate, CreateSegment, CreateTransientSegment, DeleteSegment, GetSegmentAttribute,
    GetStreamSegmentInfo, LocateOffset, MergeSegments, MergeSegmentsBatch, MergedSource,
    NULL_ATTRIBUTE_VALUE, OffsetLocated, SealSegment, SegmentAttribute, SegmentAttributeUpdated,
    SegmentCreated, SegmentDeleted, SegmentPolicyUpdated, SegmentSealed, SegmentTruncated,
    SegmentsBatchMerged, SegmentsMerged, StreamSegmentInfo, TruncateSegment,
    UpdateSegmentAttribute, UpdateSegmentPolicy,
};
pub use table::{
    CreateTableSegment, DeleteTableSegment, GetTableSegmentInfo, IterationArguments,
    KEY_NO_VERSION, KEY_NOT_EXISTS, ReadTable, ReadTableEntries, ReadTableEntriesDelta,
    ReadTableKeys, RemoveTableKeys, TableEntriesDeltaRead, TableEntriesRead, TableEntriesUpdated,
    TableEntry, TableKey, TableKeysRead, TableKeysRemoved, TableRead, TableSegmentInfo,
    UpdateTableEntries,
};
pub use text::{NotText, Text};

/// Bytes of the header before each payload: type code and payload length, both `i32`.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Largest header plus payload that a server accepts, and that every client accepts from a server
/// (16 MiB − 1).
pub const FRAME_BYTES_MAX: usize = 0x00FF_FFFF;
