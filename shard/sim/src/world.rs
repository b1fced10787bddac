//! One world: shards on simulated disks and links, clients, faults, and the order of it all.
//!
//! A world is a loop: move time to the next thing that happens, let it happen, give a turn to every
//! shard that has something to do. Faults come first; then everything heals, clients finish, and
//! all is read back. One seed decides everything.

use std::cell::RefCell;
use std::rc::Rc;

use thalweg_journal::Journal;
use thalweg_shard::Shard;

use crate::cast::{Troupe, assemble};
use crate::client::sequential::Sequential;
use crate::client::verifier::Verifier;
use crate::client::{Client, Phase, Shared};
use crate::clock::{Clock, MICROSECOND, MILLISECOND, SECOND};
use crate::disk::DiskControl;
use crate::environment::SimulatedEnv;
use crate::faults::{FaultKind, Faults};
use crate::image::Survival;
use crate::link::{LinkHandle, Links};
use crate::model::Model;
use crate::options::Options;
use crate::post::{Post, PostHandle, SharedPost};
use crate::rng::Rng;
use crate::router::Router;
use crate::trace::{Trace, trace};

/// Longest time under faults.
const FAULTS_MAX: u64 = 30 * SECOND;
/// Longest time for everybody to finish after the last fault, and again for reading back.
const HEALING_MAX: u64 = 120 * SECOND;
/// Most turns for the same.
const HEALING_TURNS_MAX: u64 = 400_000;
/// Turns in a tenth of a millisecond that only a shard without anything to do can take.
const SPINNING_TURNS: u64 = 20_000;

/// One process's worth of shards.
struct Machine {
    shard: Option<Shard<SimulatedEnv>>,
    disk: DiskControl,
    /// When the next turn is, if it has something to do.
    turn_at: Option<u64>,
    /// When it wants a turn even if nothing happens.
    deadline: Option<u64>,
    /// When its last turn was. What it did not take then it is not offered again by itself.
    last_turn: u64,
}

