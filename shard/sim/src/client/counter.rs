//! Raises a counter in an attribute by compare-and-set, in competition with others.

use thalweg_wire::{Command, GetSegmentAttribute, NULL_ATTRIBUTE_VALUE, UpdateSegmentAttribute};

use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};

/// The attribute that holds the counter.
const COUNTER: u128 = 0x7DF9_A874_246C_C9D6_9397_CDD1_9EAD_68C5;

/// The script.
pub(crate) struct Counter {
    segment: String,
    known: Option<i64>,
}

impl Counter {
    /// Raises the counter of `segment`.
    pub(crate) fn new(segment: &str) -> Self {
        Self { segment: segment.to_owned(), known: None }
    }
}

fn on_wire(value: i64) -> i64 {
    if value == 0 { NULL_ATTRIBUTE_VALUE } else { value }
}

/// Asks for the counter of a segment.
pub(crate) fn ask_counter(segment: &str, request: i64) -> Command {
    GetSegmentAttribute {
        request_id: request,
        segment: segment.into(),
        attribute_id: COUNTER,
        delegation_token: no_token(),
    }
    .into()
}

/// The counter in an answer to [`ask_counter`].
pub(crate) fn counter_in(reply: &Command) -> Option<i64> {
    match reply {
        Command::SegmentAttribute(attribute) if attribute.value == NULL_ATTRIBUTE_VALUE => Some(0),
        Command::SegmentAttribute(attribute) => Some(attribute.value),
        _ => None,
    }
}

impl Script for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step {
        if context.is_finishing() {
            return Step::Done;
        }
        let segment = self.segment.clone();
        let command = match self.known {
            None => ask_counter(&segment, request),
            Some(value) => UpdateSegmentAttribute {
                request_id: request,
                segment: segment.as_str().into(),
                attribute_id: COUNTER,
                new_value: value + 1,
                expected_value: on_wire(value),
                delegation_token: no_token(),
            }
            .into(),
        };
        Step::Ask(segment, command)
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        match (&reply, self.known.take()) {
            (Command::SegmentAttribute(_), None) => self.known = counter_in(&reply),
            (Command::SegmentAttributeUpdated(updated), Some(value)) => {
                let goes_on = updated.success && context.rng.percent(60);
                self.known = goes_on.then_some(value + 1);
            }
            _ => unexpected(context, "an attribute", &reply),
        }
    }

    fn disconnected(&mut self, _context: &mut Context<'_>, _is_asking: bool) {
        self.known = None;
    }
}
