//! Operations: what the journal records of a container. Encoding and decoding side by side; byte
//! tables in `docs/formats.md`.
//!
//! An operation says what was decided, never what was asked: offsets are assigned, attribute values
//! are absolute. So applying it cannot depend on anything but the state before it, and recovery and
//! live service share one `Container::apply`. Bytes come from a frame whose checksum was verified;
//! what does not decode is still a fault, not a panic.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::fault::{Fault, FaultClass};
use crate::frame::FRAME_HEADER_BYTES;
use crate::id::{AttributeId, ContainerId, SegmentId, SegmentName, WriterId};
use crate::position::{Offset, SequenceNumber};
use crate::request::{SegmentKind, TableEntry, TableKey};
use crate::table::{Table, operation as table_operation};

/// Length, kind, flags, container, sequence number.
pub(crate) const HEADER_BYTES: usize = 16;
/// Everything of an append operation before its data.
pub(crate) const APPEND_HEADER_BYTES: usize = 64;
/// Where in an append operation the distance to the next one of the segment stands.
pub(crate) const NEXT_FIELD_POSITION: usize = 24;

const APPEND: u8 = 1;
const CREATE: u8 = 2;
const SEAL: u8 = 3;
const TRUNCATE: u8 = 4;
const DELETE: u8 = 5;
const MERGE: u8 = 6;
const UPDATE_ATTRIBUTES: u8 = 7;
const TABLE_UPDATE: u8 = 8;
const TABLE_REMOVE: u8 = 9;
const CHECKPOINT: u8 = 10;

/// Flag of a creation: the segment ends with its connection.
const FLAG_TRANSIENT: u8 = 1;

/// An attribute and the value it gets; the null value unsets it.
pub(crate) type AttributeValue = (AttributeId, i64);

/// What an append changes besides the data themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendOperation {
    pub(crate) segment: SegmentId,
    pub(crate) event_count: u32,
    pub(crate) writer: WriterId,
    pub(crate) event_number: i64,
    pub(crate) offset: Offset,
    /// Bytes of data.
    pub(crate) length: u32,
}

/// A new segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CreateOperation {
    pub(crate) segment: SegmentId,
    pub(crate) name: SegmentName,
    pub(crate) kind: SegmentKind,
    pub(crate) is_transient: bool,
    /// Milliseconds since 1970.
    pub(crate) created: i64,
    pub(crate) attributes: Vec<AttributeValue>,
}

/// `source` goes to the end of `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MergeOperation {
    pub(crate) target: SegmentId,
    pub(crate) source: SegmentId,
    /// Length of the target before it.
    pub(crate) target_offset: Offset,
    /// Attributes of the target, the event count among them.
    pub(crate) attributes: Vec<AttributeValue>,
}

/// One piece of a snapshot of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointPart {
    /// The last operation that the snapshot covers.
    pub(crate) snapshot: SequenceNumber,
    /// How many frames before that of part 0 the oldest frame lies that may hold an operation that
    /// the snapshot does not cover. Told in part 0, zero in the others.
    pub(crate) frames_back: u64,
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) bytes: Bytes,
}

/// One entry of a container's log, the data of appends left out.
#[derive(Clone, Debug)]
pub(crate) enum Operation<'a> {
    Append(AppendOperation),
    Create(CreateOperation),
    Seal { segment: SegmentId },
    Truncate { segment: SegmentId, offset: Offset },
    Delete { segment: SegmentId },
    Merge(MergeOperation),
    UpdateAttributes { segment: SegmentId, attributes: Vec<AttributeValue> },
    TableUpdate { segment: SegmentId, change: TableChange<'a, TableEntry> },
    TableRemove { segment: SegmentId, change: TableChange<'a, TableKey> },
    Checkpoint(CheckpointPart),
}

/// A change of a table: on its way into the journal, or read from it.
#[derive(Clone, Debug)]
pub(crate) enum TableChange<'a, Item> {
    /// Checked against the table, to be encoded and applied.
    Checked(&'a [Item]),
    /// The body as the table's own module decodes it.
    Recorded(Bytes),
}

/// The part that all operations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationHeader {
    /// Of the whole operation.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) container: ContainerId,
    pub(crate) sequence_number: SequenceNumber,
}

impl OperationHeader {
    /// Whether it is a part of a checkpoint.
    pub(crate) fn is_checkpoint(&self) -> bool {
        self.kind == CHECKPOINT
    }
}

