//! What goes over the wire reaches the judge: talks that must be rejected, and their neighbours
//! that must not.

use bytes::BytesMut;
use thalweg_wire::{
    AppendBlockEnd, AppendSetup, ConditionalAppend, CreateSegment, FramedEvent, InvalidEventNumber,
    MergeSegments, ReadSegment, SegmentCreated, SegmentRead, SetupAppend,
};

use super::*;
use crate::clock::Clock;

const SIZES: EventSizes = EventSizes { ordinary_max: 20, large_max: 20 };
const NAME: &str = "simulated/stream/0";
const SOURCE: &str = "simulated/stream/0#transaction.9";
const TAG: WriterTag = WriterTag(1);
const DENSE: Discipline = Discipline::Dense { first: 1 };
const NEVER: i64 = NO_EVENT_NUMBER;

fn history(discipline: Discipline) -> (History, Trace) {
    let trace = Trace::new(Clock::default(), false);
    let mut history = History::new(trace.clone(), SIZES);
    history.connected(0);
    create(&mut history, NAME);
    history.introduce(NAME, TAG, discipline);
    (history, trace)
}

fn create(history: &mut History, name: &str) {
    let create = CreateSegment {
        request_id: 1,
        segment: name.into(),
        target_rate: 0,
        scale_type: 0,
        delegation_token: "".into(),
        rollover_size_bytes: 0,
    };
    history.sent(0, &create.into());
    history.received(0, &SegmentCreated { request_id: 1, segment: name.into() }.into());
}

fn events(tag: WriterTag, numbers: &[i64]) -> Bytes {
    let mut bytes = BytesMut::new();
    numbers.iter().for_each(|number| {
        EventIdentity { tag, number: *number }.encode(SIZES, &mut bytes);
    });
    bytes.freeze()
}

fn length(numbers: &[i64]) -> i64 {
    events(TAG, numbers).len() as i64
}

fn set_up(history: &mut History, segment: &str, tag: WriterTag, last: i64) {
    let (segment, writer_id) = (segment.into(), tag.writer_id());
    let ask = SetupAppend { request_id: 2, writer_id, segment, delegation_token: "".into() };
    let told = AppendSetup {
        request_id: 2,
        segment: ask.segment.clone(),
        writer_id,
        last_event_number: last,
    };
    history.sent(0, &ask.into());
    history.received(0, &told.into());
}

fn append(history: &mut History, tag: WriterTag, numbers: &[i64]) {
    let block = AppendBlockEnd {
        writer_id: tag.writer_id(),
        size_of_whole_events: 0,
        data: events(tag, numbers),
        event_count: numbers.len() as i32,
        last_event_number: *numbers.last().expect("some"),
        request_id: 3,
    };
    history.sent(0, &block.into());
}

fn acknowledge(history: &mut History, tag: WriterTag, number: i64, previous: i64, length: i64) {
    let appended = DataAppended {
        writer_id: tag.writer_id(),
        event_number: number,
        previous_event_number: previous,
        request_id: 3,
        current_segment_write_offset: length,
    };
    history.received(0, &appended.into());
}

fn append_on_condition(history: &mut History, number: i64, expected: i64) {
    let mut payload = BytesMut::new();
    EventIdentity { tag: TAG, number }.encode_payload(SIZES, &mut payload);
    let append = ConditionalAppend {
        writer_id: TAG.writer_id(),
        event_number: number,
        expected_offset: expected,
        event: FramedEvent::new(&payload),
        request_id: 4,
    };
    history.sent(0, &append.into());
}

fn read(history: &mut History, data: Bytes) {
    let ask = ReadSegment {
        segment: NAME.into(),
        offset: 0,
        suggested_length: 1_000,
        delegation_token: "".into(),
        request_id: 5,
    };
    let told = SegmentRead {
        segment: NAME.into(),
        offset: 0,
        at_tail: true,
        end_of_segment: false,
        data,
        request_id: 5,
    };
    history.sent(0, &ask.into());
    history.received(0, &told.into());
}

