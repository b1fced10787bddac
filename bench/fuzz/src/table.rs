//! Recorded changes of tables, and their snapshots.

use bytes::{Bytes, BytesMut};
use thalweg_core::request::{TableEntry, TableKey, VersionCondition};
use thalweg_core::table::Table;
use thalweg_core::table::operation::{decode_remove, decode_update};

fn sample() -> (Table, Vec<TableEntry>) {
    let entry = |number: u8| TableEntry {
        key: TableKey {
            key: Bytes::from(vec![number; 1 + usize::from(number)]),
            condition: VersionCondition::Any,
        },
        value: Bytes::from(vec![number; 3]),
    };
    let entries: Vec<TableEntry> = (0..5).map(entry).collect();
    let mut table = Table::new(0);
    table.apply_update(&entries);
    (table, entries)
}

/// An update, a removal, a snapshot, each behind the byte that says which.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (table, entries) = sample();
    let keys: Vec<TableKey> = entries.iter().map(|entry| entry.key.clone()).collect();
    let mut bodies = [BytesMut::from(&[0][..]), BytesMut::from(&[1][..]), BytesMut::from(&[2][..])];
    Table::new(0).encode_update(&entries, &mut bodies[0]);
    table.encode_remove(&keys, &mut bodies[1]);
    table.encode_snapshot(&mut bodies[2]);
    bodies.iter().map(|body| body.to_vec()).collect()
}

/// Whatever decodes is written back as the same bytes; whatever applies leaves a table whose
/// snapshot gives the same table.
pub(crate) fn bodies(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else { return };
    let mut body = Bytes::copy_from_slice(body);
    let (mut table, _) = sample();
    match kind % 3 {
        0 => {
            let Ok(update) = decode_update(body.clone()) else { return };
            let mut base = Table::new(u16::from(kind / 3 % 8));
            if base.replay_update(&update).is_ok() {
                let mut again = BytesMut::new();
                Table::new(base.key_length()).encode_update(&update.entries, &mut again);
                assert_eq!(again, body);
                snapshot_keeps(&base);
            }
            let _ = table.replay_update(&update);
        }
        1 => {
            let Ok(remove) = decode_remove(body.clone()) else { return };
            let mut again = BytesMut::new();
            table.encode_remove(&remove.keys, &mut again);
            if table.replay_remove(&remove).is_ok() {
                assert_eq!(again, body);
            }
        }
        _ => {
            let given = body.clone();
            let Ok(read) = Table::decode_snapshot(&mut body) else { return };
            let mut again = BytesMut::new();
            read.encode_snapshot(&mut again);
            assert_eq!(again, given[..given.len() - body.len()]);
            snapshot_keeps(&read);
        }
    }
    snapshot_keeps(&table);
}

fn snapshot_keeps(table: &Table) {
    let mut snapshot = BytesMut::new();
    table.encode_snapshot(&mut snapshot);
    assert_eq!(snapshot.len(), table.snapshot_bytes());
    let mut bytes = snapshot.freeze();
    let read = Table::decode_snapshot(&mut bytes).expect("what we wrote");
    assert!(bytes.is_empty());
    assert_eq!((read.length(), read.entry_count()), (table.length(), table.entry_count()));
}
