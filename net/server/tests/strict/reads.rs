//! Reads, at once and parked.

use thalweg_wire::{Command, KeepAlive};

use crate::desk::{Form, form};
use crate::words::*;

pub(crate) const READS: &[Form] = &[
    form("ReadSegment", "of exactly what is there", |t| {
        let segment = t.holding(b"0123456789");
        t.gets(read(&segment, 0, 10), is_read(&segment, 0, b"0123456789", End::Tail));
    }),
    form("ReadSegment", "of a part", |t| {
        let segment = t.holding(b"0123456789abcdef");
        t.gets(read(&segment, 3, 9), is_read(&segment, 3, b"3456789ab", End::Before));
    }),
    form("ReadSegment", "of more than is there", |t| {
        let segment = t.holding(b"0123456789");
        t.gets(read(&segment, 7, 1000), is_read(&segment, 7, b"789", End::Tail));
    }),
    form("ReadSegment", "of no bytes, of few, of fewer than none: eight are read", |t| {
        let segment = t.holding(b"0123456789abcdef");
        for length in [0, 1, 7, 8, -1, i32::MIN] {
            t.gets(read(&segment, 2, length), is_read(&segment, 2, b"23456789", End::Before));
        }
    }),
    form("ReadSegment", "of more than one reply may hold", |t| {
        let data: Vec<u8> = (0..3_u32 << 20).map(|at| (at % 251) as u8).collect();
        let segment = t.holding(&data);
        for length in [2 << 20, (2 << 20) + 1, i32::MAX] {
            t.send(read(&segment, 1, length));
            let heard = t.listen();
            let Command::SegmentRead(it) = &heard else { panic!("{heard:?}") };
            let size = it.data.len();
            assert!(size > 0 && size <= 2 << 20, "{size} bytes");
            assert_eq!(heard, is_read(&segment, 1, &data[1..1 + size], End::Before), "read");
        }
    }),
    form("ReadSegment", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(read(&segment, 5, 10), missing_at(&segment, 5));
        t.goes_on();
    }),
    form("ReadSegment", "of a table", |t| {
        let table = t.table_of_two();
        t.gets(read(&table, 0, 10), unsupported("readSegment"));
    }),
    form("ReadSegment", "at a negative offset", |t| {
        let segment = t.holding(b"0123456789");
        t.closes(read(&segment, -1, 10));
        t.closes(read(&segment, i64::MIN, 10));
    }),
    form("ReadSegment", "below the start", |t| {
        let segment = t.truncated(b"0123456789", 4);
        t.gets(read(&segment, 0, 10), truncated(&segment, 4, 0));
        t.gets(read(&segment, 3, 10), truncated(&segment, 4, 3));
        t.gets(read(&segment, 4, 10), is_read(&segment, 4, b"456789", End::Tail));
    }),
    form("ReadSegment", "of a sealed segment, to the end and beyond", |t| {
        let segment = t.sealed(b"0123456789");
        t.gets(read(&segment, 0, 8), is_read(&segment, 0, b"01234567", End::Before));
        t.gets(read(&segment, 0, 10), is_read(&segment, 0, b"0123456789", End::Tail));
        t.gets(read(&segment, 0, 11), is_read(&segment, 0, b"0123456789", End::Final));
        t.gets(read(&segment, 9, 100), is_read(&segment, 9, b"9", End::Final));
        t.gets(read(&segment, 10, 100), is_read(&segment, 10, b"", End::Final));
    }),
    form("ReadSegment", "of a sealed segment, behind the end", |t| {
        let segment = t.sealed(b"0123456789");
        t.closes(read(&segment, 11, 10));
        t.closes(read(&segment, i64::MAX, 10));
    }),
    form("ReadSegment", "of a sealed segment, below its start and at its start", |t| {
        let segment = t.sealed(b"0123456789");
        t.aside(truncate(&segment, 10), is_truncated(&segment));
        t.gets(read(&segment, 9, 10), truncated(&segment, 10, 9));
        t.gets(read(&segment, 10, 10), is_read(&segment, 10, b"", End::Final));
    }),
    form("ReadSegment", "of an empty sealed segment", |t| {
        let segment = t.empty();
        t.aside(seal(&segment), is_sealed(&segment));
        t.gets(read(&segment, 0, 10), is_read(&segment, 0, b"", End::Final));
    }),
    form("ReadSegment", "of a deleted segment", |t| {
        let segment = t.holding(b"0123456789");
        t.aside(delete(&segment), is_deleted(&segment));
        t.gets(read(&segment, 0, 10), missing_at(&segment, 0));
    }),
    form("ReadSegment", "of a segment made anew: nothing of the old one", |t| {
        let segment = t.holding(b"0123456789");
        t.aside(delete(&segment), is_deleted(&segment));
        t.aside(create(&segment), is_created(&segment));
        t.fill(&segment, b"new");
        t.gets(read(&segment, 0, 10), is_read(&segment, 0, b"new", End::Tail));
    }),
    form("ReadSegment", "many at once with one id, each answered at its offset", |t| {
        let segment = t.holding(b"0123456789abcdef");
        for offset in 0..8 {
            t.send(read(&segment, offset, 8));
        }
        for offset in 0..8_usize {
            let at = i64::try_from(offset).expect("small");
            let data = &b"0123456789abcdef"[offset..offset + 8];
            t.hears(&is_read(&segment, at, data, End::Before));
        }
    }),
];

