//! Recovery: from the frames that the journal finds to the state of every container.
//!
//! Two passes over the frames. The first collects the newest complete checkpoint of each container
//! and where damage lies. The second applies, from the oldest place that any container needs, what
//! its checkpoint does not cover, in the same way as live service does. A container whose
//! operations have a gap, or lie in a frame that cannot be read and no later checkpoint covers, is
//! damaged: it refuses to serve rather than serve what is left.

use bytes::{Bytes, BytesMut};

use crate::checkpoint::{CheckpointState, ReplayFrom};
use crate::container::{Container, ContainerState, Shared};
use crate::fault::Fault;
use crate::id::ContainerId;
use crate::index::FrameReference;
use crate::operation::{CheckpointPart, Operation, OperationHeader, Operations, corrupt};
use crate::position::{FrameNumber, JournalAddress, SequenceNumber};

/// What the passes found so far. Dropped when the engine opens.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Good frames, in order.
    frames: Vec<(FrameNumber, JournalAddress)>,
    /// Bytes of the frames seen in the first pass.
    bytes: u64,
    found: Vec<Found>,
    damages: Vec<Damage>,
    is_first_pass_over: bool,
}

/// What was found of one container.
#[derive(Debug, Default)]
struct Found {
    /// The first frame with an operation of it.
    first: Option<JournalAddress>,
    newest: Option<Snapshot>,
    assembling: Option<Assembling>,
    fault: Option<Fault>,
}

/// A complete checkpoint.
#[derive(Debug)]
struct Snapshot {
    covers: SequenceNumber,
    replay_from: JournalAddress,
    bytes: Bytes,
    /// Bytes of frames seen before it.
    found_at: u64,
}

/// A checkpoint of which more parts are to come.
#[derive(Debug)]
struct Assembling {
    covers: SequenceNumber,
    replay_from: JournalAddress,
    next_part: u32,
    part_count: u32,
    bytes: BytesMut,
}

/// Frames that were acknowledged and cannot be read.
#[derive(Debug)]
struct Damage {
    /// Whose operations may be lost; empty for all.
    containers: Vec<ContainerId>,
    fault: Fault,
    /// The next good frame.
    before: Option<JournalAddress>,
}

impl Recovery {
    pub(crate) fn new(containers: usize) -> Self {
        Self { found: (0..containers).map(|_| Found::default()).collect(), ..Self::default() }
    }

    /// First pass: a good frame. `number_of` tells the place of a container in the engine.
    pub(crate) fn frame(
        &mut self,
        number: FrameNumber,
        address: JournalAddress,
        bytes: &Bytes,
        number_of: impl Fn(ContainerId) -> Option<usize>,
    ) {
        self.end_damages(address);
        // Also one without an operation: a checkpoint may need the journal from it on.
        self.frames.push((number, address));
        for operation in Operations::of(bytes) {
            let (position, header) = match operation {
                Ok(found) => found,
                Err(fault) => return self.damage(Vec::new(), at(address, &fault)),
            };
            let Some(container) = number_of(header.container) else { continue };
            self.found[container].first.get_or_insert(address);
            if header.is_checkpoint() {
                self.checkpoint_part(container, &header, bytes, position);
            }
        }
        self.bytes += bytes.len() as u64;
    }

    /// A frame that cannot be read.
    pub(crate) fn damage(&mut self, containers: Vec<ContainerId>, fault: Fault) {
        self.damages.push(Damage { containers, fault, before: None });
    }

    fn end_damages(&mut self, next: JournalAddress) {
        for damage in self.damages.iter_mut().rev().take_while(|damage| damage.before.is_none()) {
            damage.before = Some(next);
        }
    }

    fn checkpoint_part(
        &mut self,
        container: usize,
        header: &OperationHeader,
        frame: &Bytes,
        position: u32,
    ) {
        let found = &mut self.found[container];
        let part = match Operation::decode(header, frame, position) {
            Ok(Operation::Checkpoint(part)) => part,
            // Told again, and acted on, when the operation is replayed.
            _ => return found.assembling = None,
        };
        if part.index == 0 {
            found.assembling = begin(&self.frames, &part);
        }
        let Some(assembling) = &mut found.assembling else { return };
        let continues = assembling.next_part == part.index
            && assembling.covers == part.snapshot
            && assembling.part_count == part.count;
        if !continues {
            found.assembling = None;
            return;
        }
        assembling.bytes.extend_from_slice(&part.bytes);
        assembling.next_part += 1;
        if assembling.next_part < assembling.part_count {
            return;
        }
        if let Some(complete) = found.assembling.take() {
            found.newest = Some(Snapshot {
                covers: complete.covers,
                replay_from: complete.replay_from,
                bytes: complete.bytes.freeze(),
                found_at: self.bytes,
            });
        }
    }

    /// Where the second pass has to begin.
    pub(crate) fn replay_start(&self) -> Option<JournalAddress> {
        self.found.iter().filter_map(Found::replay_from).min()
    }

