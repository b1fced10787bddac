//! A journal without room, after a restart.

use super::*;

/// An engine that has just recovered takes snapshots when the journal is short of room, before it
/// has submitted a single frame: nothing else would let old files go.
#[test]
fn a_recovered_engine_hastens_its_checkpoints() {
    let limits = Limits { checkpoint_interval_bytes: 1 << 30, ..tiny() };
    let mut rig = Rig::new(limits);
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    for number in 0..40 {
        rig.run(append(1, number, &[number as u8; 3500]));
    }
    let files: std::collections::BTreeSet<_> =
        rig.journal.addresses().iter().map(|address| address.file()).collect();
    assert!(files.len() > 1, "the journal has more than one file");
    let mut rig = rig.restart(0);
    let before = rig.engine.replay_position().expect("there were frames");
    assert_eq!(Some(&rig.engine.newest_file()), files.last());
    rig.engine.hasten_checkpoints();
    assert!(rig.engine.next_frame_bytes().is_some(), "a checkpoint is to be written");
    rig.turn();
    let after = rig.engine.replay_position().expect("there are frames");
    assert!(after.file() > before.file(), "{before} went on to {after}");
}
