//! The kinds of work of the kill loop.

use std::sync::Arc;

use crate::dice::Dice;
use crate::history::History;
use crate::lane::Lane;

mod attributes;
mod commits;
mod conditional;
mod recreate;
mod rivals;
mod segment_table;
mod transactions;
mod writers;

/// How long segments of small events grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// So little that each journal file is soon free.
    Short,
    /// Until a few small events have kept most of the journal's files from being free.
    Long,
}

/// All lanes of a run: the writers of events mostly, and one or two of each other kind.
pub(crate) fn all_lanes(
    dice: &mut Dice,
    history: &Arc<History>,
    growth: Growth,
    controller_port: u16,
) -> Vec<Box<dyn Lane>> {
    let mut lanes: Vec<Box<dyn Lane>> = Vec::new();
    for number in 0..2 {
        let is_behind_proxy = number == 1;
        let dice = dice.split(number);
        lanes.push(Box::new(writers::Writers::new(number, 3, is_behind_proxy, history, dice)));
    }
    lanes.push(Box::new(transactions::Transactions::new(0, growth, dice.split(10))));
    lanes.push(Box::new(segment_table::SegmentTable::new(0, dice.split(20))));
    lanes.push(Box::new(conditional::Conditional::new(2, growth, dice.split(30))));
    lanes.push(Box::new(recreate::Recreate::new(dice.split(40))));
    lanes.push(Box::new(attributes::Attributes::new(dice.split(50))));
    if growth == Growth::Short {
        // In a journal that is full a stream can be neither sealed nor its commits merged, so what
        // the controller would delete behind that never lets go of its files.
        let dice = dice.split(70);
        lanes.push(Box::new(commits::Commits::new(controller_port, history, dice)));
    }
    lanes.push(Box::new(rivals::Rivals::new(history, growth, dice.split(60))));
    lanes
}
