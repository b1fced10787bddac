//! A dated report from records: what was asked, what was expected, where it ran, the tables, and
//! the raw numbers beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::host::HostFacts;
use crate::record::Record;

/// What a report says besides the numbers. Empty texts are shown as not given.
#[derive(Clone, Debug, Default)]
pub struct ReportText {
    /// `YYYY-MM-DD`, first part of the file names.
    pub date: String,
    /// Short name in the file names, such as `open-loop`.
    pub topic: String,
    /// The head line.
    pub title: String,
    /// What the measurement is to answer.
    pub question: String,
    /// What was expected before it.
    pub prediction: String,
    /// How the server was set, and the command that repeats the measurement.
    pub configuration: String,
    /// Warm-up, length, repeats, open or closed loop.
    pub method: String,
    /// What follows.
    pub conclusion: String,
    /// What it does not show.
    pub limits: String,
}

/// Writes `<date>-<topic>.md` and the records beside it as `<date>-<topic>.json`. Gives the path of
/// the former.
///
/// # Errors
/// When there is no record, the date is no date, or a file cannot be written.
pub fn write_report(
    directory: &Path,
    text: &ReportText,
    records: &[Record],
) -> anyhow::Result<PathBuf> {
    ensure!(is_date(&text.date), "{:?} is no date like 2026-01-31", text.date);
    ensure!(!text.topic.is_empty(), "a report needs a topic");
    ensure!(!records.is_empty(), "a report needs records");
    let name = format!("{}-{}", text.date, text.topic);
    let path = directory.join(format!("{name}.md"));
    let raw = directory.join(format!("{name}.json"));
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    fs::write(&raw, serde_json::to_string_pretty(records)? + "\n")
        .with_context(|| format!("write {}", raw.display()))?;
    fs::write(&path, render(text, records, &format!("{name}.json")))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

fn render(text: &ReportText, records: &[Record], raw: &str) -> String {
    let mut page = format!("# {}\n\nDate: {}\n\n", text.title, text.date);
    for (head, body) in [("Question", &text.question), ("Prediction", &text.prediction)] {
        page += &section(head, body);
    }
    page += "## Machine\n\n";
    let mut hosts: Vec<&HostFacts> = Vec::new();
    for record in records {
        if !hosts.contains(&&record.host) {
            hosts.push(&record.host);
        }
    }
    for host in hosts {
        page += &machine(host);
    }
    for (head, body) in [("Configuration", &text.configuration), ("Method", &text.method)] {
        page += &section(head, body);
    }
    page += "## Results\n\n";
    for record in records {
        page += &format!("### {} (run {})\n\n", record.scenario, record.run);
        page += &format!("Settings: `{}`\n\n", record.settings);
        page += &format!("{}\n", record.table.markdown());
    }
    page += &format!("Raw numbers: [{raw}]({raw}).\n\n");
    for (head, body) in
        [("Conclusion", &text.conclusion), ("What this does not show", &text.limits)]
    {
        page += &section(head, body);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn section(head: &str, body: &str) -> String {
    let body = if body.trim().is_empty() { "Not given." } else { body.trim() };
    format!("## {head}\n\n{body}\n\n")
}

fn machine(host: &HostFacts) -> String {
    format!(
        "| commit | kernel | processor | memory | device | file system |\n\
         | --- | --- | --- | --- | --- | --- |\n\
         | {} | {} | {} x {} | {} MiB | {} | {} |\n\n",
        host.commit,
        host.kernel,
        host.processors,
        host.processor,
        host.memory_mib,
        host.device,
        host.file_system,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Table;

    fn record() -> Record {
        let mut table = Table::new(&["rate", "p99"]);
        table.row(vec!["1000".to_owned(), "2 ms".to_owned()]);
        Record {
            scenario: "open-loop".to_owned(),
            run: "7".to_owned(),
            ended_at: 0,
            host: HostFacts { kernel: "Linux 6".to_owned(), ..HostFacts::default() },
            settings: serde_json::json!({"events_per_second": 1000}),
            table,
            result: serde_json::json!({"latency": {"p99_us": 2000.0}}),
        }
    }

    /// Shows that a report holds the tables, names what was not told, and keeps the raw numbers.
    #[test]
    fn a_report_shows_tables_and_keeps_the_raw_numbers() {
        let place = tempfile::tempdir().expect("a place for files");
        let text = ReportText {
            date: "2026-01-31".to_owned(),
            topic: "open-loop".to_owned(),
            title: "A million events".to_owned(),
            question: "Does it keep up?".to_owned(),
            ..ReportText::default()
        };
        let path = write_report(place.path(), &text, &[record()]).expect("it is written");
        assert!(path.ends_with("2026-01-31-open-loop.md"));
        let page = fs::read_to_string(path).expect("it is there");
        for part in
            ["| 1000 | 2 ms |", "Does it keep up?", "## Prediction\n\nNot given.", "Linux 6"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        let raw = fs::read_to_string(place.path().join("2026-01-31-open-loop.json"))
            .expect("it is there");
        assert!(raw.contains("2000.0"));
    }

    /// Shows that records survive their file, and that reports without date or records are refused.
    #[test]
    fn records_survive_their_file_and_bad_reports_are_refused() {
        let place = tempfile::tempdir().expect("a place for files");
        let path = place.path().join("record.json");
        record().write(&path).expect("it is written");
        assert_eq!(Record::read(&path).expect("it is read").table, record().table);
        let text = ReportText { topic: "x".to_owned(), ..ReportText::default() };
        assert!(write_report(place.path(), &text, &[record()]).is_err());
        let text = ReportText { date: "2026-01-31".to_owned(), ..text };
        assert!(write_report(place.path(), &text, &[]).is_err());
    }
}
