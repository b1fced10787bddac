//! Every change, with the store failing or the process dying at every single request of it: the
//! outcome is as if nothing had happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::fake::{Contents, Fake, Segment, Trouble};
use crate::commit::{End, EndOutcome};
use crate::controller::Controller;
use crate::error::ControlError;
use crate::id::{SegmentNumber, StreamEpoch, StreamSegmentId, TransactionId};
use crate::layout;
use crate::names::StreamPath;
use crate::proto::{ScalingPolicy, StreamConfig};
use crate::record::{self, StoredTransaction};
use crate::transaction::Ping;
use crate::workflow::ChangeOutcome;

/// Nothing may be stuck longer than this.
const STUCK: Duration = Duration::from_secs(60);

const LEASE_MS: i64 = 10_000;

/// One change, made by a client that asks again until it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    CreateScope,
    CreateStream,
    CreateTransaction(u64),
    Commit(u64),
    Abort(u64),
    Truncate,
    Seal,
    Delete,
    DeleteScope,
}

const LIFE: [Step; 12] = [
    Step::Open,
    Step::CreateScope,
    Step::CreateStream,
    Step::CreateTransaction(0),
    Step::Commit(0),
    Step::CreateTransaction(1),
    Step::Abort(1),
    Step::Truncate,
    Step::CreateTransaction(2),
    Step::Seal,
    Step::Delete,
    Step::DeleteScope,
];

fn path() -> StreamPath {
    StreamPath::new("scope", "stream")
}

fn id(counter: u64) -> TransactionId {
    TransactionId::new(StreamEpoch(0), counter)
}

fn segment(number: u32) -> StreamSegmentId {
    StreamSegmentId::new(StreamEpoch(0), SegmentNumber(number))
}

/// One life of the process.
struct Process {
    store: Arc<Fake>,
    controller: Arc<Controller<Fake>>,
}

impl Process {
    fn start(contents: &Arc<Mutex<Contents>>) -> Self {
        let store = Fake::new(contents.clone());
        let controller = Controller::new(store.clone());
        tokio::spawn(controller.clone().watch_leases());
        Self { store, controller }
    }

    /// Makes a change. Done before is as good as done now.
    async fn make(&self, step: Step) -> Result<(), ControlError> {
        let controller = &self.controller;
        let outcome = match step {
            Step::Open => {
                controller.open().await;
                return Ok(());
            }
            Step::CreateTransaction(counter) => {
                let made = controller.create_transaction(&path(), LEASE_MS).await?;
                assert_eq!(made.expect("is made").0, id(counter));
                return Ok(());
            }
            Step::Commit(counter) => {
                let end = End::Commit { writer: String::new(), timestamp: 0 };
                let ended = controller.end_transaction(&path(), id(counter), end).await?;
                assert_eq!(ended, EndOutcome::Accepted);
                return Ok(());
            }
            Step::Abort(counter) => {
                let ended = controller.end_transaction(&path(), id(counter), End::Abort).await?;
                assert_eq!(ended, EndOutcome::Accepted);
                return Ok(());
            }
            Step::CreateScope => controller.create_scope("scope").await?,
            Step::CreateStream => {
                let policy = ScalingPolicy { min_num_segments: 2, ..Default::default() };
                let config = StreamConfig { scaling_policy: Some(policy), ..Default::default() };
                controller.create_stream(&path(), config).await?
            }
            Step::Truncate => {
                let cut = [(segment(0), 2), (segment(1), 4)].into();
                controller.truncate_stream(&path(), cut).await?
            }
            Step::Seal => controller.seal_stream(&path()).await?,
            Step::Delete => controller.delete_stream(&path()).await?,
            Step::DeleteScope => controller.delete_scope("scope").await?,
        };
        let is_creation = matches!(step, Step::CreateScope | Step::CreateStream);
        let is_deletion = matches!(step, Step::Delete | Step::DeleteScope);
        let is_done = outcome == ChangeOutcome::Done
            || (is_creation && outcome == ChangeOutcome::Exists)
            || (is_deletion && outcome == ChangeOutcome::NotFound);
        assert!(is_done, "{step:?}: {outcome:?}");
        Ok(())
    }

