//! Error replies. Each one is written whole, since R knows no optional fields.

use crate::layout::layout;
use crate::text::Text;

layout! {
    /// The segment is not served here.
    WrongHost {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Always empty; clients ask the controller.
        correct_host: Text,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
    }
}

layout! {
    /// The segment takes no more appends.
    SegmentIsSealed {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
        /// Of a read: the offset asked for. Of an append: its event number. Else −1.
        offset: i64 = -1,
    }
}

layout! {
    /// A segment of that name exists.
    SegmentAlreadyExists {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
    }
}

layout! {
    /// No segment of that name exists.
    NoSuchSegment {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
        /// Of a read or truncation: the offset given. Else −1.
        offset: i64 = -1,
    }
}

layout! {
    /// Another connection of the same writer was first. Written in the layout of J; R ignores its
    /// end.
    InvalidEventNumber {
        /// The writer.
        writer_id: u128,
        /// Of the append.
        request_id: i64,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
        /// Of the append.
        event_number: i64 = -1,
    }
}

layout! {
    /// The bytes asked for are gone, or an offset condition failed.
    SegmentIsTruncated {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// The present start offset, or the actual length for a failed condition.
        start_offset: i64,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
        /// The offset given.
        offset: i64 = -1,
    }
}

layout! {
    /// The operation cannot be done to this segment.
    OperationUnsupported {
        /// Of the request refused.
        request_id: i64,
        /// Which operation.
        operation_name: Text,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
    }
}

layout! {
    /// The delegation token does not allow this.
    AuthTokenCheckFailed {
        /// Of the request refused.
        request_id: i64,
        /// Empty from us.
        server_stack_trace: Text = Text::new(),
        /// −1 unspecified, 0 check failed, 1 token expired.
        error_code: i32 = -1,
    }
}

layout! {
    /// The request is refused for another reason.
    ErrorMessage {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// For people.
        message: Text,
        /// −1 unspecified, 0 illegal argument.
        error_code: i32,
    }
}

layout! {
    /// The table has keys and was to be deleted only without.
    TableSegmentNotEmpty {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty from us.
        server_stack_trace: Text,
    }
}

layout! {
    /// A key that must exist does not.
    TableKeyDoesNotExist {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty from us.
        server_stack_trace: Text,
    }
}

layout! {
    /// A key has another version than the one given.
    TableKeyBadVersion {
        /// Of the request refused.
        request_id: i64,
        /// The segment.
        segment: Text,
        /// Empty from us.
        server_stack_trace: Text,
    }
}
