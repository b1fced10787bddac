//! Writers with many blocks in flight over a chain of segments that a steward seals, truncates and
//! deletes, and a reader that follows. They go on over lost connections and over kills.
//!
//! Checked, from every byte that is read: each writer's events are in order, once, without a gap,
//! up to at least what was acknowledged and at most what was sent; each block wholly or not at all;
//! the number that a set-up tells is that of the last event stored, and after a set-up nothing of
//! an older connection is stored; seals, start offsets and deletions stand; what the reader saw is
//! there unchanged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use thalweg_checker::id::{Segment as SegmentName, Writer as Author};
use thalweg_checker::payload::{Event, PAYLOAD_BYTES_MIN};
use thalweg_checker::record::{Discipline, Happened};

use crate::claim::ensure;
use crate::dice::{Dice, mix};
use crate::history::History;
use crate::lane::{self, Lane, Verified, join_all};
use crate::store::Route;
use crate::wire::Trouble;
use crate::witness::Witness;

mod reader;
mod steward;
mod verify;
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
    pub(crate) fn settle(&mut self, what: &str, is_so: bool) -> Result<(), Trouble> {
        match *self {
            Self::No => ensure!(!is_so, "{what}, which nobody asked for"),
            Self::Asked => {}
            Self::Yes => ensure!(is_so, "not {what}, which was acknowledged"),
        }
        *self = if is_so { Self::Yes } else { Self::No };
        Ok(())
    }
}

/// How far a reading of a segment has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Everything before this place was read and judged.
    pub(crate) at: i64,
    /// It did not begin at the first byte, which had been truncated.
    pub(crate) is_partial: bool,
    /// The first and the last serial of each author before it.
    pub(crate) serials: BTreeMap<u64, (u64, u64)>,
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
    /// Ends of acknowledged blocks, places to truncate at; the newest.
    pub(crate) boundaries: Vec<i64>,
    /// What the reader saw, from the first byte on.
    pub(crate) seen: Progress,
    /// What was verified.
    pub(crate) verified: Progress,
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
            seen: Progress::default(),
            verified: Progress::default(),
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
    tally: Arc<Tally>,
    history: Arc<History>,
}

/// What the threads of a lane count.
#[derive(Default)]
pub(crate) struct Tally {
    acknowledged: AtomicU64,
    reconnects: AtomicU64,
    /// Events and bytes that the reader judged since the last verification.
    items_read: AtomicU64,
    bytes_read: AtomicU64,
}

impl Chain {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().expect("no thread of the lane panics with it")
    }

    /// Tells the history that an author writes to the segment `index` from behind `bases[index]`.
    fn introduce(&self, author: u64, index: usize, bases: &[u64]) -> Result<(), Trouble> {
        let first = i64::try_from(bases[index] + 1).expect("far below 2^63");
        let segments = self.lock();
        let name = |index: usize| SegmentName::new(&segments[index].name);
        self.history.note(Happened::Writer {
            segment: name(index),
            writer: Author(author),
            discipline: Discipline::Dense { first },
            continues: index.checked_sub(1).map(name),
        })
    }

    /// Index of the segment that takes appends.
    pub(crate) fn newest(&self) -> usize {
        self.lock().iter().rposition(|it| it.created == Done::Yes).unwrap_or(0)
    }
}

/// The event `serial` of an author: 64 of them in a row have the same length.
pub(crate) fn event(author: u64, serial: u64) -> Event {
    let scattered = mix(author.rotate_left(40) ^ (serial >> 6));
    let more = usize::try_from(scattered >> 40).expect("24 bits");
    let filler = match scattered % 512 {
        0 => 4_000 + more % 12_000,
        1..=8 => 200 + more % 1_000,
        _ => more % 40,
    };
    let number = i64::try_from(serial).expect("far below 2^63");
    Event::new(Author(author), number, PAYLOAD_BYTES_MIN + filler)
}

/// The id by which writer `author` appends to the segment `index` of its chain.
pub(crate) fn writer_id(author: u64, index: usize) -> u128 {
    u128::from(mix(author + 1)) << 64 | u128::from(mix(index as u64 + 77) & (u64::MAX >> 1))
}

/// The lane.
pub(crate) struct Writers {
    chain: Chain,
    writers: Vec<Writer>,
    is_behind_proxy: bool,
    /// Segments before this one are deleted for good.
    first: usize,
    dice: Dice,
}

impl Writers {
    /// A chain of its own with so many writers.
    pub(crate) fn new(
        lane: u64,
        writers: u64,
        is_behind_proxy: bool,
        history: &Arc<History>,
        mut dice: Dice,
    ) -> Self {
        let segments = Arc::new(Mutex::new(vec![Segment::new(lane, 0)]));
        let writers: Vec<Writer> = (0..writers)
            .map(|number| Writer::new(1 + lane * 1000 + number, dice.split(number)))
            .collect();
        let history = history.clone();
        let tally = Arc::default();
        let chain = Chain { lane, writers: writers.len(), segments, tally, history };
        Self { chain, writers, is_behind_proxy, first: 0, dice }
    }

    fn create_first(&self, store: &mut Witness<'_>) -> Result<(), Trouble> {
        let mut segments = self.chain.lock();
        if segments[0].created != Done::Yes && segments.len() == 1 {
            let before = std::mem::replace(&mut segments[0].created, Done::Asked);
            let name = segments[0].name.clone();
            ensure!(store.create(&name)? || before == Done::Asked, "{name} exists");
            segments[0].created = Done::Yes;
            drop(segments);
            for writer in &self.writers {
                self.chain.introduce(writer.author, 0, &[0])?;
            }
        }
        Ok(())
    }
}

impl Lane for Writers {
    fn name(&self) -> String {
        let place = if self.is_behind_proxy { "behind a bad network" } else { "direct" };
        format!("event writers {} ({place})", self.chain.lane)
    }

    fn resumes(&self) -> bool {
        true
    }

    fn wants_proxy(&self) -> bool {
        self.is_behind_proxy
    }

    fn done(&self) -> lane::Done {
        let tally = &self.chain.tally;
        lane::Done {
            acknowledged: tally.acknowledged.load(Ordering::Relaxed),
            reconnects: tally.reconnects.load(Ordering::Relaxed),
        }
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        let mut dice = self.dice.split(1);
        self.create_first(&mut Witness::new(&route.direct(), &self.chain.history))?;
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for writer in &mut self.writers {
                let chain = &self.chain;
                threads.push(scope.spawn(move || writer.run(chain, route)));
            }
            let chain = &self.chain;
            threads.push(scope.spawn(move || reader::run(chain, route)));
            threads.push(scope.spawn(move || steward::run(chain, route, &mut dice)));
            join_all(threads)
        })
    }

    fn verify(&mut self, route: &Route, is_full: bool) -> Result<Verified, Trouble> {
        let history = self.chain.history.clone();
        self.read_back(&mut Witness::new(route, &history), is_full)
    }
}

/// Pause between two tries of something that another thread, or the server, must do first.
pub(crate) fn breathe() {
    thread::sleep(Duration::from_millis(3));
}

/// Counts, which order nothing.
pub(crate) fn count(number: &AtomicU64, by: u64) {
    number.fetch_add(by, Ordering::Relaxed);
}