pub(crate) const PARKED: &[Form] = &[
    form("ReadSegment", "parked at the tail, woken by data", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 4, 100));
        t.gets(KeepAlive.into(), KeepAlive.into());
        t.goes_on();
        t.fill(&segment, b"abc");
        t.hears(&is_read(&segment, 4, b"abc", End::Tail));
    }),
    form("ReadSegment", "parked at the start of an empty segment", |t| {
        let segment = t.empty();
        t.send(read(&segment, 0, 100));
        t.goes_on();
        t.fill(&segment, b"abc");
        t.hears(&is_read(&segment, 0, b"abc", End::Tail));
    }),
    form("ReadSegment", "parked behind the tail, until there are bytes at its offset", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 6, 100));
        t.goes_on();
        t.fill(&segment, b"45");
        t.goes_on();
        t.fill(&segment, b"6");
        t.hears(&is_read(&segment, 6, b"6", End::Tail));
    }),
    form("ReadSegment", "parked at the tail, woken by a seal", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 4, 100));
        t.goes_on();
        t.aside(seal(&segment), is_sealed(&segment));
        t.hears(&is_read(&segment, 4, b"", End::Final));
    }),
    form("ReadSegment", "parked behind the tail, woken by a seal", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 6, 100));
        t.goes_on();
        t.aside(seal(&segment), is_sealed(&segment));
        t.hears(&sealed_at(&segment, 6));
        t.goes_on();
    }),
    form("ReadSegment", "parked at the tail, which is truncated", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 4, 100));
        t.goes_on();
        t.aside(truncate(&segment, 4), is_truncated(&segment));
        // The tail is not below the start: it is parked on.
        t.goes_on();
        t.fill(&segment, b"abc");
        t.hears(&is_read(&segment, 4, b"abc", End::Tail));
    }),
    form("ReadSegment", "parked at the tail, woken by a deletion", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 4, 100));
        t.send(read(&segment, 7, 100));
        t.goes_on();
        t.aside(delete(&segment), is_deleted(&segment));
        t.hears(&is_read(&segment, 4, b"", End::Tail));
        t.hears(&is_read(&segment, 7, b"", End::Tail));
        t.goes_on();
    }),
    form("ReadSegment", "parked at the tail of a target, woken by a merge", |t| {
        let (target, source) = (t.holding(b"0123"), t.holding(b"abc"));
        t.send(read(&target, 4, 100));
        t.goes_on();
        t.aside(merge(&target, &source), is_merged(&target, &source, 7));
        t.hears(&is_read(&target, 4, b"abc", End::Tail));
    }),
    form("ReadSegment", "parked at the tail of a source, woken by a merge", |t| {
        let (target, source) = (t.holding(b"0123"), t.holding(b"abc"));
        t.send(read(&source, 3, 100));
        t.send(read(&source, 5, 100));
        t.goes_on();
        t.aside(merge(&target, &source), is_merged(&target, &source, 7));
        t.hears(&is_read(&source, 3, b"", End::Final));
        t.hears(&sealed_at(&source, 5));
        t.goes_on();
    }),
    form("ReadSegment", "parked many times on one segment", |t| {
        let segment = t.holding(b"0123");
        for _ in 0..20 {
            t.send(read(&segment, 4, 100));
        }
        t.goes_on();
        t.fill(&segment, b"abc");
        for _ in 0..20 {
            t.hears(&is_read(&segment, 4, b"abc", End::Tail));
        }
        t.goes_on();
    }),
    form("ReadSegment", "parked on a connection that ends", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 4, 100));
        t.goes_on();
        t.hang_up();
        t.fill(&segment, b"abc");
        t.gets(read(&segment, 4, 100), is_read(&segment, 4, b"abc", End::Tail));
    }),
    form("ReadSegment", "parked, while its connection appends to the same segment", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(read(&segment, 0, 100));
        t.send(append(ANNA, b"abc", 1, 1));
        let mut heard = [t.listen(), t.listen()];
        heard.sort_by_key(Command::code);
        let expected = [appended(ANNA, 1, UNSET, 3), is_read(&segment, 0, b"abc", End::Tail)];
        assert_eq!(heard, expected, "both, in either order");
    }),
    form("ReadSegment", "at the tail before an append of no bytes: parked on", |t| {
        let segment = t.holding(b"0123");
        t.send(read(&segment, 4, 100));
        t.goes_on();
        t.fill(&segment, b"");
        t.goes_on();
        t.fill(&segment, b"abc");
        t.hears(&is_read(&segment, 4, b"abc", End::Tail));
    }),
];
