//! What belongs to the connection: Hello, keep-alive, padding, and frames that are no request.

use thalweg_wire::{
    Command, DataAppended, Event, FRAME_BYTES_MAX, Hello, KeepAlive, Padding, PartialEvent,
};

use crate::desk::{Desk, Form, encoded, form, frame, header, hello};
use crate::words::*;

fn versions(high_version: i32, low_version: i32) -> Command {
    Hello { high_version, low_version }.into()
}

/// Bytes that close the connection at once and change nothing.
fn fatal(t: &mut Desk, bytes: &[u8]) {
    let segment = t.holding(b"abc");
    let before = t.look(&segment);
    t.goes_on();
    t.send_bytes(bytes);
    t.hears_the_end();
    t.unchanged(&segment, &before);
}

pub(crate) const SESSIONS: &[Form] = &[
    form("Hello", "of either family of clients, and of every version that overlaps", |t| {
        for (high, low) in [(17, 5), (15, 5), (16, 5), (5, 5), (5, 0), (17, 17), (99, 17)] {
            t.connect_silently();
            t.gets(versions(high, low), versions(17, 5));
            t.goes_on();
        }
    }),
    form("Hello", "of a client that is too old, or too new: answered, then closed", |t| {
        for (high, low) in [(4, 1), (99, 18), (i32::MIN, i32::MIN), (i32::MAX, i32::MAX)] {
            t.connect_silently();
            t.gets(versions(high, low), versions(17, 5));
            t.hears_the_end();
        }
    }),
    form("Hello", "again, in the middle of everything", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(hello(), hello());
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.gets(versions(15, 5), versions(17, 5));
    }),
    form("Hello", "and requests behind it without waiting", |t| {
        let segment = t.empty();
        t.connect_silently();
        t.send_bytes(&encoded(&[
            hello(),
            set_up(&segment, ANNA),
            append(ANNA, b"abc", 1, 1),
            info(&segment),
        ]));
        t.hears(&hello());
        t.hears(&is_set_up(&segment, ANNA, UNSET));
        t.hears(&appended(ANNA, 1, UNSET, 3));
        t.hears(&is_info(&segment, false, 3, 0));
    }),
    form("Hello", "that never comes: requests are served", |t| {
        let segment = t.empty();
        t.connect_silently();
        t.gets(info(&segment), is_info(&segment, false, 0, 0));
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
    }),
    form("KeepAlive", "is echoed, each one", |t| {
        t.goes_on();
        for _ in 0..3 {
            t.gets(KeepAlive.into(), KeepAlive.into());
        }
        t.send_bytes(&encoded(&vec![KeepAlive.into(); 50]));
        for _ in 0..50 {
            t.hears(&KeepAlive.into());
        }
        t.goes_on();
    }),
    form("KeepAlive", "before Hello", |t| {
        t.connect_silently();
        t.gets(KeepAlive.into(), KeepAlive.into());
        t.gets(hello(), hello());
    }),
    form("KeepAlive", "with bytes that a later version may put there", |t| {
        t.goes_on();
        t.send_bytes(&frame(100, b"later"));
        t.hears(&KeepAlive.into());
    }),
    form("KeepAlive", "right behind an append", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send_bytes(&encoded(&[append(ANNA, b"abc", 1, 1), KeepAlive.into()]));
        let mut heard = [t.listen(), t.listen()];
        heard.sort_by_key(Command::code);
        assert_eq!(heard, [appended(ANNA, 1, UNSET, 3), KeepAlive.into()], "in either order");
    }),
    form("Padding", "by itself is ignored", |t| {
        for length in [0, 1, 1000] {
            t.send_bytes(&encoded(&[Padding { length }.into()]));
        }
        t.goes_on();
    }),
    form("Padding", "before a block, and between a block and its end", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send_bytes(&encoded(&[
            Padding { length: 3 }.into(),
            block(ANNA, b"abc"),
            Padding { length: 3 }.into(),
            end(ANNA, 3, b"", 1, 1),
        ]));
        t.hears(&appended(ANNA, 1, UNSET, 3));
        t.holds(&segment, b"abc");
    }),
    form("PartialEvent", "by itself", |t| {
        fatal(t, &encoded(&[PartialEvent { data: b"abc".as_slice().into() }.into()]));
    }),
    form("Event", "by itself", |t| {
        fatal(t, &encoded(&[Event { data: b"abc".as_slice().into() }.into()]));
    }),
];

pub(crate) const FRAMES: &[Form] = &[
    form("any", "of an unknown or retired type", |t| {
        let unknown = [6, 54, 62, 63, 64, 65, 66, 67, 72, 73, 92, 99, 101, -7, -126, -128];
        for code in unknown.into_iter().chain([i32::MIN, i32::MAX]) {
            for payload in [&b""[..], b"some payload of it"] {
                fatal(t, &frame(code, payload));
            }
        }
    }),
    form("any", "that is a reply", |t| {
        let name = t.empty();
        let ack = DataAppended {
            writer_id: ANNA,
            event_number: 1,
            previous_event_number: 0,
            request_id: ID,
            current_segment_write_offset: 1,
        };
        let replies = [
            is_set_up(&name, ANNA, 1),
            ack.into(),
            check_failed(ANNA, 1),
            is_read(&name, 0, b"abc", End::Tail),
            is_info(&name, false, 0, 0),
            is_created(&name),
            is_sealed(&name),
            is_deleted(&name),
            is_policy_updated(&name),
            is_attribute(1),
            is_attribute_updated(true),
            is_truncated(&name),
            is_merged(&name, &name, 1),
            is_batch_merged(&name, &[]),
            is_table_info(&name, 0, 0, 0),
            is_updated(&[1]),
            is_removed(&name),
            is_got(&name, &[]),
            is_keys(&name, &[], b""),
            is_entries(&name, &[], b""),
            is_delta(&name, &[], true, 0),
            wrong_host(&name),
            sealed(&name),
            exists(&name),
            missing(&name),
            invalid_number(ANNA, 1),
            truncated(&name, 0, 0),
            unsupported("x"),
            illegal(&name, "x"),
            not_empty(&name),
            no_key(&name),
            bad_version(&name),
        ];
        for reply in replies {
            fatal(t, &encoded(&[reply]));
        }
    }),
    form("any", "of negative length", |t| {
        for code in [1, 3, 4, 9, 11, 100, -1, -127] {
            for length in [-1, -8, i32::MIN] {
                fatal(t, &header(code, length));
            }
        }
    }),
    form("any", "over the largest frame: closed at the header", |t| {
        let first_too_large = i32::try_from(FRAME_BYTES_MAX - 8 + 1).expect("below 2 GiB");
        for code in [1, 3, 4, 9, 11, 100, -1, -127, 9999] {
            for length in [first_too_large, i32::MAX] {
                fatal(t, &header(code, length));
            }
        }
    }),
    form("any", "that is text of another protocol", |t| {
        fatal(t, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        fatal(t, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        fatal(t, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        fatal(t, &[0; 64]);
        fatal(t, &[0xFF; 64]);
    }),
];