/// Writes an append without its data, which the caller puts behind it.
pub(crate) fn encode_append(
    container: ContainerId,
    sequence_number: SequenceNumber,
    append: &AppendOperation,
    out: &mut BytesMut,
) {
    // Composed on the stack: one bounds check and one copy instead of eleven.
    let mut header = [0; APPEND_HEADER_BYTES];
    let length = APPEND_HEADER_BYTES as u32 + append.length;
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4] = APPEND;
    header[6..8].copy_from_slice(&container.0.to_le_bytes());
    header[8..16].copy_from_slice(&sequence_number.0.to_le_bytes());
    header[16..24].copy_from_slice(&append.segment.0.to_le_bytes());
    header[28..32].copy_from_slice(&append.event_count.to_le_bytes());
    header[32..48].copy_from_slice(&append.writer.0.to_le_bytes());
    header[48..56].copy_from_slice(&append.event_number.to_le_bytes());
    header[56..64].copy_from_slice(&append.offset.0.to_le_bytes());
    out.extend_from_slice(&header);
}

impl Operation<'_> {
    /// Bytes of the encoded operation, header included, data of an append left out.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let attributes = |values: &[AttributeValue]| 4 + values.len() * 24;
        HEADER_BYTES
            + match self {
                Self::Append(_) => APPEND_HEADER_BYTES - HEADER_BYTES,
                Self::Create(create) => {
                    8 + 8 + 4 + 2 + create.name.as_str().len() + attributes(&create.attributes)
                }
                Self::Seal { .. } | Self::Delete { .. } => 8,
                Self::Truncate { .. } => 16,
                Self::Merge(merge) => 24 + attributes(&merge.attributes),
                Self::UpdateAttributes { attributes: values, .. } => 8 + attributes(values),
                Self::TableUpdate { change, .. } => {
                    8 + match change {
                        TableChange::Checked(entries) => {
                            table_operation::update_body_bytes(entries)
                        }
                        TableChange::Recorded(body) => body.len(),
                    }
                }
                Self::TableRemove { change, .. } => {
                    8 + match change {
                        TableChange::Checked(keys) => table_operation::remove_body_bytes(keys),
                        TableChange::Recorded(body) => body.len(),
                    }
                }
                Self::Checkpoint(part) => 24 + part.bytes.len(),
            }
    }

    /// Writes the operation. `table` is the table that a table change is about to be applied to.
    pub(crate) fn encode(
        &self,
        container: ContainerId,
        sequence_number: SequenceNumber,
        table: Option<&Table>,
        out: &mut BytesMut,
    ) {
        let (kind, flags) = match self {
            Self::Append(append) => return encode_append(container, sequence_number, append, out),
            Self::Create(create) => (CREATE, if create.is_transient { FLAG_TRANSIENT } else { 0 }),
            Self::Seal { .. } => (SEAL, 0),
            Self::Truncate { .. } => (TRUNCATE, 0),
            Self::Delete { .. } => (DELETE, 0),
            Self::Merge(_) => (MERGE, 0),
            Self::UpdateAttributes { .. } => (UPDATE_ATTRIBUTES, 0),
            Self::TableUpdate { .. } => (TABLE_UPDATE, 0),
            Self::TableRemove { .. } => (TABLE_REMOVE, 0),
            Self::Checkpoint(_) => (CHECKPOINT, 0),
        };
        let length = u32::try_from(self.encoded_bytes()).expect("an operation has under 4 GiB");
        out.put_u32_le(length);
        out.put_u8(kind);
        out.put_u8(flags);
        out.put_u16_le(container.0);
        out.put_u64_le(sequence_number.0);
        self.encode_body(table, out);
    }

    fn encode_body(&self, table: Option<&Table>, out: &mut BytesMut) {
        match self {
            Self::Append(_) => unreachable!("appends are encoded by themselves"),
            Self::Create(create) => encode_create(create, out),
            Self::Seal { segment } | Self::Delete { segment } => out.put_u64_le(segment.0),
            Self::Truncate { segment, offset } => {
                out.put_u64_le(segment.0);
                out.put_u64_le(offset.0);
            }
            Self::Merge(merge) => {
                out.put_u64_le(merge.target.0);
                out.put_u64_le(merge.source.0);
                out.put_u64_le(merge.target_offset.0);
                put_attributes(&merge.attributes, out);
            }
            Self::UpdateAttributes { segment, attributes } => {
                out.put_u64_le(segment.0);
                put_attributes(attributes, out);
            }
            Self::TableUpdate { segment, change } => {
                out.put_u64_le(segment.0);
                match change {
                    TableChange::Checked(entries) => {
                        table.expect("the table was checked").encode_update(entries, out);
                    }
                    TableChange::Recorded(body) => out.put_slice(body),
                }
            }
            Self::TableRemove { segment, change } => {
                out.put_u64_le(segment.0);
                match change {
                    TableChange::Checked(keys) => {
                        table.expect("the table was checked").encode_remove(keys, out);
                    }
                    TableChange::Recorded(body) => out.put_slice(body),
                }
            }
            Self::Checkpoint(part) => {
                out.put_u64_le(part.snapshot.0);
                out.put_u64_le(part.frames_back);
                out.put_u32_le(part.index);
                out.put_u32_le(part.count);
                out.put_slice(&part.bytes);
            }
        }
    }

    /// Reads the operation at `position` of `frame`, whose header was read before.
    ///
    /// # Errors
    /// Corrupt: an unknown kind, or a body that is too short, too long or impossible.
    pub(crate) fn decode(
        header: &OperationHeader,
        frame: &Bytes,
        position: u32,
    ) -> Result<Self, Fault> {
        let start = position as usize;
        let end = start + header.length as usize;
        if header.kind == APPEND {
            return decode_append(&frame[start..end]).map(|(append, _)| Self::Append(append));
        }
        let mut body = frame.slice(start + HEADER_BYTES..end);
        let body = &mut body;
        let operation = match header.kind {
            CREATE => Self::Create(decode_create(header.flags, body)?),
            SEAL => Self::Seal { segment: take_segment(body)? },
            TRUNCATE => Self::Truncate { segment: take_segment(body)?, offset: take_offset(body)? },
            DELETE => Self::Delete { segment: take_segment(body)? },
            MERGE => Self::Merge(MergeOperation {
                target: take_segment(body)?,
                source: take_segment(body)?,
                target_offset: take_offset(body)?,
                attributes: take_attributes(body)?,
            }),
            UPDATE_ATTRIBUTES => Self::UpdateAttributes {
                segment: take_segment(body)?,
                attributes: take_attributes(body)?,
            },
            TABLE_UPDATE => Self::TableUpdate {
                segment: take_segment(body)?,
                change: TableChange::Recorded(std::mem::take(body)),
            },
            TABLE_REMOVE => Self::TableRemove {
                segment: take_segment(body)?,
                change: TableChange::Recorded(std::mem::take(body)),
            },
            CHECKPOINT => Self::Checkpoint(CheckpointPart {
                snapshot: SequenceNumber(take_u64(body)?),
                frames_back: take_u64(body)?,
                index: take_u32(body)?,
                count: take_u32(body)?,
                bytes: std::mem::take(body),
            }),
            kind => return Err(corrupt(format!("operation of unknown kind {kind}"))),
        };
        if body.is_empty() {
            Ok(operation)
        } else {
            Err(corrupt(format!("{} bytes left over behind an operation", body.len())))
        }
    }
}

