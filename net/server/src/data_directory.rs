//! The data directory: an exclusive lock for the life of the process and a marker that says what
//! the directory is. Nothing in it is touched before both are known to be ours.
//!
//! The marker is a text file of `key = value` lines, replaced as a whole (written aside, synced,
//! renamed, directory synced), so that a crash leaves the old one or the new one.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::patience;

/// Version of everything below the data directory. A directory of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

const MARKER: &str = "thalweg.marker";
const LOCK: &str = "thalweg.lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "data directory {path} is in use by another process: stop that one, or choose another \
         directory with --data; if it was killed just now, its last writes may still be ending: \
         start again"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Not made by this program, and not empty.
    #[error("{path} is not empty and has no {MARKER}: choose an empty directory with --data")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Another format version.
    #[error(
        "data directory {path} has format version {found}, this program reads and writes version \
         {FORMAT_VERSION}: use the program that wrote it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What the marker says.
        found: String,
    },
    /// A shard's journal is gone: to go on without it would be to deny what it held.
    #[error("journal directory {path} is missing: bring it back, it holds what was acknowledged")]
    MissingJournal {
        /// The journal directory.
        path: PathBuf,
    },
    /// The marker cannot be understood.
    #[error("marker {path} is damaged: {detail}")]
    Marker {
        /// The marker file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The number of shards differs from what the directory was made for.
    #[error(
        "data directory {path} was made for {made} shards and {wanted} are asked for: \
         start with --shards {made}"
    )]
    Shards {
        /// The directory.
        path: PathBuf,
        /// As made.
        made: u16,
        /// As asked.
        wanted: u16,
    },
    /// The file system says no.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// 128 random bits as 32 hex digits, made with the directory.
    pub instance: String,
    /// Containers, fixed when the directory is made.
    pub containers: u16,
    /// Shards, each with a journal of its own.
    pub shards: u16,
}

impl Marker {
    /// Half of the instance's bits, as journal files carry them.
    pub fn instance_bits(&self) -> u64 {
        u128::from_str_radix(&self.instance, 16).map_or(0, |bits| bits as u64)
    }

    /// Reads the text of the marker in the data directory `path`.
    ///
    /// # Errors
    /// [`Error::Version`] for another format, [`Error::Marker`] for a text that is no marker.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let marker = path.join(MARKER);
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().to_owned())
                .ok_or_else(|| damaged(&marker, format!("{key} is missing")))
        };
        // Whatever the checksum says: one of another version may be made in another way.
        let sum = value("checksum").ok();
        let body = text.find("checksum").map_or(text, |end| &text[..end]);
        let is_sound = sum.as_deref() == Some(checksum(body).as_str()) && text == sealed(body);
        let version = value("format-version")?;
        if sum.is_some() && !is_sound {
            let detail = format!(
                "its checksum does not fit; it says format version {version}, this program reads \
                 and writes version {FORMAT_VERSION}"
            );
            return Err(damaged(&marker, detail));
        }
        if version != FORMAT_VERSION.to_string() {
            return Err(Error::Version { path: path.to_owned(), found: version });
        }
        if !is_sound {
            return Err(damaged(&marker, "checksum is missing".to_owned()));
        }
        let number = |key: &str| {
            let text = value(key)?;
            let number: u16 = text
                .parse()
                .map_err(|_| damaged(&marker, format!("{key} is not a number: {text}")))?;
            if number == 0 { Err(damaged(&marker, format!("{key} is 0"))) } else { Ok(number) }
        };
        let instance = value("instance")?;
        if u128::from_str_radix(&instance, 16).is_err() {
            return Err(damaged(&marker, format!("instance is not hexadecimal: {instance}")));
        }
        Ok(Self { instance, containers: number("containers")?, shards: number("shards")? })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, containers, shards } = self;
        let body = format!(
            "# Made by thalweg. Do not edit: it says what the files beside it mean.\n\
             format-version = {FORMAT_VERSION}\ninstance = {instance}\n\
             containers = {containers}\nshards = {shards}\n"
        );
        formatter.write_str(&sealed(&body))
    }
}

/// CRC32C of a marker's text before the line that holds it.
fn checksum(body: &str) -> String {
    format!("{:08x}", crc32c::crc32c(body.as_bytes()))
}

/// A marker's text with the checksum behind it.
fn sealed(body: &str) -> String {
    format!("{body}checksum = {}\n", checksum(body))
}

