//! The kill loop: load, faults, the end of the server, its restart, verification; again and again.
//!
//! One cycle: all lanes work on the server while it is frozen, cut off and disturbed at random; it
//! is killed, or told to stop; it is started again, sometimes killed once more while it recovers;
//! the lanes that can resume go on for a moment; then everything stops and every lane reads back.
//! The first thing that must never be ends the run. What happens follows from the seed, as far as
//! threads and a disk can be repeated.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_checker::record::{Happened, ProcessEvent};

use crate::dice::Dice;
use crate::history::History;
use crate::home::{Home, HomeError};
use crate::lane::{Lane, Verified};
use crate::lanes::{Growth, all_lanes};
use crate::process::{ProcessError, Server, Settings};
use crate::proxy::rules::bad_network;
use crate::proxy::{Counts, Proxy};
use crate::store::Route;
use crate::totals::{Restart, Totals};
use crate::wire::{StopSwitch, Trouble};

mod disturb;

/// Longest time that a start may take before the run fails.
const START_MAX: Duration = Duration::from_secs(60);
/// Time in which a server that is told to stop must have ended.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a reply behind a proxy that may swallow it.
const PATIENCE_PROXY: Duration = Duration::from_millis(800);
/// Every so many kills everything is read back.
const FULL_EVERY: u64 = 25;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `thalweg` executable.
    pub program: PathBuf,
    /// Directory of the run; see [`Home`].
    pub data: PathBuf,
    /// The run ends after so many kills and stops.
    pub kills: u64,
    /// The run ends at the first kill after this time.
    pub time: Option<Duration>,
    /// Shards of the server.
    pub shards: u16,
    /// All shards share a port.
    pub is_single_port: bool,
    /// Where every choice comes from.
    pub seed: u64,
    /// Some lanes go through proxies that are a bad network.
    pub through_proxy: bool,
    /// How the server is ended, drawn from these.
    pub endings: Vec<Ending>,
    /// Small events are kept so long that they fill the journal: appends wait for room then, for
    /// many kills, until a segment of them goes.
    pub fills_journal: bool,
    /// Load before each kill, in milliseconds: from, to.
    pub load_ms: (u64, u64),
    /// Where the history goes, for [`thalweg_checker`] to judge again.
    pub history: Option<PathBuf>,
    /// Further arguments of `thalweg serve`.
    pub server_flags: Vec<String>,
    /// What happens to the data directory between the end of a server and the next start. A run
    /// whose disk lies here must end with a violation; so it is shown that one would be found.
    pub at_rest: Option<fn(&Path)>,
}

impl Options {
    /// A run with the load that a disk of a workstation takes.
    pub fn new(program: PathBuf, data: PathBuf, kills: u64, shards: u16, seed: u64) -> Self {
        Self {
            program,
            data,
            kills,
            time: None,
            shards,
            is_single_port: false,
            seed,
            through_proxy: false,
            endings: Ending::USUAL.to_vec(),
            fills_journal: false,
            load_ms: (300, 1_200),
            history: None,
            server_flags: Vec::new(),
            at_rest: None,
        }
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that must never be: the promise is broken.
    #[error("{0}")]
    Violation(String),
    /// The server did not start, live or stop as it must.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl RunError {
    /// Whether it speaks against the server, and not against the surroundings.
    pub fn is_violation(&self) -> bool {
        match self {
            Self::Violation(_) => true,
            Self::Process(error) => {
                !matches!(error, ProcessError::Start { .. } | ProcessError::System { .. })
            }
            Self::Home(_) | Self::System { .. } => false,
        }
    }
}

/// What happened in one cycle.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    /// Kills and stops so far, this one included.
    pub number: u64,
    /// How the server ended and came back.
    pub ended: Ended,
    /// What was read back.
    pub verified: Verified,
    /// Time for it.
    pub verify: Duration,
    /// Everything was read back, and not only what was new.
    pub is_full: bool,
}

/// How the server ended and came back.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How it ended.
    pub how: Ending,
    /// Time of load before the end.
    pub load: Duration,
    /// Kills during the start that followed.
    pub kills_in_recovery: u64,
    /// The start that succeeded.
    pub restart: Restart,
}

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGKILL.
    Kill,
    /// SIGKILL while it was frozen.
    KillFrozen,
    /// SIGTERM.
    Stop,
}

