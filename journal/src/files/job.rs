//! One job on a file, step by step: which operation comes next, what a failure leaves behind.
//! Holds no file but its own and starts nothing itself.

use std::io;

use bytes::Bytes;
use thalweg_core::canary::{self, Canary};
use thalweg_core::env::device::{Device, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::fault::Fault;
use thalweg_core::position::FileId;

use super::{
    ReadyFile, Situation, Spare, fault_of, fresh_name, header_block, journal_name, opened,
    spare_name,
};
use crate::layout::FileHeader;

#[derive(Debug)]
pub(super) enum Job {
    Create { number: u64, bytes: u64, step: Create },
    Promote { spare: Spare, id: FileId, header: Bytes, step: Promote },
    Recycle { id: FileId, spare: Spare },
    Remove { name: String, bytes: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Create {
    Open,
    Allocate(FileHandle),
    /// Zeros from this offset on.
    Zero(FileHandle, u64),
    Sync(FileHandle),
    Name(FileHandle),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Promote {
    /// The name that the file had before it was recycled must not come back over the new header.
    SyncSpare,
    /// Before the name: when power took an earlier renaming back, the file may hold records of the
    /// same name, which must not be found under it again.
    Header,
    Name,
    SyncName,
}

/// What an operation brought the job to.
#[derive(Debug)]
pub(super) enum Progress {
    Next(Job),
    Created(Spare),
    Recycled(Spare),
    Promoted(ReadyFile),
    Removed { bytes: u64 },
}

/// A job that cannot go on.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) fault: Fault,
    pub(super) handle: Option<FileHandle>,
    /// Names and sizes of what is to be removed.
    pub(super) leaves: Vec<(String, u64)>,
}

impl Job {
    pub(super) fn create(number: u64, bytes: u64) -> Self {
        Self::Create { number, bytes, step: Create::Open }
    }

    pub(super) fn promote(spare: Spare, id: FileId, situation: Situation) -> Self {
        let header = header_block(&FileHeader {
            owner: situation.owner,
            file: id,
            epoch: situation.epoch,
            file_bytes: spare.bytes,
            start: None,
        });
        Self::Promote { spare, id, header, step: Promote::SyncSpare }
    }

    pub(super) fn recycle(id: FileId, handle: FileHandle, bytes: u64, number: u64) -> Self {
        Self::Recycle { id, spare: Spare { number, handle, bytes } }
    }

    pub(super) fn remove(name: String, bytes: u64) -> Self {
        Self::Remove { name, bytes }
    }

    /// The open file that the job holds.
    pub(super) fn handle(&self) -> Option<FileHandle> {
        match self {
            Self::Create { step, .. } => match *step {
                Create::Open => None,
                Create::Allocate(handle)
                | Create::Zero(handle, _)
                | Create::Sync(handle)
                | Create::Name(handle) => Some(handle),
            },
            Self::Promote { spare, .. } | Self::Recycle { spare, .. } => Some(spare.handle),
            Self::Remove { .. } => None,
        }
    }

    /// Queues the operation of the current step.
    pub(super) fn queue<D: Device>(&self, device: &mut D, zeros: &Bytes, token: OperationToken) {
        match self {
            Self::Create { number, bytes, step } => match *step {
                Create::Open => device.open(&fresh_name(*number), true, token),
                Create::Allocate(handle) => device.allocate(handle, *bytes, token),
                Create::Zero(handle, offset) => {
                    let rest = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
                    let piece = zeros.slice(..rest.min(zeros.len()));
                    device.write(handle, offset, piece, token);
                }
                Create::Sync(handle) => device.sync(handle, token),
                Create::Name(_) => device.rename(&fresh_name(*number), &spare_name(*number), token),
            },
            Self::Promote { spare, id, header, step } => match step {
                Promote::Name => {
                    device.rename(&spare_name(spare.number), &journal_name(*id), token)
                }
                Promote::SyncName if canary::has(Canary::DirectoryNotSynced) => device.list(token),
                Promote::SyncSpare | Promote::SyncName => device.sync_directory(token),
                Promote::Header => device.write_durable(spare.handle, 0, header.clone(), token),
            },
            Self::Recycle { id, spare } => {
                device.rename(&journal_name(*id), &spare_name(spare.number), token);
            }
            Self::Remove { name, .. } => device.remove(name, token),
        }
    }

    /// Takes the outcome of the queued operation.
    pub(super) fn advance(
        self,
        outcome: io::Result<DeviceOutcome>,
        zero_bytes: u64,
    ) -> Result<Progress, Failed> {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return self.give_up(&error),
        };
        match self {
            Self::Create { number, bytes, step } => {
                let next = |step| Progress::Next(Self::Create { number, bytes, step });
                Ok(match step {
                    Create::Open => match opened(outcome) {
                        Ok((handle, _)) => next(Create::Allocate(handle)),
                        Err(error) => return Self::create(number, bytes).give_up(&error),
                    },
                    Create::Allocate(handle) => next(Create::Zero(handle, 0)),
                    Create::Zero(handle, offset) if offset + zero_bytes < bytes => {
                        next(Create::Zero(handle, offset + zero_bytes))
                    }
                    Create::Zero(handle, _) => next(Create::Sync(handle)),
                    Create::Sync(handle) => next(Create::Name(handle)),
                    Create::Name(handle) => Progress::Created(Spare { number, handle, bytes }),
                })
            }
            Self::Promote { spare, id, header, step } => Ok(match step {
                Promote::SyncSpare => {
                    Progress::Next(Self::Promote { spare, id, header, step: Promote::Header })
                }
                Promote::Header => {
                    Progress::Next(Self::Promote { spare, id, header, step: Promote::Name })
                }
                Promote::Name => {
                    Progress::Next(Self::Promote { spare, id, header, step: Promote::SyncName })
                }
                Promote::SyncName => {
                    Progress::Promoted(ReadyFile { id, handle: spare.handle, bytes: spare.bytes })
                }
            }),
            Self::Recycle { spare, .. } => Ok(Progress::Recycled(spare)),
            Self::Remove { bytes, .. } => Ok(Progress::Removed { bytes }),
        }
    }

    /// The job failed: says what is left of it.
    fn give_up(self, error: &io::Error) -> Result<Progress, Failed> {
        let handle = self.handle();
        let (action, names, bytes) = match &self {
            Self::Create { number, bytes, .. } => {
                ("prepare journal file", vec![fresh_name(*number), spare_name(*number)], *bytes)
            }
            Self::Promote { spare, id, .. } => (
                "name journal file",
                vec![journal_name(*id), spare_name(spare.number)],
                spare.bytes,
            ),
            Self::Recycle { id, spare } => {
                let names = vec![journal_name(*id), spare_name(spare.number)];
                ("recycle journal file", names, spare.bytes)
            }
            Self::Remove { bytes, .. } if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Progress::Removed { bytes: *bytes });
            }
            // It stays counted, and the next recovery finds it.
            Self::Remove { name, .. } => ("remove journal file", vec![name.clone()], 0),
        };
        let fault = fault_of(action, &names[0], error);
        let is_removal = matches!(self, Self::Remove { .. });
        // A failed renaming may have happened or not: both names go. The size counts once.
        let leaves = names.into_iter().zip([bytes, 0]).filter(|_| !is_removal).collect();
        Err(Failed { fault, handle, leaves })
    }
}
