//! A planted bug, to show that the simulator catches it. Compiled only with the feature `canary`.

use std::cell::Cell;

use crate::id::NULL_ATTRIBUTE_VALUE;
use crate::operation::Operation;

thread_local! {
    static FORGETS_EVENT_NUMBERS: Cell<bool> = const { Cell::new(false) };
}

/// Plants the bug in engines of this thread, or removes it: appends that are replayed do not
/// restore their writer's event number.
pub fn forget_event_numbers(is_planted: bool) {
    FORGETS_EVENT_NUMBERS.set(is_planted);
}

/// The operation as a replay with the bug takes it.
pub(crate) fn replayed(operation: Operation<'_>) -> Operation<'_> {
    match operation {
        Operation::Append(mut append) if FORGETS_EVENT_NUMBERS.get() => {
            append.event_number = NULL_ATTRIBUTE_VALUE;
            Operation::Append(append)
        }
        other => other,
    }
}
