//! Segments as a whole: facts, life, policy and attributes.

use thalweg_crash::store::{EVENT_COUNT, none};
use thalweg_wire::{Command, FlushToStorage, ListStorageChunks, SegmentCreated};

use crate::desk::{Form, form};
use crate::words::*;

const CORE: u128 = 1 << 127;
const SCALE_TYPE: u128 = CORE | 2;
const SCALE_RATE: u128 = CORE | 3;
const ROLLOVER: u128 = CORE | 4;
/// An attribute that clients define.
const MARK: u128 = 0x7df9_a874_246c_c9d6_9397_cdd1_9ead_68c5;

pub(crate) const LIFE: &[Form] = &[
    form("GetStreamSegmentInfo", "of an empty segment", |t| {
        let segment = t.empty();
        t.gets(info(&segment), is_info(&segment, false, 0, 0));
    }),
    form("GetStreamSegmentInfo", "of a truncated and sealed segment", |t| {
        let segment = t.truncated(b"0123456789", 4);
        t.gets(info(&segment), is_info(&segment, false, 10, 4));
        t.aside(seal(&segment), is_sealed(&segment));
        t.gets(info(&segment), is_info(&segment, true, 10, 4));
    }),
    form("GetStreamSegmentInfo", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(info(&segment), missing(&segment));
        t.gets(info(""), missing(""));
    }),
    form("GetStreamSegmentInfo", "of a table", |t| {
        let table = t.table_of_two();
        t.gets(info(&table), is_info(&table, false, 42, 0));
    }),
    form("CreateSegment", "of a new name", |t| {
        let segment = t.name();
        t.gets(create_with(&segment, 300, 2, 1 << 30), is_created(&segment));
        t.gets(attribute(&segment, SCALE_TYPE), is_attribute(2));
        t.gets(attribute(&segment, SCALE_RATE), is_attribute(300));
        t.gets(attribute(&segment, ROLLOVER), is_attribute(1 << 30));
        t.gets(attribute(&segment, EVENT_COUNT), is_attribute(UNSET));
    }),
    form("CreateSegment", "with a policy that is none, and a negative rollover size", |t| {
        let segment = t.name();
        t.gets(create_with(&segment, -5, 77, -1), is_created(&segment));
        t.gets(attribute(&segment, SCALE_TYPE), is_attribute(77));
        t.gets(attribute(&segment, SCALE_RATE), is_attribute(-5));
        t.gets(attribute(&segment, ROLLOVER), is_attribute(0));
    }),
    form("CreateSegment", "of a name that exists, sealed or truncated or a table", |t| {
        for segment in [t.holding(b"abc"), t.sealed(b"abc"), t.truncated(b"abc", 2), t.table(0)] {
            let before = t.look(&segment);
            t.gets(create_with(&segment, 9, 1, 9), exists(&segment));
            t.unchanged(&segment, &before);
        }
    }),
    form("CreateSegment", "of the name of a deleted segment", |t| {
        let segment = t.holding(b"abc");
        t.aside(delete(&segment), is_deleted(&segment));
        t.gets(create(&segment), is_created(&segment));
        t.gets(info(&segment), is_info(&segment, false, 0, 0));
    }),
    form("CreateSegment", "of the empty name", |t| t.closes(create(""))),
    form("CreateSegment", "of names that look like none", |t| {
        for segment in ["strict", "/", "#", "a/b/c/d/e", "strict/ä€/0.#epoch.0", " "] {
            t.gets(create(segment), is_created(segment));
            t.gets(info(segment), is_info(segment, false, 0, 0));
        }
    }),
    form("CreateSegment", "of the longest name", |t| {
        let segment = "n".repeat(usize::from(u16::MAX));
        t.gets(create(&segment), is_created(&segment));
        t.gets(info(&segment), is_info(&segment, false, 0, 0));
        t.gets(delete(&segment), is_deleted(&segment));
    }),
    form("CreateTransientSegment", "of a segment that exists", |t| {
        let parent = t.holding(b"abc");
        t.send(create_transient(&parent, ANNA));
        let heard = t.listen();
        let Command::SegmentCreated(SegmentCreated { segment, .. }) = &heard else {
            panic!("{heard:?}")
        };
        let name = segment.as_str().to_owned();
        assert_eq!(heard, is_created(&name), "a transient segment");
        let start = format!("{parent}#transient.{ANNA:032x}.");
        let unique = name.strip_prefix(&start).expect("named after its parent and writer");
        assert!(
            unique.len() == 32 && unique.bytes().all(|it| it.is_ascii_hexdigit()),
            "ends in {unique}"
        );
        t.gets(info(&name), is_info(&name, false, 0, 0));
        t.sets_up(&name, ANNA);
        t.gets(append(ANNA, b"def", 1, 0), appended(ANNA, 0, UNSET, 3));
        t.gets(merge(&parent, &name), is_merged(&parent, &name, 6));
        t.holds(&parent, b"abcdef");
        t.gets(attribute(&parent, EVENT_COUNT), is_attribute(2));
    }),
    form("CreateTransientSegment", "of a parent that is missing, or sealed", |t| {
        for parent in [t.name(), t.sealed(b"abc")] {
            t.send(create_transient(&parent, ANNA));
            let heard = t.listen();
            assert!(matches!(heard, Command::SegmentCreated(_)), "{heard:?}");
        }
    }),
    form("CreateTransientSegment", "twice: two names", |t| {
        let parent = t.empty();
        t.send(create_transient(&parent, ANNA));
        let first = t.listen();
        t.send(create_transient(&parent, ANNA));
        assert_ne!(first, t.listen(), "names");
    }),
    form("CreateTransientSegment", "of a parent whose name leaves no room for another", |t| {
        t.closes(create_transient(&"n".repeat(usize::from(u16::MAX) - 50), ANNA));
    }),
    form("CreateTransientSegment", "and the end of its connection: deleted", |t| {
        let parent = t.empty();
        t.send(create_transient(&parent, ANNA));
        let Command::SegmentCreated(made) = t.listen() else { panic!("not created") };
        let name = made.segment.as_str().to_owned();
        t.aside(info(&name), is_info(&name, false, 0, 0));
        t.hang_up();
        let begin = std::time::Instant::now();
        while t.ask_aside(info(&name)) != missing(&name) {
            assert!(begin.elapsed().as_secs() < 20, "a transient segment outlives its connection");
        }
    }),
    form("SealSegment", "of a segment", |t| {
        let segment = t.holding(b"abc");
        t.gets(seal(&segment), is_sealed(&segment));
        t.gets(info(&segment), is_info(&segment, true, 3, 0));
    }),
    form("SealSegment", "of a sealed segment: repeated, it succeeds", |t| {
        let segment = t.sealed(b"abc");
        t.gets(seal(&segment), is_sealed(&segment));
    }),
    form("SealSegment", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(seal(&segment), missing(&segment));
    }),
    form("SealSegment", "of a table: puts are refused, reads go on", |t| {
        let table = t.table_of_two();
        t.gets(seal(&table), is_sealed(&table));
        t.gets(update(&table, &[(b"one", ANY, b"x")]), sealed(&table));
        t.gets(remove(&table, &[(b"one", ANY)]), sealed(&table));
        t.gets(get(&table, &[b"one"]), is_got(&table, &[(b"one", 0, b"1")]));
    }),
    form("TruncateSegment", "within the segment, at its start, at its end", |t| {
        let segment = t.holding(b"0123456789");
        for start in [4, 4, 10, 10] {
            t.gets(truncate(&segment, start), is_truncated(&segment));
            t.gets(info(&segment), is_info(&segment, false, 10, start));
        }
    }),
    form("TruncateSegment", "below the start", |t| {
        let segment = t.truncated(b"0123456789", 4);
        t.gets(truncate(&segment, 3), truncated(&segment, 4, 3));
        t.gets(truncate(&segment, 0), truncated(&segment, 4, 0));
        t.gets(info(&segment), is_info(&segment, false, 10, 4));
    }),
    form("TruncateSegment", "behind the end", |t| {
        let segment = t.truncated(b"0123456789", 4);
        t.gets(truncate(&segment, 11), truncated(&segment, 4, 11));
        t.gets(truncate(&segment, i64::MAX), truncated(&segment, 4, i64::MAX));
        t.gets(info(&segment), is_info(&segment, false, 10, 4));
    }),
    form("TruncateSegment", "at a negative offset", |t| {
        let segment = t.holding(b"0123456789");
        let before = t.look(&segment);
        t.closes(truncate(&segment, -1));
        t.closes(truncate(&segment, i64::MIN));
        t.unchanged(&segment, &before);
    }),
    form("TruncateSegment", "of a sealed segment", |t| {
        let segment = t.sealed(b"0123456789");
        t.gets(truncate(&segment, 10), is_truncated(&segment));
        t.gets(info(&segment), is_info(&segment, true, 10, 10));
    }),
    form("TruncateSegment", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(truncate(&segment, 4), missing_at(&segment, 4));
    }),
    form("TruncateSegment", "of a table", |t| {
        let table = t.table_of_two();
        let before = t.look(&table);
        t.gets(truncate(&table, 21), unsupported("truncateSegment"));
        t.unchanged(&table, &before);
    }),
    form("DeleteSegment", "of a segment, and again", |t| {
        let segment = t.holding(b"abc");
        t.gets(delete(&segment), is_deleted(&segment));
        t.gets(info(&segment), missing(&segment));
        t.gets(delete(&segment), missing(&segment));
    }),
    form("DeleteSegment", "of a sealed segment", |t| {
        let segment = t.sealed(b"abc");
        t.gets(delete(&segment), is_deleted(&segment));
    }),
    form("DeleteSegment", "of a table", |t| {
        let table = t.table_of_two();
        t.gets(delete(&table), is_deleted(&table));
        t.gets(table_info(&table), missing(&table));
    }),
    form("LocateOffset", "is not served, and the connection stays", |t| {
        let segment = t.holding(b"abc");
        t.gets(locate(&segment, 1), unsupported("locateOffset"));
        t.goes_on();
    }),
    form("FlushToStorage", "on the clients' port", |t| {
        let (delegation_token, request_id) = (none(), ID);
        t.closes(FlushToStorage { container_id: 0, delegation_token, request_id }.into());
    }),
    form("ListStorageChunks", "on the clients' port", |t| {
        let segment = t.empty().as_str().into();
        let (delegation_token, request_id) = (none(), ID);
        t.closes(ListStorageChunks { segment, delegation_token, request_id }.into());
    }),
];

