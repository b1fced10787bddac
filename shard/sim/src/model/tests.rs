//! Histories that must be rejected, and their neighbours that must not: an oracle that never
//! complains proves nothing.

use bytes::{Bytes, BytesMut};

use super::segment::Discipline;
use super::table::Stored;
use super::*;
use crate::clock::Clock;
use crate::payload::{EventIdentity, WriterTag};

const SIZES: EventSizes = EventSizes { ordinary_max: 20, large_max: 20 };
const NAME: &str = "segment";
const ONE: WriterTag = WriterTag(1);
const TWO: WriterTag = WriterTag(2);

/// The model, with writer 1 dense, having sent ten events, and writer 2 conditional.
fn model() -> (Model, Trace) {
    let trace = Trace::new(Clock::default(), false);
    let mut model = Model::new(trace.clone(), SIZES);
    let segment = model.segment(NAME);
    segment.add_writer(ONE, Discipline::Dense { first: 1 });
    segment.add_writer(TWO, Discipline::Conditional);
    segment.submitted(ONE, 10);
    (model, trace)
}

fn events(tag: WriterTag, numbers: &[i64]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for number in numbers {
        EventIdentity { tag, number: *number }.encode(SIZES, &mut bytes);
    }
    bytes.to_vec()
}

fn read(model: &mut Model, offset: u64, data: &[u8]) {
    let before = model.segment(NAME).before();
    model.segment(NAME).read(before, offset, data, false);
}

fn length(numbers: &[i64]) -> u64 {
    events(ONE, numbers).len() as u64
}

fn stored(value: &'static str, version: i64) -> Option<Stored> {
    Some(Stored { value: Bytes::from_static(value.as_bytes()), version })
}

fn key() -> Bytes {
    Bytes::from_static(b"key")
}

