//! The outcome of one scenario as it is kept: what ran, where, with which settings, every number,
//! and the table that a report shows of it.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::host::HostFacts;

/// Rows for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// One cell per column each.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|&one| one.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; one cell per column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = self.columns.iter().map(|_| "---".to_owned()).collect();
        let mut text = line(&self.columns) + &line(&rule);
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}

/// What every scenario's result can show.
pub(crate) trait Summary: Serialize {
    /// The numbers that matter, in rows.
    fn table(&self) -> Table;
}

/// One scenario's outcome, as written to a JSON file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the run; part of the names of its segments.
    pub run: String,
    /// When it ended, in seconds since 1970.
    pub ended_at: u64,
    /// The machine and the tree.
    pub host: HostFacts,
    /// All settings.
    pub settings: serde_json::Value,
    /// What a report shows.
    pub table: Table,
    /// All numbers.
    pub result: serde_json::Value,
}

impl Record {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Reads what [`Record::write`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }
}
