//! Judges histories of a stream store against its invariants.
