//! A writer as clients are: numbered events, several blocks in flight, exact resume after every
//! reconnect from what the set-up tells.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    AppendBlock, AppendBlockEnd, AppendSetup, Command, DataAppended, Message, NO_EVENT_NUMBER,
    PartialEvent, SetupAppend,
};

use super::{Context, Input, Phase, Role, no_token};
use crate::clock::{MILLISECOND, SECOND};
use crate::payload::{EventIdentity, WriterTag};
use crate::trace::{check, trace};

/// Name of the role.
pub(crate) const NAME: &str = "writer";

const PATIENCE: u64 = 20 * SECOND;
/// Blocks that are still written when nothing fails any more, for readers who wait for them.
const ENCORES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Disconnected,
    SettingUp,
    Ready,
}

/// The role.
pub(crate) struct Writer {
    segment: String,
    tag: WriterTag,
    /// Another connection writes under the same id.
    has_twin: bool,
    /// Set-ups without an answer: each may yet come true and end a later session.
    ghosts: u32,
    state: State,
    request: i64,
    /// The acknowledgement level of this session.
    level: i64,
    /// Last numbers of the blocks sent and not acknowledged.
    in_flight: VecDeque<i64>,
    next: i64,
    /// Nothing above this is worth sending in the end.
    highest_sent: i64,
    encores: u32,
    window: usize,
    events_per_block_max: u64,
    think_us_max: u64,
    deadline: u64,
    is_done: bool,
}

impl Writer {
    /// A writer of `segment`.
    pub(crate) fn new(
        segment: &str,
        tag: WriterTag,
        has_twin: bool,
        context: WriterHabits,
    ) -> Self {
        Self {
            segment: segment.to_owned(),
            tag,
            has_twin,
            ghosts: 0,
            state: State::Disconnected,
            request: 0,
            level: NO_EVENT_NUMBER,
            in_flight: VecDeque::new(),
            next: 1,
            highest_sent: 0,
            encores: if has_twin { 0 } else { ENCORES },
            window: context.window,
            events_per_block_max: context.events_per_block_max,
            think_us_max: context.think_us_max,
            deadline: u64::MAX,
            is_done: false,
        }
    }

    fn step(&mut self, context: &mut Context<'_>) {
        if self.state == State::Disconnected {
            self.set_up(context);
            return;
        }
        if context.now() >= self.deadline {
            trace!(context.trace(), "client {} loses patience", context.client);
            context.trace().count("client time-outs");
            context.close();
            self.lose(context, 2_000);
            return;
        }
        if self.state == State::Ready {
            self.write(context);
        }
        if context.is_connected() {
            let wait = self.deadline.saturating_sub(context.now());
            context.wake_in(wait.min(10 * SECOND));
        }
    }

    fn set_up(&mut self, context: &mut Context<'_>) {
        if context.is_finishing() && self.highest_sent == 0 {
            self.is_done = true;
            return;
        }
        let shard = context.shared.router.shard_for(&self.segment, context.rng);
        context.connect(shard);
        self.request += 1;
        let command = SetupAppend {
            request_id: self.request,
            writer_id: self.tag.writer_id(),
            segment: self.segment.as_str().into(),
            delegation_token: no_token(),
        };
        context.send(&command.into());
        self.state = State::SettingUp;
        self.deadline = context.now() + PATIENCE;
        context.wake_only_in(PATIENCE);
    }

    fn write(&mut self, context: &mut Context<'_>) {
        if context.is_finishing() {
            let is_all_there = self.in_flight.is_empty() && self.next > self.highest_sent;
            if is_all_there && self.encores > 0 && context.shared.phase == Phase::Heal {
                self.encores -= 1;
                context.begin();
                self.send_block(context);
                return;
            }
            if is_all_there || (self.has_twin && self.in_flight.is_empty()) {
                self.is_done = true;
                context.close();
                return;
            }
        }
        while self.in_flight.len() < self.window {
            if context.is_finishing() && self.next > self.highest_sent {
                return;
            }
            context.begin();
            self.send_block(context);
            if context.rng.percent(40) {
                break;
            }
        }
        if !context.is_finishing() {
            let pause = context.pause(self.think_us_max);
            context.wake_in(pause);
        }
    }