/// An opened and locked data directory. The lock ends with this value or the process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    marker: Marker,
    lock: File,
}

impl DataDirectory {
    /// Opens `path`, or makes it with `shards` (or `default_shards`) shards of
    /// `containers_per_shard` containers each.
    ///
    /// # Errors
    /// See [`Error`]; nothing was changed then, but for an empty directory and a lock file.
    pub fn open(
        path: &Path,
        shards: Option<u16>,
        default_shards: u16,
        containers_per_shard: u16,
    ) -> Result<Self, Error> {
        create_durably(path)?;
        let marker_path = path.join(MARKER);
        if !marker_path.exists() && !is_unused(path)? {
            return Err(Error::Foreign { path: path.to_owned() });
        }
        let lock = lock(path)?;
        let marker = if marker_path.exists() {
            let marker = read_marker(path, &marker_path)?;
            if let Some(wanted) = shards.filter(|wanted| *wanted != marker.shards) {
                return Err(Error::Shards { path: path.to_owned(), made: marker.shards, wanted });
            }
            marker
        } else {
            let shards = shards.unwrap_or(default_shards);
            let containers = shards * containers_per_shard;
            // Before the marker, which says that they are there.
            for shard in 0..shards {
                let journal = journal(path, shard);
                fs::create_dir_all(&journal).map_err(io_error("create directory", &journal))?;
            }
            sync_directory(path)?;
            let marker = Marker { instance: new_instance()?, containers, shards };
            write_marker(path, &marker_path, &marker)?;
            marker
        };
        sync_directory(path)?;
        if let Some(path) =
            (0..marker.shards).map(|shard| journal(path, shard)).find(|at| !at.is_dir())
        {
            return Err(Error::MissingJournal { path });
        }
        Ok(Self { path: path.to_owned(), marker, lock })
    }

    /// Locks a data directory that exists and changes nothing in it.
    ///
    /// # Errors
    /// When it is no data directory, cannot be understood, or somebody has it.
    pub fn reopen(path: &Path) -> Result<Self, Error> {
        let marker = marker(path)?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), marker, lock })
    }

    /// The locked file. Whoever keeps a copy of it open keeps the lock.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// What the marker says.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The directory of a shard's journal.
    pub fn journal(&self, shard: u16) -> PathBuf {
        journal(&self.path, shard)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Name of a shard's journal directory below the data directory.
fn journal_name(shard: u16) -> String {
    format!("journal-{shard}")
}

/// Takes the lock of a data directory.
fn lock(path: &Path) -> Result<File, Error> {
    let lock_path = path.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(io_error("open lock file", &lock_path))?;
    match try_lock(&lock) {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &lock_path)(source)),
    }
}

/// Tries for a while: the lock of a killed process is free only when the last of its writes has
/// ended.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    patience::retry(|| lock.try_lock(), |error| matches!(error, TryLockError::WouldBlock))
}

/// What the marker of a data directory says, without locking or changing anything.
///
/// # Errors
/// When there is none, it cannot be read, or is of another version.
pub fn marker(path: &Path) -> Result<Marker, Error> {
    read_marker(path, &path.join(MARKER))
}

/// Directory of a shard's journal in the data directory `path`.
pub fn journal(path: &Path, shard: u16) -> PathBuf {
    path.join(journal_name(shard))
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path: path.clone(), source }
}

/// A directory without a marker may hold a lock file and what an interrupted first start left.
fn is_unused(path: &Path) -> Result<bool, Error> {
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let entry = entry.map_err(io_error("list", path))?;
        let name = entry.file_name();
        let is_journal = name.to_string_lossy().starts_with("journal-");
        // An empty directory is all that can be there of a journal before the marker.
        let is_empty = || fs::read_dir(entry.path()).is_ok_and(|mut found| found.next().is_none());
        let is_ours = name == LOCK
            || name.to_string_lossy().starts_with(MARKER)
            || (is_journal && is_empty());
        if !is_ours && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn new_instance() -> Result<String, Error> {
    let source = Path::new("/dev/urandom");
    let mut bits = [0; 16];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bits))
        .map_err(io_error("read", source))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

fn read_marker(path: &Path, marker: &Path) -> Result<Marker, Error> {
    let text = fs::read_to_string(marker).map_err(io_error("read marker", marker))?;
    Marker::parse(path, &text)
}

fn damaged(marker: &Path, detail: String) -> Error {
    Error::Marker { path: marker.to_owned(), detail }
}