fn value(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

type History = fn(&mut Model);

/// Each of these histories contradicts itself, and the oracle says so.
#[test]
fn bad_histories_are_rejected() {
    let bad: &[(&str, History)] = &[
        ("an acknowledged event is missing", |model| {
            model.segment(NAME).acknowledged(ONE, 3, length(&[1, 2, 3]));
            read(model, 0, &events(ONE, &[1, 2]));
            model.segment(NAME).finished(length(&[1, 2]));
        }),
        ("an event is there twice", |model| read(model, 0, &events(ONE, &[1, 2, 2]))),
        ("an event is left out", |model| read(model, 0, &events(ONE, &[1, 3]))),
        ("the order is wrong", |model| read(model, 0, &events(ONE, &[2, 1]))),
        ("an event was never sent", |model| {
            read(model, 0, &events(ONE, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]));
        }),
        ("a foreign event", |model| read(model, 0, &events(WriterTag(77), &[1]))),
        ("a byte is wrong", |model| {
            let mut data = events(ONE, &[1, 2]);
            data[30] ^= 1;
            read(model, 0, &data);
        }),
        ("two reads disagree", |model| {
            read(model, 0, &events(ONE, &[1, 2]));
            let mut data = events(ONE, &[2]);
            data[3] ^= 1;
            read(model, length(&[1]), &data);
        }),
        ("an island disagrees with what closes the gap", |model| {
            read(model, length(&[1]), &events(ONE, &[3]));
            read(model, 0, &events(ONE, &[1, 2]));
        }),
        ("the length shrinks", |model| {
            model.segment(NAME).acknowledged(ONE, 1, length(&[1]));
            let before = model.segment(NAME).before();
            model.segment(NAME).described(before, 3, 0, false);
        }),
        ("an acknowledged length is not where the event ends", |model| {
            read(model, 0, &events(ONE, &[1, 2]));
            model.segment(NAME).acknowledged(ONE, 1, 5);
        }),
        ("a set-up forgets", |model| {
            model.segment(NAME).acknowledged(ONE, 3, length(&[1, 2, 3]));
            let confirmed = model.segment(NAME).confirmed(ONE);
            model.segment(NAME).set_up(ONE, Some(2), confirmed);
        }),
        ("a set-up knows too much", |model| model.segment(NAME).set_up(ONE, Some(11), None)),
        ("a sealed segment grows", |model| {
            model.segment(NAME).sealing();
            let before = model.segment(NAME).before();
            model.segment(NAME).described(before, 100, 0, true);
            model.segment(NAME).grew(101);
        }),
        ("a seal comes undone", |model| {
            model.segment(NAME).sealing();
            model.segment(NAME).sealed();
            let before = model.segment(NAME).before();
            model.segment(NAME).described(before, 100, 0, false);
        }),
        ("nobody sealed it", |model| model.segment(NAME).sealed()),
        ("an end before the end", |model| {
            model.segment(NAME).sealing();
            model.segment(NAME).acknowledged(ONE, 1, length(&[1]));
            let before = model.segment(NAME).before();
            model.segment(NAME).read(before, 0, &[], true);
        }),
        ("an event behind the seal's division", |model| {
            model.segment(NAME).limited(ONE, Some(1));
            read(model, 0, &events(ONE, &[1, 2]));
        }),
        ("a start goes back", |model| {
            model.segment(NAME).truncating(10);
            model.segment(NAME).starts_at(10);
            let before = model.segment(NAME).before();
            model.segment(NAME).described(before, 100, 5, false);
        }),
        ("a start that nobody asked for", |model| model.segment(NAME).starts_at(1)),
        ("a read above the start is refused", |model| {
            model.segment(NAME).truncating(10);
            model.segment(NAME).read_below_start(10, 10);
        }),
        ("truncated bytes are served", |model| {
            model.segment(NAME).truncating(10);
            model.segment(NAME).starts_at(10);
            read(model, 0, &events(ONE, &[1]));
        }),
        ("a conditional event elsewhere", |model| {
            model.segment(NAME).submitted_at(TWO, 1, 40);
            read(model, 0, &events(TWO, &[1]));
        }),
        ("a refused event is stored", |model| {
            model.segment(NAME).submitted_at(TWO, 1, 0);
            model.segment(NAME).refused(TWO, 1);
            read(model, 0, &events(TWO, &[1]));
        }),
        ("a stored event is refused", |model| {
            model.segment(NAME).submitted_at(TWO, 1, 0);
            read(model, 0, &events(TWO, &[1]));
            model.segment(NAME).refused(TWO, 1);
        }),
        ("a transaction that nobody committed", |model| {
            model.segment(NAME).add_writer(WriterTag(5), Discipline::Atomic { count: 1 });
            read(model, 0, &events(WriterTag(5), &[0]));
        }),
        ("a transaction with something between", |model| {
            model.segment(NAME).add_writer(WriterTag(5), Discipline::Atomic { count: 2 });
            model.segment(NAME).merging(WriterTag(5));
            let mut data = events(WriterTag(5), &[0]);
            data.extend(events(ONE, &[1]));
            read(model, 0, &data);
        }),
        ("half a transaction", |model| {
            model.segment(NAME).add_writer(WriterTag(5), Discipline::Atomic { count: 2 });
            model.segment(NAME).merging(WriterTag(5));
            let data = events(WriterTag(5), &[0]);
            read(model, 0, &data);
            model.segment(NAME).finished(data.len() as u64);
        }),
        ("a transaction twice", |model| {
            model.segment(NAME).add_writer(WriterTag(5), Discipline::Atomic { count: 1 });
            model.segment(NAME).merging(WriterTag(5));
            read(model, 0, &events(WriterTag(5), &[0, 0]));
        }),
        ("a committed transaction is missing", |model| {
            model.segment(NAME).add_writer(WriterTag(5), Discipline::Atomic { count: 1 });
            model.segment(NAME).set_up(WriterTag(5), Some(0), None);
            model.segment(NAME).finished(0);
        }),
        ("a counter step twice", |model| {
            model.counter(NAME).raised(0);
            model.counter(NAME).raised(0);
        }),
        ("a counter goes back", |model| {
            model.counter(NAME).attempted(0);
            model.counter(NAME).raised(0);
            model.counter(NAME).read(0, 1);
        }),
        ("a counter that nobody raised", |model| model.counter(NAME).read(3, 0)),
        ("the only attempt is refused", |model| {
            model.counter(NAME).attempted(0);
            model.counter(NAME).refused(0, 0);
        }),
        ("a version is used twice", |model| {
            model.table(NAME).put(&key(), Bytes::new(), 4, 3);
            model.table(NAME).put(&Bytes::from_static(b"other"), Bytes::new(), 4, 3);
        }),
        ("versions go back", |model| model.table(NAME).put(&key(), Bytes::new(), 4, 5)),
        ("a key loses its value", |model| {
            model.table(NAME).put(&key(), Bytes::new(), 4, 3);
            model.table(NAME).read(&key(), None);
        }),
        ("a key has a value that nobody sent", |model| {
            model.table(NAME).changing(&key(), value("a"));
            model.table(NAME).read(&key(), stored("b", 1));
        }),
        ("a removed key comes back", |model| {
            model.table(NAME).put(&key(), Bytes::from_static(b"a"), 4, 3);
            model.table(NAME).removed(&key());
            model.table(NAME).read(&key(), stored("a", 4));
        }),
        ("a change that could not fail is refused", |model| {
            model.table(NAME).changing(&key(), value("a"));
            model.table(NAME).refused(&key());
            model.table(NAME).check_refusal(&[key()]);
        }),
    ];
    for (what, history) in bad {
        let (mut model, trace) = model();
        history(&mut model);
        assert!(trace.is_violated(), "not noticed: {what}");
    }
}

