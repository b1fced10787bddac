//! Reads everything back when all is quiet, and holds it against the oracle.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_wire::{
    Command, GetStreamSegmentInfo, IterationArguments, ReadSegment, ReadTableEntries,
};

use super::counter::{ask_counter, counter_in};
use super::reader::read_answer;
use super::sequential::{Script, Step, unexpected};
use super::table::{ask_keys, check_walk, stored_in};
use super::{Context, no_token};
use crate::model::segment::Before;
use crate::model::table::Stored;
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
    Info(Before),
    Read { offset: u64, length: u64, before: Before },
    Counter(i64),
    Keys(Vec<Bytes>),
    Iterate,
    Gone,
}

/// The script.
pub(crate) struct Verifier {
    tasks: Vec<Task>,
    /// Where the present task stands: what is to be asked next.
    read: Option<(u64, u64)>,
    found: BTreeMap<Bytes, Stored>,
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
            found: BTreeMap::new(),
            token: Bytes::new(),
            from: Bytes::new(),
            is_iterating: false,
            question: None,
        }
    }

    fn info(&mut self, context: &mut Context<'_>, name: &str, request: i64, gone: bool) -> Command {
        self.question = Some(if gone {
            Question::Gone
        } else {
            Question::Info(context.model().segment(name).before())
        });
        let segment = name.into();
        GetStreamSegmentInfo { request_id: request, segment, delegation_token: no_token() }.into()
    }

    fn walk(&mut self, context: &mut Context<'_>, name: &str, request: i64) -> Command {
        if !self.is_iterating {
            let keys = context.model().table(name).keys_with_prefix(b"");
            let keys: Vec<Bytes> = keys.into_iter().map(|(key, ..)| key).collect();
            if !keys.is_empty() {
                let command = ask_keys(name, request, &keys);
                self.question = Some(Question::Keys(keys));
                return command;
            }
            self.is_iterating = true;
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
            let stored = Stored { value: entry.value.clone(), version: entry.key.version };
            let earlier = self.found.insert(entry.key.key.clone(), stored);
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
        check_walk(context, name, "o", &std::mem::take(&mut self.found));
        self.is_iterating = false;
        self.token = Bytes::new();
        self.from = Bytes::new();
        self.tasks.pop();
    }

    fn segment_answered(&mut self, context: &mut Context<'_>, name: &str, reply: &Command) {
        match self.question.take() {
            Some(Question::Info(before)) => {
                read_answer(context, name, 0, before, reply);
                if let Command::StreamSegmentInfo(info) = reply {
                    self.read = Some((info.start_offset as u64, info.write_offset as u64));
                }
            }
            Some(Question::Read { offset, length, before }) => {
                read_answer(context, name, offset, before, reply);
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
                    let command = self.info(context, &name, request, false);
                    return Step::Ask(name, command);
                };
                if offset >= length {
                    trace!(context.trace(), "{name} is read back, {length} bytes");
                    context.model().segment(&name).finished(length);
                    context.shared.history.read_back(&name, length);
                    self.tasks.pop();
                    self.read = None;
                    return Step::Wait(1);
                }
                let before = context.model().segment(&name).before();
                self.question = Some(Question::Read { offset, length, before });
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
                let floor = context.model().counter(&name).floor();
                self.question = Some(Question::Counter(floor));
                let command = ask_counter(&name, request);
                Step::Ask(name, command)
            }
            Task::Table { name, .. } => {
                let command = self.walk(context, &name, request);
                Step::Ask(name, command)
            }
            Task::Gone(name) => {
                let command = self.info(context, &name, request, true);
                Step::Ask(name, command)
            }
        }
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let Some(task) = self.tasks.last().cloned() else { return };
        match task {
            Task::Segment(name) => self.segment_answered(context, &name, &reply),
            Task::Counter(name) => {
                let Some(Question::Counter(floor)) = self.question.take() else { return };
                match counter_in(&reply) {
                    Some(value) => context.model().counter(&name).read(value, floor),
                    None => unexpected(context, "a counter", &reply),
                }
                self.tasks.pop();
            }
            Task::Table { name, key_length } => match (self.question.take(), &reply) {
                (Some(Question::Keys(keys)), Command::TableRead(read)) => {
                    let is_whole = keys.len() == read.entries.len();
                    check!(context.trace(), "protocol", is_whole, "{name}: {keys:?} {reply:?}");
                    for entry in &read.entries {
                        context.model().table(&name).read(&entry.key.key, stored_in(entry));
                    }
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

    fn disconnected(&mut self, _context: &mut Context<'_>, _is_asking: bool) {
        self.question = None;
        self.is_iterating = false;
        self.found.clear();
        self.token = Bytes::new();
        self.from = Bytes::new();
    }
}
