//! The `thalweg-server` crate.
