//! The `thalweg-shard` crate.
