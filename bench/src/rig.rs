//! What a load runs on: new segments spread over the stores, connections that share them, and one
//! append session for each writer.
//!
//! A rig deletes its segments when it is taken down. The acknowledged length of each segment is
//! kept where the truncating thread can see it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use thalweg_wire::{
    Command, CreateSegment, DataAppended, DeleteSegment, NO_EVENT_NUMBER, SetupAppend, Text,
};

use crate::connection::{Connection, WriterId};
use crate::locate::{Locator, Place, spread};

/// Shape of a rig.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Segments, spread evenly over the stores.
    pub(crate) segments: usize,
    /// Connections, dealt to the stores in turn, so that each store gets at least one.
    pub(crate) connections: usize,
    /// Writers of each segment, all on one connection.
    pub(crate) writers_per_segment: usize,
}

/// Segments with their acknowledged lengths, shared with the truncating thread.
pub(crate) struct Segments {
    pub(crate) places: Vec<Place>,
    lengths: Vec<AtomicI64>,
}

impl Segments {
    fn new(places: Vec<Place>) -> Self {
        let lengths = places.iter().map(|_| AtomicI64::new(0)).collect();
        Self { places, lengths }
    }

    /// Length that was acknowledged last.
    pub(crate) fn length(&self, segment: usize) -> i64 {
        self.lengths[segment].load(Ordering::Relaxed)
    }

    /// A length told by an acknowledgement.
    pub(crate) fn grown(&self, segment: usize, length: i64) {
        self.lengths[segment].store(length, Ordering::Relaxed);
    }

    /// Indices of the segments by the store that serves them.
    pub(crate) fn by_address(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, place) in self.places.iter().enumerate() {
            found.entry(&place.address).or_default().push(index);
        }
        found
    }
}

/// Segments, connections and writers, ready for a load.
pub(crate) struct Rig {
    pub(crate) segments: Arc<Segments>,
    pub(crate) connections: Vec<Connection>,
    /// Writers of each connection. Writer `w` appends to segment `w % segments`.
    pub(crate) writers: Vec<Vec<usize>>,
    /// Distinguishes the writers of this run from those of all others.
    pub(crate) run: u64,
    /// Number of each writer's last acknowledged event.
    last_numbers: Vec<u64>,
}

impl Rig {
    /// Creates the segments, connects, and opens an append session for every writer.
    pub(crate) fn set_up(locator: &dyn Locator, name: &str, shape: Shape) -> anyhow::Result<Self> {
        ensure!(shape.connections > 0, "a load without connections");
        ensure!(shape.writers_per_segment > 0, "a load without writers");
        let segments = Segments::new(spread(locator, name, shape.segments)?);
        create(&segments)?;
        let run = RandomState::new().hash_one(name);
        let mut connections = Vec::new();
        let mut writers = Vec::new();
        for (address, own) in shares(&segments, shape.connections) {
            let mut connection = Connection::connect(&address)?;
            let own: Vec<usize> = (0..shape.writers_per_segment)
                .flat_map(|round| own.iter().map(move |segment| round * shape.segments + segment))
                .collect();
            open_sessions(&mut connection, &segments, run, &own)?;
            connection.set_nonblocking()?;
            connections.push(connection);
            writers.push(own);
        }
        let last_numbers = vec![0; shape.segments * shape.writers_per_segment];
        Ok(Self { segments: Arc::new(segments), connections, writers, run, last_numbers })
    }

    /// Number of the last event of a writer that earlier loads on this rig got acknowledged.
    pub(crate) fn last_number(&self, writer: usize) -> u64 {
        self.last_numbers[writer]
    }

    /// A load is over in which each writer got so many events acknowledged.
    pub(crate) fn advance(&mut self, events: impl Iterator<Item = u64>) {
        for (last, events) in self.last_numbers.iter_mut().zip(events) {
            *last += events;
        }
    }

    /// Writers of all connections.
    pub(crate) fn writer_count(&self) -> usize {
        self.writers.iter().map(Vec::len).sum()
    }

    /// Waits until a connection has something to receive, or takes what is queued for it, or the
    /// time is over. Gives the indices of those that have something to receive.
    pub(crate) fn wait(&self, timeout: Duration, ready: &mut Vec<usize>) -> anyhow::Result<()> {
        let mut polled: Vec<PollFd<'_>> = self
            .connections
            .iter()
            .map(|connection| {
                let sending = connection.unsent_bytes() > 0;
                let out = if sending { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::new(connection, PollFlags::IN | out)
            })
            .collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs())?,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        ready.clear();
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let arrived = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        ready.extend(
            polled
                .iter()
                .enumerate()
                .filter(|(_, one)| one.revents().intersects(arrived))
                .map(|(index, _)| index),
        );
        Ok(())
    }

