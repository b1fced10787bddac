//! One world: shards on simulated disks and links, clients, faults, and the order of it all.
//!
//! A world is a loop: move time to the next thing that happens, let it happen, give a turn to every
//! shard that has something to do. Faults come first; then everything heals, clients finish, and
//! all is read back. One seed decides everything.

mod blows;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use thalweg_checker::record::ProcessEvent;
use thalweg_core::frame::ContainerMask;

use crate::cast::{Troupe, assemble};
use crate::client::history::History;
use crate::client::recycler::NAME as RECYCLER;
use crate::client::sequential::Sequential;
use crate::client::verifier::Verifier;
use crate::client::writer::NAME as WRITER;
use crate::client::{Client, Phase, Shared};
use crate::clock::{Clock, MICROSECOND, MILLISECOND, SECOND};
use crate::disk::DiskControl;
use crate::faults::{FaultKind, Faults};
use crate::image::Survival;
use crate::link::Links;
use crate::options::Options;
use crate::process::{BootFailure, Process, Turn};
use crate::rng::Rng;
use crate::router::Router;
use crate::trace::{Trace, trace};

/// Longest time under faults.
const FAULTS_MAX: u64 = 30 * SECOND;
/// Longest time for everybody to finish after the last fault, and again for reading back: L1.
const HEALING_MAX: u64 = 60 * SECOND;
/// Longest time from a start to serving when nothing fails: L2.
const STARTING_MAX: u64 = 3 * SECOND;
/// Most turns for the same.
const HEALING_TURNS_MAX: u64 = 400_000;
/// Turns in a tenth of a millisecond that only a shard without anything to do can take.
const SPINNING_TURNS: u64 = 20_000;
/// Until shards have learned of all connections that are gone.
const LEARNING: u64 = 50 * MILLISECOND;
/// How long damaged containers are tried when everybody else has finished.
const DAMAGED_PATIENCE: u64 = SECOND / 2;

/// A running world.
pub(crate) struct World {
    shared: Shared,
    faults: Faults,
    rng: Rng,
    disks: Vec<DiskControl>,
    /// At most one that is not a former one.
    processes: Vec<Process>,
    clients: Vec<Client>,
    waiting: Vec<Client>,
    counters: Vec<String>,
    tables: Vec<(String, usize)>,
    next_blow: Option<u64>,
    /// Breaks of all connections that are still to come.
    storm: Option<(u64, u64)>,
    next_boot: Option<u64>,
    turns: u64,
    /// Something acknowledged may be unreadable; then it need not be served.
    has_rotted: bool,
    /// Whose records were damaged within the promise: these containers may be refused.
    damaged: Option<ContainerMask>,
    /// When and at which turn time last went on.
    spinning: (u64, u64),
}

impl World {
    /// The world of these options, before anything happened.
    pub(crate) fn new(
        options: Options,
        rng: &Rng,
        trace: Trace,
        clock: Clock,
        faults: Faults,
    ) -> Self {
        let links = Links::new(
            options.shards,
            options.link.clone(),
            rng.split(1),
            clock.clone(),
            trace.clone(),
            faults.clone(),
        );
        let disks = (0..options.shards)
            .map(|shard| {
                DiskControl::new(
                    shard,
                    options.disk.clone(),
                    rng.split(100 + shard as u64),
                    clock.clone(),
                    trace.clone(),
                    faults.clone(),
                )
            })
            .collect();
        let mut shared = Shared {
            clock,
            trace: trace.clone(),
            links: Rc::new(RefCell::new(links)),
            history: History::new(trace, options.event_sizes),
            router: Router::new(options.placement(), options.forwarding),
            budget: options.operations,
            options,
            phase: Phase::Faults,
            alive: BTreeSet::new(),
            gone: Vec::new(),
            writers: 0,
        };
        let Troupe { founder, others, counters, tables } = assemble(&mut shared, &rng.split(2));
        shared.writers = others.iter().filter(|client| client.name() == WRITER).count();
        let mut world = Self {
            shared,
            faults,
            rng: rng.split(3),
            disks,
            processes: Vec::new(),
            clients: vec![founder],
            waiting: others,
            counters,
            tables,
            next_blow: None,
            storm: None,
            next_boot: Some(0),
            turns: 0,
            has_rotted: false,
            damaged: None,
            spinning: (0, 0),
        };
        world.schedule_blow();
        world
    }

