//! Appends on the condition of a length, in competition with others; what became of an append
//! without an answer is learned from the next set-up.

use bytes::BytesMut;
use thalweg_wire::{
    Command, ConditionalAppend, ConditionalBlockEnd, FramedEvent, GetStreamSegmentInfo, SetupAppend,
};

use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};
use crate::payload::{EventIdentity, WriterTag};
use crate::trace::check;

#[derive(Clone, Copy, Debug)]
enum Question {
    SetUp,
    Length,
    Append { expected: u64 },
}

/// The script.
pub(crate) struct Conditional {
    segment: String,
    tag: WriterTag,
    is_set_up: bool,
    /// Length known from the last answer.
    length: Option<u64>,
    number: i64,
    /// An append whose answer was lost.
    is_open: bool,
    /// Set-ups without an answer: each may yet come true and end a later session.
    ghosts: u32,
    question: Option<Question>,
}

impl Conditional {
    /// Appends to `segment`.
    pub(crate) fn new(segment: &str, tag: WriterTag) -> Self {
        Self {
            segment: segment.to_owned(),
            tag,
            is_set_up: false,
            length: None,
            number: 0,
            is_open: false,
            ghosts: 0,
            question: None,
        }
    }

    fn append(&mut self, context: &mut Context<'_>, request: i64, length: u64) -> Command {
        self.number += 1;
        let identity = EventIdentity { tag: self.tag, number: self.number };
        let mut expected = length;
        if context.rng.percent(5) {
            expected += context.rng.between(1, 100);
        }
        let sizes = context.shared.options.event_sizes;
        self.question = Some(Question::Append { expected });
        let mut bytes = BytesMut::new();
        let writer_id = self.tag.writer_id();
        if context.rng.percent(50) {
            identity.encode_payload(sizes, &mut bytes);
            ConditionalAppend {
                writer_id,
                event_number: self.number,
                expected_offset: expected as i64,
                event: FramedEvent::new(&bytes),
                request_id: request,
            }
            .into()
        } else {
            identity.encode(sizes, &mut bytes);
            ConditionalBlockEnd {
                writer_id,
                event_number: self.number,
                expected_offset: expected as i64,
                data: bytes.freeze(),
                request_id: request,
            }
            .into()
        }
    }
}

impl Script for Conditional {
    fn name(&self) -> &'static str {
        "conditional"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        if context.is_finishing() && !self.is_open {
            return Step::Done;
        }
        let segment = self.segment.clone();
        if !self.is_set_up {
            self.question = Some(Question::SetUp);
            let command = SetupAppend {
                request_id: request,
                writer_id: self.tag.writer_id(),
                segment: segment.as_str().into(),
                delegation_token: no_token(),
            };
            return Step::Ask(segment, command.into());
        }
        if let Some(length) = self.length.take() {
            let command = self.append(context, request, length);
            return Step::Ask(segment, command);
        }
        self.question = Some(Question::Length);
        let name = segment.as_str().into();
        let command = GetStreamSegmentInfo {
            request_id: request,
            segment: name,
            delegation_token: no_token(),
        };
        Step::Ask(segment, command.into())
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let Some(question) = self.question.take() else { return };
        match (&reply, question) {
            (Command::AppendSetup(_), Question::SetUp) => {
                self.is_open = false;
                self.is_set_up = true;
            }
            (Command::StreamSegmentInfo(info), Question::Length) => {
                self.length = Some(info.write_offset as u64);
            }
            (Command::DataAppended(appended), Question::Append { expected }) => {
                let identity = EventIdentity { tag: self.tag, number: self.number };
                let end = expected + identity.framed_bytes(context.shared.options.event_sizes);
                let length = appended.current_segment_write_offset as u64;
                let is_mine = appended.event_number == self.number && length == end;
                check!(context.trace(), "S11", is_mine, "{appended:?} after {expected}");
                context.trace().count("appends acknowledged");
                self.length = context.rng.percent(50).then_some(length);
            }
            (Command::ConditionalCheckFailed(_), Question::Append { .. }) => {
                context.trace().count("conditions failed");
            }
            (Command::InvalidEventNumber(_), Question::Append { .. }) if self.ghosts > 0 => {
                context.trace().count("sessions ended by a ghost");
                self.ghosts -= 1;
                self.is_set_up = false;
            }
            _ => unexpected(context, "a conditional append", &reply),
        }
    }

    fn disconnected(&mut self, _context: &mut Context<'_>, _is_asking: bool) {
        let question = self.question.take();
        self.is_open |= matches!(question, Some(Question::Append { .. }));
        self.ghosts += u32::from(matches!(question, Some(Question::SetUp)));
        self.is_set_up = false;
        self.length = None;
    }
}
