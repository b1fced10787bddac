//! What a seed stands for: sizes, rates and the cast of a world, all drawn before it starts.

use std::fmt;
use std::time::Duration;

use thalweg_core::canary::Canary;
use thalweg_core::id::ShardId;
use thalweg_core::limits::Limits;
use thalweg_journal::Exclusion;
use thalweg_net::{ConnectionLimits, Placement};

pub(crate) use thalweg_shard::Forwarding;
use thalweg_shard::TurnBudget;

use crate::disk::DiskOptions;
use crate::link::LinkOptions;
use crate::payload::EventSizes;
use crate::rng::Rng;
use crate::weather::Weather;

/// The cast of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    pub(crate) streams: u64,
    pub(crate) writers_per_stream: u64,
    pub(crate) twins: bool,
    pub(crate) conditional_segments: u64,
    pub(crate) transactions: u64,
    pub(crate) recyclers: u64,
    pub(crate) tables: u64,
    pub(crate) readers_per_stream: u64,
    pub(crate) truncates: bool,
    pub(crate) seals: bool,
}

/// Everything a seed decides.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) shards: usize,
    pub(crate) containers: u16,
    pub(crate) forwarding: Forwarding,
    pub(crate) mailbox_capacity: usize,
    pub(crate) limits: Limits,
    pub(crate) journal_file_bytes: u64,
    pub(crate) journal_files_max: u64,
    pub(crate) frames_in_flight_max: usize,
    pub(crate) turn_commands: usize,
    pub(crate) turn_delay_us_max: u64,
    pub(crate) disk: DiskOptions,
    pub(crate) link: LinkOptions,
    pub(crate) event_sizes: EventSizes,
    pub(crate) cast: Cast,
    pub(crate) think_us_max: u64,
    pub(crate) operations: u64,
    /// Mean time between crashes, microseconds; 0 for none.
    pub(crate) crash_every_us: u64,
    pub(crate) power_cut_percent: u32,
    /// What happens to processes.
    pub(crate) weather: Weather,
    pub(crate) crash_in_recovery_percent: u32,
    pub(crate) canary: Option<Canary>,
    /// Acknowledged bytes rot at rest, once.
    pub(crate) rots: bool,
}

/// A rate that is often nothing at all.
fn sometimes(rng: &mut Rng, percent: u32, most: u64) -> u32 {
    if rng.percent(percent) { rng.between(1, most) as u32 } else { 0 }
}

impl Options {
    /// What this seed stands for.
    pub(crate) fn draw(rng: &mut Rng, canary: Option<Canary>, rots: bool) -> Self {
        let shards = rng.pick(&[1, 1, 2, 3]);
        let journal_file_bytes = rng.pick(&[64 << 10, 64 << 10, 128 << 10, 512 << 10]);
        let is_journal_small = rng.percent(12);
        let large_max = if journal_file_bytes == 64 << 10 { 4_500 } else { 11_000 };
        let operations = rng.pick(&[300, 1_000, 2_000]);
        let mut options = Self {
            shards,
            containers: shards as u16 * rng.pick(&[1, 2, 3]),
            forwarding: rng.pick(&[Forwarding::WrongHost, Forwarding::Mailbox]),
            mailbox_capacity: rng.pick(&[1, 8, 64]),
            limits: draw_limits(rng, journal_file_bytes),
            journal_file_bytes,
            journal_files_max: if is_journal_small { rng.between(5, 12) } else { 4_000 },
            frames_in_flight_max: rng.pick(&[1, 2, 4]),
            turn_commands: rng.pick(&[1, 5, 4_096]),
            turn_delay_us_max: rng.pick(&[1, 30, 300]),
            disk: draw_disk(rng),
            link: draw_link(rng),
            event_sizes: EventSizes { ordinary_max: rng.pick(&[10, 100, 400]), large_max },
            cast: draw_cast(rng),
            think_us_max: rng.pick(&[50, 500, 3_000]),
            operations,
            crash_every_us: rng.pick(&[0, 20_000, 60_000, 200_000]),
            power_cut_percent: rng.pick(&[0, 50, 100]),
            weather: Weather::draw(rng),
            crash_in_recovery_percent: rng.pick(&[0, 20, 60]),
            canary,
            rots,
        };
        if rots {
            // Rot shows only over a restart.
            options.crash_every_us = options.crash_every_us.max(20_000);
            options.weather.kill_often();
        }
        if options.weather.lease_us.is_some() {
            options.disk.late_ms_max = rng.pick(&[5, 50, 3_000]);
        }
        // Within the promise there is one fault of this kind.
        options.weather.damages &= canary.is_none() && !rots;
        if let Some(canary) = canary {
            options.provoke(canary, rng);
        }
        options
    }

