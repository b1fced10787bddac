//! Where a form is carried out: a connection to try it on, one beside it, fresh segments, and the
//! count of what was asked.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::rig::wire::{connect, connect_silently};
use bytes::BytesMut;
use thalweg_crash::wire::{Trouble, Wire};
use thalweg_net::Placement;
use thalweg_wire::{Command, Hello, Role, StreamSegmentInfo};

use crate::words::*;

/// One request in one form.
pub(crate) struct Form {
    /// Name of the command.
    pub(crate) request: &'static str,
    /// What is special about it.
    pub(crate) form: &'static str,
    /// Carries it out; panics when the answer is another than specified.
    pub(crate) run: fn(&mut Desk),
}

/// Short for a row of a table.
pub(crate) const fn form(request: &'static str, form: &'static str, run: fn(&mut Desk)) -> Form {
    Form { request, form, run }
}

/// How long an answer may take before the form fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that can be seen of a segment from outside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    facts: Vec<Command>,
}

/// A form's view of the server. The main connection is new for each form; closed, it is opened
/// again when it is needed.
pub(crate) struct Desk {
    port: u16,
    wire: Option<Wire>,
    aside: Option<Wire>,
    next_form: u64,
    next_name: u64,
    /// Requests sent, by name.
    pub(crate) sent: BTreeMap<&'static str, u64>,
}

fn open(port: u16) -> Wire {
    let mut wire = connect(port).expect("the server accepts");
    wire.set_patience(PATIENCE);
    wire
}

