//! The one table from type code to command, and what follows from it.
//!
//! A row of the table is: type code, command, the part it plays, and the field that holds its
//! request id if it has one. Codes without a row (6, 54, 62 to 67, 72 and 73 are retired) are
//! unknown. Codes 1 to 91 are part of the protocol and never change.

use bytes::{BufMut, BytesMut};

use crate::decoder::DecodeError;
use crate::field::{Field, Reader, wire_count};
use crate::{
    FRAME_HEADER_BYTES, admin::*, append::*, event::Event, failure::*, hello::*, read::*,
    segment::*, table::*,
};

/// The part a command plays. A server closes the connection on what is not its own to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Belongs to the connection; both sides send it.
    Session,
    /// The append family of requests, of which none may come between the two parts of a block.
    Append,
    /// Any other request.
    Request,
    /// A reply of success, or of a failed conditional append.
    Reply,
    /// An error reply.
    Failure,
    /// Lives inside segment data or blocks. Of these only Padding is harmless as a frame of its
    /// own.
    Framing,
}

/// A command by itself, outside of [`Command`]; implemented by exactly the rows of the table.
pub trait Message: Into<Command> {
    /// Type code.
    const CODE: i32;
    /// Name in the protocol.
    const NAME: &'static str;

    /// Bytes that `encode` writes, header included. A sender checks it against
    /// [`crate::FRAME_BYTES_MAX`] where a reply may grow over it.
    fn encoded_len(&self) -> usize;

    /// Writes header and payload at the end of `out`. Panics when the payload is over `i32::MAX`
    /// bytes.
    fn encode(&self, out: &mut BytesMut);
}

/// Writes a frame header.
pub(crate) fn put_header(code: i32, payload_length: usize, out: &mut BytesMut) {
    out.put_i32(code);
    out.put_i32(wire_count(payload_length));
}

macro_rules! request_id {
    ($message:ident) => {{
        let _ = $message;
        None
    }};
    ($message:ident, $field:ident) => {
        Some($message.$field)
    };
}

macro_rules! commands {
    ($($code:literal $name:ident $role:ident $($request_id:ident)?,)+) => {
        /// Any message of the protocol, in either direction.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Command {
            $(#[doc = concat!("Type code ", stringify!($code), ".")] $name($name),)+
        }

        impl Command {
            /// Type code.
            pub const fn code(&self) -> i32 {
                match self {
                    $(Self::$name(_) => $code,)+
                }
            }

            /// Name in the protocol, for logs and counters.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)+
                }
            }

            /// The part it plays.
            pub const fn role(&self) -> Role {
                match self {
                    $(Self::$name(_) => Role::$role,)+
                }
            }

            /// Request id, of commands that have one: a request's is echoed by its reply, all 64
            /// bits.
            pub const fn request_id(&self) -> Option<i64> {
                match self {
                    $(Self::$name(message) => request_id!(message $(, $request_id)?),)+
                }
            }

            /// Bytes that `encode` writes, header included.
            pub fn encoded_len(&self) -> usize {
                match self {
                    $(Self::$name(message) => Message::encoded_len(message),)+
                }
            }

            /// Writes header and payload at the end of `out`. See [`Message::encode`].
            pub fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name(message) => Message::encode(message, out),)+
                }
            }

            /// The name that belongs to a type code, `None` for an unknown one.
            pub const fn name_of(code: i32) -> Option<&'static str> {
                match code {
                    $($code => Some(stringify!($name)),)+
                    _ => None,
                }
            }

            /// The part that belongs to a type code, `None` for an unknown one.
            pub const fn role_of(code: i32) -> Option<Role> {
                match code {
                    $($code => Some(Role::$role),)+
                    _ => None,
                }
            }

            /// Reads the payload of a frame, always `Some` when it is well formed. Bytes behind the
            /// last field are ignored. The result has the type that the decoder hands out, because
            /// every repacking would copy a whole command.
            pub(crate) fn decode_payload(
                code: i32,
                reader: &mut Reader<'_>,
            ) -> Result<Option<Self>, DecodeError> {
                match code {
                    $($code => match <$name as Field>::decode(reader) {
                        Ok(message) => Ok(Some(Self::$name(message))),
                        Err(source) => {
                            Err(DecodeError::Payload { name: stringify!($name), source })
                        }
                    },)+
                    _ => Err(DecodeError::UnknownCommand { code }),
                }
            }

            /// Values of each command, in the order of the table.
            #[cfg(test)]
            pub(crate) fn strategies() -> Vec<proptest::strategy::BoxedStrategy<Self>> {
                use proptest::strategy::Strategy;
                use crate::property::Sample;
                vec![$(<$name as Sample>::strategy().prop_map(Self::$name).boxed(),)+]
            }
        }

        $(
            impl From<$name> for Command {
                fn from(message: $name) -> Self {
                    Self::$name(message)
                }
            }

            impl Message for $name {
                const CODE: i32 = $code;
                const NAME: &'static str = stringify!($name);

                fn encoded_len(&self) -> usize {
                    FRAME_HEADER_BYTES + Field::encoded_len(self)
                }

                fn encode(&self, out: &mut BytesMut) {
                    let payload_length = Field::encoded_len(self);
                    out.reserve(FRAME_HEADER_BYTES + payload_length);
                    put_header($code, payload_length, out);
                    Field::encode(self, out);
                }
            }
        )+
    };
}

