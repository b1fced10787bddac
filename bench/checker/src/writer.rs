//! What is known of one writer in one life of a segment: what it sent, what it was told, and what
//! of it was found. A constant amount, but for appends in flight and, when numbers have gaps, for
//! appends that were not read yet.

use std::collections::{BTreeMap, VecDeque};

use crate::breach::{Verdict, breach, hold};
use crate::content::Placed;
use crate::id::{OperationId, SessionId, Writer};
use crate::record::Discipline;
use crate::segment::Before;

/// Sessions of one writer that are remembered.
const SESSIONS_MAX: usize = 8;

/// One append of a writer whose numbers have gaps.
#[derive(Clone, Copy, Debug)]
struct Submission {
    last: i64,
    /// The length that was the condition.
    expected: Option<u64>,
    /// Position of the record.
    since: u64,
    is_stored: bool,
    is_refused: bool,
}

#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    /// Appends that did not end, in order.
    open: VecDeque<OperationId>,
    /// The number that was told last, if it is known.
    level: Option<Option<i64>>,
    /// An append of it ended badly: nothing behind it may be stored.
    broken: Option<&'static str>,
}

/// A writer in a life of a segment.
#[derive(Clone, Debug)]
pub(crate) struct WriterState {
    name: Writer,
    discipline: Discipline,
    /// Highest number sent. With [`Discipline::Dense`] a set-up takes it back to what it told: what
    /// was sent before and is not stored by then never will be, unless it is sent again.
    submitted: Option<i64>,
    /// Appends sent.
    sent: u64,
    /// Highest number that was taken back.
    void: Option<i64>,
    /// Highest number that is certainly stored; with [`Discipline::Dense`] all below are too.
    confirmed: Option<i64>,
    /// Nothing above is stored, nor will be.
    limit: Option<i64>,
    /// Highest number found.
    found: Option<i64>,
    /// Jumps over unread parts of the segment before that.
    jumps: u32,
    submissions: BTreeMap<i64, Submission>,
    sessions: Vec<Session>,
    /// The session that was set up last; older ones may not know that yet.
    newest: Option<SessionId>,
    /// Of a transaction: how many events its commit announced.
    announced: Option<u32>,
    /// Of a transaction: it was aborted.
    is_aborted: bool,
    /// Of a transaction: it was committed.
    is_committed: bool,
}

impl WriterState {
    pub(crate) fn new(name: Writer, discipline: Discipline) -> Self {
        Self {
            name,
            discipline,
            submitted: None,
            sent: 0,
            void: None,
            confirmed: None,
            limit: None,
            found: None,
            jumps: 0,
            submissions: BTreeMap::new(),
            sessions: Vec::new(),
            newest: None,
            announced: None,
            is_aborted: false,
            is_committed: false,
        }
    }

    pub(crate) fn submitted(&self) -> Option<i64> {
        self.submitted
    }

