//! Flipped bits in a directory at rest: each one is found by `verify`, and none is served.

use std::collections::BTreeMap;

use thalweg_core::env::device::Device;
use thalweg_core::position::JournalAddress;
use thalweg_journal::inspect::{FileState, Item, inspect};
use thalweg_journal::memory::{MemoryDisk, Random};
use thalweg_journal::verify::{Report, verify};

use crate::recovered::boot;
use crate::reference::{Reference, Snapshot, look_at_segment, look_at_table};
use crate::run::{Runner, drive};
use crate::script::{Script, Tuning};
use crate::state::Image;
use crate::world::World;

const CAPACITY: u64 = 16 << 20;

/// What a flip came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Named with file and offset, and the server does not start.
    Refused,
    /// Named with file and offset; some containers refuse, the others serve everything.
    ContainersClosed,
    /// Named with file and offset; some bytes cannot be read, everything else is served.
    BytesClosed,
    /// Named with file and offset; everything is served.
    NamedAndHealed,
    /// In a record behind what is known durable; cut or not, everything acknowledged is served.
    Tail,
    /// In a record of an old file that nothing refers to; everything is served.
    Unreferenced,
    /// Where nothing is kept; everything is served.
    Unused,
}

/// A directory at rest, and what is right.
pub struct Specimen<'a> {
    script: &'a Script,
    image: Image,
    expected: Snapshot,
    /// Records in the order of the journal, with their sequences.
    records: Vec<(JournalAddress, u64)>,
    /// Files in use.
    live: Vec<String>,
    watermark: u64,
    needed_from: u32,
}

fn name(file: u32) -> String {
    format!("journal-{file:08x}")
}

/// Checks a journal with the settings of a script.
///
/// # Errors
/// The fault as text.
pub fn verify_with<D: Device>(tuning: &Tuning, device: D) -> Result<Report, String> {
    verify(device, tuning.journal(), tuning.limits(), &mut |_| {})
        .map_err(|fault| fault.to_string())
}

impl<'a> Specimen<'a> {
    /// What a script leaves behind when it is over and at rest.
    ///
    /// # Panics
    /// When the script does not run through, or what it leaves is not sound.
    pub fn of(script: &'a Script, reference: &'a Reference) -> Self {
        let disk = MemoryDisk::new(11, CAPACITY);
        let world = boot(&disk, script).expect("an empty disk");
        let runner = Runner::new(script, Some(reference), world, None);
        let mut again = |old| {
            drop(old);
            disk.kill();
            boot(&disk, script)
        };
        let (mut runner, _) = drive(runner, &mut again).expect("a disk without faults");
        runner.world.rest(std::time::Duration::from_millis(60));
        let expected = reference.snapshots.last().expect("a script has an end").clone();
        drop(runner.world.kill());
        disk.kill();
        let files = disk.files().into_iter();
        let image: Image =
            files.map(|(name, _)| (name.clone(), disk.read(&name).expect("listed"))).collect();
        let (mut records, mut live) = (Vec::new(), Vec::new());
        let summary = inspect(disk.device(), script.tuning.journal(), &mut |item| match item {
            Item::File { name, state: FileState::InUse { .. }, .. } => live.push(name),
            Item::Record(record) => records.push((record.address, record.sequence)),
            Item::File { .. } => {}
            other => panic!("a sound journal: {other:?}"),
        });
        let summary = summary.expect("a sound journal");
        let report = verify_with(&script.tuning, disk.device()).expect("a sound journal");
        assert_eq!(report.findings, [], "{}", script.name);
        let verified = report.containers.iter().map(|found| (found.bytes, found.verified_bytes));
        assert!(verified.clone().all(|(bytes, verified)| bytes == verified), "{report:?}");
        Self {
            script,
            image,
            expected,
            records,
            live,
            watermark: summary.watermark,
            needed_from: summary.needed_from.0,
        }
    }

    /// A bit to flip: file, offset and bit. Half of them lie in records and headers.
    pub fn draw(&self, random: &mut Random) -> (String, u64, u8) {
        let bit = random.below(8) as u8;
        match random.below(8) {
            0..=3 => {
                let (address, _) = self.records[random.below(self.records.len() as u64) as usize];
                let offset = address.file_offset() + random.below(address.frame_bytes());
                (name(address.file().0), offset, bit)
            }
            4 => {
                let live = &self.live[random.below(self.live.len() as u64) as usize];
                (live.clone(), random.below(160), bit)
            }
            _ => {
                let index = random.below(self.image.len() as u64) as usize;
                let (file, bytes) = self.image.iter().nth(index).expect("there are files");
                (file.clone(), random.below(bytes.len() as u64), bit)
            }
        }
    }

