//! Writes segments aside and merges them into a target: transient ones that live as long as the
//! connection, and transaction segments that survive it. Some are dropped instead.

use bytes::BytesMut;
use thalweg_checker::record::Discipline;
use thalweg_wire::{
    AppendBlockEnd, Command, CreateSegment, CreateTransientSegment, DeleteSegment, MergeSegments,
    MergeSegmentsBatch, NO_EVENT_NUMBER, SealSegment, SetupAppend,
};

use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};
use crate::payload::{EventIdentity, WriterTag};
use crate::trace::{check, trace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Create,
    Write,
    Seal,
    Merge,
    Drop,
}

/// One segment written aside.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    is_transient: bool,
    tag: WriterTag,
    count: i64,
    /// Next event to append.
    next: i64,
    bytes: u64,
    /// An answer was lost: the name may come back.
    is_blurred: bool,
}

/// The script.
pub(crate) struct Transaction {
    target: String,
    stage: Stage,
    source: Option<Source>,
    /// Complete sources that wait to be merged together with the next one.
    ready: Vec<Source>,
    serial: u64,
    is_set_up: bool,
    /// Set-ups of this source without an answer: each may yet end a later session.
    ghosts: u32,
    is_merge_open: bool,
    drops: bool,
    is_batch: bool,
}

impl Transaction {
    /// Merges into `target`.
    pub(crate) fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            stage: Stage::Create,
            source: None,
            ready: Vec::new(),
            serial: 0,
            is_set_up: false,
            ghosts: 0,
            is_merge_open: false,
            drops: false,
            is_batch: false,
        }
    }

    fn begin(&mut self, context: &mut Context<'_>) {
        self.serial += 1;
        let tag = WriterTag((context.client as u64 + 1) * 1_000_000 + self.serial);
        let is_transient = self.ready.is_empty() && context.rng.percent(40);
        let count = context.rng.between(1, 6) as i64;
        let name = format!("{}#transaction.{:032x}", self.target, tag.writer_id());
        let source =
            Source { name, is_transient, tag, count, next: 0, bytes: 0, is_blurred: false };
        context.shared.history.introduce(&self.target, tag, Discipline::Atomic);
        self.source = Some(source);
        self.stage = Stage::Create;
        self.is_set_up = false;
        self.ghosts = 0;
        self.drops = context.rng.percent(15);
        self.is_batch = context.rng.percent(50);
    }

    fn create(&self, source: &Source, request: i64) -> Command {
        if source.is_transient {
            return CreateTransientSegment {
                request_id: request,
                writer_id: source.tag.writer_id(),
                parent_segment: self.target.as_str().into(),
                delegation_token: no_token(),
            }
            .into();
        }
        CreateSegment {
            request_id: request,
            segment: source.name.as_str().into(),
            target_rate: 0,
            scale_type: 0,
            delegation_token: no_token(),
            rollover_size_bytes: 0,
        }
        .into()
    }

    fn write(context: &mut Context<'_>, source: &Source, is_set_up: bool, request: i64) -> Command {
        let writer_id = source.tag.writer_id();
        if !is_set_up {
            return SetupAppend {
                request_id: request,
                writer_id,
                segment: source.name.as_str().into(),
                delegation_token: no_token(),
            }
            .into();
        }
        let last = context.rng.between(source.next as u64, source.count as u64 - 1) as i64;
        let mut data = BytesMut::new();
        for number in source.next..=last {
            let sizes = context.shared.options.event_sizes;
            EventIdentity { tag: source.tag, number }.encode(sizes, &mut data);
        }
        AppendBlockEnd {
            writer_id,
            size_of_whole_events: data.len() as i32,
            data: data.freeze(),
            event_count: (last - source.next + 1) as i32,
            last_event_number: last,
            request_id: request,
        }
        .into()
    }

    fn merge(&mut self, source: &Source, request: i64) -> Command {
        let sources: Vec<&Source> = self.ready.iter().chain([source]).collect();
        self.is_merge_open = true;
        if sources.len() == 1 && !self.is_batch {
            return MergeSegments {
                request_id: request,
                target: self.target.as_str().into(),
                source: source.name.as_str().into(),
                delegation_token: no_token(),
                attribute_updates: Vec::new(),
            }
            .into();
        }
        MergeSegmentsBatch {
            request_id: request,
            target: self.target.as_str().into(),
            sources: sources.iter().map(|source| source.name.as_str().into()).collect(),
            delegation_token: no_token(),
        }
        .into()
    }

    fn merged(&mut self, context: &mut Context<'_>, source: Source) {
        context.trace().count("merges acknowledged");
        let last = self.ready.drain(..).chain([source]);
        for source in last {
            trace!(context.trace(), "client {} merged {:?}", context.client, source.tag);
            if !source.is_blurred {
                context.shared.gone.push(source.name);
            }
        }
        self.is_merge_open = false;
    }

    /// Takes the answer to creating, writing and sealing; gives the source back unless it is over.
    fn prepared(&mut self, context: &mut Context<'_>, source: &mut Source, reply: &Command) {
        match (self.stage, reply) {
            (Stage::Create, Command::SegmentCreated(created)) => {
                if source.is_transient {
                    source.name = created.segment.as_str().to_owned();
                }
                self.stage = Stage::Write;
            }
            (Stage::Create, Command::SegmentAlreadyExists(_)) if source.is_blurred => {
                self.stage = Stage::Write;
            }
            (Stage::Write, Command::AppendSetup(setup)) => {
                let last = setup.last_event_number;
                let last = if last == NO_EVENT_NUMBER { -1 } else { last };
                let holds = last + 1 >= source.next && last < source.count;
                let stored = source.next;
                check!(context.trace(), "S25", holds, "{}: {last} of {stored}", source.name);
                for number in source.next..=last {
                    let identity = EventIdentity { tag: source.tag, number };
                    source.bytes += identity.framed_bytes(context.shared.options.event_sizes);
                }
                source.next = last + 1;
                self.is_set_up = true;
                self.write_on(context, source);
            }
            (Stage::Write, Command::DataAppended(appended)) => {
                for number in source.next..=appended.event_number {
                    let identity = EventIdentity { tag: source.tag, number };
                    source.bytes += identity.framed_bytes(context.shared.options.event_sizes);
                }
                let length = appended.current_segment_write_offset;
                let holds = length == source.bytes as i64;
                check!(context.trace(), "S1", holds, "{}: length {length}", source.name);
                context.trace().count("appends acknowledged");
                source.next = appended.event_number + 1;
                self.write_on(context, source);
            }
            (Stage::Write, Command::InvalidEventNumber(_)) if self.is_set_up && self.ghosts > 0 => {
                context.trace().count("sessions ended by a ghost");
                self.ghosts -= 1;
                self.is_set_up = false;
            }
            (Stage::Seal, Command::SegmentSealed(_)) => self.stage = Stage::Merge,
            _ => unexpected(context, &format!("{:?} of {source:?}", self.stage), reply),
        }
    }

    fn write_on(&mut self, context: &mut Context<'_>, source: &Source) {
        if source.next < source.count {
            return;
        }
        self.stage = if self.drops {
            Stage::Drop
        } else if context.rng.percent(50) {
            Stage::Seal
        } else {
            Stage::Merge
        };
    }
}