impl Ending {
    /// Mostly kills.
    pub const USUAL: [Self; 10] = [
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::KillFrozen,
        Self::Stop,
    ];
}

/// What ends the waits of lanes, and the first thing that went wrong with one.
#[derive(Default)]
struct Switches {
    /// Thrown when the server is gone: for lanes that do not resume.
    server: StopSwitch,
    /// Thrown when the load is over.
    load: StopSwitch,
    failure: Mutex<Option<String>>,
}

impl Switches {
    fn stop_all(&self) {
        self.server.stop();
        self.load.stop();
    }

    /// Takes in how a lane ended.
    fn judge_end(&self, lane: &dyn Lane, end: Result<(), Trouble>) {
        match end {
            Ok(()) | Err(Trouble::Stopped | Trouble::Closed) => {}
            Err(trouble) => {
                let text = format!("{}: {trouble}", lane.name());
                self.failure.lock().expect("nobody panics with it").get_or_insert(text);
                self.stop_all();
            }
        }
    }

    /// Fails with what went wrong with a lane.
    fn check(&self) -> Result<(), RunError> {
        match self.failure.lock().expect("nobody panics with it").clone() {
            Some(text) => Err(RunError::Violation(text)),
            None => Ok(()),
        }
    }
}

/// A run in progress.
struct Run {
    options: Options,
    home: Home,
    settings: Settings,
    dice: Dice,
    proxies: Vec<Proxy>,
    lanes: Vec<Box<dyn Lane>>,
    history: Arc<History>,
    totals: Totals,
}

/// Runs the loop; `progress` hears of each cycle and of the totals so far.
///
/// # Errors
/// The first violation, or why the run could not go on. What a violation left behind is kept.
pub fn run(
    options: Options,
    mut progress: impl FnMut(&Cycle, &Totals),
) -> Result<Totals, RunError> {
    let home = Home::take(&options.data)?;
    let mut run = Run::new(options, home)?;
    let outcome = run.cycles(&mut progress);
    if let Err(error) = &outcome
        && error.is_violation()
    {
        let text = format!(
            "seed {}, after {} kills: {error}\n\n{}",
            run.options.seed, run.totals.kills, run.totals
        );
        run.home.keep_violation(&text)?;
    }
    outcome.map(|()| run.totals)
}

impl Run {
    fn new(options: Options, home: Home) -> Result<Self, RunError> {
        let mut dice = Dice::new(options.seed);
        // Files are recycled some time after they came free, so the load needs more than it keeps.
        let journal_mib = if options.fills_journal { 160 } else { 1024 };
        let mut settings = Settings::new(&options.program, &home.server(), options.shards)?
            .with("--cache", "64MiB")
            .with("--journal", &format!("{}MiB", journal_mib * u32::from(options.shards)))
            .with("--journal-file", "16MiB");
        settings.is_single_port = options.is_single_port;
        settings.flags.extend(options.server_flags.iter().cloned());
        let mut proxies = Vec::new();
        if options.through_proxy {
            for address in settings.addresses() {
                let proxy = Proxy::start(address, bad_network(dice.draw()))
                    .map_err(|source| RunError::System { what: "start a proxy", source })?;
                proxies.push(proxy);
            }
        }
        let history = History::new(options.history.as_deref())
            .map_err(|source| RunError::System { what: "make the file of the history", source })?;
        let history = Arc::new(history);
        let growth = if options.fills_journal { Growth::Long } else { Growth::Short };
        let lanes = all_lanes(&mut dice, &history, growth, settings.controller_port);
        Ok(Self {
            options,
            home,
            settings,
            dice,
            proxies,
            lanes,
            history,
            totals: Totals::default(),
        })
    }

    fn direct(&self) -> Route {
        Route::to(self.settings.addresses())
    }

    /// The way of a lane to the server while it works.
    fn route(&self, lane: &dyn Lane, switches: &Switches) -> Route {
        let stop = if lane.resumes() { switches.load.clone() } else { switches.server.clone() };
        if lane.wants_proxy() && !self.proxies.is_empty() {
            let addresses = self.proxies.iter().map(Proxy::address).collect();
            return Route { addresses, patience: PATIENCE_PROXY, stop, ..self.direct() };
        }
        Route { stop, ..self.direct() }
    }

