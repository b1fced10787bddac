//! Bodies of operations and snapshots: their bytes, their round trips, and damage.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::Table;
use super::super::operation::{decode_remove, decode_update, remove_body_bytes, update_body_bytes};
use super::{entry, get, key};
use crate::fault::FaultClass;
use crate::position::Offset;
use crate::request::VersionCondition::{Absent, Any, Exactly};

/// A table with a past: superseded, removed and live entries.
fn lived_in(key_length: u16) -> Table {
    let mut table = Table::new(key_length);
    table.apply_update(&[entry("bb", "1", Any), entry("aa", "", Any), entry("bb", "22", Any)]);
    table.apply_remove(&[key("aa", Any), key("xx", Any)]);
    table.apply_update(&[entry("cc", "333", Any)]);
    table
}

fn snapshot(table: &Table) -> Bytes {
    let mut out = BytesMut::new();
    table.encode_snapshot(&mut out);
    assert_eq!(out.len(), table.snapshot_bytes());
    out.freeze()
}

/// The bytes of each body are those of the tables in the documentation.
#[test]
fn bodies_and_snapshots_have_the_documented_bytes() {
    let mut table = Table::new(0);
    let mut out = BytesMut::new();
    let update = [entry("ab", "xyz", Exactly(5)), entry("c", "", Absent)];
    table.encode_update(&update, &mut out);
    let expected = b"\0\0\0\0\0\0\0\0\x02\0\0\0\x02\0\x03\0\0\0abxyz\x01\0\0\0\0\0c";
    assert_eq!(out.as_ref(), expected);
    assert_eq!(out.len(), update_body_bytes(&update));
    table.apply_update(&update);

    out.clear();
    let keys = [key("ab", Any)];
    table.encode_remove(&keys, &mut out);
    assert_eq!(out.as_ref(), b"\x28\0\0\0\0\0\0\0\x01\0\0\0\x02\0ab");
    assert_eq!(out.len(), remove_body_bytes(&keys));
    table.apply_remove(&keys);

    let expected = b"\0\0\x3B\0\0\0\0\0\0\0\x01\0\0\0\x16\0\0\0\0\0\0\0\x01\0\0\0\0\0c";
    assert_eq!(snapshot(&table).as_ref(), expected);
}

/// Replaying bodies gives the same entries, versions and length, and takes no second application.
#[test]
fn replay_arrives_at_the_same_versions() {
    let mut table = lived_in(0);
    let mut replica = lived_in(0);
    let (mut update_body, mut remove_body) = (BytesMut::new(), BytesMut::new());
    let update = [entry("dd", "1", Absent), entry("dd", "2", Absent)];
    table.encode_update(&update, &mut update_body);
    let versions = table.apply_update(&update);
    table.encode_remove(&[key("bb", Any)], &mut remove_body);
    table.apply_remove(&[key("bb", Any)]);

    let update = decode_update(update_body.freeze()).expect("our own body");
    let remove = decode_remove(remove_body.freeze()).expect("our own body");
    let early = replica.replay_remove(&remove).expect_err("the update is missing");
    assert_eq!(early.class, FaultClass::Corrupt);
    replica.replay_update(&update).expect("next in order");
    assert_eq!(
        replica.replay_update(&update).map_err(|fault| fault.class),
        Err(FaultClass::Corrupt)
    );
    assert_eq!(get(&replica, "dd").version, versions[1]);
    replica.replay_remove(&remove).expect("next in order");
    assert_eq!(snapshot(&replica), snapshot(&table));
}

/// A body that this table would have refused is corruption and changes nothing.
#[test]
fn bodies_for_another_layout_are_corrupt() {
    let mut body = BytesMut::new();
    Table::new(0).encode_update(&[entry("abc", "1", Any)], &mut body);
    let update = decode_update(body.freeze()).expect("our own body");
    let mut fixed = Table::new(2);
    assert_eq!(fixed.replay_update(&update).map_err(|fault| fault.class), Err(FaultClass::Corrupt));
    assert_eq!((fixed.length(), fixed.entry_count()), (Offset(0), 0));
}

