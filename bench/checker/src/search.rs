//! Searches whether the answers about one object can be put in an order that explains them all:
//! the method of Wing and Gong with a memo, done while the history is read.
//!
//! Kept is the set of all explanations so far, each a state and the open changes that it has
//! already used. An answer is explained by letting some open changes happen and then the operation
//! itself; explanations that cannot do that are dropped, and when none is left, there is
//! no order. A change whose outcome is unknown stays open; when nothing can ever let it happen any
//! more it is laid aside, so that it does not widen the search.

use std::collections::BTreeSet;
use std::fmt::Debug;

use crate::id::OperationId;

/// Open changes that a search bears; with more it gives up until they have ended.
const OPEN_MAX: usize = 20;
/// Explanations that a search bears.
const EXPLANATIONS_MAX: usize = 20_000;

/// What kind of object is searched.
pub(crate) trait Object {
    /// Its state, one value of which stands for "anything".
    type State: Clone + Ord + Debug;
    /// What is asked of it.
    type Operation: Clone + Debug;
    /// What is told about an operation.
    type Outcome: Debug;

    /// The state that stands for any.
    fn anything() -> Self::State;

    /// Whether the operation can change the state.
    fn is_change(operation: &Self::Operation) -> bool;

    /// The change happens and its outcome is not known yet: the state after it, if it can.
    fn happen(
        id: OperationId,
        operation: &Self::Operation,
        state: &Self::State,
    ) -> Option<Self::State>;

    /// The operation happens, or is refused, with this outcome: the state after it, if it can.
    fn explain(
        operation: &Self::Operation,
        outcome: &Self::Outcome,
        state: &Self::State,
    ) -> Option<Self::State>;

    /// The change happened before, and now its outcome is known: the state made more exact, or
    /// `None` when it cannot have happened.
    fn learn(
        id: OperationId,
        operation: &Self::Operation,
        outcome: &Self::Outcome,
        state: &Self::State,
    ) -> Option<Self::State>;

    /// Whether the outcome tells of a change; otherwise it is a read or a refusal, which leaves the
    /// state as it is.
    fn is_effect(outcome: &Self::Outcome) -> bool;

    /// Whether `change` can lead to a state in which `other` can happen, `other` being older.
    fn enables(change: &Self::Operation, other: &Self::Operation) -> bool;

    /// The same when `change` is older than `other`, so that whoever asked for `other` may have
    /// known what came of it.
    fn may_have_enabled(change: &Self::Operation, other: &Self::Operation) -> bool {
        Self::enables(change, other)
    }
}

#[derive(Debug)]
struct Open<O> {
    id: OperationId,
    operation: O,
    /// Counts invocations.
    serial: u64,
    /// Bit in the sets of used changes; reads have none.
    bit: u64,
    /// Its outcome will not be told.
    is_unknown: bool,
    /// The process that was asked has ended.
    is_doomed: bool,
    /// Of one laid aside: whether it has happened, if that is certain.
    has_happened: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Explanation<S> {
    state: S,
    used: u64,
    /// For each open operation that did not happen yet the states passed by since it was asked for:
    /// a read or a refusal may have happened in any of them.
    passed: BTreeSet<(OperationId, S)>,
}

/// The search for one object.
#[derive(Debug)]
pub(crate) struct Search<O: Object> {
    explanations: BTreeSet<Explanation<O::State>>,
    open: Vec<Open<O::Operation>>,
    /// Of unknown outcome, and nothing can let them happen at present.
    aside: Vec<Open<O::Operation>>,
    /// When not empty, nothing is judged until all of these have ended.
    forsaken: Vec<(OperationId, bool)>,
    /// Invocations so far.
    invoked: u64,
    /// How often it gave up.
    pub(crate) given_up: u64,
}

/// No order explains the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoOrder;

impl<O: Object> Search<O> {
    /// An object in this state.
    pub(crate) fn new(state: O::State) -> Self {
        Self {
            explanations: BTreeSet::from([Explanation { state, used: 0, passed: BTreeSet::new() }]),
            open: Vec::new(),
            aside: Vec::new(),
            forsaken: Vec::new(),
            invoked: 0,
            given_up: 0,
        }
    }

