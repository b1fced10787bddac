//! A directory of files on one disk: what the journal needs of the world, and no policy.
//!
//! Every operation is queued by a call and completes as an event with the caller's token. Reads and
//! writes are aligned to [`BLOCK_BYTES`](crate::position::BLOCK_BYTES) in offset, length and
//! memory. An implementation loops over short transfers until a request is complete or fails.

use std::io;

use bytes::{Bytes, BytesMut};

/// A file that [`Device::open`] opened. Valid until [`Device::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileHandle(pub u32);

/// The caller's own number for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationToken(pub u64);

/// A completed operation.
#[derive(Debug)]
pub struct DeviceEvent {
    /// Of the call that queued it.
    pub token: OperationToken,
    /// What came of it.
    pub outcome: io::Result<DeviceOutcome>,
}

/// What a successful operation gives.
#[derive(Debug)]
pub enum DeviceOutcome {
    /// Done.
    Done,
    /// The bytes read, exactly as many as asked for.
    Read(BytesMut),
    /// The opened file and its size in bytes.
    Opened(FileHandle, u64),
    /// Names and sizes of the files of the directory, sorted by name.
    Listed(Vec<(String, u64)>),
}

/// A directory of files. Operations on different tokens may complete in any order and a crash may
/// leave any subset of what was not synced; a completed sync covers every write to that file that
/// completed before the sync was queued.
pub trait Device {
    /// Lists the directory.
    fn list(&mut self, token: OperationToken);

    /// Opens `name` for direct reading and writing; creates it when `create` says so.
    fn open(&mut self, name: &str, create: bool, token: OperationToken);

    /// Closes a file. Nothing of it may be in flight. Does not sync.
    fn close(&mut self, file: FileHandle);

    /// Allocates `bytes` for the file and sets its size; fails with
    /// [`io::ErrorKind::StorageFull`] when they are not there.
    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken);

    /// Writes without making durable.
    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken);

    /// Writes and makes these bytes durable: write, then data sync, in that order. `Done` means
    /// durable; a failure of either part is a failure.
    fn write_durable(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken);

    /// Makes completed writes of the file durable, and its size.
    fn sync(&mut self, file: FileHandle, token: OperationToken);

    /// Makes the directory's entries durable: creations, renames, removals that completed before.
    fn sync_directory(&mut self, token: OperationToken);

    /// Reads exactly `length` bytes; the end of the file before that is an error.
    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken);

    /// Renames a file of the directory, replacing the target.
    fn rename(&mut self, from: &str, to: &str, token: OperationToken);

    /// Removes a file of the directory.
    fn remove(&mut self, name: &str, token: OperationToken);

    /// Hands queued operations to the kernel where that is a step of its own. Called once per turn.
    fn flush(&mut self);

    /// Moves completed operations into `events`.
    fn poll(&mut self, events: &mut Vec<DeviceEvent>);

    /// Waits until at least one operation has completed. For recovery only: it blocks.
    ///
    /// # Panics
    /// When nothing is in flight.
    fn wait(&mut self);
}
