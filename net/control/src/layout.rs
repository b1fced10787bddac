//! Which tables there are and under which keys records lie. Pure.
//!
//! | table | key | record |
//! |---|---|---|
//! | `_system/_tables/scopes` | scope | `StoredScope` |
//! | `_system/_tables/counts` | `segments/<scope>/<stream>` | next number of a deleted stream |
//! | `_system/_tables/counts` | `transactions` | first transaction id not reserved |
//! | `_system/_tables/unfinished-<n>` | `change/<scope>/<stream>` | has a change under way |
//! | `_system/_tables/unfinished-<n>` | `transaction/<scope>/<stream>/<id>` | `StoredTransaction` |
//! | `_system/_tables/completed-<n>` | `<scope>/<stream>/<id>` | `StoredOutcome` |
//! | `<scope>/_tables/streams` | stream | the stream |
//!
//! What a restart must look through is only scopes and `unfinished`. Buckets spread the load of
//! transactions over shards; a stream's bucket never changes.

use crate::id::TransactionId;
use crate::names::StreamPath;

/// Number of buckets. Part of what is stored: never change it.
pub(crate) const BUCKETS: u32 = 16;

/// Scopes.
pub(crate) const SCOPES: &str = "_system/_tables/scopes";

/// Counts that outlive what they count.
pub(crate) const COUNTS: &str = "_system/_tables/counts";

/// Key in [`COUNTS`] of the transaction ids.
pub(crate) const TRANSACTION_COUNT: &str = "transactions";

/// The streams of a scope.
pub(crate) fn streams(scope: &str) -> String {
    format!("{scope}/_tables/streams")
}

/// Key in [`COUNTS`] of the segment numbers of a stream.
pub(crate) fn segment_count_key(path: &StreamPath) -> String {
    format!("segments/{path}")
}

/// Bucket of a stream: FNV-1a of its path.
fn bucket(path: &StreamPath) -> u32 {
    let hash = path.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The upper half is the better mixed one.
    u32::try_from(hash >> 32).unwrap_or(0) % BUCKETS
}

fn unfinished_table(bucket: u32) -> String {
    format!("_system/_tables/unfinished-{bucket}")
}

fn completed_table(bucket: u32) -> String {
    format!("_system/_tables/completed-{bucket}")
}

/// Table of the changes and transactions under way of a stream.
pub(crate) fn unfinished(path: &StreamPath) -> String {
    unfinished_table(bucket(path))
}

/// Table of the completed transactions of a stream.
pub(crate) fn completed(path: &StreamPath) -> String {
    completed_table(bucket(path))
}

/// All tables of changes and transactions under way.
pub(crate) fn all_unfinished() -> impl Iterator<Item = String> {
    (0..BUCKETS).map(unfinished_table)
}

/// All tables of completed transactions.
pub(crate) fn all_completed() -> impl Iterator<Item = String> {
    (0..BUCKETS).map(completed_table)
}

/// Key of a change under way.
pub(crate) fn change_key(path: &StreamPath) -> String {
    format!("change/{path}")
}

/// Key of a transaction under way.
pub(crate) fn transaction_key(path: &StreamPath, id: TransactionId) -> String {
    format!("transaction/{path}/{id}")
}

/// Key of a completed transaction.
pub(crate) fn completed_key(path: &StreamPath, id: TransactionId) -> String {
    format!("{path}/{id}")
}

/// What a key in an unfinished table is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// A change of a stream.
    Change(StreamPath),
    /// A transaction.
    Transaction(StreamPath, TransactionId),
}

/// Reads a key of an unfinished table.
pub(crate) fn parse_unfinished(key: &str) -> Option<Unfinished> {
    match key.split_once('/')? {
        ("change", path) => StreamPath::parse(path).map(Unfinished::Change),
        ("transaction", rest) => {
            let (path, id) = parse_completed(rest)?;
            Some(Unfinished::Transaction(path, id))
        }
        _ => None,
    }
}

/// Reads a key of a completed table.
pub(crate) fn parse_completed(key: &str) -> Option<(StreamPath, TransactionId)> {
    let (path, id) = key.rsplit_once('/')?;
    Some((StreamPath::parse(path)?, TransactionId::from_hex(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StreamEpoch;

    /// Shows that keys are read as written.
    #[test]
    fn keys_are_read_as_written() {
        let path = StreamPath::new("scope", "stream");
        let id = TransactionId::new(StreamEpoch(3), 99);
        assert_eq!(parse_unfinished(&change_key(&path)), Some(Unfinished::Change(path.clone())));
        assert_eq!(
            parse_unfinished(&transaction_key(&path, id)),
            Some(Unfinished::Transaction(path.clone(), id))
        );
        assert_eq!(parse_completed(&completed_key(&path, id)), Some((path, id)));
        assert_eq!(parse_unfinished("other/scope/stream"), None);
    }

    /// Shows that buckets are where they were when the first of them was written.
    #[test]
    fn buckets_never_move() {
        let buckets: Vec<u32> = ["a", "b", "stream", "0123456789"]
            .iter()
            .map(|stream| bucket(&StreamPath::new("scope", stream)))
            .collect();
        assert_eq!(buckets, [1, 1, 9, 6]);
    }
}
