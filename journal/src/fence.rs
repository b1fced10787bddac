//! Which epoch writes: each opening raises it, and whoever finds a higher one than its own stops.
//!
//! That one process at a time uses a directory is kept by the lock of the data directory, not here.
//! The epoch is the second line: records of an earlier epoch behind a cut are never read again.

use thalweg_core::fault::{Fault, FaultClass};
use thalweg_core::position::ContainerEpoch;

/// The epoch of a new opening. `found` is the highest in the directory, `own` the one that this
/// journal raised before, if it did.
///
/// # Errors
/// `Fenced` when somebody else raised a higher one meanwhile.
pub(crate) fn raise(
    found: ContainerEpoch,
    own: Option<ContainerEpoch>,
) -> Result<ContainerEpoch, Fault> {
    if let Some(own) = own
        && found > own
    {
        let detail = format!("journal is at epoch {}, this process opened {}", found.0, own.0);
        return Err(Fault::new(FaultClass::Fenced, detail));
    }
    let highest = found.max(own.unwrap_or_default());
    Ok(ContainerEpoch(highest.0.checked_add(1).expect("2^64 openings are out of reach")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each opening is above everything seen, and a stranger's epoch ends us.
    #[test]
    fn a_higher_epoch_of_somebody_else_fences() {
        let epoch = ContainerEpoch;
        assert_eq!(raise(epoch(0), None), Ok(epoch(1)));
        assert_eq!(raise(epoch(7), None), Ok(epoch(8)));
        assert_eq!(raise(epoch(7), Some(epoch(7))), Ok(epoch(8)));
        assert_eq!(raise(epoch(6), Some(epoch(7))), Ok(epoch(8)));
        let fault = raise(epoch(8), Some(epoch(7))).expect_err("fenced");
        assert_eq!(fault.class, FaultClass::Fenced);
    }
}
