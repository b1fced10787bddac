//! Frames read back from the journal: verified by header identity and both checksums, read once
//! more when something is wrong, because a transfer can fail where the disk is right.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use thalweg_core::env::device::{DeviceOutcome, OperationToken};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::frame::FRAME_HEADER_BYTES;
use thalweg_core::position::JournalAddress;

use crate::files::{fault_of, journal_name};
use crate::layout::{Owner, RecordHeader, RecordKind, payload_checksum};

/// A read on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) address: JournalAddress,
    pub(crate) is_second: bool,
}

/// Reads in flight, and answers that need no device.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    pub(crate) in_flight: BTreeMap<OperationToken, Fetch>,
    pub(crate) refused: Vec<(JournalAddress, Fault)>,
}

/// Where a frame lies, for faults: the file's name and the offset in it.
pub(crate) fn place(address: JournalAddress) -> String {
    format!("{} at offset {}", journal_name(address.file()), address.file_offset())
}

/// The answer for an address whose file is not there (any more).
pub(crate) fn absent(address: JournalAddress) -> Fault {
    Fault::new(FaultClass::Unavailable, format!("no frame in {}: no such file", place(address)))
}

/// The bytes of a fetch, if they are the frame that was asked for.
///
/// # Errors
/// `Device` when the read failed, `Corrupt` when it gave something else.
pub(crate) fn check(
    outcome: io::Result<DeviceOutcome>,
    owner: Owner,
    address: JournalAddress,
    verify_payload: bool,
) -> Result<Bytes, Fault> {
    let bytes = match outcome {
        Ok(DeviceOutcome::Read(bytes)) => bytes.freeze(),
        Ok(_) => return Err(corrupt("no read outcome for", address)),
        Err(error) => return Err(fault_of("read frame in", &place(address), &error)),
    };
    let header = RecordHeader::decode(&bytes[..FRAME_HEADER_BYTES.min(bytes.len())]);
    let Ok((header, _)) = header else {
        return Err(corrupt("no frame header in", address));
    };
    let is_it = header.owner == owner
        && header.address == address
        && header.kind == RecordKind::Frame
        && bytes.len() as u64 == address.frame_bytes();
    if !is_it {
        return Err(corrupt("another frame's header in", address));
    }
    if verify_payload && payload_checksum(&bytes) != header.payload_checksum {
        return Err(corrupt("frame checksum mismatch in", address));
    }
    Ok(bytes)
}

fn corrupt(what: &str, address: JournalAddress) -> Fault {
    Fault::new(FaultClass::Corrupt, format!("{what} {}", place(address)))
}
