//! Opening a journal: finds its end, cuts what was never acknowledged, reports what is damaged,
//! makes what is doubtful safe, and begins a new epoch durably.
//!
//! Order, each step durable before the next: accepted records that no other record tells to be
//! durable are written again in place (they may be readable and yet not on the disk); files behind
//! the end lose their names; the opening record of the new epoch is written at the end, or in a new
//! file when the end is not to be written to. A crash anywhere leaves a directory from which the
//! same end is found. Unreadable is never a reason to remove a file.

use thalweg_core::canary::{self, Canary};
use thalweg_core::env::device::{Device, FileHandle};
use thalweg_core::env::journal::{Opened, Recovered};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::frame::ContainerMask;
use thalweg_core::id::ContainerId;
use thalweg_core::limits::CONTAINERS_MAX;
use thalweg_core::position::{BLOCK_BYTES, ContainerEpoch, JournalAddress};
use thalweg_core::time::Instant;

use crate::config::blocks_of;
use crate::fence;
use crate::files::{
    LiveFile, ReadyFile, Spare, fault_of, fresh_name, header_block, journal_name, spare_name,
    zero_block,
};
use crate::journal::{Journal, State};
use crate::layout::{Checksum, FileHeader, RecordKind, Sequence};
use crate::port::Purpose;
use crate::writer::{ChainEnd, Tail, Writer};

pub(crate) mod reader;
pub(crate) mod survey;
pub(crate) mod walk;

use survey::{Head, Survey, Surveyed};
use walk::{End, Found, Position, Route, Walk};

/// New files tried for the opening record before giving up.
const OPENING_ATTEMPTS: u32 = 3;

impl<D: Device> Journal<D> {
    pub(crate) fn recover_journal(
        &mut self,
        visit: &mut dyn FnMut(Recovered),
    ) -> Result<Opened, Fault> {
        self.shut();
        self.claim_again()?;
        let mut survey = Survey::default();
        let outcome = survey::survey(&mut self.port, self.owner, &mut survey);
        self.adopt(&survey);
        outcome?;
        self.claim.begin(&mut self.files);
        let files: Vec<Surveyed> = survey
            .files
            .iter()
            .filter(|file| !matches!(file.head, Head::Prepared(_)))
            .copied()
            .collect();
        let end = self.find_end(&files);
        self.check_readable(&files, &end)?;
        let found = survey.files.iter().filter_map(|file| match file.head {
            Head::Live(_, epoch) | Head::Prepared(epoch) => Some(epoch),
            Head::Unknown { .. } => None,
        });
        let highest = found.max().unwrap_or_default().max(end.epoch);
        let epoch = fence::raise(highest, self.epoch)?;
        self.visit_found(&files, &end, visit);
        self.make_safe(&files, &end)?;
        self.check_owner()?;
        self.clear_behind(&files, &end)?;
        self.settle_spares(&survey)?;
        self.check_owner()?;
        self.begin_epoch(&files, &end, epoch)?;
        self.counters.tail_cut_bytes += end.tail_bytes;
        if end.tail_bytes > 0 {
            tracing::info!(tail_cut_bytes = end.tail_bytes, "unacknowledged tail of journal cut");
        }
        self.cut_from = None;
        self.state = State::Open;
        let writer = self.writer.as_ref().expect("an open journal has a writer");
        self.recovered_end = writer.next_sequence();
        Ok(Opened {
            epoch,
            next_frame: writer.next_frame(),
            visited_from: replay_of(&files, &end),
            tail_cut_bytes: end.tail_bytes,
        })
    }

    pub(crate) fn replay_journal(
        &mut self,
        from: JournalAddress,
        visit: &mut dyn FnMut(Recovered),
    ) -> Result<(), Fault> {
        if self.state != State::Open {
            return Err(Fault::new(FaultClass::Unavailable, "journal is not recovered"));
        }
        let live = self.files.live.iter();
        let files: Vec<Surveyed> = live
            .map(|(&id, file)| Surveyed {
                id,
                handle: file.handle,
                bytes: file.bytes,
                head: file.start.map_or(Head::Unknown { is_blank: false }, |(start, epoch)| {
                    Head::Live(start, epoch)
                }),
            })
            .collect();
        self.visit_from(&files, from, self.recovered_end, visit);
        Ok(())
    }

