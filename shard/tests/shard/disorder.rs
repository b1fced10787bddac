//! Every limit absurdly small and every pause at random: nobody may be left standing.

use std::time::Duration;

use thalweg_shard::{ConnectionLimits, Forwarding, Stalls, TurnBudget};
use thalweg_wire::*;

use crate::world::*;

/// Numbers from a seed; the same each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn tiny_world() -> World {
    World::with(2, 2, |config| {
        config.forwarding = Forwarding::Mailbox;
        config.turn = TurnBudget { commands: 3, bytes: 4000 };
        config.limits.accepted_bytes_max = 3000;
        config.limits.frame_bytes = 8192;
        config.limits.slab_bytes = 16_384;
        config.limits.tail_cache_bytes = 32_768;
        config.unsent_bytes_max = 500;
        config.outstanding_max = 5;
        config.connection = ConnectionLimits {
            frame_bytes_max: 9000,
            receive_bytes_min: 64,
            receive_bytes_max: 256,
            ..ConnectionLimits::default()
        };
        config.receive_bytes = 9000;
    })
}

/// A writer of its own segment: what it sent, and what it was told.
struct Writer {
    client: Client,
    segment: String,
    sent: Vec<u8>,
    number: i64,
    acknowledged: i64,
}

impl Writer {
    fn send(&mut self, world: &mut World, draw: &mut Draw) {
        let bytes = if draw.below(8) == 0 { 1000 + draw.below(6000) } else { draw.below(300) };
        self.number += 1;
        let event = vec![self.number as u8; bytes as usize];
        world.send(self.client, append(&event, self.number));
        self.sent.extend_from_slice(&event);
        if draw.below(3) == 0 {
            world.send(self.client, KeepAlive).send(self.client, info(&self.segment));
        }
    }

    /// Acknowledgements come in order, each chained to the one before.
    fn listen(&mut self, world: &mut World) {
        for reply in world.replies(self.client) {
            match reply {
                Command::DataAppended(ack) => {
                    let before = if self.acknowledged == 0 { i64::MIN } else { self.acknowledged };
                    assert_eq!(ack.previous_event_number, before);
                    assert!(ack.event_number > self.acknowledged);
                    assert!(ack.event_number <= self.number);
                    self.acknowledged = ack.event_number;
                }
                Command::KeepAlive(_) | Command::StreamSegmentInfo(_) => {}
                other => panic!("{}: {other:?}", self.segment),
            }
        }
    }
}

/// Reads a whole segment in the pieces that come.
fn read_all(world: &mut World, client: Client, segment: &str, length: usize) -> Vec<u8> {
    let mut found = Vec::new();
    while found.len() < length {
        let offset = i64::try_from(found.len()).expect("short");
        let reply = world.ask(client, read(segment, offset));
        assert!(!data(&reply).is_empty());
        found.extend_from_slice(data(&reply));
    }
    found
}

fn run(seed: u64) -> [Stalls; 2] {
    let mut draw = Draw(seed);
    let mut world = tiny_world();
    let mut writers: Vec<Writer> = (0..6)
        .map(|at| {
            let segment = format!("scope/stream{at}/0.#epoch.0");
            let client = world.connect_to(at % 2);
            world.create(client, &segment);
            assert_eq!(world.set_up(client, &segment), i64::MIN);
            Writer { client, segment, sent: Vec::new(), number: 0, acknowledged: 0 }
        })
        .collect();
    for _ in 0..150 {
        let at = draw.below(6) as usize;
        for _ in 0..draw.below(6) {
            writers[at].send(&mut world, &mut draw);
        }
        let client = writers[draw.below(6) as usize].client;
        world.link(client).is_stuck = draw.below(2) == 0;
        let shard = draw.below(2) as usize;
        let journal = &mut world.shards[shard].env_mut().journal.memory;
        match draw.below(6) {
            0 => journal.hold(true),
            1 => journal.hold(false),
            2 => journal.make_durable(1),
            3 => journal.set_room_bytes(0),
            4 => journal.set_room_bytes(u64::MAX),
            _ => {}
        }
        world.advance(Duration::from_millis(draw.below(50)));
        world.turn();
        writers[at].listen(&mut world);
    }
    for shard in &mut world.shards {
        let journal = &mut shard.env_mut().journal.memory;
        journal.hold(false);
        journal.set_room_bytes(u64::MAX);
    }
    for writer in &writers {
        world.link(writer.client).is_stuck = false;
    }
    for _ in 0..100 {
        world.settle();
    }
    for writer in &mut writers {
        writer.listen(&mut world);
        assert_eq!(writer.acknowledged, writer.number, "seed {seed}: {}", writer.segment);
        let found = read_all(&mut world, writer.client, &writer.segment, writer.sent.len());
        assert_eq!(found, writer.sent, "seed {seed}: {}", writer.segment);
    }
    [0, 1].map(|shard: usize| world.shards[shard].counters().stalls)
}

/// Whatever stalled whom in which order: in the end every append is acknowledged once, in order,
/// and every byte is where it belongs.
#[test]
fn random_pressure_leaves_nobody_standing() {
    let stalls: Vec<Stalls> = (0..40).flat_map(run).collect();
    let all = |of: fn(&Stalls) -> u64| stalls.iter().map(of).sum::<u64>();
    assert!(all(|stalls| stalls.room) > 0);
    assert!(all(|stalls| stalls.accepted) > 0);
    assert!(all(|stalls| stalls.unsent) > 0);
    assert!(all(|stalls| stalls.outstanding) > 0);
    assert!(all(|stalls| stalls.mail) > 0);
    assert!(all(|stalls| stalls.memory) > 0);
}
