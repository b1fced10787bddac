//! The `thalweg-uring` crate.
