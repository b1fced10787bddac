//! Rules of transactions: states, leases, how long one may live. Pure; time is an argument.

/// Shortest lease, in milliseconds.
pub(crate) const LEASE_MS_MIN: i64 = 10_000;

/// Longest lease, in milliseconds.
pub(crate) const LEASE_MS_MAX: i64 = 600_000;

/// Longest life of a transaction, in milliseconds: a day.
pub(crate) const EXECUTION_MS_MAX: i64 = 86_400_000;

/// How long a completed transaction is remembered, in milliseconds: a day.
pub(crate) const COMPLETED_MS: i64 = 86_400_000;

/// Where a transaction stands. It goes from open over committing to committed, or over aborting to
/// aborted, and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionState {
    /// Takes writes.
    Open,
    /// Will be committed, whatever happens.
    Committing,
    /// Its writes are part of the stream.
    Committed,
    /// Will be dropped.
    Aborting,
    /// Its writes are gone.
    Aborted,
}

/// What is left to do when a transaction is asked to end one way or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Do it.
    Begin,
    /// It was done before; say so.
    Repeated,
    /// It ends the other way.
    Refused,
}

impl TransactionState {
    /// A request to commit.
    pub(crate) fn commit(self) -> Ending {
        match self {
            Self::Open => Ending::Begin,
            Self::Committing | Self::Committed => Ending::Repeated,
            Self::Aborting | Self::Aborted => Ending::Refused,
        }
    }

    /// A request to abort.
    pub(crate) fn abort(self) -> Ending {
        match self {
            Self::Open => Ending::Begin,
            Self::Aborting | Self::Aborted => Ending::Repeated,
            Self::Committing | Self::Committed => Ending::Refused,
        }
    }
}

/// Whether a transaction may be made with this lease.
pub(crate) fn is_valid_lease(lease_ms: i64) -> bool {
    (LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ms)
}

/// Answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    /// The lease runs anew.
    Renewed,
    /// The lease is longer than allowed.
    LeaseTooLarge,
    /// The transaction would live too long.
    ExecutionTimeExceeded,
    /// It is committed, or will be.
    Committed,
    /// It is aborted, or will be.
    Aborted,
}

/// Judges a ping with a new lease, for a transaction that is `age_ms` old and was made with
/// `first_lease_ms`. Short leases, also negative ones, are taken.
pub(crate) fn ping(
    state: TransactionState,
    lease_ms: i64,
    age_ms: i64,
    first_lease_ms: i64,
) -> Ping {
    match state {
        TransactionState::Committing | TransactionState::Committed => return Ping::Committed,
        TransactionState::Aborting | TransactionState::Aborted => return Ping::Aborted,
        TransactionState::Open => {}
    }
    if lease_ms > LEASE_MS_MAX {
        return Ping::LeaseTooLarge;
    }
    let execution_ms = first_lease_ms.saturating_mul(1000).min(EXECUTION_MS_MAX);
    if age_ms.saturating_add(lease_ms) > execution_ms {
        return Ping::ExecutionTimeExceeded;
    }
    Ping::Renewed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that an ending can be repeated but not turned into the other one.
    #[test]
    fn endings_are_final() {
        use TransactionState::*;
        assert_eq!((Open.commit(), Open.abort()), (Ending::Begin, Ending::Begin));
        for state in [Committing, Committed] {
            assert_eq!((state.commit(), state.abort()), (Ending::Repeated, Ending::Refused));
        }
        for state in [Aborting, Aborted] {
            assert_eq!((state.commit(), state.abort()), (Ending::Refused, Ending::Repeated));
        }
    }

    /// Shows the bounds of leases, both included.
    #[test]
    fn leases_are_bounded() {
        for (lease, is_valid) in [
            (9_999, false),
            (10_000, true),
            (90_000, true),
            (600_000, true),
            (600_001, false),
            (-1, false),
            (i64::MAX, false),
        ] {
            assert_eq!(is_valid_lease(lease), is_valid, "{lease}");
        }
    }

    /// Shows when a ping renews and when it tells what else is the case.
    #[test]
    fn pings_are_judged() {
        let open = TransactionState::Open;
        assert_eq!(ping(open, 90_000, 1, 90_000), Ping::Renewed);
        assert_eq!(ping(open, -5, 1, 90_000), Ping::Renewed);
        assert_eq!(ping(open, 600_001, 1, 90_000), Ping::LeaseTooLarge);
        assert_eq!(ping(open, i64::MAX, 1, 90_000), Ping::LeaseTooLarge);
        // 1000 leases of 10 s are less than a day.
        assert_eq!(ping(open, 10_000, 9_990_000, 10_000), Ping::Renewed);
        assert_eq!(ping(open, 10_000, 9_990_001, 10_000), Ping::ExecutionTimeExceeded);
        assert_eq!(ping(open, 0, EXECUTION_MS_MAX + 1, 600_000), Ping::ExecutionTimeExceeded);
        assert_eq!(ping(TransactionState::Committing, 1, 0, 10_000), Ping::Committed);
        assert_eq!(ping(TransactionState::Aborted, 1, 0, 10_000), Ping::Aborted);
    }
}
