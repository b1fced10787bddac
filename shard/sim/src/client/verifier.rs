//! Reads everything back when all is quiet, for the oracle to judge; looks that all of it is there.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_wire::{
    Command, GetStreamSegmentInfo, IterationArguments, ReadSegment, ReadTableEntries, TableEntry,
};

use super::counter::{ask_counter, counter_in};
use super::reader::read_answer;
use super::sequential::{Script, Step, unexpected};
use super::table::ask_keys;
use super::{Context, no_token};
use crate::trace::{check, trace};

#[derive(Clone, Debug)]
enum Task {
    Segment(String),
    /// A counter in an attribute of this segment.
    Counter(String),
    Table {
        name: String,
        key_length: usize,
    },
    Gone(String),
}

#[derive(Debug)]
enum Question {
    Info,
    Read { offset: u64, length: u64 },
    Counter,
    Keys(Vec<Bytes>),
    Iterate,
    Gone,
}

/// The script.
pub(crate) struct Verifier {
    tasks: Vec<Task>,
    /// Where the present task stands: what is to be asked next.
    read: Option<(u64, u64)>,
    met: BTreeMap<Bytes, TableEntry>,
    token: Bytes,
    from: Bytes,
    is_iterating: bool,
    question: Option<Question>,
}

impl Verifier {
    /// Reads back these segments, tables (with their key lengths) and counters, and looks that
    /// these names are gone.
    pub(crate) fn new(
        segments: Vec<String>,
        counters: Vec<String>,
        tables: Vec<(String, usize)>,
        gone: Vec<String>,
    ) -> Self {
        let tables = tables.into_iter().map(|(name, key_length)| Task::Table { name, key_length });
        let tasks = segments
            .into_iter()
            .map(Task::Segment)
            .chain(counters.into_iter().map(Task::Counter))
            .chain(tables)
            .chain(gone.into_iter().map(Task::Gone))
            .rev()
            .collect();
        Self {
            tasks,
            read: None,
            met: BTreeMap::new(),
            token: Bytes::new(),
            from: Bytes::new(),
            is_iterating: false,
            question: None,
        }
    }

    fn info(&mut self, name: &str, request: i64, question: Question) -> Command {
        self.question = Some(question);
        let segment = name.into();
        GetStreamSegmentInfo { request_id: request, segment, delegation_token: no_token() }.into()
    }

    fn walk(&mut self, context: &mut Context<'_>, name: &str, request: i64) -> Command {
        if !self.is_iterating {
            let keys = context.shared.history.keys(name);
            if !keys.is_empty() {
                let command = ask_keys(name, request, &keys);
                self.question = Some(Question::Keys(keys));
                return command;
            }
            self.is_iterating = true;
        }
        if self.met.is_empty() {
            context.shared.history.walk_begins(context.client, name);
        }
        self.question = Some(Question::Iterate);
        ReadTableEntries {
            request_id: request,
            segment: name.into(),
            delegation_token: no_token(),
            suggested_entry_count: 7,
            iteration: IterationArguments {
                continuation_token: self.token.clone(),
                from_key: self.from.clone(),
                to_key: Bytes::new(),
            },
        }
        .into()
    }

    fn iterated(
        &mut self,
        context: &mut Context<'_>,
        name: &str,
        key_length: usize,
        reply: &Command,
    ) {
        let Command::TableEntriesRead(page) = reply else {
            unexpected(context, "an iteration", reply);
            return;
        };
        for entry in &page.entries {
            let earlier = self.met.insert(entry.key.key.clone(), entry.clone());
            let key = &entry.key.key;
            check!(context.trace(), "S12", earlier.is_none(), "{name}: {key:?} iterated twice");
        }
        if let Some(last) = page.entries.last() {
            if key_length == 0 {
                self.token = page.continuation_token.clone();
            } else {
                let mut next = last.key.key.to_vec();
                for byte in next.iter_mut().rev() {
                    *byte = byte.wrapping_add(1);
                    if *byte != 0 {
                        break;
                    }
                }
                self.from = next.into();
            }
            return;
        }
        let met = std::mem::take(&mut self.met);
        context.shared.history.walk_ends(context.client, met.values());
        self.is_iterating = false;
        self.token = Bytes::new();
        self.from = Bytes::new();
        self.tasks.pop();
    }

