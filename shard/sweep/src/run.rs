//! Runs a script on a world: sends steps, matches replies, knows what is acknowledged.

use std::collections::BTreeSet;
use std::time::Duration;

use thalweg_core::env::journal::Journal;
use thalweg_uring::trace::Trace;
use thalweg_wire::{AppendBlockEnd, Command, SetupAppend, Text};

use crate::reference::Reference;
use crate::script::{Script, Step};
use crate::world::{Closed, World};

/// Request id of what is not a step.
const NO_STEP: i64 = -7;
/// Silence in which beacons are written and files are prepared and recycled.
const SILENCE: Duration = Duration::from_millis(40);

/// What a mark in a trace says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// So many steps are sent.
    Sent(usize),
    /// So many steps are acknowledged, or were seen in what was recovered.
    Acked(usize),
}

impl Mark {
    fn encode(self) -> u64 {
        match self {
            Self::Sent(steps) => (1 << 32) | steps as u64,
            Self::Acked(steps) => steps as u64,
        }
    }

    /// Reads a mark of a trace.
    pub fn decode(mark: u64) -> Self {
        let steps = (mark & u64::from(u32::MAX)) as usize;
        if mark >> 32 == 0 { Self::Acked(steps) } else { Self::Sent(steps) }
    }
}

/// A script on its way.
pub struct Runner<'a, J: Journal> {
    script: &'a Script,
    /// `None` while the reference itself is made.
    reference: Option<&'a Reference>,
    /// Where it runs.
    pub world: World<J>,
    trace: Option<Trace>,
    /// Steps sent.
    pub sent: usize,
    /// Steps that are acknowledged, all before the last acknowledged one included.
    pub acked: usize,
    /// Steps whose reply is awaited. Containers answer each in their own order.
    open: BTreeSet<usize>,
    sessions: BTreeSet<usize>,
    /// Of the requests, with request id 0.
    pub replies: Vec<Option<Command>>,
}

impl<'a, J: Journal> Runner<'a, J> {
    /// Begins at the first step.
    pub fn new(
        script: &'a Script,
        reference: Option<&'a Reference>,
        world: World<J>,
        trace: Option<Trace>,
    ) -> Self {
        let mut runner = Self {
            script,
            reference,
            world,
            trace,
            sent: 0,
            acked: 0,
            open: BTreeSet::new(),
            sessions: BTreeSet::new(),
            replies: vec![None; script.steps.len()],
        };
        runner.stand_at(0);
        runner
    }

    /// Another world, or the same after a failure: it was seen to be after `steps` steps.
    pub fn stand_at(&mut self, steps: usize) {
        (self.sent, self.acked) = (steps, steps);
        self.open.clear();
        self.sessions.clear();
        self.mark(Mark::Acked(steps));
        self.mark(Mark::Sent(steps));
    }

    fn mark(&self, mark: Mark) {
        if let Some(trace) = &self.trace {
            trace.mark(mark.encode());
        }
    }

    /// Whether every step was sent.
    pub fn is_over(&self) -> bool {
        self.sent == self.script.steps.len()
    }

    /// Sends the next step; waits only where the step says so. A restart is only counted: the
    /// caller carries it out.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn step(&mut self) -> Result<(), Closed> {
        let index = self.sent;
        match &self.script.steps[index] {
            Step::Ask(command) => {
                let mut command = command.clone();
                if let Command::DeleteSegment(deletion) = &command {
                    let name = deletion.segment.clone();
                    let named = |segment: &usize| name != self.script.segments[*segment].as_str();
                    self.sessions.retain(named);
                }
                set_request_id(&mut command, index as i64);
                self.open.insert(index);
                self.count_sent();
                self.world.send(command);
                self.nudge();
            }
            Step::Append { segment, bytes } => {
                self.set_up(*segment)?;
                self.open.insert(index);
                self.count_sent();
                self.world.send(AppendBlockEnd {
                    writer_id: Script::writer(*segment),
                    size_of_whole_events: 0,
                    data: bytes.clone(),
                    event_count: 1,
                    last_event_number: index as i64 + 1,
                    request_id: index as i64,
                });
                self.nudge();
            }
            Step::Settle => {
                self.settle()?;
                self.count_sent();
            }
            Step::Rest => {
                self.settle()?;
                self.world.rest(SILENCE);
                self.count_sent();
            }
            Step::Restart => self.count_sent(),
        }
        Ok(())
    }

    fn count_sent(&mut self) {
        self.sent += 1;
        self.mark(Mark::Sent(self.sent));
    }

    /// Two turns: one that takes what was sent, one that takes what it led to.
    fn nudge(&mut self) {
        for _ in 0..2 {
            self.world.turn();
        }
        while let Some(reply) = self.world.arrived() {
            self.take(reply);
        }
    }

    fn set_up(&mut self, segment: usize) -> Result<(), Closed> {
        if self.sessions.contains(&segment) {
            return Ok(());
        }
        self.world.send(SetupAppend {
            request_id: NO_STEP,
            writer_id: Script::writer(segment),
            segment: self.script.segments[segment].as_str().into(),
            delegation_token: Text::new(),
        });
        loop {
            match self.world.reply()? {
                Command::AppendSetup(setup) if setup.request_id == NO_STEP => break,
                reply => self.take(reply),
            }
        }
        self.sessions.insert(segment);
        Ok(())
    }

    /// Waits until every step sent is answered.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn settle(&mut self) -> Result<(), Closed> {
        while !self.open.is_empty() {
            let reply = self.world.reply()?;
            self.take(reply);
        }
        Ok(())
    }

    /// A reply came. If its step changed anything, everything up to it is durable, since one
    /// journal orders all changes; an answer to a step that changed nothing says that only of its
    /// own container.
    fn take(&mut self, mut reply: Command) {
        let index = match &reply {
            Command::DataAppended(acked) => acked.event_number - 1,
            _ => set_request_id(&mut reply, 0),
        };
        let index = usize::try_from(index).expect("a reply belongs to a step");
        assert!(self.open.remove(&index), "a reply to nothing: {reply:?}");
        match &reply {
            Command::DataAppended(acked) => {
                let steps = &self.script.steps;
                let is_later = |step: &usize| {
                    let writer = match &steps[*step] {
                        Step::Append { segment, .. } => Some(Script::writer(*segment)),
                        _ => None,
                    };
                    *step > index || writer != Some(acked.writer_id)
                };
                self.open.retain(is_later);
            }
            _ => self.replies[index] = Some(reply),
        }
        if self.reference.is_none_or(|reference| reference.changes(index)) {
            self.acked = self.acked.max(index + 1);
        }
        self.mark(Mark::Acked(self.acked));
    }

    /// Compares every reply that came with what is right.
    ///
    /// # Panics
    /// When one differs.
    pub fn check_replies(&self) {
        let Some(reference) = self.reference else { return };
        for (index, reply) in self.replies.iter().enumerate() {
            if reply.is_some() {
                assert_eq!(*reply, reference.replies[index], "reply to step {index}");
            }
        }
    }
}

