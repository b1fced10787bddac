//! Writers with many blocks in flight over a chain of segments that a steward seals, truncates and
//! deletes, and a reader at the tail.
//!
//! Checked after each kill, from every byte of every segment: each writer's events are in order,
//! once, without a gap, up to at least what was acknowledged and at most what was sent; each block
//! wholly or not at all; the number that a set-up tells is that of the last event stored; seals,
//! start offsets and deletions stand; what the reader saw is there unchanged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::rig::dice::{Dice, mix};
use crate::rig::payload::{Mark, Sum, parse};
use crate::rig::store::{EVENT_COUNT, Store, len};
use crate::rig::wire::Lost;
use crate::{Lane, Verified};

mod reader;
mod steward;
mod writer;

use writer::Writer;

/// Something that was not asked for, asked for, or acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Done {
    #[default]
    No,
    Asked,
    Yes,
}

impl Done {
    /// Compares with what is so, and knows afterwards.
    pub(crate) fn settle(&mut self, what: &str, is_so: bool) {
        match *self {
            Self::No => assert!(!is_so, "{what}, which nobody asked for"),
            Self::Asked => {}
            Self::Yes => assert!(is_so, "not {what}, which was acknowledged"),
        }
        *self = if is_so { Self::Yes } else { Self::No };
    }
}

/// What is known of one segment of the chain.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) created: Done,
    pub(crate) sealed: Done,
    pub(crate) deleted: Done,
    /// Length that is known to be durable.
    pub(crate) length_min: i64,
    /// Length once it was known to be sealed.
    pub(crate) length_final: Option<i64>,
    /// Start offset that was acknowledged, and the one last asked for.
    pub(crate) start_min: i64,
    pub(crate) start_max: i64,
    /// Writers that appended here and have gone on to the successor.
    pub(crate) writers_left: usize,
    /// Ends of acknowledged blocks, places to truncate at.
    pub(crate) boundaries: Vec<i64>,
    /// What the reader saw, from the first byte on.
    pub(crate) seen_length: i64,
    pub(crate) seen_sum: Sum,
}

impl Segment {
    fn new(lane: u64, index: u64) -> Self {
        Self {
            name: format!("crash/writers-{lane}/{index}.#epoch.{index}"),
            created: Done::No,
            sealed: Done::No,
            deleted: Done::No,
            length_min: 0,
            length_final: None,
            start_min: 0,
            start_max: 0,
            writers_left: 0,
            boundaries: Vec::new(),
            seen_length: 0,
            seen_sum: Sum::EMPTY,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.created == Done::Yes && self.deleted == Done::No
    }
}

/// The chain, shared by writers, steward and reader of one lane.
#[derive(Clone)]
pub(crate) struct Chain {
    lane: u64,
    /// How many writers append to it.
    writers: usize,
    segments: Arc<Mutex<Vec<Segment>>>,
}

impl Chain {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().expect("a part of this lane failed")
    }

    /// Index of the segment that takes appends.
    pub(crate) fn newest(&self) -> usize {
        self.lock().iter().rposition(|it| it.created == Done::Yes).expect("the first is created")
    }
}

/// The id by which writer `author` appends to the segment `index` of its chain.
pub(crate) fn writer_id(author: u64, index: usize) -> u128 {
    u128::from(mix(author + 1)) << 64 | u128::from(mix(index as u64 + 77) & (u64::MAX >> 1))
}

/// The lane.
pub(crate) struct Writers {
    chain: Chain,
    writers: Vec<Writer>,
    dice: Dice,
}

impl Writers {
    pub(crate) fn new(lane: u64, writers: u64, mut dice: Dice) -> Self {
        let segments = Arc::new(Mutex::new(vec![Segment::new(lane, 0)]));
        let writers: Vec<Writer> = (0..writers)
            .map(|number| Writer::new(1 + lane * 1000 + number, dice.split(number)))
            .collect();
        Self { chain: Chain { lane, writers: writers.len(), segments }, writers, dice }
    }

