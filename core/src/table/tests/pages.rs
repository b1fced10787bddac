//! Iteration by key and by version.

use bytes::Bytes;

use super::super::{DeltaPage, Table, TableRefusal};
use super::{entry, found, is_illegal, key, remove, update};
use crate::limits::READ_REPLY_BYTES_MAX;
use crate::request::TableItems::{Entries, Keys};
use crate::request::VersionCondition::Any;
use crate::request::{FoundEntry, TableEntry, TableItems, TableKey};

/// A table with these keys and empty values.
fn table_of(key_length: u16, keys: &[&str]) -> Table {
    let mut table = Table::new(key_length);
    for key in keys {
        update(&mut table, &[entry(key, "", Any)]).expect("no condition");
    }
    table
}

fn names(entries: &[FoundEntry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.key).expect("names are text")).collect()
}

/// Pages from the beginning until one is empty, as clients read them.
fn pages(table: &Table, count: i32, items: TableItems) -> Vec<Vec<FoundEntry>> {
    let mut pages = Vec::new();
    let mut token = Bytes::new();
    loop {
        let (entries, next) = table.iterate(count, &token, b"", b"", items).expect("our token");
        assert_eq!(entries.is_empty(), next.is_empty(), "an empty page and no other ends");
        if entries.is_empty() {
            return pages;
        }
        pages.push(entries);
        assert!(pages.len() < 1000, "the iteration does not end");
        token = next;
    }
}

/// Pages have at most the count asked for, follow each other and end with an empty one.
#[test]
fn iteration_pages_until_one_is_empty() {
    let mut table = table_of(0, &["b", "aa", "c", "a"]);
    update(&mut table, &[entry("aa", "new", Any)]).expect("no condition");
    let all = pages(&table, 3, Entries);
    assert_eq!(
        all,
        [
            vec![found("a", "", 55), found("aa", "new", 73), found("b", "", 0)],
            vec![found("c", "", 37)],
        ]
    );
    let keys = pages(&table, 1, Keys);
    assert_eq!(keys.len(), 4);
    assert_eq!(keys[1], [found("aa", "", 73)], "keys come with their versions, without values");
    assert!(pages(&Table::new(0), 10, Keys).is_empty());
}

/// A token stays good when its key goes, and what was there all along is told exactly once.
#[test]
fn iteration_survives_changes_between_pages() {
    let mut table = table_of(0, &["a", "b", "c", "d"]);
    let (first, token) = table.iterate(2, b"", b"", b"", Keys).expect("a beginning");
    assert_eq!(names(&first), ["a", "b"]);
    remove(&mut table, &[key("b", Any)]).expect("no condition");
    update(&mut table, &[entry("a", "moved", Any), entry("aa", "late", Any)])
        .expect("no condition");
    let (second, _) = table.iterate(10, &token, b"", b"", Keys).expect("our token");
    assert_eq!(names(&second), ["c", "d"]);
}

/// Tokens that are none close the connection; a count that asks for nothing gets nothing.
#[test]
fn foreign_tokens_close_and_empty_counts_are_empty() {
    let table = table_of(0, &["a"]);
    let long = [&[0x74][..], &[1; 8193]].concat();
    for token in [&b"x"[..], b"\x74", &[0; 16], &long] {
        assert_eq!(table.iterate(1, token, b"", b"", Keys), Err(TableRefusal::Protocol));
    }
    for key_length in [0, 1] {
        for count in [0, -1, i32::MIN] {
            let page = table_of(key_length, &["a"]).iterate(count, b"", b"", b"", Entries);
            assert_eq!(page, Ok((vec![], Bytes::new())));
        }
    }
}

/// Tables of fixed key length are walked between inclusive bounds, in ascending unsigned order.
#[test]
fn bounds_are_inclusive_and_open_when_empty() {
    let table = table_of(1, &["d", "b", "c", "a"]);
    let cases: [(&str, &str, &[&str]); 5] = [
        ("", "", &["a", "b", "c", "d"]),
        ("b", "", &["b", "c", "d"]),
        ("", "b", &["a", "b"]),
        ("b", "c", &["b", "c"]),
        ("c", "c", &["c"]),
    ];
    for (from, to, expected) in cases {
        let page = table.iterate(10, b"", from.as_bytes(), to.as_bytes(), Keys);
        let (entries, token) = page.expect("legal bounds");
        assert_eq!(names(&entries), expected, "{from}..={to}");
        assert!(!token.is_empty());
    }
    let mut high = Table::new(1);
    let entry = |byte: u8| TableEntry {
        key: TableKey { key: Bytes::copy_from_slice(&[byte]), condition: Any },
        value: Bytes::new(),
    };
    high.apply_update(&[entry(0xFF), entry(0x00), entry(0x80)]);
    let (entries, _) = high.iterate(10, b"", b"", b"", Keys).expect("no bounds");
    let keys: Vec<&[u8]> = entries.iter().map(|entry| entry.key.as_ref()).collect();
    assert_eq!(keys, [b"\x00", b"\x80", b"\xFF"]);
}

