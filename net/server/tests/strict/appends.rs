//! Set-up of writers and unconditional appends.

use thalweg_crash::store::EVENT_COUNT;
use thalweg_crash::wire::Trouble;
use thalweg_wire::Command;

use crate::desk::{Form, encoded, form};
use crate::words::*;

pub(crate) const SET_UPS: &[Form] = &[
    form("SetupAppend", "of a new writer", |t| {
        let segment = t.empty();
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, UNSET));
    }),
    form("SetupAppend", "of a writer that wrote on another connection", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 3, 7), appended(ANNA, 7, UNSET, 3));
        t.hang_up();
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 7));
        t.gets(append(ANNA, b"d", 1, 8), appended(ANNA, 8, 7, 4));
    }),
    form("SetupAppend", "again on the same connection", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 1));
        t.gets(append(ANNA, b"de", 1, 2), appended(ANNA, 2, 1, 5));
    }),
    form("SetupAppend", "behind an append that is under way", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(append(ANNA, b"abc", 1, 1));
        t.send(set_up(&segment, ANNA));
        t.send(append(ANNA, b"de", 1, 2));
        t.hears(&appended(ANNA, 1, UNSET, 3));
        t.hears(&is_set_up(&segment, ANNA, 1));
        t.hears(&appended(ANNA, 2, 1, 5));
    }),
    form("SetupAppend", "of two writers of a segment", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.sets_up(&segment, BERT);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.gets(append(BERT, b"de", 1, 1), appended(BERT, 1, UNSET, 5));
        t.holds(&segment, b"abcde");
    }),
    form("SetupAppend", "of one writer for two segments: the later one counts", |t| {
        let (first, second) = (t.empty(), t.empty());
        t.sets_up(&first, ANNA);
        t.sets_up(&second, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.holds(&first, b"");
        t.holds(&second, b"abc");
    }),
    form("SetupAppend", "on a sealed segment", |t| {
        let segment = t.sealed(b"abc");
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, UNSET));
        t.gets(append(ANNA, b"d", 1, 5), sealed_at(&segment, 5));
        t.holds(&segment, b"abc");
    }),
    form("SetupAppend", "on a sealed segment, of a writer that wrote before", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.aside(seal(&segment), is_sealed(&segment));
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 1));
    }),
    form("SetupAppend", "on a truncated segment", |t| {
        let segment = t.truncated(b"abcdef", 6);
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"g", 1, 1), appended(ANNA, 1, UNSET, 7));
    }),
    form("SetupAppend", "on a missing segment", |t| {
        let segment = t.name();
        t.gets(set_up(&segment, ANNA), missing(&segment));
        t.goes_on();
        t.closes(append(ANNA, b"abc", 1, 1));
    }),
    form("SetupAppend", "on a missing segment leaves an earlier session gone", |t| {
        let (there, nowhere) = (t.empty(), t.name());
        t.sets_up(&there, ANNA);
        t.gets(set_up(&nowhere, ANNA), missing(&nowhere));
        t.closes(append(ANNA, b"abc", 1, 1));
        t.holds(&there, b"");
    }),
    form("SetupAppend", "on the empty name", |t| {
        t.gets(set_up("", ANNA), missing(""));
    }),
    form("SetupAppend", "on a table", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(set_up(&table, ANNA), unsupported("setupAppend"));
        t.goes_on();
        t.closes(append(ANNA, b"abc", 1, 1));
        t.unchanged(&table, &before);
    }),
    form("SetupAppend", "on a segment made anew: the old writers are forgotten", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 9), appended(ANNA, 9, UNSET, 3));
        t.aside(delete(&segment), is_deleted(&segment));
        t.aside(create(&segment), is_created(&segment));
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, UNSET));
        t.gets(append(ANNA, b"d", 1, 1), appended(ANNA, 1, UNSET, 1));
    }),
    form("SetupAppend", "elsewhere ends the older session", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.aside(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 1));
        t.gets(append(ANNA, b"old", 1, 2), invalid_number(ANNA, 2));
        t.hears_the_end();
        t.aside(append(ANNA, b"new", 1, 2), appended(ANNA, 2, 1, 6));
        t.holds(&segment, b"abcnew");
    }),
    form("SetupAppend", "elsewhere, with an append of the older session under way", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(append(ANNA, b"old", 1, 1));
        let Command::AppendSetup(told) = t.ask_aside(set_up(&segment, ANNA)) else {
            panic!("no AppendSetup")
        };
        if told.last_event_number == 1 {
            t.hears(&appended(ANNA, 1, UNSET, 3));
            t.holds(&segment, b"old");
        } else {
            assert_eq!(told.last_event_number, UNSET, "a number that was never sent");
            t.hears(&invalid_number(ANNA, 1));
            t.hears_the_end();
            t.holds(&segment, b"");
        }
    }),
];

