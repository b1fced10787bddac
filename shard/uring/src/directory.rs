//! What both devices know about a directory of files: names, alignment, open files, error kinds.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use thalweg_core::env::device::FileHandle;
use thalweg_core::frame::aligned_memory;
use thalweg_core::position::BLOCK_BYTES;

/// Rights of a new file: the owner's only.
pub(crate) const FILE_MODE: u32 = 0o600;

/// How files are opened: past the page cache, so that a sync covers nothing but the disk's own.
pub(crate) fn open_flags(create: bool) -> i32 {
    let create = if create { libc::O_CREAT } else { 0 };
    libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NOFOLLOW | create
}

/// A name within the directory, as the kernel takes it.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for a name that is empty, leads elsewhere or holds a zero byte.
pub(crate) fn checked_name(name: &str) -> io::Result<CString> {
    let invalid = || {
        io::Error::new(io::ErrorKind::InvalidInput, format!("not a file of the directory: {name}"))
    };
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(invalid());
    }
    CString::new(name).map_err(|_| invalid())
}

/// Refuses what direct I/O could not do.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when offset or length is not a whole number of blocks, or there
/// is nothing to transfer.
pub(crate) fn check_aligned(offset: u64, length: usize) -> io::Result<()> {
    let is_aligned =
        offset.is_multiple_of(BLOCK_BYTES) && (length as u64).is_multiple_of(BLOCK_BYTES);
    if is_aligned && length > 0 {
        return Ok(());
    }
    let text = format!("transfer of {length} bytes at {offset} is not a number of blocks");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The bytes themselves when their memory is aligned to a block, else an aligned copy.
pub(crate) fn aligned(bytes: Bytes) -> Bytes {
    if (bytes.as_ptr() as usize).is_multiple_of(BLOCK_BYTES as usize) {
        return bytes;
    }
    let mut memory = aligned_memory(bytes.len());
    memory.extend_from_slice(&bytes);
    memory.freeze()
}

/// Files of the directory with their sizes, sorted by name. Names that are not text appear with
/// replacement characters; nobody but us writes here, and we write text.
pub(crate) fn list(path: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut listed = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            listed.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
        }
    }
    listed.sort();
    Ok(listed)
}

/// Cuts the file to `bytes` when it is longer. Returns its size then.
pub(crate) fn shrink(file: &OwnedFd, bytes: u64) -> io::Result<u64> {
    let file = File::from(file.try_clone()?);
    let size = file.metadata()?.len();
    if size > bytes {
        file.set_len(bytes)?;
    }
    Ok(size.min(bytes))
}

/// Gives back what a failed allocation may have taken already: a full disk would otherwise stay
/// full until the file is removed.
pub(crate) fn give_back(file: &OwnedFd, bytes: u64) {
    // The allocation's own failure is what counts and is told.
    let _ = file.try_clone().and_then(|file| File::from(file).set_len(bytes));
}

/// The error as the journal expects it: every way of having no space is `StorageFull`.
pub(crate) fn storage_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            io::Error::new(io::ErrorKind::StorageFull, error.to_string())
        }
        _ => error,
    }
}

/// Open files by handle. Handles count up and are not used again.
#[derive(Default)]
pub(crate) struct OpenFiles {
    files: BTreeMap<FileHandle, Rc<OwnedFd>>,
    next: u32,
}

impl OpenFiles {
    /// Takes in a file; gives its handle and size.
    pub(crate) fn add(&mut self, descriptor: OwnedFd) -> io::Result<(FileHandle, u64)> {
        let file = File::from(descriptor);
        let bytes = file.metadata()?.len();
        let handle = FileHandle(self.next);
        self.next = self.next.checked_add(1).expect("2^32 openings are out of reach");
        self.files.insert(handle, Rc::new(OwnedFd::from(file)));
        Ok((handle, bytes))
    }

    /// The file's descriptor.
    ///
    /// # Panics
    /// When the file is not open: handles come from us.
    pub(crate) fn descriptor(&self, file: FileHandle) -> Rc<OwnedFd> {
        self.files.get(&file).expect("a file handle is used only while open").clone()
    }

    /// Forgets the file. Its descriptor closes with the last operation that holds it.
    pub(crate) fn remove(&mut self, file: FileHandle) {
        self.files.remove(&file).expect("a file is closed once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of having no space is told as the kind that the journal waits on; others stay.
    #[test]
    fn no_space_is_storage_full() {
        for code in [libc::ENOSPC, libc::EDQUOT] {
            let error = storage_error(io::Error::from_raw_os_error(code));
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        let error = storage_error(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
}