/// Puts another request id into a command of the kinds that scripts use; gives the old one.
fn set_request_id(command: &mut Command, id: i64) -> i64 {
    macro_rules! of_kinds {
        ($($kind:ident),+) => {
            match command {
                $(Command::$kind(command) => std::mem::replace(&mut command.request_id, id),)+
                other => panic!("scripts do not use {other:?}"),
            }
        };
    }
    of_kinds!(
        CreateSegment,
        SegmentCreated,
        SealSegment,
        SegmentSealed,
        DeleteSegment,
        SegmentDeleted,
        TruncateSegment,
        SegmentTruncated,
        MergeSegments,
        SegmentsMerged,
        MergeSegmentsBatch,
        SegmentsBatchMerged,
        UpdateSegmentAttribute,
        SegmentAttributeUpdated,
        CreateTableSegment,
        DeleteTableSegment,
        UpdateTableEntries,
        TableEntriesUpdated,
        RemoveTableKeys,
        TableKeysRemoved,
        SegmentAlreadyExists,
        SegmentIsSealed,
        NoSuchSegment,
        TableKeyBadVersion,
        TableKeyDoesNotExist,
        TableSegmentNotEmpty,
        SegmentIsTruncated
    )
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Connections that the shard closed.
    pub closures: u64,
    /// Processes started.
    pub boots: u64,
}

/// Runs a script to its end, over restarts and failures of the journal, and checks after each that
/// nothing acknowledged is lost and nothing else is there. `boot` starts the next process on what
/// the last one left.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn drive<'a, J: Journal>(
    mut runner: Runner<'a, J>,
    boot: &mut dyn FnMut(J) -> Result<World<J>, String>,
) -> Result<(Runner<'a, J>, Course), String> {
    let mut course = Course { closures: 0, boots: 1 };
    let mut restarted = BTreeSet::new();
    loop {
        let outcome = if runner.is_over() { runner.settle() } else { runner.step() };
        if outcome.is_err() {
            course.closures += 1;
            if course.closures > 20 {
                let counters = runner.world.shard().counters();
                return Err(format!(
                    "the shard closes again and again, at step {}: {counters:?}",
                    runner.sent
                ));
            }
            if !runner.world.recover_in_place() {
                let fault = runner.world.shard().fault().map(ToString::to_string);
                return Err(format!("the shard gave up: {fault:?}"));
            }
            runner.world.connect();
            runner.find_place()?;
            continue;
        }
        let last = runner.sent - 1;
        if matches!(runner.script.steps[last], Step::Restart) && restarted.insert(last) {
            course.boots += 1;
            runner = runner.restart(boot)?;
            runner.find_place()?;
            continue;
        }
        if runner.is_over() && runner.open.is_empty() {
            break;
        }
    }
    runner.check_replies();
    runner.acked = runner.sent;
    runner.find_place()?;
    Ok((runner, course))
}

impl<'a, J: Journal> Runner<'a, J> {
    /// Ends the process and starts the next.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(
        self,
        boot: &mut dyn FnMut(J) -> Result<World<J>, String>,
    ) -> Result<Self, String> {
        let Self { script, reference, world, trace, sent, acked, replies, .. } = self;
        let world = boot(world.kill())?;
        let (open, sessions) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { script, reference, world, trace, sent, acked, open, sessions, replies })
    }

    /// Looks at everything, and stands where that was so.
    ///
    /// # Errors
    /// When it never was, or before what is acknowledged, or behind what was sent.
    pub fn find_place(&mut self) -> Result<(), String> {
        let reference = self.reference.ok_or("there is nothing to compare with")?;
        let halted = self.world.shard().counters().halts;
        if halted > 0 {
            return Err(format!("{halted} containers refuse to serve"));
        }
        let mut found = crate::reference::look(self.script, &mut self.world);
        if found.is_err() {
            // A failure that the look itself met; there is one at most.
            if !self.world.recover_in_place() {
                return Err("the shard gave up while it was looked at".to_owned());
            }
            self.world.connect();
            found = crate::reference::look(self.script, &mut self.world);
        }
        let found = found.map_err(|Closed| "a look at everything is closed".to_owned())?;
        let Some(at) = reference.find(&found, self.acked, self.sent) else {
            let (acked, sent) = (self.acked, self.sent);
            let text = reference.describe(&found, acked, sent);
            return Err(format!("of steps {acked} acknowledged and {sent} sent:{text}"));
        };
        self.stand_at(at);
        Ok(())
    }
}