impl Desk {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, wire: None, aside: None, next_form: 0, next_name: 0, sent: BTreeMap::new() }
    }

    /// Ends both connections and goes over to names of another container.
    pub(crate) fn clear(&mut self) {
        self.wire = None;
        self.aside = None;
        self.next_form += 1;
    }

    /// Lets the connection of the form lead to another port; the one beside stays.
    pub(crate) fn turn_to(&mut self, port: u16) {
        self.beside();
        self.wire = None;
        self.port = port;
    }

    fn wire(&mut self) -> &mut Wire {
        self.wire.get_or_insert_with(|| open(self.port))
    }

    fn beside(&mut self) -> &mut Wire {
        self.aside.get_or_insert_with(|| open(self.port))
    }

    /// Another connection of its own.
    pub(crate) fn connect(&self) -> Wire {
        open(self.port)
    }

    /// A connection on which nothing was said.
    pub(crate) fn connect_silently(&mut self) {
        let mut wire = connect_silently(self.port).expect("the server accepts");
        wire.set_patience(PATIENCE);
        self.wire = Some(wire);
    }

    /// Lets the connection go in the middle of whatever it is.
    pub(crate) fn hang_up(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.cut();
        }
    }

    // The connection of the form.

    /// Sends a command and goes on.
    pub(crate) fn send(&mut self, command: Command) {
        self.count(&command);
        self.wire().send(command).expect("the server lives");
    }

    /// Sends bytes as they are; the server may have closed in the middle of them.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.wire().send_bytes(bytes);
    }

    /// The next frame is this one.
    pub(crate) fn hears(&mut self, expected: &Command) {
        let heard = self.wire().receive_frame().map(timeless);
        assert_eq!(heard.as_ref(), Ok(expected), "heard and expected");
    }

    /// The next frame, whatever it is.
    pub(crate) fn listen(&mut self) -> Command {
        self.wire().receive_frame().expect("a reply, not the end")
    }

    /// The next frame, or that there is none and the connection is closed.
    pub(crate) fn listen_or_end(&mut self) -> Option<Command> {
        match self.wire().receive_frame() {
            Ok(heard) => Some(heard),
            Err(Trouble::Closed) => None,
            Err(other) => panic!("no reply and no end: {other}"),
        }
    }

    /// Asks and gets exactly this.
    pub(crate) fn gets(&mut self, request: Command, expected: Command) {
        self.send(request);
        self.hears(&expected);
    }

    /// Asks; the connection is closed and nothing is said.
    pub(crate) fn closes(&mut self, request: Command) {
        self.send(request);
        self.hears_the_end();
    }

    /// The connection is closed and nothing more is said.
    pub(crate) fn hears_the_end(&mut self) {
        let heard = self.wire().receive_frame();
        assert_eq!(heard, Err(Trouble::Closed), "heard, and a close was expected");
        self.wire = None;
    }

    /// Sets a new writer up.
    pub(crate) fn sets_up(&mut self, segment: &str, writer: u128) {
        self.gets(set_up(segment, writer), is_set_up(segment, writer, UNSET));
    }

    /// The connection is as usable as ever, and no reply is left over.
    pub(crate) fn goes_on(&mut self) {
        let nowhere = self.name();
        self.gets(info(&nowhere), missing(&nowhere));
    }

    /// As [`goes_on`](Self::goes_on), where the segments of this form do not live.
    pub(crate) fn goes_on_elsewhere(&mut self) {
        let nowhere = self.name();
        self.gets(info(&nowhere), wrong_host(&nowhere));
    }

    // The connection beside it.

    /// Asks on the connection beside and gets exactly this.
    pub(crate) fn aside(&mut self, request: Command, expected: Command) {
        self.count(&request);
        self.beside().send(request).expect("the server lives");
        let heard = self.beside().receive_frame().map(timeless);
        assert_eq!(heard, Ok(expected), "heard beside and expected");
    }

    /// Asks on the connection beside, whatever the reply.
    pub(crate) fn ask_aside(&mut self, request: Command) -> Command {
        self.count(&request);
        self.beside().send(request).expect("the server lives");
        self.beside().receive_frame().expect("a reply, not the end")
    }

    // Segments.

    /// A name that nothing has. All names of a form live in one container.
    pub(crate) fn name(&mut self) -> String {
        self.next_name += 1;
        format!("strict/form{}/0.#epoch.{}", self.next_form, self.next_name)
    }

    /// An empty segment.
    pub(crate) fn empty(&mut self) -> String {
        let name = self.name();
        self.aside(create(&name), is_created(&name));
        name
    }

    /// A segment with this content, written by a writer that is used for nothing else.
    pub(crate) fn holding(&mut self, data: &[u8]) -> String {
        let name = self.empty();
        self.fill(&name, data);
        name
    }

    /// Appends to a segment as a writer that is used for nothing else.
    pub(crate) fn fill(&mut self, name: &str, data: &[u8]) {
        const FILLER: u128 = 0xF;
        let Command::AppendSetup(it) = self.ask_aside(set_up(name, FILLER)) else {
            panic!("set-up of the filling writer")
        };
        let Command::StreamSegmentInfo(facts) = self.ask_aside(info(name)) else {
            panic!("facts of a segment that exists")
        };
        let number = it.last_event_number.max(0) + 1;
        let length = facts.write_offset + i64::try_from(data.len()).expect("in memory");
        let expected = appended(FILLER, number, it.last_event_number, length);
        self.aside(append(FILLER, data, 1, number), expected);
    }

    /// A segment with this content in another container than the rest of the form, whether there
    /// is one shard or two.
    pub(crate) fn apart(&mut self, data: &[u8]) -> String {
        let places = [Placement::new(8, 1), Placement::new(16, 2)];
        let form = self.next_form;
        let home = self.name();
        let name = loop {
            self.next_form += 1000;
            let name = self.name();
            if places.iter().all(|it| it.container(&name) != it.container(&home)) {
                break name;
            }
        };
        self.next_form = form;
        self.aside(create(&name), is_created(&name));
        self.fill(&name, data);
        name
    }

    /// A sealed segment.
    pub(crate) fn sealed(&mut self, data: &[u8]) -> String {
        let name = self.holding(data);
        self.aside(seal(&name), is_sealed(&name));
        name
    }

    /// A segment that begins at `start`.
    pub(crate) fn truncated(&mut self, data: &[u8], start: i64) -> String {
        let name = self.holding(data);
        self.aside(truncate(&name, start), is_truncated(&name));
        name
    }

    /// An empty table.
    pub(crate) fn table(&mut self, key_length: i32) -> String {
        let name = self.name();
        self.aside(create_table(&name, key_length), is_created(&name));
        name
    }

    /// A table with `one` → `1` (version 0) and `two` → `2` (version 21).
    pub(crate) fn table_of_two(&mut self) -> String {
        let name = self.table(0);
        let entries: Entries<'_> = &[(b"one", ANY, b"1"), (b"two", ANY, b"2")];
        self.aside(update(&name, entries), is_updated(&[0, 21]));
        name
    }

    /// The segment is exactly that long, and holds exactly that from its start on.
    pub(crate) fn holds(&mut self, name: &str, data: &[u8]) {
        let Command::StreamSegmentInfo(facts) = self.ask_aside(info(name)) else {
            panic!("{name} does not exist")
        };
        let length = usize::try_from(facts.write_offset - facts.start_offset).expect("positive");
        assert_eq!(length, data.len(), "length of {name}");
        let mut at = facts.start_offset;
        let mut found = BytesMut::new();
        while found.len() < length {
            let Command::SegmentRead(read) = self.ask_aside(read(name, at, 2 << 20)) else {
                panic!("{name} cannot be read at {at}")
            };
            at += i64::try_from(read.data.len()).expect("in memory");
            found.extend_from_slice(&read.data);
        }
        assert!(found == data, "content of {name}");
    }

    /// Everything that can be seen of a segment.
    pub(crate) fn look(&mut self, name: &str) -> Seen {
        const COUNT: u128 = thalweg_crash::store::EVENT_COUNT;
        let mut facts = Vec::new();
        for request in [info(name), attribute(name, COUNT), attribute(name, ANNA)] {
            facts.push(self.ask_aside(request));
        }
        facts.push(self.ask_aside(table_info(name)));
        facts.push(self.ask_aside(entries(name, 1000, b"")));
        if let Command::StreamSegmentInfo(it) = &facts[0]
            && it.start_offset < it.write_offset
        {
            let request = read(name, it.start_offset, 2 << 20);
            facts.push(self.ask_aside(request));
        }
        Seen { facts }
    }

    /// Nothing of the segment changed, not even the time of its last change.
    pub(crate) fn unchanged(&mut self, name: &str, before: &Seen) {
        let now = self.look(name);
        assert_eq!(&now, before, "{name} now and before");
    }

    fn count(&mut self, command: &Command) {
        if matches!(command.role(), Role::Session | Role::Append | Role::Request) {
            *self.sent.entry(command.name()).or_default() += 1;
        }
    }
}

/// The time of the last change cannot be foretold: it must be of today, and is compared as 0.
fn timeless(command: Command) -> Command {
    let Command::StreamSegmentInfo(info) = command else { return command };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let now = i64::try_from(since.as_millis()).expect("this millennium");
    let age = now - info.last_modified;
    assert!((-1000..86_400_000).contains(&age), "changed {age} ms ago");
    StreamSegmentInfo { last_modified: 0, ..info }.into()
}

/// A command as bytes.
pub(crate) fn encoded(commands: &[Command]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for command in commands {
        command.encode(&mut out);
    }
    out.to_vec()
}

/// A frame of any type with any payload.
pub(crate) fn frame(code: i32, payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len()).expect("below 2 GiB");
    [&header(code, length)[..], payload].concat()
}

/// A header alone.
pub(crate) fn header(code: i32, length: i32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&code.to_be_bytes());
    out[4..].copy_from_slice(&length.to_be_bytes());
    out
}

/// Our Hello.
pub(crate) fn hello() -> Command {
    Hello::OURS.into()
}
