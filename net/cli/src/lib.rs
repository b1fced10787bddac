//! The `thalweg-cli` crate.
