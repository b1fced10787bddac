//! What no compiler checks: who may depend on whom, how wide and long files are, what may not
//! stand in the tree. The picture that the first test compares with is in `docs/ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Our crates and which of our crates each may name in `[dependencies]`.
const EDGES: &[(&str, &[&str])] = &[
    ("thalweg-core", &[]),
    ("thalweg-wire", &[]),
    ("thalweg-journal", &["thalweg-core"]),
    ("thalweg-uring", &["thalweg-core"]),
    ("thalweg-net", &["thalweg-core", "thalweg-wire"]),
    ("thalweg-shard", &["thalweg-core", "thalweg-net"]),
    ("thalweg-runtime", &["thalweg-core", "thalweg-uring"]),
    ("thalweg-client", &["thalweg-wire"]),
    ("thalweg-control", &["thalweg-client", "thalweg-wire"]),
    (
        "thalweg-server",
        &[
            "thalweg-client",
            "thalweg-control",
            "thalweg-core",
            "thalweg-journal",
            "thalweg-net",
            "thalweg-runtime",
            "thalweg-shard",
            "thalweg-uring",
        ],
    ),
    (
        "thalweg-sim",
        &[
            "thalweg-checker",
            "thalweg-core",
            "thalweg-journal",
            "thalweg-net",
            "thalweg-shard",
            "thalweg-wire",
        ],
    ),
    (
        "thalweg-sweep",
        &["thalweg-core", "thalweg-journal", "thalweg-shard", "thalweg-uring", "thalweg-wire"],
    ),
    ("thalweg-checker", &["thalweg-wire"]),
    (
        "thalweg-fuzz",
        &[
            "thalweg-control",
            "thalweg-core",
            "thalweg-journal",
            "thalweg-net",
            "thalweg-server",
            "thalweg-wire",
        ],
    ),
    ("thalweg-bench", &["thalweg-uring", "thalweg-wire"]),
    ("thalweg-crash", &["thalweg-checker", "thalweg-control", "thalweg-wire"]),
    ("thalweg-lossyfs", &[]),
    (
        "thalweg-cli",
        &[
            "thalweg-bench",
            "thalweg-core",
            "thalweg-crash",
            "thalweg-journal",
            "thalweg-net",
            "thalweg-server",
            "thalweg-uring",
        ],
    ),
];

/// Crates of others that only some of ours may name.
const GUARDED: &[(&str, &[&str])] = &[
    ("glommio", &["thalweg-runtime"]),
    ("io-uring", &["thalweg-uring"]),
    ("libc", &["thalweg-sweep", "thalweg-uring"]),
    ("tokio", &["thalweg-client", "thalweg-control", "thalweg-crash", "thalweg-server"]),
    ("tonic", &["thalweg-control", "thalweg-crash"]),
];

/// Lines of a source file at which it must be split or listed here with the reason.
const FILE_LINES_MAX: usize = 800;

/// Files over [`FILE_LINES_MAX`], with their reason.
const LONG_FILES: &[(&str, &str)] = &[];

const LINE_WIDTH_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core is a room of the tree").to_owned()
}

/// Tracked and new files that are not ignored, relative to the root.
fn tree_files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files of the tree");
    assert!(output.status.success(), "git ls-files: {output:?}");
    let mut files: Vec<String> = String::from_utf8(output.stdout)
        .expect("file names are UTF-8")
        .lines()
        .map(str::to_owned)
        .filter(|file| root().join(file).is_file())
        .collect();
    files.sort();
    files
}

fn rust_sources() -> Vec<(String, String)> {
    tree_files()
        .into_iter()
        .filter(|file| file.ends_with(".rs"))
        .map(|file| {
            let text = std::fs::read_to_string(root().join(&file)).expect("sources are readable");
            (file, text)
        })
        .collect()
}

