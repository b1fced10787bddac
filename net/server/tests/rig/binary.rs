//! Where the `thalweg` executable is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The executable under test: `THALWEG_BIN`, or the one that cargo makes of the present sources,
/// in the target directory and profile of this test. Cargo is asked once per test executable; it
/// does nothing when the executable is fresh, and a stale one is never tested.
pub(crate) fn thalweg() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var_os("THALWEG_BIN") {
        Some(given) => {
            let given = PathBuf::from(given);
            assert!(given.is_file(), "THALWEG_BIN={} is not a file", given.display());
            given
        }
        None => build(),
    })
}

/// The target directory that this test executable lies in, and whether it is a release build.
pub(crate) fn target_directory() -> (PathBuf, bool) {
    let own = std::env::current_exe().expect("the path of this test");
    // <target>/<profile>/deps/<test>
    let profile = own.parent().and_then(Path::parent).expect("tests lie in a profile directory");
    let target = profile.parent().expect("profiles lie in the target directory");
    (target.to_owned(), profile.file_name().is_some_and(|name| name == "release"))
}

fn build() -> PathBuf {
    let (target, is_release) = target_directory();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "thalweg-cli", "--bin", "thalweg"]);
    cargo.arg("--target-dir").arg(&target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if is_release {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo build of thalweg: {status}");
    let profile = if is_release { "release" } else { "debug" };
    target.join(profile).join("thalweg")
}
