//! Forms that every request has: cut short, longer than known, byte by byte, with any request id,
//! without a Hello, with a name that is no text, and about a segment that lives elsewhere.

use thalweg_wire::{Command, FRAME_HEADER_BYTES, SegmentCreated, StreamSegmentInfo};

use crate::desk::{Desk, encoded, frame};
use crate::words::*;

/// A well-formed request, and how its payload lies.
pub(crate) struct Sample {
    /// The request.
    pub(crate) command: Command,
    /// Its length, and its lengths without optional fields, falling.
    boundaries: Vec<usize>,
    /// Where the name of the segment is, if there is one.
    name_at: Option<usize>,
    /// Where the request id is.
    id_at: usize,
    /// Whether a writer must be set up before.
    is_of_writer: bool,
}

/// Segments that the samples are about; all live together.
pub(crate) struct Subjects {
    /// Holds `0123456789`.
    pub(crate) segment: String,
    /// Is sealed.
    pub(crate) sealed: String,
    /// Holds two entries.
    pub(crate) table: String,
    /// Does not exist.
    pub(crate) nowhere: String,
}

impl Subjects {
    pub(crate) fn new(t: &mut Desk) -> Self {
        let (segment, sealed) = (t.holding(b"0123456789"), t.sealed(b"abc"));
        Self { segment, sealed, table: t.table_of_two(), nowhere: t.name() }
    }
}

/// One sample of each request. Each can be asked again and again with the same answer: what
/// succeeds but once is asked of what is not there, or on a condition that does not hold.
pub(crate) fn samples(on: &Subjects) -> Vec<Sample> {
    let (segment, table) = (on.segment.as_str(), on.table.as_str());
    let nowhere = on.nowhere.as_str();
    let no_updates = 4;
    vec![
        plain(set_up(segment, ANNA)).name_at(8 + 16),
        of_writer(append(ANNA, b"abc", 1, 1)).optional(&[8]),
        of_writer(append_if(ANNA, 1, 4, b"abc")).optional(&[8]),
        of_writer(block_if(ANNA, 1, 4, b"abc")),
        plain(read(segment, 3, 10)).optional(&[8]).name_at(0).id_last(),
        plain(info(segment)),
        plain(create(segment)).optional(&[8]),
        plain(create_transient(segment, ANNA)).name_at(8 + 16),
        plain(seal(nowhere)),
        plain(truncate(segment, 0)),
        plain(delete(nowhere)),
        plain(update_policy(&on.sealed, 0, 0)),
        plain(attribute(segment, 5)),
        plain(update_attribute(segment, 5, 1, 2)),
        plain(merge(segment, nowhere)).optional(&[no_updates]),
        plain(merge_batch(segment, &[nowhere])),
        plain(locate(segment, 0)),
        plain(create_table(table, 0)).optional(&[8, 4, 1]),
        plain(delete_table(table, true)),
        plain(table_info(table)),
        plain(update_at(table, &[(b"one", 9, b"x")], -1)).optional(&[8]),
        plain(remove_at(table, &[(b"one", 9)], -1)).optional(&[8]),
        plain(get(table, &[b"one", b"six"])),
        plain(keys(table, 10, b"")).optional(&[4, 4, 4, 4]),
        plain(entries(table, 10, b"")).optional(&[4, 4, 4, 4]),
        plain(delta(table, 0, 10)),
    ]
}

fn payload_of(command: &Command) -> Vec<u8> {
    encoded(std::slice::from_ref(command))[FRAME_HEADER_BYTES..].to_vec()
}

fn plain(command: Command) -> Sample {
    let length = payload_of(&command).len();
    let is_of_writer = false;
    Sample { command, boundaries: vec![length], name_at: Some(8), id_at: 0, is_of_writer }
}

/// A command that names a writer and no segment, with its request id behind the rest.
fn of_writer(command: Command) -> Sample {
    Sample { name_at: None, is_of_writer: true, ..plain(command) }.id_last()
}

impl Sample {
    /// Lengths of the optional fields, the last first.
    fn optional(mut self, lengths: &[usize]) -> Self {
        for length in lengths {
            self.boundaries.push(self.required() - length);
        }
        self
    }

    fn name_at(self, at: usize) -> Self {
        Self { name_at: Some(at), ..self }
    }

    fn id_last(self) -> Self {
        Self { id_at: self.payload().len() - 8, ..self }
    }

    fn required(&self) -> usize {
        *self.boundaries.last().expect("its whole length at least")
    }

    fn payload(&self) -> Vec<u8> {
        payload_of(&self.command)
    }

