//! The `thalweg-net` crate.
