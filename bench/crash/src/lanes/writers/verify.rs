//! Reading the chain back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use thalweg_checker::id::Segment as SegmentName;
use thalweg_checker::payload::Judge;
use thalweg_checker::record::Happened;

use crate::claim::{ensure, ensure_eq, wrong};
use crate::lane::Verified;
use crate::store::EVENT_COUNT;
use crate::wire::Trouble;
use crate::witness::{Reading, Witness};

use super::reader::items;
use super::writer::Writer;
use super::{Done, Progress, Segment, Writers, writer_id};

/// Bytes read back at a time.
const PIECE: i32 = 2 << 20;

impl Writers {
    /// Reads what is new, or everything, and compares it with what the writers know.
    pub(super) fn read_back(
        &mut self,
        store: &mut Witness<'_>,
        is_full: bool,
    ) -> Result<Verified, Trouble> {
        self.settle_existence(store)?;
        // A set-up ends what is under way on older connections of the same writer: from here on
        // nothing may change but by this lane.
        for writer in &mut self.writers {
            let (name, exists) = {
                let segment = &self.chain.lock()[writer.at];
                (segment.name.clone(), segment.exists())
            };
            if exists {
                let mut wire = store.store.session(&name)?;
                writer.set_up(&mut wire, &self.chain.history, &name)?;
            }
        }
        let mut verified = Verified::default();
        let mut segments = self.chain.lock();
        while segments.get(self.first).is_some_and(|it| it.deleted == Done::Yes) {
            segments[self.first].boundaries = Vec::new();
            self.first += 1;
        }
        for index in self.first..segments.len() {
            let segment = &mut segments[index];
            if segment.exists() {
                verified += read_segment(store, segment, is_full)?;
                compare(store, segment, index, &self.writers)?;
            } else {
                let is_there = store.info(&segment.name)?.is_some();
                ensure!(!is_there, "{} is there, deleted or not created", segment.name);
            }
        }
        drop(segments);
        let tally = &self.chain.tally;
        verified.items += tally.items_read.swap(0, Ordering::Relaxed);
        verified.bytes += tally.bytes_read.swap(0, Ordering::Relaxed);
        Ok(verified)
    }

    /// Finds out which creations, seals and deletions without an answer were carried out.
    fn settle_existence(&mut self, store: &mut Witness<'_>) -> Result<(), Trouble> {
        let mut segments = self.chain.lock();
        for segment in &mut segments[self.first..] {
            let name = segment.name.clone();
            if segment.deleted == Done::Yes {
                continue;
            }
            let found = store.info(&name)?;
            if segment.created != Done::Yes {
                segment.created.settle(&format!("{name} created"), found.is_some())?;
            } else {
                segment.deleted.settle(&format!("{name} deleted"), found.is_none())?;
            }
            if let Some(info) = found {
                segment.sealed.settle(&format!("{name} sealed"), info.is_sealed)?;
            }
        }
        Ok(())
    }
}

/// Reads one segment from where verification was, or from its start.
fn read_segment(
    store: &mut Witness<'_>,
    segment: &mut Segment,
    is_full: bool,
) -> Result<Verified, Trouble> {
    let name = segment.name.clone();
    let Some(info) = store.info(&name)? else { wrong!("{name} is gone") };
    let (start, length) = (info.start_offset, info.write_offset);
    let starts = segment.start_min..=segment.start_max;
    ensure!(starts.contains(&start), "{name}: start offset {start} is not in {starts:?}");
    (segment.start_min, segment.start_max) = (start, start);
    let least = segment.length_min.max(segment.seen.at).max(segment.verified.at);
    ensure!(length >= least, "{name}: {least} bytes acknowledged or read, {length} there");
    segment.length_min = length;
    ensure_eq!(info.is_sealed, segment.sealed == Done::Yes, "{name}: is sealed");
    if info.is_sealed {
        let last = *segment.length_final.get_or_insert(length);
        ensure_eq!(length, last, "{name}: length after the seal");
        store.store.assert_ends(&name, length)?;
    }
    if is_full || start > segment.verified.at {
        let begin = Progress { at: start, is_partial: start > 0, ..Progress::default() };
        segment.verified = begin;
    }
    let from = segment.verified.at;
    let items = read_to(store, &name, &mut segment.verified, length)?;
    if is_full || from == 0 {
        let segment = SegmentName::new(&name);
        let length = length.unsigned_abs();
        store.history.note(Happened::ReadBack { segment, length })?;
    }
    Ok(Verified { items, bytes: (length - from).unsigned_abs() })
}

/// Reads and judges up to the length.
fn read_to(
    store: &mut Witness<'_>,
    name: &str,
    progress: &mut Progress,
    length: i64,
) -> Result<u64, Trouble> {
    let mut found = 0;
    let mut judge = Judge::new(progress.at.unsigned_abs());
    let mut runs = Vec::new();
    while progress.at < length {
        let reading = store.read(name, &mut judge, PIECE, &mut runs)?;
        let is_on = matches!(reading, Reading::On | Reading::End);
        ensure!(is_on, "{name}: {reading:?} at {} before {length}", progress.at);
        progress.take(name, &runs)?;
        found += items(&runs);
    }
    ensure_eq!(progress.at, length, "{name}: more is read than there is");
    Ok(found)
}

/// Compares the last serials found in a segment with what its writers and the server know.
fn compare(
    store: &mut Witness<'_>,
    segment: &Segment,
    index: usize,
    writers: &[Writer],
) -> Result<(), Trouble> {
    let name = &segment.name;
    let mut found: BTreeMap<u64, (u64, u64)> = segment.verified.serials.clone();
    let mut events = 0;
    for writer in writers {
        let author = writer.author;
        let found = found.remove(&author);
        if index > writer.at {
            ensure!(found.is_none(), "{name}: writer {author} was never here, {found:?} found");
            continue;
        }
        let base = writer.bases[index];
        let right = match writer.bases.get(index + 1) {
            Some(next) => *next,
            None => writer.acknowledged,
        };
        let is_whole = !segment.verified.is_partial;
        let is_right = match found {
            Some((first, last)) => {
                last == right && (first == base + 1 || !is_whole && first > base)
            }
            None => right == base || !is_whole,
        };
        ensure!(
            is_right,
            "{name}: {found:?} are first and last of writer {author}, {base} came before and \
             {right} is the last"
        );
        let told = store.store.attribute(name, writer_id(author, index))?.max(0);
        let number = i64::try_from(right - base).expect("far below 2^63");
        ensure_eq!(told, number, "{name}: last number of writer {author}");
        events += number;
    }
    ensure!(found.is_empty(), "{name}: events of nobody: {found:?}");
    let counted = store.store.attribute(name, EVENT_COUNT)?.max(0);
    ensure_eq!(counted, events, "{name}: count of events");
    Ok(())
}