    fn frame(&self, payload: &[u8]) -> Vec<u8> {
        frame(self.command.code(), payload)
    }

    fn prepare(&self, t: &mut Desk, segment: &str) {
        if self.is_of_writer {
            t.gets(set_up(segment, ANNA), is_set_up(segment, ANNA, UNSET));
        }
    }
}

/// The reply, without what cannot be foretold.
fn hear(t: &mut Desk) -> Command {
    match t.listen() {
        Command::SegmentCreated(made) if made.segment.contains("#transient.") => {
            let parent = made.segment.as_str().split("#transient").next().unwrap_or_default();
            SegmentCreated { segment: parent.into(), ..made }.into()
        }
        Command::StreamSegmentInfo(info) => StreamSegmentInfo { last_modified: 0, ..info }.into(),
        other => other,
    }
}

/// Sends bytes on a new connection of a writer that is set up, and gives the reply.
fn answer(t: &mut Desk, on: &Subjects, sample: &Sample, bytes: &[u8]) -> Command {
    t.hang_up();
    sample.prepare(t, &on.sealed);
    t.send_bytes(bytes);
    hear(t)
}

/// A form that every request has, and how many of them were tried.
pub(crate) struct EveryForm {
    pub(crate) form: &'static str,
    pub(crate) run: fn(&mut Desk, &Subjects) -> u64,
}

pub(crate) const EVERY: &[EveryForm] = &[
    EveryForm { form: "cut short at every byte", run: cut_short },
    EveryForm { form: "without its optional fields", run: without_optional_fields },
    EveryForm { form: "with fields of a later version", run: longer_than_known },
    EveryForm { form: "byte by byte", run: byte_by_byte },
    EveryForm { form: "half of it, and the end of the connection", run: half },
    EveryForm { form: "with any request id", run: with_any_id },
    EveryForm { form: "without a Hello", run: without_hello },
    EveryForm { form: "with a name that is no text, or longer than the frame", run: bad_names },
];

/// Closed without a reply when fields are missing that are not optional.
fn cut_short(t: &mut Desk, on: &Subjects) -> u64 {
    let before = [t.look(&on.segment), t.look(&on.table)];
    let mut forms = 0;
    for sample in samples(on) {
        let payload = sample.payload();
        for length in 0..sample.required() {
            t.hang_up();
            sample.prepare(t, &on.segment);
            t.send_bytes(&sample.frame(&payload[..length]));
            t.hears_the_end();
            forms += 1;
        }
    }
    assert_eq!([t.look(&on.segment), t.look(&on.table)], before, "after requests cut short");
    forms
}

/// Answered as with the defaults, which is what the samples have there; the default id is −1.
fn without_optional_fields(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        let payload = sample.payload();
        let whole = answer(t, on, &sample, &sample.frame(&payload));
        for &length in &sample.boundaries[1..] {
            let short = answer(t, on, &sample, &sample.frame(&payload[..length]));
            if sample.id_at >= length {
                assert_eq!(short.request_id(), Some(-1), "{}: default id", sample.command.name());
            } else {
                assert_eq!(short, whole, "{} of {length} bytes", sample.command.name());
            }
            forms += 1;
        }
    }
    forms
}

/// Bytes behind the last field are ignored.
fn longer_than_known(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        let usual = answer(t, on, &sample, &sample.frame(&sample.payload()));
        let longer = [&sample.payload()[..], b"fields of a later version"].concat();
        assert_eq!(answer(t, on, &sample, &sample.frame(&longer)), usual, "longer");
        forms += 1;
    }
    forms
}

fn byte_by_byte(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        let bytes = sample.frame(&sample.payload());
        let usual = answer(t, on, &sample, &bytes);
        t.hang_up();
        sample.prepare(t, &on.sealed);
        for byte in bytes {
            t.send_bytes(&[byte]);
        }
        assert_eq!(hear(t), usual, "byte by byte");
        forms += 1;
    }
    forms
}

/// A frame that is never completed does nothing.
fn half(t: &mut Desk, on: &Subjects) -> u64 {
    let before = [t.look(&on.segment), t.look(&on.table)];
    let mut forms = 0;
    for sample in samples(on) {
        let bytes = sample.frame(&sample.payload());
        for length in [4, 8, bytes.len() / 2, bytes.len() - 1] {
            t.hang_up();
            sample.prepare(t, &on.segment);
            t.send_bytes(&bytes[..length]);
            forms += 1;
        }
    }
    t.hang_up();
    assert_eq!([t.look(&on.segment), t.look(&on.table)], before, "after halves of requests");
    forms
}