pub(crate) const ATTRIBUTES: &[Form] = &[
    form("UpdateSegmentPolicy", "of a segment", |t| {
        let segment = t.empty();
        t.gets(update_policy(&segment, 77, 1), is_policy_updated(&segment));
        t.gets(attribute(&segment, SCALE_TYPE), is_attribute(1));
        t.gets(attribute(&segment, SCALE_RATE), is_attribute(77));
    }),
    form("UpdateSegmentPolicy", "of a sealed segment", |t| {
        let segment = t.sealed(b"abc");
        let before = t.look(&segment);
        t.gets(update_policy(&segment, 77, 1), sealed(&segment));
        t.unchanged(&segment, &before);
    }),
    form("UpdateSegmentPolicy", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(update_policy(&segment, 77, 1), missing(&segment));
    }),
    form("GetSegmentAttribute", "that was never set", |t| {
        let segment = t.empty();
        for id in [MARK, ANNA, EVENT_COUNT, 0, u128::MAX] {
            t.gets(attribute(&segment, id), is_attribute(UNSET));
        }
    }),
    form("GetSegmentAttribute", "of a writer: its last number", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 7), appended(ANNA, 7, UNSET, 3));
        t.gets(attribute(&segment, ANNA), is_attribute(7));
    }),
    form("GetSegmentAttribute", "of a sealed segment", |t| {
        let segment = t.sealed(b"abc");
        t.gets(attribute(&segment, EVENT_COUNT), is_attribute(1));
    }),
    form("GetSegmentAttribute", "of a table", |t| {
        let table = t.table_of_two();
        t.gets(attribute(&table, MARK), is_attribute(UNSET));
    }),
    form("GetSegmentAttribute", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(attribute(&segment, MARK), missing(&segment));
    }),
    form("UpdateSegmentAttribute", "that is as expected: set, changed, unset", |t| {
        let segment = t.empty();
        for (value, expected) in [(5, UNSET), (6, 5), (UNSET, 6), (0, UNSET)] {
            t.gets(update_attribute(&segment, MARK, value, expected), is_attribute_updated(true));
            t.gets(attribute(&segment, MARK), is_attribute(value));
        }
    }),
    form("UpdateSegmentAttribute", "that is not as expected", |t| {
        let segment = t.empty();
        t.gets(update_attribute(&segment, MARK, 5, 0), is_attribute_updated(false));
        t.gets(attribute(&segment, MARK), is_attribute(UNSET));
        t.gets(update_attribute(&segment, MARK, 5, UNSET), is_attribute_updated(true));
        for expected in [UNSET, 4, 6, i64::MAX] {
            t.gets(update_attribute(&segment, MARK, 9, expected), is_attribute_updated(false));
        }
        t.gets(attribute(&segment, MARK), is_attribute(5));
    }),
    form("UpdateSegmentAttribute", "of a writer: its set-up tells it", |t| {
        let segment = t.empty();
        t.gets(update_attribute(&segment, ANNA, 41, UNSET), is_attribute_updated(true));
        t.gets(set_up(&segment, ANNA), is_set_up(&segment, ANNA, 41));
    }),
    form("UpdateSegmentAttribute", "of a writer that is set up: its next number is known", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(update_attribute(&segment, ANNA, 41, UNSET), is_attribute_updated(true));
        t.gets(append(ANNA, b"abc", 1, 41), invalid_number(ANNA, 41));
        t.hears_the_end();
        t.holds(&segment, b"");
    }),
    form("UpdateSegmentAttribute", "of a sealed segment, as expected and not", |t| {
        let segment = t.sealed(b"abc");
        t.gets(update_attribute(&segment, MARK, 5, UNSET), sealed(&segment));
        t.gets(update_attribute(&segment, MARK, 5, 4), sealed(&segment));
    }),
    form("UpdateSegmentAttribute", "of a table", |t| {
        let table = t.table_of_two();
        t.gets(update_attribute(&table, MARK, 5, UNSET), is_attribute_updated(true));
        t.gets(attribute(&table, MARK), is_attribute(5));
    }),
    form("UpdateSegmentAttribute", "of a missing segment", |t| {
        let segment = t.name();
        t.gets(update_attribute(&segment, MARK, 5, UNSET), missing(&segment));
    }),
];
