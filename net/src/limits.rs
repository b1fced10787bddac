//! Bounds of one connection.

use thalweg_wire::FRAME_BYTES_MAX;

/// Bounds of one connection. Tests set them absurdly small.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Largest frame accepted, header included. Default 16 MiB − 1, which peers expect.
    pub frame_bytes_max: usize,
    /// Receive size of a quiet connection, bytes. Default 16 KiB.
    pub receive_bytes_min: usize,
    /// Receive size that a busy connection grows to, bytes. Default 256 KiB: 2,000 small appends
    /// per completion, where the cost of the completion itself has disappeared.
    pub receive_bytes_max: usize,
    /// Largest first command, header included: who has not shown yet that it speaks the protocol
    /// gets no more memory. Default 64 KiB.
    pub first_command_bytes_max: usize,
    /// Largest single event, its header included. Default 8 MiB + 8, the largest that clients send
    /// in one piece.
    pub event_bytes_max: usize,
    /// Append sessions. Default 16,384.
    pub sessions_max: usize,
    /// Reply bytes that are copied into the connection's own buffer instead of being sent as a
    /// piece of their own. Default 1,024: up to there a copy costs less than one more send entry.
    pub inline_bytes_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX,
            receive_bytes_min: 16 << 10,
            receive_bytes_max: 256 << 10,
            first_command_bytes_max: 64 << 10,
            event_bytes_max: (8 << 20) + 8,
            sessions_max: 16_384,
            inline_bytes_max: 1024,
        }
    }
}
