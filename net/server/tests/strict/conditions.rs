//! Appends on the condition of a length, of one event or of bytes. Both are tried in every form.

use thalweg_wire::{Command, FramedEvent};

use crate::desk::{Desk, Form, encoded, form, frame};
use crate::words::*;

/// A kind of conditional append: how it is asked for, and what it stores of a payload.
type Kind = (fn(u128, i64, i64, &[u8]) -> Command, fn(&[u8]) -> Vec<u8>);

const EVENT: Kind = (append_if, |payload| FramedEvent::new(payload).framed().to_vec());
const BLOCK: Kind = (block_if, <[u8]>::to_vec);

macro_rules! both {
    ($($form:literal $run:expr,)+) => {
        &[$(
            form("ConditionalAppend", $form, |t| $run(t, EVENT)),
            form("ConditionalBlockEnd", $form, |t| $run(t, BLOCK)),
        )+]
    };
}

pub(crate) const CONDITIONS: &[Form] = both![
    "at the length" at_the_length,
    "at another length" at_another_length,
    "with a negative length: no condition" without_condition,
    "on a sealed segment, with the right length and a wrong one" on_a_sealed_segment,
    "on a truncated segment" on_a_truncated_segment,
    "on a segment that was deleted" on_a_deleted_segment,
    "without a set-up" |t: &mut Desk, (ask, _): Kind| t.closes(ask(ANNA, 1, 0, b"abc")),
    "with a negative number" with_a_negative_number,
    "with a number that goes back" with_a_number_that_goes_back,
    "with a number that goes back at another length" with_both_wrong,
    "behind one that is refused" behind_one_refused,
    "of the largest size, and over it" of_the_largest_size,
    "of no bytes" of_no_bytes,
    "elsewhere set up since" elsewhere_set_up_since,
];

fn at_the_length(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.holding(b"before");
    t.sets_up(&segment, ANNA);
    let first = stored(b"abc");
    let length = 6 + first.len() as i64;
    t.gets(ask(ANNA, 1, 6, b"abc"), appended(ANNA, 1, UNSET, length));
    t.gets(ask(ANNA, 2, length, b"d"), appended(ANNA, 2, 1, length + stored(b"d").len() as i64));
    t.holds(&segment, &[b"before", &first[..], &stored(b"d")].concat());
    t.aside(attribute(&segment, thalweg_crash::store::EVENT_COUNT), is_attribute(3));
}

fn at_another_length(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.holding(b"before");
    t.sets_up(&segment, ANNA);
    let before = t.look(&segment);
    for offset in [0, 5, 7, 1 << 40, i64::MAX] {
        t.gets(ask(ANNA, 1, offset, b"abc"), check_failed(ANNA, 1));
    }
    t.unchanged(&segment, &before);
    // The session stays, and the number was not used up.
    let length = 6 + stored(b"abc").len() as i64;
    t.gets(ask(ANNA, 1, 6, b"abc"), appended(ANNA, 1, UNSET, length));
}

fn without_condition(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.holding(b"before");
    t.sets_up(&segment, ANNA);
    let step = stored(b"a").len() as i64;
    t.gets(ask(ANNA, 1, -1, b"a"), appended(ANNA, 1, UNSET, 6 + step));
    t.gets(ask(ANNA, 2, i64::MIN, b"b"), appended(ANNA, 2, 1, 6 + 2 * step));
}

fn on_a_sealed_segment(t: &mut Desk, (ask, _): Kind) {
    let segment = t.sealed(b"before");
    t.sets_up(&segment, ANNA);
    t.gets(ask(ANNA, 1, 6, b"abc"), sealed_at(&segment, 1));
    t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, UNSET));
    t.gets(ask(ANNA, 1, 0, b"abc"), sealed_at(&segment, 1));
    t.holds(&segment, b"before");
}

fn on_a_truncated_segment(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.truncated(b"before", 6);
    t.sets_up(&segment, ANNA);
    t.gets(ask(ANNA, 1, 0, b"abc"), check_failed(ANNA, 1));
    let length = 6 + stored(b"abc").len() as i64;
    t.gets(ask(ANNA, 1, 6, b"abc"), appended(ANNA, 1, UNSET, length));
}

fn on_a_deleted_segment(t: &mut Desk, (ask, _): Kind) {
    let segment = t.empty();
    t.sets_up(&segment, ANNA);
    t.aside(delete(&segment), is_deleted(&segment));
    t.gets(ask(ANNA, 1, 0, b"abc"), missing(&segment));
}

