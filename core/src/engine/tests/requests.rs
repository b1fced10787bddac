//! Requests other than appends: parked reads, merges, tables, what is refused.

use std::time::Duration;

use super::*;
use crate::id::AttributeId;
use crate::request::{TableEntry, TableKey, VersionCondition};

fn info(rig: &mut Rig, name: &str) -> Option<(u64, bool)> {
    match reply(&rig.run(Request::Info { segment: name.into() })) {
        Ok(Reply::Info { length, is_sealed, .. }) => Some((length.0, *is_sealed)),
        _ => None,
    }
}

fn refusal(effects: &[Effect]) -> &Refusal {
    reply(effects).as_ref().expect_err("a refusal")
}

fn merge(target: &str, source: &str) -> Request {
    Request::Merge { target: target.into(), source: source.into(), attributes: Vec::new() }
}

fn transient(rig: &mut Rig, connection: u64) -> String {
    let (parent, writer) = (SegmentName::from("s"), WriterId(7));
    let mut effects = rig.ask(connection, Request::CreateTransient { parent, writer });
    effects.append(&mut rig.turn());
    match reply(&effects) {
        Ok(Reply::Created { segment }) => segment.as_str().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Shows that a parked read is answered empty when its time is over, and forgotten with its
/// connection.
#[test]
fn parked_reads_end_with_their_time_or_connection() {
    let limits = Limits { parked_read: Duration::from_nanos(50), ..tiny() };
    let mut rig = Rig::new(limits);
    rig.create("s");
    assert!(rig.ask(1, read("s", 0, 10)).is_empty());
    assert!(rig.ask(2, read("s", 5, 10)).is_empty());
    assert_eq!(rig.engine.next_deadline(), Some(Instant(51)));
    let peer = Peer { shard: ShardId(0), connection: ConnectionId(2) };
    rig.engine.connection_closed(rig.now, peer, &mut rig.effects);
    rig.now.monotonic = Instant(51);
    let mut effects = Vec::new();
    rig.engine.tick(rig.now, &mut effects);
    assert!(matches!(
        reply(&effects),
        Ok(Reply::Read { data, at_tail: true, end_of_segment: false, .. }) if data.is_empty()
    ));
    assert_eq!(rig.engine.next_deadline(), None);
}

/// Shows that readers parked at a segment hear of its deletion and of a truncation past them.
#[test]
fn parked_reads_hear_of_truncation_and_deletion() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    rig.ask(2, read("s", 2, 10));
    rig.journal.hold(true);
    rig.ask(1, append(1, 1, b"abcd"));
    rig.ask(1, Request::Truncate { segment: "s".into(), offset: Offset(3) });
    rig.journal.hold(false);
    let effects = rig.turn();
    let is_truncated = |effect: &Effect| {
        matches!(
            effect,
            Effect::Reply {
                reply: Err(Refusal::SegmentTruncated { start_offset: Offset(3), offset: 2, .. }),
                ..
            }
        )
    };
    assert!(effects.iter().any(is_truncated), "{effects:?}");
    rig.ask(2, read("s", 4, 10));
    let kind = SegmentKind::Stream;
    let effects = rig.run(Request::Delete { segment: "s".into(), kind, must_be_empty: false });
    let is_given_up = |effect: &Effect| {
        matches!(
            effect,
            Effect::Reply {
                reply: Ok(Reply::Read { at_tail: true, end_of_segment: false, .. }),
                ..
            }
        )
    };
    assert!(is_given_up(&effects[0]) && effects.len() == 2, "{effects:?}");
    assert_eq!(
        refusal(&rig.run(append(1, 2, b"x"))),
        &Refusal::NoSuchSegment { segment: "s".into(), offset: -1 }
    );
}

/// Shows that frames that left memory are fetched once for all who wait, and a failed fetch closes
/// them.
#[test]
fn history_is_fetched_once_for_all_readers() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    for number in 0..12 {
        rig.run(append(1, number, &[number as u8; 3000]));
    }
    let first = rig.ask(1, read("s", 0, 100));
    let second = rig.ask(2, read("s", 50, 100));
    assert!(matches!(first[..], [Effect::Fetch { .. }]), "{first:?}");
    assert!(second.is_empty(), "{second:?}");
    rig.effects = first;
    let answers = rig.turn();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(rig.journal.fetch_count(), 1);
    let fetch = rig.ask(1, read("s", 4 * 3000, 100));
    let [Effect::Fetch { address }] = fetch[..] else { panic!("{fetch:?}") };
    let fault = Fault::new(crate::fault::FaultClass::Corrupt, "test");
    let mut effects = Vec::new();
    rig.engine.fetched(rig.now, address, Err(fault), &mut effects);
    assert!(matches!(effects[..], [Effect::Close { reason: CloseReason::Unavailable, .. }]));
}

