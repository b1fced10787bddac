//! Transactions as clients end them: begun, committed, aborted or left to their lease at the
//! controller, written aside in the segment store, across kills.
//!
//! The checker judges from the segments of the stream, read whole: one that was told committed is
//! in each of its segments, whole, once and contiguous; an aborted one is nowhere; one whose end
//! nobody knows is in all of its segments or in none. A commit is carried out behind its answer, so
//! the lane waits before it reads until the controller says how each ended, and judges what it
//! says: what was told stays so, an end that nobody asked for does not come, and what is ended has
//! left nothing aside.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thalweg_checker::id::{Segment as SegmentName, SessionId, Writer as Author};
use thalweg_checker::record::{Discipline, Happened, Operation, Outcome};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::controller::{Controller, EndOutcome, PingOutcome, State, Stream, aside};
use crate::dice::Dice;
use crate::history::History;
use crate::lane::{Done, Lane, Verified};
use crate::store::{Route, Store};
use crate::wire::{StopSwitch, Trouble};
use crate::witness::Witness;

mod transaction;

use transaction::{Aside, Asked, Transaction, Wish};

/// Segments of the stream.
const SEGMENTS: i32 = 3;
/// Transactions open at a time.
const OPEN_MAX: usize = 8;
/// The stream is replaced by a new one when it is longer.
const LENGTH_MAX: u64 = 512 << 10;
/// Longest time in which what was told committed is in the stream, and what was told aborted gone.
const END_MAX: Duration = Duration::from_secs(60);
/// The scope of all streams of the lane.
const SCOPE: &str = "crash-commits";

/// The lane.
pub(crate) struct Commits {
    port: u16,
    history: Arc<History>,
    stream: Stream,
    generation: u64,
    /// Names of the stream's segments, empty before it is known to be made.
    segments: Vec<String>,
    /// Transactions whose end the controller has not told yet.
    live: Vec<Transaction>,
    /// Transactions so far: the author of the next one.
    begun: u64,
    done: Done,
    dice: Dice,
}

fn stream(generation: u64) -> Stream {
    Stream { scope: SCOPE.to_owned(), name: format!("stream-{generation}") }
}

impl Commits {
    /// With the controller on this port.
    pub(crate) fn new(port: u16, history: &Arc<History>, dice: Dice) -> Self {
        Self {
            port,
            history: history.clone(),
            stream: stream(0),
            generation: 0,
            segments: Vec::new(),
            live: Vec::new(),
            begun: 0,
            done: Done::default(),
            dice,
        }
    }

    /// Works until a connection is lost.
    fn change(&mut self, controller: &mut Controller, store: &mut Store) -> Result<(), Trouble> {
        if self.segments.is_empty() {
            controller.create_scope(SCOPE)?;
            self.segments = controller.create_stream(&self.stream, SEGMENTS)?;
        }
        for it in &mut self.live {
            it.reconnect(store)?;
        }
        loop {
            let open: Vec<usize> =
                (0..self.live.len()).filter(|index| self.live[*index].is_open()).collect();
            let some = (!open.is_empty()).then(|| open[self.dice.index(open.len().max(1))]);
            match (self.dice.below(20), some) {
                (0..=3, _) | (_, None) if open.len() < OPEN_MAX => self.begin(controller, store)?,
                (4..=12, Some(at)) => {
                    let events = self.dice.range(1..12);
                    let part = self.dice.index(self.live[at].parts.len());
                    self.done.acknowledged += self.live[at].write(store, part, events)?;
                }
                (13..=15, Some(at)) => self.end(controller, at, Wish::Commit)?,
                (16, Some(at)) => self.end(controller, at, Wish::Abort)?,
                (17, Some(at)) => self.leave(controller, at)?,
                (18, Some(_)) => self.ask_again(controller)?,
                _ => {}
            }
        }
    }

    /// Begins a transaction. One whose beginning was not answered is known to nobody; its lease
    /// ends it, or the deletion of the stream.
    fn begin(&mut self, controller: &mut Controller, store: &mut Store) -> Result<(), Trouble> {
        let (id, segments) = controller.begin(&self.stream)?;
        ensure_eq!(segments, self.segments, "segments of a transaction of {:?}", self.stream);
        self.begun += 1;
        let author = Author(800_000_000 + self.begun);
        self.history
            .invoke(SessionId::default(), Operation::Begin { transaction: author })
            .and_then(|begun| self.history.ok(begun, Outcome::Done))?;
        for segment in &segments {
            self.history.note(Happened::Writer {
                segment: SegmentName::new(segment),
                writer: author,
                discipline: Discipline::Atomic,
                continues: None,
            })?;
        }
        let parts = segments.into_iter().map(|it| Aside::new(aside(&it, id), it)).collect();
        self.live.push(Transaction::new(id, author, parts));
        let last = self.live.len() - 1;
        self.live[last].reconnect(store)
    }