    /// An operation is about to be asked for.
    pub(crate) fn invoke(&mut self, id: OperationId, operation: O::Operation) {
        if !self.forsaken.is_empty() {
            self.forsaken.push((id, false));
            return;
        }
        self.invoked += 1;
        let is_change = O::is_change(&operation);
        if is_change {
            let mut revived = Vec::new();
            let mut at = 0;
            while at < self.aside.len() {
                if O::enables(&operation, &self.aside[at].operation) {
                    revived.push(self.aside.swap_remove(at));
                } else {
                    at += 1;
                }
            }
            for mut open in revived {
                open.bit = self.free_bit();
                self.open.push(open);
            }
        }
        let bit = if is_change { self.free_bit() } else { 0 };
        self.open.push(Open {
            id,
            operation,
            serial: self.invoked,
            bit,
            is_unknown: false,
            is_doomed: false,
            has_happened: None,
        });
        if self.open.iter().filter(|open| open.bit != 0).count() > OPEN_MAX {
            self.give_up();
        }
    }

    fn free_bit(&self) -> u64 {
        let taken = self.open.iter().fold(0, |taken, open| taken | open.bit);
        1 << (!taken).trailing_zeros().min(63)
    }

    fn give_up(&mut self) {
        self.given_up += 1;
        let open = self.open.drain(..).chain(self.aside.drain(..));
        self.forsaken = open.map(|open| (open.id, open.is_doomed)).collect();
        let (state, passed) = (O::anything(), BTreeSet::new());
        self.explanations = BTreeSet::from([Explanation { state, used: 0, passed }]);
    }

    /// The operation ended so.
    pub(crate) fn complete(
        &mut self,
        id: OperationId,
        outcome: &O::Outcome,
    ) -> Result<(), NoOrder> {
        if !self.forsaken.is_empty() {
            self.forsaken.retain(|(other, _)| *other != id);
            return Ok(());
        }
        let Some(at) = self.open.iter().position(|open| open.id == id) else { return Ok(()) };
        let Some(explained) = self.explained(at, outcome) else {
            self.give_up();
            self.forsaken.retain(|(other, _)| *other != id);
            return Ok(());
        };
        if explained.is_empty() {
            return Err(NoOrder);
        }
        self.explanations = explained;
        self.open.swap_remove(at);
        self.lay_aside();
        Ok(())
    }

    /// Whether this outcome of an open operation has an explanation; changes nothing.
    pub(crate) fn can_end(&self, id: OperationId, outcome: &O::Outcome) -> bool {
        if !self.forsaken.is_empty() {
            return true;
        }
        self.open
            .iter()
            .position(|open| open.id == id)
            .is_none_or(|at| self.explained(at, outcome).is_none_or(|all| !all.is_empty()))
    }

    /// The operation did not happen, for a reason that does not lie here.
    pub(crate) fn withdraw(&mut self, id: OperationId) -> Result<(), NoOrder> {
        if !self.forsaken.is_empty() {
            self.forsaken.retain(|(other, _)| *other != id);
            return Ok(());
        }
        let Some(at) = self.open.iter().position(|open| open.id == id) else { return Ok(()) };
        let bit = self.open.swap_remove(at).bit;
        self.explanations.retain(|explanation| explanation.used & bit == 0);
        self.drop_passed(id);
        if self.explanations.is_empty() { Err(NoOrder) } else { Ok(()) }
    }

    /// The outcome of the operation will never be told.
    pub(crate) fn unknown(&mut self, id: OperationId) {
        if let Some(at) = self.open.iter().position(|open| open.id == id) {
            if self.open[at].bit == 0 {
                self.open.swap_remove(at);
            } else {
                self.open[at].is_unknown = true;
                self.lay_aside();
            }
            self.drop_passed(id);
        }
    }