    fn segment_answered(&mut self, context: &mut Context<'_>, name: &str, reply: &Command) {
        match self.question.take() {
            Some(Question::Info) => {
                read_answer(context, name, 0, reply);
                if let Command::StreamSegmentInfo(info) = reply {
                    self.read = Some((info.start_offset as u64, info.write_offset as u64));
                }
            }
            Some(Question::Read { offset, length }) => {
                read_answer(context, name, offset, reply);
                let Command::SegmentRead(read) = reply else { return };
                let progresses = !read.data.is_empty();
                check!(
                    context.trace(),
                    "S1",
                    progresses,
                    "{name}: nothing at {offset} of {length}"
                );
                self.read = Some((offset + read.data.len() as u64, length));
                if !progresses {
                    self.tasks.pop();
                    self.read = None;
                }
            }
            _ => {}
        }
    }
}

impl Script for Verifier {
    fn name(&self) -> &'static str {
        "verifier"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        let Some(task) = self.tasks.last().cloned() else { return Step::Done };
        match task {
            Task::Segment(name) => {
                let Some((offset, length)) = self.read else {
                    let command = self.info(&name, request, Question::Info);
                    return Step::Ask(name, command);
                };
                // Writers that damage seemed to hold up may finish meanwhile.
                let length = length.max(context.certain(&name).length);
                if offset >= length {
                    trace!(context.trace(), "{name} is read back, {length} bytes");
                    context.shared.history.read_back(&name, length);
                    self.tasks.pop();
                    self.read = None;
                    return Step::Wait(1);
                }
                self.question = Some(Question::Read { offset, length });
                let command = ReadSegment {
                    segment: name.as_str().into(),
                    offset: offset as i64,
                    suggested_length: 1 << 20,
                    delegation_token: no_token(),
                    request_id: request,
                };
                Step::Ask(name, command.into())
            }
            Task::Counter(name) => {
                self.question = Some(Question::Counter);
                let command = ask_counter(&name, request);
                Step::Ask(name, command)
            }
            Task::Table { name, .. } => {
                let command = self.walk(context, &name, request);
                Step::Ask(name, command)
            }
            Task::Gone(name) => {
                let command = self.info(&name, request, Question::Gone);
                Step::Ask(name, command)
            }
        }
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let Some(task) = self.tasks.last().cloned() else { return };
        match task {
            Task::Segment(name) => self.segment_answered(context, &name, &reply),
            Task::Counter(_) => {
                let Some(Question::Counter) = self.question.take() else { return };
                if counter_in(&reply).is_none() {
                    unexpected(context, "a counter", &reply);
                }
                self.tasks.pop();
            }
            Task::Table { name, key_length } => match (self.question.take(), &reply) {
                (Some(Question::Keys(keys)), Command::TableRead(read)) => {
                    let is_whole = keys.len() == read.entries.len();
                    check!(context.trace(), "protocol", is_whole, "{name}: {keys:?} {reply:?}");
                    context.trace().count("table reads checked");
                    self.is_iterating = true;
                }
                (Some(Question::Iterate), _) => self.iterated(context, &name, key_length, &reply),
                _ => unexpected(context, "a table", &reply),
            },
            Task::Gone(name) => {
                let is_gone = matches!(reply, Command::NoSuchSegment(_));
                check!(context.trace(), "S25", is_gone, "{name} should be gone: {reply:?}");
                self.tasks.pop();
            }
        }
    }

    fn disconnected(&mut self, context: &mut Context<'_>, _is_asking: bool) {
        context.shared.history.walk_lost(context.client);
        self.question = None;
        self.is_iterating = false;
        self.met.clear();
        self.token = Bytes::new();
        self.from = Bytes::new();
    }
}
