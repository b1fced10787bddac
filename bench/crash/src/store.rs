//! A whole segment store, all its ports: each request goes to the port that owns the segment.
//!
//! Where a segment lives is found by asking, never computed: what answers other than `WrongHost`
//! owns it. One request at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thalweg_wire::{
    Command, CreateSegment, DeleteSegment, GetSegmentAttribute, GetStreamSegmentInfo, ReadSegment,
    SealSegment, StreamSegmentInfo, Text, TruncateSegment, UpdateSegmentAttribute,
};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::wire::{Answer, StopSwitch, Trouble, Wire};

/// How long a store may say that nobody owns a segment, after it said that it is ready.
const OWNERLESS_MAX: Duration = Duration::from_secs(10);

/// The attribute that counts the events of a segment.
pub const EVENT_COUNT: u128 = (1 << 127) | 1;

/// A way to the ports of one server: directly, or through proxies.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where to connect, one address for each port of the server.
    pub addresses: Vec<SocketAddr>,
    /// The server's own addresses.
    pub server: Vec<SocketAddr>,
    /// Longest wait for a reply.
    pub patience: Duration,
    /// Ends waits.
    pub stop: StopSwitch,
}

/// Longest wait for a reply of a server that nobody disturbs.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Route {
    /// The way without proxies, on which no wait is cut short: what is asked on it is answered, or
    /// the server is gone.
    #[must_use]
    pub fn direct(&self) -> Self {
        Self::to(self.server.clone())
    }

    /// The way to a server without proxies.
    pub fn to(server: Vec<SocketAddr>) -> Self {
        let addresses = server.clone();
        Self { addresses, server, patience: PATIENCE, stop: StopSwitch::default() }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn connect(&self, address: SocketAddr) -> Result<Wire, Trouble> {
        Wire::connect(address, self.patience, &self.stop)
    }

    /// Goes on after a connection was lost, with new connections and after a breath; silence
    /// counts as a loss only where a proxy may cause it.
    ///
    /// # Errors
    /// The trouble itself, when it is none that a lane lives through.
    pub fn lost(&self, trouble: Trouble, store: &mut Store) -> Result<(), Trouble> {
        let is_silence_usual = self.addresses != self.server;
        match trouble {
            Trouble::Closed => {}
            Trouble::Silent(_) if is_silence_usual => {}
            other => return Err(other),
        }
        store.disconnect();
        if self.stop.is_stopped() {
            return Err(Trouble::Stopped);
        }
        thread::sleep(Duration::from_millis(5));
        Ok(())
    }
}

/// Connections to the ports of one server.
pub struct Store {
    route: Route,
    wires: HashMap<SocketAddr, Wire>,
    owners: HashMap<String, SocketAddr>,
}

/// No delegation token.
pub fn none() -> Text {
    Text::new()
}

impl Store {
    /// Without connections yet; they are made when they are needed.
    pub fn new(route: &Route) -> Self {
        Self { route: route.clone(), wires: HashMap::new(), owners: HashMap::new() }
    }