    /// Runs it to its end or the first violation.
    pub(crate) fn run(mut self) {
        let is_whole = self.unfold();
        self.shared.history.finish(is_whole);
    }

    /// Says whether everything was read back.
    fn unfold(&mut self) -> bool {
        self.run_until(FAULTS_MAX, u64::MAX, |world| world.shared.budget == 0);
        trace!(self.shared.trace, "faults stop");
        self.heal();
        self.finish_or_report("L1");
        if self.shared.trace.is_violated() {
            return false;
        }
        self.last_crash();
        self.verify();
        self.finish_or_report("L2");
        self.is_all_done(false)
    }

    fn finish_or_report(&mut self, invariant: &str) {
        let start = self.shared.clock.nanos();
        let turns = self.turns + HEALING_TURNS_MAX;
        let is_done = self.run_until(start + HEALING_MAX, turns, |world| {
            world.is_all_done(false)
                || (world.is_all_done(true) && world.now() > start + DAMAGED_PATIENCE)
        });
        if !is_done && self.has_rotted {
            trace!(self.shared.trace, "not available after rot");
            self.shared.trace.count("worlds unavailable after rot");
            return;
        }
        if !is_done && !self.shared.trace.is_violated() {
            let undone: Vec<String> = self
                .clients
                .iter()
                .enumerate()
                .filter(|(_, client)| !client.is_done())
                .map(|(id, client)| format!("{id} {}", client.name()))
                .collect();
            let refused: Vec<String> =
                self.processes.iter_mut().flat_map(Process::refusals).collect();
            let trace = self.shared.trace.clone();
            trace.violation(
                invariant,
                format_args!("not finished in time: {undone:?}, refused: {refused:?}"),
            );
        }
    }

    /// Whether every client has finished, or those whose container is not damaged.
    fn is_all_done(&self, but_damaged: bool) -> bool {
        let is_excused = |client: &Client| but_damaged && self.is_excused(client);
        let is_founded = self.waiting.is_empty() || is_excused(&self.clients[0]);
        is_founded && self.clients.iter().all(|client| client.is_done() || is_excused(client))
    }

    /// Whether what a client works on was damaged.
    fn is_excused(&self, client: &Client) -> bool {
        client.segment().is_some_and(|segment| self.is_damaged(segment))
    }

    fn is_damaged(&self, segment: &str) -> bool {
        let container = self.shared.options.placement().container(segment);
        self.damaged.is_some_and(|mask| mask.may_contain(container))
    }

    fn now(&self) -> u64 {
        self.shared.clock.nanos()
    }

    /// Steps until `is_over`; says whether that came before time and turns ran out.
    fn run_until(&mut self, until: u64, turns: u64, is_over: impl Fn(&Self) -> bool) -> bool {
        while !is_over(self) {
            if self.shared.trace.is_violated() || self.now() > until || self.turns > turns {
                return false;
            }
            self.step();
        }
        true
    }

    fn next_time(&self) -> u64 {
        let processes = self.processes.iter().filter_map(|process| process.next_time(&self.shared));
        let clients = self.clients.iter().filter_map(Client::wake_at);
        let arrival = self.shared.links.borrow().next_arrival();
        let storm = self.storm.map(|(at, _)| at);
        let others = [arrival, self.next_blow, self.next_boot, storm].into_iter().flatten();
        let next = processes.chain(clients).chain(others).min();
        // Nothing at all to do: let time pass, so that bounds are noticed.
        next.unwrap_or(self.now() + SECOND)
    }

    fn step(&mut self) {
        self.shared.clock.advance_to(self.next_time());
        let now = self.now();
        if self.next_blow.is_some_and(|at| at <= now) {
            let blow = self.shared.options.weather.next(&mut self.rng);
            self.strike(blow);
            self.schedule_blow();
        }
        if self.next_boot.is_some_and(|at| at <= now) {
            self.next_boot = None;
            self.boot();
        }
        self.advance_storm();
        self.disks.iter().for_each(DiskControl::advance);
        self.shared.links.borrow_mut().advance();
        self.serve_clients();
        let mut which = 0;
        while which < self.processes.len() {
            which += usize::from(self.serve_process(which));
        }
        if self.clients.len() == 1 && self.clients[0].is_done() && !self.waiting.is_empty() {
            trace!(self.shared.trace, "founded");
            self.clients.append(&mut self.waiting);
        }
    }

