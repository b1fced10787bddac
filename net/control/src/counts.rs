//! What the controller's port met: connections, calls and the bounds on both, for metrics and logs.
//!
//! Counted are what this crate sees. Streams over their bound, headers that are too large and
//! connections closed for resets are handled inside the HTTP/2 library, which tells nobody; the
//! last show as connections that end.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Code;
use tonic::codegen::http::Response;

/// Codes that tell of a bound or of trouble, with their label; all others but success are "other".
const CODES: [(Code, &str); 8] = [
    (Code::InvalidArgument, "invalid_argument"),
    (Code::NotFound, "not_found"),
    (Code::OutOfRange, "out_of_range"),
    (Code::Unimplemented, "unimplemented"),
    (Code::Internal, "internal"),
    (Code::Unavailable, "unavailable"),
    (Code::DeadlineExceeded, "deadline_exceeded"),
    (Code::ResourceExhausted, "resource_exhausted"),
];

/// Counts since the process started, but for `open`.
#[derive(Debug, Default)]
pub struct ControlCounts {
    open: AtomicU64,
    accepted: AtomicU64,
    full: AtomicU64,
    accept_pauses: AtomicU64,
    calls: AtomicU64,
    failed: [AtomicU64; CODES.len()],
    failed_otherwise: AtomicU64,
}

impl ControlCounts {
    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections taken in.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Times that the port was as full as its bound allows and the next connection had to wait.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Pauses because a connection could not be accepted, for lack of descriptors or memory.
    pub fn accept_pauses(&self) -> u64 {
        self.accept_pauses.load(Ordering::Relaxed)
    }

    /// Calls answered.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Of these, answered with an error, by code.
    pub fn failed(&self) -> Vec<(&'static str, u64)> {
        let counted = CODES.iter().zip(&self.failed);
        let mut failed: Vec<_> =
            counted.map(|((_, label), count)| (*label, count.load(Ordering::Relaxed))).collect();
        failed.push(("other", self.failed_otherwise.load(Ordering::Relaxed)));
        failed
    }

    /// Calls answered with this code. Zero for codes without a count of their own.
    pub(crate) fn failed_with(&self, code: Code) -> u64 {
        let index = CODES.iter().position(|(counted, _)| *counted == code);
        index.map_or(0, |index| self.failed[index].load(Ordering::Relaxed))
    }

    /// Calls refused because of a message over its bound.
    pub fn too_large(&self) -> u64 {
        self.failed_with(Code::OutOfRange)
    }

    pub(crate) fn opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn met_full(&self) {
        self.full.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn paused(&self) {
        self.accept_pauses.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at an answer. One that failed before it had a body says so in its headers; the calls
    /// here answer with one message, so none fails later.
    pub(crate) fn answered<B>(&self, response: &Response<B>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let Some(status) = response.headers().get("grpc-status") else { return };
        let code = Code::from_bytes(status.as_bytes());
        if code == Code::Ok {
            return;
        }
        let index = CODES.iter().position(|(counted, _)| *counted == code);
        let count = index.map_or(&self.failed_otherwise, |index| &self.failed[index]);
        count.fetch_add(1, Ordering::Relaxed);
    }
}