/// Each of these histories can have happened, however unlucky, and the oracle is silent.
#[test]
fn good_histories_are_accepted() {
    let good: &[(&str, History)] = &[
        ("everything in order", |model| {
            model.segment(NAME).acknowledged(ONE, 2, length(&[1, 2]));
            read(model, 0, &events(ONE, &[1, 2]));
            model.segment(NAME).finished(length(&[1, 2]));
        }),
        ("more is stored than was acknowledged", |model| {
            model.segment(NAME).acknowledged(ONE, 1, length(&[1]));
            read(model, 0, &events(ONE, &[1, 2, 3]));
            model.segment(NAME).finished(length(&[1, 2, 3]));
        }),
        ("reads out of order close their gap", |model| {
            read(model, length(&[1]), &events(ONE, &[2]));
            read(model, 0, &events(ONE, &[1]));
            model.segment(NAME).finished(length(&[1, 2]));
        }),
        ("a read that cuts an event", |model| {
            let data = events(ONE, &[1, 2]);
            read(model, 0, &data[..5]);
            read(model, 5, &data[5..]);
            model.segment(NAME).finished(data.len() as u64);
        }),
        ("a whole transaction between other events", |model| {
            model.segment(NAME).add_writer(WriterTag(5), Discipline::Atomic { count: 2 });
            model.segment(NAME).merging(WriterTag(5));
            let mut data = events(ONE, &[1]);
            data.extend(events(WriterTag(5), &[0, 1]));
            data.extend(events(ONE, &[2]));
            read(model, 0, &data);
            model.segment(NAME).finished(data.len() as u64);
        }),
        ("a seal that was asked for", |model| {
            model.segment(NAME).sealing();
            read(model, 0, &events(ONE, &[1]));
            let before = model.segment(NAME).before();
            model.segment(NAME).read(before, length(&[1]), &[], true);
            model.segment(NAME).limited(ONE, Some(1));
        }),
        ("a lost truncation took place", |model| {
            model.segment(NAME).truncating(10);
            let before = model.segment(NAME).before();
            model.segment(NAME).described(before, 100, 10, false);
        }),
        ("a lost conditional append took place", |model| {
            model.segment(NAME).submitted_at(TWO, 1, 0);
            read(model, 0, &events(TWO, &[1]));
        }),
        ("a lost raise took place", |model| {
            model.counter(NAME).attempted(0);
            model.counter(NAME).attempted(0);
            model.counter(NAME).refused(0, 0);
            model.counter(NAME).read(1, 0);
        }),
        ("a lost put took place", |model| {
            model.table(NAME).changing(&key(), value("a"));
            model.table(NAME).lost(&key());
            model.table(NAME).read(&key(), stored("a", 7));
        }),
        ("a lost put did not take place", |model| {
            model.table(NAME).changing(&key(), value("a"));
            model.table(NAME).lost(&key());
            model.table(NAME).read(&key(), None);
            assert!(!model.table(NAME).may_remove(&key()), "it may still come");
        }),
        ("a lost put makes the next one fail", |model| {
            model.table(NAME).changing(&key(), value("a"));
            model.table(NAME).changing(&key(), value("b"));
            model.table(NAME).refused(&key());
            model.table(NAME).check_refusal(&[key()]);
            model.table(NAME).read(&key(), stored("a", 7));
        }),
    ];
    for (what, history) in good {
        let (mut model, trace) = model();
        history(&mut model);
        assert_eq!(trace.violated(), None, "{what}");
    }
}
