//! The scripts: each leads through one part of the engine and the journal.

use bytes::Bytes;
use thalweg_wire::{
    Command, CreateSegment, CreateTableSegment, DeleteSegment, KEY_NO_VERSION, KEY_NOT_EXISTS,
    MergeSegments, NULL_ATTRIBUTE_VALUE, RemoveTableKeys, SealSegment, TableEntry, TableKey, Text,
    TruncateSegment, UpdateSegmentAttribute, UpdateTableEntries,
};

use crate::script::{Script, Step, Tuning, filler};

const ATTRIBUTE: u128 = 0xA11;
const TABLE: &str = "scope/_tables/t0";
const TRANSACTION: &str = "#transaction.00000000000000000000000000000001";

fn segment(index: usize) -> String {
    format!("scope/stream/{index}.#epoch.0")
}

/// Writes a script down.
struct Author {
    script: Script,
    serial: u64,
}

impl Author {
    fn new(name: &'static str, segments: usize, tuning: Tuning) -> Self {
        let script = Script {
            name,
            tuning,
            steps: Vec::new(),
            segments: (0..segments).map(segment).collect(),
            tables: Vec::new(),
            attributes: vec![ATTRIBUTE],
        };
        let mut author = Self { script, serial: name.len() as u64 };
        for index in 0..segments {
            author.create(index);
        }
        author
    }

    fn push(&mut self, step: Step) -> &mut Self {
        self.script.steps.push(step);
        self
    }

    fn ask(&mut self, command: impl Into<Command>) -> &mut Self {
        self.push(Step::Ask(command.into()))
    }

    fn name(&self, index: usize) -> Text {
        self.script.segments[index].as_str().into()
    }

    fn create(&mut self, index: usize) -> &mut Self {
        let segment = self.name(index);
        self.ask(CreateSegment {
            request_id: 0,
            segment,
            target_rate: 0,
            scale_type: 0,
            delegation_token: Text::new(),
            rollover_size_bytes: 0,
        })
    }

    fn append(&mut self, segment: usize, length: usize) -> &mut Self {
        self.serial += 1;
        let bytes = filler(self.serial << 8 | segment as u64, length);
        self.push(Step::Append { segment, bytes })
    }

    fn seal(&mut self, index: usize) -> &mut Self {
        let (segment, delegation_token) = (self.name(index), Text::new());
        self.ask(SealSegment { request_id: 0, segment, delegation_token })
    }

    fn delete(&mut self, index: usize) -> &mut Self {
        let (segment, delegation_token) = (self.name(index), Text::new());
        self.ask(DeleteSegment { request_id: 0, segment, delegation_token })
    }

    fn truncate(&mut self, index: usize, truncation_offset: i64) -> &mut Self {
        let (segment, delegation_token) = (self.name(index), Text::new());
        self.ask(TruncateSegment { request_id: 0, segment, truncation_offset, delegation_token })
    }

    fn merge(&mut self, target: usize, source: usize) -> &mut Self {
        let (target, source) = (self.name(target), self.name(source));
        self.ask(MergeSegments {
            request_id: 0,
            target,
            source,
            delegation_token: Text::new(),
            attribute_updates: Vec::new(),
        })
    }

    fn attribute(&mut self, index: usize, new_value: i64, expected_value: i64) -> &mut Self {
        let segment = self.name(index);
        self.ask(UpdateSegmentAttribute {
            request_id: 0,
            segment,
            attribute_id: ATTRIBUTE,
            new_value,
            expected_value,
            delegation_token: Text::new(),
        })
    }

    fn create_table(&mut self) -> &mut Self {
        self.script.tables.push(TABLE.to_owned());
        self.ask(CreateTableSegment {
            request_id: 0,
            segment: TABLE.into(),
            delegation_token: Text::new(),
            sorted_deprecated: false,
            key_length: 0,
            rollover_size_bytes: 0,
        })
    }

