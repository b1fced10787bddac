//! Attributes of a segment under compare-and-set.
//!
//! Checked: an attribute has the value that was acknowledged last, or the one that was asked for
//! and not answered; a comparison with another value changes nothing.

use crate::claim::{ensure, ensure_eq};
use crate::dice::{Dice, mix};
use crate::lane::{Lane, Verified};
use crate::store::{Route, Store};
use crate::wire::Trouble;

const SEGMENT: &str = "crash/attributes/0.#epoch.0";
const UNSET: i64 = i64::MIN;

#[derive(Clone, Copy)]
struct Attribute {
    id: u128,
    value: i64,
    /// What was asked for and not answered.
    asked: Option<i64>,
}

/// The lane.
pub(crate) struct Attributes {
    attributes: Vec<Attribute>,
    is_created: bool,
    dice: Dice,
}

impl Attributes {
    pub(crate) fn new(dice: Dice) -> Self {
        let attribute = |number| Attribute {
            id: u128::from(mix(number)) << 64 | u128::from(number),
            value: UNSET,
            asked: None,
        };
        Self { attributes: (1..=40).map(attribute).collect(), is_created: false, dice }
    }

    fn change(&mut self, store: &mut Store) -> Result<(), Trouble> {
        if !self.is_created {
            store.create(SEGMENT)?;
            self.is_created = true;
        }
        loop {
            let index = usize::try_from(self.dice.below(40)).expect("small");
            let attribute = &mut self.attributes[index];
            if self.dice.one_in(5) {
                let wrong = attribute.value.wrapping_add(1);
                let is_set = store.set_attribute(SEGMENT, attribute.id, wrong, 5)?;
                ensure!(!is_set, "set {:x} on a wrong comparison", attribute.id);
                continue;
            }
            let value = if self.dice.one_in(8) {
                UNSET
            } else {
                i64::try_from(self.dice.draw() >> 2).expect("62 bits")
            };
            attribute.asked = Some(value);
            let is_set = store.set_attribute(SEGMENT, attribute.id, attribute.value, value)?;
            ensure!(is_set, "{:x} has not the value {}", attribute.id, attribute.value);
            (attribute.value, attribute.asked) = (value, None);
            if self.dice.one_in(10) {
                ensure_eq!(store.attribute(SEGMENT, attribute.id)?, value, "read after write");
            }
        }
    }
}

impl Lane for Attributes {
    fn name(&self) -> String {
        "attributes".to_owned()
    }

    fn work(&mut self, route: &Route) -> Result<(), Trouble> {
        self.change(&mut Store::new(route))
    }

    fn verify(&mut self, route: &Route, _: bool) -> Result<Verified, Trouble> {
        let mut store = Store::new(route);
        let Some(_) = store.info(SEGMENT)? else {
            ensure!(!self.is_created, "{SEGMENT} is gone");
            return Ok(Verified::default());
        };
        self.is_created = true;
        for attribute in &mut self.attributes {
            let value = store.attribute(SEGMENT, attribute.id)?;
            ensure!(
                value == attribute.value || Some(value) == attribute.asked,
                "attribute {:x} is {value}; {} was acknowledged, {:?} asked for",
                attribute.id,
                attribute.value,
                attribute.asked
            );
            (attribute.value, attribute.asked) = (value, None);
        }
        Ok(Verified { items: 40, bytes: 0 })
    }
}
