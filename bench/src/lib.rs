//! The `thalweg-bench` crate.
