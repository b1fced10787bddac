//! Hand-made histories in files: each bad one is rejected with the invariant that its first line
//! names, each good one is accepted. A checker that never complains proves nothing, and one that
//! always does neither.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use thalweg_checker::{FileError, judge_file};

/// Histories of one kind, in the order of their names, with their first lines.
fn histories(kind: &str) -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories").join(kind);
    let mut found: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the directory of histories is there")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a history can be read");
            let first = text.lines().next().unwrap_or_default();
            let claim = first.strip_prefix("# ").unwrap_or_default().to_owned();
            assert!(
                !claim.is_empty(),
                "{}: the first line must tell what it shows",
                path.display()
            );
            (path, claim)
        })
        .collect()
}

/// Each bad history is rejected, with the invariant that it names, at its last line.
#[test]
fn bad_histories_are_rejected_with_the_right_invariant() {
    let bad = histories("bad");
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for (path, claim) in &bad {
        let name = path.file_stem().unwrap_or_default().display();
        let Some((expected, _)) = claim.split_once(": ") else {
            wrong.push(format!("{name}: no invariant in {claim:?}"));
            continue;
        };
        named.insert(expected.to_owned());
        let lines = fs::read_to_string(path).expect("it was read before").lines().count() as u64;
        match judge_file(path) {
            Err(FileError::Violated { line, violation }) if violation.invariant == expected => {
                if line != lines {
                    wrong.push(format!("{name}: noticed at line {line} of {lines}: {violation}"));
                }
            }
            Err(error) => wrong.push(format!("{name}: expected {expected}: {error}")),
            Ok(_) => wrong.push(format!("{name}: accepted, expected {expected}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), bad.len(), wrong.join("\n"));
    assert!(bad.len() >= 40, "only {} bad histories", bad.len());
    for number in (1..=18).chain([22, 25, 26]) {
        assert!(named.contains(&format!("S{number}")), "no bad history for S{number}");
    }
}

/// Each good history is accepted, however unlucky.
#[test]
fn good_histories_are_accepted() {
    let good = histories("good");
    let mut wrong = Vec::new();
    for (path, claim) in &good {
        if let Err(error) = judge_file(path) {
            let name = path.file_stem().unwrap_or_default().display();
            wrong.push(format!("{name} ({claim}): {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), good.len(), wrong.join("\n"));
    assert!(good.len() >= 40, "only {} good histories", good.len());
}

/// A file that is not there, a line that is no record and a line that is no text are told apart
/// from a violation, with their line.
#[test]
fn what_cannot_be_judged_is_told_with_its_line() {
    let missing = judge_file(Path::new("no/such/history"));
    assert!(matches!(missing, Err(FileError::Read { .. })), "{missing:?}");
    let lines = "# comment\n\n{\"process\":\"killed\"}\n{\"process\":\"eaten\"}\n";
    let wrong = thalweg_checker::judge_lines(lines.as_bytes());
    assert!(matches!(wrong, Err(FileError::Record { line: 4, .. })), "{wrong:?}");
    let binary = thalweg_checker::judge_lines(&b"\n\xff\xfe\n"[..]);
    assert!(matches!(binary, Err(FileError::Line { line: 2, .. })), "{binary:?}");
}
