//! [`Device`] with blocking calls: every operation is carried out where it is queued.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
#[cfg(feature = "trace")]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;

use crate::directory::{self, OpenFiles};
use crate::sockets;

/// Makes a call, by way of the trace where there is one.
#[cfg(feature = "trace")]
macro_rules! traced {
    ($device:expr, $call:expr, $result:expr, $carry_out:expr) => {
        $device.trace.call($call, $result, || $carry_out)
    };
}
#[cfg(not(feature = "trace"))]
macro_rules! traced {
    ($device:expr, $call:expr, $result:expr, $carry_out:expr) => {
        $carry_out
    };
}

#[cfg(feature = "trace")]
use crate::trace::Call;

/// A directory of files over ordinary calls. Uses direct I/O where the file system has it.
pub struct PortableDevice {
    path: PathBuf,
    directory: File,
    files: OpenFiles,
    done: VecDeque<DeviceEvent>,
    #[cfg(feature = "trace")]
    trace: crate::trace::Trace,
}

impl PortableDevice {
    /// Opens the directory. It must exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            directory: File::open(path)?,
            files: OpenFiles::default(),
            done: VecDeque::new(),
            #[cfg(feature = "trace")]
            trace: crate::trace::Trace::default(),
        })
    }

    /// Notes, and spoils, the calls made from now on.
    #[cfg(feature = "trace")]
    pub fn set_trace(&mut self, trace: &crate::trace::Trace) {
        self.trace = trace.clone();
        trace.note(crate::trace::Note::Directory { file: self.directory.as_raw_fd() });
    }

    fn finish(&mut self, token: OperationToken, outcome: io::Result<DeviceOutcome>) {
        let outcome = outcome.map_err(directory::storage_error);
        self.done.push_back(DeviceEvent { token, outcome });
    }

    fn finish_done(&mut self, token: OperationToken, outcome: io::Result<()>) {
        self.finish(token, outcome.map(|()| DeviceOutcome::Done));
    }

    fn open_now(&mut self, name: &str, create: bool) -> io::Result<DeviceOutcome> {
        directory::checked_name(name)?;
        let path = self.path.join(name);
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .mode(directory::FILE_MODE)
                .custom_flags(flags)
                .open(&path)
        };
        let direct_or_not = || match open(directory::open_flags(false)) {
            // No direct I/O on this file system: the page cache serves as well, if not as fast.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(libc::O_NOFOLLOW),
            opened => opened,
        };
        let opened = traced!(
            self,
            Call::Open { name: name.to_owned(), creates: create },
            |file: &File| file.as_raw_fd(),
            direct_or_not()
        )?;
        let (file, bytes) = self.files.add(OwnedFd::from(opened))?;
        Ok(DeviceOutcome::Opened(file, bytes))
    }

    fn write_now(&self, file: FileHandle, offset: u64, bytes: Bytes) -> io::Result<()> {
        directory::check_aligned(offset, bytes.len())?;
        let bytes = directory::aligned(bytes);
        let descriptor = self.files.descriptor(file);
        let file = File::from(descriptor.try_clone()?);
        traced!(
            self,
            Call::Write {
                file: descriptor.as_raw_fd(),
                offset,
                bytes: bytes.clone(),
                is_durable: false
            },
            |()| i32::try_from(bytes.len()).unwrap_or(i32::MAX),
            file.write_all_at(&bytes, offset)
        )
    }

    /// Makes a file durable: its data with what is needed to read them, or everything.
    fn sync_now(&self, file: FileHandle, is_full: bool) -> io::Result<()> {
        let descriptor = self.files.descriptor(file);
        let file = File::from(descriptor.try_clone()?);
        traced!(
            self,
            Call::Sync { file: descriptor.as_raw_fd() },
            |()| 0,
            if is_full { file.sync_all() } else { file.sync_data() }
        )
    }

    fn read_now(&self, file: FileHandle, offset: u64, length: usize) -> io::Result<DeviceOutcome> {
        directory::check_aligned(offset, length)?;
        let mut memory = aligned_memory(length);
        memory.resize(length, 0);
        let descriptor = self.files.descriptor(file);
        let file = File::from(descriptor.try_clone()?);
        traced!(
            self,
            Call::Read { file: descriptor.as_raw_fd(), offset, length },
            |()| i32::try_from(length).unwrap_or(i32::MAX),
            file.read_exact_at(&mut memory, offset)
        )?;
        Ok(DeviceOutcome::Read(memory))
    }

    fn allocate_now(&self, file: FileHandle, bytes: u64) -> io::Result<()> {
        let file = self.files.descriptor(file);
        let bytes_before = directory::shrink(&file, bytes)?;
        let allocated = traced!(
            self,
            Call::Allocate { file: file.as_raw_fd(), bytes },
            |()| 0,
            sockets::allocate(&file, bytes)
        );
        allocated.inspect_err(|_| directory::give_back(&file, bytes_before))
    }

    fn rename_now(&self, from: &str, to: &str) -> io::Result<()> {
        directory::checked_name(from)?;
        directory::checked_name(to)?;
        traced!(
            self,
            Call::Rename { from: from.to_owned(), to: to.to_owned() },
            |()| 0,
            std::fs::rename(self.path.join(from), self.path.join(to))
        )
    }

    fn remove_now(&self, name: &str) -> io::Result<()> {
        directory::checked_name(name)?;
        traced!(
            self,
            Call::Remove { name: name.to_owned() },
            |()| 0,
            std::fs::remove_file(self.path.join(name))
        )
    }
}

impl Device for PortableDevice {
    fn list(&mut self, token: OperationToken) {
        let listed = directory::list(&self.path).map(DeviceOutcome::Listed);
        self.finish(token, listed);
    }

    fn open(&mut self, name: &str, create: bool, token: OperationToken) {
        let opened = self.open_now(name, create);
        self.finish(token, opened);
    }

    fn close(&mut self, file: FileHandle) {
        self.files.remove(file);
    }

    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken) {
        let allocated = self.allocate_now(file, bytes);
        self.finish_done(token, allocated);
    }

    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken) {
        let written = self.write_now(file, offset, bytes);
        self.finish_done(token, written);
    }

    fn write_durable(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        token: OperationToken,
    ) {
        let written = self.write_now(file, offset, bytes).and_then(|()| self.sync_now(file, false));
        self.finish_done(token, written);
    }

    fn sync(&mut self, file: FileHandle, token: OperationToken) {
        let synced = self.sync_now(file, true);
        self.finish_done(token, synced);
    }

    fn sync_directory(&mut self, token: OperationToken) {
        let synced = traced!(
            self,
            Call::Sync { file: self.directory.as_raw_fd() },
            |()| 0,
            self.directory.sync_all()
        );
        self.finish_done(token, synced);
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken) {
        let read = self.read_now(file, offset, length);
        self.finish(token, read);
    }

    fn rename(&mut self, from: &str, to: &str, token: OperationToken) {
        let renamed = self.rename_now(from, to);
        self.finish_done(token, renamed);
    }

    fn remove(&mut self, name: &str, token: OperationToken) {
        let removed = self.remove_now(name);
        self.finish_done(token, removed);
    }

    fn flush(&mut self) {}

    fn poll(&mut self, events: &mut Vec<DeviceEvent>) {
        events.extend(self.done.drain(..));
    }

    fn wait(&mut self) {
        assert!(!self.done.is_empty(), "waiting for nothing");
    }
}