    /// Ends the incarnation: waits for what is in flight, remembers what was reported, closes.
    fn shut(&mut self) {
        self.port.drain();
        if let Some(writer) = self.writer.take() {
            let first_lost = writer.durable_upto.next();
            self.cut_from = Some(self.cut_from.map_or(first_lost, |cut| cut.min(first_lost)));
        }
        self.state = State::Closed;
        self.files.close(&mut self.port);
        self.fetches.in_flight.clear();
        self.fetches.refused.clear();
        self.condemned.clear();
    }

    /// Takes over the files that the survey opened.
    fn adopt(&mut self, survey: &Survey) {
        for file in &survey.files {
            let &Surveyed { id, handle, bytes, head } = file;
            self.files.total_bytes += bytes;
            self.files.next_id = self.files.next_id.max(id.0 + 1);
            if matches!(head, Head::Prepared(_)) {
                self.files.ready.push_back(ReadyFile { id, handle, bytes });
                continue;
            }
            let is_spent = self.poisoned.contains(&id) || !self.claim.is_own_file(id);
            let live = LiveFile { handle, bytes, start: file.start(), reads: 0, is_spent };
            self.files.live.insert(id, live);
        }
        for &(number, bytes) in survey.spares.iter().chain(&survey.fresh) {
            self.files.total_bytes += bytes;
            self.files.next_number = self.files.next_number.max(number.saturating_add(1));
        }
    }

    /// Finds the end of the chain: from the beginning of the newest file that has a good record and
    /// before which everything is known durable, for only then the chain is sure to reach it.
    pub(crate) fn find_end(&mut self, files: &[Surveyed]) -> End {
        let limit = self.cut_from;
        // What this process reported durable is the watermark, whatever the disk tells.
        let watermark = limit.map(Sequence::before);
        let starts = files
            .iter()
            .enumerate()
            .rev()
            .filter_map(|(index, file)| file.start().map(|(start, _)| (index, start.first)));
        let mut end = None;
        for (file, first) in starts {
            let from = Position { file, block: 1 };
            let route = Route { from, is_file_start: true, first_blocks: None, limit, watermark };
            let found = self.walk(files, route, &mut |_| {});
            let is_complete = found.last.is_some() && first.before() <= found.watermark;
            end = Some(found);
            if is_complete {
                break;
            }
        }
        end.unwrap_or_else(|| {
            let from = Position { file: 0, block: 1 };
            let route = Route { from, is_file_start: true, first_blocks: None, limit, watermark };
            self.walk(files, route, &mut |_| {})
        })
    }

    /// Refuses to cut where the device does not read: what lies there may have been acknowledged.
    fn check_readable(&self, files: &[Surveyed], end: &End) -> Result<(), Fault> {
        let Some(at) = end.unreadable.filter(|_| !self.config.cuts_unreadable_tail) else {
            return Ok(());
        };
        let name = journal_name(files[at.file].id);
        let offset = u64::from(at.block) * BLOCK_BYTES;
        let detail = format!("{name} cannot be read at offset {offset}, near the journal's end");
        Err(Fault::new(FaultClass::Device, detail))
    }

    pub(crate) fn walk(
        &mut self,
        files: &[Surveyed],
        route: Route,
        visit: &mut dyn FnMut(Found),
    ) -> End {
        Walk::new(&mut self.port, &self.config, self.owner, files, route).run(visit)
    }

    /// Visits every frame from the newest recorded replay position on.
    pub(crate) fn visit_found(
        &mut self,
        files: &[Surveyed],
        end: &End,
        visit: &mut dyn FnMut(Recovered),
    ) {
        match (&end.last, end.next) {
            (Some(last), Some(next)) => {
                self.visit_from(files, last.replay_address(), next, visit);
            }
            _ if end.watermark > Sequence(0) => {
                // Something was acknowledged and no record of it is left.
                let detail = "no good record in the journal, and there was one";
                visit(self.damaged(None, Fault::new(FaultClass::Corrupt, detail)));
            }
            _ => {
                // No crash leaves a file like that: a journal was here.
                let unknown = Head::Unknown { is_blank: false };
                if let Some(file) = files.iter().find(|file| file.head == unknown) {
                    let name = journal_name(file.id);
                    let detail = format!("{name} is unreadable and no other file has a record");
                    visit(self.damaged(None, Fault::new(FaultClass::Corrupt, detail)));
                }
            }
        }
    }

