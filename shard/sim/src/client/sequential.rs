//! Clients that ask one thing at a time: connection, request ids, time-outs and reconnects here,
//! what to ask and what to make of the answer in a [`Script`].

use thalweg_wire::Command;

use super::{Context, Input, Role};
use crate::clock::{MILLISECOND, SECOND};
use crate::options::Forwarding;
use crate::trace::{check, trace};

/// Longer than any stall; a client that waits longer tries on another connection.
const PATIENCE: u64 = 20 * SECOND;

/// What a script does next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once")]
pub(crate) enum Step {
    /// Ask this of the shard that owns the segment.
    Ask(String, Command),
    /// Nothing for so many nanoseconds.
    Wait(u64),
    /// Nothing any more.
    Done,
}

/// One course of questions and answers.
pub(crate) trait Script {
    /// Name for the trace.
    fn name(&self) -> &'static str;

    /// The next question; it must carry `request` as its request id.
    fn next(&mut self, context: &mut Context<'_>, request: i64) -> Step;

    /// The answer to the last question.
    fn answered(&mut self, context: &mut Context<'_>, reply: Command);

    /// The connection is gone, and with it its sessions; `is_asking`: with the answer to the last
    /// question.
    fn disconnected(&mut self, context: &mut Context<'_>, is_asking: bool);
}

#[derive(Clone, Copy, Debug)]
struct Question {
    request: i64,
    until: u64,
    is_misrouted: bool,
}

/// The role that follows a script.
pub(crate) struct Sequential<S> {
    script: S,
    question: Option<Question>,
    /// Of the last question.
    segment: Option<String>,
    next_request: i64,
    think_us_max: u64,
    is_done: bool,
}

impl<S: Script> Sequential<S> {
    /// Follows `script`, pausing up to `think_us_max` microseconds between steps.
    pub(crate) fn new(script: S, think_us_max: u64) -> Self {
        Self {
            script,
            question: None,
            segment: None,
            next_request: 1,
            think_us_max,
            is_done: false,
        }
    }

    fn lose(&mut self, context: &mut Context<'_>) {
        let is_asking = self.question.take().is_some();
        self.script.disconnected(context, is_asking);
        let pause = context.pause(5_000);
        context.wake_only_in(pause);
    }

    fn step(&mut self, context: &mut Context<'_>) {
        if let Some(question) = self.question {
            if context.now() < question.until {
                context.wake_in(question.until - context.now());
                return;
            }
            trace!(context.trace(), "client {} loses patience", context.client);
            context.trace().count("client time-outs");
            context.close();
            self.lose(context);
            return;
        }
        match self.script.next(context, self.next_request) {
            Step::Done => {
                self.is_done = true;
                context.close();
            }
            Step::Wait(nanos) => context.wake_only_in(nanos),
            Step::Ask(segment, command) => self.ask(context, &segment, &command),
        }
    }

    fn ask(&mut self, context: &mut Context<'_>, segment: &str, command: &Command) {
        context.begin();
        self.segment = Some(segment.to_owned());
        let owner = context.shared.router.shard_of(segment);
        let shards = context.shared.options.shards;
        let mut shard = owner;
        let wrong_host = context.shared.options.forwarding == Forwarding::WrongHost;
        match context.connected_shard() {
            // Sessions live on the connection, so an open one is kept where it can serve.
            Some(connected) if !wrong_host || connected == owner => shard = connected,
            _ => {
                if shards > 1 && context.rng.percent(if wrong_host { 2 } else { 60 }) {
                    shard = context.rng.index(shards);
                }
                context.connect(shard);
            }
        }
        let until = context.now() + PATIENCE;
        let is_misrouted = wrong_host && shard != owner;
        self.question = Some(Question { request: self.next_request, until, is_misrouted });
        self.next_request += 1;
        context.send(command);
        context.wake_only_in(PATIENCE);
    }

    fn command(&mut self, context: &mut Context<'_>, command: Command) {
        let Some(question) = self.question else {
            let name = command.name();
            context.trace().violation("protocol", format_args!("unasked {name}"));
            return;
        };
        let (client, name) = (context.client, command.name());
        trace!(context.trace(), "client {client} gets {name} {}", question.request);
        let id = command.request_id();
        check!(
            context.trace(),
            "protocol",
            id == Some(question.request),
            "{name} answers {id:?} to {}",
            question.request
        );
        if let Command::WrongHost(_) = command {
            context.trace().count("wrong host");
            context.close();
            self.lose(context);
            return;
        }
        check!(
            context.trace(),
            "placement",
            !question.is_misrouted,
            "{name} from a shard that does not own the segment"
        );
        self.question = None;
        self.script.answered(context, command);
        let pause = context.pause(self.think_us_max);
        context.wake_only_in(pause);
    }
}

impl<S: Script> Role for Sequential<S> {
    fn name(&self) -> &'static str {
        self.script.name()
    }

    fn handle(&mut self, context: &mut Context<'_>, input: Input) {
        match input {
            Input::Wake => self.step(context),
            Input::Command(command) => self.command(context, command),
            Input::Closed => self.lose(context),
        }
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn segment(&self) -> Option<&str> {
        self.segment.as_deref()
    }
}

/// Reports an answer that does not fit its question.
pub(crate) fn unexpected(context: &Context<'_>, what: &str, reply: &Command) {
    context.trace().violation("S25", format_args!("{what} is answered by {reply:?}"));
}

/// A short wait of a script that has nothing to do until something else happens.
pub(crate) const SHORT_WAIT: u64 = 5 * MILLISECOND;