/// Tables of fixed key length refuse tokens, bounds of another length and bounds in wrong order.
#[test]
fn illegal_bounds_and_tokens_of_fixed_tables_are_refused() {
    let table = table_of(2, &["aa", "bb"]);
    let (_, token) = table.iterate(1, b"", b"", b"", Keys).expect("no bounds");
    assert!(is_illegal(table.iterate(1, &token, b"", b"", Keys)));
    assert!(is_illegal(table.iterate(1, b"", b"a", b"", Keys)));
    assert!(is_illegal(table.iterate(1, b"", b"", b"aaa", Keys)));
    assert!(is_illegal(table.iterate(1, b"", b"bb", b"aa", Keys)));
    assert!(is_illegal(table.iterate(0, b"", b"bb", b"aa", Keys)), "whatever the count");
}

/// Pages are cut before 2 MiB of items, and a single large entry still makes a page.
#[test]
fn pages_are_cut_at_two_mebibytes() {
    let mut table = Table::new(0);
    let value = "v".repeat(700_000);
    for name in ["a", "b", "c"] {
        update(&mut table, &[entry(name, &value, Any)]).expect("no condition");
    }
    let sizes: Vec<usize> = pages(&table, 100, Entries).iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 1]);
    assert_eq!(pages(&table, 100, Keys).len(), 1, "values that are not told do not count");
    let page = table.delta(0, 100).expect("a position");
    assert_eq!((page.entries.len(), page.reached_end), (2, false));

    // Exactly 2 MiB fit: two items of half of it, 24 bytes of lengths and version each.
    let half = "v".repeat(READ_REPLY_BYTES_MAX as usize / 2 - 24 - 10);
    let mut full = Table::new(10);
    for name in ["0123456789", "1123456789"] {
        update(&mut full, &[entry(name, &half, Any)]).expect("no condition");
    }
    assert_eq!(pages_of_fixed(&full), [2]);
    update(&mut full, &[entry("0123456789", &format!("{half}v"), Any)]).expect("no condition");
    assert_eq!(pages_of_fixed(&full), [1, 1]);
}

/// Sizes of the pages of a table with keys of ten bytes, continued at the last key with a byte
/// raised, as clients do.
fn pages_of_fixed(table: &Table) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut from = Vec::new();
    loop {
        let (entries, _) = table.iterate(100, b"", &from, b"", Entries).expect("legal bounds");
        let Some(last) = entries.last() else { return sizes };
        sizes.push(entries.len());
        from = last.key.to_vec();
        *from.last_mut().expect("keys have ten bytes") += 1;
    }
}

/// Changes come in version order, once per key, and the position covers what was superseded.
#[test]
fn delta_tells_live_entries_in_version_order() {
    let mut table = table_of(0, &["b", "a", "c"]);
    update(&mut table, &[entry("b", "new", Any)]).expect("no condition");
    remove(&mut table, &[key("a", Any)]).expect("no condition");
    let end = table.length().0 as i64;
    let page = table.delta(0, 10).expect("a position");
    let all = vec![found("c", "", 36), found("b", "new", 54)];
    assert_eq!(page, DeltaPage { entries: all.clone(), reached_end: true, last_position: end });

    let first = table.delta(0, 1).expect("a position");
    let expected = DeltaPage { entries: all[..1].to_vec(), reached_end: false, last_position: 54 };
    assert_eq!(first, expected);
    let second = table.delta(first.last_position, 1).expect("a position");
    let expected = DeltaPage { entries: all[1..].to_vec(), reached_end: true, last_position: end };
    assert_eq!(second, expected);
}

/// Nothing new, removals only, and counts that ask for nothing.
#[test]
fn empty_delta_pages_say_where_to_go_on() {
    let mut table = table_of(0, &["a"]);
    let nothing =
        |reached_end, last_position| Ok(DeltaPage { entries: vec![], reached_end, last_position });
    assert_eq!(Table::new(0).delta(0, 10), nothing(true, 0));
    assert_eq!(table.delta(18, 10), nothing(true, 18));
    assert_eq!(table.delta(0, 0), nothing(false, 0), "what was not asked for is not covered");
    assert_eq!(table.delta(0, -1), nothing(false, 0));
    remove(&mut table, &[key("a", Any)]).expect("no condition");
    assert_eq!(table.delta(18, 10), nothing(true, 36));
    assert_eq!(table.delta(0, 10), nothing(true, 36));
}

/// Positions outside the log are illegal; fixed key lengths have no delta iteration.
#[test]
fn delta_positions_outside_the_log_are_refused() {
    let table = table_of(0, &["a"]);
    for position in [-1, i64::MIN, 19, i64::MAX] {
        assert!(is_illegal(table.delta(position, 10)), "{position}");
    }
    let unsupported = TableRefusal::Unsupported { operation: "readTableEntriesDelta" };
    assert_eq!(table_of(1, &["a"]).delta(0, 10), Err(unsupported.clone()));
    assert_eq!(Table::new(1).delta(-1, 10), Err(unsupported));
}