    /// Flips a bit, checks and serves what is left.
    ///
    /// # Errors
    /// When something wrong is served, or something is not served and `verify` does not say where
    /// the flip is.
    pub fn flip(&self, file: &str, offset: u64, bit: u8) -> Result<Class, String> {
        let mut image = self.image.clone();
        let bytes = image.get_mut(file).ok_or("no such file")?;
        bytes[offset as usize] ^= 1 << bit;
        let disk = MemoryDisk::holding(u64::from(bit) ^ offset, CAPACITY, image);
        let told = match verify_with(&self.script.tuning, disk.device()) {
            Ok(report) => report
                .findings
                .into_iter()
                .map(|finding| (finding.severity, finding.what))
                .collect(),
            Err(fault) => vec![(thalweg_journal::verify::Severity::Damage, fault)],
        };
        let is_named = told.iter().any(|(_, what)| self.names(what, file, offset));
        let (halted, closed) = match boot(&disk, self.script) {
            Ok(mut world) => self.serve(&mut world)?,
            Err(fault) if self.names(&fault, file, offset) && is_named => {
                return Ok(Class::Refused);
            }
            Err(fault) => return Err(format!("does not start: {fault}; told: {told:?}")),
        };
        if halted > 0 || closed > 0 {
            let is_damage =
                |&(severity, _): &(_, _)| severity == thalweg_journal::verify::Severity::Damage;
            if !is_named || !told.iter().any(is_damage) {
                return Err(format!("{halted} refuse, {closed} closed, not named: {told:?}"));
            }
            return Ok(if halted > 0 { Class::ContainersClosed } else { Class::BytesClosed });
        }
        if is_named {
            return Ok(Class::NamedAndHealed);
        }
        self.class_of_untold(file, offset).ok_or(format!("silent: {told:?}"))
    }

    /// Why a flip that is neither told nor felt is none of anybody's business.
    fn class_of_untold(&self, file: &str, offset: u64) -> Option<Class> {
        let lies_in = |(address, _): &&(JournalAddress, u64)| {
            let from = address.file_offset();
            name(address.file().0) == file && (from..from + address.frame_bytes()).contains(&offset)
        };
        match self.records.iter().find(lies_in) {
            Some((_, sequence)) if *sequence > self.watermark => Some(Class::Tail),
            Some((address, _)) if address.file().0 < self.needed_from => Some(Class::Unreferenced),
            Some(_) => None,
            None if offset < 128 && self.live.iter().any(|live| live == file) => None,
            None => Some(Class::Unused),
        }
    }

    /// Whether a text names the file and the record, or header, that the flip is in.
    fn names(&self, what: &str, file: &str, offset: u64) -> bool {
        let starts = self.records.iter().filter(|(address, _)| name(address.file().0) == file);
        let start = starts
            .map(|(address, _)| address)
            .find(|address| {
                let from = address.file_offset();
                (from..from + address.frame_bytes()).contains(&offset)
            })
            .map_or(0, |address| address.file_offset());
        what.split(&format!("{file} at offset ")).skip(1).any(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse() == Ok(start)
        })
    }

    /// Asks everything; gives containers that refuse and questions that were closed.
    fn serve<J: thalweg_core::env::journal::Journal>(
        &self,
        world: &mut World<J>,
    ) -> Result<(u64, u64), String> {
        let halted = world.shard().counters().halts;
        let mut closed = 0;
        let mut found = Snapshot::new();
        for (index, segment) in self.script.segments.iter().enumerate() {
            if look_at_segment(self.script, world, index, segment, &mut found).is_err() {
                closed += 1;
                world.connect();
            }
        }
        for table in &self.script.tables {
            if look_at_table(world, table, &mut found).is_err() {
                closed += 1;
                world.connect();
            }
        }
        for (question, answer) in &found {
            let expected = self.expected.get(question);
            if expected != Some(answer) {
                return Err(format!("served wrong: {question}: {answer}, right is {expected:?}"));
            }
        }
        if closed == 0 && found.len() != self.expected.len() {
            return Err("served less than there is".to_owned());
        }
        Ok((halted, closed))
    }
}

/// How many flips came to what.
pub type Table = BTreeMap<Class, u64>;