    fn serve_clients(&mut self) {
        let now = self.now();
        loop {
            let event = self.shared.links.borrow_mut().next_client_event();
            let Some((client, event)) = event else { break };
            self.clients[client].network(&mut self.shared, event);
        }
        for client in &mut self.clients {
            if client.wake_at().is_some_and(|at| at <= now) {
                client.wake(&mut self.shared);
            }
        }
    }

    /// Gives its turns to a process; says whether it is still there.
    fn serve_process(&mut self, which: usize) -> bool {
        for index in 0..self.processes[which].threads() {
            let process = &mut self.processes[which];
            match process.give_turn(&self.shared, &mut self.rng, index) {
                Turn::None => continue,
                Turn::Taken => {}
                Turn::Died => {
                    process.bury(&self.shared, index);
                    let pause = self.rng.below(3_000) * MICROSECOND;
                    process.dies_at = Some(self.shared.clock.nanos() + pause);
                    trace!(self.shared.trace, "thread {index} is dead");
                }
                Turn::GaveUp => {
                    // Its process ends, and somebody starts it again.
                    self.shared.trace.count("shards that gave up");
                    self.end_one(which);
                    return false;
                }
            }
            self.note_turn(index);
        }
        let now = self.now();
        self.has_started(which);
        let process = &self.processes[which];
        if process.is_stopped() || process.dies_at.is_some_and(|at| at <= now) {
            if process.is_stopped() {
                self.shared.trace.count("orderly stops");
            }
            self.end_one(which);
            return false;
        }
        if process.is_late_to_stop(now) {
            self.shared.trace.violation("L9", format_args!("a stop takes longer than it may"));
        }
        true
    }

    /// Notices a start that is over, and one that takes too long though nothing fails.
    fn has_started(&mut self, which: usize) {
        let now = self.now();
        let process = &mut self.processes[which];
        if process.has_served || process.is_former {
            return;
        }
        process.has_served = process.is_serving();
        let is_late = now > process.started_at + STARTING_MAX;
        let is_damaged = self.damaged.is_some() || self.has_rotted;
        if is_late && self.shared.phase == Phase::Verify && !is_damaged {
            self.shared.trace.violation("L2", format_args!("a start takes too long"));
        }
    }

    fn note_turn(&mut self, index: usize) {
        self.turns += 1;
        let after = self.now();
        if after > self.spinning.0 + 100 * MICROSECOND {
            self.spinning = (after, self.turns);
        } else if self.turns > self.spinning.1 + SPINNING_TURNS {
            self.shared.trace.violation("L6", format_args!("shard {index} spins at {after}"));
        }
    }

    /// The process that is not a former one.
    fn current(&self) -> Option<usize> {
        self.processes.iter().position(|process| !process.is_former)
    }

    /// The process ends at once, perhaps with the power.
    fn crash(&mut self) {
        let is_power_cut = self.rng.percent(self.shared.options.power_cut_percent);
        if is_power_cut && self.faults.strike(FaultKind::PowerCut, true) {
            self.cut_power();
        } else {
            self.end_current();
        }
        self.restart_soon();
    }

    fn restart_soon(&mut self) {
        let pause = self.rng.between(1, 5_000) * MICROSECOND;
        self.next_boot = Some(self.now() + pause);
    }

    fn end_current(&mut self) {
        if let Some(which) = self.current() {
            trace!(self.shared.trace, "the process ends");
            self.shared.history.process(ProcessEvent::Killed);
            self.processes.remove(which).end(&self.shared);
        }
        self.shared.trace.count("process ends");
        self.rot();
    }

    /// A process ends by itself, and if it was not a former one it is started again.
    fn end_one(&mut self, which: usize) {
        let process = self.processes.remove(which);
        trace!(self.shared.trace, "a process ends, former: {}", process.is_former);
        let is_former = process.is_former;
        self.shared.history.process(ProcessEvent::Killed);
        process.end(&self.shared);
        if !is_former {
            self.shared.trace.count("process ends");
            self.rot();
            let is_cut = self.rng.percent(self.shared.options.power_cut_percent / 4);
            if self.processes.is_empty() && self.faults.strike(FaultKind::PowerCut, is_cut) {
                self.cut_power();
            }
            self.restart_soon();
        }
    }