/// Goes over the operations of a frame, header included, in order.
#[derive(Debug)]
pub(crate) struct Operations<'a> {
    frame: &'a Bytes,
    position: usize,
}

impl<'a> Operations<'a> {
    /// The operations of `frame`.
    pub(crate) fn of(frame: &'a Bytes) -> Self {
        Self { frame, position: FRAME_HEADER_BYTES }
    }
}

impl Iterator for Operations<'_> {
    /// Position in the frame and header of one operation, which lies in the frame as a whole.
    type Item = Result<(u32, OperationHeader), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.frame.get(self.position..)?;
        // A frame ends behind its last operation or with the zeros that fill its last block.
        if rest.len() < 4 || rest[..4] == [0; 4] {
            return None;
        }
        let position = self.position as u32;
        let header = match decode_header(rest) {
            Ok(header) => header,
            Err(fault) => {
                self.position = self.frame.len();
                return Some(Err(fault));
            }
        };
        self.position += header.length as usize;
        Some(Ok((position, header)))
    }
}

/// Reads the header at the start of `bytes`, in which the whole operation lies.
///
/// # Errors
/// Corrupt: the operation cannot be as long as it says.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<OperationHeader, Fault> {
    let mut from = bytes;
    let length = take_u32(&mut from)?;
    if (length as usize) < HEADER_BYTES || length as usize > bytes.len() {
        return Err(corrupt(format!("operation of {length} bytes where {} are", bytes.len())));
    }
    Ok(OperationHeader {
        length,
        kind: take_u8(&mut from)?,
        flags: take_u8(&mut from)?,
        container: ContainerId(take_u16(&mut from)?),
        sequence_number: SequenceNumber(take_u64(&mut from)?),
    })
}

/// Reads an append operation, which starts at the start of `bytes`, and the distance to the next
/// one of its segment (0: none).
///
/// # Errors
/// Corrupt: no append, or cut short.
pub(crate) fn decode_append(bytes: &[u8]) -> Result<(AppendOperation, u32), Fault> {
    let header = decode_header(bytes)?;
    if header.kind != APPEND || (header.length as usize) < APPEND_HEADER_BYTES {
        return Err(corrupt("no append operation where one has to be".to_owned()));
    }
    let mut from = &bytes[HEADER_BYTES..APPEND_HEADER_BYTES];
    let segment = take_segment(&mut from)?;
    let next = take_u32(&mut from)?;
    let append = AppendOperation {
        segment,
        event_count: take_u32(&mut from)?,
        writer: WriterId(from.try_get_u128_le().map_err(|_| short())?),
        event_number: take_i64(&mut from)?,
        offset: take_offset(&mut from)?,
        length: header.length - APPEND_HEADER_BYTES as u32,
    };
    Ok((append, next))
}