pub(crate) const APPENDS: &[Form] = &[
    form("AppendBlockEnd", "of one event", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.holds(&segment, b"abc");
        t.aside(attribute(&segment, EVENT_COUNT), is_attribute(1));
        t.aside(attribute(&segment, ANNA), is_attribute(1));
    }),
    form("AppendBlockEnd", "of many events", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abcdef", 500, 500), appended(ANNA, 500, UNSET, 6));
        t.gets(append(ANNA, b"ghi", 3, 503), appended(ANNA, 503, 500, 9));
        t.aside(attribute(&segment, EVENT_COUNT), is_attribute(503));
    }),
    form("AppendBlockEnd", "with the most events a number can say", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"a", i32::MAX, 1), appended(ANNA, 1, UNSET, 1));
        t.aside(attribute(&segment, EVENT_COUNT), is_attribute(i64::from(i32::MAX)));
    }),
    form("AppendBlockEnd", "with a gap in the numbers", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.gets(append(ANNA, b"def", 1, 1000), appended(ANNA, 1000, 1, 6));
    }),
    form("AppendBlockEnd", "with number 0", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 0), appended(ANNA, 0, UNSET, 3));
    }),
    form("AppendBlockEnd", "with the largest number", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, i64::MAX), appended(ANNA, i64::MAX, UNSET, 3));
    }),
    form("AppendBlockEnd", "with no bytes", |t| {
        let segment = t.holding(b"abc");
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.aside(attribute(&segment, EVENT_COUNT), is_attribute(2));
    }),
    form("AppendBlockEnd", "by itself, its size of whole events wrong", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        for (at, size) in (1..).zip([0, -1, 2, 1000, i32::MIN, i32::MAX]) {
            let previous = if at == 1 { UNSET } else { at - 1 };
            t.gets(end(ANNA, size, b"abc", 1, at), appended(ANNA, at, previous, 3 * at));
        }
    }),
    form("AppendBlockEnd", "with an event of the largest size", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        let data = vec![7; (8 << 20) + 8];
        t.gets(append(ANNA, &data, 1, 1), appended(ANNA, 1, UNSET, (8 << 20) + 8));
        t.holds(&segment, &data);
    }),
    form("AppendBlockEnd", "with an event over the largest size", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.closes(append(ANNA, &vec![7; (8 << 20) + 9], 1, 1));
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "that fills the largest frame", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        let data = vec![7; thalweg_wire::FRAME_BYTES_MAX - 8 - 44];
        let length = i64::try_from(data.len()).expect("in memory");
        t.gets(append(ANNA, &data, 2, 2), appended(ANNA, 2, UNSET, length));
        t.holds(&segment, &data);
    }),
    form("AppendBlockEnd", "over the largest frame", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        let data = vec![7; thalweg_wire::FRAME_BYTES_MAX - 8 - 43];
        t.send_bytes(&encoded(&[append(ANNA, &data, 2, 2)]));
        t.hears_the_end();
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "of no events, or fewer", |t| {
        let segment = t.empty();
        for count in [0, -1, i32::MIN] {
            t.sets_up(&segment, ANNA);
            t.closes(append(ANNA, b"abc", count, 1));
        }
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "with a negative number", |t| {
        let segment = t.empty();
        for number in [-1, i64::MIN + 1, i64::MIN] {
            t.sets_up(&segment, ANNA);
            t.closes(append(ANNA, b"abc", 1, number));
        }
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "with the last number again", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 9), appended(ANNA, 9, UNSET, 3));
        t.gets(append(ANNA, b"abc", 1, 9), invalid_number(ANNA, 9));
        t.hears_the_end();
        t.holds(&segment, b"abc");
    }),
    form("AppendBlockEnd", "with a number that goes back", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 9), appended(ANNA, 9, UNSET, 3));
        t.gets(append(ANNA, b"def", 1, 8), invalid_number(ANNA, 8));
        t.hears_the_end();
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 9));
        t.gets(append(ANNA, b"def", 1, 9), invalid_number(ANNA, 9));
        t.hears_the_end();
        t.holds(&segment, b"abc");
    }),
    form("AppendBlockEnd", "resent after its acknowledgement was lost", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(append(ANNA, b"abc", 1, 1));
        t.hang_up();
        // Whether it arrived before the cut or not: afterwards it is there exactly once.
        t.send(set_up(&segment, ANNA));
        match t.listen() {
            Command::AppendSetup(it) if it.last_event_number == 1 => {}
            Command::AppendSetup(it) if it.last_event_number == UNSET => {
                t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
            }
            other => panic!("{other:?}"),
        }
        t.holds(&segment, b"abc");
    }),
    form("AppendBlockEnd", "without a set-up", |t| {
        t.closes(append(ANNA, b"abc", 1, 1));
    }),
    form("AppendBlockEnd", "without a Hello and without a set-up", |t| {
        t.connect_silently();
        t.closes(append(ANNA, b"abc", 1, 1));
    }),
    form("AppendBlockEnd", "of a writer that is set up on another connection", |t| {
        let segment = t.empty();
        t.aside(set_up(&segment, ANNA), is_set_up(&segment, ANNA, UNSET));
        t.closes(append(ANNA, b"abc", 1, 1));
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "of another writer than was set up", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.closes(append(BERT, b"abc", 1, 1));
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "many at once are acknowledged in order, without holes", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        for number in 1..=100 {
            t.send(append(ANNA, b"ab", 1, number));
        }
        let mut previous = UNSET;
        while previous != 100 {
            let heard = t.listen();
            let Command::DataAppended(ack) = &heard else { panic!("{heard:?}") };
            let number = ack.event_number;
            assert!(number > previous, "{number} behind {previous}");
            assert_eq!(heard, appended(ANNA, number, previous, 2 * number), "acknowledgement");
            previous = number;
        }
        t.goes_on();
    }),
    form("AppendBlockEnd", "behind one that is refused", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send_bytes(&encoded(&[
            append(ANNA, b"abc", 1, 1),
            append(ANNA, b"bad", 1, 1),
            append(ANNA, b"def", 1, 2),
            append(ANNA, b"ghi", 1, 3),
        ]));
        t.hears(&appended(ANNA, 1, UNSET, 3));
        t.hears(&invalid_number(ANNA, 1));
        t.hears_the_end();
        t.holds(&segment, b"abc");
        t.aside(attribute(&segment, ANNA), is_attribute(1));
    }),
    form("AppendBlockEnd", "to a sealed segment", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.aside(seal(&segment), is_sealed(&segment));
        t.gets(append(ANNA, b"def", 1, 2), sealed_at(&segment, 2));
        t.goes_on();
        // Each later append of the session is told the same.
        t.gets(append(ANNA, b"ghi", 1, 3), sealed_at(&segment, 3));
        t.holds(&segment, b"abc");
    }),
    form("AppendBlockEnd", "a seal in the middle of many: acknowledged, then refused", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send_bytes(&encoded(&[
            append(ANNA, b"abc", 1, 1),
            append(ANNA, b"def", 1, 2),
            seal(&segment),
            append(ANNA, b"ghi", 1, 3),
        ]));
        let mut previous = UNSET;
        while previous != 2 {
            let heard = t.listen();
            let Command::DataAppended(ack) = &heard else { panic!("{heard:?} before the acks") };
            previous = ack.event_number;
        }
        t.hears(&is_sealed(&segment));
        t.hears(&sealed_at(&segment, 3));
        t.holds(&segment, b"abcdef");
    }),
    form("AppendBlockEnd", "to a segment that was deleted", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.aside(delete(&segment), is_deleted(&segment));
        t.gets(append(ANNA, b"abc", 1, 1), missing(&segment));
        t.goes_on();
    }),
    form("AppendBlockEnd", "to a segment that was deleted and made anew", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.aside(delete(&segment), is_deleted(&segment));
        t.aside(create(&segment), is_created(&segment));
        t.gets(append(ANNA, b"abc", 1, 1), missing(&segment));
        t.holds(&segment, b"");
    }),
    form("AppendBlockEnd", "to a segment that was merged away", |t| {
        let (target, source) = (t.empty(), t.empty());
        t.sets_up(&source, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.aside(merge(&target, &source), is_merged(&target, &source, 3));
        t.gets(append(ANNA, b"def", 1, 2), missing(&source));
        t.holds(&target, b"abc");
    }),
    form("AppendBlockEnd", "by two connections of one writer in turns", |t| {
        let segment = t.empty();
        let mut other = t.connect();
        for turn in 0..5 {
            let (first, second) = (2 * turn + 1, 2 * turn + 2);
            let known = if turn == 0 { UNSET } else { first - 1 };
            t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, known));
            t.gets(append(ANNA, b"a", 1, first), appended(ANNA, first, known, first));
            other.send(set_up(&segment, ANNA)).expect("the server lives");
            assert_eq!(other.receive(), Ok(is_set_up(&segment, ANNA, first)), "set-up");
            other.send(append(ANNA, b"b", 1, second)).expect("the server lives");
            assert_eq!(other.receive(), Ok(appended(ANNA, second, first, second)), "append");
        }
        t.gets(append(ANNA, b"late", 1, 11), invalid_number(ANNA, 11));
        t.hears_the_end();
        other.send(append(ANNA, b"b", 1, 11)).expect("the server lives");
        assert_eq!(other.receive(), Ok(appended(ANNA, 11, 10, 11)), "the newer goes on");
        assert_ne!(other.send_bytes(b""), Err(Trouble::Closed), "and stands");
        t.holds(&segment, b"ababababab".iter().chain(b"b").copied().collect::<Vec<_>>().as_slice());
    }),
];
