//! A journal directory as a list, for people: files, records, where it ends, what is damaged. Reads
//! with the eyes of a recovery and never writes.

use thalweg_core::env::device::Device;
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::frame::ContainerMask;
use thalweg_core::position::{ContainerEpoch, FileId, FrameNumber, JournalAddress};

use crate::config::Config;
use crate::files::{fresh_name, journal_name, spare_name};
use crate::journal::Journal;
use crate::layout::{RecordHeader, RecordKind, Sequence};
use crate::recovery::survey::{self, Head, Survey, Surveyed};
use crate::recovery::walk::{End, Found, Position, Route};

/// One line of the list, in the order of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A file; its records follow.
    File {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
        /// What its beginning says.
        state: FileState,
    },
    /// A good record.
    Record(Record),
    /// Acknowledged records that cannot be read.
    Damage {
        /// Whose operations they held; `None` when not known.
        containers: Option<ContainerMask>,
        /// What is wrong, naming file and offset.
        fault: Fault,
    },
}

/// What the beginning of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Records are in it.
    InUse {
        /// Sequence of its first record.
        first_sequence: u64,
        /// Number of its first frame.
        first_frame: FrameNumber,
        /// Epoch that began it.
        epoch: ContainerEpoch,
        /// Highest sequence known durable when it was begun.
        durable_upto: u64,
    },
    /// Ready to be used.
    Prepared,
    /// Written, without an id.
    Spare,
    /// Not written completely.
    Unfinished,
    /// Neither its header nor its first record can be read.
    Unreadable,
}

/// A record as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub address: JournalAddress,
    /// `frame`, `beacon` or `opening`.
    pub kind: &'static str,
    /// Its epoch.
    pub epoch: ContainerEpoch,
    /// Its sequence among all records.
    pub sequence: u64,
    /// Its number, or that of the newest frame before it.
    pub frame: FrameNumber,
    /// Highest sequence known durable when it was composed.
    pub durable_upto: u64,
    /// Oldest frame that a recovery needs.
    pub replay_from: JournalAddress,
    /// Whose operations it holds.
    pub containers: ContainerMask,
    /// Bytes of operations.
    pub operation_bytes: u32,
}

/// The journal as a whole, as a recovery would find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// File and byte offset of the end; `None` when there is no record.
    pub end: Option<(String, u64)>,
    /// Sequence of the next record.
    pub next_sequence: u64,
    /// Number of the newest frame.
    pub last_frame: FrameNumber,
    /// Highest epoch found.
    pub epoch: ContainerEpoch,
    /// Highest sequence that anything tells to be durable.
    pub watermark: u64,
    /// Bytes that a recovery would cut.
    pub tail_bytes: u64,
    /// Whether a recovery would refuse, because the device does not read near the end.
    pub is_end_unreadable: bool,
    /// Places of damage.
    pub damaged: u64,
}

/// Lists the journal in the directory of `device`. Blocks. Of files older than the newest replay
/// position each is judged by itself, because files between them may have been recycled: damage to
/// the last records of such a file is not told.
///
/// # Errors
/// When the directory cannot be listed, a file not opened, or the files are another shard's,
/// another data directory's or of another format.
pub fn inspect<D: Device>(
    device: D,
    config: Config,
    visit: &mut dyn FnMut(Item),
) -> Result<Summary, Fault> {
    let mut journal = Journal::new(device, config)
        .map_err(|error| Fault::new(FaultClass::Unavailable, error.to_string()))?;
    let mut found = Survey::default();
    let outcome = survey::survey(&mut journal.port, journal.owner, &mut found);
    let outcome = outcome.map(|()| list(&mut journal, &found, visit));
    for file in &found.files {
        journal.port.device.close(file.handle);
    }
    outcome
}

