//! Whose the directory is, where no lock says so: nothing that an earlier owner still does is seen,
//! and nothing is acknowledged by it and lost.
//!
//! The model ([`Exclusion::Lease`]). An earlier owner is dead with writes on their way that land at
//! any later time, or it stood still anywhere and goes on. What it had begun to do with names lands
//! within the lease. Time passes alike for all owners.
//!
//! * The file `owner-<number>` is renamed to the next number by each claim; of two claims with the
//!   same number one finds nothing to rename. Claims are durable before anything else is done.
//! * An owner looks for its own name again and again. It answers and reports durability only within
//!   the lease after it began to look and found it. A new owner waits that long after its claim.
//!   So whatever an earlier owner ever answered was true when the new one began to read.
//! * An owner writes only into files that it made itself: it goes on in a new file, and files that
//!   others made are removed where they would be recycled. Records that land late in an old file
//!   lie behind the first record of the new one, and mean nothing. (Accepted records are written
//!   again in place, with the same bytes that could land there.)
//! * Numbers of spare and fresh files have the claim's number in their upper half, and those of
//!   earlier claims are removed before a name is given: a job that goes on late finds nothing to
//!   rename. Outside the lease no job on files is begun.
//!
//! Under [`Exclusion::Lock`] none of this is needed and nothing of it is done.

use std::time::Duration;

use thalweg_core::env::device::{Device, DeviceEvent, DeviceOutcome, OperationToken};
use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::position::FileId;
use thalweg_core::time::Instant;

use crate::config::Exclusion;
use crate::files::{Files, Named, fault_of, opened, owner_name, parse_name};
use crate::journal::Journal;
use crate::port::{Port, Purpose};
use crate::recovery::survey;

/// Claims tried when others claim at the same time.
const CLAIM_ATTEMPTS: u32 = 5;

/// What an owner knows of its claim.
#[derive(Debug)]
pub(crate) struct Claim {
    exclusion: Exclusion,
    /// Number of the newest claim of this process.
    number: Option<u64>,
    /// Number of its first one, and the first file that it can have made.
    first: Option<(u64, FileId)>,
    /// Claimed and not recovered since.
    is_new: bool,
    /// When it began to look the last time that it found its name.
    seen_at: Option<Instant>,
    looking: Option<(OperationToken, Instant)>,
}

fn fenced(own: u64) -> Fault {
    let detail = format!("{} is gone: somebody else claimed the journal", owner_name(own));
    Fault::new(FaultClass::Fenced, detail)
}

impl Claim {
    pub(crate) fn new(exclusion: Exclusion) -> Self {
        Self { exclusion, number: None, first: None, is_new: false, seen_at: None, looking: None }
    }

    /// The lease, if that is what keeps owners apart.
    fn lease(&self) -> Option<Duration> {
        match self.exclusion {
            Exclusion::Lock => None,
            Exclusion::Lease(lease) => Some(lease),
        }
    }

    /// Whether this process made the file, or need not care.
    pub(crate) fn is_own_file(&self, id: FileId) -> bool {
        self.lease().is_none() || self.first.is_some_and(|(_, own)| id >= own)
    }

    /// Whether this process made the spare or fresh file, or need not care.
    pub(crate) fn is_own_spare(&self, number: u64) -> bool {
        self.lease().is_none() || self.first.is_some_and(|(first, _)| number >> 32 >= first)
    }

    /// The directory was surveyed: what is made from here on is this process's own.
    pub(crate) fn begin(&mut self, files: &mut Files) {
        let Some(number) = self.number else { return };
        self.first.get_or_insert((number, FileId(files.next_id)));
        files.next_number = files.next_number.max(number << 32);
    }

