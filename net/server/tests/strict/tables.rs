//! Tables: life, puts, removals and gets.

use thalweg_crash::store::none;
use thalweg_wire::{Command, CreateTableSegment};

use crate::desk::{Desk, Form, encoded, form, frame};
use crate::words::*;

const KEY_BYTES_MAX: usize = 8192;
const ENTRY_BYTES_MAX: usize = 1 << 20;

pub(crate) const TABLES: &[Form] = &[
    form("CreateTableSegment", "with keys of any length", |t| {
        let table = t.name();
        t.gets(create_table(&table, 0), is_created(&table));
        t.gets(table_info(&table), is_table_info(&table, 0, 0, 0));
    }),
    form("CreateTableSegment", "with keys of fixed length", |t| {
        for length in [1, 16, 256] {
            let table = t.name();
            t.gets(create_table(&table, length), is_created(&table));
            t.gets(table_info(&table), is_table_info(&table, 0, 0, length));
        }
    }),
    form("CreateTableSegment", "with keys of negative length: of any", |t| {
        for length in [-1, i32::MIN] {
            let table = t.name();
            t.gets(create_table(&table, length), is_created(&table));
            t.gets(table_info(&table), is_table_info(&table, 0, 0, 0));
        }
    }),
    form("CreateTableSegment", "with keys over the largest fixed length", |t| {
        for length in [257, 65_536, i32::MAX] {
            let table = t.name();
            t.closes(create_table(&table, length));
            t.gets(info(&table), missing(&table));
        }
    }),
    form("CreateTableSegment", "marked as sorted, with a rollover size", |t| {
        let table = t.name();
        let request = CreateTableSegment {
            request_id: ID,
            segment: table.as_str().into(),
            delegation_token: none(),
            sorted_deprecated: true,
            key_length: 4,
            rollover_size_bytes: -7,
        };
        t.gets(request.into(), is_created(&table));
        t.gets(table_info(&table), is_table_info(&table, 0, 0, 4));
    }),
    form("CreateTableSegment", "of the empty name", |t| t.closes(create_table("", 0))),
    form("CreateTableSegment", "of a name that exists, of a table or a segment", |t| {
        for name in [t.table_of_two(), t.table(4), t.holding(b"abc")] {
            let before = t.look(&name);
            t.gets(create_table(&name, 0), exists(&name));
            t.unchanged(&name, &before);
        }
    }),
    form("CreateTableSegment", "of the name of a deleted table", |t| {
        let table = t.table_of_two();
        t.gets(delete_table(&table, false), is_deleted(&table));
        t.gets(create_table(&table, 0), is_created(&table));
        t.gets(table_info(&table), is_table_info(&table, 0, 0, 0));
        t.gets(update(&table, &[(b"one", ABSENT, b"1")]), is_updated(&[0]));
    }),
    form("DeleteTableSegment", "with entries, and again", |t| {
        let table = t.table_of_two();
        t.gets(delete_table(&table, false), is_deleted(&table));
        t.gets(table_info(&table), missing(&table));
        t.gets(delete_table(&table, false), missing(&table));
        t.gets(delete_table(&table, true), missing(&table));
    }),
    form("DeleteTableSegment", "that must be empty, and is not, and is", |t| {
        let table = t.table_of_two();
        t.gets(delete_table(&table, true), not_empty(&table));
        t.gets(remove(&table, &[(b"one", ANY), (b"two", ANY)]), is_removed(&table));
        t.gets(delete_table(&table, true), is_deleted(&table));
    }),
    form("DeleteTableSegment", "that must be empty, with keys of fixed length", |t| {
        let table = t.table(4);
        t.gets(delete_table(&table, true), unsupported("deleteTableSegment"));
        t.gets(delete_table(&table, false), is_deleted(&table));
    }),
    form("DeleteTableSegment", "of a segment that is no table", |t| {
        let segment = t.holding(b"abc");
        let before = t.look(&segment);
        t.gets(delete_table(&segment, false), illegal(&segment, "not a table segment"));
        t.gets(delete_table(&segment, true), illegal(&segment, "not a table segment"));
        t.unchanged(&segment, &before);
    }),
    form("GetTableSegmentInfo", "of a table with entries", |t| {
        let table = t.table_of_two();
        t.gets(table_info(&table), is_table_info(&table, 42, 2, 0));
    }),
    form("GetTableSegmentInfo", "of a missing table", |t| {
        let table = t.name();
        t.gets(table_info(&table), missing(&table));
    }),
    form("GetTableSegmentInfo", "of a segment that is no table", |t| {
        let segment = t.holding(b"abc");
        t.gets(table_info(&segment), illegal(&segment, "not a table segment"));
    }),
];

