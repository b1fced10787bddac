//! Checkpoints, trimming and damage.

use super::*;

/// Appends until the journal holds `frames` more frames.
fn grow(rig: &mut Rig, session: u64, first: i64, frames: i64) {
    for number in first..first + frames {
        assert_eq!(
            acknowledged(&rig.run(append(session, number, &[number as u8; 3500]))),
            [number]
        );
    }
}

/// Shows that the journal stays bounded while nothing old is referred to, also when a container is
/// idle.
#[test]
fn idle_container_does_not_hold_the_journal() {
    let mut rig = Rig::new(tiny());
    let token = Token { shard: ShardId(0), connection: ConnectionId(1), request: 0 };
    rig.engine.request(rig.now, ContainerId(0), token, create("idle"), &mut rig.effects);
    rig.turn();
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    for round in 0..30 {
        grow(&mut rig, 1, round * 10, 10);
        let offset = Offset((round as u64 * 10 + 10) * 3500);
        rig.run(Request::Truncate { segment: "s".into(), offset });
    }
    let stored = rig.journal.stored_bytes();
    assert!(stored < 60 * 4096, "{stored} bytes are kept");
    let mut rig = rig.restart(0);
    let request = Request::Info { segment: "idle".into() };
    rig.engine.request(rig.now, ContainerId(0), token, request, &mut rig.effects);
    assert!(reply(&rig.turn()).is_ok());
    assert_eq!(rig.set_up(1, 1, 7, "s"), 299);
}

/// Shows that files are released only when the truncation is durable.
#[test]
fn files_are_kept_until_the_truncation_is_durable() {
    let mut rig = Rig::new(tiny());
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    grow(&mut rig, 1, 0, 30);
    let file = rig.journal.addresses()[3].file();
    assert!(rig.engine.is_referenced(file));
    rig.journal.hold(true);
    rig.ask(1, Request::Truncate { segment: "s".into(), offset: Offset(30 * 3500) });
    rig.turn();
    assert!(rig.engine.is_referenced(file));
    rig.journal.hold(false);
    rig.turn();
    assert!(!rig.engine.is_referenced(file));
}

/// Shows that a damaged frame stops the container that it held operations of, and no other.
#[test]
fn damage_stops_only_the_container_it_hit() {
    let mut rig = Rig::new(Limits { checkpoint_interval_bytes: 1 << 30, ..tiny() });
    let token = Token { shard: ShardId(0), connection: ConnectionId(1), request: 0 };
    rig.engine.request(rig.now, ContainerId(0), token, create("other"), &mut rig.effects);
    rig.turn();
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    grow(&mut rig, 1, 0, 3);
    let address = rig.journal.addresses()[2];
    rig.journal.damage(address);
    let mut rig = rig.restart(0);
    let halted = std::mem::take(&mut rig.effects);
    assert!(
        matches!(&halted[..], [Effect::Halt { container: CONTAINER, fault }]
            if fault.detail.contains("offset 8192")),
        "{halted:?}"
    );
    let closed = rig.run(Request::Info { segment: "s".into() });
    assert!(matches!(closed[..], [Effect::Close { reason: CloseReason::Unavailable, .. }]));
    let request = Request::Info { segment: "other".into() };
    rig.engine.request(rig.now, ContainerId(0), token, request, &mut rig.effects);
    assert!(reply(&rig.turn()).is_ok());
}

/// Shows that a container whose only frame is damaged stays refused, however far the others go on
/// and however often the shard starts.
#[test]
fn damage_is_not_forgotten() {
    let mut rig = Rig::new(tiny());
    let token = Token { shard: ShardId(0), connection: ConnectionId(1), request: 0 };
    rig.engine.request(rig.now, ContainerId(0), token, create("lost"), &mut rig.effects);
    rig.turn();
    let lost = rig.journal.addresses()[0];
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    rig.journal.damage(lost);
    for round in 0..4 {
        rig = rig.restart(0);
        let halted = std::mem::take(&mut rig.effects);
        assert!(
            matches!(&halted[..], [Effect::Halt { container: ContainerId(0), .. }]),
            "round {round}: {halted:?}"
        );
        assert!(rig.engine.is_referenced(FileId(77)), "nobody knows what the container had");
        rig.set_up(1, 1, 7, "s");
        grow(&mut rig, 1, round * 20, 20);
    }
}

/// Shows that damage before a complete checkpoint is harmless to a container that needs nothing of
/// it.
#[test]
fn checkpoint_covers_earlier_damage() {
    let mut rig = Rig::new(Limits { checkpoint_interval_bytes: 1 << 30, ..tiny() });
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    grow(&mut rig, 1, 0, 5);
    let early = rig.journal.addresses()[0];
    rig.engine.shared.limits.checkpoint_interval_bytes = 4096;
    grow(&mut rig, 1, 5, 1);
    rig.engine.shared.limits.checkpoint_interval_bytes = 1 << 30;
    rig.turn();
    assert!(rig.engine.replay_position().is_some_and(|position| position > early));
    // The recorded position of the newest frame is older than the checkpoint: it was told before.
    rig.journal.damage(early);
    let mut rig = rig.restart(0);
    assert!(rig.effects.is_empty(), "{:?}", rig.effects);
    assert_eq!(rig.set_up(1, 1, 7, "s"), 5);
}

