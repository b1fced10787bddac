//! Histories in files: JSON lines, one record each. Empty lines and lines that begin with `#` are
//! skipped.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::checker::Checker;
use crate::record::Record;
use crate::violation::{Summary, Violation};

/// Why a history in a file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("read history {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line cannot be read.
    #[error("read line {line} of the history")]
    Line {
        /// The line, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A line is not a record.
    #[error("line {line} of the history is not a record: {reason}")]
    Record {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The history cannot be that of a right server.
    #[error("line {line}: {violation}")]
    Violated {
        /// The line with which the contradiction is complete, from 1; the last one when only the
        /// end shows it.
        line: u64,
        /// What contradicts what.
        violation: Violation,
    },
}

/// Judges the history in this file.
///
/// # Errors
/// [`FileError`]; `Violated` is the verdict that something is wrong with the server, everything
/// else that the file cannot be judged.
pub fn judge_file(path: &Path) -> Result<Summary, FileError> {
    let file =
        File::open(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })?;
    judge_lines(BufReader::new(file))
}

/// Judges a history line by line.
///
/// # Errors
/// As [`judge_file`].
pub fn judge_lines(mut lines: impl BufRead) -> Result<Summary, FileError> {
    let mut checker = Checker::new();
    let mut text = String::new();
    let mut line = 0;
    loop {
        text.clear();
        let read =
            lines.read_line(&mut text).map_err(|source| FileError::Line { line: line + 1, source });
        if read? == 0 {
            break;
        }
        line += 1;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let record: Record = serde_json::from_str(text)
            .map_err(|error| FileError::Record { line, reason: error.to_string() })?;
        checker
            .take(record.happened)
            .map_err(|violation| FileError::Violated { line, violation })?;
    }
    checker.finish().map_err(|violation| FileError::Violated { line, violation })
}
