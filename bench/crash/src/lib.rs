//! Kills a real server under load, behind a faulty network, and verifies what it kept.

pub mod dice;
pub mod process;
pub mod proxy;
pub mod wire;