/// Shows that a snapshot can be taken while frames are waiting, and recovers.
#[test]
fn snapshot_between_waiting_frames_recovers() {
    let mut rig = Rig::new(Limits { checkpoint_interval_bytes: 4096, ..tiny() });
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    let mut expected = Vec::new();
    for round in 0..20 {
        // More than one frame per turn, so that there is always one that is not submitted.
        for number in 0..6 {
            let number = round * 6 + number;
            let data = vec![number as u8; 2500];
            expected.extend_from_slice(&data);
            rig.ask(1, append(1, number, &data));
        }
        rig.turn();
    }
    let mut rig = rig.restart(0);
    assert!(rig.effects.is_empty(), "{:?}", rig.effects);
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(rig.read("s", found.len() as u64, 5000));
    }
    assert_eq!(found, expected);
}

/// Shows that before recovery ended nothing is served, and a foreign container never is.
#[test]
fn nothing_is_served_before_recovery_ended() {
    let mut engine = Engine::new(ShardId(0), &[CONTAINER], tiny());
    let token = Token { shard: ShardId(0), connection: ConnectionId(1), request: 0 };
    let mut effects = Vec::new();
    engine.request(Now::default(), CONTAINER, token, create("s"), &mut effects);
    assert!(matches!(effects[..], [Effect::Close { reason: CloseReason::Unavailable, .. }]));
    effects.clear();
    engine.request(Now::default(), ContainerId(9), token, create("s"), &mut effects);
    let wrong = Refusal::WrongContainer { segment: "s".into() };
    assert_eq!(reply(&effects).as_ref().err(), Some(&wrong));
}

/// Shows that what one container's checkpoints write does not make another's due: twenty appends
/// and their checkpoints stay a few frames where they once made one another due thousands of times.
#[test]
fn checkpoints_do_not_make_each_other_due() {
    let small = Limits { checkpoint_interval_bytes: 4096, checkpoint_part_bytes: 16, ..tiny() };
    let mut rig = Rig::new(small);
    let token = Token { shard: ShardId(0), connection: ConnectionId(1), request: 0 };
    rig.engine.request(rig.now, ContainerId(0), token, create("other"), &mut rig.effects);
    rig.turn();
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    grow(&mut rig, 1, 0, 20);
    rig.turn();
    // A snapshot has at most 50 parts, each in a frame; both containers may take one per append.
    let frames = rig.engine.shared.log.open_number().0;
    assert!(frames < 20 * 51, "{frames} frames for 20 appends");
}

/// A frame without an operation is wanted to record a replay position, and is sealed because the
/// next operation does not fit; a snapshot taken before it is submitted needs the journal from that
/// frame on, and is found by the next recovery.
#[test]
fn a_checkpoint_that_begins_at_an_empty_frame_is_found() {
    let mut rig = Rig::new(Limits { checkpoint_interval_bytes: 1 << 30, ..tiny() });
    rig.create("s");
    rig.set_up(1, 1, 7, "s");
    rig.run(append(1, 1, b"before"));
    rig.engine.want_frame();
    rig.ask(1, append(1, 2, &[7; 5000]));
    rig.engine.shared.limits.checkpoint_interval_bytes = 0;
    rig.engine.continue_checkpoints();
    rig.engine.shared.limits.checkpoint_interval_bytes = 1 << 30;
    let before = rig.engine.replay_position();
    rig.turn();
    assert!(rig.engine.replay_position() > before, "the checkpoint counts");
    rig.run(append(1, 3, b"after"));
    let mut rig = rig.restart(0);
    assert_eq!(rig.read("s", 0, 6), b"before");
    assert_eq!(rig.read("s", 5006, 5), b"after");
}

/// A container whose first operation is not in the oldest frame that the journal does not have yet
/// takes a snapshot: what it needs begins at its own frame, not before.
#[test]
fn a_first_checkpoint_begins_at_the_first_operation() {
    let mut rig = Rig::new(Limits { checkpoint_interval_bytes: 1 << 30, ..tiny() });
    let token = Token { shard: ShardId(0), connection: ConnectionId(1), request: 100 };
    let (now, other) = (rig.now, ContainerId(0));
    rig.engine.request(now, other, token, create("other"), &mut rig.effects);
    rig.engine.shared.log.seal_early();
    rig.ask(1, create("s"));
    rig.engine.shared.limits.checkpoint_interval_bytes = 0;
    // One snapshot a call: of the other container, then of this one.
    rig.engine.continue_checkpoints();
    rig.engine.continue_checkpoints();
    rig.engine.shared.limits.checkpoint_interval_bytes = 1 << 30;
    rig.turn();
    rig.set_up(1, 1, 7, "s");
    rig.run(append(1, 1, b"bytes"));
    let mut rig = rig.restart(0);
    assert_eq!(rig.read("s", 0, 5), b"bytes");
}