fn with_a_negative_number(t: &mut Desk, (ask, _): Kind) {
    let segment = t.empty();
    for number in [-1, i64::MIN] {
        t.sets_up(&segment, ANNA);
        t.closes(ask(ANNA, number, 0, b"abc"));
    }
    t.holds(&segment, b"");
}

fn with_a_number_that_goes_back(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.empty();
    let length = stored(b"abc").len() as i64;
    t.sets_up(&segment, ANNA);
    t.gets(ask(ANNA, 5, 0, b"abc"), appended(ANNA, 5, UNSET, length));
    for number in [5, 4] {
        t.gets(ask(ANNA, number, length, b"def"), invalid_number(ANNA, number));
        t.hears_the_end();
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 5));
    }
    t.holds(&segment, &stored(b"abc"));
}

/// That the number is known already outweighs the length: after a resend of what was stored its
/// writer must not take it for refused.
fn with_both_wrong(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.empty();
    let length = stored(b"abc").len() as i64;
    t.sets_up(&segment, ANNA);
    t.gets(ask(ANNA, 1, 0, b"abc"), appended(ANNA, 1, UNSET, length));
    t.gets(ask(ANNA, 1, 0, b"abc"), invalid_number(ANNA, 1));
    t.hears_the_end();
    t.holds(&segment, &stored(b"abc"));
}

/// What follows a refused append without waiting for the refusal is never stored out of order. A
/// refusal may have left before the next append is looked at; it is judged by itself then.
fn behind_one_refused(t: &mut Desk, (ask, _): Kind) {
    let segment = t.holding(b"before");
    t.sets_up(&segment, ANNA);
    t.send_bytes(&encoded(&[ask(ANNA, 1, 0, b"abc"), ask(ANNA, 2, 1, b"def")]));
    t.hears(&check_failed(ANNA, 1));
    match t.listen() {
        it if it == check_failed(ANNA, 2) => t.goes_on(),
        it => {
            assert_eq!(it, invalid_number(ANNA, 2), "behind a refusal");
            t.hears_the_end();
        }
    }
    t.holds(&segment, b"before");
}

fn of_the_largest_size(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.empty();
    let overhead = stored(b"").len();
    let largest = vec![7; (8 << 20) + 8 - overhead];
    let length = (8 << 20) + 8;
    t.sets_up(&segment, ANNA);
    t.gets(ask(ANNA, 1, 0, &largest), appended(ANNA, 1, UNSET, length));
    t.closes(ask(ANNA, 2, length, &[&largest[..], b"1"].concat()));
    t.holds(&segment, &stored(&largest));
}

fn of_no_bytes(t: &mut Desk, (ask, stored): Kind) {
    let segment = t.holding(b"before");
    let length = 6 + stored(b"").len() as i64;
    t.sets_up(&segment, ANNA);
    t.gets(ask(ANNA, 1, 6, b""), appended(ANNA, 1, UNSET, length));
}

fn elsewhere_set_up_since(t: &mut Desk, (ask, _): Kind) {
    let segment = t.empty();
    t.sets_up(&segment, ANNA);
    t.aside(set_up(&segment, ANNA), is_set_up(&segment, ANNA, UNSET));
    t.gets(ask(ANNA, 1, 0, b"abc"), invalid_number(ANNA, 1));
    t.hears_the_end();
    t.holds(&segment, b"");
}

pub(crate) const EVENTS: &[Form] = &[
    form("ConditionalAppend", "around something else than an event", |t| {
        broken_event(t, &frame(-2, b"abc"));
        broken_event(t, &frame(1, b"abc"));
    }),
    form("ConditionalAppend", "around an event of negative length", |t| {
        broken_event(t, &crate::desk::header(0, -1));
        broken_event(t, &crate::desk::header(0, i32::MIN));
    }),
    form("ConditionalAppend", "around an event longer than its frame", |t| {
        broken_event(t, &crate::desk::header(0, 9));
        broken_event(t, &crate::desk::header(0, i32::MAX));
    }),
];

/// Sends a conditional append with this in place of its event and request id.
fn broken_event(t: &mut Desk, event: &[u8]) {
    let segment = t.empty();
    t.sets_up(&segment, ANNA);
    let mut payload = encoded(&[append_if(ANNA, 1, 0, b"")])[8..8 + 16 + 8 + 8].to_vec();
    payload.extend_from_slice(event);
    payload.extend_from_slice(&ID.to_be_bytes());
    t.send_bytes(&frame(5, &payload));
    t.hears_the_end();
    t.holds(&segment, b"");
}