fn list<D: Device>(
    journal: &mut Journal<D>,
    survey: &Survey,
    visit: &mut dyn FnMut(Item),
) -> Summary {
    let is_used = |file: &&Surveyed| !matches!(file.head, Head::Prepared(_));
    let files: Vec<Surveyed> = survey.files.iter().filter(is_used).copied().collect();
    let end = journal.find_end(&files);
    let replay = end.last.map(|last| last.replay_address().file()).unwrap_or_default();
    let mut damaged = 0;
    let mut count = |item: Item| {
        damaged += u64::from(matches!(item, Item::Damage { .. }));
        visit(item);
    };
    let first_needed = files.iter().position(|file| file.id >= replay).unwrap_or(files.len());
    for index in 0..first_needed {
        count(file_item(&files[index]));
        list_records(journal, &files[index..=index], None, &mut count);
    }
    let needed = &files[first_needed..];
    if let Some(first) = needed.first() {
        count(file_item(first));
        list_records(journal, needed, end.next, &mut count);
    }
    let after = files.iter().skip(first_needed + 1);
    let listed = files.get(end.at.file).map_or(FileId(0), |file| file.id);
    for file in after.filter(|file| file.id > listed) {
        count(file_item(file));
    }
    for file in survey.files.iter().filter(|file| !is_used(file)) {
        count(file_item(file));
    }
    for &(number, bytes) in &survey.spares {
        count(Item::File { name: spare_name(number), bytes, state: FileState::Spare });
    }
    for &(number, bytes) in &survey.fresh {
        count(Item::File { name: fresh_name(number), bytes, state: FileState::Unfinished });
    }
    summary(&files, &end, damaged)
}

/// Lists the records of `files` from the beginning of the first, and the files as they come.
fn list_records<D: Device>(
    journal: &mut Journal<D>,
    files: &[Surveyed],
    limit: Option<Sequence>,
    visit: &mut dyn FnMut(Item),
) {
    let route = Route {
        from: Position { file: 0, block: 1 },
        is_file_start: true,
        first_blocks: None,
        limit,
        watermark: limit.map(Sequence::before),
    };
    let mut current = files[0].id;
    journal.walk(files, route, &mut |found| match found {
        Found::Record { header, .. } => {
            let between = files.iter().filter(|file| file.id > current);
            for file in between.filter(|file| file.id <= header.address.file()) {
                visit(file_item(file));
            }
            current = header.address.file();
            visit(Item::Record(record(&header)));
        }
        Found::Lost { containers, fault } => visit(Item::Damage { containers, fault }),
    });
}

fn file_item(file: &Surveyed) -> Item {
    let state = match file.head {
        Head::Live(start, epoch) => FileState::InUse {
            first_sequence: start.first.0,
            first_frame: start.first_frame,
            epoch,
            durable_upto: start.durable_upto.0,
        },
        Head::Prepared(_) => FileState::Prepared,
        Head::Unknown { .. } => FileState::Unreadable,
    };
    Item::File { name: journal_name(file.id), bytes: file.bytes, state }
}

fn record(header: &RecordHeader) -> Record {
    Record {
        address: header.address,
        kind: match header.kind {
            RecordKind::Frame => "frame",
            RecordKind::Beacon => "beacon",
            RecordKind::Opening => "opening",
        },
        epoch: header.epoch,
        sequence: header.sequence.0,
        frame: header.frame,
        durable_upto: header.durable_upto.0,
        replay_from: header.replay_address(),
        containers: header.containers,
        operation_bytes: header.operation_bytes,
    }
}

fn summary(files: &[Surveyed], end: &End, damaged: u64) -> Summary {
    let place = end.next.and_then(|_| files.get(end.at.file));
    Summary {
        end: place.map(|file| {
            let offset = u64::from(end.at.block) * thalweg_core::position::BLOCK_BYTES;
            (journal_name(file.id), offset)
        }),
        next_sequence: end.next.unwrap_or(Sequence(1)).0,
        last_frame: end.last_frame,
        epoch: end.epoch,
        watermark: end.watermark.0,
        tail_bytes: end.tail_bytes,
        is_end_unreadable: end.unreadable.is_some(),
        damaged,
    }
}
