//! Tables in pages: keys, entries, changes.

use thalweg_wire::Command;

use crate::desk::{Desk, Form, form};
use crate::tables::token_of;
use crate::words::*;

/// A kind of page: how it is asked for with bounds, and what it is with which entries and token.
type Kind =
    (fn(&str, i32, &[u8], &[u8], &[u8]) -> Command, fn(&str, Entries<'_>, &[u8]) -> Command);

fn is_keys_of(segment: &str, entries: Entries<'_>, token: &[u8]) -> Command {
    let keys: Vec<(&[u8], i64)> = entries.iter().map(|it| (it.0, it.1)).collect();
    is_keys(segment, &keys, token)
}

const KEYS: Kind = (keys_within, is_keys_of);
const ENTRIES: Kind = (entries_within, is_entries);

macro_rules! both {
    ($($form:literal $run:expr,)+) => {
        &[$(
            form("ReadTableKeys", $form, |t| $run(t, KEYS)),
            form("ReadTableEntries", $form, |t| $run(t, ENTRIES)),
        )+]
    };
}

pub(crate) const PAGES: &[Form] = both![
    "all at once, and then the end" all_at_once,
    "one by one, each exactly once" one_by_one,
    "of an empty table" of_an_empty_table,
    "of no items, or fewer" of_no_items,
    "with a token that is none" with_no_token,
    "with a token of a key that is gone" with_a_token_of_a_gone_key,
    "while keys come and go" while_keys_come_and_go,
    "over two mebibytes: cut before" over_two_mebibytes,
    "of a table with keys of fixed length, within bounds" within_bounds,
    "of a table with keys of fixed length, with a token" with_a_token_and_fixed_keys,
    "of a table with keys of fixed length, with bounds that are none" with_bad_bounds,
    "of a missing table" |t: &mut Desk, (ask, _): Kind| {
        let table = t.name();
        t.gets(ask(&table, 10, b"", b"", b""), missing(&table));
    },
    "of a segment that is no table" |t: &mut Desk, (ask, _): Kind| {
        let segment = t.holding(b"abc");
        t.gets(ask(&segment, 10, b"", b"", b""), illegal(&segment, "not a table segment"));
    },
];

const BOTH: Entries<'_> = &[(b"one", 0, b"1"), (b"two", 21, b"2")];

fn all_at_once(t: &mut Desk, (ask, is): Kind) {
    let table = t.table_of_two();
    for count in [2, 3, i32::MAX] {
        let token = token_of(t, ask(&table, count, b"", b"", b""));
        t.gets(ask(&table, count, b"", b"", b""), is(&table, BOTH, &token));
        t.gets(ask(&table, count, &token, b"", b""), is(&table, &[], b""));
    }
}

fn one_by_one(t: &mut Desk, (ask, is): Kind) {
    let table = t.table_of_two();
    let first = token_of(t, ask(&table, 1, b"", b"", b""));
    t.gets(ask(&table, 1, b"", b"", b""), is(&table, &BOTH[..1], &first));
    let second = token_of(t, ask(&table, 1, &first, b"", b""));
    t.gets(ask(&table, 1, &first, b"", b""), is(&table, &BOTH[1..], &second));
    t.gets(ask(&table, 1, &second, b"", b""), is(&table, &[], b""));
}

fn of_an_empty_table(t: &mut Desk, (ask, is): Kind) {
    for key_length in [0, 4] {
        let table = t.table(key_length);
        t.gets(ask(&table, 10, b"", b"", b""), is(&table, &[], b""));
    }
}

fn of_no_items(t: &mut Desk, (ask, is): Kind) {
    let table = t.table_of_two();
    for count in [0, -1, i32::MIN] {
        t.gets(ask(&table, count, b"", b"", b""), is(&table, &[], b""));
    }
}

fn with_no_token(t: &mut Desk, (ask, _): Kind) {
    let table = t.table_of_two();
    let right = token_of(t, ask(&table, 1, b"", b"", b""));
    t.closes(ask(&table, 10, b"no token of ours", b"", b""));
    t.closes(ask(&table, 10, &right[..1], b"", b""));
    t.closes(ask(&table, 10, &[&right[..1], &[b'k'; 8193]].concat(), b"", b""));
}

fn with_a_token_of_a_gone_key(t: &mut Desk, (ask, is): Kind) {
    let table = t.table_of_two();
    let first = token_of(t, ask(&table, 1, b"", b"", b""));
    let second = token_of(t, ask(&table, 1, &first, b"", b""));
    t.aside(remove(&table, &[(b"one", ANY)]), is_removed(&table));
    t.gets(ask(&table, 10, &first, b"", b""), is(&table, &BOTH[1..], &second));
}

/// A key that is there all the time is told exactly once, whatever happens around it.
fn while_keys_come_and_go(t: &mut Desk, (ask, _): Kind) {
    let table = t.table(0);
    let stays: Vec<Vec<u8>> = (0..20).map(|it| format!("stay{it:02}").into_bytes()).collect();
    for key in &stays {
        let put = t.ask_aside(update(&table, &[(key, ANY, b"v")]));
        assert!(matches!(put, Command::TableEntriesUpdated(_)), "{put:?}");
    }
    let (mut token, mut told) = (Vec::new(), Vec::new());
    for round in 0.. {
        t.send(ask(&table, 3, &token, b"", b""));
        let page: Vec<Vec<u8>> = match t.listen() {
            Command::TableKeysRead(page) => {
                token = page.continuation_token.to_vec();
                page.keys.iter().map(|it| it.key.to_vec()).collect()
            }
            Command::TableEntriesRead(page) => {
                token = page.continuation_token.to_vec();
                page.entries.iter().map(|it| it.key.key.to_vec()).collect()
            }
            other => panic!("{other:?}"),
        };
        if page.is_empty() {
            break;
        }
        told.extend(page);
        let other = format!("stay{:02}x", 3 * round % 20).into_bytes();
        let put = t.ask_aside(update(&table, &[(&other, ANY, b"v")]));
        assert!(matches!(put, Command::TableEntriesUpdated(_)), "{put:?}");
        // Whatever is put anew keeps its place among the keys.
        let again = &stays[(7 * round) % 20];
        let put = t.ask_aside(update(&table, &[(again, ANY, b"w")]));
        assert!(matches!(put, Command::TableEntriesUpdated(_)), "{put:?}");
    }
    for key in &stays {
        assert_eq!(told.iter().filter(|it| *it == key).count(), 1, "{key:?} in {told:?}");
    }
}

fn over_two_mebibytes(t: &mut Desk, (ask, _): Kind) {
    let table = t.table(0);
    let value = vec![b'v'; 900 << 10];
    for key in [b"a", b"b", b"c", b"d"] {
        let put = t.ask_aside(update(&table, &[(key, ANY, &value)]));
        assert!(matches!(put, Command::TableEntriesUpdated(_)), "{put:?}");
    }
    let (mut token, mut told) = (Vec::new(), 0);
    loop {
        t.send(ask(&table, 100, &token, b"", b""));
        let heard = t.listen();
        assert!(heard.encoded_len() < (2 << 20) + 1000, "{} bytes", heard.encoded_len());
        let count = match heard {
            Command::TableKeysRead(page) => {
                token = page.continuation_token.to_vec();
                page.keys.len()
            }
            Command::TableEntriesRead(page) => {
                token = page.continuation_token.to_vec();
                page.entries.len()
            }
            other => panic!("{}", other.name()),
        };
        told += count;
        if count == 0 {
            break;
        }
    }
    assert_eq!(told, 4, "entries told");
}

/// A table with four keys of four bytes; gives it and its entries.
fn fixed(t: &mut Desk) -> (String, Entries<'static>) {
    let all: Entries<'_> =
        &[(b"aaaa", 0, b"1"), (b"bbbb", 22, b"2"), (b"cccc", 44, b"3"), (b"\xFF\0\0\0", 66, b"4")];
    let table = t.table(4);
    let put: Vec<_> = all.iter().map(|it| (it.0, ANY, it.2)).collect();
    t.aside(update(&table, &put), is_updated(&[0, 22, 44, 66]));
    (table, all)
}

fn within_bounds(t: &mut Desk, (ask, is): Kind) {
    let (table, all) = fixed(t);
    let cases: &[(&[u8], &[u8], Entries<'_>)] = &[
        (b"", b"", all),
        (b"bbbb", b"", &all[1..]),
        (b"bbba", b"", &all[1..]),
        (b"bbbc", b"", &all[2..]),
        (b"", b"cccc", &all[..3]),
        (b"", b"cccb", &all[..2]),
        (b"aaaa", b"aaaa", &all[..1]),
        (b"aaab", b"aaac", &[]),
        (b"\x80\0\0\0", b"", &all[3..]),
    ];
    for (from, to, expected) in cases {
        let token = token_of(t, ask(&table, 10, b"", from, to));
        assert_eq!(token.is_empty(), expected.is_empty(), "a token behind items");
        t.gets(ask(&table, 10, b"", from, to), is(&table, expected, &token));
    }
}

fn with_a_token_and_fixed_keys(t: &mut Desk, (ask, _): Kind) {
    let (table, _) = fixed(t);
    let token = token_of(t, ask(&table, 1, b"", b"", b""));
    let message = "continuation token in a table with keys of fixed length";
    t.gets(ask(&table, 1, &token, b"", b""), illegal(&table, message));
}

fn with_bad_bounds(t: &mut Desk, (ask, _): Kind) {
    let (table, _) = fixed(t);
    let refused = |message| illegal(&table, message);
    let message = "lower bound of 3 bytes in a table with keys of 4";
    t.gets(ask(&table, 10, b"", b"abc", b""), refused(message));
    let message = "upper bound of 5 bytes in a table with keys of 4";
    t.gets(ask(&table, 10, b"", b"abcd", b"abcde"), refused(message));
    let message = "the lower bound is greater than the upper bound";
    t.gets(ask(&table, 10, b"", b"bbbb", b"aaaa"), refused(message));
}

pub(crate) const DELTAS: &[Form] = &[
    form("ReadTableEntriesDelta", "of everything", |t| {
        let table = t.table_of_two();
        t.gets(delta(&table, 0, 10), is_delta(&table, BOTH, true, 42));
    }),
    form("ReadTableEntriesDelta", "one by one", |t| {
        let table = t.table_of_two();
        t.gets(delta(&table, 0, 1), is_delta(&table, &BOTH[..1], false, 21));
        t.gets(delta(&table, 21, 1), is_delta(&table, &BOTH[1..], true, 42));
        t.gets(delta(&table, 42, 1), is_delta(&table, &[], true, 42));
    }),
    form("ReadTableEntriesDelta", "of keys that were put again, or removed", |t| {
        let table = t.table_of_two();
        t.gets(update(&table, &[(b"one", ANY, b"x")]), is_updated(&[42]));
        t.gets(remove(&table, &[(b"two", ANY)]), is_removed(&table));
        let left: Entries<'_> = &[(b"one", 42, b"x")];
        t.gets(delta(&table, 0, 10), is_delta(&table, left, true, 83));
        t.gets(delta(&table, 43, 10), is_delta(&table, &[], true, 83));
    }),
    form("ReadTableEntriesDelta", "of an empty table", |t| {
        let table = t.table(0);
        t.gets(delta(&table, 0, 10), is_delta(&table, &[], true, 0));
    }),
    form("ReadTableEntriesDelta", "of no entries, or fewer", |t| {
        let table = t.table_of_two();
        for count in [0, -1, i32::MIN] {
            t.gets(delta(&table, 0, count), is_delta(&table, &[], false, 0));
        }
    }),
    form("ReadTableEntriesDelta", "from behind the end, and before the start", |t| {
        let table = t.table_of_two();
        for from in [43, i64::MAX, -1, i64::MIN] {
            let message = format!("position {from} is not within 0 and 42");
            t.gets(delta(&table, from, 10), illegal(&table, &message));
        }
    }),
    form("ReadTableEntriesDelta", "over two mebibytes: cut before, and going on", |t| {
        let table = t.table(0);
        let value = vec![b'v'; 300 << 10];
        for key in 0..20_u8 {
            let put = t.ask_aside(update(&table, &[(&[key], ANY, &value)]));
            assert!(matches!(put, Command::TableEntriesUpdated(_)), "{put:?}");
        }
        let (mut from, mut told) = (0, 0);
        loop {
            t.send(delta(&table, from, 1000));
            let heard = t.listen();
            assert!(heard.encoded_len() < (2 << 20) + 1000, "{} bytes", heard.encoded_len());
            let Command::TableEntriesDeltaRead(page) = heard else { panic!("{}", heard.name()) };
            if page.entries.is_empty() {
                assert!(page.reached_end, "an empty page is the end");
                break;
            }
            told += page.entries.len();
            assert!(page.last_position > from, "it goes on");
            from = page.last_position;
        }
        assert_eq!(told, 20, "entries told");
    }),
    form("ReadTableEntriesDelta", "of a table with keys of fixed length", |t| {
        let table = t.table(4);
        t.gets(delta(&table, 0, 10), unsupported("readTableEntriesDelta"));
    }),
    form("ReadTableEntriesDelta", "of a missing table, and of a segment that is no table", |t| {
        let table = t.name();
        t.gets(delta(&table, 0, 10), missing(&table));
        let segment = t.holding(b"abc");
        t.gets(delta(&segment, 0, 10), illegal(&segment, "not a table segment"));
    }),
];