    pub(crate) fn visit_from(
        &mut self,
        files: &[Surveyed],
        from: JournalAddress,
        limit: Sequence,
        visit: &mut dyn FnMut(Recovered),
    ) {
        let index = files.iter().position(|file| file.id >= from.file());
        let Some(file) = index else { return };
        let is_there = files[file].id == from.file();
        if !is_there {
            let name = journal_name(from.file());
            let detail = format!("{name} is needed by a replay and is not there");
            visit(self.damaged(None, Fault::new(FaultClass::Corrupt, detail)));
        }
        let block = if is_there { from.first_block() } else { 1 };
        let route = Route {
            from: Position { file, block },
            is_file_start: false,
            first_blocks: is_there.then(|| from.blocks()),
            limit: Some(limit),
            // Everything below the limit was accepted: what is bad now is damaged.
            watermark: Some(limit.before()),
        };
        let containers = self.config.containers.clone();
        let mut count = 0;
        self.walk(files, route, &mut |found| match found {
            Found::Record { header, bytes } if header.kind == RecordKind::Frame => {
                visit(Recovered::Frame { address: header.address, number: header.frame, bytes });
            }
            Found::Record { .. } => {}
            Found::Blemish { fault } => tracing::warn!(%fault, "journal is blemished"),
            Found::Lost { containers: mask, fault } => {
                count += 1;
                tracing::error!(%fault, "journal is damaged");
                visit(Recovered::Damaged { containers: name_containers(&containers, mask), fault });
            }
        });
        self.counters.damaged += count;
    }

    fn damaged(&mut self, mask: Option<ContainerMask>, fault: Fault) -> Recovered {
        self.counters.damaged += 1;
        tracing::error!(%fault, "journal is damaged");
        Recovered::Damaged { containers: name_containers(&self.config.containers, mask), fault }
    }

    /// Writes accepted records that may not be on the disk once more, in place.
    fn make_safe(&mut self, files: &[Surveyed], end: &End) -> Result<(), Fault> {
        for rewrite in &end.rewrites {
            let file = &files[rewrite.file];
            let bytes = rewrite.bytes.clone();
            self.write_durable(file.handle, rewrite.offset, bytes).map_err(|error| {
                self.poisoned.insert(file.id);
                fault_of("write", &journal_name(file.id), &error)
            })?;
        }
        Ok(())
    }

    fn write_durable(
        &mut self,
        handle: FileHandle,
        offset: u64,
        bytes: bytes::Bytes,
    ) -> std::io::Result<()> {
        self.port.run(|device, token| device.write_durable(handle, offset, bytes, token))?;
        self.counters.syncs += 1;
        Ok(())
    }

    /// Takes the names from files behind the end: nothing in them was acknowledged.
    fn clear_behind(&mut self, files: &[Surveyed], end: &End) -> Result<(), Fault> {
        let has_chain = end.next.is_some();
        let mut cleared = Vec::new();
        for (index, file) in files.iter().enumerate() {
            if has_chain && index <= end.at.file {
                continue;
            }
            if file.head == (Head::Unknown { is_blank: false }) {
                let file = journal_name(file.id);
                tracing::error!(file, "unreadable file behind the end of the journal is kept");
                continue;
            }
            let live = self.files.live.remove(&file.id).expect("surveyed files were adopted");
            cleared.push((file.id, live.handle, live.bytes, live.is_spent));
        }
        // A prepared file can only be used when its id comes behind the last.
        let last = files.get(end.at.file).filter(|_| has_chain).map(|file| file.id);
        let claim = &self.claim;
        let (kept, passed): (Vec<_>, Vec<_>) = self.files.ready.drain(..).partition(|ready| {
            claim.is_own_file(ready.id) && last.is_none_or(|last| ready.id > last)
        });
        self.files.ready.extend(kept);
        cleared.extend(passed.into_iter().map(|ready| {
            let is_spent = !claim.is_own_file(ready.id);
            (ready.id, ready.handle, ready.bytes, is_spent)
        }));
        for (id, handle, bytes, is_spent) in cleared {
            let name = journal_name(id);
            if is_spent || bytes != self.config.file_bytes {
                self.port.device.close(handle);
                self.remove(&name, bytes)?;
                continue;
            }
            let number = self.files.next_number;
            self.files.next_number += 1;
            let spare = spare_name(number);
            let renamed = self.port.run(|device, token| device.rename(&name, &spare, token));
            // Held in any case, so that the handle is closed when the recovery is given up.
            self.files.spares.push_back(Spare { number, handle, bytes });
            renamed.map_err(|error| fault_of("rename", &name, &error))?;
        }
        // Also for names that a killed process gave and did not make durable.
        self.sync_directory()
    }

