//! The device as the journal uses it: numbers operations, knows how many are in flight, and can
//! wait for one. Keeps no policy.

use std::collections::BTreeMap;
use std::io;

use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, OperationToken};

/// Who asked for an operation: the upper byte of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Records and headers of files that go into use.
    Record = 1,
    /// Preparing, recycling and removing files.
    Files = 2,
    /// Reading frames back.
    Fetch = 3,
    /// Recovery and inspection, which wait.
    Recovery = 4,
    /// Looking whose the directory is.
    Claim = 5,
}

/// A device and the operations in flight on it.
#[derive(Debug)]
pub(crate) struct Port<D> {
    pub(crate) device: D,
    next_serial: u64,
    in_flight: usize,
    arrived: Vec<DeviceEvent>,
    /// Completions that nobody has waited for yet; recovery only.
    finished: BTreeMap<OperationToken, io::Result<DeviceOutcome>>,
}

/// What an operation was for.
pub(crate) fn purpose_of(token: OperationToken) -> Option<Purpose> {
    [Purpose::Record, Purpose::Files, Purpose::Fetch, Purpose::Recovery, Purpose::Claim]
        .into_iter()
        .find(|&purpose| purpose as u64 == token.0 >> 56)
}

/// What a device that answers with the wrong outcome is told.
pub(crate) fn wrong_outcome() -> io::Error {
    io::Error::other("device gives an outcome of another operation")
}

impl<D: Device> Port<D> {
    pub(crate) fn new(device: D) -> Self {
        Self {
            device,
            next_serial: 0,
            in_flight: 0,
            arrived: Vec::new(),
            finished: BTreeMap::new(),
        }
    }

    /// A token for one operation that is queued right after.
    pub(crate) fn token(&mut self, purpose: Purpose) -> OperationToken {
        self.next_serial += 1;
        self.in_flight += 1;
        OperationToken((purpose as u64) << 56 | self.next_serial)
    }

    /// The device, to queue an operation with a token of purpose `purpose`.
    pub(crate) fn start(
        &mut self,
        purpose: Purpose,
        queue: impl FnOnce(&mut D, OperationToken),
    ) -> OperationToken {
        let token = self.token(purpose);
        queue(&mut self.device, token);
        token
    }

    /// Moves what completed into `events`.
    pub(crate) fn poll(&mut self, events: &mut Vec<DeviceEvent>) {
        // What a blocking call met on its way comes first.
        for (token, outcome) in std::mem::take(&mut self.finished) {
            events.push(DeviceEvent { token, outcome });
        }
        self.poll_device(events);
    }

    fn poll_device(&mut self, events: &mut Vec<DeviceEvent>) {
        let before = events.len();
        self.device.poll(events);
        let completed = events.len() - before;
        assert!(completed <= self.in_flight, "a device completes only what was queued");
        self.in_flight -= completed;
    }

    /// Waits until everything in flight has completed, and forgets the outcomes.
    pub(crate) fn drain(&mut self) {
        while self.in_flight > 0 {
            self.gather();
        }
        self.finished.clear();
    }

    /// Waits for one operation. The outcomes of others are kept until asked for.
    pub(crate) fn wait_for(&mut self, token: OperationToken) -> io::Result<DeviceOutcome> {
        loop {
            if let Some(outcome) = self.finished.remove(&token) {
                return outcome;
            }
            assert!(self.in_flight > 0, "what is waited for is in flight");
            self.gather();
        }
    }

    /// Queues an operation and waits for it.
    pub(crate) fn run(
        &mut self,
        queue: impl FnOnce(&mut D, OperationToken),
    ) -> io::Result<DeviceOutcome> {
        let token = self.start(Purpose::Recovery, queue);
        self.wait_for(token)
    }

    /// Moves completions of a purpose that has no waiter out of the way, to whom they belong.
    pub(crate) fn take_finished(&mut self, purpose: Purpose) -> Option<DeviceEvent> {
        let token = self.finished.keys().copied().find(|&token| purpose_of(token) == Some(purpose));
        let token = token?;
        let outcome = self.finished.remove(&token)?;
        Some(DeviceEvent { token, outcome })
    }

    /// Collects completions, waiting for at least one.
    pub(crate) fn gather(&mut self) {
        self.device.flush();
        let mut arrived = std::mem::take(&mut self.arrived);
        self.poll_device(&mut arrived);
        if arrived.is_empty() {
            self.device.wait();
            self.poll_device(&mut arrived);
        }
        for event in arrived.drain(..) {
            self.finished.insert(event.token, event.outcome);
        }
        self.arrived = arrived;
    }
}
