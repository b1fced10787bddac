//! Appends in two parts: a block and its end.

use thalweg_wire::{Command, KeepAlive};

use crate::desk::{Desk, Form, encoded, form, frame, header};
use crate::words::*;

const PADDING: i32 = -1;
const PARTIAL_EVENT: i32 = -2;
const EVENT: i32 = 0;

/// Sends a block and an end that break a rule: the connection closes, nothing is stored.
fn broken(t: &mut Desk, parts: &[Command]) {
    let segment = t.holding(b"before");
    let before = t.look(&segment);
    t.sets_up(&segment, ANNA);
    for part in parts {
        t.send_bytes(&encoded(std::slice::from_ref(part)));
    }
    t.hears_the_end();
    t.unchanged(&segment, &before);
}

/// A block whose whole events are `abc` and whose rest is this, and its end.
fn rest(rest: &[u8], data: &[u8]) -> [Command; 2] {
    [block(ANNA, &[b"abc", rest].concat()), end(ANNA, 3, data, 1, 1)]
}

pub(crate) const BLOCKS: &[Form] = &[
    form("AppendBlock", "of whole events", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, b"abcdef"));
        t.gets(end(ANNA, 6, b"", 2, 2), appended(ANNA, 2, UNSET, 6));
        t.holds(&segment, b"abcdef");
    }),
    form("AppendBlock", "of whole events: bytes in the end are not part of it", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, b"abcdef"));
        t.gets(end(ANNA, 6, b"ghi", 2, 2), appended(ANNA, 2, UNSET, 6));
        t.holds(&segment, b"abcdef");
    }),
    form("AppendBlock", "of no bytes", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, b""));
        t.gets(end(ANNA, 0, b"", 1, 1), appended(ANNA, 1, UNSET, 0));
    }),
    form("AppendBlock", "filled with padding", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, &[b"abc", &frame(PADDING, &[0; 50])[..]].concat()));
        t.gets(end(ANNA, 3, b"", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.send(block(ANNA, &[b"def", &frame(PADDING, b"")[..]].concat()));
        t.gets(end(ANNA, 3, b"", 1, 2), appended(ANNA, 2, 1, 6));
        t.send(block(ANNA, &frame(PADDING, &[0; 5])));
        t.gets(end(ANNA, 0, b"", 1, 3), appended(ANNA, 3, 2, 6));
        t.holds(&segment, b"abcdef");
    }),
    form("AppendBlock", "with bytes behind the padding", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, &[b"abc", &frame(PADDING, b"0")[..], b"behind"].concat()));
        t.gets(end(ANNA, 3, b"", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.holds(&segment, b"abc");
    }),
    form("AppendBlock", "with a divided event", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, &[b"abc", &frame(PARTIAL_EVENT, b"de")[..]].concat()));
        t.gets(end(ANNA, 3, b"fg", 2, 2), appended(ANNA, 2, UNSET, 7));
        t.holds(&segment, b"abcdefg");
    }),
    form("AppendBlock", "with nothing but the head of an event", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, &frame(PARTIAL_EVENT, b"abc")));
        t.gets(end(ANNA, 0, b"def", 1, 1), appended(ANNA, 1, UNSET, 6));
        t.holds(&segment, b"abcdef");
    }),
    form("AppendBlock", "with an empty head, or an empty tail", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, &frame(PARTIAL_EVENT, b"")));
        t.gets(end(ANNA, 0, b"abc", 1, 1), appended(ANNA, 1, UNSET, 3));
        t.send(block(ANNA, &frame(PARTIAL_EVENT, b"def")));
        t.gets(end(ANNA, 0, b"", 1, 2), appended(ANNA, 2, 1, 6));
        t.holds(&segment, b"abcdef");
    }),
    form("AppendBlock", "with a keep-alive and a request before its end", |t| {
        let segment = t.holding(b"abc");
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, b"def"));
        t.gets(KeepAlive.into(), KeepAlive.into());
        t.gets(info(&segment), is_info(&segment, false, 3, 0));
        t.gets(end(ANNA, 3, b"", 1, 1), appended(ANNA, 1, UNSET, 6));
    }),
    form("AppendBlock", "that arrives byte by byte", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        for byte in encoded(&[block(ANNA, b"abcdef"), end(ANNA, 6, b"", 2, 2)]) {
            t.send_bytes(&[byte]);
        }
        t.hears(&appended(ANNA, 2, UNSET, 6));
    }),
    form("AppendBlock", "without a set-up", |t| t.closes(block(ANNA, b"abc"))),
    form("AppendBlock", "of another writer than was set up", |t| {
        broken(t, &[block(BERT, b"abc"), end(BERT, 3, b"", 1, 1)]);
    }),
    form("AppendBlock", "and the end of another writer", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.sets_up(&segment, BERT);
        t.send(block(ANNA, b"abc"));
        t.closes(end(BERT, 3, b"", 1, 1));
        t.holds(&segment, b"");
    }),
    form("AppendBlock", "twice", |t| {
        broken(t, &[block(ANNA, b"abc"), block(ANNA, b"def"), end(ANNA, 3, b"", 1, 1)]);
    }),
    form("AppendBlock", "and a set-up before its end, of the same writer or another", |t| {
        let other = t.empty();
        for writer in [ANNA, BERT] {
            broken(t, &[block(ANNA, b"abc"), set_up(&other, writer), end(ANNA, 3, b"", 1, 1)]);
        }
    }),
    form("AppendBlock", "and a conditional append before its end", |t| {
        broken(t, &[block(ANNA, b"abc"), append_if(ANNA, 1, 6, b"d"), end(ANNA, 3, b"", 1, 2)]);
        broken(t, &[block(ANNA, b"abc"), block_if(ANNA, 1, 6, b"d"), end(ANNA, 3, b"", 1, 2)]);
    }),
    form("AppendBlock", "with fewer bytes than its end says", |t| {
        for whole in [4, 1000, i32::MAX] {
            broken(t, &[block(ANNA, b"abc"), end(ANNA, whole, b"", 1, 1)]);
        }
    }),
    form("AppendBlock", "with a negative number of whole bytes", |t| {
        for whole in [-1, i32::MIN] {
            broken(t, &[block(ANNA, b"abc"), end(ANNA, whole, b"", 1, 1)]);
        }
    }),
    form("AppendBlock", "of no events, or fewer", |t| {
        for count in [0, -1, i32::MIN] {
            broken(t, &[block(ANNA, b"abc"), end(ANNA, 3, b"", count, 1)]);
        }
    }),
    form("AppendBlock", "with a negative event number", |t| {
        broken(t, &[block(ANNA, b"abc"), end(ANNA, 3, b"", 1, -1)]);
    }),
    form("AppendBlock", "with padding and bytes in its end", |t| {
        broken(t, &rest(&frame(PADDING, &[0; 9]), b"def"));
    }),
    form("AppendBlock", "with a rest too short for a command", |t| {
        for length in 1..8 {
            broken(t, &rest(&frame(PADDING, b"")[..length], b""));
        }
    }),
    form("AppendBlock", "with a rest that is longer than it is", |t| {
        broken(t, &rest(&header(PADDING, 1), b""));
        broken(t, &rest(&header(PARTIAL_EVENT, i32::MAX), b"def"));
    }),
    form("AppendBlock", "with a rest of negative length", |t| {
        for code in [PADDING, PARTIAL_EVENT] {
            for length in [-1, i32::MIN] {
                broken(t, &rest(&header(code, length), b""));
            }
        }
    }),
    form("AppendBlock", "with bytes behind the head of an event", |t| {
        broken(t, &rest(&[&frame(PARTIAL_EVENT, b"de")[..], b"x"].concat(), b"f"));
    }),
    form("AppendBlock", "with a rest of another type", |t| {
        for code in [EVENT, 1, 3, 4, 100, 9999, i32::MIN] {
            broken(t, &rest(&frame(code, b"de"), b""));
        }
    }),
    form("AppendBlock", "cut off by the end of the connection", |t| {
        let segment = t.holding(b"before");
        let before = t.look(&segment);
        let whole = encoded(&[block(ANNA, b"abcdef"), end(ANNA, 6, b"", 1, 1)]);
        for cut in (1..whole.len()).step_by(5) {
            t.sets_up(&segment, ANNA);
            t.send_bytes(&whole[..cut]);
            t.hang_up();
        }
        t.unchanged(&segment, &before);
    }),
    form("AppendBlock", "whose number goes back", |t| {
        let segment = t.empty();
        t.sets_up(&segment, ANNA);
        t.gets(append(ANNA, b"abc", 1, 5), appended(ANNA, 5, UNSET, 3));
        t.send(block(ANNA, b"def"));
        t.gets(end(ANNA, 3, b"", 1, 5), invalid_number(ANNA, 5));
        t.hears_the_end();
        t.holds(&segment, b"abc");
    }),
    form("AppendBlock", "to a sealed segment", |t| {
        let segment = t.sealed(b"abc");
        t.sets_up(&segment, ANNA);
        t.send(block(ANNA, b"def"));
        t.gets(end(ANNA, 3, b"", 1, 1), sealed_at(&segment, 1));
        t.holds(&segment, b"abc");
    }),
];
