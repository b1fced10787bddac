//! How much disk space there is, for the default journal budget.

use std::fs;
use std::io;
use std::path::Path;

/// Bytes that the journals may take when nothing is configured: 80 % of what is free for us, the
/// journals' own files counted as free.
///
/// # Errors
/// When the file system does not tell.
pub(crate) fn default_journal_bytes(data: &Path, journals: &[impl AsRef<Path>]) -> io::Result<u64> {
    let system = rustix::fs::statvfs(data)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let mut own = 0_u64;
    for journal in journals {
        for entry in fs::read_dir(journal)? {
            own = own.saturating_add(entry?.metadata()?.len());
        }
    }
    Ok(free.saturating_add(own) / 5 * 4)
}