    fn send_block(&mut self, context: &mut Context<'_>) {
        let count = context.rng.between(1, self.events_per_block_max) as i64;
        let first = self.next;
        let last = first + count - 1;
        self.next = last + 1;
        self.highest_sent = self.highest_sent.max(last);
        let sizes = context.shared.options.event_sizes;
        let mut data = BytesMut::new();
        let mut whole = 0;
        for number in first..=last {
            whole = data.len();
            EventIdentity { tag: self.tag, number }.encode(sizes, &mut data);
        }
        trace!(
            context.trace(),
            "client {} appends {}..={} of {:?}, {} bytes",
            context.client,
            first,
            last,
            self.tag,
            data.len()
        );
        self.request += 1;
        let mut end = AppendBlockEnd {
            writer_id: self.tag.writer_id(),
            size_of_whole_events: data.len() as i32,
            data: Bytes::new(),
            event_count: count as i32,
            last_event_number: last,
            request_id: self.request,
        };
        let data = data.freeze();
        match context.rng.below(4) {
            0 => self.send_first_part(context, data),
            1 => {
                // The last event is cut in two, as a block of fixed size cuts it.
                let cut = whole + 1 + context.rng.index(data.len() - whole - 1);
                let mut part = BytesMut::from(&data[..whole]);
                PartialEvent { data: data.slice(whole..cut) }.encode(&mut part);
                self.send_first_part(context, part.freeze());
                end.size_of_whole_events = whole as i32;
                end.data = data.slice(cut..);
            }
            _ => end.data = data,
        }
        context.send(&end.into());
        self.in_flight.push_back(last);
        self.deadline = context.now() + PATIENCE;
    }

    fn send_first_part(&self, context: &mut Context<'_>, data: Bytes) {
        let block = AppendBlock { writer_id: self.tag.writer_id(), data };
        context.send(&block.into());
    }

    fn command(&mut self, context: &mut Context<'_>, command: Command) {
        let (client, name) = (context.client, command.name());
        trace!(context.trace(), "client {client} gets {name}");
        match command {
            Command::AppendSetup(setup) => self.is_set_up(context, &setup),
            Command::DataAppended(appended) => self.appended(context, &appended),
            Command::SegmentIsSealed(_) => {
                self.is_done = true;
                context.close();
            }
            Command::InvalidEventNumber(_) => {
                let has_rival = self.has_twin || self.ghosts > 0;
                check!(context.trace(), "S25", has_rival, "{:?} has no rival", self.tag);
                self.ghosts = self.ghosts.saturating_sub(1);
                context.trace().count("rival sessions");
                context.close();
                self.lose(context, 30_000);
            }
            Command::WrongHost(_) => {
                context.trace().count("wrong host");
                context.close();
                self.lose(context, 20_000);
            }
            other => {
                context.trace().violation("S25", format_args!("a writer is told {other:?}"));
            }
        }
    }

    fn is_set_up(&mut self, context: &mut Context<'_>, setup: &AppendSetup) {
        if self.state != State::SettingUp {
            context.trace().violation("protocol", format_args!("unasked AppendSetup"));
            return;
        }
        let is_mine = setup.request_id == self.request && setup.segment == self.segment.as_str();
        check!(context.trace(), "protocol", is_mine, "{setup:?} is not what was asked for");
        self.level = setup.last_event_number;
        let last = (self.level != NO_EVENT_NUMBER).then_some(self.level);
        let client = context.client;
        trace!(context.trace(), "client {client} resumes {:?} after {last:?}", self.tag);
        self.next = last.map_or(1, |last| last + 1);
        self.in_flight.clear();
        self.state = State::Ready;
        self.step(context);
    }

    fn appended(&mut self, context: &mut Context<'_>, appended: &DataAppended) {
        let number = appended.event_number;
        let chains = appended.previous_event_number == self.level && number > self.level;
        check!(
            context.trace(),
            "S10",
            chains && appended.writer_id == self.tag.writer_id(),
            "{:?}: {appended:?} does not follow {}",
            self.tag,
            self.level
        );
        check!(
            context.trace(),
            "S10",
            self.in_flight.contains(&number),
            "{:?}: {number} is acknowledged and not in flight",
            self.tag
        );
        trace!(context.trace(), "client {} has {number} of {:?} stored", context.client, self.tag);
        self.level = number;
        while self.in_flight.front().is_some_and(|last| *last <= number) {
            self.in_flight.pop_front();
            context.trace().count("appends acknowledged");
        }
        self.deadline = if self.in_flight.is_empty() { u64::MAX } else { context.now() + PATIENCE };
        let pause = context.pause(self.think_us_max);
        context.wake_in(pause);
    }

    fn lose(&mut self, context: &mut Context<'_>, pause_us_max: u64) {
        self.ghosts += u32::from(self.state == State::SettingUp);
        self.state = State::Disconnected;
        self.in_flight.clear();
        self.deadline = u64::MAX;
        if self.has_twin && context.is_finishing() {
            // The twin without the lower client number goes on alone.
            self.is_done = self.is_done || context.rng.percent(30);
        }
        if !self.is_done {
            let pause = context.pause(pause_us_max);
            context.wake_only_in(pause + MILLISECOND);
        }
    }
}

/// How a writer writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterHabits {
    /// Most blocks in flight.
    pub(crate) window: usize,
    /// Most events in a block.
    pub(crate) events_per_block_max: u64,
    /// Longest pause, microseconds.
    pub(crate) think_us_max: u64,
}

impl Role for Writer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handle(&mut self, context: &mut Context<'_>, input: Input) {
        if self.is_done {
            return;
        }
        match input {
            Input::Wake => self.step(context),
            Input::Command(command) => self.command(context, command),
            Input::Closed => self.lose(context, 5_000),
        }
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn segment(&self) -> Option<&str> {
        Some(&self.segment)
    }
}
