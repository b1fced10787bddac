//! What clients asked and were told, given to the checker as it happens, and to a file when wanted.
//!
//! An invocation is recorded before its request is sent and a completion after its answer was
//! taken, so the order of the records is an order of real time. The first contradiction is told to
//! whoever recorded it, and ends the run.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use thalweg_checker::id::{OperationId, SessionId};
use thalweg_checker::record::{Happened, Operation, Outcome, Record, Refusal};
use thalweg_checker::{Checker, Summary};

use crate::wire::Trouble;

/// Newest records that are told with a violation.
const RECENT: usize = 200;

/// A history that is judged while it is made. Shared by all threads of a run.
pub struct History {
    operations: AtomicU64,
    sessions: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    checker: Checker,
    begun: Instant,
    recent: VecDeque<Record>,
    file: Option<BufWriter<File>>,
    is_over: bool,
}

impl History {
    /// An empty history; every record goes to `file` too, as a JSON line.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let recent = VecDeque::with_capacity(RECENT);
        let (checker, begun) = (Checker::new(), Instant::now());
        let inner = Mutex::new(Inner { checker, begun, recent, file, is_over: false });
        Ok(Self { operations: AtomicU64::new(0), sessions: AtomicU64::new(0), inner })
    }

    /// The name of a new connection.
    pub fn session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Something is about to be asked for.
    ///
    /// # Errors
    /// [`Trouble::Wrong`] with the contradiction; so all that follow.
    pub fn invoke(&self, session: SessionId, operation: Operation) -> Result<OperationId, Trouble> {
        let id = OperationId(self.operations.fetch_add(1, Ordering::Relaxed) + 1);
        self.note(Happened::Invoke { id, session, operation })?;
        Ok(id)
    }

    /// It was done, and this was told.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub fn ok(&self, id: OperationId, outcome: Outcome) -> Result<(), Trouble> {
        self.note(Happened::Ok { id, outcome })
    }

    /// It was refused.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub fn fail(&self, id: OperationId, refusal: Refusal) -> Result<(), Trouble> {
        self.note(Happened::Fail { id, refusal })
    }

    /// Nobody knows what became of it.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub fn unknown(&self, id: OperationId) -> Result<(), Trouble> {
        self.note(Happened::Info { id })
    }

    /// Anything else that happened.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    pub fn note(&self, happened: Happened) -> Result<(), Trouble> {
        let mut inner = self.inner.lock().expect("nobody panics with it");
        let inner = &mut *inner;
        if inner.is_over {
            // Another thread has told the contradiction; a broken checker judges nothing more.
            return Err(Trouble::Stopped);
        }
        let at = u64::try_from(inner.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let record = Record { at, happened };
        if let Some(file) = &mut inner.file {
            let line = serde_json::to_string(&record).map_err(|error| write_error(&error))?;
            writeln!(file, "{line}").map_err(|error| write_error(&error))?;
        }
        let verdict = inner.checker.observe(&record);
        if inner.recent.len() == RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(record);
        let Err(violation) = verdict else { return Ok(()) };
        inner.is_over = true;
        if let Some(file) = &mut inner.file {
            file.flush().map_err(|error| write_error(&error))?;
        }
        let mut text = format!("{violation}\nthe last records:\n");
        for record in &inner.recent {
            text.push_str(&serde_json::to_string(record).unwrap_or_default());
            text.push('\n');
        }
        Err(Trouble::Wrong(text))
    }

    /// What was judged so far.
    pub fn summary(&self) -> Summary {
        *self.inner.lock().expect("nobody panics with it").checker.summary()
    }

    /// Ends the history.
    ///
    /// # Errors
    /// [`Trouble::Wrong`] with what only the end shows.
    pub fn finish(self) -> Result<Summary, Trouble> {
        let inner = self.inner.into_inner().expect("nobody panics with it");
        if let Some(mut file) = inner.file {
            file.flush().map_err(|error| write_error(&error))?;
        }
        inner.checker.finish().map_err(|violation| Trouble::Wrong(violation.to_string()))
    }
}

fn write_error(error: &dyn std::error::Error) -> Trouble {
    Trouble::Wrong(format!("the history cannot be written: {error}"))
}
