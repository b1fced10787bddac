//! The rig of the tests that run the real daemon: starting and killing it, talking to it over a
//! plain socket, and payloads that can be judged without remembering them.
//!
//! Nothing here looks inside the server: what a test learns, it learns from the wire, from standard
//! output and error, from the exit status and from the files. Every process that is started is
//! ended when its [`Server`] is dropped, whatever the test does.

pub(crate) mod binary;
pub(crate) mod dice;
pub(crate) mod server;
pub(crate) mod wire;

/// A number from the environment, or the default of the test command.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