    /// How containers are divided.
    pub(crate) fn placement(&self) -> Placement {
        Placement::new(self.containers, self.shards as u16)
    }

    /// What a shard is told at start.
    pub(crate) fn shard_config(&self, shard: usize) -> thalweg_shard::Config {
        let shard = ShardId(shard as u16);
        let mut config = thalweg_shard::Config::new(shard, self.placement());
        config.limits = self.limits.clone();
        config.forwarding = self.forwarding;
        config.turn = TurnBudget { commands: self.turn_commands, bytes: 64 << 10 };
        config.connection = ConnectionLimits {
            frame_bytes_max: 256 << 10,
            receive_bytes_min: 64,
            receive_bytes_max: 4 << 10,
            ..ConnectionLimits::default()
        };
        config.receive_bytes = 512 << 10;
        config.unsent_bytes_max = 64 << 10;
        config.unsent_bytes_close = 64 << 20;
        config.outstanding_max = 32;
        config.trim_interval = Duration::from_millis(5);
        config.boot_delay = Duration::from_millis(1);
        config
    }

    /// What a journal is told at start.
    pub(crate) fn journal_config(&self, shard: usize) -> thalweg_journal::Config {
        let shard = ShardId(shard as u16);
        let config = thalweg_journal::Config {
            shard,
            directory: 0x7468_616C_7765_6700 + u64::from(shard.0),
            containers: self.placement().containers_of(shard).collect(),
            file_bytes: self.journal_file_bytes,
            journal_bytes_max: self.journal_file_bytes * self.journal_files_max,
            frames_in_flight_max: self.frames_in_flight_max,
            files_ahead: 1,
            prepare_write_bytes: 32 << 10,
            recovery_read_bytes: 64 << 10,
            recovery_reads: 3,
            exclusion: self
                .weather
                .lease_us
                .map_or(Exclusion::Lock, |lease| Exclusion::Lease(Duration::from_micros(lease))),
            ..thalweg_journal::Config::default()
        };
        self.plant(config)
    }

    #[cfg(feature = "canary")]
    fn plant(&self, mut config: thalweg_journal::Config) -> thalweg_journal::Config {
        config.canary = match self.canary {
            Some(Canary::AckBeforeSync) => Some(thalweg_journal::Canary::AckBeforeSync),
            Some(Canary::SkipPayloadChecksum) => Some(thalweg_journal::Canary::SkipPayloadChecksum),
            Some(Canary::CutAcknowledgedTail) => Some(thalweg_journal::Canary::CutAcknowledgedTail),
            _ => None,
        };
        config
    }

    #[cfg(not(feature = "canary"))]
    fn plant(&self, config: thalweg_journal::Config) -> thalweg_journal::Config {
        assert!(self.canary.is_none(), "bugs are planted only with the feature");
        config
    }

    /// Gives a planted bug what it needs to show: the rarest of it would otherwise take long.
    fn provoke(&mut self, canary: Canary, rng: &mut Rng) {
        // Most planted bugs show only over a restart.
        self.crash_every_us = self.crash_every_us.max(20_000);
        self.weather.kill_often();
        match canary {
            // Within the promise damage is never met where it must not be cut.
            Canary::CutAcknowledgedTail => self.rots = true,
            Canary::NoSuchSegmentWhileRecovering => self.weather.damages = true,
            Canary::SyncRetriedAfterError => self.disk.write_fault_per_million = 8_000,
            Canary::StaleBytesRevived | Canary::NoEpochInRecords => {
                self.frames_in_flight_max = 4;
                self.power_cut_percent = 100;
                self.limits.accepted_bytes_max = 64 << 10;
            }
            Canary::MergeDropsLastAppend => {
                self.cast.streams = self.cast.streams.max(2);
                self.cast.transactions = 2;
            }
            Canary::SealMissesInFlight => {
                self.cast.seals = true;
                self.cast.transactions = 0;
            }
            Canary::TableVersionReused => self.cast.tables = 2,
            Canary::AckBeforeSync | Canary::SyncBesideWrites | Canary::DirectoryNotSynced => {
                self.power_cut_percent = rng.pick(&[50, 100]);
            }
            _ => {}
        }
    }
}