    fn wire(&mut self, address: SocketAddr) -> Result<&mut Wire, Trouble> {
        Ok(match self.wires.entry(address) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.route.connect(address)?),
        })
    }

    /// Whether waits are to end.
    pub fn is_stopped(&self) -> bool {
        self.route.stop.is_stopped()
    }

    /// Forgets all connections, as after one was lost.
    pub fn disconnect(&mut self) {
        self.wires.clear();
    }

    /// The address of the port that serves a segment, whether the segment exists or not.
    pub fn owner(&mut self, segment: &str) -> Result<SocketAddr, Trouble> {
        // Transactions and transient segments live with their parent.
        let parent = segment.split('#').next().unwrap_or(segment).to_owned();
        if let Some(address) = self.owners.get(&parent) {
            return Ok(*address);
        }
        let begin = Instant::now();
        loop {
            for address in self.route.addresses.clone() {
                let reply = self.wire(address)?.ask(|id| info_request(id, segment));
                match reply? {
                    Command::WrongHost(_) => {}
                    _ => {
                        self.owners.insert(parent, address);
                        return Ok(address);
                    }
                }
            }
            ensure!(
                begin.elapsed() < OWNERLESS_MAX,
                "no port of {:?} owns {segment}",
                self.route.addresses
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A new connection to the owner of a segment, for append sessions.
    pub fn session(&mut self, segment: &str) -> Result<Wire, Trouble> {
        let address = self.owner(segment)?;
        self.route.connect(address)
    }

    /// A request about a segment and its reply. A store that says nothing for the time-out fails
    /// the test.
    pub fn ask(&mut self, segment: &str, make: impl FnOnce(i64) -> Command) -> Answer {
        let address = self.owner(segment)?;
        let reply = self.wire(address)?.ask(make);
        if reply.is_err() {
            self.wires.remove(&address);
        }
        reply
    }

    /// Properties of a segment; `None` when there is none of this name.
    ///
    /// # Errors
    /// [`Trouble`]; [`Trouble::Wrong`] for a reply of another kind. So all that follow.
    pub fn info(&mut self, segment: &str) -> Result<Option<StreamSegmentInfo>, Trouble> {
        match self.ask(segment, |id| info_request(id, segment))? {
            Command::StreamSegmentInfo(info) => Ok(Some(info)),
            Command::NoSuchSegment(_) => Ok(None),
            other => wrong!("{segment}: {other:?} to GetStreamSegmentInfo"),
        }
    }

    /// True when it was created, false when it existed.
    pub fn create(&mut self, segment: &str) -> Result<bool, Trouble> {
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
            other => wrong!("{segment}: {other:?} to CreateSegment"),
        }
    }

    /// True when it was deleted, false when it did not exist.
    pub fn delete(&mut self, segment: &str) -> Result<bool, Trouble> {
        let reply = self.ask(segment, |request_id| {
            DeleteSegment { request_id, segment: segment.into(), delegation_token: none() }.into()
        })?;
        match reply {
            Command::SegmentDeleted(_) => Ok(true),
            Command::NoSuchSegment(_) => Ok(false),
            other => wrong!("{segment}: {other:?} to DeleteSegment"),
        }
    }

    /// Seals a segment, or finds it sealed.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn seal(&mut self, segment: &str) -> Result<(), Trouble> {
        let reply = self.ask(segment, |request_id| {
            SealSegment { request_id, segment: segment.into(), delegation_token: none() }.into()
        })?;
        match reply {
            Command::SegmentSealed(_) => Ok(()),
            other => wrong!("{segment}: {other:?} to SealSegment"),
        }
    }

    /// Lets a segment begin at `offset`.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn truncate(&mut self, segment: &str, offset: i64) -> Result<(), Trouble> {
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
            other => wrong!("{segment}: {other:?} to TruncateSegment {offset}"),
        }
    }

    /// The value of an attribute, or the null value.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn attribute(&mut self, segment: &str, attribute_id: u128) -> Result<i64, Trouble> {
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
            other => wrong!("{segment}: {other:?} to GetSegmentAttribute"),
        }
    }

    /// Compare-and-set; false when the value is not `expected`.
    pub fn set_attribute(
        &mut self,
        segment: &str,
        attribute_id: u128,
        expected: i64,
        value: i64,
    ) -> Result<bool, Trouble> {
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
            other => wrong!("{segment}: {other:?} to UpdateSegmentAttribute"),
        }
    }

    /// One read and its reply.
    pub fn read(&mut self, segment: &str, offset: i64, length: i32) -> Answer {
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
    pub fn read_all(&mut self, segment: &str, start: i64, end: i64) -> Result<Bytes, Trouble> {
        let mut data = BytesMut::new();
        let mut at = start;
        while at < end {
            let length = i32::try_from((end - at).min(2 << 20)).expect("at most 2 MiB");
            match self.read(segment, at, length)? {
                Command::SegmentRead(read) => {
                    ensure_eq!(read.offset, at, "{segment}: offset of a read");
                    ensure!(!read.data.is_empty(), "{segment}: empty read at {at} before {end}");
                    ensure!(
                        !read.end_of_segment || at + len(&read.data) >= end,
                        "{segment}: end told at {at}, {} bytes before {end}",
                        read.data.len()
                    );
                    at += len(&read.data);
                    data.extend_from_slice(&read.data);
                }
                other => wrong!("{segment}: {other:?} to a read at {at} before {end}"),
            }
        }
        // A reply may hold more than was asked for, never less than a byte.
        data.truncate(usize::try_from(end - start).expect("a segment in memory"));
        Ok(data.freeze())
    }

    /// Asserts that a sealed segment ends at `length`.
    pub fn assert_ends(&mut self, segment: &str, length: i64) -> Result<(), Trouble> {
        match self.read(segment, length, 100)? {
            Command::SegmentRead(read) if read.data.is_empty() && read.end_of_segment => Ok(()),
            other => wrong!("{segment}: {other:?} to a read at the end of a sealed segment"),
        }
    }
}

/// Length as a position in a segment.
pub fn len(data: &[u8]) -> i64 {
    i64::try_from(data.len()).expect("lengths in memory are positions")
}

fn info_request(request_id: i64, segment: &str) -> Command {
    GetStreamSegmentInfo { request_id, segment: segment.into(), delegation_token: none() }.into()
}
