//! Hostile bytes into every parser: one function per target, which panics when something that must
//! hold does not.
//!
//! The functions are used three ways: by the short test of this crate (seeds and mutations that are
//! the same every time), by the program of this crate (the same, for as long as one likes), and by
//! the coverage-guided targets in `coverage/`, a cargo-fuzz project. Seeds are made by code, from
//! golden vectors or from what the product itself writes, so there is no corpus to keep in step.
//!
//! Every target holds its subject to more than "no panic": what is decoded encodes to bytes that
//! decode to it, what a checksum protects is never given out changed, what is answered is a
//! command.

mod configuration;
mod controller;
mod image;
mod journal;
pub mod mutate;
mod replay;
mod server;
mod table;
mod wire;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is hostile, for people.
    pub about: &'static str,
    /// Runs one input; panics when the subject failed.
    pub body: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Runs of the short form: about two seconds where nothing is optimised much.
    pub short_runs: u64,
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "decode",
        about: "any bytes, cut anywhere, into the wire decoder",
        body: wire::decode,
        seeds: wire::seeds,
        short_runs: 150_000,
    },
    Target {
        name: "block_assembly",
        about: "any append blocks and ends into the assembly of an append",
        body: wire::block_assembly,
        seeds: wire::block_seeds,
        short_runs: 300_000,
    },
    Target {
        name: "exchange",
        about: "any commands at a connection with an engine behind it",
        body: server::exchange,
        seeds: server::seeds,
        short_runs: 20_000,
    },
    Target {
        name: "journal",
        about: "damaged and forged journal files into recovery",
        body: journal::recover,
        seeds: journal::seeds,
        short_runs: 8_000,
    },
    Target {
        name: "replay",
        about: "forged operations, with right checksums, into the replay of an engine",
        body: replay::operations,
        seeds: replay::seeds,
        short_runs: 15_000,
    },
    Target {
        name: "checkpoint",
        about: "forged checkpoints, with right checksums, into an engine",
        body: replay::checkpoints,
        seeds: replay::seeds,
        short_runs: 15_000,
    },
    Target {
        name: "table",
        about: "any bytes as recorded table changes and snapshots",
        body: table::bodies,
        seeds: table::seeds,
        short_runs: 100_000,
    },
    Target {
        name: "messages",
        about: "any bytes as messages to the controller, and the checks of what they carry",
        body: controller::messages,
        seeds: controller::seeds,
        short_runs: 100_000,
    },
    Target {
        name: "records",
        about: "any bytes as records of the control plane",
        body: controller::records,
        seeds: controller::record_seeds,
        short_runs: 100_000,
    },
    Target {
        name: "configuration",
        about: "any text as marker of a data directory and as sizes of the command line",
        body: configuration::texts,
        seeds: configuration::seeds,
        short_runs: 100_000,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Bytes taken one field at a time from the front of an input; zeros behind its end.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.0.len().min(N);
        out[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        out
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