fn write_marker(path: &Path, marker: &Path, content: &Marker) -> Result<(), Error> {
    let aside = path.join(format!("{MARKER}.new"));
    let mut file = File::create(&aside).map_err(io_error("create", &aside))?;
    file.write_all(content.to_string().as_bytes()).map_err(io_error("write", &aside))?;
    file.sync_all().map_err(io_error("sync", &aside))?;
    fs::rename(&aside, marker).map_err(io_error("rename to", marker))?;
    sync_directory(path)
}

/// Makes the directory, and those that lead to it, each known to its parent on the disk: else a
/// power cut could take the name and with it all that lies below.
fn create_durably(path: &Path) -> Result<(), Error> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|it| !it.exists()).collect();
    if missing.is_empty() && !path.join(MARKER).exists() {
        // A first start may have been killed right after it had made the directory.
        missing.push(path);
    }
    fs::create_dir_all(path).map_err(io_error("create data directory", path))?;
    for made in missing.iter().rev() {
        match made.parent() {
            Some(parent) if parent != Path::new("") => sync_directory(parent)?,
            Some(_) => sync_directory(Path::new("."))?,
            None => {}
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a marker with any one bit flipped is refused, and the file named.
    #[test]
    fn a_flipped_bit_in_the_marker_is_refused() {
        let home = tempfile::tempdir().expect("a temporary directory");
        drop(DataDirectory::open(home.path(), Some(1), 1, 8).expect("a new directory"));
        let path = home.path().join(MARKER);
        let sound = fs::read(&path).expect("the marker");
        for bit in 0..8 * sound.len() {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).expect("a damaged marker");
            let error = DataDirectory::open(home.path(), None, 1, 8).expect_err("bit {bit}");
            assert!(error.to_string().contains(MARKER), "bit {bit}: {error}");
        }
        fs::write(&path, &sound).expect("the marker as it was");
        DataDirectory::open(home.path(), None, 1, 8).expect("sound again");
    }

    /// Shows that the journal of a shard that is gone is not taken for an empty one.
    #[test]
    fn a_missing_journal_directory_is_refused() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let made = DataDirectory::open(home.path(), Some(2), 1, 8).expect("a new directory");
        let journal = made.journal(1);
        drop(made);
        fs::remove_dir(&journal).expect("an empty directory goes");
        let error = DataDirectory::open(home.path(), None, 1, 8).expect_err("a journal is gone");
        assert!(error.to_string().contains("journal-1"), "{error}");
        assert!(!journal.exists());
    }

    /// Shows that a directory keeps what it was made with, and is refused for another number of
    /// shards without being changed.
    #[test]
    fn a_directory_keeps_its_marker() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let made = DataDirectory::open(home.path(), Some(3), 1, 8).expect("a new directory");
        let marker = made.marker().clone();
        assert_eq!((marker.shards, marker.containers), (3, 24));
        assert!(made.journal(2).is_dir());
        drop(made);
        let error = DataDirectory::open(home.path(), Some(2), 1, 8).expect_err("another number");
        assert!(error.to_string().contains("--shards 3"), "{error}");
        let again = DataDirectory::open(home.path(), None, 1, 8).expect("the same directory");
        assert_eq!(again.marker(), &marker);
    }

    /// Shows that a second owner is refused while the first lives.
    #[test]
    fn a_second_start_is_refused() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let first = DataDirectory::open(home.path(), None, 1, 8).expect("the first");
        let error = DataDirectory::open(home.path(), None, 1, 8).expect_err("the second");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(first);
        DataDirectory::open(home.path(), None, 1, 8).expect("free again");
    }

    /// Shows that other people's files and other versions are refused and left alone.
    #[test]
    fn foreign_and_future_directories_are_refused() {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::write(home.path().join("letter.txt"), "dear").expect("a file");
        let error = DataDirectory::open(home.path(), None, 1, 8).expect_err("foreign");
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert!(!home.path().join(LOCK).exists());

        let home = tempfile::tempdir().expect("a temporary directory");
        let marker = "format-version = 2\ninstance = x\ncontainers = 8\nshards = 1\n";
        fs::write(home.path().join(MARKER), marker).expect("a marker");
        let error = DataDirectory::open(home.path(), None, 1, 8).expect_err("future");
        assert!(error.to_string().contains("version 2"), "{error}");
        assert_eq!(fs::read_to_string(home.path().join(MARKER)).expect("unchanged"), marker);
    }
}