impl Script for Transaction {
    fn name(&self) -> &'static str {
        "transaction"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        let Some(source) = self.source.take() else {
            if context.is_finishing() && self.ready.is_empty() {
                return Step::Done;
            }
            self.begin(context);
            return Step::Wait(1);
        };
        let may_wait = !source.is_transient && !self.is_merge_open && !context.is_finishing();
        if self.stage == Stage::Merge && may_wait && self.ready.len() < 2 && context.rng.percent(30)
        {
            self.ready.push(source);
            return Step::Wait(1);
        }
        let command = match self.stage {
            Stage::Create => self.create(&source, request),
            Stage::Write => Self::write(context, &source, self.is_set_up, request),
            Stage::Seal => SealSegment {
                request_id: request,
                segment: source.name.as_str().into(),
                delegation_token: no_token(),
            }
            .into(),
            Stage::Merge => self.merge(&source, request),
            Stage::Drop => DeleteSegment {
                request_id: request,
                segment: source.name.as_str().into(),
                delegation_token: no_token(),
            }
            .into(),
        };
        // All of it lives in the container of the target.
        self.source = Some(source);
        Step::Ask(self.target.clone(), command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let Some(mut source) = self.source.take() else { return };
        match (self.stage, &reply) {
            (Stage::Merge, Command::SegmentsMerged(_)) => self.merged(context, source),
            (Stage::Merge, Command::NoSuchSegment(missing))
                if source.is_blurred && missing.segment == source.name.as_str() =>
            {
                // The merge whose answer was lost took it: nobody deletes it.
                let sources = self.ready.iter().chain([&source]).map(|source| &*source.name);
                context.shared.history.merged(context.client, &self.target, sources);
                self.merged(context, source);
            }
            (Stage::Merge, Command::SegmentsBatchMerged(batch)) => {
                let is_whole = batch.merged.len() == self.ready.len() + 1;
                check!(context.trace(), "protocol", is_whole, "{batch:?}");
                self.merged(context, source);
            }
            (Stage::Drop, Command::SegmentDeleted(_)) => {
                if !source.is_blurred {
                    context.shared.gone.push(source.name);
                }
            }
            (Stage::Drop, Command::NoSuchSegment(_)) if source.is_blurred => {}
            _ => {
                self.prepared(context, &mut source, &reply);
                self.source = Some(source);
            }
        }
    }

    fn disconnected(&mut self, context: &mut Context<'_>, is_asking: bool) {
        let is_setting_up = is_asking && self.stage == Stage::Write && !self.is_set_up;
        self.ghosts += u32::from(is_setting_up);
        self.is_set_up = false;
        let Some(mut source) = self.source.take() else { return };
        if source.is_transient {
            // Gone with the connection, unless merged just before.
            if self.stage != Stage::Create {
                context.shared.gone.push(source.name);
            }
            self.is_merge_open = false;
            return;
        }
        source.is_blurred |= is_asking;
        if is_asking && self.stage == Stage::Merge {
            self.ready.iter_mut().for_each(|other| other.is_blurred = true);
        }
        self.source = Some(source);
    }
}
