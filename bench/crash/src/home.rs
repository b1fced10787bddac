//! The directory of a run: which one may be used, and what is kept in it.
//!
//! A directory is taken when it is missing, empty, or made by an earlier run that found nothing
//! wrong. Anything else is refused and not touched; what a violation left behind is evidence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MARKER: &str = "thalweg-crash-test.marker";
const MARKER_LINE: &str = "made by thalweg crash-test";
const VIOLATION: &str = "violation.txt";
const SERVER: &str = "server";

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// It holds something that is not of a run.
    #[error(
        "{0} is not empty and was not made by thalweg crash-test: choose an empty directory with \
         --data"
    )]
    Foreign(PathBuf),
    /// An earlier run found a violation in it.
    #[error(
        "{0} holds what an earlier run found wrong (see violation.txt in it): keep it, and choose \
         another directory with --data"
    )]
    Evidence(PathBuf),
    /// The file system refuses.
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

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> HomeError + 'a {
    move |source| HomeError::Io { action, path: path.to_owned(), source }
}

/// A directory that is ours.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// Takes a directory for a run; what an earlier run left in it without fault is removed.
    ///
    /// # Errors
    /// See [`HomeError`]; nothing was changed then, unless the file system failed midway.
    pub fn take(path: &Path) -> Result<Self, HomeError> {
        let marker = path.join(MARKER);
        if path.exists() {
            let mut entries = fs::read_dir(path).map_err(failed("look into", path))?;
            let is_ours =
                || fs::read_to_string(&marker).is_ok_and(|text| text.starts_with(MARKER_LINE));
            if entries.next().is_some() && !is_ours() {
                return Err(HomeError::Foreign(path.to_owned()));
            }
            if path.join(VIOLATION).exists() {
                return Err(HomeError::Evidence(path.to_owned()));
            }
        }
        fs::create_dir_all(path).map_err(failed("make", path))?;
        let text = format!("{MARKER_LINE}; its directory {SERVER} is removed by the next run\n");
        fs::write(&marker, text).map_err(failed("write", &marker))?;
        let home = Self { path: path.to_owned() };
        let server = home.server();
        if server.exists() {
            fs::remove_dir_all(&server).map_err(failed("empty", &server))?;
        }
        Ok(home)
    }

    /// The data directory of the server.
    pub fn server(&self) -> PathBuf {
        self.path.join(SERVER)
    }

    /// Keeps what was found wrong, so that no later run removes the evidence.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_violation(&self, text: &str) -> Result<(), HomeError> {
        let path = self.path.join(VIOLATION);
        fs::write(&path, text).map_err(failed("write", &path))
    }

    /// Bytes of all journal files of the server.
    pub fn journal_bytes(&self) -> u64 {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        entries(&self.server())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("journal-"))
            .flat_map(|entry| entries(&entry.path()).collect::<Vec<_>>())
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a missing, an empty and an own directory are taken, and that an own one begins
    /// without the server of before.
    #[test]
    fn own_and_empty_directories_are_taken() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("deep/run");
        let home = Home::take(&path).expect("a missing one is made");
        fs::create_dir_all(home.server().join("journal-0")).expect("it is ours");
        fs::write(home.server().join("journal-0/file"), [7; 100]).expect("it is ours");
        assert_eq!(home.journal_bytes(), 100);
        let home = Home::take(&path).expect("an own one is taken again");
        assert!(!home.server().exists());
        Home::take(parent.path().join("empty").as_path()).expect("an empty one is taken");
    }

    /// Shows that a directory with anything else in it is refused and stays as it is.
    #[test]
    fn a_foreign_directory_is_refused_untouched() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        fs::write(parent.path().join("precious"), "data").expect("a file");
        let error = Home::take(parent.path()).expect_err("not ours");
        assert!(matches!(error, HomeError::Foreign(_)), "{error}");
        assert_eq!(fs::read_dir(parent.path()).expect("it is there").count(), 1);
    }

    /// Shows that the evidence of a violation is not removed by a later run.
    #[test]
    fn evidence_is_not_overwritten() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let home = Home::take(parent.path()).expect("it is empty");
        fs::create_dir_all(home.server()).expect("it is ours");
        home.keep_violation("S1").expect("it is ours");
        let error = Home::take(parent.path()).expect_err("evidence");
        assert!(matches!(error, HomeError::Evidence(_)), "{error}");
        assert!(home.server().exists());
    }
}
