//! What can go wrong outside, as the engine sees it: a class that says what to do, and a text.

use std::fmt;

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// Retried with back-off by whoever met it.
    Transient,
    /// The thing is not there now; wait, serve what needs it not.
    Unavailable,
    /// Journal full: appends wait, reads and truncation go on.
    NoSpace,
    /// A checksum or an order is wrong: the container stops and says where.
    Corrupt,
    /// A newer epoch exists: stop at once and quietly.
    Fenced,
    /// A write, sync or read failed: nothing in flight is acknowledged; recovery decides.
    Device,
}

/// Something outside failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {detail}")]
pub struct Fault {
    /// What to do.
    pub class: FaultClass,
    /// What happened, naming the thing: lower case, no full stop.
    pub detail: String,
}

impl Fault {
    /// A fault of `class` about what `detail` names.
    pub fn new(class: FaultClass, detail: impl Into<String>) -> Self {
        Self { class, detail: detail.into() }
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Transient => "transient fault",
            Self::Unavailable => "unavailable",
            Self::NoSpace => "no space",
            Self::Corrupt => "corrupt",
            Self::Fenced => "fenced by a newer epoch",
            Self::Device => "device fault",
        })
    }
}
