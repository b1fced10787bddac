//! A blocking client of the controller, for lanes: one call at a time, over gRPC.
//!
//! As [`Wire`](crate::wire::Wire) it notices soon that its lane is to stop. A call that fails for
//! any reason of the connection, or because the server starts or ends, is [`Trouble::Closed`]:
//! nobody knows whether it was carried out. What the controller answers is data to be judged.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use thalweg_control::proto::controller_service_client::ControllerServiceClient;
use thalweg_control::proto::{
    CreateTxnRequest, PingTxnRequest, ScalingPolicy, ScopeInfo, SegmentRange, StreamConfig,
    StreamInfo, TxnId, TxnRequest, create_scope_status, create_stream_status, delete_stream_status,
    ping_txn_status, txn_state, txn_status, update_stream_status,
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::claim::{ensure, wrong};
use crate::store::PATIENCE;
use crate::wire::{StopSwitch, Trouble};

pub(crate) use ping_txn_status::Status as PingOutcome;
pub(crate) use txn_state::State;
pub(crate) use txn_status::Status as EndOutcome;

/// Longest time between two looks at the stop switch.
const SLICE: Duration = Duration::from_millis(20);
/// The longest lease that the controller gives, in milliseconds.
const LEASE_MS: i64 = 600_000;

/// A connection to the controller, made when it is needed.
pub(crate) struct Controller {
    runtime: Runtime,
    client: ControllerServiceClient<Channel>,
    stop: StopSwitch,
}

/// A stream's name.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) scope: String,
    pub(crate) name: String,
}

impl Stream {
    fn info(&self) -> StreamInfo {
        StreamInfo { scope: self.scope.clone(), stream: self.name.clone(), ..Default::default() }
    }

    fn transaction(&self, id: TxnId) -> TxnRequest {
        TxnRequest { stream_info: Some(self.info()), txn_id: Some(id), ..Default::default() }
    }

    /// The name of a segment, `number` being the controller's id of it.
    pub(crate) fn segment(&self, number: i64) -> String {
        let (epoch, index) = (number >> 32, number & 0xFFFF_FFFF);
        format!("{}/{}/{index}.#epoch.{epoch}", self.scope, self.name)
    }
}

/// The name under which a transaction writes aside what is for `segment`.
pub(crate) fn aside(segment: &str, id: TxnId) -> String {
    format!("{segment}#transaction.{:016x}{:016x}", id.high_bits, id.low_bits)
}

