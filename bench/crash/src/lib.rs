//! Kills a real server under load, behind a faulty network, and verifies what it kept.