    fn put(&mut self, entries: &[(&str, i64)], value_bytes: usize) -> &mut Self {
        self.serial += 1;
        let value = filler(self.serial, value_bytes);
        let entry = |&(key, version): &(&str, i64)| TableEntry {
            key: TableKey { key: Bytes::copy_from_slice(key.as_bytes()), version },
            value: value.clone(),
        };
        let entries = entries.iter().map(entry).collect();
        self.ask(UpdateTableEntries {
            request_id: 0,
            segment: TABLE.into(),
            delegation_token: Text::new(),
            entries,
            table_segment_offset: -1,
        })
    }

    fn take_out(&mut self, key: &str) -> &mut Self {
        let key = TableKey { key: Bytes::copy_from_slice(key.as_bytes()), version: KEY_NO_VERSION };
        self.ask(RemoveTableKeys {
            request_id: 0,
            segment: TABLE.into(),
            delegation_token: Text::new(),
            keys: vec![key],
            table_segment_offset: -1,
        })
    }

    fn settle(&mut self) -> &mut Self {
        self.push(Step::Settle)
    }

    fn rest(&mut self) -> &mut Self {
        self.push(Step::Rest)
    }

    fn restart(&mut self) -> &mut Self {
        self.push(Step::Restart)
    }

    fn done(&mut self) -> Script {
        self.settle();
        self.script.clone()
    }
}

fn create_and_append() -> Script {
    let mut author = Author::new("create and append", 3, Tuning::default());
    for round in 0..6 {
        author.append(0, 100).append(1, 3000 + round).append(2, 9).append(0, 5000).settle();
    }
    author.rest().append(2, 20_000).append(1, 1).done()
}

fn roll_files() -> Script {
    let mut author = Author::new("roll files", 2, Tuning::default());
    for round in 0..10 {
        author.append(0, 11_000).append(1, 9_000).append(0, 50);
        if round % 3 == 2 {
            author.settle();
        }
    }
    author.rest().append(1, 10).done()
}

fn checkpoint() -> Script {
    let tuning = Tuning {
        checkpoint_interval_bytes: 24 << 10,
        checkpoint_part_bytes: 256,
        ..Tuning::default()
    };
    let mut author = Author::new("checkpoint", 5, tuning);
    for round in 0..12 {
        author.append(round % 5, 4000).append((round + 1) % 5, 700).attribute(
            round % 5,
            round as i64,
            NULL_ATTRIBUTE_VALUE,
        );
        author.settle();
    }
    author.rest().append(0, 10).settle().restart().append(4, 10).done()
}

fn truncate_and_recycle() -> Script {
    let tuning = Tuning {
        checkpoint_interval_bytes: 16 << 10,
        checkpoint_part_bytes: 512,
        journal_bytes_max: 384 << 10,
        ..Tuning::default()
    };
    let mut author = Author::new("truncate and recycle", 2, tuning);
    author.append(1, 300);
    let mut length = 0;
    for round in 0..24 {
        author.append(0, 10_000).append(0, 1_500).settle();
        length += 11_500;
        if round % 2 == 1 {
            author.truncate(0, length - 2_000);
        }
        if round % 6 == 5 {
            author.rest();
        }
    }
    author.rest().append(1, 77).done()
}

fn seal() -> Script {
    let mut author = Author::new("seal", 3, Tuning::default());
    author.append(0, 500).append(0, 500).append(1, 12_000).seal(0).append(1, 10).seal(1);
    author.settle().seal(0).append(2, 60).rest().seal(2).settle().restart().delete(1).done()
}

fn merge_transaction() -> Script {
    let tuning = Tuning { checkpoint_interval_bytes: 32 << 10, ..Tuning::default() };
    let mut author = Author::new("merge transaction", 1, tuning);
    author.append(0, 400);
    for transaction in 1..=3 {
        // A segment and its transactions share a container; the name's number differs.
        let name = format!("{}{}{transaction}", segment(0), &TRANSACTION[..TRANSACTION.len() - 1]);
        author.script.segments.push(name);
        author.create(transaction).append(transaction, 2_000).append(0, 30);
        author.append(transaction, 9_000).append(0, 1_000).settle();
    }
    author.merge(0, 1).append(0, 5).merge(0, 2).settle().rest().delete(3).append(0, 50);
    author.settle().restart().append(0, 6).done()
}

