//! The search on small histories, each with its neighbour.

use super::*;
use crate::record::AttributeCondition;
use crate::register::{AttributeObject, AttributeOperation, AttributeOutcome, AttributeState};

type Register = Search<AttributeObject>;

fn id(number: u64) -> OperationId {
    OperationId(number)
}

fn raise(from: Option<i64>, to: i64) -> AttributeOperation {
    AttributeOperation::Update(AttributeCondition::Is(from), Some(to))
}

fn read(search: &mut Register, number: u64, value: Option<i64>) -> Result<(), NoOrder> {
    search.invoke(id(number), AttributeOperation::Read);
    search.complete(id(number), &AttributeOutcome::Read(value))
}

fn register() -> Register {
    Search::new(AttributeState::Is(None))
}

/// Of two updates from one value only one can be told to have succeeded.
#[test]
fn one_value_is_left_once() {
    let mut search = register();
    search.invoke(id(1), raise(None, 1));
    search.invoke(id(2), raise(None, 2));
    assert_eq!(search.complete(id(1), &AttributeOutcome::Updated), Ok(()));
    assert_eq!(search.complete(id(2), &AttributeOutcome::Updated), Err(NoOrder));
}

/// An update of unknown outcome is seen or not; once it was seen it cannot be unseen, and once its
/// condition was passed by it can only happen when the value returns.
#[test]
fn an_unknown_update_happens_once_or_never() {
    let mut search = register();
    search.invoke(id(1), raise(None, 1));
    search.unknown(id(1));
    assert_eq!(read(&mut search, 2, None), Ok(()));
    assert_eq!(read(&mut search, 3, Some(1)), Ok(()));
    assert_eq!(read(&mut search, 4, None), Err(NoOrder));
}

/// Updates that nothing can let happen are laid aside, come back when their condition can come true
/// again, and are judged rightly then.
#[test]
fn what_was_laid_aside_comes_back() {
    let mut search = register();
    for (number, value) in (0..100).enumerate() {
        let from = (value > 0).then_some(value);
        let number = number as u64 * 3;
        search.invoke(id(number), raise(from, value + 1));
        search.invoke(id(number + 1), raise(from, 1_000 + value));
        search.unknown(id(number + 1));
        assert_eq!(search.complete(id(number), &AttributeOutcome::Updated), Ok(()));
    }
    assert_eq!(search.given_up, 0);
    assert!(search.open.is_empty());
    // Back to 50: what was tried from there can happen now.
    search.invoke(id(900), raise(Some(100), 50));
    assert_eq!(search.complete(id(900), &AttributeOutcome::Updated), Ok(()));
    assert_eq!(read(&mut search, 901, Some(1_050)), Ok(()));
    assert_eq!(read(&mut search, 902, Some(1_051)), Err(NoOrder));
}

/// After the end of the process that was asked, an update that had not happened cannot any more.
#[test]
fn a_doomed_update_does_not_come_late() {
    let mut search = register();
    search.invoke(id(1), raise(None, 1));
    search.unknown(id(1));
    search.doom();
    search.settle();
    assert_eq!(read(&mut search, 2, None), Ok(()));
    assert_eq!(read(&mut search, 3, Some(1)), Err(NoOrder));
}

/// With more open changes than can be searched nothing is judged until they have ended, and then
/// everything is again.
#[test]
fn too_many_open_changes_are_not_judged_until_they_end() {
    let mut search = register();
    let many = OPEN_MAX as u64 + 5;
    for number in 0..many {
        let update = AttributeOperation::Update(AttributeCondition::Always, Some(1));
        search.invoke(id(number), update);
    }
    assert_eq!(search.given_up, 1);
    assert_eq!(read(&mut search, 100, Some(77)), Ok(()));
    for number in 0..many {
        assert_eq!(search.complete(id(number), &AttributeOutcome::Updated), Ok(()));
    }
    assert_eq!(read(&mut search, 101, Some(5)), Ok(()));
    assert_eq!(read(&mut search, 102, Some(6)), Err(NoOrder));
}

/// A refusal needs a moment at which the condition did not hold.
#[test]
fn a_refusal_needs_a_reason() {
    let mut search = register();
    search.invoke(id(1), raise(None, 1));
    assert_eq!(search.complete(id(1), &AttributeOutcome::Refused), Err(NoOrder));
    let mut search = register();
    search.invoke(id(1), raise(None, 1));
    search.invoke(id(2), raise(None, 2));
    assert_eq!(search.complete(id(1), &AttributeOutcome::Refused), Ok(()));
    assert_eq!(search.complete(id(2), &AttributeOutcome::Updated), Ok(()));
}

/// A read that is answered late may have happened before a change that was told meanwhile, and a
/// refusal likewise; but not before the read was asked for.
#[test]
fn a_late_answer_may_tell_of_an_earlier_state() {
    let mut search = register();
    assert_eq!(read(&mut search, 1, None), Ok(()));
    search.invoke(id(2), AttributeOperation::Read);
    search.invoke(id(3), raise(Some(7), 8));
    search.invoke(id(4), raise(None, 7));
    assert_eq!(search.complete(id(4), &AttributeOutcome::Updated), Ok(()));
    assert_eq!(search.complete(id(2), &AttributeOutcome::Read(None)), Ok(()));
    assert_eq!(search.complete(id(3), &AttributeOutcome::Refused), Ok(()));
    search.invoke(id(5), AttributeOperation::Read);
    assert_eq!(search.complete(id(5), &AttributeOutcome::Read(None)), Err(NoOrder));
}
