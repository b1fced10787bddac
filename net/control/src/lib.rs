//! The `thalweg-control` crate.
