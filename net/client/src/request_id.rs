//! Putting a request id into any request command.

use thalweg_wire::Command;

/// Sets the request id of `command`; false when the command is not one that a client asks with and
/// matches by request id (replies, session commands, appends).
pub(crate) fn assign(command: &mut Command, id: i64) -> bool {
    macro_rules! assign {
        ($($name:ident)+) => {
            match command {
                $(Command::$name(request) => request.request_id = id,)+
                _ => return false,
            }
        };
    }
    assign! {
        ReadSegment GetStreamSegmentInfo CreateSegment SealSegment DeleteSegment UpdateSegmentPolicy
        GetSegmentAttribute UpdateSegmentAttribute TruncateSegment CreateTransientSegment
        LocateOffset MergeSegments MergeSegmentsBatch CreateTableSegment DeleteTableSegment
        GetTableSegmentInfo UpdateTableEntries RemoveTableKeys ReadTable ReadTableKeys
        ReadTableEntries ReadTableEntriesDelta FlushToStorage ListStorageChunks
    }
    true
}