fn encode_create(create: &CreateOperation, out: &mut BytesMut) {
    out.put_u64_le(create.segment.0);
    out.put_i64_le(create.created);
    put_kind(create.kind, out);
    put_name(&create.name, out);
    put_attributes(&create.attributes, out);
}

fn decode_create(flags: u8, from: &mut Bytes) -> Result<CreateOperation, Fault> {
    let segment = take_segment(from)?;
    let created = take_i64(from)?;
    let kind = take_kind(from)?;
    let name = take_name(from)?;
    let attributes = take_attributes(from)?;
    let is_transient = flags & FLAG_TRANSIENT != 0;
    Ok(CreateOperation { segment, name, kind, is_transient, created, attributes })
}

/// Kind and key length of a segment; four bytes.
pub(crate) fn put_kind(kind: SegmentKind, out: &mut BytesMut) {
    let (code, key_length) = match kind {
        SegmentKind::Stream => (0, 0),
        SegmentKind::Table { key_length } => (1, key_length),
    };
    out.put_u16_le(code);
    out.put_u16_le(key_length);
}

pub(crate) fn take_kind(from: &mut impl Buf) -> Result<SegmentKind, Fault> {
    let code = take_u16(from)?;
    let key_length = take_u16(from)?;
    match code {
        0 => Ok(SegmentKind::Stream),
        1 => Ok(SegmentKind::Table { key_length }),
        _ => Err(corrupt(format!("segment of unknown kind {code}"))),
    }
}

pub(crate) fn put_name(name: &SegmentName, out: &mut BytesMut) {
    let text = name.as_str();
    out.put_u16_le(u16::try_from(text.len()).expect("the wire bounds names to 65,535 bytes"));
    out.put_slice(text.as_bytes());
}

pub(crate) fn take_name(from: &mut Bytes) -> Result<SegmentName, Fault> {
    let length = usize::from(take_u16(from)?);
    if from.len() < length {
        return Err(short());
    }
    let text = from.split_to(length);
    std::str::from_utf8(&text)
        .map(SegmentName::from)
        .map_err(|_| corrupt("segment name that is no text".to_owned()))
}

pub(crate) fn put_attributes(attributes: &[AttributeValue], out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(attributes.len()).expect("memory holds fewer attributes"));
    for (attribute, value) in attributes {
        out.put_u128_le(attribute.0);
        out.put_i64_le(*value);
    }
}

pub(crate) fn take_attributes(from: &mut impl Buf) -> Result<Vec<AttributeValue>, Fault> {
    let count = take_u32(from)?;
    let mut attributes = Vec::new();
    for _ in 0..count {
        let attribute = AttributeId(from.try_get_u128_le().map_err(|_| short())?);
        attributes.push((attribute, take_i64(from)?));
    }
    Ok(attributes)
}

pub(crate) fn take_segment(from: &mut impl Buf) -> Result<SegmentId, Fault> {
    take_u64(from).map(SegmentId)
}

pub(crate) fn take_offset(from: &mut impl Buf) -> Result<Offset, Fault> {
    let offset = take_u64(from)?;
    if offset > i64::MAX as u64 {
        return Err(corrupt(format!("offset {offset} is out of range")));
    }
    Ok(Offset(offset))
}

pub(crate) fn take_u8(from: &mut impl Buf) -> Result<u8, Fault> {
    from.try_get_u8().map_err(|_| short())
}

pub(crate) fn take_u16(from: &mut impl Buf) -> Result<u16, Fault> {
    from.try_get_u16_le().map_err(|_| short())
}

pub(crate) fn take_u32(from: &mut impl Buf) -> Result<u32, Fault> {
    from.try_get_u32_le().map_err(|_| short())
}

pub(crate) fn take_u64(from: &mut impl Buf) -> Result<u64, Fault> {
    from.try_get_u64_le().map_err(|_| short())
}

pub(crate) fn take_i64(from: &mut impl Buf) -> Result<i64, Fault> {
    from.try_get_i64_le().map_err(|_| short())
}

pub(crate) fn corrupt(detail: String) -> Fault {
    Fault::new(FaultClass::Corrupt, detail)
}

fn short() -> Fault {
    corrupt("operation is too short".to_owned())
}

#[cfg(test)]
mod tests;