/// Shows that a frame that holds other bytes than the index says closes the reader.
#[test]
fn foreign_bytes_in_a_frame_are_not_served() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.create("other");
    rig.set_up(1, 1, 7, "s");
    rig.set_up(1, 2, 7, "other");
    for number in 0..12 {
        rig.run(append(1, number, &[1; 3000]));
        rig.run(append(2, number, &[2; 3000]));
    }
    let fetch = rig.ask(1, read("s", 0, 100));
    let [Effect::Fetch { address }] = fetch[..] else { panic!("{fetch:?}") };
    let fetch = rig.ask(1, read("other", 0, 100));
    let [Effect::Fetch { address: wrong }] = fetch[..] else { panic!("{fetch:?}") };
    rig.journal.fetch(wrong);
    let mut events = Vec::new();
    rig.journal.poll(rig.now.monotonic, &mut events);
    let Some(JournalEvent::Fetched { frame, .. }) = events.pop() else { panic!("{events:?}") };
    let mut effects = Vec::new();
    rig.engine.fetched(rig.now, address, frame, &mut effects);
    assert!(matches!(effects[..], [Effect::Close { reason: CloseReason::Unavailable, .. }]));
}

/// Shows that a merge moves all bytes, counts one event for a transient segment, and ends the
/// source.
#[test]
fn merged_transient_segment_counts_as_one_event() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    let source = transient(&mut rig, 1);
    assert!(source.starts_with("s#transient.00000000000000000000000000000007."), "{source}");
    rig.set_up(1, 1, 7, "s");
    rig.set_up(1, 2, 8, &source);
    rig.run(append(1, 1, b"abc"));
    rig.run(append(2, 1, &[9; 6000]));
    rig.run(append(2, 2, b"z"));
    let effects = rig.run(merge("s", &source));
    assert!(matches!(reply(&effects), Ok(Reply::Merged { target_length: Offset(6004), .. })));
    let expected = [b"abc".as_slice(), &[9; 6000], b"z"].concat();
    let attribute = AttributeId::EVENT_COUNT;
    let request = Request::Attribute { segment: "s".into(), attribute };
    assert!(matches!(reply(&rig.run(request)), Ok(Reply::Attribute { value: 2 })));
    assert_eq!(
        refusal(&rig.run(merge("s", &source))),
        &Refusal::NoSuchSegment { segment: source.as_str().into(), offset: -1 }
    );
    let mut rig = rig.restart(0);
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(rig.read("s", found.len() as u64, 5000));
    }
    assert_eq!(found, expected);
}

/// Shows that a refused merge leaves the source sealed, and who is named.
#[test]
fn refused_merge_seals_the_source() {
    let mut rig = Rig::new(tiny());
    for name in ["a", "b", "c"] {
        rig.create(name);
    }
    rig.run(seal("a"));
    let sealed = |name: &str| Refusal::SegmentSealed { segment: name.into(), offset: -1 };
    assert_eq!(refusal(&rig.run(merge("a", "b"))), &sealed("b"));
    assert_eq!(info(&mut rig, "b"), Some((0, true)));
    let batch = Request::MergeBatch { target: "a".into(), sources: vec!["c".into()] };
    assert_eq!(refusal(&rig.run(batch)), &sealed("a"));
    let batch = Request::MergeBatch { target: "a".into(), sources: vec!["gone".into()] };
    assert!(matches!(
        reply(&rig.run(batch)),
        Ok(Reply::BatchMerged { sources, .. }) if sources[..] == [("gone".into(), Offset(0))]
    ));
    assert_eq!(refusal(&rig.run(merge("c", "c"))), &sealed("c"));
    let no = Refusal::NoSuchSegment { segment: "c".into(), offset: -1 };
    assert_eq!(refusal(&rig.run(merge("gone", "c"))), &no);
}

