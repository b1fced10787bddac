//! Looks after a stream segment: asks for its properties, truncates it, perhaps seals it.

use thalweg_wire::{
    Command, GetStreamSegmentInfo, SealSegment, TruncateSegment, UpdateSegmentPolicy,
};

use super::reader::read_answer;
use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};
use crate::model::segment::Before;
use crate::trace::check;

#[derive(Clone, Copy, Debug)]
enum Question {
    Info(Before),
    Truncate(u64),
    Seal,
    Policy,
}

/// What a keeper may do to its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duties {
    /// Truncate it.
    pub(crate) truncates: bool,
    /// Seal it after so many questions.
    pub(crate) seals_after: Option<u64>,
}

/// The script.
pub(crate) struct Keeper {
    segment: String,
    duties: Duties,
    asked: u64,
    question: Option<Question>,
}

impl Keeper {
    /// Looks after `segment`.
    pub(crate) fn new(segment: &str, duties: Duties) -> Self {
        Self { segment: segment.to_owned(), duties, asked: 0, question: None }
    }
}

impl Script for Keeper {
    fn name(&self) -> &'static str {
        "keeper"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        if context.is_finishing() {
            return Step::Done;
        }
        self.asked += 1;
        let choice = context.rng.below(10);
        let model = context.shared.model.segment(&self.segment);
        let segment = self.segment.as_str().into();
        let delegation_token = no_token();
        let seals = self.duties.seals_after.is_some_and(|after| self.asked > after);
        let (question, command) = if seals && choice < 5 {
            model.sealing();
            let command = SealSegment { request_id: request, segment, delegation_token };
            (Question::Seal, command.into())
        } else if self.duties.truncates && choice < 4 {
            let most = model.seen_bytes().min(model.length_floor());
            let least = model.start_floor();
            let offset = if most > least && context.rng.percent(80) {
                least + context.rng.below((most - least) / 4 + 1)
            } else {
                context.rng.between(0, most)
            };
            model.truncating(offset);
            let truncation_offset = offset as i64;
            let command = TruncateSegment {
                request_id: request,
                segment,
                truncation_offset,
                delegation_token,
            };
            (Question::Truncate(offset), command.into())
        } else if choice == 9 {
            let command = UpdateSegmentPolicy {
                request_id: request,
                segment,
                target_rate: 7,
                scale_type: 2,
                delegation_token,
            };
            (Question::Policy, command.into())
        } else {
            let before = model.before();
            let command = GetStreamSegmentInfo { request_id: request, segment, delegation_token };
            (Question::Info(before), command.into())
        };
        self.question = Some(question);
        Step::Ask(self.segment.clone(), command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let name = self.segment.clone();
        match (self.question.take(), &reply) {
            (Some(Question::Info(before)), Command::StreamSegmentInfo(_)) => {
                read_answer(context, &name, 0, before, &reply);
            }
            (Some(Question::Truncate(offset)), Command::SegmentTruncated(_)) => {
                context.trace().count("truncations");
                context.model().segment(&name).starts_at(offset);
            }
            (Some(Question::Truncate(offset)), Command::SegmentIsTruncated(refused)) => {
                let start = refused.start_offset as u64;
                let holds = offset < start;
                check!(context.trace(), "S14", holds, "{name}: {offset} refused, start {start}");
                context.model().segment(&name).starts_at(start);
            }
            (Some(Question::Seal), Command::SegmentSealed(_)) => {
                context.trace().count("seals");
                context.model().segment(&name).sealed();
            }
            (Some(Question::Policy), Command::SegmentPolicyUpdated(_)) => {}
            (Some(Question::Policy), Command::SegmentIsSealed(_)) => {
                context.model().segment(&name).sealed();
            }
            _ => unexpected(context, "a keeper", &reply),
        }
    }

    fn disconnected(&mut self, _context: &mut Context<'_>, _is_asking: bool) {}
}