    /// Takes what has arrived on a connection, and gives each acknowledgement with its writer.
    pub(crate) fn acknowledgements(
        &mut self,
        connection: usize,
        mut take: impl FnMut(usize, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.connections[connection].receive()? {
            return Ok(());
        }
        let count = self.segments.places.len();
        while let Some(command) = self.connections[connection].next_command()? {
            let appended = match command {
                Command::DataAppended(appended) => appended,
                Command::KeepAlive(_) => continue,
                other => bail!("an acknowledgement was expected: {other:?}"),
            };
            let (writer, number) = identify(self.run, &appended)?;
            self.segments.grown(writer % count, appended.current_segment_write_offset);
            take(writer, number)?;
        }
        Ok(())
    }

    /// Deletes the segments.
    pub(crate) fn take_down(self) -> anyhow::Result<()> {
        drop(self.connections);
        for (address, own) in self.segments.by_address() {
            let mut control = Connection::connect(address)?;
            control.request_all(&own, |request_id, segment| DeleteSegment {
                request_id,
                segment: Text::from(self.segments.places[*segment].segment.as_str()),
                delegation_token: Text::new(),
            })?;
        }
        Ok(())
    }
}

fn identify(run: u64, appended: &DataAppended) -> anyhow::Result<(usize, u64)> {
    ensure!(appended.writer_id >> 64 == u128::from(run), "of a foreign writer: {appended:?}");
    Ok((WriterId::index(appended.writer_id), u64::try_from(appended.event_number)?))
}

fn create(segments: &Segments) -> anyhow::Result<()> {
    for (address, own) in segments.by_address() {
        let mut control = Connection::connect(address)?;
        control.request_all(&own, |request_id, segment| CreateSegment {
            request_id,
            segment: Text::from(segments.places[*segment].segment.as_str()),
            target_rate: 0,
            scale_type: 0,
            delegation_token: Text::new(),
            rollover_size_bytes: 0,
        })?;
    }
    Ok(())
}

/// The address and the segments of each connection.
fn shares(segments: &Segments, connections: usize) -> Vec<(String, Vec<usize>)> {
    let by_address = segments.by_address();
    let stores = by_address.len();
    let mut shares = Vec::new();
    for (store, (address, own)) in by_address.into_iter().enumerate() {
        // Dealt in turn: the first stores get one more when it does not divide.
        let here = (connections + stores - 1 - store) / stores;
        let here = here.clamp(1, own.len());
        for index in 0..here {
            let part = own.iter().copied().skip(index).step_by(here).collect();
            shares.push((address.to_owned(), part));
        }
    }
    shares
}

fn open_sessions(
    connection: &mut Connection,
    segments: &Segments,
    run: u64,
    writers: &[usize],
) -> anyhow::Result<()> {
    let replies = connection.request_all(writers, |request_id, writer| SetupAppend {
        request_id,
        writer_id: WriterId::new(run, *writer).0,
        segment: Text::from(segments.places[writer % segments.places.len()].segment.as_str()),
        delegation_token: Text::new(),
    })?;
    for reply in replies {
        match reply {
            Command::AppendSetup(setup) if setup.last_event_number == NO_EVENT_NUMBER => {}
            other => bail!("a new writer was expected: {other:?}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(stores: &[usize]) -> Segments {
        let place = |store: usize, index: usize| Place {
            segment: format!("s/{store}/{index}"),
            address: format!("store-{store}:1"),
        };
        let places = stores
            .iter()
            .enumerate()
            .flat_map(|(store, count)| (0..*count).map(move |index| place(store, index)))
            .collect();
        Segments::new(places)
    }

    /// Shows that connections are divided among stores, each segment is on exactly one connection,
    /// and no connection is without a segment.
    #[test]
    fn connections_share_the_segments_of_their_store() {
        for (stores, connections, expected) in [
            (vec![8, 8], 4, 4),
            (vec![8, 8], 16, 16),
            (vec![16], 1, 1),
            (vec![8, 8], 1, 2),
            (vec![2, 2], 16, 4),
            (vec![6, 5, 5], 4, 4),
        ] {
            let segments = segments(&stores);
            let shares = shares(&segments, connections);
            assert_eq!(shares.len(), expected, "{stores:?} {connections}");
            let mut all: Vec<usize> = shares.iter().flat_map(|(_, own)| own.clone()).collect();
            all.sort_unstable();
            assert_eq!(all, (0..stores.iter().sum()).collect::<Vec<_>>());
            for (address, own) in &shares {
                assert!(!own.is_empty());
                assert!(own.iter().all(|one| segments.places[*one].address == *address));
            }
        }
    }
}