    /// Everything ends with the power.
    fn cut_power(&mut self) {
        let survival = self.rng.pick(&[
            Survival::Everything,
            Survival::Nothing,
            Survival::Chance,
            Survival::Chance,
        ]);
        trace!(self.shared.trace, "the power is cut: {survival:?}");
        self.shared.history.process(ProcessEvent::PowerCut);
        for process in self.processes.drain(..) {
            process.end(&self.shared);
        }
        self.disks.iter().for_each(|disk| disk.cut_power(survival));
        self.shared.trace.count("process ends");
        self.rot();
    }

    /// Starts the process: every shard recovers, or none serves.
    fn boot(&mut self) {
        if self.current().is_some() {
            return;
        }
        trace!(self.shared.trace, "the process starts");
        self.shared.trace.count("process starts");
        let mut process = Process::new(&self.shared);
        for index in 0..self.disks.len() {
            let percent = self.shared.options.crash_in_recovery_percent;
            let dies = self.shared.phase == Phase::Faults && self.rng.percent(percent);
            let dies = self.faults.strike(FaultKind::CrashInRecovery, dies);
            let fuse = if dies { self.rng.between(1, 150) } else { 0 };
            let Err(failure) = process.boot_shard(&self.shared, &self.disks[index], fuse) else {
                continue;
            };
            match failure {
                BootFailure::Died => self.shared.trace.count("recoveries cut short"),
                BootFailure::Fault(fault) => {
                    trace!(self.shared.trace, "shard {index} does not start: {fault}");
                    self.shared.trace.count("failed starts");
                }
            }
            self.processes.push(process);
            return self.crash();
        }
        self.processes.push(process);
    }

    /// No more faults; what is down starts, what is full has room, what stood still goes on.
    fn heal(&mut self) {
        let now = self.now();
        self.shared.phase = Phase::Heal;
        self.faults.end();
        // A disk that stalls does so for as long as it was going to.
        let stalled_until = self.disks.iter().map(DiskControl::busy_until).max();
        self.shared.history.is_calm_from(stalled_until.unwrap_or_default().max(now));
        self.next_blow = None;
        self.storm = None;
        self.shared.links.borrow_mut().heal();
        for process in &mut self.processes {
            process.thaw(now);
            for index in 0..process.threads() {
                process.set_fuse(index, 0);
            }
        }
        for disk in &self.disks {
            disk.configure(|disk| disk.capacity_bytes = 1 << 40);
        }
        let is_journal_small = self.shared.options.journal_files_max < 1_000;
        self.shared.options.journal_files_max = 4_000;
        if is_journal_small {
            // A larger budget is a matter of configuration, so of a new start.
            self.crash();
        }
        if self.current().is_none() && self.next_boot.is_none() {
            self.next_boot = Some(self.now());
        }
    }

    /// Before reading back: often a last end of the process, so that only disks count.
    fn last_crash(&mut self) {
        match self.rng.below(4) {
            0 => return,
            1 => self.end_current(),
            _ => self.cut_power(),
        }
        self.next_boot = Some(self.now() + MILLISECOND);
    }

    /// Reads all back; what is damaged apart from the rest, which must not suffer by it.
    fn verify(&mut self) {
        self.shared.phase = Phase::Verify;
        if !self.waiting.is_empty() {
            // The founder was stopped by damage: what is not created may be missing.
            self.shared.trace.count("worlds that damage kept from being founded");
            return;
        }
        // Who could not finish for damage may delete its segment any time, if nobody else has it.
        let mut segments = std::mem::take(&mut self.shared.alive);
        for client in self.clients.iter().filter(|client| !client.is_done()) {
            if client.name() == RECYCLER {
                segments.retain(|name| client.segment() != Some(name.as_str()));
            }
        }
        let gone = std::mem::take(&mut self.shared.gone);
        let counters = std::mem::take(&mut self.counters);
        let tables = std::mem::take(&mut self.tables);
        let part = |damaged: bool| {
            let of = |name: &String| self.is_damaged(name) == damaged;
            Verifier::new(
                segments.iter().filter(|name| of(name)).cloned().collect(),
                counters.iter().filter(|name| of(name)).cloned().collect(),
                tables.iter().filter(|(name, _)| of(name)).cloned().collect(),
                gone.iter().filter(|name| of(name)).cloned().collect(),
            )
        };
        let verifiers = [part(false), part(true)];
        for (label, verifier) in (4..).zip(verifiers) {
            let id = self.clients.len();
            let rng = self.rng.split(label);
            let role = Box::new(Sequential::new(verifier, 10));
            let at = self.now() + LEARNING;
            self.clients.push(Client::new(id, rng, role, at));
        }
    }
}
