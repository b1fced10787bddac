//! The engine against a model: random requests, random durability, random crashes.
//!
//! The model is what the engine promises, in its simplest form: names to bytes, attributes and
//! flags, changed at once. Every answer is compared with what the model said when the request was
//! made; data that are read are compared with the bytes of that incarnation of the segment. After a
//! crash a new engine recovers from the frames that survived, and its whole state must equal the
//! model's at one moment not before the last change that was answered, nor before anything that was
//! read.

mod model {
    mod crash;
    pub(crate) mod rig;
    pub(crate) mod state;
}

use model::rig::Rig;
use proptest::prelude::*;

/// One step of a run. Numbers are reduced to what exists.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create(u8),
    Transient(u8),
    SetUp(u8, u8),
    Append(u8, u8, u16, Condition),
    Read(u8, u16, u16),
    Info(u8),
    Attribute(u8, u8),
    Seal(u8),
    Truncate(u8, u16),
    Delete(u8),
    Merge(u8, u8, Option<bool>),
    MergeBatch(u8, u8, u8),
    UpdateAttribute(u8, u8, bool),
    PutKey(u8, u8),
    RemoveKey(u8),
    ReadKeys,
    CloseWriter(u8),
    CloseReader,
    /// Seal and submit up to so many frames.
    Submit(u8),
    /// Let so many frames become durable.
    MakeDurable(u8),
    /// Perform what was asked of the journal.
    Fetch,
    Expire,
    Settle,
    Crash(u8),
}

/// How an append is meant to fare.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    None,
    Right,
    Wrong,
    /// The event number is not above the last.
    Stale,
}

fn step() -> impl Strategy<Value = Step> {
    let segment = 0..8u8;
    let writer = 0..3u8;
    let condition = prop_oneof![
        12 => Just(Condition::None),
        3 => Just(Condition::Right),
        1 => Just(Condition::Wrong),
        1 => Just(Condition::Stale),
    ];
    let size = prop_oneof![8 => 0..300u16, 2 => 300..5000u16, 1 => 5000..12000u16];
    prop_oneof![
        6 => segment.clone().prop_map(Step::Create),
        3 => segment.clone().prop_map(Step::Transient),
        8 => (segment.clone(), writer.clone()).prop_map(|(s, w)| Step::SetUp(s, w)),
        60 => (segment.clone(), writer.clone(), size, condition)
            .prop_map(|(s, w, bytes, condition)| Step::Append(s, w, bytes, condition)),
        25 => (segment.clone(), any::<u16>(), any::<u16>())
            .prop_map(|(s, at, length)| Step::Read(s, at, length)),
        4 => segment.clone().prop_map(Step::Info),
        4 => (segment.clone(), 0..5u8).prop_map(|(s, a)| Step::Attribute(s, a)),
        2 => segment.clone().prop_map(Step::Seal),
        4 => (segment.clone(), any::<u16>()).prop_map(|(s, at)| Step::Truncate(s, at)),
        2 => segment.clone().prop_map(Step::Delete),
        4 => (segment.clone(), segment.clone(), any::<Option<bool>>())
            .prop_map(|(t, s, update)| Step::Merge(t, s, update)),
        2 => (segment.clone(), segment.clone(), segment.clone())
            .prop_map(|(t, a, b)| Step::MergeBatch(t, a, b)),
        4 => (segment.clone(), 0..5u8, any::<bool>())
            .prop_map(|(s, a, fits)| Step::UpdateAttribute(s, a, fits)),
        4 => (0..6u8, any::<u8>()).prop_map(|(key, value)| Step::PutKey(key, value)),
        1 => (0..6u8).prop_map(Step::RemoveKey),
        2 => Just(Step::ReadKeys),
        1 => writer.prop_map(Step::CloseWriter),
        1 => Just(Step::CloseReader),
        30 => (1..4u8).prop_map(Step::Submit),
        25 => (1..4u8).prop_map(Step::MakeDurable),
        8 => Just(Step::Fetch),
        1 => Just(Step::Expire),
        4 => Just(Step::Settle),
        2 => (0..5u8).prop_map(Step::Crash),
    ]
}

fn cases() -> u32 {
    std::env::var("THALWEG_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    /// Shows that the engine does what the model does, whatever happens and whenever it crashes.
    #[test]
    fn engine_follows_the_model(steps in proptest::collection::vec(step(), 1..600)) {
        let mut rig = Rig::new();
        for step in &steps {
            rig.take(step);
        }
        rig.finish();
    }
}