    pub(crate) fn sync_directory(&mut self) -> Result<(), Fault> {
        if canary::has(Canary::DirectoryNotSynced) {
            return Ok(());
        }
        let synced = self.port.run(|device, token| device.sync_directory(token));
        synced.map(drop).map_err(|error| fault_of("sync", "journal directory", &error))
    }

    fn remove(&mut self, name: &str, bytes: u64) -> Result<(), Fault> {
        match self.port.run(|device, token| device.remove(name, token)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(fault_of("remove", name, &error))
            }
            _ => {
                self.files.total_bytes = self.files.total_bytes.saturating_sub(bytes);
                Ok(())
            }
        }
    }

    /// Opens the spares that fit and removes the others and what was never finished.
    fn settle_spares(&mut self, survey: &Survey) -> Result<(), Fault> {
        for &(number, bytes) in &survey.fresh {
            self.remove(&fresh_name(number), bytes)?;
        }
        for &(number, bytes) in &survey.spares {
            let name = spare_name(number);
            let held = self.files.spares.len() + self.files.ready.len();
            let is_wanted = held < self.config.files_ahead + self.config.files_kept;
            let is_own = self.claim.is_own_spare(number);
            if bytes != self.config.file_bytes || !is_wanted || !is_own {
                self.remove(&name, bytes)?;
                continue;
            }
            let (handle, bytes) = survey::open_file(&mut self.port, &name)?;
            self.files.spares.push_back(Spare { number, handle, bytes });
        }
        Ok(())
    }

    /// Writes the opening record of the new epoch, durable, and readies the writer behind it.
    fn begin_epoch(
        &mut self,
        files: &[Surveyed],
        end: &End,
        epoch: ContainerEpoch,
    ) -> Result<(), Fault> {
        self.epoch = Some(epoch);
        let chain = chain_end(files, end);
        if let Some(file) = files.get(end.at.file)
            && end.next.is_some()
            && !end.needs_new_file
            && end.at.block < file.blocks()
            && !self.poisoned.contains(&file.id)
            && self.claim.is_own_file(file.id)
        {
            let tail = Tail { file: file.id, block: end.at.block, blocks: file.blocks() };
            let revives = canary::has(Canary::StaleBytesRevived);
            let epoch = if revives { end.chain_epoch } else { epoch };
            match self.write_opening(tail, epoch, chain) {
                Ok(()) => return Ok(()),
                Err(fault) => tracing::warn!(%fault, "the journal goes on in another file"),
            }
        }
        let mut attempts = OPENING_ATTEMPTS;
        loop {
            attempts -= 1;
            match self.open_in_new_file(epoch, chain) {
                Ok(()) => return Ok(()),
                Err(fault) if attempts == 0 => return Err(fault),
                Err(fault) => tracing::warn!(%fault, "the journal goes on in another file"),
            }
        }
    }

    fn open_in_new_file(&mut self, epoch: ContainerEpoch, chain: ChainEnd) -> Result<(), Fault> {
        self.make_ready()?;
        let ready = self.files.ready.pop_front().expect("a file was made ready");
        let tail = Tail { file: ready.id, block: 1, blocks: blocks_of(ready.bytes) };
        let start = Writer::new(self.owner, epoch, tail, chain).file_start();
        let live = LiveFile {
            handle: ready.handle,
            bytes: ready.bytes,
            start: Some((start, epoch)),
            reads: 0,
            is_spent: false,
        };
        self.files.live.insert(ready.id, live);
        let header = FileHeader {
            owner: self.owner,
            file: ready.id,
            epoch,
            file_bytes: ready.bytes,
            start: Some(start),
        };
        self.write_durable(ready.handle, 0, header_block(&header))
            .map_err(|error| self.poison(&tail, &error))?;
        self.write_opening(tail, epoch, chain)
    }

    fn write_opening(
        &mut self,
        tail: Tail,
        epoch: ContainerEpoch,
        chain: ChainEnd,
    ) -> Result<(), Fault> {
        let mut writer = Writer::new(self.owner, epoch, tail, chain);
        if canary::has(Canary::StaleBytesRevived) {
            self.writer = Some(writer);
            return Ok(());
        }
        let mut block = zero_block();
        let nobody = ContainerMask::default();
        let header = writer.compose(RecordKind::Opening, 0, nobody, chain.replay, &mut block);
        let handle = self.files.live[&tail.file].handle;
        self.write_durable(handle, header.address.file_offset(), block.freeze())
            .map_err(|error| self.poison(&tail, &error))?;
        writer.opened(&header);
        self.writer = Some(writer);
        Ok(())
    }

    fn poison(&mut self, tail: &Tail, error: &std::io::Error) -> Fault {
        self.counters.poisonings += 1;
        self.poisoned.insert(tail.file);
        if let Some(file) = self.files.live.get_mut(&tail.file) {
            file.is_spent = true;
        }
        fault_of("write", &journal_name(tail.file), error)
    }

    /// Runs file jobs until a file is ready to be used.
    fn make_ready(&mut self) -> Result<(), Fault> {
        self.files.failure = None;
        self.files.is_urgent = true;
        while self.files.ready.is_empty() {
            let situation = self.situation(Instant(0));
            self.files.retry_at = None;
            self.files.start_work(&mut self.port, situation);
            if !self.files.is_working() {
                let detail = "no room for another journal file within the budget";
                return Err(Fault::new(FaultClass::NoSpace, detail));
            }
            self.port.gather();
            while let Some(event) = self.port.take_finished(Purpose::Files) {
                let (token, outcome, now) = (event.token, event.outcome, Instant(0));
                self.files.completed(&mut self.port, token, outcome, now, &mut self.counters);
            }
            if let Some(fault) = self.files.failure.take() {
                return Err(fault);
            }
        }
        self.files.is_urgent = false;
        Ok(())
    }
}

