//! A journal directory as a list, for people and for [`verify`](crate::verify): files, records,
//! where it ends, what is damaged. Reads with the eyes of a recovery and never writes.

use bytes::Bytes;
use thalweg_core::env::device::Device;
use thalweg_core::env::journal::{Opened, Recovered};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::frame::ContainerMask;
use thalweg_core::position::{ContainerEpoch, FileId, FrameNumber, JournalAddress};

use crate::config::Config;
use crate::fetch;
use crate::files::{fresh_name, journal_name, spare_name};
use crate::journal::Journal;
use crate::layout::{FileHeader, RecordHeader, RecordKind, Sequence};
use crate::recovery;
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
    /// Something unreadable that a recovery does without.
    Blemish {
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
    /// Oldest file that a recovery needs.
    pub needed_from: FileId,
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
    let mut examination = Examination::open(device, config)?;
    let summary = examination.list(visit);
    examination.close();
    Ok(summary)
}

/// A journal that is looked at and not opened: whatever a recovery would read, without what it
/// would write.
#[derive(Debug)]
pub(crate) struct Examination<D> {
    journal: Journal<D>,
    survey: Survey,
    /// By id, without prepared ones.
    files: Vec<Surveyed>,
    end: End,
}

impl<D: Device> Examination<D> {
    /// Opens every file and finds the end.
    pub(crate) fn open(device: D, config: Config) -> Result<Self, Fault> {
        let mut journal = Journal::new(device, config)
            .map_err(|error| Fault::new(FaultClass::Unavailable, error.to_string()))?;
        let mut found = Survey::default();
        if let Err(fault) = survey::survey(&mut journal.port, journal.owner, &mut found) {
            close(&mut journal, &found);
            return Err(fault);
        }
        let is_used = |file: &&Surveyed| !matches!(file.head, Head::Prepared(_));
        let files: Vec<Surveyed> = found.files.iter().filter(is_used).copied().collect();
        let end = journal.find_end(&files);
        Ok(Self { journal, survey: found, files, end })
    }

    pub(crate) fn list(&mut self, visit: &mut dyn FnMut(Item)) -> Summary {
        list(&mut self.journal, &self.survey, &self.end, visit)
    }

    /// What the first pass of a recovery visits, and what it would say at its end.
    pub(crate) fn recovered(&mut self, visit: &mut dyn FnMut(Recovered)) -> Opened {
        self.journal.visit_found(&self.files, &self.end, visit);
        Opened {
            epoch: ContainerEpoch(self.end.epoch.0 + 1),
            next_frame: self.end.last_frame.next(),
            visited_from: recovery::replay_of(&self.files, &self.end),
            tail_cut_bytes: self.end.tail_bytes,
        }
    }

    /// What the second pass visits.
    pub(crate) fn replay(&mut self, from: JournalAddress, visit: &mut dyn FnMut(Recovered)) {
        if let Some(next) = self.end.next {
            self.journal.visit_from(&self.files, from, next, visit);
        }
    }

    /// Reads a frame back, once more if need be, as a journal in service does.
    pub(crate) fn frame(&mut self, address: JournalAddress) -> Result<Bytes, Fault> {
        let first = self.read_frame(address);
        first.or_else(|_| self.read_frame(address))
    }

    fn read_frame(&mut self, address: JournalAddress) -> Result<Bytes, Fault> {
        let file = self.files.iter().find(|file| file.id == address.file());
        let Some(file) = file.copied() else { return Err(fetch::absent(address)) };
        if address.first_block() + address.blocks() > file.blocks() {
            return Err(fetch::absent(address));
        }
        let length = usize::try_from(address.frame_bytes()).expect("a frame fits memory");
        let owner = self.journal.owner;
        let outcome = self.journal.port.run(|device, token| {
            device.read(file.handle, address.file_offset(), length, token);
        });
        fetch::check(outcome, owner, address, true)
    }

    pub(crate) fn close(mut self) {
        close(&mut self.journal, &self.survey);
    }
}

fn close<D: Device>(journal: &mut Journal<D>, survey: &Survey) {
    for file in &survey.files {
        journal.port.device.close(file.handle);
    }
}

/// Files whose header cannot be read, although what follows tells where they belong.
fn list_headers<D: Device>(
    journal: &mut Journal<D>,
    files: &[Surveyed],
    visit: &mut dyn FnMut(Item),
) {
    for file in files {
        let block = survey::read_block(&mut journal.port, file.handle, file.bytes, 0);
        let header = block.as_deref().map(FileHeader::decode);
        // One that still says "prepared" is what a crash leaves when the first record was faster.
        if file.start().is_some() && !matches!(header, Some(Ok(_))) {
            let name = journal_name(file.id);
            let detail = format!("file header is unreadable in {name} at offset 0");
            visit(Item::Blemish { fault: Fault::new(FaultClass::Corrupt, detail) });
        }
    }
}

fn list<D: Device>(
    journal: &mut Journal<D>,
    survey: &Survey,
    end: &End,
    visit: &mut dyn FnMut(Item),
) -> Summary {
    let is_used = |file: &&Surveyed| !matches!(file.head, Head::Prepared(_));
    let files: Vec<Surveyed> = survey.files.iter().filter(is_used).copied().collect();
    list_headers(journal, &files, visit);
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
    summary(&files, end, damaged)
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
        Found::Blemish { fault } => visit(Item::Blemish { fault }),
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
        needed_from: end.last.map(|last| last.replay_address().file()).unwrap_or_default(),
    }
}
