//! A reader: follows a segment from some offset to its tail, waits there, begins again elsewhere.

use thalweg_wire::{Command, GetStreamSegmentInfo, ReadSegment};

use super::sequential::{SHORT_WAIT, Script, Step, unexpected};
use super::{Context, no_token};
use crate::clock::SECOND;
use crate::trace::check;

/// Longest time that it follows writers after the last fault.
const CALM_MAX: u64 = 5 * SECOND;

/// The script.
pub(crate) struct Reader {
    segment: String,
    offset: u64,
    /// Reads until it jumps elsewhere.
    patience: u64,
    /// Nothing fails any more: it follows the tail on a new connection, until then.
    calm_until: Option<u64>,
}

impl Reader {
    /// A reader of `segment`, from its beginning.
    pub(crate) fn new(segment: &str) -> Self {
        Self { segment: segment.to_owned(), offset: 0, patience: 30, calm_until: None }
    }

    /// From now on it waits at the tail, where it must be woken in time. Tells until when: writers
    /// that damage holds up never finish.
    fn calm_down(&mut self, context: &mut Context<'_>) -> u64 {
        self.patience = 2;
        if self.calm_until.is_none() {
            context.close();
            self.offset = context.certain(&self.segment).length;
        }
        *self.calm_until.get_or_insert(context.now() + CALM_MAX)
    }

    fn jump(&mut self, context: &mut Context<'_>) {
        self.patience = context.rng.between(1, 40);
        let choice = context.rng.below(4);
        let certain = context.certain(&self.segment);
        self.offset = match choice {
            0 => 0,
            1 => certain.start,
            2 => certain.seen,
            _ => context.rng.between(0, certain.length),
        };
    }
}

impl Script for Reader {
    fn name(&self) -> &'static str {
        "reader"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        if context.is_finishing() {
            let until = self.calm_down(context);
            if context.shared.writers == 0 || context.now() > until {
                return Step::Done;
            }
        }
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.jump(context);
        }
        let segment = self.segment.as_str().into();
        let command = if context.rng.percent(8) {
            GetStreamSegmentInfo { request_id: request, segment, delegation_token: no_token() }
                .into()
        } else {
            let suggested_length = match context.rng.below(3) {
                0 => context.rng.between(0, 200) as i32,
                1 => context.rng.between(1_000, 10_000) as i32,
                _ => 1 << 20,
            };
            ReadSegment {
                segment,
                offset: self.offset as i64,
                suggested_length,
                delegation_token: no_token(),
                request_id: request,
            }
            .into()
        };
        Step::Ask(self.segment.clone(), command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        let next = read_answer(context, &self.segment, self.offset, &reply);
        match next {
            Progress::To(offset) => self.offset = offset,
            Progress::End if self.calm_until.is_some() => self.calm_until = Some(0),
            Progress::End => {
                self.jump(context);
                context.wake_in(SHORT_WAIT);
            }
            Progress::None => {}
        }
    }

    fn disconnected(&mut self, context: &mut Context<'_>, _is_asking: bool) {
        if self.calm_until.is_none() && context.rng.percent(50) {
            self.jump(context);
        }
    }
}

/// What an answer to a read means for where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Go on here.
    To(u64),
    /// The segment is sealed and ends here.
    End,
    /// Ask again.
    None,
}

/// Takes the answer to a read or a question for properties. Whether it is true is the history's
/// business.
pub(crate) fn read_answer(
    context: &mut Context<'_>,
    name: &str,
    offset: u64,
    reply: &Command,
) -> Progress {
    context.trace().count("reads checked");
    match reply {
        Command::SegmentRead(read) => {
            let echoes = read.offset == offset as i64 && read.segment == name;
            check!(context.trace(), "protocol", echoes, "read at {offset} answers {}", read.offset);
            let ends = read.end_of_segment;
            context.trace().add("bytes read", read.data.len() as u64);
            let end = offset + read.data.len() as u64;
            if ends { Progress::End } else { Progress::To(end) }
        }
        Command::StreamSegmentInfo(_) => Progress::None,
        Command::SegmentIsTruncated(truncated) => {
            let start = truncated.start_offset as u64;
            let echoes = truncated.offset == offset as i64;
            check!(context.trace(), "protocol", echoes, "{truncated:?} to a read at {offset}");
            Progress::To(start)
        }
        Command::SegmentIsSealed(sealed) => {
            let echoes = sealed.offset == offset as i64;
            check!(context.trace(), "protocol", echoes, "{sealed:?} to a read at {offset}");
            Progress::End
        }
        other => {
            unexpected(context, "a read", other);
            Progress::None
        }
    }
}
