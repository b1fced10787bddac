//! The `thalweg-core` crate.
