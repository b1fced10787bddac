//! Frames on their way from the journal, and the reads that wait for each.
//!
//! A frame is asked for once, however many reads want it. A frame without waiting reads was asked
//! for ahead.

use std::collections::BTreeMap;

use crate::position::JournalAddress;
use crate::request::Peer;
use crate::tail::PendingRead;

/// See the module's comment.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    waiting: BTreeMap<JournalAddress, Vec<PendingRead>>,
}

impl Fetches {
    /// Whether `address` must be asked for now; it counts as on its way from then on.
    pub(crate) fn begin(&mut self, address: JournalAddress) -> bool {
        let is_new = !self.waiting.contains_key(&address);
        if is_new {
            self.waiting.insert(address, Vec::new());
        }
        is_new
    }

    /// Lets a read wait for a frame that is on its way.
    pub(crate) fn join(&mut self, address: JournalAddress, read: PendingRead) {
        self.waiting.get_mut(&address).expect("the frame is on its way").push(read);
    }

    /// The frame is there, or will not come: whoever waited.
    pub(crate) fn end(&mut self, address: JournalAddress) -> Vec<PendingRead> {
        self.waiting.remove(&address).unwrap_or_default()
    }

    /// Drops the reads of a connection that is gone.
    pub(crate) fn forget(&mut self, peer: Peer) {
        for reads in self.waiting.values_mut() {
            reads.retain(|read| Peer::from(read.token) != peer);
        }
    }
}