/// A decoded table is the same in all that can be asked, and the bytes behind it stay.
#[test]
fn snapshots_keep_versions_length_and_memory() {
    for key_length in [0, 2] {
        let table = lived_in(key_length);
        let mut bytes = BytesMut::from(snapshot(&table).as_ref());
        bytes.extend_from_slice(b"next");
        let mut bytes = bytes.freeze();
        let copy = Table::decode_snapshot(&mut bytes).expect("our own snapshot");
        assert_eq!(bytes.as_ref(), b"next");
        assert_eq!(snapshot(&copy), snapshot(&table));
        assert_eq!(copy.memory_bytes(), table.memory_bytes());
        assert_eq!(copy.delta(0, 10), table.delta(0, 10));
        assert_eq!(copy.key_length(), key_length);
        assert_eq!(copy.length(), table.length());
    }
}

/// Each way in which a snapshot can be no table is found.
#[test]
fn impossible_snapshots_are_corrupt() {
    // Header: key length 0, log of 36 bytes, two entries "a" and "b" without values.
    let build = |key_length: u8, length: u8, entries: [(u8, u8); 2]| {
        let mut bytes = vec![key_length, 0, length, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        for (version, key) in entries {
            bytes.extend([version, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, key]);
        }
        Table::decode_snapshot(&mut Bytes::from(bytes)).map_err(|fault| fault.class)
    };
    assert!(build(0, 36, [(18, b'a'), (0, b'b')]).is_ok());
    assert!(build(1, 36, [(18, b'a'), (0, b'b')]).is_ok());
    let wrong = [
        (2, 36, [(18, b'a'), (0, b'b')]),
        (0, 35, [(18, b'a'), (0, b'b')]),
        (0, 36, [(18, b'b'), (0, b'a')]),
        (0, 36, [(18, b'a'), (0, b'a')]),
        (0, 36, [(18, b'a'), (18, b'b')]),
        (1, 36, [(17, b'a'), (0, b'b')]),
    ];
    for (key_length, length, entries) in wrong {
        let result = build(key_length, length, entries).map(|_| ());
        assert_eq!(result, Err(FaultClass::Corrupt), "{key_length} {length} {entries:?}");
    }
}

proptest! {
    /// Any bytes decode to a value or a fault.
    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let bytes = Bytes::from(bytes);
        let _ = decode_update(bytes.clone());
        let _ = decode_remove(bytes.clone());
        let _ = Table::decode_snapshot(&mut bytes.clone());
    }

    /// Damaged forms of real bodies and snapshots neither panic nor, when cut, decode; replay of
    /// what decodes does not panic.
    #[test]
    fn damage_never_panics(
        cut in 0..200_usize,
        flips in prop::collection::vec((0..200_usize, any::<u8>()), 0..4),
        key_length in prop::sample::select(vec![0_u16, 2]),
    ) {
        let mut table = lived_in(key_length);
        let (mut update, mut remove) = (BytesMut::new(), BytesMut::new());
        table.encode_update(&[entry("aa", "value", Any), entry("zz", "", Any)], &mut update);
        table.encode_remove(&[key("aa", Any), key("zz", Any)], &mut remove);
        let snapshot = snapshot(&table);
        let damage = |whole: &[u8]| {
            let mut bytes = whole[..whole.len() - cut % whole.len()].to_vec();
            for &(place, mask) in &flips {
                let place = place % bytes.len();
                bytes[place] ^= mask;
            }
            Bytes::from(bytes)
        };
        let is_cut_only = flips.is_empty();
        let decoded = decode_update(damage(&update));
        prop_assert!(!is_cut_only || decoded.is_ok() == (cut % update.len() == 0));
        if let Ok(decoded) = decoded {
            let _ = table.replay_update(&decoded);
        }
        let decoded = decode_remove(damage(&remove));
        prop_assert!(!is_cut_only || decoded.is_ok() == (cut % remove.len() == 0));
        if let Ok(decoded) = decoded {
            let _ = table.replay_remove(&decoded);
        }
        let decoded = Table::decode_snapshot(&mut damage(&snapshot));
        prop_assert!(!is_cut_only || decoded.is_ok() == (cut % snapshot.len() == 0));
        if let Ok(mut decoded) = decoded {
            decoded.apply_update(&[entry("kk", "value", Any)]);
            prop_assert!(decoded.delta(0, 100).is_ok() == (decoded.key_length() == 0));
        }
    }
}
