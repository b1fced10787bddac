//! The `thalweg-journal` crate.