    fn cycles(&mut self, progress: &mut impl FnMut(&Cycle, &Totals)) -> Result<(), RunError> {
        let begin = Instant::now();
        let mut server = Server::launch(&self.settings)?;
        server.wait_ready(START_MAX)?;
        for number in 1..=self.options.kills {
            let (next, cycle) = self.cycle(server, number)?;
            server = next;
            progress(&cycle, &self.totals);
            if self.options.time.is_some_and(|time| begin.elapsed() > time) {
                break;
            }
        }
        let _ = self.verify(true)?;
        self.totals.stopped(server.terminate(STOP_MAX)?);
        self.note_network();
        self.judge_history()
    }

    /// One cycle from a running server to a running server.
    fn cycle(&mut self, server: Server, number: u64) -> Result<(Server, Cycle), RunError> {
        let (server, ended) = self.load_through_end(server)?;
        let begin = Instant::now();
        let is_full = number.is_multiple_of(FULL_EVERY);
        let verified = self.verify(is_full)?;
        self.note_network();
        let cycle = Cycle { number, ended, verified, verify: begin.elapsed(), is_full };
        Ok((server, cycle))
    }

    /// Lets all lanes work while the server is disturbed, ended and started again.
    fn load_through_end(&mut self, server: Server) -> Result<(Server, Ended), RunError> {
        let switches = Switches::default();
        let mut lanes = std::mem::take(&mut self.lanes);
        let routes: Vec<Route> =
            lanes.iter().map(|lane| self.route(lane.as_ref(), &switches)).collect();
        let outcome = thread::scope(|scope| {
            for (lane, route) in lanes.iter_mut().zip(routes) {
                let switches = &switches;
                scope.spawn(move || {
                    let end = lane.work(&route);
                    switches.judge_end(lane.as_ref(), end);
                });
            }
            let outcome = self.disturb(server, &switches);
            switches.stop_all();
            outcome
        });
        self.lanes = lanes;
        switches.check()?;
        outcome
    }

    /// Reads back with all lanes at once.
    fn verify(&mut self, is_full: bool) -> Result<Verified, RunError> {
        let route = self.direct();
        let results: Vec<(String, Result<Verified, Trouble>)> = thread::scope(|scope| {
            let mut threads = Vec::new();
            for lane in &mut self.lanes {
                let (name, route) = (lane.name(), &route);
                threads.push((name, scope.spawn(move || lane.verify(route, is_full))));
            }
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(Trouble::wrong("verification panicked")))
            };
            threads.into_iter().map(|(name, thread)| (name, join(thread))).collect()
        });
        let mut all = Verified::default();
        // Who finds the contradiction stops the history for the others: its words come first.
        let is_cause = |it: &&(String, Result<_, Trouble>)| matches!(it.1, Err(Trouble::Wrong(_)));
        let first = results.iter().find(is_cause).or(results.iter().find(|it| it.1.is_err()));
        if let Some((name, Err(trouble))) = first {
            return Err(RunError::Violation(format!("{name}: {trouble}")));
        }
        for (name, verified) in results.into_iter().filter_map(|(name, it)| Some((name, it.ok()?)))
        {
            *self.totals.verified_by_lane.entry(name).or_default() += verified.items;
            all += verified;
        }
        self.totals.events_verified += all.items;
        self.totals.bytes_verified += all.bytes;
        self.totals.records = self.history.summary().records;
        self.totals.events_acknowledged = 0;
        self.totals.reconnects = 0;
        for lane in &self.lanes {
            let work = lane.done();
            self.totals.events_acknowledged += work.acknowledged;
            self.totals.reconnects += work.reconnects;
        }
        Ok(all)
    }

    /// Tells the history what happened to the server.
    fn tell(&self, event: ProcessEvent) -> Result<(), RunError> {
        let told = self.history.note(Happened::Process(event));
        told.map_err(|trouble| RunError::Violation(trouble.to_string()))
    }

    /// Ends the history.
    fn judge_history(&mut self) -> Result<(), RunError> {
        self.lanes.clear();
        let empty = History::new(None)
            .map_err(|source| RunError::System { what: "end the history", source })?;
        let history = std::mem::replace(&mut self.history, Arc::new(empty));
        if let Some(history) = Arc::into_inner(history) {
            let judged = history.finish();
            judged.map_err(|trouble| RunError::Violation(trouble.to_string()))?;
        }
        Ok(())
    }

    fn note_network(&mut self) {
        self.totals.network = Counts::default();
        for proxy in &self.proxies {
            self.totals.network += proxy.counts();
        }
    }
}