/// Shows that transient segments end with their connection, and after a restart.
#[test]
fn transient_segments_end_with_their_connection() {
    let mut rig = Rig::new(tiny());
    let first = transient(&mut rig, 1);
    let second = transient(&mut rig, 2);
    let peer = Peer { shard: ShardId(0), connection: ConnectionId(1) };
    rig.engine.connection_closed(rig.now, peer, &mut rig.effects);
    rig.turn();
    assert_eq!(info(&mut rig, &first), None);
    assert!(info(&mut rig, &second).is_some());
    let mut rig = rig.restart(0);
    assert_eq!(info(&mut rig, &second), None);
}

/// Shows that tables answer table requests only, and survive a restart with their versions.
#[test]
fn tables_answer_table_requests_only() {
    let mut rig = Rig::new(tiny());
    let kind = SegmentKind::Table { key_length: 0 };
    let Request::Create(create) = create("t") else { unreachable!("it was made a creation") };
    rig.run(Request::Create(Create { kind, ..create }));
    rig.create("s");
    let update = |segment: &str, condition| Request::TableUpdate {
        segment: segment.into(),
        entries: vec![TableEntry {
            key: TableKey { key: Bytes::from_static(b"k"), condition },
            value: Bytes::from_static(b"v"),
        }],
        expected_length: None,
    };
    let put = rig.run(update("t", VersionCondition::Absent));
    assert!(matches!(reply(&put), Ok(Reply::TableUpdated { versions }) if versions[..] == [0]));
    let again = rig.run(update("t", VersionCondition::Absent));
    assert_eq!(refusal(&again), &Refusal::BadKeyVersion { segment: "t".into() });
    let wrong = rig.run(update("s", VersionCondition::Any));
    assert!(matches!(refusal(&wrong), Refusal::IllegalArgument { .. }));
    for (request, operation) in [
        (read("t", 0, 1), "readSegment"),
        (Request::Truncate { segment: "t".into(), offset: Offset(0) }, "truncateSegment"),
        (merge("t", "s"), "mergeSegments"),
        (merge("s", "t"), "mergeSegments"),
    ] {
        assert_eq!(refusal(&rig.run(request)), &Refusal::Unsupported { operation });
    }
    let mut rig = rig.restart(0);
    let put = rig.run(update("t", VersionCondition::Exactly(0)));
    assert!(matches!(reply(&put), Ok(Reply::TableUpdated { versions }) if versions[0] > 0));
    rig.run(seal("t"));
    let no = Refusal::SegmentSealed { segment: "t".into(), offset: -1 };
    assert_eq!(refusal(&rig.run(update("t", VersionCondition::Any))), &no);
}

/// Shows that read-ahead stops at the durable end: behind it lies an append whose frame has no
/// address yet, while the bytes before it are in the journal only.
#[test]
fn read_ahead_stops_before_what_is_not_durable() {
    // Room to read ahead over all frames, and none of them in memory.
    let mut rig = Rig::new(Limits { history_cache_bytes: 64 * 4096, ..tiny() });
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    for number in 0..6 {
        rig.run(append(1, number, &[number as u8; 3000]));
    }
    let mut rig = rig.restart(0);
    rig.set_up(2, 2, 7, "s");
    let accepted = rig.ask(2, append(2, 6, b"not durable"));
    assert!(accepted.is_empty(), "{accepted:?}");
    // Asked for more than is durable, before the append's frame is submitted.
    let asked = rig.ask(3, read("s", 0, 1 << 20));
    assert!(asked.iter().any(|effect| matches!(effect, Effect::Fetch { .. })), "{asked:?}");
}
