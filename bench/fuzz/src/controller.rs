//! Messages to the controller, and the records it keeps. The checks are the control plane's own,
//! opened for this crate by its feature `fuzz`.

use thalweg_control::fuzz;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    fuzz::message_seeds()
}

pub(crate) fn messages(input: &[u8]) {
    fuzz::message(input);
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    fuzz::record_seeds()
}

pub(crate) fn records(input: &[u8]) {
    fuzz::record(input);
}