fn draw_limits(rng: &mut Rng, journal_file_bytes: u64) -> Limits {
    let frame_bytes = rng.pick(&[4 << 10, 8 << 10, 16 << 10]);
    Limits {
        frame_bytes,
        slab_bytes: frame_bytes * 4,
        tail_cache_bytes: frame_bytes * rng.pick(&[1, 8, 64]),
        history_cache_bytes: frame_bytes * rng.pick(&[1, 8, 64]),
        accepted_bytes_max: rng.pick(&[8 << 10, 64 << 10]),
        parked_read: Duration::from_millis(rng.pick(&[50, 2_000, 120_000])),
        parked_reads_max: rng.pick(&[1, 4, 1_000]),
        checkpoint_interval_bytes: rng.pick(&[8 << 10, 32 << 10, 256 << 10]),
        checkpoint_part_bytes: rng.pick(&[500, 2 << 10]),
        // Less than the one file that is prepared ahead.
        journal_reserve_bytes: journal_file_bytes / 4,
        ..Limits::default()
    }
}

fn draw_disk(rng: &mut Rng) -> DiskOptions {
    let has_faults = rng.percent(40);
    let mut rate = |percent, most| {
        if has_faults { sometimes(rng, percent, most) } else { 0 }
    };
    let write_fault_per_million = rate(70, 8_000);
    let read_fault_per_million = rate(50, 8_000);
    let directory_fault_per_million = rate(40, 8_000);
    DiskOptions {
        latency_us_max: rng.pick(&[50, 300, 3_000]),
        stall_per_million: sometimes(rng, 30, 2_000),
        write_fault_per_million,
        read_fault_per_million,
        directory_fault_per_million,
        wrong_read_per_million: if has_faults { sometimes(rng, 50, 8_000) } else { 0 },
        stall_ms_max: rng.pick(&[300, 30_000]),
        late_ms_max: 0,
        capacity_bytes: if rng.percent(10) { rng.between(1 << 20, 4 << 20) } else { 1 << 40 },
    }
}

fn draw_link(rng: &mut Rng) -> LinkOptions {
    LinkOptions {
        delay_us_max: rng.pick(&[20, 200, 5_000]),
        piece_bytes_max: rng.pick(&[1 << 20, 1 << 20, 1_000, 60]),
        reset_per_million: sometimes(rng, 50, 5_000),
        half_close_per_million: sometimes(rng, 30, 2_000),
        clog_per_million: sometimes(rng, 30, 2_000),
    }
}

fn draw_cast(rng: &mut Rng) -> Cast {
    Cast {
        streams: rng.between(1, 4),
        writers_per_stream: rng.between(1, 3),
        twins: rng.percent(30),
        conditional_segments: rng.below(3),
        transactions: rng.below(4),
        recyclers: rng.below(3),
        tables: rng.below(3),
        readers_per_stream: rng.between(1, 2),
        truncates: rng.percent(50),
        seals: rng.percent(30),
    }
}

impl fmt::Display for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "shards {}, containers {}, forwarding {:?}, mailbox {}, operations {}, canary {:?}",
            self.shards,
            self.containers,
            self.forwarding,
            self.mailbox_capacity,
            self.operations,
            self.canary
        )?;
        writeln!(formatter, "{:?}", self.cast)?;
        writeln!(
            formatter,
            "journal: file bytes {}, files {}, frames in flight {}",
            self.journal_file_bytes, self.journal_files_max, self.frames_in_flight_max
        )?;
        writeln!(formatter, "{:?}", self.limits)?;
        writeln!(formatter, "{:?}", self.disk)?;
        writeln!(formatter, "{:?}", self.link)?;
        writeln!(
            formatter,
            "{:?}, pauses up to {} us, turns of {} commands after up to {} us",
            self.event_sizes, self.think_us_max, self.turn_commands, self.turn_delay_us_max
        )?;
        write!(
            formatter,
            "blows every {} us, {} % of crashes power cuts, {} % in recovery, {:?}",
            self.crash_every_us,
            self.power_cut_percent,
            self.crash_in_recovery_percent,
            self.weather
        )
    }
}