pub(crate) const UPDATES: &[Form] = &[
    form("UpdateTableEntries", "without conditions: put, and put over", |t| {
        let table = t.table(0);
        t.gets(update(&table, &[(b"k", ANY, b"v")]), is_updated(&[0]));
        t.gets(update(&table, &[(b"k", ANY, b"")]), is_updated(&[19]));
        t.gets(get(&table, &[b"k"]), is_got(&table, &[(b"k", 19, b"")]));
    }),
    form("UpdateTableEntries", "of absent keys", |t| {
        let table = t.table_of_two();
        t.gets(update(&table, &[(b"six", ABSENT, b"6")]), is_updated(&[42]));
        t.gets(update(&table, &[(b"six", ABSENT, b"x")]), bad_version(&table));
        t.gets(get(&table, &[b"six"]), is_got(&table, &[(b"six", 42, b"6")]));
    }),
    form("UpdateTableEntries", "of keys with a version", |t| {
        let table = t.table_of_two();
        t.gets(update(&table, &[(b"two", 21, b"x")]), is_updated(&[42]));
        for version in [21, 0, 43, i64::MAX] {
            t.gets(update(&table, &[(b"two", version, b"y")]), bad_version(&table));
        }
        t.gets(get(&table, &[b"two"]), is_got(&table, &[(b"two", 42, b"x")]));
    }),
    form("UpdateTableEntries", "of a key with a version that does not exist", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(update(&table, &[(b"six", 5, b"6")]), no_key(&table));
        // It outranks what else is wrong, in either order.
        t.gets(update(&table, &[(b"six", 5, b"6"), (b"one", 9, b"x")]), no_key(&table));
        t.gets(update(&table, &[(b"one", 9, b"x"), (b"six", 5, b"6")]), no_key(&table));
        t.unchanged(&table, &before);
    }),
    form("UpdateTableEntries", "with one condition that fails: none is put", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        let entries: Entries<'_> =
            &[(b"new", ANY, b"n"), (b"one", 0, b"x"), (b"two", ABSENT, b"y"), (b"z", ANY, b"z")];
        t.gets(update(&table, entries), bad_version(&table));
        t.unchanged(&table, &before);
    }),
    form("UpdateTableEntries", "of a key with another negative version", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        for version in [-2, -3, i64::MIN + 1] {
            t.closes(update(&table, &[(b"one", version, b"x")]));
        }
        t.unchanged(&table, &before);
    }),
    form("UpdateTableEntries", "of one key several times: the last stays", |t| {
        let table = t.table(0);
        let entries: Entries<'_> =
            &[(b"k", ABSENT, b"1"), (b"k", ABSENT, b"2"), (b"k", ABSENT, b"3")];
        t.gets(update(&table, entries), is_updated(&[0, 19, 38]));
        t.gets(get(&table, &[b"k"]), is_got(&table, &[(b"k", 38, b"3")]));
        t.gets(table_info(&table), is_table_info(&table, 57, 1, 0));
        let entries: Entries<'_> = &[(b"k", 38, b"4"), (b"k", 38, b"5")];
        t.gets(update(&table, entries), is_updated(&[57, 76]));
    }),
    form("UpdateTableEntries", "of no entries", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(update(&table, &[]), is_updated(&[]));
        t.unchanged(&table, &before);
    }),
    form("UpdateTableEntries", "at the table's length", |t| {
        let table = t.table_of_two();
        t.gets(update_at(&table, &[(b"x", ANY, b"y")], 42), is_updated(&[42]));
        t.gets(update_at(&table, &[(b"x", ANY, b"y")], -9), is_updated(&[61]));
        t.gets(update_at(&table, &[(b"x", ANY, b"y")], i64::MIN), is_updated(&[80]));
    }),
    form("UpdateTableEntries", "at another length", |t| {
        for table in [t.table_of_two(), t.table(1)] {
            let before = t.look(&table);
            let Command::TableSegmentInfo(it) = t.ask_aside(table_info(&table)) else {
                panic!("no facts of a table")
            };
            for at in [it.length + 1, it.length + 1000, i64::MAX] {
                let request = update_at(&table, &[(b"x", ANY, b"y")], at);
                t.gets(request, truncated(&table, it.length, at));
            }
            t.unchanged(&table, &before);
        }
    }),
    form("UpdateTableEntries", "of an empty key", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(update(&table, &[(b"", ANY, b"x")]), illegal(&table, "a key is empty"));
        let with_a_good_one: Entries<'_> = &[(b"good", ANY, b"x"), (b"", ANY, b"x")];
        t.gets(update(&table, with_a_good_one), illegal(&table, "a key is empty"));
        t.unchanged(&table, &before);
    }),
    form("UpdateTableEntries", "of an empty key in the layout without a version", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.goes_on();
        t.send_bytes(&frame(74, &update_with_short_empty_key(&table)));
        t.hears(&illegal(&table, "a key is empty"));
        t.unchanged(&table, &before);
    }),
    form("UpdateTableEntries", "of the largest key, and over it", |t| {
        let table = t.table(0);
        let key = vec![b'k'; KEY_BYTES_MAX];
        t.gets(update(&table, &[(&key, ANY, b"v")]), is_updated(&[0]));
        t.gets(get(&table, &[&key]), is_got(&table, &[(&key, 0, b"v")]));
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        let message = "entry key of 8193 bytes is not within 1 and 8192";
        t.gets(update(&table, &[(&key, ANY, b"v")]), illegal(&table, message));
        t.gets(table_info(&table), is_table_info(&table, 8210, 1, 0));
    }),
    form("UpdateTableEntries", "of the largest entry, and over it", |t| {
        let table = t.table(0);
        let value = vec![b'v'; ENTRY_BYTES_MAX - 17 - 1];
        t.gets(update(&table, &[(b"k", ANY, &value)]), is_updated(&[0]));
        let larger = [&value[..], b"v"].concat();
        let message = "entry of 1048577 bytes is larger than 1048576";
        t.gets(update(&table, &[(b"k", ANY, &larger)]), illegal(&table, message));
        t.gets(get(&table, &[b"k"]), is_got(&table, &[(b"k", 0, &value)]));
    }),
    form("UpdateTableEntries", "with a key of another length than the fixed one", |t| {
        let table = t.table(4);
        let entries: Entries<'_> = &[(b"abcd", ANY, b"1"), (b"abc", ANY, b"2")];
        let message = "entry key of 3 bytes in a table with keys of 4";
        t.gets(update(&table, entries), illegal(&table, message));
        t.gets(table_info(&table), is_table_info(&table, 0, 0, 4));
    }),
    form("UpdateTableEntries", "with keys of fixed length: an absent key has a bad version", |t| {
        let table = t.table(4);
        t.gets(update(&table, &[(b"abcd", 3, b"1")]), bad_version(&table));
        t.gets(update(&table, &[(b"abcd", ABSENT, b"1")]), is_updated(&[0]));
        t.gets(update(&table, &[(b"abcd", 0, b"2")]), is_updated(&[22]));
    }),
    form("UpdateTableEntries", "of a missing table", |t| {
        let table = t.name();
        t.gets(update(&table, &[(b"k", ANY, b"v")]), missing(&table));
    }),
    form("UpdateTableEntries", "of a segment that is no table, sealed or not", |t| {
        let segment = t.holding(b"abc");
        let before = t.look(&segment);
        t.gets(update(&segment, &[(b"k", ANY, b"v")]), illegal(&segment, "not a table segment"));
        t.unchanged(&segment, &before);
        let segment = t.sealed(b"abc");
        t.gets(update(&segment, &[(b"k", ANY, b"v")]), sealed(&segment));
    }),
    form("UpdateTableEntries", "with counts and lengths that lie", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        let good = encoded(&[update(&table, &[(b"key", ANY, b"value")])])[8..].to_vec();
        let at = 8 + 2 + table.len() + 2;
        // Number of entries; total and length of the key; total and length of the value.
        for (place, right) in [(0, 1), (4, 15), (8, 3), (23, 9), (27, 5)] {
            let place = at + place;
            assert_eq!(good[place..place + 4], i32::to_be_bytes(right), "a length is here");
            for lie in [-1, i32::MIN, i32::MAX, 1 << 24, 1000] {
                let mut bad = good.clone();
                bad[place..place + 4].copy_from_slice(&i32::to_be_bytes(lie));
                t.send_bytes(&frame(74, &bad));
                t.hears_the_end();
            }
        }
        t.unchanged(&table, &before);
    }),
    form("RemoveTableKeys", "without conditions, present and absent", |t| {
        let table = t.table_of_two();
        t.gets(remove(&table, &[(b"one", ANY), (b"six", ANY)]), is_removed(&table));
        let left: Entries<'_> = &[(b"one", ABSENT, b""), (b"two", 21, b"2")];
        t.gets(get(&table, &[b"one", b"two"]), is_got(&table, left));
    }),
    form("RemoveTableKeys", "with the right version, and a wrong one", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(remove(&table, &[(b"one", 5)]), bad_version(&table));
        t.gets(remove(&table, &[(b"one", 0), (b"two", 5)]), bad_version(&table));
        t.unchanged(&table, &before);
        t.gets(remove(&table, &[(b"one", 0), (b"two", 21)]), is_removed(&table));
    }),
    form("RemoveTableKeys", "of a key with a version that does not exist", |t| {
        let table = t.table_of_two();
        t.gets(remove(&table, &[(b"one", 5), (b"six", 5)]), no_key(&table));
    }),
    form("RemoveTableKeys", "that must be absent", |t| {
        let table = t.table_of_two();
        t.gets(remove(&table, &[(b"six", ABSENT)]), is_removed(&table));
        t.gets(remove(&table, &[(b"one", ABSENT)]), bad_version(&table));
    }),
    form("RemoveTableKeys", "of a key twice", |t| {
        let table = t.table_of_two();
        t.gets(remove(&table, &[(b"one", 0), (b"one", 0)]), is_removed(&table));
        t.gets(get(&table, &[b"one"]), is_got(&table, &[(b"one", ABSENT, b"")]));
    }),
    form("RemoveTableKeys", "of no keys", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(remove(&table, &[]), is_removed(&table));
        t.unchanged(&table, &before);
    }),
    form("RemoveTableKeys", "at the table's length, and at another", |t| {
        let table = t.table_of_two();
        t.gets(remove_at(&table, &[(b"one", ANY)], 41), truncated(&table, 42, 41));
        t.gets(remove_at(&table, &[(b"one", ANY)], 42), is_removed(&table));
    }),
    form("RemoveTableKeys", "of an empty key, an oversize key, another negative version", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(remove(&table, &[(b"", ANY)]), illegal(&table, "a key is empty"));
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        let message = "key of 8193 bytes is not within 1 and 8192";
        t.gets(remove(&table, &[(&key, ANY)]), illegal(&table, message));
        t.closes(remove(&table, &[(b"one", -2)]));
        t.unchanged(&table, &before);
    }),
    form("RemoveTableKeys", "of a key of another length than the fixed one", |t| {
        let table = t.table(4);
        let message = "key of 5 bytes in a table with keys of 4";
        t.gets(remove(&table, &[(b"abcde", ANY)]), illegal(&table, message));
        t.gets(remove(&table, &[(b"abcd", 3)]), bad_version(&table));
    }),
    form("RemoveTableKeys", "of a missing table, and of a segment that is no table", |t| {
        let table = t.name();
        t.gets(remove(&table, &[(b"one", ANY)]), missing(&table));
        let segment = t.holding(b"abc");
        let before = t.look(&segment);
        t.gets(remove(&segment, &[(b"one", ANY)]), illegal(&segment, "not a table segment"));
        t.unchanged(&segment, &before);
    }),
];

