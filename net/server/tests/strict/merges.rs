//! Merges of one segment and of many.

use crate::desk::{Form, form};
use crate::words::*;
use thalweg_crash::store::EVENT_COUNT;

/// Attributes that nobody defines.
const MARK: u128 = 0x5;
const OTHER: u128 = 0x6;

pub(crate) const MERGES: &[Form] = &[
    form("MergeSegments", "of a segment with content", |t| {
        let (target, source) = (t.holding(b"abc"), t.holding(b"defg"));
        t.gets(merge(&target, &source), is_merged(&target, &source, 7));
        t.holds(&target, b"abcdefg");
        t.gets(info(&source), missing(&source));
        t.gets(attribute(&target, EVENT_COUNT), is_attribute(2));
    }),
    form("MergeSegments", "of a sealed segment", |t| {
        let (target, source) = (t.holding(b"abc"), t.sealed(b"defg"));
        t.gets(merge(&target, &source), is_merged(&target, &source, 7));
    }),
    form("MergeSegments", "of an empty segment: it is deleted", |t| {
        let (target, source) = (t.holding(b"abc"), t.empty());
        t.gets(merge(&target, &source), is_merged(&target, &source, 3));
        t.gets(info(&source), missing(&source));
    }),
    form("MergeSegments", "again", |t| {
        let (target, source) = (t.holding(b"abc"), t.holding(b"defg"));
        t.gets(merge(&target, &source), is_merged(&target, &source, 7));
        t.gets(merge(&target, &source), missing(&source));
        t.holds(&target, b"abcdefg");
    }),
    form("MergeSegments", "of a missing segment", |t| {
        let (target, source) = (t.holding(b"abc"), t.name());
        let before = t.look(&target);
        t.gets(merge(&target, &source), missing(&source));
        t.unchanged(&target, &before);
    }),
    form("MergeSegments", "into a missing segment: the source is named, and sealed", |t| {
        let (target, source) = (t.name(), t.holding(b"defg"));
        t.gets(merge(&target, &source), missing(&source));
        t.gets(info(&source), is_info(&source, true, 4, 0));
        t.holds(&source, b"defg");
    }),
    form("MergeSegments", "into a sealed segment: the source is named", |t| {
        let (target, source) = (t.sealed(b"abc"), t.holding(b"defg"));
        let before = t.look(&target);
        t.gets(merge(&target, &source), sealed(&source));
        t.unchanged(&target, &before);
        t.gets(info(&source), is_info(&source, true, 4, 0));
    }),
    form("MergeSegments", "into itself", |t| {
        let segment = t.holding(b"abc");
        t.gets(merge(&segment, &segment), sealed(&segment));
        t.holds(&segment, b"abc");
    }),
    form("MergeSegments", "of a truncated segment", |t| {
        let (target, source) = (t.holding(b"abc"), t.truncated(b"defg", 2));
        let before = t.look(&target);
        t.closes(merge(&target, &source));
        t.unchanged(&target, &before);
        t.gets(info(&source), is_info(&source, true, 4, 2));
    }),
    form("MergeSegments", "into a truncated segment", |t| {
        let (target, source) = (t.truncated(b"abc", 3), t.holding(b"defg"));
        t.gets(merge(&target, &source), is_merged(&target, &source, 7));
        t.holds(&target, b"defg");
    }),
    form("MergeSegments", "of a table, or into one", |t| {
        let (segment, table) = (t.holding(b"abc"), t.table_of_two());
        let (before, table_before) = (t.look(&segment), t.look(&table));
        t.gets(merge(&segment, &table), unsupported("mergeSegments"));
        t.gets(merge(&table, &segment), unsupported("mergeSegments"));
        t.unchanged(&segment, &before);
        t.unchanged(&table, &table_before);
    }),
    form("MergeSegments", "with updates of attributes, of all types", |t| {
        let (target, source) = (t.holding(b"abc"), t.holding(b"d"));
        let updates: &[_] = &[(MARK, 0, 5, 0), (OTHER, 1, 7, 0)];
        t.gets(merge_with(&target, &source, updates), is_merged(&target, &source, 4));
        let source = t.holding(b"e");
        let updates: &[_] = &[(MARK, 2, 6, 0), (OTHER, 3, 3, 0)];
        t.gets(merge_with(&target, &source, updates), is_merged(&target, &source, 5));
        t.gets(attribute(&target, MARK), is_attribute(6));
        t.gets(attribute(&target, OTHER), is_attribute(10));
        let source = t.holding(b"f");
        let updates: &[_] = &[(MARK, 4, 9, 6)];
        t.gets(merge_with(&target, &source, updates), is_merged(&target, &source, 6));
        t.gets(attribute(&target, MARK), is_attribute(9));
        t.holds(&target, b"abcdef");
    }),
    form("MergeSegments", "with an update that is not as expected: only the seal remains", |t| {
        let (target, source) = (t.holding(b"abc"), t.holding(b"defg"));
        let before = t.look(&target);
        // The first would do, the second does not: none is carried out.
        for bad in [(OTHER, 4, 9, 6), (EVENT_COUNT, 0, 9, 0), (EVENT_COUNT, 2, 1, 0)] {
            let updates: &[_] = &[(MARK, 1, 5, 0), bad];
            t.gets(merge_with(&target, &source, updates), is_attribute_updated(false));
        }
        t.unchanged(&target, &before);
        t.gets(attribute(&target, MARK), is_attribute(UNSET));
        t.gets(info(&source), is_info(&source, true, 4, 0));
    }),
    form("MergeSegments", "with an update of unknown type", |t| {
        let (target, source) = (t.holding(b"abc"), t.holding(b"defg"));
        let (before, source_before) = (t.look(&target), t.look(&source));
        for update_type in [-1, 5, i8::MAX, i8::MIN] {
            t.closes(merge_with(&target, &source, &[(MARK, update_type, 5, 0)]));
        }
        t.unchanged(&target, &before);
        t.unchanged(&source, &source_before);
    }),
    form("MergeSegments", "of a segment that lives elsewhere", |t| {
        let (target, source) = (t.holding(b"abc"), t.apart(b"de"));
        t.gets(merge(&target, &source), illegal(&source, APART));
        t.holds(&target, b"abc");
        t.gets(info(&source), is_info(&source, false, 2, 0));
    }),
    form("MergeSegments", "behind appends that are under way", |t| {
        let (target, source) = (t.holding(b"abc"), t.empty());
        t.sets_up(&source, ANNA);
        t.send(append(ANNA, b"de", 1, 1));
        t.send(merge(&target, &source));
        t.send(append(ANNA, b"fg", 1, 2));
        t.hears(&appended(ANNA, 1, UNSET, 2));
        t.hears(&is_merged(&target, &source, 5));
        t.hears(&missing(&source));
        t.holds(&target, b"abcde");
    }),
];

