//! A directory of files in memory as a device: everything happens at once and nothing fails.
//!
//! What recovery meets on it is what the image holds, so that faults are all in the image.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;

/// Names and contents, copied where they are changed.
pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// See the module's comment.
pub(crate) struct Image {
    files: Files,
    handles: Vec<String>,
    events: Vec<DeviceEvent>,
}

impl Image {
    pub(crate) fn new(files: Files) -> Self {
        Self { files, handles: Vec::new(), events: Vec::new() }
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    fn tell(&mut self, token: OperationToken, outcome: io::Result<DeviceOutcome>) {
        self.events.push(DeviceEvent { token, outcome });
    }

    fn file(&mut self, file: FileHandle) -> io::Result<&mut Vec<u8>> {
        let name = &self.handles[file.0 as usize];
        let file = self.files.get_mut(name).map(Arc::make_mut);
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn put(&mut self, file: FileHandle, offset: u64, bytes: &[u8]) -> io::Result<DeviceOutcome> {
        let content = self.file(file)?;
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(DeviceOutcome::Done)
    }
}

impl Device for Image {
    fn list(&mut self, token: OperationToken) {
        let files = self.files.iter().map(|(name, file)| (name.clone(), file.len() as u64));
        let listed = DeviceOutcome::Listed(files.collect());
        self.tell(token, Ok(listed));
    }

    fn open(&mut self, name: &str, create: bool, token: OperationToken) {
        if create {
            self.files.entry(name.to_owned()).or_default();
        }
        let outcome = match self.files.get(name) {
            Some(file) => {
                self.handles.push(name.to_owned());
                let handle = FileHandle(self.handles.len() as u32 - 1);
                Ok(DeviceOutcome::Opened(handle, file.len() as u64))
            }
            None => Err(io::ErrorKind::NotFound.into()),
        };
        self.tell(token, outcome);
    }

    fn close(&mut self, _file: FileHandle) {}

    fn allocate(&mut self, file: FileHandle, bytes: u64, token: OperationToken) {
        let outcome = self.file(file).map(|content| {
            content.resize(bytes as usize, 0);
            DeviceOutcome::Done
        });
        self.tell(token, outcome);
    }

    fn write(&mut self, file: FileHandle, offset: u64, bytes: Bytes, token: OperationToken) {
        let outcome = self.put(file, offset, &bytes);
        self.tell(token, outcome);
    }

    fn write_durable(
        &mut self,
        file: FileHandle,
        offset: u64,
        bytes: Bytes,
        token: OperationToken,
    ) {
        self.write(file, offset, bytes, token);
    }

    fn sync(&mut self, _file: FileHandle, token: OperationToken) {
        self.tell(token, Ok(DeviceOutcome::Done));
    }

    fn sync_directory(&mut self, token: OperationToken) {
        self.tell(token, Ok(DeviceOutcome::Done));
    }

    fn read(&mut self, file: FileHandle, offset: u64, length: usize, token: OperationToken) {
        let name = &self.handles[file.0 as usize];
        let found = self.files.get(name).ok_or_else(|| io::ErrorKind::NotFound.into());
        let outcome = found.and_then(|content| {
            let range = offset as usize..offset as usize + length;
            let piece = content.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut out: BytesMut = aligned_memory(length);
            out.extend_from_slice(piece);
            Ok(DeviceOutcome::Read(out))
        });
        self.tell(token, outcome);
    }

    fn rename(&mut self, from: &str, to: &str, token: OperationToken) {
        let outcome = match self.files.remove(from) {
            Some(file) => {
                self.files.insert(to.to_owned(), file);
                self.handles.iter_mut().filter(|name| *name == from).for_each(|name| {
                    to.clone_into(name);
                });
                Ok(DeviceOutcome::Done)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        };
        self.tell(token, outcome);
    }

    fn remove(&mut self, name: &str, token: OperationToken) {
        let removed = self.files.remove(name);
        let outcome = removed.map(|_| DeviceOutcome::Done);
        self.tell(token, outcome.ok_or_else(|| io::ErrorKind::NotFound.into()));
    }

    fn flush(&mut self) {}

    fn poll(&mut self, events: &mut Vec<DeviceEvent>) {
        events.append(&mut self.events);
    }

    fn wait(&mut self) {
        assert!(!self.events.is_empty(), "nothing is in flight");
    }
}