fn table_updates() -> Script {
    let tuning = Tuning { checkpoint_interval_bytes: 24 << 10, ..Tuning::default() };
    let mut author = Author::new("table updates", 1, tuning);
    author.create_table();
    for round in 0..8 {
        author
            .put(&[("a", KEY_NO_VERSION), ("b", KEY_NO_VERSION)], 1_500)
            .put(&[("once", KEY_NOT_EXISTS)], 40)
            .append(0, 800)
            .put(&[("c", KEY_NO_VERSION)], 2_500);
        if round % 3 == 1 {
            author.take_out("b").take_out("once").settle();
        }
    }
    author.rest().take_out("a").settle().restart().put(&[("a", KEY_NOT_EXISTS)], 10).done()
}

fn attribute_updates() -> Script {
    let mut author = Author::new("attribute updates", 2, Tuning::default());
    for value in 0..14 {
        let before = if value == 0 { NULL_ATTRIBUTE_VALUE } else { value - 1 };
        author.attribute(0, value, before).append(1, 900).attribute(1, 7, 8);
        if value % 4 == 3 {
            author.settle();
        }
    }
    author.rest().attribute(0, 100, 13).done()
}

fn restart() -> Script {
    let tuning = Tuning { checkpoint_interval_bytes: 20 << 10, ..Tuning::default() };
    let mut author = Author::new("restart", 2, tuning);
    for round in 0..4 {
        author.append(0, 6_000).append(1, 200 + round).settle().append(0, 3_000).settle();
        author.restart().append(1, 4_000).settle().rest().restart();
    }
    author.append(0, 1).done()
}

fn cut_tail() -> Script {
    let mut author = Author::new("cut tail", 3, Tuning::default());
    for round in 0..5 {
        // Nothing waits for an answer: the kill meets frames in flight and frames not yet sealed.
        author.append(0, 7_000).append(1, 11_000).append(2, 4_000).append(0, 10 + round);
        author.restart().append(2, 11_500).append(1, 6_000).restart();
    }
    author.append(0, 1).done()
}

fn journal_full_and_trim() -> Script {
    let tuning = Tuning {
        journal_bytes_max: 256 << 10,
        checkpoint_interval_bytes: 12 << 10,
        checkpoint_part_bytes: 1024,
        files_kept: 0,
        ..Tuning::default()
    };
    let mut author = Author::new("journal full and trim", 2, tuning);
    author.append(1, 100);
    let mut length = 0;
    for _ in 0..14 {
        author.append(0, 11_000).append(0, 9_000).append(0, 4_000).settle();
        length += 24_000;
        author.truncate(0, length).settle().rest();
    }
    author.append(0, 1).done()
}

fn delete_and_recreate() -> Script {
    let tuning = Tuning { checkpoint_interval_bytes: 24 << 10, ..Tuning::default() };
    let mut author = Author::new("delete and recreate", 2, tuning);
    for round in 0..5 {
        author.append(0, 5_000).append(1, 1_000 + round).seal(0).delete(0).settle();
        author.create(0).append(1, 3_000);
        if round == 2 {
            author.rest().restart();
        }
    }
    author.append(0, 9).done()
}

/// All scripts.
pub fn all() -> Vec<Script> {
    vec![
        create_and_append(),
        roll_files(),
        checkpoint(),
        truncate_and_recycle(),
        seal(),
        merge_transaction(),
        table_updates(),
        attribute_updates(),
        restart(),
        cut_tail(),
        journal_full_and_trim(),
        delete_and_recreate(),
    ]
}
