//! The `thalweg-client` crate.
