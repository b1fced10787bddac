//! The numbers of the shards as Prometheus text.
//!
//! Labels have a fixed set of values: shards, causes, kinds of waits and bounds. Nothing that
//! clients choose becomes a label.

use std::fmt::Write as _;

use thalweg_control::ControlCounts;
use thalweg_shard::{CloseCause, Health};

use crate::board::{Board, Report};

/// All metrics.
pub(crate) fn text(board: &Board, process_connections: usize) -> String {
    let reports: Vec<Report> = board.reports().into_iter().flatten().collect();
    let mut page = Page { text: String::new(), reports: &reports };
    page.process("connections", "Connections of the process", process_connections as u64);
    let control = u64::from(board.is_control_serving());
    page.process("control_serving", "Whether the control plane takes calls", control);
    page.control(&board.control);
    page.gauges();
    page.counters();
    page.causes();
    page.text
}

struct Page<'a> {
    text: String,
    reports: &'a [Report],
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP thalweg_{name} {help}."));
        self.line(format_args!("# TYPE thalweg_{name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn process(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.line(format_args!("thalweg_{name} {value}"));
    }

    fn by_shard(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Report) -> u64) {
        self.head(name, kind, help);
        for report in self.reports {
            let (shard, value) = (report.status.shard.0, value(report));
            self.line(format_args!("thalweg_{name}{{shard=\"{shard}\"}} {value}"));
        }
    }

    fn by_label(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl Fn(&Report) -> Vec<(&'static str, u64)>,
    ) {
        self.head(name, kind, help);
        for report in self.reports {
            let shard = report.status.shard.0;
            for (word, value) in values(report) {
                self.line(format_args!(
                    "thalweg_{name}{{shard=\"{shard}\",{label}=\"{word}\"}} {value}"
                ));
            }
        }
    }

    fn control(&mut self, counts: &ControlCounts) {
        self.process("controller_connections", "Connections to the controller", counts.open());
        for (name, help, value) in [
            ("accepted", "Connections to the controller taken in", counts.accepted()),
            ("full", "Times that a connection waited because of the bound", counts.full()),
            ("accept_pauses", "Pauses for lack of descriptors or memory", counts.accept_pauses()),
            ("calls", "Calls answered", counts.calls()),
        ] {
            let name = format!("controller_{name}_total");
            self.head(&name, "counter", help);
            self.line(format_args!("thalweg_{name} {value}"));
        }
        self.head("controller_failed_calls_total", "counter", "Calls answered with an error");
        for (code, value) in counts.failed() {
            self.line(format_args!(
                "thalweg_controller_failed_calls_total{{code=\"{code}\"}} {value}"
            ));
        }
    }

    fn gauges(&mut self) {
        let bounds = |report: &Report| {
            let status = &report.status;
            [
                ("receive", status.receive),
                ("unsent", status.unsent),
                ("accepted", status.accepted),
                ("state", status.state),
            ]
        };
        let used = |report: &Report| bounds(report).map(|(name, it)| (name, it.used)).to_vec();
        let bound = |report: &Report| bounds(report).map(|(name, it)| (name, it.bound)).to_vec();
        let is = |health| move |report: &Report| u64::from(report.status.health == health);
        self.by_shard("shard_serving", "gauge", "Whether the shard serves", is(Health::Serving));
        let gave_up = "Whether recovery failed so often that it is only tried now and then";
        self.by_shard("shard_gave_up", "gauge", gave_up, is(Health::GaveUp));
        self.by_shard("quarantined_containers", "gauge", "Containers that refuse", |report| {
            report.status.quarantined.len() as u64
        });
        self.by_shard("shard_connections", "gauge", "Connections of the shard", |report| {
            report.status.connections.used
        });
        let stalled = "Connections whose next command waits";
        self.by_shard("stalled_connections", "gauge", stalled, |report| report.status.stalled);
        let room = "Bytes that the journal still takes";
        self.by_shard("journal_room_bytes", "gauge", room, |it| it.status.journal_room_bytes);
        self.by_label("memory_bytes", "gauge", "Memory charged to clients", "kind", used);
        let help = "Most memory that clients may be charged for";
        self.by_label("memory_bound_bytes", "gauge", help, "kind", bound);
    }

    fn counters(&mut self) {
        type Value = fn(&Report) -> u64;
        let counters: [(&str, &str, Value); 22] = [
            ("turns_total", "Turns", |it| it.counters.turns),
            ("requests_total", "Requests", |it| it.counters.requests),
            ("appends_total", "Appends", |it| it.counters.appends),
            ("events_total", "Events appended", |it| it.counters.events),
            ("append_bytes_total", "Bytes appended", |it| it.counters.append_bytes),
            ("received_bytes_total", "Bytes received", |it| it.counters.received_bytes),
            ("sent_bytes_total", "Bytes sent", |it| it.counters.sent_bytes),
            ("frames_total", "Frames given to the journal", |it| it.counters.frames),
            ("frame_bytes_total", "Bytes of those", |it| it.counters.frame_bytes),
            ("wrong_hosts_total", "Requests for other shards", |it| it.counters.wrong_hosts),
            ("forwarded_total", "Requests forwarded", |it| it.counters.forwarded),
            ("journal_failures_total", "Failures of the journal", |it| {
                it.counters.journal_failures
            }),
            ("recoveries_total", "Recoveries that ended well", |it| it.counters.boots),
            ("halts_total", "Containers that stopped serving", |it| it.counters.halts),
            ("accepted_total", "Connections taken in", |it| it.network.accepted),
            ("accept_pauses_total", "Pauses for lack of descriptors or memory", |it| {
                it.network.accept_pauses
            }),
            ("accepts_paced_total", "Pauses because connections came too fast", |it| {
                it.network.accepts_paced
            }),
            ("journal_syncs_total", "Durable writes", |it| it.journal.syncs),
            ("journal_damaged_total", "Acknowledged frames found damaged", |it| it.journal.damaged),
            ("journal_rereads_total", "Reads right only at the second time", |it| {
                it.journal.rereads
            }),
            ("journal_tail_cut_bytes_total", "Unacknowledged bytes cut in recoveries", |it| {
                it.journal.tail_cut_bytes
            }),
            ("journal_file_failures_total", "Files that could not be prepared or removed", |it| {
                it.journal.file_failures
            }),
        ];
        for (name, help, value) in counters {
            self.by_shard(name, "counter", help, value);
        }
    }

    fn causes(&mut self) {
        let closes = |report: &Report| {
            CloseCause::ALL.map(|cause| (cause.label(), report.counters.closed(cause))).to_vec()
        };
        self.by_label("closes_total", "counter", "Connections closed", "cause", closes);
        let refusals = |report: &Report| {
            let network = &report.network;
            vec![("process", network.refused), ("address", network.refused_of_address)]
        };
        self.by_label("refused_total", "counter", "Connections refused", "bound", refusals);
        let stalls = |report: &Report| {
            let it = &report.counters.stalls;
            vec![
                ("room", it.room),
                ("accepted", it.accepted),
                ("unsent", it.unsent),
                ("outstanding", it.outstanding),
                ("mail", it.mail),
                ("memory", it.memory),
                ("state", it.state),
            ]
        };
        self.by_label("stalls_total", "counter", "Times that a connection waited", "for", stalls);
    }
}