    /// What an operation passed by does not matter any more.
    fn drop_passed(&mut self, id: OperationId) {
        self.explanations = std::mem::take(&mut self.explanations)
            .into_iter()
            .map(|mut explanation| {
                explanation.passed.retain(|(other, _)| *other != id);
                explanation
            })
            .collect();
    }

    /// The process that was asked has ended: what is open now cannot happen after
    /// [`Search::settle`].
    pub(crate) fn doom(&mut self) {
        self.open.iter_mut().chain(&mut self.aside).for_each(|open| open.is_doomed = true);
        self.forsaken.iter_mut().for_each(|(_, is_doomed)| *is_doomed = true);
    }

    /// What was doomed happened before now or never.
    pub(crate) fn settle(&mut self) {
        self.forsaken.retain(|(_, is_doomed)| !is_doomed);
        self.aside.retain(|open| !open.is_doomed);
        let doomed = |open: &Open<O::Operation>| open.is_doomed && open.bit != 0;
        let bits = self.open.iter().filter(|open| doomed(open)).fold(0, |all, open| all | open.bit);
        if bits != 0 {
            let Some(all) = self.closure(bits, |_| true) else {
                self.give_up();
                self.forsaken.retain(|(_, is_doomed)| !is_doomed);
                return;
            };
            self.explanations = all
                .into_iter()
                .map(|explanation| Explanation { used: explanation.used & !bits, ..explanation })
                .collect();
        }
        self.open.retain(|open| !doomed(open));
        self.lay_aside();
    }

    /// The state, when there is no doubt about it.
    pub(crate) fn certain(&self) -> Option<&O::State> {
        let mut states = self.explanations.iter();
        let first = states.next()?;
        let is_quiet = self.open.iter().all(|open| open.bit == 0) && self.forsaken.is_empty();
        (is_quiet && states.all(|other| other.state == first.state)).then_some(&first.state)
    }

    /// Whether the state was the same all the time since this operation was asked for.
    pub(crate) fn is_undisturbed(&self, id: OperationId) -> bool {
        self.explanations.iter().all(|one| one.passed.iter().all(|(of, _)| *of != id))
    }

    /// Whether no change is open and none laid aside, so that the state stays as it is.
    pub(crate) fn is_quiet(&self) -> bool {
        self.open.iter().all(|open| open.bit == 0)
            && self.aside.is_empty()
            && self.forsaken.is_empty()
    }

    /// Whether an open change has happened (`Some(true)`), has not (`Some(false)`), or may have.
    pub(crate) fn has_happened(&self, id: OperationId) -> Option<bool> {
        if let Some(open) = self.aside.iter().find(|open| open.id == id) {
            return open.has_happened;
        }
        let open = self.open.iter().find(|open| open.id == id)?;
        self.is_used(open.bit)
    }

    fn is_used(&self, bit: u64) -> Option<bool> {
        let mut used = self.explanations.iter().map(|explanation| explanation.used & bit != 0);
        let first = used.next()?;
        used.all(|other| other == first).then_some(first)
    }

    /// All explanations after the operation at `at` ended so; `None` when there are too many.
    fn explained(
        &self,
        at: usize,
        outcome: &O::Outcome,
    ) -> Option<BTreeSet<Explanation<O::State>>> {
        let Open { id, operation, bit, .. } = &self.open[at];
        let others = self.open.iter().fold(0, |all, open| all | open.bit) & !bit;
        let mut explained = BTreeSet::new();
        self.closure(others, |explanation| {
            let without = |state: O::State, mut next: Explanation<O::State>| {
                next.state = state;
                next.used &= !bit;
                next.passed.retain(|(other, _)| other != id);
                next
            };
            if explanation.used & bit != 0 {
                let learned = O::learn(*id, operation, outcome, &explanation.state);
                explained.extend(learned.map(|state| without(state, explanation.clone())));
                return false;
            }
            if let Some(state) = O::explain(operation, outcome, &explanation.state) {
                let next = if O::is_effect(outcome) {
                    self.after(explanation, state.clone(), 0)
                } else {
                    explanation.clone()
                };
                explained.insert(without(state, next));
            }
            let explains = |(of, state): &(OperationId, O::State)| {
                of == id && O::explain(operation, outcome, state).is_some()
            };
            // A change that is made to happen here could as well happen later, so only states that
            // were passed by before count.
            let is_old = self.explanations.contains(explanation);
            if is_old && !O::is_effect(outcome) && explanation.passed.iter().any(explains) {
                let state = explanation.state.clone();
                explained.insert(without(state, explanation.clone()));
            }
            true
        })?;
        Some(explained)
    }

