//! A whole segment store, all its ports: each request goes to the port that owns the segment.
//!
//! Where a segment lives is found by asking, never computed: what answers other than `WrongHost`
//! owns it. One request at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    Command, CreateSegment, DeleteSegment, GetSegmentAttribute, GetStreamSegmentInfo, ReadSegment,
    SealSegment, StreamSegmentInfo, Text, TruncateSegment, UpdateSegmentAttribute,
};

use super::wire::{Answer, Lost, Wire};

/// How long a store may say that nobody owns a segment, after it said that it is ready.
const OWNERLESS_MAX: Duration = Duration::from_secs(10);

/// The attribute that counts the events of a segment.
pub(crate) const EVENT_COUNT: u128 = (1 << 127) | 1;

/// Connections to the ports of one server.
pub(crate) struct Store {
    ports: Vec<u16>,
    wires: HashMap<u16, Wire>,
    owners: HashMap<String, u16>,
}

/// No delegation token.
pub(crate) fn none() -> Text {
    Text::new()
}

impl Store {
    pub(crate) fn new(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), wires: HashMap::new(), owners: HashMap::new() }
    }

    fn wire(&mut self, port: u16) -> Result<&mut Wire, Lost> {
        Ok(match self.wires.entry(port) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Wire::connect(port)?),
        })
    }

    /// The port that serves a segment, whether the segment exists or not.
    pub(crate) fn owner(&mut self, segment: &str) -> Result<u16, Lost> {
        // Transactions and transient segments live with their parent.
        let parent = segment.split('#').next().unwrap_or(segment).to_owned();
        if let Some(port) = self.owners.get(&parent) {
            return Ok(*port);
        }
        let begin = Instant::now();
        loop {
            for port in self.ports.clone() {
                let reply = self.wire(port)?.ask(|id| info_request(id, segment));
                match must_answer("GetStreamSegmentInfo", segment, reply)? {
                    Command::WrongHost(_) => {}
                    _ => {
                        self.owners.insert(parent, port);
                        return Ok(port);
                    }
                }
            }
            assert!(begin.elapsed() < OWNERLESS_MAX, "no port of {:?} owns {segment}", self.ports);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A new connection to the owner of a segment, for append sessions.
    pub(crate) fn session(&mut self, segment: &str) -> Result<Wire, Lost> {
        let port = self.owner(segment)?;
        Wire::connect(port)
    }

    /// A request about a segment and its reply. A store that says nothing for the time-out fails
    /// the test.
    pub(crate) fn ask(&mut self, segment: &str, make: impl FnOnce(i64) -> Command) -> Answer {
        let port = self.owner(segment)?;
        let mut name = "";
        let reply = self.wire(port)?.ask(|id| {
            let command = make(id);
            name = command.name();
            command
        });
        if reply.is_err() {
            self.wires.remove(&port);
        }
        must_answer(name, segment, reply)
    }

    pub(crate) fn info(&mut self, segment: &str) -> Result<Option<StreamSegmentInfo>, Lost> {
        match self.ask(segment, |id| info_request(id, segment))? {
            Command::StreamSegmentInfo(info) => Ok(Some(info)),
            Command::NoSuchSegment(_) => Ok(None),
            other => panic!("{segment}: {other:?} to GetStreamSegmentInfo"),
        }
    }

    /// True when it was created, false when it existed.
    pub(crate) fn create(&mut self, segment: &str) -> Result<bool, Lost> {
        let reply = self.ask(segment, |request_id| {
            CreateSegment {
                request_id,
                segment: segment.into(),
                target_rate: 0,
                scale_type: 0,
                delegation_token: none(),
                rollover_size_bytes: 0,
            }
            .into()
        })?;
        match reply {
            Command::SegmentCreated(_) => Ok(true),
            Command::SegmentAlreadyExists(_) => Ok(false),
            other => panic!("{segment}: {other:?} to CreateSegment"),
        }
    }

    /// True when it was deleted, false when it did not exist.
    pub(crate) fn delete(&mut self, segment: &str) -> Result<bool, Lost> {
        let reply = self.ask(segment, |request_id| {
            DeleteSegment { request_id, segment: segment.into(), delegation_token: none() }.into()
        })?;
        match reply {
            Command::SegmentDeleted(_) => Ok(true),
            Command::NoSuchSegment(_) => Ok(false),
            other => panic!("{segment}: {other:?} to DeleteSegment"),
        }
    }

    pub(crate) fn seal(&mut self, segment: &str) -> Result<(), Lost> {
        let reply = self.ask(segment, |request_id| {
            SealSegment { request_id, segment: segment.into(), delegation_token: none() }.into()
        })?;
        match reply {
            Command::SegmentSealed(_) => Ok(()),
            other => panic!("{segment}: {other:?} to SealSegment"),
        }
    }

    pub(crate) fn truncate(&mut self, segment: &str, offset: i64) -> Result<(), Lost> {
        let reply = self.ask(segment, |request_id| {
            TruncateSegment {
                request_id,
                segment: segment.into(),
                truncation_offset: offset,
                delegation_token: none(),
            }
            .into()
        })?;
        match reply {
            Command::SegmentTruncated(_) => Ok(()),
            other => panic!("{segment}: {other:?} to TruncateSegment {offset}"),
        }
    }

    pub(crate) fn attribute(&mut self, segment: &str, attribute_id: u128) -> Result<i64, Lost> {
        let reply = self.ask(segment, |request_id| {
            GetSegmentAttribute {
                request_id,
                segment: segment.into(),
                attribute_id,
                delegation_token: none(),
            }
            .into()
        })?;
        match reply {
            Command::SegmentAttribute(attribute) => Ok(attribute.value),
            other => panic!("{segment}: {other:?} to GetSegmentAttribute"),
        }
    }

    /// Compare-and-set; false when the value is not `expected`.
    pub(crate) fn set_attribute(
        &mut self,
        segment: &str,
        attribute_id: u128,
        expected: i64,
        value: i64,
    ) -> Result<bool, Lost> {
        let reply = self.ask(segment, |request_id| {
            UpdateSegmentAttribute {
                request_id,
                segment: segment.into(),
                attribute_id,
                new_value: value,
                expected_value: expected,
                delegation_token: none(),
            }
            .into()
        })?;
        match reply {
            Command::SegmentAttributeUpdated(it) => Ok(it.success),
            other => panic!("{segment}: {other:?} to UpdateSegmentAttribute"),
        }
    }

    /// One read and its reply.
    pub(crate) fn read(&mut self, segment: &str, offset: i64, length: i32) -> Answer {
        self.ask(segment, |request_id| {
            ReadSegment {
                segment: segment.into(),
                offset,
                suggested_length: length,
                delegation_token: none(),
                request_id,
            }
            .into()
        })
    }

    /// All bytes from `start` up to `end`, which must be there.
    pub(crate) fn read_all(&mut self, segment: &str, start: i64, end: i64) -> Result<Bytes, Lost> {
        let mut data = BytesMut::new();
        let mut at = start;
        while at < end {
            let length = i32::try_from((end - at).min(2 << 20)).expect("at most 2 MiB");
            match self.read(segment, at, length)? {
                Command::SegmentRead(read) => {
                    assert_eq!(read.offset, at, "{segment}: offset of a read");
                    assert!(!read.data.is_empty(), "{segment}: empty read at {at} before {end}");
                    assert!(
                        !read.end_of_segment || at + len(&read.data) >= end,
                        "{segment}: end told at {at}, {} bytes before {end}",
                        read.data.len()
                    );
                    at += len(&read.data);
                    data.extend_from_slice(&read.data);
                }
                other => panic!("{segment}: {other:?} to a read at {at} before {end}"),
            }
        }
        // A reply may hold more than was asked for, never less than a byte.
        data.truncate(usize::try_from(end - start).expect("a segment in memory"));
        Ok(data.freeze())
    }

    /// Asserts that a sealed segment ends at `length`.
    pub(crate) fn assert_ends(&mut self, segment: &str, length: i64) -> Result<(), Lost> {
        match self.read(segment, length, 100)? {
            Command::SegmentRead(read) if read.data.is_empty() && read.end_of_segment => Ok(()),
            other => panic!("{segment}: {other:?} to a read at the end of a sealed segment"),
        }
    }
}

/// Length as a position in a segment.
pub(crate) fn len(data: &[u8]) -> i64 {
    i64::try_from(data.len()).expect("lengths in memory are positions")
}

fn info_request(request_id: i64, segment: &str) -> Command {
    GetStreamSegmentInfo { request_id, segment: segment.into(), delegation_token: none() }.into()
}

fn must_answer(name: &str, segment: &str, reply: Answer) -> Answer {
    if let Err(Lost::Silent) = reply {
        panic!("{segment}: no reply to {name}, and the connection stands");
    }
    reply
}
