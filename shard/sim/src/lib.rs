//! The `thalweg-sim` crate.