fn merge(history: &mut History) {
    create(history, SOURCE);
    history.introduce(NAME, WriterTag(9), Discipline::Atomic);
    set_up(history, SOURCE, WriterTag(9), NEVER);
    append(history, WriterTag(9), &[0, 1]);
    acknowledge(history, WriterTag(9), 1, NEVER, -1);
    let merge = MergeSegments {
        request_id: 6,
        target: NAME.into(),
        source: SOURCE.into(),
        delegation_token: "".into(),
        attribute_updates: Vec::new(),
    };
    history.sent(0, &merge.into());
}

fn stale(history: &mut History) {
    let stale = InvalidEventNumber {
        writer_id: TAG.writer_id(),
        request_id: 4,
        server_stack_trace: "".into(),
        event_number: 1,
    };
    history.received(0, &stale.into());
}

type Talking = fn(&mut History);

/// Each of these talks contradicts itself, and the judge hears of it.
#[test]
fn bad_talks_are_rejected() {
    let bad: &[(&str, Talking)] = &[
        ("S1", |history| {
            set_up(history, NAME, TAG, NEVER);
            append(history, TAG, &[1, 2]);
            acknowledge(history, TAG, 2, NEVER, length(&[1, 2]));
            history.closed(0);
            history.process(ProcessEvent::PowerCut);
            history.connected(0);
            read(history, events(TAG, &[1]));
            history.read_back(NAME, length(&[1]) as u64);
        }),
        ("S2", |history| read(history, events(WriterTag(77), &[1]))),
        ("S3", |history| {
            set_up(history, NAME, TAG, NEVER);
            append(history, TAG, &[1, 2]);
            read(history, events(TAG, &[1, 1]));
        }),
        ("S10", |history| {
            set_up(history, NAME, TAG, NEVER);
            append(history, TAG, &[1]);
            append(history, TAG, &[2]);
            acknowledge(history, TAG, 1, NEVER, length(&[1]));
            acknowledge(history, TAG, 2, 0, length(&[1, 2]));
        }),
        ("S15", |history| {
            merge(history);
            history.closed(0);
            history.connected(0);
            history.merged(0, NAME, [SOURCE].into_iter());
            history.read_back(NAME, 0);
        }),
        ("S25", |history| {
            set_up(history, NAME, TAG, NEVER);
            append(history, TAG, &[1]);
            acknowledge(history, TAG, 1, NEVER, length(&[1]));
            set_up(history, NAME, TAG, NEVER);
        }),
    ];
    for (invariant, talk) in bad {
        let (mut history, trace) = history(DENSE);
        talk(&mut history);
        let violated = trace.violated().unwrap_or_default();
        assert!(violated.starts_with(&format!("{invariant}: ")), "{invariant}: {violated:?}");
    }
}

/// Each of these can have happened, however unlucky, and the judge is silent.
#[test]
fn good_talks_are_accepted() {
    let good: &[(&str, Discipline, Talking)] = &[
        ("an append without an answer is stored", DENSE, |history| {
            set_up(history, NAME, TAG, NEVER);
            append(history, TAG, &[1]);
            history.closed(0);
            history.connected(0);
            set_up(history, NAME, TAG, 1);
            append(history, TAG, &[2]);
            acknowledge(history, TAG, 2, 1, length(&[1, 2]));
            read(history, events(TAG, &[1, 2]));
            history.read_back(NAME, length(&[1, 2]) as u64);
        }),
        (
            "a session that is over begins again on its connection",
            Discipline::Increasing,
            |history| {
                set_up(history, NAME, TAG, NEVER);
                append_on_condition(history, 1, 0);
                stale(history);
                set_up(history, NAME, TAG, NEVER);
                append_on_condition(history, 2, 0);
                acknowledge(history, TAG, 2, NEVER, length(&[2]));
            },
        ),
        ("a merge without an answer did not happen", DENSE, |history| {
            merge(history);
            history.closed(0);
            history.read_back(NAME, 0);
        }),
    ];
    for (what, discipline, talk) in good {
        let (mut history, trace) = history(*discipline);
        talk(&mut history);
        assert_eq!(trace.violated(), None, "{what}");
    }
}
