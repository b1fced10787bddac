//! The one controller of a process: what it keeps in memory, and how streams are found.
//!
//! Owns the cache of stream records and each stream's locks. This process is the only writer of the
//! tables, so a cached record is the truth; it is read from its table when first asked for, and
//! forgotten when a write ends in doubt. Every change of a stream holds its gate for writing, so
//! that changes follow each other; making a transaction holds it for reading; looking does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use thalweg_client::ClientError;
use tokio::task::JoinSet;

use crate::error::ControlError;
use crate::layout;
use crate::lease::Leases;
use crate::live::LiveTransactions;
use crate::names::StreamPath;
use crate::record;
use crate::reserve::Reserve;
use crate::segments::{Outcome, SegmentStore};
use crate::stream::StreamRecord;
use crate::tables::{Tables, Version};

/// Stream records kept in memory before the idle ones are let go.
const STREAMS_CACHED_MAX: usize = 100_000;

/// Requests to stores under way at once for one change.
const REQUESTS_AT_ONCE: usize = 64;

/// Milliseconds since 1970, by the wall clock as it stood when this was first asked and the time
/// that passed since: a wall clock that is set ages nothing.
pub(crate) fn now_ms() -> i64 {
    static BEGIN: OnceLock<(SystemTime, std::time::Instant)> = OnceLock::new();
    let (wall, instant) = BEGIN.get_or_init(|| (SystemTime::now(), std::time::Instant::now()));
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default() + instant.elapsed();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What is known of a stream's record.
#[derive(Clone, Debug, Default)]
enum Known {
    /// Nothing: read it.
    #[default]
    Nothing,
    /// That there is none.
    Absent,
    /// All.
    Present(Arc<StreamRecord>, Version),
}

/// One stream, existing or not.
pub(crate) struct Stream {
    pub(crate) path: StreamPath,
    /// Held for writing by changes, for reading while a transaction is made.
    pub(crate) gate: tokio::sync::RwLock<()>,
    pub(crate) transactions: LiveTransactions,
    known: RwLock<Known>,
    /// Held while reading the record, so that it is read once.
    reading: tokio::sync::Mutex<()>,
}

impl Stream {
    fn known(&self) -> Known {
        self.known.read().expect("nobody panics with it").clone()
    }

    fn know(&self, known: Known) {
        *self.known.write().expect("nobody panics with it") = known;
    }
}

/// A scope's lock: held for reading while a stream is created in it, for writing while the scope
/// is.
pub(crate) type ScopeGate = Arc<tokio::sync::RwLock<()>>;

/// All of it; shared by reference count.
pub(crate) struct Controller<S> {
    pub(crate) store: Arc<S>,
    pub(crate) tables: Tables<S>,
    pub(crate) leases: Leases,
    pub(crate) transaction_ids: Reserve,
    streams: Mutex<HashMap<StreamPath, Arc<Stream>>>,
    scopes: Mutex<HashMap<String, ScopeGate>>,
}

impl<S: SegmentStore> Controller<S> {
    pub(crate) fn new(store: Arc<S>) -> Arc<Self> {
        Arc::new(Self {
            tables: Tables::new(store.clone()),
            store,
            leases: Leases::default(),
            transaction_ids: Reserve::default(),
            streams: Mutex::default(),
            scopes: Mutex::default(),
        })
    }

    /// The stream's entry, made when it is not there.
    pub(crate) fn stream(&self, path: &StreamPath) -> Arc<Stream> {
        let mut streams = self.streams.lock().expect("nobody panics with it");
        if let Some(stream) = streams.get(path) {
            return stream.clone();
        }
        if streams.len() >= STREAMS_CACHED_MAX {
            // What nobody holds and has no transaction is as good read anew.
            streams.retain(|_, it| Arc::strong_count(it) > 1 || !it.transactions.is_empty());
        }
        let stream = Arc::new(Stream {
            path: path.clone(),
            gate: tokio::sync::RwLock::default(),
            transactions: LiveTransactions::default(),
            known: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
        });
        streams.insert(path.clone(), stream.clone());
        stream
    }

    /// The scope's lock, made when it is not there.
    pub(crate) fn scope_gate(&self, scope: &str) -> ScopeGate {
        let mut scopes = self.scopes.lock().expect("nobody panics with it");
        if scopes.len() >= STREAMS_CACHED_MAX {
            scopes.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        scopes.entry(scope.to_owned()).or_default().clone()
    }

    /// The stream's record, whatever is being done to it.
    pub(crate) async fn record(
        &self,
        stream: &Stream,
    ) -> Result<Option<Arc<StreamRecord>>, ControlError> {
        Ok(self.versioned(stream).await?.map(|(record, _)| record))
    }

    /// The record of a stream that clients see.
    pub(crate) async fn visible(
        &self,
        path: &StreamPath,
    ) -> Result<Option<Arc<StreamRecord>>, ControlError> {
        let record = self.record(&self.stream(path)).await?;
        Ok(record.filter(|record| record.is_visible()))
    }

    async fn versioned(
        &self,
        stream: &Stream,
    ) -> Result<Option<(Arc<StreamRecord>, Version)>, ControlError> {
        let resolve = |known| match known {
            Known::Nothing => None,
            Known::Absent => Some(None),
            Known::Present(record, version) => Some(Some((record, version))),
        };
        if let Some(known) = resolve(stream.known()) {
            return Ok(known);
        }
        let _reading = stream.reading.lock().await;
        if let Some(known) = resolve(stream.known()) {
            return Ok(known);
        }
        let table = layout::streams(stream.path.scope());
        let Some(found) = self.tables.get(&table, stream.path.stream()).await? else {
            stream.know(Known::Absent);
            return Ok(None);
        };
        let record = Arc::new(record::decode_stream(&found.value)?);
        stream.know(Known::Present(record.clone(), found.version));
        Ok(Some((record, found.version)))
    }

    /// Replaces the stream's record by another, or removes it. The caller holds the gate for
    /// writing.
    pub(crate) async fn write(
        &self,
        stream: &Stream,
        record: Option<StreamRecord>,
    ) -> Result<(), ControlError> {
        let expected =
            self.versioned(stream).await?.map_or(Version::ABSENT, |(_, version)| version);
        let table = layout::streams(stream.path.scope());
        let name = stream.path.stream();
        let written = match &record {
            Some(record) => {
                let value = record::encode_stream(record);
                self.tables.put(&table, name, value, expected).await.map(Some)
            }
            None => self.tables.remove(&table, name, expected).await.map(|()| None),
        };
        match written {
            Ok(version) => {
                stream.know(match (record, version) {
                    (Some(record), Some(version)) => Known::Present(Arc::new(record), version),
                    _ => Known::Absent,
                });
                Ok(())
            }
            Err(error) => {
                stream.know(Known::Nothing);
                Err(error)
            }
        }
    }

    /// Does the same to many segments, several at a time. Ends with the first error, after which
    /// some may be done.
    pub(crate) async fn each<T, F>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl Fn(Arc<S>, T) -> F,
    ) -> Outcome<()>
    where
        F: Future<Output = Outcome<()>> + Send + 'static,
    {
        let mut items = items.into_iter().peekable();
        let Some(first) = items.next() else { return Ok(()) };
        if items.peek().is_none() {
            // Most streams have one segment, and a task is not needed for it.
            return work(self.store.clone(), first).await;
        }
        let mut running = JoinSet::new();
        running.spawn(work(self.store.clone(), first));
        loop {
            while running.len() < REQUESTS_AT_ONCE {
                let Some(item) = items.next() else { break };
                running.spawn(work(self.store.clone(), item));
            }
            match running.join_next().await {
                None => return Ok(()),
                Some(Ok(outcome)) => outcome?,
                // The runtime is going down.
                Some(Err(_)) => return Err(ClientError::Closed),
            }
        }
    }
}