/// Dependency names by package, from the manifests, ordinary dependencies only.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo describes the workspace");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages is a list") {
        let names = package["dependencies"]
            .as_array()
            .expect("dependencies is a list")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
            .collect();
        found.insert(package["name"].as_str().expect("a name").to_owned(), names);
    }
    found
}

/// Shows that no crate names another that the picture does not allow.
#[test]
fn dependencies_point_as_drawn() {
    let mut wrong = Vec::new();
    for (package, names) in dependencies() {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == package) else {
            wrong.push(format!("{package} is not in the picture"));
            continue;
        };
        for name in names.iter().filter(|name| name.starts_with("thalweg-")) {
            if !allowed.contains(&name.as_str()) {
                wrong.push(format!("{package} may not depend on {name}"));
            }
        }
        for (guarded, users) in GUARDED {
            if names.contains(*guarded) && !users.contains(&package.as_str()) {
                wrong.push(format!("{package} may not depend on {guarded}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Shows that lines and files stay readable.
#[test]
fn sources_are_not_too_wide_or_long() {
    let mut wrong = Vec::new();
    for (file, text) in rust_sources() {
        for (index, line) in text.lines().enumerate() {
            if line.chars().count() > LINE_WIDTH_MAX && !line.contains("http") {
                wrong.push(format!("{file}:{} is wider than {LINE_WIDTH_MAX}", index + 1));
            }
        }
        let lines = text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(known, _)| *known == file);
        if lines > FILE_LINES_MAX && !is_listed {
            wrong.push(format!("{file} has {lines} lines: split it or say why not"));
        }
        if lines <= FILE_LINES_MAX && is_listed {
            wrong.push(format!("{file} is short now: take it off the list"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Shows that nothing unfinished, machine-bound or vague stands in the tree.
#[test]
fn nothing_unwanted_is_in_the_tree() {
    // Put together so that this file does not find itself.
    let banned_in_sources = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["db", "g!("].concat(),
        ["FIX", "ME"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let banned_everywhere = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["bash", "_jobs"].concat(),
        ["crates", ".io"].concat(),
        ["pypi", ".org"].concat(),
        ["maven", ".org"].concat(),
        ["../sha", "red"].concat(),
    ];
    let banned_modules = ["util", "common", "helpers", "manager", "misc"];
    let mut wrong = Vec::new();
    for file in tree_files() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        if file == "Cargo.lock" || file.ends_with("/Cargo.lock") {
            continue;
        }
        let mut banned: Vec<&String> = banned_everywhere.iter().collect();
        if file.ends_with(".rs") {
            banned.extend(&banned_in_sources);
        }
        for word in banned.into_iter().filter(|word| text.contains(word.as_str())) {
            wrong.push(format!("{file} contains {word}"));
        }
        let stem = Path::new(&file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
        if file.ends_with(".rs") && banned_modules.contains(&stem) {
            wrong.push(format!("{file}: name what it holds"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Shows that unsafe code, glommio and the ring stay in the rooms that own them.
#[test]
fn guarded_words_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (file, text) in rust_sources() {
        let code: Vec<&str> =
            text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).collect();
        let uses = |word: &str| code.iter().any(|line| line.contains(word));
        if uses(&["unsafe", " {"].concat()) && !file.starts_with("shard/uring/") {
            wrong.push(format!("{file} has unsafe code"));
        }
        if uses(&["glommio", "::"].concat()) && !file.starts_with("shard/runtime/") {
            wrong.push(format!("{file} uses glommio"));
        }
        if uses(&["io_uring", "::"].concat()) && !file.starts_with("shard/uring/") {
            wrong.push(format!("{file} uses io_uring"));
        }
        let is_pure = ["core/src/", "journal/src/", "net/src/", "net/wire/src/", "shard/src/"]
            .iter()
            .any(|room| file.starts_with(room));
        for word in ["Instant::now", "SystemTime::now", "thread::sleep"] {
            if is_pure && uses(word) {
                wrong.push(format!("{file} uses {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
