//! The `thalweg-wire` crate.