/// The payload of a put whose only key is empty and has, as one family of clients writes it, no
/// version behind it.
fn update_with_short_empty_key(table: &str) -> Vec<u8> {
    let mut payload = ID.to_be_bytes().to_vec();
    payload.extend_from_slice(&u16::try_from(table.len()).expect("short").to_be_bytes());
    payload.extend_from_slice(table.as_bytes());
    payload.extend_from_slice(&[0, 0]);
    for number in [1, 12, 0, 5, 1] {
        payload.extend_from_slice(&i32::to_be_bytes(number));
    }
    payload.extend_from_slice(b"v");
    payload.extend_from_slice(&i64::to_be_bytes(-1));
    payload
}

pub(crate) const GETS: &[Form] = &[
    form("ReadTable", "of present and absent keys, in the order asked", |t| {
        let table = t.table_of_two();
        let found: Entries<'_> =
            &[(b"two", 21, b"2"), (b"six", ABSENT, b""), (b"one", 0, b"1"), (b"two", 21, b"2")];
        t.gets(get(&table, &[b"two", b"six", b"one", b"two"]), is_got(&table, found));
    }),
    form("ReadTable", "of no keys", |t| {
        let table = t.table_of_two();
        t.gets(get(&table, &[]), is_got(&table, &[]));
    }),
    form("ReadTable", "of an empty key", |t| {
        let table = t.table_of_two();
        t.gets(get(&table, &[b"one", b""]), illegal(&table, "a key is empty"));
    }),
    form("ReadTable", "of an oversize key, and of one of another length", |t| {
        let table = t.table_of_two();
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        let message = "key of 8193 bytes is not within 1 and 8192";
        t.gets(get(&table, &[&key]), illegal(&table, message));
        let table = t.table(4);
        let message = "key of 3 bytes in a table with keys of 4";
        t.gets(get(&table, &[b"abc"]), illegal(&table, message));
    }),
    form("ReadTable", "of more than a frame may hold", |t| {
        let table = t.table(0);
        let value = vec![b'v'; ENTRY_BYTES_MAX - 17 - 1];
        t.gets(update(&table, &[(b"k", ANY, &value)]), is_updated(&[0]));
        let many = vec![&b"k"[..]; 20];
        t.send(get(&table, &many));
        let heard = t.listen();
        let Command::ErrorMessage(it) = &heard else { panic!("{}", heard.name()) };
        assert_eq!(heard, illegal(&table, it.message.as_str()), "refused");
        t.goes_on();
    }),
    form("ReadTable", "of a missing table, and of a segment that is no table", |t| {
        let table = t.name();
        t.gets(get(&table, &[b"one"]), missing(&table));
        let segment = t.holding(b"abc");
        t.gets(get(&segment, &[b"one"]), illegal(&segment, "not a table segment"));
    }),
];

/// Asks for a page and gives its token.
pub(crate) fn token_of(t: &mut Desk, request: Command) -> Vec<u8> {
    t.send(request);
    match t.listen() {
        Command::TableKeysRead(page) => page.continuation_token.to_vec(),
        Command::TableEntriesRead(page) => page.continuation_token.to_vec(),
        other => panic!("{} instead of a page", other.name()),
    }
}
