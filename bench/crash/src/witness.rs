//! A [`Store`] whose requests and answers go into a history.

use thalweg_checker::id::{Segment, SessionId};
use thalweg_checker::payload::Judge;
use thalweg_checker::record::{Data, Happened, Operation, Outcome, Refusal, Run};
use thalweg_wire::{Command, StreamSegmentInfo};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::history::History;
use crate::store::{Route, Store};
use crate::wire::Trouble;

/// Bytes read back at a time.
const PIECE: i32 = 1 << 20;

/// One client of a store, one request at a time.
pub(crate) struct Witness<'a> {
    pub(crate) store: Store,
    pub(crate) history: &'a History,
}

/// How a reading went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// More may follow.
    On,
    /// The segment ends where the reading is.
    End,
    /// It was sealed while the read waited.
    Sealed,
    /// Everything up to this offset is gone.
    Truncated(i64),
    /// There is no such segment.
    Missing,
}

impl<'a> Witness<'a> {
    pub(crate) fn new(route: &Route, history: &'a History) -> Self {
        Self { store: Store::new(route), history }
    }

    /// Records a request that is done or not, with the refusal for not.
    fn tell<T>(
        &mut self,
        operation: Operation,
        refusal: Refusal,
        ask: impl FnOnce(&mut Store) -> Result<T, Trouble>,
        outcome: impl FnOnce(&T) -> Option<Outcome>,
    ) -> Result<T, Trouble> {
        let session = SessionId::default();
        let id = self.history.invoke(session, operation)?;
        match ask(&mut self.store) {
            Ok(told) => {
                match outcome(&told) {
                    Some(outcome) => self.history.ok(id, outcome)?,
                    None => self.history.fail(id, refusal)?,
                }
                Ok(told)
            }
            Err(trouble) => {
                self.history.unknown(id)?;
                Err(trouble)
            }
        }
    }

    pub(crate) fn create(&mut self, name: &str) -> Result<bool, Trouble> {
        let operation = Operation::Create { segment: Segment::new(name) };
        self.tell(
            operation,
            Refusal::Exists,
            |store| store.create(name),
            |is_new| is_new.then_some(Outcome::Done),
        )
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<bool, Trouble> {
        let operation = Operation::Delete { segment: Segment::new(name) };
        self.tell(
            operation,
            Refusal::NoSuchSegment,
            |store| store.delete(name),
            |was_there| was_there.then_some(Outcome::Done),
        )
    }

    pub(crate) fn seal(&mut self, name: &str) -> Result<(), Trouble> {
        let operation = Operation::Seal { segment: Segment::new(name) };
        let done = |(): &()| Some(Outcome::Done);
        self.tell(operation, Refusal::NoSuchSegment, |store| store.seal(name), done)
    }

    pub(crate) fn truncate(&mut self, name: &str, offset: i64) -> Result<(), Trouble> {
        let segment = Segment::new(name);
        let operation = Operation::Truncate { segment, offset: offset.unsigned_abs() };
        let done = |(): &()| Some(Outcome::Done);
        self.tell(operation, Refusal::NoSuchSegment, |store| store.truncate(name, offset), done)
    }

    pub(crate) fn info(&mut self, name: &str) -> Result<Option<StreamSegmentInfo>, Trouble> {
        let operation = Operation::Info { segment: Segment::new(name) };
        self.tell(
            operation,
            Refusal::NoSuchSegment,
            |store| store.info(name),
            |info| {
                info.as_ref().map(|info| Outcome::Info {
                    length: info.write_offset.unsigned_abs(),
                    start: info.start_offset.unsigned_abs(),
                    sealed: info.is_sealed,
                })
            },
        )
    }

    /// Reads a segment of this length from its beginning to its end, gives each run of events to
    /// `take`, and records that all of it was read.
    pub(crate) fn read_whole(
        &mut self,
        name: &str,
        length: u64,
        mut take: impl FnMut(&Run),
    ) -> Result<(), Trouble> {
        let (mut judge, mut runs) = (Judge::new(0), Vec::new());
        while judge.offset() < length {
            let reading = self.read(name, &mut judge, PIECE, &mut runs)?;
            ensure_eq!(reading, Reading::On, "{name}: reading at {}", judge.offset());
            runs.iter().for_each(&mut take);
        }
        self.history.note(Happened::ReadBack { segment: Segment::new(name), length })?;
        Ok(())
    }

    /// One read where the judge is; `runs` are then the events that it completed, as runs of its
    /// own, whatever it held before.
    pub(crate) fn read(
        &mut self,
        name: &str,
        judge: &mut Judge,
        length: i32,
        runs: &mut Vec<Run>,
    ) -> Result<Reading, Trouble> {
        runs.clear();
        let offset = judge.offset();
        let place = i64::try_from(offset).expect("a place in a segment");
        let at = place + len_of(judge.held_bytes());
        let segment = Segment::new(name);
        let session = SessionId::default();
        let id = self.history.invoke(session, Operation::Read { segment, offset })?;
        let reply = match self.store.read(name, at, length) {
            Ok(reply) => reply,
            Err(trouble) => {
                self.history.unknown(id)?;
                return Err(trouble);
            }
        };
        match reply {
            Command::SegmentRead(read) => {
                ensure_eq!(read.offset, at, "{name}: offset of a read");
                let data = match judge.take(&read.data, runs) {
                    Ok(()) => Data::Runs(runs.clone()),
                    Err(wrong) => Data::Wrong { at: wrong.at },
                };
                let is_whole = judge.held_bytes() == 0;
                let is_end = read.end_of_segment;
                ensure!(is_whole || !is_end, "{name}: ends in an event behind {offset}");
                let tail = read.at_tail && is_whole;
                self.history.ok(id, Outcome::Read { data, ends: is_end, tail })?;
                Ok(if is_end { Reading::End } else { Reading::On })
            }
            Command::SegmentIsSealed(_) => {
                self.history.fail(id, Refusal::Sealed)?;
                Ok(Reading::Sealed)
            }
            Command::SegmentIsTruncated(it) => {
                let start = it.start_offset.unsigned_abs();
                self.history.fail(id, Refusal::Truncated { start })?;
                Ok(Reading::Truncated(it.start_offset))
            }
            Command::NoSuchSegment(_) => {
                self.history.fail(id, Refusal::NoSuchSegment)?;
                Ok(Reading::Missing)
            }
            other => wrong!("{name}: {other:?} to a read at {at}"),
        }
    }
}

fn len_of(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("a length in memory")
}
