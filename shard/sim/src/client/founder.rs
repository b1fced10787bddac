//! Creates the segments and tables that the others work on.

use thalweg_wire::{Command, CreateSegment, CreateTableSegment};

use super::sequential::{Script, Step, unexpected};
use super::{Context, no_token};

/// What is to be created.
#[derive(Clone, Debug)]
pub(crate) enum Founding {
    /// A stream segment.
    Segment(String),
    /// A table with this key length.
    Table(String, i32),
}

/// The script.
pub(crate) struct Founder {
    foundings: Vec<Founding>,
    at: usize,
}

impl Founder {
    /// Creates all of these, in order.
    pub(crate) fn new(foundings: Vec<Founding>) -> Self {
        Self { foundings, at: 0 }
    }
}

impl Script for Founder {
    fn name(&self) -> &'static str {
        "founder"
    }

    fn next(&mut self, _context: &mut Context<'_>, request: i64) -> Step {
        match self.foundings.get(self.at) {
            None => Step::Done,
            Some(Founding::Segment(name)) => {
                let command = CreateSegment {
                    request_id: request,
                    segment: name.as_str().into(),
                    target_rate: 0,
                    scale_type: 0,
                    delegation_token: no_token(),
                    rollover_size_bytes: 0,
                };
                Step::Ask(name.clone(), command.into())
            }
            Some(Founding::Table(name, key_length)) => {
                let command = CreateTableSegment {
                    request_id: request,
                    segment: name.as_str().into(),
                    delegation_token: no_token(),
                    sorted_deprecated: false,
                    key_length: *key_length,
                    rollover_size_bytes: 0,
                };
                Step::Ask(name.clone(), command.into())
            }
        }
    }

    fn answered(&mut self, context: &mut Context<'_>, reply: Command) {
        match (&reply, &self.foundings[self.at]) {
            (
                Command::SegmentCreated(_) | Command::SegmentAlreadyExists(_),
                Founding::Segment(name),
            ) => {
                context.shared.alive.insert(name.clone());
            }
            (
                Command::SegmentCreated(_) | Command::SegmentAlreadyExists(_),
                Founding::Table(..),
            ) => {}
            _ => unexpected(context, "a creation", &reply),
        }
        self.at += 1;
    }

    fn disconnected(&mut self, _context: &mut Context<'_>, _is_asking: bool) {}
}
