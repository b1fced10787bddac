//! The objects of a search that hold one value: an attribute, a key of a table, and the length of a
//! segment that grows by conditional appends only.

use crate::id::{OperationId, Value};
use crate::record::{AttributeCondition, KeyCondition};
use crate::search::Object;

/// An attribute of a segment.
#[derive(Debug)]
pub(crate) struct AttributeObject;

/// What is known of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AttributeState {
    Anything,
    Is(Option<i64>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum AttributeOperation {
    Read,
    Update(AttributeCondition, Option<i64>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum AttributeOutcome {
    Read(Option<i64>),
    Updated,
    Refused,
}

impl AttributeState {
    fn allows(self, condition: AttributeCondition) -> bool {
        match (condition, self) {
            (AttributeCondition::Always, _) | (_, Self::Anything) => true,
            (AttributeCondition::Is(expected), Self::Is(value)) => expected == value,
        }
    }
}

impl Object for AttributeObject {
    type State = AttributeState;
    type Operation = AttributeOperation;
    type Outcome = AttributeOutcome;

    fn anything() -> AttributeState {
        AttributeState::Anything
    }

    fn is_change(operation: &AttributeOperation) -> bool {
        matches!(operation, AttributeOperation::Update(..))
    }

    fn happen(
        _id: OperationId,
        operation: &AttributeOperation,
        state: &AttributeState,
    ) -> Option<AttributeState> {
        match operation {
            AttributeOperation::Update(condition, value) if state.allows(*condition) => {
                Some(AttributeState::Is(*value))
            }
            _ => None,
        }
    }

    fn explain(
        operation: &AttributeOperation,
        outcome: &AttributeOutcome,
        state: &AttributeState,
    ) -> Option<AttributeState> {
        match (operation, outcome, state) {
            (AttributeOperation::Read, AttributeOutcome::Read(value), AttributeState::Anything) => {
                Some(AttributeState::Is(*value))
            }
            (
                AttributeOperation::Read,
                AttributeOutcome::Read(value),
                AttributeState::Is(known),
            ) => (value == known).then_some(*state),
            (AttributeOperation::Update(condition, value), AttributeOutcome::Updated, _) => {
                state.allows(*condition).then_some(AttributeState::Is(*value))
            }
            (AttributeOperation::Update(condition, _), AttributeOutcome::Refused, _) => {
                let is_refusable = match (condition, state) {
                    (AttributeCondition::Always, _) => false,
                    (_, AttributeState::Anything) => true,
                    _ => !state.allows(*condition),
                };
                is_refusable.then_some(*state)
            }
            _ => None,
        }
    }

    fn learn(
        _id: OperationId,
        _operation: &AttributeOperation,
        outcome: &AttributeOutcome,
        state: &AttributeState,
    ) -> Option<AttributeState> {
        matches!(outcome, AttributeOutcome::Updated).then_some(*state)
    }

    fn is_effect(outcome: &AttributeOutcome) -> bool {
        matches!(outcome, AttributeOutcome::Updated)
    }

    fn enables(change: &AttributeOperation, other: &AttributeOperation) -> bool {
        match (change, other) {
            (
                AttributeOperation::Update(_, value),
                AttributeOperation::Update(AttributeCondition::Is(expected), _),
            ) => value == expected,
            _ => true,
        }
    }
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct KeyObject;

/// A version, if it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Told(i64),
    /// The one that this change was given.
    Of(OperationId),
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyState {
    Anything,
    Absent,
    Present(Value, Version),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyOperation {
    Read,
    Put(KeyCondition, Value),
    Remove(KeyCondition),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyOutcome {
    Read(Option<(Value, i64)>),
    Put(i64),
    Removed,
    Refused,
}

impl KeyState {
    fn allows(self, condition: KeyCondition) -> bool {
        match (condition, self) {
            (KeyCondition::Always, _) | (_, Self::Anything) => true,
            (KeyCondition::Absent, state) => state == Self::Absent,
            // A version that was not told here may have been told by a walk.
            (KeyCondition::Version(_), Self::Present(_, Version::Of(_))) => true,
            (KeyCondition::Version(expected), Self::Present(_, Version::Told(version))) => {
                version == expected
            }
            (KeyCondition::Version(_), Self::Absent) => false,
        }
    }
}

impl Object for KeyObject {
    type State = KeyState;
    type Operation = KeyOperation;
    type Outcome = KeyOutcome;

    fn anything() -> KeyState {
        KeyState::Anything
    }

    fn is_change(operation: &KeyOperation) -> bool {
        !matches!(operation, KeyOperation::Read)
    }

    fn happen(id: OperationId, operation: &KeyOperation, state: &KeyState) -> Option<KeyState> {
        match operation {
            KeyOperation::Put(condition, value) => {
                state.allows(*condition).then_some(KeyState::Present(*value, Version::Of(id)))
            }
            KeyOperation::Remove(condition) => state.allows(*condition).then_some(KeyState::Absent),
            KeyOperation::Read => None,
        }
    }

    fn explain(
        operation: &KeyOperation,
        outcome: &KeyOutcome,
        state: &KeyState,
    ) -> Option<KeyState> {
        match (operation, outcome) {
            (KeyOperation::Read, KeyOutcome::Read(read)) => {
                let told = read.map_or(KeyState::Absent, |(value, version)| {
                    KeyState::Present(value, Version::Told(version))
                });
                let fits = match (*state, told) {
                    (KeyState::Anything, _) => true,
                    (KeyState::Present(known, Version::Of(_)), KeyState::Present(value, _)) => {
                        known == value
                    }
                    (known, told) => known == told,
                };
                fits.then_some(told)
            }
            (KeyOperation::Put(condition, value), KeyOutcome::Put(version)) => {
                let after = KeyState::Present(*value, Version::Told(*version));
                state.allows(*condition).then_some(after)
            }
            (KeyOperation::Remove(condition), KeyOutcome::Removed) => {
                state.allows(*condition).then_some(KeyState::Absent)
            }
            (KeyOperation::Put(condition, _) | KeyOperation::Remove(condition), _) => {
                let is_refused = matches!(outcome, KeyOutcome::Refused);
                let is_refusable = match (condition, state) {
                    (KeyCondition::Always, _) => false,
                    (_, KeyState::Anything) => true,
                    (KeyCondition::Version(_), KeyState::Present(_, Version::Of(_))) => true,
                    _ => !state.allows(*condition),
                };
                (is_refused && is_refusable).then_some(*state)
            }
            _ => None,
        }
    }

    fn learn(
        id: OperationId,
        _operation: &KeyOperation,
        outcome: &KeyOutcome,
        state: &KeyState,
    ) -> Option<KeyState> {
        match (outcome, *state) {
            (KeyOutcome::Refused, _) => None,
            (KeyOutcome::Put(version), KeyState::Present(value, Version::Of(of))) if of == id => {
                Some(KeyState::Present(value, Version::Told(*version)))
            }
            (_, state) => Some(state),
        }
    }

    fn is_effect(outcome: &KeyOutcome) -> bool {
        matches!(outcome, KeyOutcome::Put(_) | KeyOutcome::Removed)
    }

    fn enables(change: &KeyOperation, other: &KeyOperation) -> bool {
        match other {
            KeyOperation::Read => false,
            KeyOperation::Put(condition, _) | KeyOperation::Remove(condition) => match condition {
                KeyCondition::Always => true,
                KeyCondition::Absent => matches!(change, KeyOperation::Remove(_)),
                // A version is told after it was given out, and given out once.
                KeyCondition::Version(_) => false,
            },
        }
    }

    fn may_have_enabled(change: &KeyOperation, other: &KeyOperation) -> bool {
        let is_put = matches!(change, KeyOperation::Put(..));
        match other {
            KeyOperation::Put(KeyCondition::Version(_), _)
            | KeyOperation::Remove(KeyCondition::Version(_)) => is_put,
            _ => Self::enables(change, other),
        }
    }
}

/// The length of a segment.
#[derive(Debug)]
pub(crate) struct LengthObject;

#[derive(Clone, Copy, Debug)]
pub(crate) enum LengthOperation {
    Measure,
    Append { expected: u64, bytes: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum LengthOutcome {
    Length(u64),
    Appended,
    Refused,
}

impl Object for LengthObject {
    /// `None` stands for any.
    type State = Option<u64>;
    type Operation = LengthOperation;
    type Outcome = LengthOutcome;

    fn anything() -> Option<u64> {
        None
    }

    fn is_change(operation: &LengthOperation) -> bool {
        matches!(operation, LengthOperation::Append { .. })
    }

    fn happen(
        _id: OperationId,
        operation: &LengthOperation,
        state: &Option<u64>,
    ) -> Option<Option<u64>> {
        match operation {
            LengthOperation::Append { expected, bytes }
                if state.is_none_or(|length| length == *expected) =>
            {
                Some(Some(expected + bytes))
            }
            _ => None,
        }
    }

    fn explain(
        operation: &LengthOperation,
        outcome: &LengthOutcome,
        state: &Option<u64>,
    ) -> Option<Option<u64>> {
        match (operation, outcome) {
            (LengthOperation::Measure, LengthOutcome::Length(told)) => {
                state.is_none_or(|length| length == *told).then_some(Some(*told))
            }
            (LengthOperation::Append { expected, bytes }, LengthOutcome::Appended) => {
                state.is_none_or(|length| length == *expected).then_some(Some(expected + bytes))
            }
            (LengthOperation::Append { expected, .. }, LengthOutcome::Refused) => {
                (*state != Some(*expected)).then_some(*state)
            }
            _ => None,
        }
    }

    fn learn(
        _id: OperationId,
        _operation: &LengthOperation,
        outcome: &LengthOutcome,
        state: &Option<u64>,
    ) -> Option<Option<u64>> {
        matches!(outcome, LengthOutcome::Appended).then_some(*state)
    }

    fn is_effect(outcome: &LengthOutcome) -> bool {
        matches!(outcome, LengthOutcome::Appended)
    }

    fn enables(change: &LengthOperation, other: &LengthOperation) -> bool {
        match (change, other) {
            (
                LengthOperation::Append { expected, bytes },
                LengthOperation::Append { expected: other, .. },
            ) => expected + bytes == *other,
            _ => true,
        }
    }
}
