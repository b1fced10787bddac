//! Checks the journal of a shard at rest: every record, what an engine makes of them, and every
//! byte that a segment holds. Never writes.
//!
//! There is no second reader here: files and records are judged by the walk of a recovery,
//! operations and checkpoints by the engine's recovery, data by the engine's reads, frame by frame.
//! What would be refused or closed in service is named with file and offset.

use thalweg_core::engine::Engine;
use thalweg_core::env::device::Device;
use thalweg_core::fault::Fault;
use thalweg_core::holdings::HeldSegment;
use thalweg_core::id::{ConnectionId, ContainerId, Token};
use thalweg_core::limits::Limits;
use thalweg_core::position::{JournalAddress, Offset};
use thalweg_core::request::{Effect, Reply, Request, SegmentKind};
use thalweg_core::time::Now;

use crate::config::Config;
use crate::fetch::place;
use crate::files::journal_name;
use crate::inspect::{Examination, FileState, Item, Summary};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing that is held needs it.
    Blemish,
    /// Something acknowledged cannot be read.
    Damage,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, naming file and offset.
    pub what: String,
    /// The container that loses by it, when that is known.
    pub container: Option<ContainerId>,
    /// The segment, and what of it.
    pub segment: Option<String>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerReport {
    /// Which.
    pub container: ContainerId,
    /// Whether a server would serve it.
    pub is_serving: bool,
    /// Stream segments.
    pub segments: u64,
    /// Table segments.
    pub tables: u64,
    /// Readable bytes of the stream segments.
    pub bytes: u64,
    /// Of these, read back and found right.
    pub verified_bytes: u64,
}

/// A shard's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As a recovery would find it.
    pub summary: Summary,
    /// Files, prepared and spare ones included.
    pub files: u64,
    /// Good records.
    pub records: u64,
    /// By container.
    pub containers: Vec<ContainerReport>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether something acknowledged cannot be read.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }
}

/// What is being done, for people who wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The records of this file are read.
    File(String),
    /// The bytes of this container's segments are read.
    Container(ContainerId),
}