    /// Loads the checkpoints, once, when the first pass is over.
    pub(crate) fn end_first_pass(&mut self, containers: &mut [Container], shared: &mut Shared) {
        if std::mem::replace(&mut self.is_first_pass_over, true) {
            return;
        }
        shared.journal_bytes = self.bytes;
        for (container, found) in containers.iter_mut().zip(&mut self.found) {
            let replay_from = found.replay_from().map_or(ReplayFrom::Nothing, ReplayFrom::At);
            let (begun_at, last_bytes) = found
                .newest
                .as_ref()
                .map_or((0, 0), |newest| (newest.found_at, newest.bytes.len() as u64));
            container.checkpoint = CheckpointState::recovered(replay_from, begun_at, last_bytes);
            found.assembling = None;
            let Some(newest) = &mut found.newest else { continue };
            let snapshot = std::mem::take(&mut newest.bytes);
            let files = &mut shared.files;
            if let Err(fault) = container.restore(newest.covers, snapshot, &self.frames, files) {
                found.fault = Some(fault);
            }
        }
    }

    /// Second pass: a good frame.
    pub(crate) fn replay(
        &mut self,
        address: JournalAddress,
        bytes: &Bytes,
        containers: &mut [Container],
        shared: &mut Shared,
        number_of: impl Fn(ContainerId) -> Option<usize>,
    ) {
        self.end_damages(address);
        for operation in Operations::of(bytes) {
            let (position, header) = match operation {
                Ok(found) => found,
                Err(fault) => return self.damage(Vec::new(), at(address, &fault)),
            };
            let Some(number) = number_of(header.container) else { continue };
            if self.found[number].fault.is_some() {
                continue;
            }
            let place = (address, bytes, position);
            if let Err(fault) = replay_operation(&mut containers[number], &header, place, shared) {
                self.found[number].fault = Some(at(address, &fault));
            }
        }
    }

    /// After the last frame: what is wrong with each container, if anything. Gives whether it is
    /// known which files hold bytes of each.
    pub(crate) fn end(self, containers: &mut [Container]) -> bool {
        let mut knows_files = true;
        for (container, found) in containers.iter_mut().zip(self.found) {
            let covered_from = found.newest.as_ref().map(|newest| newest.replay_from);
            let lost = self.damages.iter().find(|damage| {
                let is_named =
                    damage.containers.is_empty() || damage.containers.contains(&container.id);
                let is_covered =
                    damage.before.zip(covered_from).is_some_and(|(before, from)| from >= before);
                is_named && !is_covered
            });
            let is_restored = found.newest.is_some() && found.fault.is_none();
            let fault = lost.map(|damage| damage.fault.clone()).or(found.fault);
            knows_files &= is_restored || fault.is_none();
            container.state = fault.map_or(ContainerState::Serving, ContainerState::Damaged);
        }
        knows_files
    }
}

impl Found {
    fn replay_from(&self) -> Option<JournalAddress> {
        self.newest.as_ref().map(|newest| newest.replay_from).or(self.first)
    }
}

/// Begins to assemble a checkpoint whose part 0 is in the last frame seen. `None` when the frames
/// that it needs were not seen.
fn begin(frames: &[(FrameNumber, JournalAddress)], part: &CheckpointPart) -> Option<Assembling> {
    let (number, address) = *frames.last().expect("the frame of the part was seen");
    let replay_from = match part.frames_back {
        0 => address,
        back => {
            let from = FrameNumber(number.0.checked_sub(back)?);
            let index = frames.binary_search_by_key(&from, |(seen, _)| *seen).ok()?;
            frames[index].1
        }
    };
    Some(Assembling {
        covers: part.snapshot,
        replay_from,
        next_part: 0,
        part_count: part.count,
        bytes: BytesMut::new(),
    })
}

fn replay_operation(
    container: &mut Container,
    header: &OperationHeader,
    (address, frame, position): (JournalAddress, &Bytes, u32),
    shared: &mut Shared,
) -> Result<(), Fault> {
    if header.sequence_number <= container.sequence_number {
        return Ok(());
    }
    let expected = container.sequence_number.next();
    if header.sequence_number != expected {
        return Err(corrupt(format!(
            "operation {} where {} is expected",
            header.sequence_number.0, expected.0
        )));
    }
    let operation = Operation::decode(header, frame, position)?;
    #[cfg(feature = "canary")]
    let operation = crate::canary::replayed(operation);
    let reference = FrameReference::at(address);
    container.apply(&operation, reference, position, &mut shared.files)?;
    container.sequence_number = expected;
    Ok(())
}

fn at(address: JournalAddress, fault: &Fault) -> Fault {
    Fault::new(fault.class, format!("{address}: {}", fault.detail))
}

impl Container {
    /// Everything that was replayed is durable.
    pub(crate) fn settle(&mut self, shared: &mut Shared) {
        for handle in self.segments.handles() {
            let segment = self.segments.get_mut(handle).expect("a handle leads to a segment");
            segment.durable_length = segment.length;
            segment.is_sealed_durably = segment.is_sealed;
        }
        for (_, file) in self.releases.drain(..) {
            shared.files.release(file);
        }
        assert!(self.touched.is_empty(), "replayed frames have addresses");
    }
}
