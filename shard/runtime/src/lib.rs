//! The `thalweg-runtime` crate.