    /// How many appends were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn found(&self) -> Option<i64> {
        self.found
    }

    /// Highest number that is certainly stored, told or found.
    pub(crate) fn stored(&self) -> Option<i64> {
        self.confirmed.max(self.found)
    }

    /// Whether its numbers have no gaps.
    pub(crate) fn is_dense(&self) -> bool {
        matches!(self.discipline, Discipline::Dense { .. })
    }

    /// How many events a transaction has, once that was said.
    pub(crate) fn announced(&self) -> Option<u32> {
        self.announced
    }

    fn session(&mut self, id: SessionId) -> &mut Session {
        let at = match self.sessions.iter().position(|session| session.id == id) {
            Some(at) => at,
            None => {
                let idle = self.sessions.iter().position(|session| session.open.is_empty());
                if let (true, Some(idle)) = (self.sessions.len() >= SESSIONS_MAX, idle) {
                    self.sessions.remove(idle);
                }
                let open = VecDeque::new();
                self.sessions.push(Session { id, open, level: None, broken: None });
                self.sessions.len() - 1
            }
        };
        &mut self.sessions[at]
    }

    /// An append is being sent.
    pub(crate) fn sends(
        &mut self,
        (id, session): (OperationId, SessionId),
        (first, last): (i64, i64),
        expected: Option<u64>,
        since: u64,
    ) -> Verdict {
        if let Discipline::Dense { first: least } = self.discipline {
            let next = self.submitted.max(self.stored()).map_or(least, |last| last + 1);
            let writer = self.name;
            let is_newest = self.newest.is_none_or(|newest| newest == session);
            hold!(
                first <= next || !is_newest,
                "history",
                "{writer:?} sends {first}, and {next} was not sent"
            );
        }
        self.submitted = self.submitted.max(Some(last));
        self.sent += 1;
        if self.discipline == Discipline::Increasing {
            let submission =
                Submission { last, expected, since, is_stored: false, is_refused: false };
            self.submissions.insert(first, submission);
        }
        self.session(session).open.push_back(id);
        Ok(())
    }

    /// A set-up that was sent at record `since` is answered; `before` was certain by then.
    pub(crate) fn set_up(
        &mut self,
        session: SessionId,
        last: Option<i64>,
        before: &Before,
        since: u64,
        earlier_life: Option<i64>,
    ) -> Verdict {
        let writer = self.name;
        let stored = before.stored;
        hold!(
            last >= stored,
            "S25",
            "a set-up of {writer:?} tells {last:?} when {stored:?} was certainly stored"
        );
        let least = match self.discipline {
            Discipline::Dense { first } => Some(first),
            _ => None,
        };
        let is_of_this_life = last <= self.submitted && (last.is_none() || last >= least);
        if !is_of_this_life {
            let kind = if earlier_life >= last { "S22" } else { "S2" };
            breach!(kind, "a set-up of {writer:?} tells {last:?}, which was never sent here");
        }
        self.confirmed = self.confirmed.max(last);
        if self.is_dense() && self.sent == before.sent {
            self.void = self.void.max(self.submitted);
            self.submitted = last;
        }
        for (first, submission) in &mut self.submissions {
            if (*first..=submission.last).contains(&last.unwrap_or(i64::MIN)) {
                submission.is_stored = true;
            } else if Some(*first) > last && submission.since < since && !submission.is_stored {
                submission.is_refused = true;
            }
        }
        self.newest = Some(session);
        let session = self.session(session);
        session.level = Some(last);
        session.open.clear();
        session.broken = None;
        self.check_limit()
    }

    fn check_limit(&self) -> Verdict {
        let stored = self.stored();
        let holds = self.limit.is_none() || stored <= self.limit;
        let (writer, limit) = (self.name, self.limit);
        hold!(holds, "S26", "{writer:?} has {stored:?} stored, and {limit:?} was the last here");
        Ok(())
    }

    /// Nothing above `last` is stored here, nor will be.
    pub(crate) fn is_limited(&mut self, last: i64) -> Verdict {
        self.limit = Some(self.limit.map_or(last, |limit| limit.min(last)));
        self.check_limit()
    }

    /// An append was acknowledged.
    pub(crate) fn acknowledged(
        &mut self,
        (id, session): (OperationId, SessionId),
        (first, last): (i64, i64),
        previous: Option<i64>,
    ) -> Verdict {
        let writer = self.name;
        let state = self.session(session);
        if let Some(invariant) = state.broken {
            breach!(
                invariant,
                "{last} of {writer:?} is acknowledged behind an append of the same session that \
                 was not"
            );
        }
        let is_next = state.open.pop_front() == Some(id);
        hold!(is_next, "S10", "{last} of {writer:?} is acknowledged before what was sent earlier");
        if let (Some(told), Some(level)) = (previous, state.level) {
            hold!(
                Some(told) == level || (level.is_none() && told < first),
                "S10",
                "{last} of {writer:?} is said to follow {told}, and {level:?} was told last"
            );
        }
        state.level = Some(Some(last));
        self.confirmed = self.confirmed.max(Some(last));
        if let Some(submission) = self.submissions.get_mut(&first) {
            let is_refused = submission.is_refused;
            submission.is_stored = true;
            hold!(!is_refused, "S25", "{last} of {writer:?} is acknowledged and was refused");
        }
        self.check_limit()
    }

    /// An append was refused.
    pub(crate) fn refused(&mut self, (id, session): (OperationId, SessionId), first: i64) {
        self.ended(id, session, None);
        if let Some(submission) = self.submissions.get_mut(&first) {
            submission.is_refused = true;
        }
    }

    /// An append ended without an acknowledgement. `broken`: what is breached if one behind it in
    /// the session is acknowledged all the same.
    pub(crate) fn ended(
        &mut self,
        id: OperationId,
        session: SessionId,
        broken: Option<&'static str>,
    ) {
        let session = self.session(session);
        if let Some(at) = session.open.iter().position(|open| *open == id) {
            session.open.remove(at);
            session.broken = session.broken.or(broken);
        }
    }

    /// The commit of a transaction with so many events here is asked for.
    pub(crate) fn announce(&mut self, count: u32) {
        self.announced = Some(count);
        self.submitted = self.submitted.max(Some(i64::from(count) - 1));
    }

    /// A transaction was committed.
    pub(crate) fn committed(&mut self) -> Verdict {
        hold!(!self.is_aborted, "S15", "{:?} is committed and was aborted", self.name);
        self.is_committed = true;
        self.confirmed = self.confirmed.max(self.announced.map(|count| i64::from(count) - 1));
        Ok(())
    }

    /// A transaction was aborted.
    pub(crate) fn aborted(&mut self) -> Verdict {
        let holds = !self.is_committed && self.found.is_none();
        hold!(holds, "S15", "{:?} is aborted and was committed or seen", self.name);
        self.is_aborted = true;
        Ok(())
    }

    /// Its events are found here, behind everything found before. `was_found` tells whether a
    /// number was found before.
    pub(crate) fn finds(
        &mut self,
        placed: &Placed,
        earlier_life: Option<i64>,
        was_found: impl Fn(i64) -> bool,
    ) -> Verdict {
        let (writer, run, at) = (self.name, placed.run, placed.offset);
        let (first, last) = (run.first, run.last());
        if Some(last) > self.submitted && self.discipline != Discipline::Atomic {
            let kind = if earlier_life >= Some(first) {
                "S22"
            } else if Some(last) <= self.void {
                "S25"
            } else {
                "S2"
            };
            breach!(kind, "{last} of {writer:?} lies near {at} and was never sent here");
        }
        match self.discipline {
            Discipline::Dense { first: least } => {
                let next = self.found.map_or(least, |found| found + 1);
                if first < next {
                    let kind = if self.found.is_none() && earlier_life >= Some(first) {
                        "S22"
                    } else if self.found.is_none() {
                        "S2"
                    } else {
                        "S3"
                    };
                    breach!(kind, "{first} of {writer:?} lies at {at}, {next} is the next");
                }
                let is_next = first == next || self.jumps != placed.jumps;
                hold!(is_next, "S5", "{first} of {writer:?} lies at {at}, {next} is left out");
            }
            Discipline::Increasing => {
                if Some(first) <= self.found {
                    let kind = if was_found(first) { "S3" } else { "S4" };
                    breach!(kind, "{first} of {writer:?} lies at {at} behind {:?}", self.found);
                }
                self.find_submissions(placed)?;
            }
            Discipline::Atomic => {
                let next = self.found.map_or(0, |found| found + 1);
                let announced = self.announced.map(i64::from);
                let holds = first == next && Some(last) < announced && !self.is_aborted;
                hold!(
                    holds,
                    "S15",
                    "{first} to {last} of transaction {writer:?} lie at {at}: {next} is the next \
                     of {announced:?}, aborted: {}",
                    self.is_aborted
                );
            }
        }
        self.found = self.found.max(Some(last));
        self.jumps = placed.jumps;
        self.check_limit()
    }

    fn find_submissions(&mut self, placed: &Placed) -> Verdict {
        let (writer, run) = (self.name, placed.run);
        let mut number = run.first;
        while number <= run.last() {
            let Some(entry) = self.submissions.first_entry() else {
                breach!("S2", "{number} of {writer:?} was never sent here");
            };
            let (first, submission) = (*entry.key(), *entry.get());
            if submission.last < number {
                let is_lost = submission.is_stored && !submission.is_refused;
                hold!(!is_lost, "S5", "{first} of {writer:?} was stored and is left out");
                entry.remove();
                continue;
            }
            hold!(first <= number, "S2", "{number} of {writer:?} was never sent here");
            let at = placed.offset + (number - run.first) as u64 * u64::from(run.bytes);
            if let Some(expected) = submission.expected {
                hold!(at == expected, "S11", "{number} of {writer:?} lies at {at}, not {expected}");
                let is_refused = submission.is_refused;
                hold!(!is_refused, "S11", "{number} of {writer:?} is stored and was refused");
            }
            let is_refused = submission.is_refused;
            hold!(!is_refused, "S25", "{number} of {writer:?} is stored and was refused");
            entry.remove();
            let end = submission.last.min(run.last());
            if end < submission.last {
                self.submissions.insert(end + 1, submission);
            }
            number = end + 1;
        }
        Ok(())
    }

    /// All that is left of the segment was read: nothing may be missing.
    pub(crate) fn read_back(&self, jumps: u32) -> Verdict {
        // Something of it may have been truncated unread since its last event was found.
        let has_jumped = self.jumps != jumps;
        let (writer, found, confirmed) = (self.name, self.found, self.confirmed);
        if self.discipline == Discipline::Atomic {
            let is_whole = found.is_none()
                || self.announced.is_some_and(|count| found == Some(i64::from(count) - 1));
            hold!(is_whole, "S15", "transaction {writer:?} is there in part, up to {found:?}");
            let is_there =
                !self.is_committed || has_jumped || found.is_some() || self.announced == Some(0);
            hold!(is_there, "S15", "transaction {writer:?} was committed and is not there");
            return Ok(());
        }
        let is_there = has_jumped || found >= confirmed;
        hold!(is_there, "S1", "{writer:?} has {found:?}, and {confirmed:?} was acknowledged");
        let lost = self
            .submissions
            .iter()
            .find(|(_, submission)| submission.is_stored && !submission.is_refused && !has_jumped);
        hold!(lost.is_none(), "S1", "{lost:?} of {writer:?} was acknowledged and is not there");
        Ok(())
    }
}
