//! Tests of tables: each rule of updates, removals and reads here; pages, formats and the
//! comparison with a model in the modules below.

mod formats;
mod model;
mod pages;

use bytes::Bytes;

use super::{ENTRY_MEMORY_BYTES, HISTORY_MEMORY_BYTES, Table, TableRefusal};
use crate::id::SegmentName;
use crate::limits::{TABLE_ENTRY_BYTES_MAX, TABLE_KEY_BYTES_MAX};
use crate::position::Offset;
use crate::request::{
    CloseReason, FoundEntry, Refusal, TableEntry, TableKey, VersionCondition,
    VersionCondition::{Absent, Any, Exactly},
};

/// A key with its condition.
fn key(key: &str, condition: VersionCondition) -> TableKey {
    TableKey { key: Bytes::copy_from_slice(key.as_bytes()), condition }
}

/// An entry to put.
fn entry(name: &str, value: &str, condition: VersionCondition) -> TableEntry {
    TableEntry { key: key(name, condition), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// An entry that is there.
fn found(key: &str, value: &str, version: i64) -> FoundEntry {
    FoundEntry {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        version,
    }
}

/// Checks and applies, as the engine does.
fn update(table: &mut Table, entries: &[TableEntry]) -> Result<Vec<i64>, TableRefusal> {
    table.check_update(entries, None)?;
    Ok(table.apply_update(entries))
}

/// Checks and applies, as the engine does.
fn remove(table: &mut Table, keys: &[TableKey]) -> Result<(), TableRefusal> {
    table.check_remove(keys, None)?;
    table.apply_remove(keys);
    Ok(())
}

fn get(table: &Table, name: &str) -> FoundEntry {
    table.get(&[key(name, Any).key]).expect("a legal key").remove(0)
}

fn is_illegal<T>(result: Result<T, TableRefusal>) -> bool {
    matches!(result, Err(TableRefusal::IllegalArgument(_)))
}

/// A version is where the entry lies in the log: 17 bytes, key and value after the one before.
#[test]
fn versions_are_offsets_and_begin_at_zero() {
    let mut table = Table::new(0);
    let versions = update(&mut table, &[entry("a", "one", Any), entry("bb", "", Any)]);
    assert_eq!(versions, Ok(vec![0, 21]));
    assert_eq!(table.length(), Offset(21 + 19));
    remove(&mut table, &[key("a", Any)]).expect("no condition");
    assert_eq!(table.length(), Offset(40 + 18), "a removal takes header and key");
    assert_eq!(update(&mut table, &[entry("a", "two", Absent)]), Ok(vec![58]));
    assert_eq!(get(&table, "a"), found("a", "two", 58));
}

/// A batch that names a key twice passes if each condition fits the state before; the last wins.
#[test]
fn conditions_see_the_state_before_the_batch_and_the_last_duplicate_stays() {
    let mut table = Table::new(0);
    let twice = [entry("k", "1", Absent), entry("other", "x", Absent), entry("k", "2", Absent)];
    let versions = update(&mut table, &twice).expect("absent before the batch");
    assert!(versions[0] < versions[1] && versions[1] < versions[2]);
    assert_eq!(get(&table, "k"), found("k", "2", versions[2]));
    assert_eq!(table.entry_count(), 2);
    let again = [entry("k", "3", Exactly(versions[2])), entry("k", "4", Exactly(versions[2]))];
    let newer = update(&mut table, &again).expect("both name the version before the batch");
    assert_eq!(get(&table, "k"), found("k", "4", newer[1]));
    assert_eq!(
        update(&mut table, &[entry("k", "5", Exactly(newer[0]))]),
        Err(TableRefusal::BadKeyVersion),
        "the version of an earlier duplicate is not valid"
    );
}

/// One absent key that had to exist decides the refusal, wherever it stands in the batch.
#[test]
fn an_absent_key_outranks_a_wrong_version() {
    let mut table = Table::new(0);
    update(&mut table, &[entry("a", "1", Any)]).expect("no condition");
    let cases = [
        (vec![entry("a", "2", Absent)], TableRefusal::BadKeyVersion),
        (vec![entry("a", "2", Exactly(7))], TableRefusal::BadKeyVersion),
        (vec![entry("b", "2", Exactly(0))], TableRefusal::KeyDoesNotExist),
        (vec![entry("a", "2", Absent), entry("b", "", Exactly(0))], TableRefusal::KeyDoesNotExist),
        (
            vec![entry("b", "", Exactly(0)), entry("a", "2", Exactly(9))],
            TableRefusal::KeyDoesNotExist,
        ),
        (vec![entry("new", "", Any), entry("a", "2", Absent)], TableRefusal::BadKeyVersion),
    ];
    for (batch, refusal) in cases {
        assert_eq!(update(&mut table, &batch), Err(refusal.clone()), "{batch:?}");
        let keys: Vec<TableKey> = batch.into_iter().map(|entry| entry.key).collect();
        assert_eq!(remove(&mut table, &keys), Err(refusal), "{keys:?}");
    }
    assert_eq!(table.length(), Offset(19), "refused batches leave no trace");
    assert_eq!(table.entry_count(), 1);
}

/// The fixed layout says a bad version also of a key that is absent.
#[test]
fn an_absent_key_of_fixed_length_has_a_bad_version() {
    let mut table = Table::new(2);
    let missing = Err(TableRefusal::BadKeyVersion);
    assert_eq!(update(&mut table, &[entry("kk", "", Exactly(0))]), missing);
    assert_eq!(table.check_remove(&[key("kk", Exactly(0))], None), missing.map(|_| ()));
    assert_eq!(update(&mut table, &[entry("kk", "12345678", Absent)]), Ok(vec![0]));
    assert_eq!(update(&mut table, &[entry("kk", "", Exactly(0))]), Ok(vec![27]));
}

/// Removing what is not there is no mistake, with no condition and with the one that says so.
#[test]
fn absent_keys_may_be_removed_and_keys_named_twice() {
    let mut table = Table::new(0);
    assert_eq!(remove(&mut table, &[key("a", Any), key("a", Absent)]), Ok(()));
    let versions = update(&mut table, &[entry("a", "1", Any)]).expect("no condition");
    assert_eq!(remove(&mut table, &[key("a", Absent)]), Err(TableRefusal::BadKeyVersion));
    let twice = [key("a", Exactly(versions[0])), key("a", Exactly(versions[0]))];
    assert_eq!(remove(&mut table, &twice), Ok(()));
    assert!(table.is_empty());
    assert_eq!(get(&table, "a"), found("a", "", -1));
}

/// Sizes are judged at their bounds and nothing of a batch with an illegal entry is applied.
#[test]
fn keys_and_entries_beyond_their_bounds_are_illegal() {
    let table = Table::new(0);
    let sized = |key_bytes: usize, value_bytes: usize| {
        let key = TableKey { key: vec![1; key_bytes].into(), condition: Any };
        TableEntry { key, value: vec![2; value_bytes].into() }
    };
    let value_max = TABLE_ENTRY_BYTES_MAX - 17 - TABLE_KEY_BYTES_MAX;
    let legal = sized(TABLE_KEY_BYTES_MAX, value_max);
    assert_eq!(table.check_update(std::slice::from_ref(&legal), None), Ok(()));
    for illegal in
        [sized(0, 1), sized(TABLE_KEY_BYTES_MAX + 1, 0), sized(TABLE_KEY_BYTES_MAX, value_max + 1)]
    {
        assert!(is_illegal(table.check_update(&[legal.clone(), illegal], None)));
    }
    for key_bytes in [0, TABLE_KEY_BYTES_MAX + 1] {
        let illegal = sized(key_bytes, 0).key;
        assert!(is_illegal(table.check_remove(std::slice::from_ref(&illegal), None)));
        assert!(is_illegal(table.get(&[illegal.key])));
    }
    assert_eq!(table.check_update(&vec![legal.clone(); 32], None), Ok(()));
    assert!(is_illegal(table.check_update(&vec![legal; 33], None)), "a batch has 32 MiB at most");
}

/// Keys of another length than the table's are illegal in every request.
#[test]
fn keys_of_another_length_than_the_fixed_one_are_illegal() {
    let table = Table::new(3);
    for name in ["", "ab", "abcd"] {
        assert!(is_illegal(table.check_update(&[entry(name, "", Any)], None)));
        assert!(is_illegal(table.check_remove(&[key(name, Any)], None)));
        assert!(is_illegal(table.get(&[key(name, Any).key])));
    }
    assert_eq!(table.check_update(&[entry("abc", "", Any)], None), Ok(()));
    assert_eq!(Table::new(256).key_length(), 256);
}

/// The length condition holds for the length before the batch, in both layouts, and for empty
/// batches too.
#[test]
fn another_length_than_required_is_refused() {
    for key_length in [0, 1] {
        let mut table = Table::new(key_length);
        let batch = [entry("a", "", Any)];
        assert_eq!(table.check_update(&batch, Some(Offset(0))), Ok(()));
        table.apply_update(&batch);
        let refusal = TableRefusal::OtherLength { length: Offset(18), expected: Offset(5) };
        assert_eq!(table.check_update(&batch, Some(Offset(5))), Err(refusal.clone()));
        assert_eq!(table.check_remove(&[key("a", Any)], Some(Offset(5))), Err(refusal.clone()));
        assert_eq!(table.check_update(&[], Some(Offset(5))), Err(refusal));
        assert_eq!(table.check_remove(&[key("a", Any)], Some(Offset(18))), Ok(()));
    }
}

/// An empty batch succeeds and changes nothing.
#[test]
fn an_empty_batch_succeeds() {
    let mut table = Table::new(0);
    assert_eq!(update(&mut table, &[]), Ok(vec![]));
    assert_eq!(remove(&mut table, &[]), Ok(()));
    assert_eq!(table.length(), Offset(0));
}

/// Each key is answered in its place, absent ones with version −1, repeated ones again.
#[test]
fn get_answers_each_key_in_order() {
    let mut table = Table::new(0);
    update(&mut table, &[entry("a", "1", Any), entry("b", "", Any)]).expect("no condition");
    let keys: Vec<Bytes> = ["b", "x", "a", "b"].map(|name| key(name, Any).key).to_vec();
    let expected = [found("b", "", 19), found("x", "", -1), found("a", "1", 0), found("b", "", 19)];
    assert_eq!(table.get(&keys), Ok(expected.to_vec()));
    assert_eq!(table.get(&[]), Ok(vec![]));
}

/// A reply that no client takes is refused: repeated keys of a large value pass 16 MiB.
#[test]
fn get_refuses_replies_beyond_a_wire_frame() {
    let mut table = Table::new(0);
    let large = "v".repeat(1_000_000);
    update(&mut table, &[entry("large", &large, Any)]).expect("no condition");
    let keys = vec![key("large", Any).key; 17];
    assert!(is_illegal(table.get(&keys)));
    assert_eq!(table.get(&keys[..16]).map(|entries| entries.len()), Ok(16));
}

/// Values are copies: the table does not keep the request's buffer alive, and replies outlive
/// changes of the table.
#[test]
fn values_do_not_share_the_request_buffer() {
    let mut table = Table::new(0);
    let buffer = Bytes::from(b"keyvalue".to_vec());
    let entry = TableEntry {
        key: TableKey { key: buffer.slice(..3), condition: Any },
        value: buffer.slice(3..),
    };
    table.apply_update(&[entry]);
    assert!(buffer.is_unique());
    let reply = get(&table, "key");
    remove(&mut table, &[key("key", Any)]).expect("no condition");
    assert_eq!(reply, found("key", "value", 0));
}

/// Memory is counted for live entries only, and less without a history.
#[test]
fn memory_is_counted_for_live_entries() {
    for (key_length, overhead) in
        [(0, ENTRY_MEMORY_BYTES + HISTORY_MEMORY_BYTES), (1, ENTRY_MEMORY_BYTES)]
    {
        let mut table = Table::new(key_length);
        let batch = [entry("a", "123", Any), entry("a", "12", Any), entry("b", "", Any)];
        table.apply_update(&batch);
        assert_eq!(table.memory_bytes(), 2 * overhead + 3 + 1);
        let names = if key_length == 0 { vec!["a", "b", "absent"] } else { vec!["a", "b", "c"] };
        let keys: Vec<TableKey> = names.into_iter().map(|name| key(name, Any)).collect();
        table.apply_remove(&keys);
        assert_eq!(table.memory_bytes(), 0);
    }
}

/// Every refusal has its reply, but the one that has none closes the connection.
#[test]
fn refusals_name_the_segment() {
    let segment = SegmentName::from("scope/table_kvtable/0.#epoch.0");
    let lengths = TableRefusal::OtherLength { length: Offset(18), expected: Offset(5) };
    let expected =
        Refusal::SegmentTruncated { segment: segment.clone(), start_offset: Offset(18), offset: 5 };
    assert_eq!(lengths.for_segment(&segment), Ok(expected));
    assert_eq!(
        TableRefusal::BadKeyVersion.for_segment(&segment),
        Ok(Refusal::BadKeyVersion { segment: segment.clone() })
    );
    assert_eq!(TableRefusal::Protocol.for_segment(&segment), Err(CloseReason::Protocol));
}
