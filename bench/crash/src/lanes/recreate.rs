//! Segments that are deleted and made again under the same name.
//!
//! Checked: a name that was deleted does not exist, one that was made again holds bytes of its
//! present life only, and the numbers of writers begin anew.

use thalweg_wire::{Command, NO_EVENT_NUMBER};

use crate::claim::{ensure, ensure_eq, wrong};
use crate::dice::{Dice, mix};
use crate::lane::{Lane, Verified};
use crate::payload::{Mark, parse};
use crate::store::{Route, Store};
use crate::wire::Trouble;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// Events stored, sealed or not.
    Present(u64, bool),
}

struct Name {
    number: u64,
    segment: String,
    /// How often it was made; events carry it, so that those of another life are recognized.
    life: u64,
    state: State,
    /// What would be so if the operation without an answer was carried out.
    asked: Option<State>,
}

/// The lane.
pub(crate) struct Recreate {
    names: Vec<Name>,
    dice: Dice,
}

impl Recreate {
    pub(crate) fn new(dice: Dice) -> Self {
        let name = |number| Name {
            number,
            segment: format!("crash/recreate-{number}/0.#epoch.0"),
            life: 0,
            state: State::Absent,
            asked: None,
        };
        Self { names: (0..6).map(name).collect(), dice }
    }

    fn change(&mut self, store: &mut Store) -> Result<(), Trouble> {
        loop {
            let index = usize::try_from(self.dice.below(6)).expect("small");
            let choice = self.dice.below(10);
            let name = &mut self.names[index];
            match (name.state.clone(), choice) {
                (State::Absent, _) => name.create(store)?,
                (State::Present(..), 0) => name.delete(store)?,
                (State::Present(events, false), 1) => name.seal(store, events)?,
                (State::Present(events, is_sealed), _) => name.append(store, events, is_sealed)?,
            }
        }
    }
}

impl Name {
    fn author(&self) -> u64 {
        600_000 + self.number + self.life * 1_000_000
    }

    fn settle(&mut self, state: State) {
        self.state = state;
        self.asked = None;
    }

    fn create(&mut self, store: &mut Store) -> Result<(), Trouble> {
        self.life += 1;
        let state = State::Present(0, false);
        self.asked = Some(state.clone());
        ensure!(store.create(&self.segment)?, "{} exists before it is made", self.segment);
        self.settle(state);
        Ok(())
    }

    fn delete(&mut self, store: &mut Store) -> Result<(), Trouble> {
        self.asked = Some(State::Absent);
        ensure!(store.delete(&self.segment)?, "{} was gone", self.segment);
        self.settle(State::Absent);
        ensure!(store.info(&self.segment)?.is_none(), "{} is there, deleted", self.segment);
        Ok(())
    }

    fn seal(&mut self, store: &mut Store, events: u64) -> Result<(), Trouble> {
        self.asked = Some(State::Present(events, true));
        store.seal(&self.segment)?;
        self.settle(State::Present(events, true));
        Ok(())
    }

    /// One more event, by the same writer in every life.
    fn append(&mut self, store: &mut Store, events: u64, is_sealed: bool) -> Result<(), Trouble> {
        let segment = self.segment.clone();
        let writer_id = u128::from(mix(7)) << 64 | 7;
        let mut wire = store.session(&segment)?;
        let number = i64::try_from(events).expect("small");
        match wire.set_up(&segment, writer_id)? {
            Command::AppendSetup(it) => {
                let told = if events == 0 { NO_EVENT_NUMBER } else { number };
                ensure_eq!(it.last_event_number, told, "{segment}: {:?}", self.state);
            }
            other => wrong!("{segment}: {other:?} to a set-up"),
        }
        if !is_sealed {
            self.asked = Some(State::Present(events + 1, false));
        }
        let data = Mark::new(self.author(), events + 1).framed();
        wire.append(writer_id, data, number + 1, 1)?;
        match wire.receive()? {
            Command::DataAppended(it) if !is_sealed => {
                ensure_eq!(it.event_number, number + 1, "{segment}: number acknowledged");
                self.settle(State::Present(events + 1, false));
            }
            Command::SegmentIsSealed(_) if is_sealed => {}
            other => wrong!("{segment}: {other:?} to an append, {:?}", self.state),
        }
        Ok(())
    }

    fn verify(&mut self, store: &mut Store) -> Result<Verified, Trouble> {
        let name = self.segment.clone();
        let Some(info) = store.info(&name)? else {
            let may_be_absent = self.state == State::Absent || self.asked == Some(State::Absent);
            ensure!(may_be_absent, "{name} is gone: {:?}, asked {:?}", self.state, self.asked);
            self.settle(State::Absent);
            return Ok(Verified::default());
        };
        let data = store.read_all(&name, 0, info.write_offset)?;
        let found = parse(&name, 0, &data)?;
        for (serial, (_, mark)) in (1..).zip(&found) {
            ensure_eq!(*mark, Mark::new(self.author(), serial), "{name}: events of this life");
        }
        let state = State::Present(found.len() as u64, info.is_sealed);
        ensure!(
            state == self.state || Some(&state) == self.asked.as_ref(),
            "{name}: {state:?} found, {:?} acknowledged, {:?} asked for",
            self.state,
            self.asked
        );
        self.settle(state);
        Ok(Verified { items: found.len() as u64, bytes: info.write_offset.unsigned_abs() })
    }
}

impl Lane for Recreate {
    fn name(&self) -> String {
        "recreate".to_owned()
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        self.change(&mut Store::new(route))
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        let mut store = Store::new(route);
        let mut verified = Verified::default();
        for name in &mut self.names {
            verified += name.verify(&mut store)?;
        }
        Ok(verified)
    }
}