/// Checks the journal in the directory of `device`. `config` names the shard, the data directory
/// and all containers of the shard; `limits` bounds the memory taken. Blocks.
///
/// # Errors
/// When nothing can be said of the journal at all: see [`inspect`](crate::inspect::inspect).
pub fn verify<D: Device>(
    device: D,
    config: Config,
    limits: Limits,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Fault> {
    let (shard, containers) = (config.shard, config.containers.clone());
    let mut examination = Examination::open(device, config)?;
    let mut listing = Listing::default();
    let summary = examination.list(&mut |item| listing.take(item, progress));
    let findings = listing.findings(&summary);
    let mut engine = Engine::new(shard, &containers, limits);
    let opened = examination.recovered(&mut |found| engine.recovered(found));
    if let Some(from) = engine.replay_start() {
        examination.replay(from, &mut |found| engine.replayed(found));
    }
    let mut effects = Vec::new();
    engine.open(opened, Now::default(), &mut effects);
    let (files, records) = (listing.files, listing.records);
    let report = Report { summary, files, records, containers: Vec::new(), findings };
    let token = Token { shard, connection: ConnectionId(1), request: 0 };
    let mut reading = Reading { examination, engine, token, report };
    reading.read_containers(progress);
    reading.examination.close();
    Ok(reading.report)
}

/// What the list of files and records came to.
#[derive(Debug, Default)]
struct Listing {
    file: String,
    files: u64,
    records: u64,
    /// With the file that was being listed.
    found: Vec<(String, Finding)>,
}

impl Listing {
    fn take(&mut self, item: Item, progress: &mut dyn FnMut(Progress)) {
        let (severity, what) = match item {
            Item::File { name, state, .. } => {
                self.files += 1;
                self.file.clone_from(&name);
                progress(Progress::File(name.clone()));
                if state != FileState::Unreadable {
                    return;
                }
                (
                    Severity::Blemish,
                    format!("neither header nor first record in {name} at offset 0"),
                )
            }
            Item::Record(_) => {
                self.records += 1;
                return;
            }
            Item::Damage { fault, .. } => (Severity::Damage, fault.detail),
            Item::Blemish { fault } => (Severity::Blemish, fault.detail),
        };
        let finding = Finding { severity, what, container: None, segment: None };
        self.found.push((self.file.clone(), finding));
    }

    /// Of files older than the replay position only what segments still hold counts, and that is
    /// read later.
    fn findings(&mut self, summary: &Summary) -> Vec<Finding> {
        let needed = journal_name(summary.needed_from);
        let found = std::mem::take(&mut self.found).into_iter();
        let judged = found.map(|(file, mut finding)| {
            if file < needed {
                finding.severity = Severity::Blemish;
            }
            finding
        });
        judged.collect()
    }
}

struct Reading<D> {
    examination: Examination<D>,
    engine: Engine,
    token: Token,
    report: Report,
}

impl<D: Device> Reading<D> {
    fn read_containers(&mut self, progress: &mut dyn FnMut(Progress)) {
        for holdings in self.engine.holdings() {
            progress(Progress::Container(holdings.container));
            let is_table = |segment: &&HeldSegment| segment.kind != SegmentKind::Stream;
            let tables = holdings.segments.iter().filter(is_table).count() as u64;
            let mut container = ContainerReport {
                container: holdings.container,
                is_serving: holdings.fault.is_none(),
                segments: holdings.segments.len() as u64 - tables,
                tables,
                bytes: 0,
                verified_bytes: 0,
            };
            if let Some(fault) = &holdings.fault {
                self.find(fault.detail.clone(), holdings.container, None);
            }
            for segment in &holdings.segments {
                container.bytes += segment.length.0 - segment.start_offset.0;
                if holdings.fault.is_none() {
                    container.verified_bytes += self.read_segment(holdings.container, segment);
                }
            }
            self.report.containers.push(container);
        }
    }

    fn find(&mut self, what: String, container: ContainerId, segment: Option<String>) {
        let severity = Severity::Damage;
        let finding = Finding { severity, what, container: Some(container), segment };
        self.report.findings.push(finding);
    }

    /// Reads every extent; gives the bytes found right.
    fn read_segment(&mut self, container: ContainerId, segment: &HeldSegment) -> u64 {
        let mut verified = 0;
        for &(offset, length, address) in &segment.extents {
            let from = offset.max(segment.start_offset);
            let to = offset.advance(u64::from(length)).min(segment.length);
            if from >= to {
                continue;
            }
            match self.read_extent(container, segment, from, to, address) {
                Ok(()) => verified += to.0 - from.0,
                Err(what) => {
                    let lost = format!("{}, bytes {} to {}", segment.name, from.0, to.0);
                    self.find(what, container, Some(lost));
                }
            }
        }
        verified
    }

    fn read_extent(
        &mut self,
        container: ContainerId,
        segment: &HeldSegment,
        mut from: Offset,
        to: Offset,
        address: Option<JournalAddress>,
    ) -> Result<(), String> {
        let Some(address) = address else { return Err("its frame is not known".to_owned()) };
        while from < to {
            let length = u32::try_from(to.0 - from.0).unwrap_or(u32::MAX);
            let request = Request::Read { segment: segment.name.clone(), offset: from, length };
            let count = self.ask(container, request)?;
            if count == 0 {
                return Err(format!("another frame's operations in {}", place(address)));
            }
            from = from.advance(count);
        }
        Ok(())
    }

    /// Carries a read through, fetching what it needs; gives how many bytes it brought, 0 when it
    /// was closed although every frame could be read.
    fn ask(&mut self, container: ContainerId, request: Request) -> Result<u64, String> {
        let mut effects = Vec::new();
        let mut unreadable = None;
        let mut brought = 0;
        self.engine.request(Now::default(), container, self.token, request, &mut effects);
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Fetch { address } => {
                    let frame = self.examination.frame(address);
                    if let Err(fault) = &frame {
                        unreadable.get_or_insert(fault.detail.clone());
                    }
                    self.engine.fetched(Now::default(), address, frame, &mut effects);
                }
                Effect::Reply { reply: Ok(Reply::Read { data, .. }), .. } => {
                    brought = data.iter().map(|piece| piece.len() as u64).sum();
                }
                _ => {}
            }
        }
        match unreadable {
            Some(what) if brought == 0 => Err(what),
            _ => Ok(brought),
        }
    }
}