    /// Whether nobody else can have looked at the directory by `now`.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        self.lease().is_none_or(|lease| self.seen_at.is_some_and(|at| now < at.after(lease)))
    }

    /// Whether it is looking for its own name.
    pub(crate) fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// Begins to look for its own name when half of the lease is over.
    pub(crate) fn look<D: Device>(&mut self, port: &mut Port<D>, now: Instant) {
        let Some(lease) = self.lease() else { return };
        let is_due = self.seen_at.is_none_or(|at| now >= at.after(lease / 2));
        if is_due && self.looking.is_none() {
            let token = port.start(Purpose::Claim, |device, token| device.list(token));
            self.looking = Some((token, now));
        }
    }

    /// Takes what looking brought; a fault when the name is gone.
    pub(crate) fn looked(&mut self, event: DeviceEvent) -> Option<Fault> {
        let (_, began) = self.looking.take_if(|(token, _)| *token == event.token)?;
        let own = self.number?;
        match event.outcome {
            Ok(DeviceOutcome::Listed(names)) => {
                let name = owner_name(own);
                if !names.iter().any(|(listed, _)| *listed == name) {
                    return Some(fenced(own));
                }
                self.seen_at = Some(began);
            }
            // Nothing is known: it looks again.
            outcome => tracing::warn!(?outcome, "the journal's owner cannot be looked up"),
        }
        None
    }
}

impl<D: Device> Journal<D> {
    /// Claims the directory, whoever had it; gives how long a former owner may still answer.
    pub(crate) fn claim_first(&mut self) -> Result<Duration, Fault> {
        let Some(lease) = self.claim.lease() else { return Ok(Duration::ZERO) };
        let mut attempts = CLAIM_ATTEMPTS;
        loop {
            attempts -= 1;
            let found = self.find_owner()?;
            let claimed = match found {
                Some(owner) => self.rename_owner(owner).map(|()| owner + 1),
                None => self.make_owner().map(|()| 1),
            };
            match claimed {
                Ok(number) => {
                    self.claim.number = Some(number);
                    self.claim.is_new = true;
                    self.sync_directory()?;
                    return Ok(if found.is_some() { lease } else { Duration::ZERO });
                }
                Err(fault) if attempts == 0 => return Err(fault),
                Err(fault) => tracing::warn!(%fault, "claiming the journal is tried again"),
            }
        }
    }

    /// Before a recovery in place: claims the directory from this process itself.
    pub(crate) fn claim_again(&mut self) -> Result<(), Fault> {
        if self.claim.lease().is_none() {
            return Ok(());
        }
        self.claim.seen_at = None;
        self.claim.looking = None;
        let Some(own) = self.claim.number else {
            return Err(Fault::new(FaultClass::Unavailable, "the journal was not claimed"));
        };
        if std::mem::take(&mut self.claim.is_new) {
            return Ok(());
        }
        self.check_owner()?;
        self.rename_owner(own)?;
        self.claim.number = Some(own + 1);
        self.sync_directory()
    }

    /// A fault when somebody else claimed the directory.
    pub(crate) fn check_owner(&mut self) -> Result<(), Fault> {
        let Some(own) = self.claim.number else { return Ok(()) };
        if self.find_owner()? == Some(own) { Ok(()) } else { Err(fenced(own)) }
    }

    /// The newest claim in the directory.
    fn find_owner(&mut self) -> Result<Option<u64>, Fault> {
        let names = survey::list(&mut self.port)?;
        let owners = names.iter().filter_map(|(name, _)| match parse_name(name) {
            Some(Named::Owner(number)) => Some(number),
            _ => None,
        });
        Ok(owners.max())
    }

    fn rename_owner(&mut self, owner: u64) -> Result<(), Fault> {
        let (from, to) = (owner_name(owner), owner_name(owner + 1));
        let renamed = self.port.run(|device, token| device.rename(&from, &to, token));
        renamed.map(drop).map_err(|error| fault_of("rename", &from, &error))
    }

    fn make_owner(&mut self) -> Result<(), Fault> {
        let name = owner_name(1);
        let made = self.port.run(|device, token| device.open(&name, true, token)).and_then(opened);
        let (handle, _) = made.map_err(|error| fault_of("make", &name, &error))?;
        self.port.device.close(handle);
        Ok(())
    }
}