    fn create_first(&self, store: &mut Store) -> Result<(), Lost> {
        let mut segments = self.chain.lock();
        if segments[0].created != Done::Yes {
            segments[0].created = Done::Asked;
            let name = segments[0].name.clone();
            assert!(store.create(&name)?, "{name} exists");
            segments[0].created = Done::Yes;
        }
        Ok(())
    }

    /// Reads one segment of the chain; gives the marks that are stored, in order.
    fn verify_segment(store: &mut Store, segment: &mut Segment) -> Result<Stored, Lost> {
        let name = segment.name.clone();
        let found = store.info(&name)?;
        if segment.created != Done::Yes {
            segment.created.settle(&format!("{name} created"), found.is_some());
        } else if segment.deleted != Done::No {
            segment.deleted.settle(&format!("{name} deleted"), found.is_none());
        }
        let Some(info) = found else {
            assert!(!segment.exists(), "{name} is gone");
            return Ok(Stored::default());
        };
        segment.sealed.settle(&format!("{name} sealed"), info.is_sealed);
        let (start, length) = (info.start_offset, info.write_offset);
        let starts = segment.start_min..=segment.start_max;
        assert!(starts.contains(&start), "{name}: start offset {start} is not in {starts:?}");
        (segment.start_min, segment.start_max) = (start, start);
        let least = segment.length_min.max(segment.seen_length);
        assert!(length >= least, "{name}: {least} bytes acknowledged or read, {length} there");
        segment.length_min = length;
        if segment.sealed == Done::Yes {
            let last = *segment.length_final.get_or_insert(length);
            assert_eq!(length, last, "{name}: length after the seal");
            store.assert_ends(&name, length)?;
        }
        let data = store.read_all(&name, start, length)?;
        if start == 0 {
            let seen = usize::try_from(segment.seen_length).expect("it is in memory");
            let mut sum = Sum::EMPTY;
            sum.add(&data[..seen]);
            assert_eq!(sum, segment.seen_sum, "{name}: the first {seen} bytes were read otherwise");
        }
        let bytes = len(&data);
        let marks = parse(&name, start, data).into_iter().map(|(_, mark)| mark).collect();
        Ok(Stored { is_there: true, is_whole: start == 0, bytes, marks })
    }
}

/// What one segment holds.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) is_there: bool,
    /// It was never truncated.
    pub(crate) is_whole: bool,
    bytes: i64,
    pub(crate) marks: Vec<Mark>,
}

impl Lane for Writers {
    fn name(&self) -> String {
        format!("writers {}", self.chain.lane)
    }

    fn work(&mut self, ports: &[u16]) {
        // Whoever loses the server ends, so all errors are the same good news here.
        if self.create_first(&mut Store::new(ports)).is_err() {
            return;
        }
        let mut dice = self.dice.split(1);
        thread::scope(|scope| {
            for writer in &mut self.writers {
                let chain = &self.chain;
                scope.spawn(move || writer.run(chain, &mut Store::new(ports)));
            }
            let chain = &self.chain;
            scope.spawn(move || reader::run(chain, &mut Store::new(ports)));
            steward::run(chain, &mut Store::new(ports), &mut dice);
        });
    }

    fn verify(&mut self, ports: &[u16]) -> Verified {
        let mut store = Store::new(ports);
        let mut verified = Verified::default();
        let mut segments = self.chain.lock();
        let mut stored = Vec::new();
        for segment in segments.iter_mut() {
            let found = Self::verify_segment(&mut store, segment).expect("the server lives");
            verified.items += found.marks.len() as u64;
            verified.bytes += found.bytes.unsigned_abs();
            stored.push(found);
        }
        let mut counts: BTreeMap<usize, i64> = BTreeMap::new();
        for writer in &mut self.writers {
            writer.verify(&stored, |index, id| {
                let last = store.attribute(&segments[index].name, id).expect("the server lives");
                *counts.entry(index).or_default() += last.max(0);
                last
            });
        }
        for (index, events) in counts {
            let name = &segments[index].name;
            let counted = store.attribute(name, EVENT_COUNT).expect("the server lives");
            assert_eq!(counted.max(0), events, "{name}: count of events");
        }
        verified
    }
}

/// Pause between two tries of something that another thread of the lane must do first.
pub(crate) fn breathe() {
    thread::sleep(Duration::from_millis(2));
}
