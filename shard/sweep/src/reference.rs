//! The oracle: a script on a shard whose journal keeps everything in memory and never fails, with
//! all that can be asked kept after each step.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_core::env::journal::Journal;
use thalweg_core::env::memory::MemoryJournal;
use thalweg_wire::{
    Command, GetSegmentAttribute, GetStreamSegmentInfo, GetTableSegmentInfo, IterationArguments,
    ReadSegment, ReadTableEntries, Text,
};

use crate::run::Runner;
use crate::script::Script;
use crate::world::{Closed, World};

/// Everything that a client can learn about the script's segments, by question.
pub type Snapshot = BTreeMap<String, String>;

/// What is right after each step.
pub struct Reference {
    /// After the first `n` steps, at index `n`.
    pub snapshots: Vec<Snapshot>,
    /// What each request was answered, with the request id 0.
    pub replies: Vec<Option<Command>>,
}

impl Reference {
    /// Runs the script on a perfect journal.
    ///
    /// # Panics
    /// When the shard closes a connection of a client that does nothing wrong.
    pub fn of(script: &Script) -> Self {
        let journal = MemoryJournal::new(64);
        let world = World::boot(journal, None, &script.tuning).expect("memory does not fail");
        let mut runner = Runner::new(script, None, world, None);
        let mut snapshots = vec![look(script, &mut runner.world).expect("it serves")];
        for _ in 0..script.steps.len() {
            runner.step().expect("the reference serves");
            runner.settle().expect("the reference serves");
            // On a connection of its own, so that sessions stay as they are.
            snapshots.push(look(script, &mut runner.world).expect("it serves"));
        }
        Self { snapshots, replies: runner.replies }
    }

    /// Whether a step changes anything that can be asked for.
    pub fn changes(&self, step: usize) -> bool {
        self.snapshots[step] != self.snapshots[step + 1]
    }

    /// The first moment from `acked` to `sent` that looks like `snapshot`.
    pub fn find(&self, snapshot: &Snapshot, acked: usize, sent: usize) -> Option<usize> {
        (acked..=sent).find(|&at| self.snapshots[at] == *snapshot)
    }

    /// For a failure report: in what `snapshot` differs from the nearest moments.
    pub fn describe(&self, snapshot: &Snapshot, acked: usize, sent: usize) -> String {
        let mut text = String::new();
        for at in [acked, sent] {
            let expected = &self.snapshots[at];
            for (question, answer) in expected {
                let told = snapshot.get(question);
                if told != Some(answer) {
                    let short = |text: &str| text.chars().take(400).collect::<String>();
                    text += &format!(
                        "\n  after step {at}, {question}: expected {}, found {}",
                        short(answer),
                        short(told.map_or("nothing", |told| told))
                    );
                }
            }
        }
        text
    }
}

/// Asks everything about every segment of the script, on the world's connection.
///
/// # Errors
/// When the connection is closed.
pub fn look<J: Journal>(script: &Script, world: &mut World<J>) -> Result<Snapshot, Closed> {
    let mut snapshot = Snapshot::new();
    for (index, segment) in script.segments.iter().enumerate() {
        look_at_segment(script, world, index, segment, &mut snapshot)?;
    }
    for table in &script.tables {
        look_at_table(world, table, &mut snapshot)?;
    }
    Ok(snapshot)
}

/// Asks everything about one segment.
///
/// # Errors
/// When the connection is closed.
pub fn look_at_segment<J: Journal>(
    script: &Script,
    world: &mut World<J>,
    index: usize,
    segment: &str,
    snapshot: &mut Snapshot,
) -> Result<(), Closed> {
    let (name, delegation_token) = (|| Text::from(segment), Text::new);
    let info = world.ask(GetStreamSegmentInfo {
        request_id: 0,
        segment: name(),
        delegation_token: delegation_token(),
    })?;
    snapshot.insert(format!("info {segment}"), format!("{info:?}"));
    let Command::StreamSegmentInfo(info) = info else { return Ok(()) };
    if !info.exists {
        return Ok(());
    }
    let data = read(world, segment, info.start_offset, info.write_offset)?;
    let told = match data {
        Ok(data) => format!("{} bytes, {:08x}", data.len(), crc32c::crc32c(&data)),
        Err(refusal) => format!("{refusal:?}"),
    };
    snapshot.insert(format!("data {segment}"), told);
    let writer = Script::writer(index);
    for attribute_id in script.attributes.iter().copied().chain([writer]) {
        let value = world.ask(GetSegmentAttribute {
            request_id: 0,
            segment: name(),
            attribute_id,
            delegation_token: delegation_token(),
        })?;
        snapshot.insert(format!("attribute {attribute_id:x} {segment}"), format!("{value:?}"));
    }
    Ok(())
}

/// Asks everything about one table.
///
/// # Errors
/// When the connection is closed.
pub fn look_at_table<J: Journal>(
    world: &mut World<J>,
    table: &str,
    snapshot: &mut Snapshot,
) -> Result<(), Closed> {
    let info = world.ask(GetTableSegmentInfo {
        request_id: 0,
        segment: table.into(),
        delegation_token: Text::new(),
    })?;
    let exists = matches!(info, Command::TableSegmentInfo(_));
    snapshot.insert(format!("info {table}"), format!("{info:?}"));
    if exists {
        let entries = world.ask(ReadTableEntries {
            request_id: 0,
            segment: table.into(),
            delegation_token: Text::new(),
            suggested_entry_count: 10_000,
            iteration: IterationArguments::default(),
        })?;
        snapshot.insert(format!("entries {table}"), format!("{entries:?}"));
    }
    Ok(())
}

/// Reads a segment from `from` to `to`.
fn read<J: Journal>(
    world: &mut World<J>,
    segment: &str,
    from: i64,
    to: i64,
) -> Result<Result<Vec<u8>, Box<Command>>, Closed> {
    let mut data = Vec::new();
    while from + (data.len() as i64) < to {
        let offset = from + data.len() as i64;
        let reply = world.ask(ReadSegment {
            segment: segment.into(),
            offset,
            suggested_length: i32::try_from(to - offset).unwrap_or(i32::MAX),
            delegation_token: Text::new(),
            request_id: 0,
        })?;
        match reply {
            Command::SegmentRead(part) if !part.data.is_empty() && part.offset == offset => {
                let bytes: &Bytes = &part.data;
                data.extend_from_slice(bytes);
            }
            other => return Ok(Err(Box::new(other))),
        }
    }
    Ok(Ok(data))
}