/// Refused: where the target lives nobody knows such a source, and "missing" would be a lie.
const APART: &str = "source and target do not live together";

pub(crate) const BATCHES: &[Form] = &[
    form("MergeSegmentsBatch", "of several segments, in order", |t| {
        let target = t.holding(b"abc");
        let (first, second) = (t.holding(b"de"), t.holding(b"f"));
        t.gets(
            merge_batch(&target, &[&first, &second]),
            is_batch_merged(&target, &[(&first, 5), (&second, 6)]),
        );
        t.holds(&target, b"abcdef");
        t.gets(info(&first), missing(&first));
        t.gets(info(&second), missing(&second));
    }),
    form("MergeSegmentsBatch", "of no segments", |t| {
        let target = t.holding(b"abc");
        t.gets(merge_batch(&target, &[]), is_batch_merged(&target, &[]));
    }),
    form("MergeSegmentsBatch", "again: what is missing counts as merged", |t| {
        let target = t.holding(b"abc");
        let source = t.holding(b"de");
        for _ in 0..2 {
            t.gets(merge_batch(&target, &[&source]), is_batch_merged(&target, &[(&source, 5)]));
        }
        t.holds(&target, b"abcde");
    }),
    form("MergeSegmentsBatch", "of one segment twice", |t| {
        let target = t.holding(b"abc");
        let source = t.holding(b"de");
        t.gets(
            merge_batch(&target, &[&source, &source]),
            is_batch_merged(&target, &[(&source, 5), (&source, 5)]),
        );
        t.holds(&target, b"abcde");
    }),
    form("MergeSegmentsBatch", "of missing segments, also into a sealed one", |t| {
        let source = t.name();
        for target in [t.holding(b"abc"), t.sealed(b"abc")] {
            t.gets(merge_batch(&target, &[&source]), is_batch_merged(&target, &[(&source, 3)]));
        }
    }),
    form("MergeSegmentsBatch", "of an empty segment", |t| {
        let (target, source) = (t.holding(b"abc"), t.empty());
        t.gets(merge_batch(&target, &[&source]), is_batch_merged(&target, &[(&source, 3)]));
        t.gets(info(&source), missing(&source));
    }),
    form("MergeSegmentsBatch", "into a missing segment", |t| {
        let (target, source) = (t.name(), t.holding(b"de"));
        t.gets(merge_batch(&target, &[&source]), missing(&target));
        t.holds(&source, b"de");
    }),
    form("MergeSegmentsBatch", "into a missing segment, of none", |t| {
        let target = t.name();
        t.gets(merge_batch(&target, &[]), is_batch_merged(&target, &[]));
    }),
    form("MergeSegmentsBatch", "into a sealed segment: the target is named", |t| {
        let (target, source) = (t.sealed(b"abc"), t.holding(b"de"));
        t.gets(merge_batch(&target, &[&source]), sealed(&target));
        t.holds(&target, b"abc");
        t.gets(info(&source), is_info(&source, true, 2, 0));
    }),
    form("MergeSegmentsBatch", "with a truncated segment: the others are merged", |t| {
        let target = t.holding(b"abc");
        let (bad, good) = (t.truncated(b"de", 1), t.holding(b"f"));
        t.closes(merge_batch(&target, &[&bad, &good]));
        t.holds(&target, b"abcf");
        t.gets(info(&bad), is_info(&bad, true, 2, 1));
    }),
    form("MergeSegmentsBatch", "with a segment that lives elsewhere: none is merged", |t| {
        let (target, near) = (t.holding(b"abc"), t.holding(b"f"));
        let source = t.apart(b"de");
        t.gets(merge_batch(&target, &[&near, &source]), illegal(&source, APART));
        t.holds(&target, b"abc");
        t.holds(&near, b"f");
    }),
    form("MergeSegmentsBatch", "of a table, or into one", |t| {
        let (segment, table) = (t.holding(b"abc"), t.table_of_two());
        let (before, table_before) = (t.look(&segment), t.look(&table));
        t.gets(merge_batch(&segment, &[&table]), unsupported("mergeSegmentsBatch"));
        t.gets(merge_batch(&table, &[&segment]), unsupported("mergeSegmentsBatch"));
        t.unchanged(&segment, &before);
        t.unchanged(&table, &table_before);
    }),
];