    /// Asks for an end, for the first time or again.
    fn end(&mut self, controller: &mut Controller, at: usize, wish: Wish) -> Result<(), Trouble> {
        let (it, history) = (&mut self.live[at], &self.history);
        it.ask(history, wish)?;
        let told = match wish {
            Wish::Commit => controller.commit(&self.stream, it.id)?,
            Wish::Abort => controller.abort(&self.stream, it.id)?,
        };
        match told {
            EndOutcome::Success => it.was_accepted(history),
            EndOutcome::Failure | EndOutcome::TransactionNotFound => it.was_refused(history, told),
            EndOutcome::StreamNotFound => wrong!("{told:?} to the {wish:?} of {it:?}"),
        }
    }

    /// Leaves a transaction to its lease, which is made short.
    fn leave(&mut self, controller: &mut Controller, at: usize) -> Result<(), Trouble> {
        let lease = i64::try_from(self.dice.range(1..300)).expect("small");
        let it = &mut self.live[at];
        let was_left = it.is_left;
        it.is_left = true;
        let told = controller.ping(&self.stream, it.id, lease)?;
        let is_right = told == PingOutcome::Ok || was_left && told == PingOutcome::Aborted;
        ensure!(is_right, "{told:?} to a ping of {it:?}");
        Ok(())
    }

    /// What the controller says of some transaction fits what it said before.
    fn ask_again(&mut self, controller: &mut Controller) -> Result<(), Trouble> {
        let at = self.dice.index(self.live.len());
        let state = controller.state(&self.stream, self.live[at].id)?;
        self.live[at].check(state)
    }

    /// Waits until each transaction that was asked to end has ended; those that nobody asked about
    /// and whose lease is long stay open. An end of which nobody knows is asked for again, as a
    /// client does.
    fn settle(&mut self, controller: &mut Controller, store: &mut Store) -> Result<(), Trouble> {
        let begin = Instant::now();
        let mut at = 0;
        while at < self.live.len() {
            let state = controller.state(&self.stream, self.live[at].id)?;
            let it = &mut self.live[at];
            it.check(state)?;
            match state {
                State::Open if matches!(it.asked, Asked::Nothing) => at += 1,
                State::Open => {
                    let wish = it.wish().expect("something was asked");
                    self.end(controller, at, wish)?;
                }
                State::Committed | State::Aborted => {
                    it.has_ended(&self.history, state)?;
                    for part in &it.parts {
                        let left = store.info(&part.aside)?;
                        ensure!(left.is_none(), "{} is left of a {state:?} one", part.aside);
                    }
                    self.live.swap_remove(at);
                }
                State::Committing | State::Aborting => {
                    ensure!(begin.elapsed() < END_MAX, "{state:?} for {END_MAX:?}: {it:?}");
                    thread::sleep(Duration::from_millis(2));
                }
                State::Unknown => wrong!("the controller does not know {it:?}"),
            }
        }
        Ok(())
    }

    /// Reads all segments of the stream; gives the events and their bytes.
    fn read_back(&self, store: &mut Witness<'_>) -> Result<Verified, Trouble> {
        let mut verified = Verified::default();
        for name in &self.segments {
            let Some(info) = store.info(name)? else { wrong!("{name} is gone") };
            let length = info.write_offset.unsigned_abs();
            store.read_whole(name, length, |run| verified.items += u64::from(run.count))?;
            verified.bytes += length;
        }
        Ok(verified)
    }

    /// Goes on with a new stream; the old one is sealed and deleted, which ends what is open.
    fn replace(
        &mut self,
        controller: &mut Controller,
        store: &mut Witness<'_>,
    ) -> Result<(), Trouble> {
        for it in &mut self.live {
            it.is_left = true;
            it.has_ended(&self.history, State::Aborted)?;
        }
        let session = SessionId::default();
        let mut deletions = Vec::new();
        for name in &self.segments {
            let segment = SegmentName::new(name);
            deletions.push(self.history.invoke(session, Operation::Delete { segment })?);
        }
        controller.remove(&self.stream)?;
        for deletion in deletions {
            self.history.ok(deletion, Outcome::Done)?;
        }
        let asides = self.live.iter().flat_map(|it| &it.parts).map(|part| &part.aside);
        for name in self.segments.iter().chain(asides) {
            ensure!(store.store.info(name)?.is_none(), "{name} is left of a deleted stream");
        }
        self.live.clear();
        self.segments.clear();
        self.generation += 1;
        self.stream = stream(self.generation);
        Ok(())
    }
}

impl Lane for Commits {
    fn name(&self) -> String {
        "transactions through the controller".to_owned()
    }

    fn resumes(&self) -> bool {
        true
    }

    fn done(&self) -> Done {
        self.done
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        let mut controller = Controller::new(self.port, &route.stop)?;
        let mut store = Store::new(route);
        loop {
            let Err(trouble) = self.change(&mut controller, &mut store) else { return Ok(()) };
            for it in &mut self.live {
                it.disconnect();
            }
            self.done.reconnects += 1;
            route.lost(trouble, &mut store)?;
        }
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        if self.segments.is_empty() {
            return Ok(Verified::default());
        }
        let mut controller = Controller::new(self.port, &StopSwitch::default())?;
        let history = self.history.clone();
        let mut store = Witness::new(route, &history);
        self.settle(&mut controller, &mut store.store)?;
        let verified = self.read_back(&mut store)?;
        if verified.bytes > LENGTH_MAX {
            self.replace(&mut controller, &mut store)?;
        }
        Ok(verified)
    }
}
