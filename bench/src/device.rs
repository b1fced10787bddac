//! The limit that the device sets: durable writes to pre-written files with direct I/O, once as
//! plain system calls and once through a ring as the journal does them. Which of the two is faster
//! depends on how busy the processors are; scenarios compare with the faster one.
//!
//! The files lie in a directory of their own below the data directory, so that they share its
//! device and file system, and are removed at the end.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::OFlags;
use thalweg_uring::probe::durable_write;
use thalweg_uring::{DiskMeasurement, measure};

/// Direct I/O wants addresses, offsets and lengths in units of this.
const ALIGNMENT: usize = 4096;

/// Length of each file; a run wraps around. Together with [`DATA_BYTES`] it makes the yardstick
/// write what a log writes: fresh data to places not written a moment ago. One hot buffer written
/// round and round a small file measures somebody's cache.
const FILE_BYTES: u64 = 256 << 20;

/// Data that large writes go through, for each file.
const DATA_BYTES: usize = 32 << 20;

/// A directory of pre-written files.
pub(crate) struct Device {
    directory: PathBuf,
    files: Vec<DeviceFile>,
}

impl Device {
    /// Makes `count` files in a new directory below `data_directory` and writes them full.
    pub(crate) fn prepare(data_directory: &Path, count: usize) -> anyhow::Result<Self> {
        let directory = data_directory.join(format!("bench-device-{}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut device = Self { directory, files: Vec::new() };
        for index in 0..count {
            device.files.push(DeviceFile::prepare(&device.directory.join(index.to_string()))?);
        }
        Ok(device)
    }

    /// The first file.
    pub(crate) fn first(&mut self) -> &mut DeviceFile {
        &mut self.files[0]
    }

    /// Durable writes through a ring, measured in the same directory: half of those of 4 KiB took
    /// at most this, and bytes per second of those of 1 MiB, four at a time. Takes about a second.
    pub(crate) fn through_ring(&self) -> anyhow::Result<DiskMeasurement> {
        let (kind, _) = durable_write(&self.directory)?;
        measure(&self.directory, kind).context("measure the device through a ring")
    }

    /// Durable writes of `bytes` each on all files at once, one under way on each, for `length`.
    /// Gives bytes per second.
    pub(crate) fn bandwidth(&mut self, bytes: usize, length: Duration) -> anyhow::Result<f64> {
        let start = Instant::now();
        let written: anyhow::Result<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .files
                .iter_mut()
                .map(|file| {
                    scope.spawn(move || -> anyhow::Result<u64> {
                        let mut written = 0;
                        while start.elapsed() < length {
                            file.write_durable(bytes)?;
                            written += bytes as u64;
                        }
                        Ok(written)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
        });
        Ok(written? as f64 / start.elapsed().as_secs_f64())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("remove {}: {error}", self.directory.display());
        }
    }
}

/// One pre-written file and where the next write goes.
pub(crate) struct DeviceFile {
    file: File,
    buffer: Vec<u8>,
    aligned_from: usize,
    /// Where in the data the next write begins.
    data_at: usize,
    at: u64,
}

/// Largest write.
const WRITE_BYTES_MAX: usize = 1 << 20;

impl DeviceFile {
    fn prepare(path: &Path) -> anyhow::Result<Self> {
        let direct = i32::try_from(OFlags::DIRECT.bits())?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(direct)
            .open(path)
            .with_context(|| format!("open {} for direct I/O", path.display()))?;
        let buffer = vec![0xA5; DATA_BYTES + ALIGNMENT];
        let aligned_from = buffer.as_ptr().align_offset(ALIGNMENT);
        let mut prepared = Self { file, buffer, aligned_from, data_at: 0, at: 0 };
        while prepared.at < FILE_BYTES {
            prepared.write(WRITE_BYTES_MAX)?;
        }
        prepared.file.sync_all()?;
        prepared.at = 0;
        Ok(prepared)
    }

    /// Writes and makes durable the next `bytes`, a multiple of 4 KiB up to 1 MiB.
    pub(crate) fn write_durable(&mut self, bytes: usize) -> anyhow::Result<()> {
        if self.at + bytes as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.write(bytes)?;
        Ok(self.file.sync_data()?)
    }

    fn write(&mut self, bytes: usize) -> anyhow::Result<()> {
        if self.data_at + bytes > DATA_BYTES {
            self.data_at = 0;
        }
        let data = &self.buffer[self.aligned_from + self.data_at..][..bytes];
        self.file.write_all_at(data, self.at)?;
        self.data_at += bytes;
        self.at += bytes as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that both measurements run and leave nothing behind.
    #[test]
    fn the_device_is_measured_and_left_clean() {
        // In the tree: a temporary file system may not take direct I/O.
        let target = Path::new(env!("CARGO_MANIFEST_DIR"));
        let place = tempfile::tempdir_in(target).expect("the tree is writable");
        let mut device = Device::prepare(place.path(), 2).expect("direct I/O works here");
        device.first().write_durable(4096).expect("a small write");
        assert!(device.through_ring().expect("a ring").latency_p50 > Duration::ZERO);
        assert!(device.bandwidth(1 << 20, Duration::from_millis(20)).expect("it runs") > 0.0);
        drop(device);
        assert_eq!(fs::read_dir(place.path()).expect("it is there").count(), 0);
    }
}