impl Controller {
    /// Connects with the first call.
    ///
    /// # Errors
    /// [`Trouble::Wrong`] when this process cannot have a runtime for it.
    pub(crate) fn new(port: u16, stop: &StopSwitch) -> Result<Self, Trouble> {
        let cannot = |error: &dyn std::fmt::Display| {
            Trouble::wrong(format!("no client of the controller can be made: {error}"))
        };
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| cannot(&error))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| cannot(&error))?;
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        let client = ControllerServiceClient::new(channel);
        Ok(Self { runtime, client, stop: stop.clone() })
    }

    /// One call and its answer.
    fn call<T, F>(
        &mut self,
        what: &str,
        make: impl FnOnce(ControllerServiceClient<Channel>) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let stop = &self.stop;
        let call = make(self.client.clone());
        let outcome = self.runtime.block_on(async {
            let mut call = std::pin::pin!(tokio::time::timeout(PATIENCE, call));
            loop {
                if stop.is_stopped() {
                    return Err(Trouble::Stopped);
                }
                if let Ok(outcome) = tokio::time::timeout(SLICE, &mut call).await {
                    return outcome.map_err(|_| Trouble::Silent(PATIENCE));
                }
            }
        })?;
        match outcome {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(trouble(what, &status)),
        }
    }

    /// Makes a scope, or finds it made.
    pub(crate) fn create_scope(&mut self, scope: &str) -> Result<(), Trouble> {
        use create_scope_status::Status as Told;
        let request = ScopeInfo { scope: scope.to_owned() };
        let told = self
            .call("createScope", |mut client| async move { client.create_scope(request).await })?
            .status();
        ensure!(matches!(told, Told::Success | Told::ScopeExists), "{told:?} to createScope");
        Ok(())
    }

    /// Makes a stream of so many segments, or finds it made; gives the names of its segments.
    pub(crate) fn create_stream(
        &mut self,
        stream: &Stream,
        segments: i32,
    ) -> Result<Vec<String>, Trouble> {
        use create_stream_status::Status as Told;
        let policy = ScalingPolicy { min_num_segments: segments, ..Default::default() };
        let request = StreamConfig {
            stream_info: Some(stream.info()),
            scaling_policy: Some(policy),
            ..Default::default()
        };
        let told = self
            .call("createStream", |mut client| async move { client.create_stream(request).await })?
            .status();
        let is_there = matches!(told, Told::Success | Told::StreamExists);
        ensure!(is_there, "{told:?} to createStream {stream:?}");
        let request = stream.info();
        let ranges = self.call("getCurrentSegments", |mut client| async move {
            client.get_current_segments(request).await
        })?;
        let names = names(stream, &ranges.segment_ranges);
        ensure!(names.len() == segments.unsigned_abs() as usize, "{stream:?} has {names:?}");
        Ok(names)
    }

    /// Begins a transaction with the longest lease.
    pub(crate) fn begin(&mut self, stream: &Stream) -> Result<(TxnId, Vec<String>), Trouble> {
        let request = CreateTxnRequest {
            stream_info: Some(stream.info()),
            lease: LEASE_MS,
            ..Default::default()
        };
        let told = self.call("createTransaction", |mut client| async move {
            client.create_transaction(request).await
        })?;
        let Some(id) = told.txn_id else { wrong!("{told:?} to createTransaction") };
        Ok((id, names(stream, &told.active_segments)))
    }

    /// Asks for the commit of a transaction.
    pub(crate) fn commit(&mut self, stream: &Stream, id: TxnId) -> Result<EndOutcome, Trouble> {
        let request = stream.transaction(id);
        let told = self.call("commitTransaction", |mut client| async move {
            client.commit_transaction(request).await
        })?;
        Ok(told.status())
    }

    /// Asks for the end of a transaction without a trace.
    pub(crate) fn abort(&mut self, stream: &Stream, id: TxnId) -> Result<EndOutcome, Trouble> {
        let request = stream.transaction(id);
        let told = self.call("abortTransaction", |mut client| async move {
            client.abort_transaction(request).await
        })?;
        Ok(told.status())
    }

    /// Lets the lease of a transaction end so many milliseconds from now.
    pub(crate) fn ping(
        &mut self,
        stream: &Stream,
        id: TxnId,
        lease: i64,
    ) -> Result<PingOutcome, Trouble> {
        let request = PingTxnRequest { stream_info: Some(stream.info()), txn_id: Some(id), lease };
        let told = self.call("pingTransaction", |mut client| async move {
            client.ping_transaction(request).await
        })?;
        Ok(told.status())
    }

    /// Where a transaction stands.
    pub(crate) fn state(&mut self, stream: &Stream, id: TxnId) -> Result<State, Trouble> {
        let request = stream.transaction(id);
        let told = self.call("checkTransactionState", |mut client| async move {
            client.check_transaction_state(request).await
        })?;
        Ok(told.state())
    }

    /// Seals a stream and deletes it; its open transactions end with it.
    pub(crate) fn remove(&mut self, stream: &Stream) -> Result<(), Trouble> {
        let request = stream.info();
        let sealed = self
            .call("sealStream", |mut client| async move { client.seal_stream(request).await })?
            .status();
        let is_sealed = sealed == update_stream_status::Status::Success;
        ensure!(is_sealed, "{sealed:?} to sealStream {stream:?}");
        let request = stream.info();
        let deleted = self
            .call("deleteStream", |mut client| async move { client.delete_stream(request).await })?
            .status();
        let is_deleted = deleted == delete_stream_status::Status::Success;
        ensure!(is_deleted, "{deleted:?} to deleteStream {stream:?}");
        Ok(())
    }
}

fn names(stream: &Stream, ranges: &[SegmentRange]) -> Vec<String> {
    let ids = ranges.iter().filter_map(|range| range.segment_id.as_ref());
    ids.map(|id| stream.segment(id.segment_id)).collect()
}

/// What a call that was not answered in the terms of the protocol means for a lane.
fn trouble(what: &str, status: &Status) -> Trouble {
    match status.code() {
        // Definite statements, which nothing here calls for.
        Code::NotFound
        | Code::AlreadyExists
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => Trouble::wrong(format!("{status:?} to {what}")),
        _ => Trouble::Closed,
    }
}