    /// The explanation after a change to this state, which used these bits.
    fn after(
        &self,
        before: &Explanation<O::State>,
        state: O::State,
        bits: u64,
    ) -> Explanation<O::State> {
        let used = before.used | bits;
        let mut passed = before.passed.clone();
        passed
            .retain(|(of, _)| self.open.iter().any(|open| open.id == *of && open.bit & bits == 0));
        if state != before.state {
            let waiting = self.open.iter().filter(|open| open.bit & used == 0 && !open.is_unknown);
            passed.extend(waiting.map(|open| (open.id, before.state.clone())));
        }
        Explanation { state, used, passed }
    }

    /// Lets the open changes of `bits` happen in every order, beginning at every explanation that
    /// `follow` agrees to follow; it is shown each one once. `None` when there are too many.
    fn closure(
        &self,
        bits: u64,
        mut follow: impl FnMut(&Explanation<O::State>) -> bool,
    ) -> Option<BTreeSet<Explanation<O::State>>> {
        let mut reached = self.explanations.clone();
        let mut todo: Vec<Explanation<O::State>> = reached.iter().cloned().collect();
        while let Some(explanation) = todo.pop() {
            if !follow(&explanation) {
                continue;
            }
            for open in self.open.iter().filter(|open| open.bit & bits & !explanation.used != 0) {
                let Some(state) = O::happen(open.id, &open.operation, &explanation.state) else {
                    continue;
                };
                let next = self.after(&explanation, state, open.bit);
                if reached.insert(next.clone()) {
                    todo.push(next);
                }
            }
            if reached.len() > EXPLANATIONS_MAX {
                return None;
            }
        }
        Some(reached)
    }

    /// Lays aside what nothing can let happen: neither a state that is possible now nor a change
    /// that is open.
    fn lay_aside(&mut self) {
        if !self.open.iter().any(|open| open.is_unknown) {
            return;
        }
        let can_happen = |open: &Open<O::Operation>| {
            !open.is_unknown
                || self.explanations.iter().any(|explanation| {
                    explanation.used & open.bit == 0
                        && O::happen(open.id, &open.operation, &explanation.state).is_some()
                })
        };
        let mut live: Vec<bool> = self.open.iter().map(can_happen).collect();
        loop {
            let mut found = false;
            for at in 0..self.open.len() {
                let own = &self.open[at];
                let enables = |other: &Open<O::Operation>| {
                    if other.serial < own.serial {
                        O::may_have_enabled(&other.operation, &own.operation)
                    } else {
                        O::enables(&other.operation, &own.operation)
                    }
                };
                let enabled = !live[at]
                    && self
                        .open
                        .iter()
                        .zip(&live)
                        .any(|(other, is_live)| *is_live && other.bit != 0 && enables(other));
                live[at] |= enabled;
                found |= enabled;
            }
            if !found {
                break;
            }
        }
        let mut bits = 0;
        for at in (0..self.open.len()).rev() {
            if !live[at] {
                let mut open = self.open.swap_remove(at);
                open.has_happened = self.is_used(open.bit);
                bits |= open.bit;
                self.aside.push(open);
            }
        }
        if bits != 0 {
            self.explanations = std::mem::take(&mut self.explanations)
                .into_iter()
                .map(|explanation| Explanation { used: explanation.used & !bits, ..explanation })
                .collect();
        }
    }
}

#[cfg(test)]
mod tests;
