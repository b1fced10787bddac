//! Hostile bytes into every parser.
