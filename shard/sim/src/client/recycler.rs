//! Creates a segment, fills it, reads it, deletes it and begins again under the same name, alone.
//!
//! Nothing of an earlier life may be seen in a later one: not a byte, not an event number.

use bytes::BytesMut;
use thalweg_checker::record::Discipline;
use thalweg_core::id::ConnectionId;
use thalweg_wire::{
    AppendBlockEnd, Command, CreateSegment, DeleteSegment, GetStreamSegmentInfo, NO_EVENT_NUMBER,
    ReadSegment, SetupAppend,
};

use super::reader::{Progress, read_answer};
use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};
use crate::clock::MILLISECOND;
use crate::payload::{EventIdentity, WriterTag};

#[derive(Clone, Copy, Debug)]
enum Stage {
    Create,
    SetUp,
    Append,
    Read { offset: u64 },
    Delete,
    LookForGone,
}

/// Name of the role.
pub(crate) const NAME: &str = "recycler";

/// The script.
pub(crate) struct Recycler {
    name: String,
    tag: WriterTag,
    stage: Stage,
    /// First event number of this life; each life has a thousand.
    first: i64,
    next: i64,
    goal: i64,
    /// A connection that may still bring an old request to the server.
    haunted: Option<ConnectionId>,
    quiet_until: u64,
    is_blurred: bool,
}

impl Recycler {
    /// Alone under `name`.
    pub(crate) fn new(name: &str, tag: WriterTag) -> Self {
        Self {
            name: name.to_owned(),
            tag,
            stage: Stage::Create,
            first: 1,
            next: 1,
            goal: 1,
            haunted: None,
            quiet_until: 0,
            is_blurred: false,
        }
    }

    fn append(&mut self, context: &mut Context<'_>, request: i64) -> Command {
        let last = self.next + context.rng.below(3) as i64;
        let sizes = context.shared.options.event_sizes;
        let mut data = BytesMut::new();
        for number in self.next..=last {
            EventIdentity { tag: self.tag, number }.encode(sizes, &mut data);
        }
        let count = (last - self.next + 1) as i32;
        self.next = last + 1;
        AppendBlockEnd {
            writer_id: self.tag.writer_id(),
            size_of_whole_events: data.len() as i32,
            data: data.freeze(),
            event_count: count,
            last_event_number: last,
            request_id: request,
        }
        .into()
    }

    fn created(&mut self, context: &mut Context<'_>) {
        context.shared.alive.insert(self.name.clone());
        let discipline = Discipline::Dense { first: self.first };
        context.shared.history.introduce(&self.name, self.tag, discipline);
        self.goal = self.first + context.rng.between(0, 12) as i64;
        self.stage = Stage::SetUp;
        context.trace().count("segment lives");
    }

    fn read_on(&mut self, context: &mut Context<'_>, progress: Progress) {
        let Progress::To(offset) = progress else { return };
        self.stage = if offset >= context.certain(&self.name).length {
            Stage::Delete
        } else {
            Stage::Read { offset }
        };
    }

    fn is_gone(&mut self, context: &mut Context<'_>) {
        context.shared.alive.remove(&self.name);
        self.first += 1000;
        self.next = self.first;
        self.stage = if context.rng.percent(50) { Stage::LookForGone } else { Stage::Create };
    }
}

impl Script for Recycler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        if let Some(haunted) = self.haunted {
            if context.shared.links.borrow().is_known(haunted) {
                return Step::Wait(MILLISECOND);
            }
            self.haunted = None;
            self.quiet_until = context.now() + 20 * MILLISECOND;
        }
        if context.now() < self.quiet_until {
            return Step::Wait(MILLISECOND);
        }
        if context.is_finishing() && matches!(self.stage, Stage::Create) && !self.is_blurred {
            context.shared.gone.push(self.name.clone());
            return Step::Done;
        }
        let segment = self.name.as_str().into();
        let command = match self.stage {
            Stage::Create => CreateSegment {
                request_id: request,
                segment,
                target_rate: 0,
                scale_type: 0,
                delegation_token: no_token(),
                rollover_size_bytes: 0,
            }
            .into(),
            Stage::SetUp => SetupAppend {
                request_id: request,
                writer_id: self.tag.writer_id(),
                segment,
                delegation_token: no_token(),
            }
            .into(),
            Stage::Append => self.append(context, request),
            Stage::Read { offset } => ReadSegment {
                segment,
                offset: offset as i64,
                suggested_length: context.rng.between(100, 100_000) as i32,
                delegation_token: no_token(),
                request_id: request,
            }
            .into(),
            Stage::Delete => {
                DeleteSegment { request_id: request, segment, delegation_token: no_token() }.into()
            }
            Stage::LookForGone => {
                GetStreamSegmentInfo { request_id: request, segment, delegation_token: no_token() }
                    .into()
            }
        };
        Step::Ask(self.name.clone(), command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        match (self.stage, &reply) {
            (Stage::Create, Command::SegmentCreated(_)) => self.created(context),
            (Stage::Create, Command::SegmentAlreadyExists(_)) if self.is_blurred => {
                self.created(context);
            }
            (Stage::SetUp, Command::AppendSetup(setup)) => {
                let last = setup.last_event_number;
                let last = (last != NO_EVENT_NUMBER).then_some(last);
                self.next = last.map_or(self.first, |last| last + 1);
                self.stage = Stage::Append;
                if self.next > self.goal {
                    self.stage = Stage::Read { offset: 0 };
                }
            }
            (Stage::Append, Command::DataAppended(appended)) => {
                context.trace().count("appends acknowledged");
                if appended.event_number >= self.goal {
                    self.stage = Stage::Read { offset: 0 };
                }
            }
            (Stage::Read { offset }, _) => {
                let progress = read_answer(context, &self.name.clone(), offset, &reply);
                self.read_on(context, progress);
            }
            (Stage::Delete, Command::SegmentDeleted(_)) => self.is_gone(context),
            (Stage::Delete, Command::NoSuchSegment(_)) if self.is_blurred => self.is_gone(context),
            (Stage::LookForGone, Command::NoSuchSegment(_)) => self.stage = Stage::Create,
            _ => unexpected(context, &format!("{:?} of {}", self.stage, self.name), &reply),
        }
        self.is_blurred = false;
    }

    fn disconnected(&mut self, context: &mut Context<'_>, is_asking: bool) {
        self.is_blurred |= is_asking;
        self.haunted = context.last_connection();
        if matches!(self.stage, Stage::Append) {
            self.stage = Stage::SetUp;
        }
    }
}
