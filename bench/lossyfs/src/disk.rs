//! The disk behind a mount: files and names under one lock, power, faults, and the operations on
//! their way.
//!
//! Operations are carried out by the one thread that calls [`Shared::run`]. Without power
//! everything fails and nothing changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::{Errno, FileAttr, ReplyData, ReplyEmpty, ReplyWrite};

use crate::content::Mark;
use crate::fault::{Failure, Faults, Operation, Tally};
use crate::filesystem::attributes;
use crate::pace::Pace;
use crate::power::{Cut, CutReport};
use crate::tree::{Number, Refusal, Tree};

/// What the mount and its handle share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) pace: Pace<Job>,
    pub(crate) tally: Tally,
    is_on: AtomicBool,
    is_lying: AtomicBool,
}

pub(crate) struct State {
    pub(crate) tree: Tree,
    faults: Faults,
}

/// An operation on its way.
pub(crate) enum Job {
    Read { number: Number, offset: u64, length: u32, reply: ReplyData },
    Write { number: Number, offset: u64, bytes: Vec<u8>, reply: ReplyWrite },
    Sync { number: Number, mark: Mark, reply: ReplyEmpty },
    SyncDirectory { number: Number, reply: ReplyEmpty },
}

impl Shared {
    pub(crate) fn new(budget: u64) -> Arc<Self> {
        let state = State { tree: Tree::new(budget), faults: Faults::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            pace: Pace::new(),
            tally: Tally::default(),
            is_on: AtomicBool::new(true),
            is_lying: AtomicBool::new(false),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    pub(crate) fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        change(&mut self.state().faults)
    }

    pub(crate) fn set_budget(&self, bytes: u64) {
        self.state().tree.budget = bytes;
    }

    pub(crate) fn taken(&self) -> u64 {
        self.state().tree.taken()
    }

    pub(crate) fn cut(&self, cut: Cut) -> CutReport {
        let mut state = self.state();
        self.is_on.store(false, Ordering::SeqCst);
        let unanswered = self.pace.len() as u64;
        CutReport { unanswered, ..state.tree.cut(cut) }
    }

    pub(crate) fn lie(&self, is_lying: bool) {
        self.is_lying.store(is_lying, Ordering::SeqCst);
    }

    pub(crate) fn power_on(&self) {
        self.is_on.store(true, Ordering::SeqCst);
    }

    /// The state for an operation on a node, unless power or a fault says no.
    fn begin(
        &self,
        operation: Operation,
        number: Number,
        name: &str,
    ) -> Result<MutexGuard<'_, State>, Errno> {
        self.tally.count(operation);
        let mut state = self.state();
        if !self.is_on.load(Ordering::SeqCst) {
            return Err(Errno::EIO);
        }
        let State { tree, faults } = &mut *state;
        let path = tree.node(number).map_or("", |node| node.path.as_str());
        let failure = if name.is_empty() {
            faults.judge(operation, path)
        } else {
            faults.judge(operation, &format!("{path}/{name}"))
        };
        match failure {
            None => Ok(state),
            Some(Failure::NoSpace) => Err(Errno::ENOSPC),
            Some(Failure::Device) => {
                // The kernel forgets dirty data with the failure it reports.
                if operation == Operation::Sync
                    && let Ok(content) = state.tree.content(number)
                {
                    content.sync_failed(content.mark());
                }
                Err(Errno::EIO)
            }
        }
    }

    pub(crate) fn change(
        &self,
        number: Number,
        name: &str,
        change: impl FnOnce(&mut Tree) -> Result<Number, Refusal>,
    ) -> Result<FileAttr, Errno> {
        let mut state = self.begin(Operation::Change, number, name)?;
        let number = change(&mut state.tree).map_err(errno)?;
        attributes(&state.tree, number)
    }

    /// Carries out operations until none will come.
    pub(crate) fn run(&self) {
        while let Some(job) = self.pace.next() {
            self.carry_out(job);
        }
    }

    fn carry_out(&self, job: Job) {
        match job {
            Job::Read { number, offset, length, reply } => {
                let read = self.begin(Operation::Read, number, "").and_then(|mut state| {
                    let content = state.tree.content(number).map_err(errno)?;
                    Ok(content.read(index(offset), length as usize).to_vec())
                });
                match read {
                    Ok(bytes) => reply.data(&bytes),
                    Err(error) => reply.error(error),
                }
            }
            Job::Write { number, offset, bytes, reply } => {
                let written = self.begin(Operation::Write, number, "").and_then(|mut state| {
                    let end = offset + bytes.len() as u64;
                    state.tree.check_room(number, end).map_err(errno)?;
                    state.tree.content(number).map_err(errno)?.write(index(offset), &bytes);
                    Ok(u32::try_from(bytes.len()).expect("requests are of some MiB"))
                });
                match written {
                    Ok(count) => reply.written(count),
                    Err(error) => reply.error(error),
                }
            }
            Job::Sync { number, mark, reply } => {
                answer(
                    reply,
                    self.begin(Operation::Sync, number, "").and_then(|mut state| {
                        let content = state.tree.content(number).map_err(errno)?;
                        if !self.is_lying.load(Ordering::SeqCst) {
                            content.sync(mark);
                        }
                        Ok(())
                    }),
                );
            }
            Job::SyncDirectory { number, reply } => {
                let begun = self.begin(Operation::SyncDirectory, number, "");
                answer(
                    reply,
                    begun.and_then(|mut state| state.tree.sync_directory(number).map_err(errno)),
                );
            }
        }
    }
}

pub(crate) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a machine of 64 bits")
}

pub(crate) fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Absent => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NotADirectory => Errno::ENOTDIR,
        Refusal::IsADirectory => Errno::EISDIR,
        Refusal::NoSpace => Errno::ENOSPC,
    }
}

pub(crate) fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