    /// Writes what clients would write after a change.
    fn write_data(&self, step: Step) {
        let mut contents = self.store.contents.lock().expect("tests do not panic with it");
        let data = |number: u32| match step {
            Step::CreateStream => Some((path().segment(segment(number)), b"base".to_vec())),
            Step::CreateTransaction(counter) => Some((
                path().transaction_segment(segment(number), id(counter)),
                format!("[{counter}]").into_bytes(),
            )),
            _ => None,
        };
        for (name, data) in (0..2).filter_map(data) {
            contents.segments.get_mut(&name).expect("exists").data = data;
        }
    }

    /// Waits until nothing is under way, open transactions aside.
    async fn settle(&self) {
        let work = async {
            while self.is_unsettled() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(STUCK, work).await.expect("nothing is stuck");
    }

    fn is_unsettled(&self) -> bool {
        let live = self.controller.stream(&path()).transactions.all();
        let has_ending = live.iter().any(|it| it.state().commit() != it.state().abort());
        let contents = self.store.contents.lock().expect("tests do not panic with it");
        let has_change = layout::all_unfinished()
            .filter_map(|table| contents.tables.get(&table))
            .any(|table| table.keys().any(|key| key.starts_with(b"change/")));
        has_change || has_ending
    }

    /// Everything that clients could tell apart, and everything that could be left over.
    fn summary(&self) -> (BTreeMap<String, Segment>, Vec<(String, Bytes)>) {
        let contents = self.store.contents.lock().expect("tests do not panic with it");
        let mut records = Vec::new();
        for (table, entries) in &contents.tables {
            records.push((table.clone(), Bytes::new()));
            records.extend(entries.keys().map(|key| (table.clone(), key.clone())));
        }
        (contents.segments.clone(), records)
    }
}

/// The first `count` changes without trouble.
async fn live(contents: &Arc<Mutex<Contents>>, count: usize) -> Process {
    let process = Process::start(contents);
    for step in &LIFE[..count] {
        process.make(*step).await.expect("no trouble");
        process.write_data(*step);
        process.settle().await;
    }
    process
}

/// Makes the change at `index` with trouble at its `request`th request, then checks that all ends
/// well. False when the change needs fewer requests.
async fn trouble_at(index: usize, request: u64, trouble: Trouble) -> bool {
    let step = LIFE[index];
    let contents = Arc::default();
    let mut process = live(&contents, index).await;
    process.store.plan(request, trouble);
    let made = tokio::select! {
        made = process.make(step) => Some(made),
        () = process.store.died() => None,
    };
    if made.is_some() {
        // What goes on behind the answer is part of the change.
        tokio::select! {
            () = process.settle() => {}
            () = process.store.died() => {}
        }
    }
    let was_spared = process.store.cancel();
    if matches!(trouble, Trouble::DieBefore | Trouble::DieAfter) && !was_spared {
        process = Process::start(&contents);
        process.controller.open().await;
    }
    process.settle().await;
    if let Step::CreateTransaction(_) = step {
        if !matches!(made, Some(Ok(()))) {
            // Nobody knows of it, so its lease must end it, with all its segments.
            sleep(Duration::from_millis(LEASE_MS as u64 + 1000)).await;
            let (segments, records) = process.summary();
            assert!(!segments.keys().any(|name| name.contains("#transaction")));
            assert!(!records.iter().any(|(_, key)| key.starts_with(b"transaction/")));
        }
        return !was_spared;
    }
    process.make(step).await.expect("no second trouble");
    if step == Step::CreateStream {
        process.write_data(step);
    }
    process.settle().await;
    let expected = live(&Arc::default(), index + 1).await.summary();
    assert_eq!(process.summary(), expected, "{step:?}, {trouble:?} at request {request}");
    !was_spared
}

/// Tries a kind of trouble at every request of every change.
async fn trouble_everywhere(trouble: Trouble) {
    for (index, step) in LIFE.iter().enumerate() {
        let mut request = 1;
        while trouble_at(index, request, trouble).await {
            request += 1;
        }
        assert!(request > 2, "{step:?} makes requests");
    }
}

/// Shows that a process that dies just before any request of any change finishes it after a
/// restart.
#[tokio::test(start_paused = true)]
async fn dying_before_any_request_is_harmless() {
    trouble_everywhere(Trouble::DieBefore).await;
}

/// Shows that a process that dies just after any request was carried out finishes after a restart.
#[tokio::test(start_paused = true)]
async fn dying_after_any_request_is_harmless() {
    trouble_everywhere(Trouble::DieAfter).await;
}

/// Shows that any request may fail without effect: the change is finished by itself.
#[tokio::test(start_paused = true)]
async fn failing_without_effect_is_harmless() {
    trouble_everywhere(Trouble::FailBefore).await;
}

/// Shows that the answer of any request may be lost: what was done is found out.
#[tokio::test(start_paused = true)]
async fn losing_any_answer_is_harmless() {
    trouble_everywhere(Trouble::FailAfter).await;
}

/// Shows that a whole life leaves what it should: the merged events once, the aborted ones not, and
/// in the end nothing but what outlives a stream.
#[tokio::test(start_paused = true)]
async fn a_whole_life_leaves_what_it_should() {
    let process = live(&Arc::default(), LIFE.len() - 2).await;
    let (segments, _) = process.summary();
    let expected = |start| Segment { data: b"base[0]".to_vec(), start, is_sealed: true };
    let names = [path().segment(segment(0)), path().segment(segment(1))];
    assert_eq!(segments, names.into_iter().zip([expected(2), expected(4)]).collect());
    let process = live(&Arc::default(), LIFE.len()).await;
    let (segments, records) = process.summary();
    assert!(segments.is_empty());
    let kept: Vec<&[u8]> =
        records.iter().map(|(_, key)| key.as_ref()).filter(|key| !key.is_empty()).collect();
    let outcomes: Vec<String> =
        (0..3).map(|counter| layout::completed_key(&path(), id(counter))).collect();
    let mut others = vec!["_system".as_bytes(), b"segments/scope/stream", b"transactions"];
    others.extend(outcomes.iter().map(String::as_bytes));
    others.sort_unstable();
    let mut kept = kept;
    kept.sort_unstable();
    assert_eq!(kept, others);
}

/// Shows that commits taken up after a crash are merged in the order in which they were asked for,
/// and that an open transaction ends when its lease, begun anew, runs out.
#[tokio::test(start_paused = true)]
async fn recovered_commits_keep_their_order() {
    let contents = Arc::default();
    let process = live(&contents, 3).await;
    for counter in 0..5 {
        process.make(Step::CreateTransaction(counter)).await.expect("no trouble");
        process.write_data(Step::CreateTransaction(counter));
    }
    // Merging begins behind the commit's one request; it dies there.
    process.store.plan(2, Trouble::DieBefore);
    process.make(Step::Commit(3)).await.expect("no trouble");
    process.store.died().await;
    let mut process = Process::start(&contents);
    process.controller.open().await;
    process.settle().await;
    for counter in [1, 0, 4] {
        process.make(Step::Commit(counter)).await.expect("no trouble");
    }
    process.settle().await;
    process.store.kill();
    process = Process::start(&contents);
    process.controller.open().await;
    process.settle().await;
    let data = |process: &Process| {
        process.summary().0.get(&path().segment(segment(1))).map(|it| it.data.clone())
    };
    assert_eq!(data(&process).as_deref(), Some(&b"base[3][1][0][4]"[..]));
    assert_eq!(process.controller.stream(&path()).transactions.all().len(), 1);
    sleep(Duration::from_millis(LEASE_MS as u64 + 1000)).await;
    let state = process.controller.transaction_state(&path(), id(2)).await.expect("no trouble");
    assert_eq!(state, Some(crate::transaction::TransactionState::Aborted));
}

/// Shows that a transaction whose segment somebody truncated does not hold up the commits of the
/// stream for ever: it is given up and deleted, those with it and behind it are merged, once.
#[tokio::test(start_paused = true)]
async fn a_truncated_transaction_is_given_up_and_others_are_committed() {
    use crate::transaction::TransactionState::{Aborted, Committed};
    let contents: Arc<Mutex<Contents>> = Arc::default();
    let process = live(&contents, 3).await;
    for counter in 0..4 {
        process.make(Step::CreateTransaction(counter)).await.expect("no trouble");
        process.write_data(Step::CreateTransaction(counter));
    }
    let bad = path().transaction_segment(segment(1), id(1));
    contents.lock().expect("nobody panics").segments.get_mut(&bad).expect("it was created").start =
        1;
    // The first merge fails; those that come meanwhile make one batch with it.
    process.store.plan(2, Trouble::FailBefore);
    for counter in [0, 1, 2, 3] {
        process.make(Step::Commit(counter)).await.expect("no trouble");
    }
    process.settle().await;
    for (counter, expected) in [(0, Committed), (1, Aborted), (2, Committed), (3, Committed)] {
        let state = process.controller.transaction_state(&path(), id(counter)).await;
        assert_eq!(state.expect("no trouble"), Some(expected), "transaction {counter}");
    }
    let (segments, _) = process.summary();
    let data = segments.get(&path().segment(segment(1))).map(|it| it.data.clone());
    let data = String::from_utf8(data.expect("it is there")).expect("text");
    for (mark, times) in [("[0]", 1), ("[1]", 0), ("[2]", 1), ("[3]", 1)] {
        assert_eq!(data.matches(mark).count(), times, "{mark} in {data}");
    }
    assert!(!segments.contains_key(&bad), "its segments are deleted");
}

/// Shows that a transaction found at a start lives on whatever the wall clock says: its record here
/// is from a year ago, or from the next.
#[tokio::test]
async fn a_wall_clock_that_jumps_ends_no_transaction() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    for jump_ms in [-YEAR_MS, -3_600_000, 3_600_000, YEAR_MS] {
        let contents: Arc<Mutex<Contents>> = Arc::default();
        let controller = Controller::new(Fake::new(contents.clone()));
        controller.clone().open().await;
        controller.create_scope("scope").await.expect("is made");
        let policy = ScalingPolicy { min_num_segments: 2, ..Default::default() };
        let config = StreamConfig { scaling_policy: Some(policy), ..Default::default() };
        controller.create_stream(&path(), config).await.expect("is made");
        let made = controller.create_transaction(&path(), LEASE_MS).await.expect("is answered");
        let (id, _) = made.expect("is made");
        let table = layout::unfinished(&path());
        let key = layout::transaction_key(&path(), id);
        {
            let mut contents = contents.lock().expect("nobody panics with it");
            let table = contents.tables.get_mut(&table).expect("is there");
            let (value, _) = table.get_mut(key.as_bytes()).expect("is there");
            let mut stored: StoredTransaction = record::decode(value).expect("is a record");
            stored.created_ms += jump_ms;
            *value = record::encode(&stored);
        }
        let restarted = Controller::new(Fake::new(contents));
        restarted.clone().open().await;
        let ping = restarted.ping_transaction(&path(), id, LEASE_MS).await.expect("is answered");
        assert_eq!(ping, Some(Ping::Renewed), "{jump_ms}");
    }
}
