//! Sequential reading of files in large chunks, several in flight, so that a scan runs at the speed
//! of the device. What cannot be read even block by block is reported as such, not as an error.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_core::env::device::{Device, DeviceOutcome, FileHandle, OperationToken};
use thalweg_core::frame::aligned_memory;
use thalweg_core::position::BLOCK_BYTES;

use crate::config::Config;
use crate::layout::BLOCK;
use crate::port::{Port, Purpose};
use crate::recovery::survey::{Surveyed, read_block};

/// Reads one file at a time, forwards.
#[derive(Debug)]
pub(crate) struct Reader {
    chunk_blocks: u32,
    depth: u32,
    file: Option<FileHandle>,
    chunks: BTreeMap<u32, Chunk>,
}

#[derive(Debug)]
enum Chunk {
    Asked(OperationToken),
    Here(Bytes),
    /// Read block by block after a failure; `None`: unreadable.
    Pieces(Vec<Option<Bytes>>),
}

impl Reader {
    pub(crate) fn new(config: &Config) -> Self {
        let chunk_blocks = config.recovery_read_bytes as u64 / BLOCK_BYTES;
        Self {
            chunk_blocks: u32::try_from(chunk_blocks).expect("a chunk is small"),
            depth: u32::try_from(config.recovery_reads).expect("checked to be small"),
            file: None,
            chunks: BTreeMap::new(),
        }
    }

    /// Waits for what is in flight and forgets it.
    pub(crate) fn close<D: Device>(&mut self, port: &mut Port<D>) {
        for chunk in std::mem::take(&mut self.chunks).into_values() {
            abandon(port, chunk);
        }
        self.file = None;
    }

    /// `count` blocks from `first` on; `None` when they are not all there and readable.
    pub(crate) fn read<D: Device>(
        &mut self,
        port: &mut Port<D>,
        file: &Surveyed,
        first: u32,
        count: u32,
    ) -> Option<Bytes> {
        let end = first.checked_add(count).filter(|&end| end <= file.blocks())?;
        let (from, to) = (first / self.chunk_blocks, (end - 1) / self.chunk_blocks);
        self.ask(port, file, from, to);
        for chunk in from..=to {
            self.arrive(port, file, chunk);
        }
        if from == to {
            return self.part(from, first, end);
        }
        let mut memory = aligned_memory(count as usize * BLOCK);
        for chunk in from..=to {
            let begin = first.max(chunk * self.chunk_blocks);
            let part = self.part(chunk, begin, end.min((chunk + 1) * self.chunk_blocks))?;
            memory.extend_from_slice(&part);
        }
        Some(memory.freeze())
    }

    /// Makes sure that the wanted chunks and some ahead are asked for, and drops those behind.
    fn ask<D: Device>(&mut self, port: &mut Port<D>, file: &Surveyed, from: u32, to: u32) {
        if self.file != Some(file.handle) {
            self.close(port);
            self.file = Some(file.handle);
        }
        let kept = self.chunks.split_off(&from);
        for chunk in std::mem::replace(&mut self.chunks, kept).into_values() {
            abandon(port, chunk);
        }
        let chunks = file.blocks().div_ceil(self.chunk_blocks);
        for index in from..(to + self.depth).min(chunks) {
            self.chunks.entry(index).or_insert_with(|| {
                let first = index * self.chunk_blocks;
                let count = self.chunk_blocks.min(file.blocks() - first) as usize;
                Chunk::Asked(port.start(Purpose::Recovery, |device, token| {
                    let offset = u64::from(first) * BLOCK_BYTES;
                    device.read(file.handle, offset, count * BLOCK, token);
                }))
            });
        }
    }

    /// Waits for a chunk that was asked for.
    fn arrive<D: Device>(&mut self, port: &mut Port<D>, file: &Surveyed, index: u32) {
        let chunk = self.chunks.get_mut(&index).expect("was asked for");
        let Chunk::Asked(token) = *chunk else { return };
        let first = index * self.chunk_blocks;
        let count = self.chunk_blocks.min(file.blocks() - first);
        *chunk = match port.wait_for(token) {
            Ok(DeviceOutcome::Read(bytes)) if bytes.len() == count as usize * BLOCK => {
                Chunk::Here(bytes.freeze())
            }
            _ => Chunk::Pieces(
                (first..first + count)
                    .map(|block| read_block(port, file.handle, file.bytes, block))
                    .map(|piece| piece.map(bytes::BytesMut::freeze))
                    .collect(),
            ),
        };
    }

    /// Blocks `begin..end` of one chunk.
    fn part(&self, index: u32, begin: u32, end: u32) -> Option<Bytes> {
        let base = index * self.chunk_blocks;
        let (begin, end) = ((begin - base) as usize, (end - base) as usize);
        match self.chunks.get(&index)? {
            Chunk::Asked(_) => None,
            Chunk::Here(bytes) => Some(bytes.slice(begin * BLOCK..end * BLOCK)),
            Chunk::Pieces(pieces) => {
                let mut memory = aligned_memory((end - begin) * BLOCK);
                for piece in &pieces[begin..end] {
                    memory.extend_from_slice(piece.as_ref()?);
                }
                Some(memory.freeze())
            }
        }
    }
}

fn abandon<D: Device>(port: &mut Port<D>, chunk: Chunk) {
    if let Chunk::Asked(token) = chunk {
        // The outcome does not matter; the buffer must come back.
        drop(port.wait_for(token));
    }
}