/// A running world.
pub(crate) struct World {
    shared: Shared,
    faults: Faults,
    rng: Rng,
    machines: Vec<Machine>,
    post: SharedPost,
    clients: Vec<Client>,
    waiting: Vec<Client>,
    counters: Vec<String>,
    tables: Vec<(String, usize)>,
    next_crash: Option<u64>,
    next_boot: Option<u64>,
    turns: u64,
    /// Something acknowledged may be unreadable; then it need not be served.
    has_rotted: bool,
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
        let machines = (0..options.shards)
            .map(|shard| {
                let disk_rng = rng.split(100 + shard as u64);
                let disk = DiskControl::new(
                    shard,
                    options.disk.clone(),
                    disk_rng,
                    clock.clone(),
                    trace.clone(),
                    faults.clone(),
                );
                Machine { shard: None, disk, turn_at: None, deadline: None, last_turn: 0 }
            })
            .collect();
        let post = Rc::new(RefCell::new(Post::new(options.shards, options.mailbox_capacity)));
        let mut shared = Shared {
            clock,
            trace: trace.clone(),
            links: Rc::new(RefCell::new(links)),
            model: Model::new(trace, options.event_sizes),
            router: Router::new(options.placement(), options.forwarding),
            budget: options.operations,
            options,
            phase: Phase::Faults,
            gone: Vec::new(),
        };
        let Troupe { founder, others, counters, tables } = assemble(&mut shared, &rng.split(2));
        let mut world = Self {
            shared,
            faults,
            rng: rng.split(3),
            machines,
            post,
            clients: vec![founder],
            waiting: others,
            counters,
            tables,
            next_crash: None,
            next_boot: Some(0),
            turns: 0,
            has_rotted: false,
            spinning: (0, 0),
        };
        world.schedule_crash();
        world
    }

    /// Runs it to its end or the first violation.
    pub(crate) fn run(mut self) {
        self.run_until(FAULTS_MAX, u64::MAX, |world| world.shared.budget == 0);
        trace!(self.shared.trace, "faults stop");
        self.heal();
        self.finish_or_report("L1");
        if self.shared.trace.is_violated() {
            return;
        }
        self.last_crash();
        self.verify();
        self.finish_or_report("L2");
    }

    fn finish_or_report(&mut self, invariant: &str) {
        let until = self.shared.clock.nanos() + HEALING_MAX;
        let turns = self.turns + HEALING_TURNS_MAX;
        let is_done = self.run_until(until, turns, |world| {
            world.waiting.is_empty() && world.clients.iter().all(Client::is_done)
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
            let trace = self.shared.trace.clone();
            trace.violation(invariant, format_args!("not finished in time: {undone:?}"));
        }
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
        let machines = self.machines.iter().enumerate();
        let shards = machines.filter(|(_, machine)| machine.shard.is_some()).filter_map(
            |(index, machine)| match machine.turn_at {
                // A turn that is due anyway comes before what would make it due.
                Some(at) => Some(at),
                None if self.has_input(index) => Some(self.now()),
                None => [machine.deadline, machine.disk.next_completion(machine.last_turn)]
                    .into_iter()
                    .flatten()
                    .min(),
            },
        );
        let clients = self.clients.iter().filter_map(Client::wake_at);
        let others = [self.shared.links.borrow().next_arrival(), self.next_crash, self.next_boot];
        let next = shards.chain(clients).chain(others.into_iter().flatten()).min();
        // Nothing at all to do: let time pass, so that bounds are noticed.
        next.unwrap_or(self.now() + SECOND)
    }

    /// Whether bytes or mail wait for a shard.
    fn has_input(&self, index: usize) -> bool {
        self.shared.links.borrow().has_shard_events(index) || self.post.borrow().has_mail(index)
    }

    fn step(&mut self) {
        self.shared.clock.advance_to(self.next_time());
        let now = self.now();
        if self.next_crash.is_some_and(|at| at <= now) {
            if self.faults.strike(FaultKind::ProcessKill, true) {
                self.crash();
            }
            self.schedule_crash();
        }
        if self.next_boot.is_some_and(|at| at <= now) {
            self.next_boot = None;
            self.boot();
        }
        self.shared.links.borrow_mut().advance();
        self.serve_clients();
        for index in 0..self.machines.len() {
            self.give_turn(index);
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

    /// Lets a shard have its turn if it has something to do and its time has come.
    fn give_turn(&mut self, index: usize) {
        let now = self.now();
        let has_input = self.has_input(index);
        let machine = &mut self.machines[index];
        let Some(shard) = &mut machine.shard else { return };
        if machine.turn_at.is_none() {
            let is_due = machine.deadline.is_some_and(|at| at <= now)
                || machine.disk.next_completion(machine.last_turn).is_some_and(|at| at <= now);
            if is_due || has_input {
                // A busy shard comes to it a little later and finds more.
                let most = self.shared.options.turn_delay_us_max;
                machine.turn_at = Some(now + self.rng.below(most) * MICROSECOND);
            }
        }
        if machine.turn_at.is_none_or(|at| at > now) {
            return;
        }
        self.turns += 1;
        self.post.borrow_mut().answer_bell(index);
        let outcome = shard.turn();
        let after = self.shared.clock.nanos();
        if after > self.spinning.0 + 100 * MICROSECOND {
            self.spinning = (after, self.turns);
        } else if self.turns > self.spinning.1 + SPINNING_TURNS {
            let fault = format_args!("shard {index} spins: {outcome:?} at {after}");
            self.shared.trace.violation("L6", fault);
        }
        machine.last_turn = after;
        machine.turn_at = outcome.has_work_left.then_some(after);
        machine.deadline = outcome.next_deadline.map(|due| due.0.max(after + 1));
        if !shard.is_serving() && outcome.next_deadline.is_none() {
            // A shard that gave up ends its process, and somebody starts it again.
            let fault = shard.fault().map(ToString::to_string).unwrap_or_default();
            trace!(self.shared.trace, "shard {index} gave up: {fault}");
            self.shared.trace.count("shards that gave up");
            self.crash();
        }
    }

    fn schedule_crash(&mut self) {
        let mean = self.shared.options.crash_every_us;
        self.next_crash = (mean > 0 && self.shared.phase == Phase::Faults)
            .then(|| self.now() + self.rng.between(mean / 4, mean * 2) * MICROSECOND);
    }

    /// The process ends, perhaps with the power.
    fn crash(&mut self) {
        if self.rng.percent(10) {
            let hour: i64 = 3_600_000;
            let jump = self.rng.pick(&[-hour, hour, -hour * 8_766, hour * 8_766]);
            if self.faults.strike(FaultKind::WallClockJump, true) {
                self.shared.clock.jump_wall(jump);
            }
        }
        let is_power_cut = self.rng.percent(self.shared.options.power_cut_percent);
        self.end_process(is_power_cut);
        let pause = self.rng.between(1, 5_000) * MICROSECOND;
        self.next_boot = Some(self.now() + pause);
    }

    fn end_process(&mut self, is_power_cut: bool) {
        let survival = is_power_cut.then(|| {
            self.rng.pick(&[
                Survival::Everything,
                Survival::Nothing,
                Survival::Chance,
                Survival::Chance,
            ])
        });
        let survival = survival.filter(|_| self.faults.strike(FaultKind::PowerCut, is_power_cut));
        trace!(self.shared.trace, "the process ends, power cut: {survival:?}");
        self.shared.trace.count("process ends");
        for (index, machine) in self.machines.iter_mut().enumerate() {
            machine.shard = None;
            machine.turn_at = None;
            machine.deadline = None;
            machine.disk.kill(survival);
            self.shared.links.borrow_mut().kill_shard(index);
        }
        self.post.borrow_mut().clear();
        if self.shared.options.rots && !self.has_rotted && self.rng.percent(20) {
            let index = self.rng.index(self.machines.len());
            if self.faults.strike(FaultKind::Rot, true) {
                self.has_rotted = self.machines[index].disk.rot();
            }
            if self.has_rotted {
                trace!(self.shared.trace, "disk {index} rots");
            }
        }
    }

    /// Starts the process: every shard recovers, or none serves.
    fn boot(&mut self) {
        if self.machines.iter().any(|machine| machine.shard.is_some()) {
            return;
        }
        trace!(self.shared.trace, "the process starts");
        self.shared.trace.count("process starts");
        for index in 0..self.machines.len() {
            let is_faulty = self.shared.phase == Phase::Faults;
            let percent = self.shared.options.crash_in_recovery_percent;
            if is_faulty && self.rng.percent(percent) {
                let operations = self.rng.between(1, 150);
                if self.faults.strike(FaultKind::CrashInRecovery, true) {
                    self.machines[index].disk.set_fuse(Some(operations));
                }
            }
            let booted = self.boot_shard(index);
            let machine = &mut self.machines[index];
            machine.disk.set_fuse(None);
            match booted {
                Ok(shard) if !machine.disk.has_tripped() => {
                    machine.shard = Some(shard);
                    machine.turn_at = Some(self.shared.clock.nanos());
                    self.shared.links.borrow_mut().serve_shard(index);
                }
                Ok(_) => {
                    self.shared.trace.count("recoveries cut short");
                    self.crash();
                    return;
                }
                Err(fault) => {
                    trace!(self.shared.trace, "shard {index} does not start: {fault}");
                    self.shared.trace.count("failed starts");
                    self.crash();
                    return;
                }
            }
        }
    }

    fn boot_shard(&mut self, index: usize) -> Result<Shard<SimulatedEnv>, String> {
        let options = &self.shared.options;
        let device = self.machines[index].disk.attach();
        let journal = Journal::new(device, options.journal_config(index))
            .map_err(|error| error.to_string())?;
        let env = SimulatedEnv {
            journal,
            network: LinkHandle::new(Rc::clone(&self.shared.links), index),
            mailbox: PostHandle::new(Rc::clone(&self.post), index),
            clock: self.shared.clock.clone(),
        };
        Shard::boot(env, options.shard_config(index)).map_err(|error| error.to_string())
    }

    /// No more faults; what is down starts, what is full has room.
    fn heal(&mut self) {
        self.shared.phase = Phase::Heal;
        self.next_crash = None;
        self.shared.links.borrow_mut().heal();
        for machine in &self.machines {
            machine.disk.set_fuse(None);
            machine.disk.configure(|disk| {
                disk.stall_per_million = 0;
                disk.write_fault_per_million = 0;
                disk.read_fault_per_million = 0;
                disk.directory_fault_per_million = 0;
                disk.capacity_bytes = 1 << 40;
            });
        }
        let is_journal_small = self.shared.options.journal_files_max < 1_000;
        self.shared.options.journal_files_max = 4_000;
        if is_journal_small {
            // A larger budget is a matter of configuration, so of a new start.
            self.crash();
        }
        if self.machines.iter().any(|machine| machine.shard.is_none()) && self.next_boot.is_none() {
            self.next_boot = Some(self.now());
        }
    }

    /// Before reading back: often a last end of the process, so that only disks count.
    fn last_crash(&mut self) {
        match self.rng.below(4) {
            0 => return,
            1 => self.end_process(false),
            _ => self.end_process(true),
        }
        self.next_boot = Some(self.now() + MILLISECOND);
    }

    fn verify(&mut self) {
        self.shared.phase = Phase::Verify;
        let segments = self.shared.model.segment_names();
        let gone = std::mem::take(&mut self.shared.gone);
        let counters = std::mem::take(&mut self.counters);
        let tables = std::mem::take(&mut self.tables);
        let verifier = Sequential::new(Verifier::new(segments, counters, tables, gone), 10);
        let id = self.clients.len();
        let rng = self.rng.split(4);
        self.clients.push(Client::new(id, rng, Box::new(verifier), self.now()));
    }
}
