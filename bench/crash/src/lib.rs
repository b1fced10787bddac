//! Kills a real server under load, behind a faulty network, and verifies what it kept.

mod claim;
mod controller;
pub mod dice;
pub mod history;
pub mod home;
pub mod lane;
mod lanes;
pub mod payload;
pub mod process;
pub mod proxy;
pub mod run;
pub mod store;
pub mod totals;
pub mod wire;
mod witness;