/// All 64 bits of the id come back.
fn with_any_id(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        for id in [0, -1, 1, 1 << 32, i64::MIN, i64::MAX] {
            let mut payload = sample.payload();
            payload[sample.id_at..sample.id_at + 8].copy_from_slice(&id.to_be_bytes());
            let heard = answer(t, on, &sample, &sample.frame(&payload));
            assert_eq!(heard.request_id(), Some(id), "{heard:?}");
            forms += 1;
        }
    }
    forms
}

/// Nothing enforces it.
fn without_hello(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        let bytes = sample.frame(&sample.payload());
        let usual = answer(t, on, &sample, &bytes);
        t.connect_silently();
        sample.prepare(t, &on.sealed);
        t.send_bytes(&bytes);
        assert_eq!(hear(t), usual, "without Hello");
        forms += 1;
    }
    forms
}

/// Closed without a reply.
fn bad_names(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        let Some(at) = sample.name_at else { continue };
        let bad: [&[u8]; 4] = [b"\xC3\x28", b"\xFF", b"\x80", b"\xF8\x88\x80\x80"];
        for bad in bad {
            let mut payload = sample.payload();
            payload[at + 2..at + 2 + bad.len()].copy_from_slice(bad);
            t.hang_up();
            t.send_bytes(&sample.frame(&payload));
            t.hears_the_end();
            forms += 1;
        }
        let mut payload = sample.payload();
        payload[at..at + 2].copy_from_slice(&[0xFF, 0xFF]);
        t.send_bytes(&sample.frame(&payload));
        t.hears_the_end();
        forms += 1;
    }
    forms
}

/// What a shard says to the same requests about segments of another shard.
pub(crate) fn elsewhere(t: &mut Desk, on: &Subjects) -> u64 {
    let mut forms = 0;
    for sample in samples(on) {
        if sample.is_of_writer {
            continue;
        }
        let expected = match &sample.command {
            // Answered alike everywhere.
            Command::LocateOffset(_) => unsupported("locateOffset"),
            command => wrong_host(subject(command)),
        };
        t.gets(sample.command.clone(), expected);
        t.goes_on_elsewhere();
        forms += 1;
    }
    t.gets(set_up(&on.segment, ANNA), wrong_host(&on.segment));
    t.closes(append(ANNA, b"abc", 1, 1));
    forms + 1
}

/// A container that must not serve: each request is closed or answered `WrongHost`.
pub(crate) fn refused(t: &mut Desk, on: &Subjects, lost: &str) -> u64 {
    let mut forms = 0;
    let about_lost = [read(lost, 0, 100), info(lost), seal(lost), delete(lost), set_up(lost, ANNA)];
    let all = samples(on).into_iter().filter(|sample| !sample.is_of_writer);
    for request in all.map(|sample| sample.command).chain(about_lost) {
        if matches!(request, Command::LocateOffset(_)) {
            // Answered alike everywhere.
            continue;
        }
        let expected = wrong_host(subject(&request));
        t.hang_up();
        t.send(request);
        match t.listen_or_end() {
            Some(heard) => assert_eq!(heard, expected, "no definite answer"),
            None => t.hang_up(),
        }
        forms += 1;
    }
    forms
}

/// The segment that a request of the samples is about.
fn subject(command: &Command) -> &str {
    match command {
        Command::SetupAppend(it) => &it.segment,
        Command::ReadSegment(it) => &it.segment,
        Command::GetStreamSegmentInfo(it) => &it.segment,
        Command::CreateSegment(it) => &it.segment,
        Command::CreateTransientSegment(it) => &it.parent_segment,
        Command::SealSegment(it) => &it.segment,
        Command::TruncateSegment(it) => &it.segment,
        Command::DeleteSegment(it) => &it.segment,
        Command::UpdateSegmentPolicy(it) => &it.segment,
        Command::GetSegmentAttribute(it) => &it.segment,
        Command::UpdateSegmentAttribute(it) => &it.segment,
        Command::MergeSegments(it) => &it.target,
        Command::MergeSegmentsBatch(it) => &it.target,
        Command::CreateTableSegment(it) => &it.segment,
        Command::DeleteTableSegment(it) => &it.segment,
        Command::GetTableSegmentInfo(it) => &it.segment,
        Command::UpdateTableEntries(it) => &it.segment,
        Command::RemoveTableKeys(it) => &it.segment,
        Command::ReadTable(it) => &it.segment,
        Command::ReadTableKeys(it) => &it.segment,
        Command::ReadTableEntries(it) => &it.segment,
        Command::ReadTableEntriesDelta(it) => &it.segment,
        other => panic!("{} is about no segment", other.name()),
    }
}
