//! Looks after a stream segment: asks for its properties, truncates it, perhaps seals it.

use thalweg_wire::{
    Command, GetStreamSegmentInfo, SealSegment, TruncateSegment, UpdateSegmentPolicy,
};

use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};

#[derive(Clone, Copy, Debug)]
enum Question {
    Info,
    Truncate,
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
        let certain = context.certain(&self.segment);
        let segment = self.segment.as_str().into();
        let delegation_token = no_token();
        let seals = self.duties.seals_after.is_some_and(|after| self.asked > after);
        let (question, command) = if seals && choice < 5 {
            let command = SealSegment { request_id: request, segment, delegation_token };
            (Question::Seal, command.into())
        } else if self.duties.truncates && choice < 4 {
            let most = certain.seen.min(certain.length);
            let least = certain.start;
            let offset = if most > least && context.rng.percent(80) {
                least + context.rng.below((most - least) / 4 + 1)
            } else {
                context.rng.between(0, most)
            };
            let truncation_offset = offset as i64;
            let command = TruncateSegment {
                request_id: request,
                segment,
                truncation_offset,
                delegation_token,
            };
            (Question::Truncate, command.into())
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
            let command = GetStreamSegmentInfo { request_id: request, segment, delegation_token };
            (Question::Info, command.into())
        };
        self.question = Some(question);
        Step::Ask(self.segment.clone(), command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        match (self.question.take(), &reply) {
            (Some(Question::Info), Command::StreamSegmentInfo(_)) => {
                context.trace().count("reads checked");
            }
            (Some(Question::Truncate), Command::SegmentTruncated(_)) => {
                context.trace().count("truncations");
            }
            (Some(Question::Truncate), Command::SegmentIsTruncated(_)) => {}
            (Some(Question::Seal), Command::SegmentSealed(_)) => context.trace().count("seals"),
            (
                Some(Question::Policy),
                Command::SegmentPolicyUpdated(_) | Command::SegmentIsSealed(_),
            ) => {}
            _ => unexpected(context, "a keeper", &reply),
        }
    }

    fn disconnected(&mut self, _context: &mut Context<'_>, _is_asking: bool) {}
}