commands! {
    -127 Hello Session,
    -6 StorageChunksListed Reply request_id,
    -5 ListStorageChunks Request request_id,
    -4 StorageFlushed Reply request_id,
    -3 FlushToStorage Request request_id,
    -2 PartialEvent Framing,
    -1 Padding Framing,
    0 Event Framing,
    1 SetupAppend Append request_id,
    2 AppendSetup Reply request_id,
    3 AppendBlock Append,
    4 AppendBlockEnd Append request_id,
    5 ConditionalAppend Append request_id,
    7 DataAppended Reply request_id,
    8 ConditionalCheckFailed Reply request_id,
    9 ReadSegment Request request_id,
    10 SegmentRead Reply request_id,
    11 GetStreamSegmentInfo Request request_id,
    12 StreamSegmentInfo Reply request_id,
    20 CreateSegment Request request_id,
    21 SegmentCreated Reply request_id,
    28 SealSegment Request request_id,
    29 SegmentSealed Reply request_id,
    30 DeleteSegment Request request_id,
    31 SegmentDeleted Reply request_id,
    32 UpdateSegmentPolicy Request request_id,
    33 SegmentPolicyUpdated Reply request_id,
    34 GetSegmentAttribute Request request_id,
    35 SegmentAttribute Reply request_id,
    36 UpdateSegmentAttribute Request request_id,
    37 SegmentAttributeUpdated Reply request_id,
    38 TruncateSegment Request request_id,
    39 SegmentTruncated Reply request_id,
    40 CreateTransientSegment Request request_id,
    41 LocateOffset Request request_id,
    42 OffsetLocated Reply request_id,
    50 WrongHost Failure request_id,
    51 SegmentIsSealed Failure request_id,
    52 SegmentAlreadyExists Failure request_id,
    53 NoSuchSegment Failure request_id,
    55 InvalidEventNumber Failure request_id,
    56 SegmentIsTruncated Failure request_id,
    57 OperationUnsupported Failure request_id,
    58 MergeSegments Request request_id,
    59 SegmentsMerged Reply request_id,
    60 AuthTokenCheckFailed Failure request_id,
    61 ErrorMessage Failure request_id,
    68 GetTableSegmentInfo Request request_id,
    69 TableSegmentInfo Reply request_id,
    70 CreateTableSegment Request request_id,
    71 DeleteTableSegment Request request_id,
    74 UpdateTableEntries Request request_id,
    75 TableEntriesUpdated Reply request_id,
    76 RemoveTableKeys Request request_id,
    77 TableKeysRemoved Reply request_id,
    78 ReadTable Request request_id,
    79 TableRead Reply request_id,
    80 TableSegmentNotEmpty Failure request_id,
    81 TableKeyDoesNotExist Failure request_id,
    82 TableKeyBadVersion Failure request_id,
    83 ReadTableKeys Request request_id,
    84 TableKeysRead Reply request_id,
    85 ReadTableEntries Request request_id,
    86 TableEntriesRead Reply request_id,
    87 TableEntriesDeltaRead Reply request_id,
    88 ReadTableEntriesDelta Request request_id,
    89 ConditionalBlockEnd Append request_id,
    90 MergeSegmentsBatch Request request_id,
    91 SegmentsBatchMerged Reply request_id,
    100 KeepAlive Session,
}