/// What the writer needs to know of the chain's end.
fn chain_end(files: &[Surveyed], end: &End) -> ChainEnd {
    let next = end.next.unwrap_or(Sequence(1));
    let last = end.last.as_ref().filter(|last| last.sequence.next() == next);
    // A record that cannot be read may have held anybody's operations.
    let unknown = ContainerMask(if next == Sequence(1) { 0 } else { u64::MAX });
    ChainEnd {
        next,
        last_frame: end.last_frame,
        checksum: end.checksum.unwrap_or(Checksum(0)),
        containers: last.map_or(unknown, |last| last.containers),
        replay: replay_of(files, end),
    }
}

/// Where a recovery begins to visit frames. When something was acknowledged and no record of it is
/// left, at the beginning, so that this is found again.
pub(crate) fn replay_of(files: &[Surveyed], end: &End) -> Option<JournalAddress> {
    let is_lost = end.watermark > Sequence(0);
    let beginning = || files.first().map(|file| JournalAddress::new(file.id, 1, 1));
    end.last.map(|last| last.replay_address()).or_else(|| beginning().filter(|_| is_lost))
}

/// The containers that a mask means; none when that is not known, which stands for all.
fn name_containers(shard: &[ContainerId], mask: Option<ContainerMask>) -> Vec<ContainerId> {
    let Some(mask) = mask else { return Vec::new() };
    let possible = (0..CONTAINERS_MAX).map(ContainerId);
    if shard.is_empty() {
        return possible.filter(|&container| mask.may_contain(container)).collect();
    }
    shard.iter().copied().filter(|&container| mask.may_contain(container)).collect()
}
