//! The calls of the protocol, one function each: reads the message, asks the controller, writes the
//! answer.
//!
//! Whatever changes something runs in a task of its own, so that a client that hangs up in the
//! middle does not stop it there.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::answer::{self, not_there_yet, ranges, segment_id, stream_info};
use crate::commit::{CreateRefusal, End, EndOutcome};
use crate::controller::Controller;
use crate::cut::{self, CutError, StreamCut};
use crate::epoch::History;
use crate::error::ControlError;
use crate::id::{StreamEpoch, StreamSegmentId, TransactionId};
use crate::live::RECENT_MAX;
use crate::names::{StreamPath, is_valid_name};
use crate::proto::controller_service_server::ControllerService;
use crate::proto::*;
use crate::segments::{Locate, SegmentStore};
use crate::stream::{self, ConfigError, StreamRecord, StreamRefusal};
use crate::transaction::{Ping, is_valid_lease};
use crate::workflow::ChangeOutcome;

type Answer<T> = Result<Response<T>, Status>;

/// The service over a controller.
pub(crate) struct Service<S> {
    controller: Arc<Controller<S>>,
    locate: Arc<dyn Locate>,
    /// Where clients reach this controller.
    endpoint: NodeUri,
}

impl<S: SegmentStore> Service<S> {
    pub(crate) fn new(
        controller: Arc<Controller<S>>,
        locate: Arc<dyn Locate>,
        endpoint: NodeUri,
    ) -> Self {
        Self { controller, locate, endpoint }
    }

    /// The record of a stream, or the status that it is not found.
    async fn record(&self, path: &StreamPath) -> Result<Arc<StreamRecord>, Status> {
        let record = self.controller.visible(path).await?;
        record.ok_or_else(|| Status::not_found(format!("stream {path} does not exist")))
    }

    /// Carries out a change to its end, also when the client hangs up.
    async fn detached<T, F>(&self, work: impl FnOnce(Arc<Controller<S>>) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ControlError>> + Send + 'static,
    {
        let done = tokio::spawn(work(self.controller.clone())).await;
        Ok(done.unwrap_or(Err(ControlError::ShuttingDown))?)
    }

    async fn successors(&self, request: Request<SegmentId>) -> Answer<SuccessorResponse> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let record = self.record(&path).await?;
        let successors = StreamSegmentId::from_wire(request.segment_id)
            .map(|id| record.history.successors(id))
            .unwrap_or_default();
        Ok(Response::new(SuccessorResponse {
            segments: answer::successors(&path, &successors),
            delegation_token: String::new(),
        }))
    }

    async fn end(
        &self,
        info: Option<StreamInfo>,
        id: Option<TxnId>,
        end: End,
    ) -> Answer<TxnStatus> {
        use txn_status::Status as Outcome;
        let (path, id) = (path_of(info)?, transaction_of(id)?);
        let is_commit = matches!(end, End::Commit { .. });
        let ended = self
            .detached(|controller| async move { controller.end_transaction(&path, id, end).await });
        let status = match ended.await? {
            EndOutcome::Accepted => Outcome::Success,
            // One client would ask again and again after a failure, so that a commit that comes too
            // late gets the final answer as well.
            EndOutcome::NoTransaction => Outcome::TransactionNotFound,
            EndOutcome::Refused if is_commit => Outcome::TransactionNotFound,
            EndOutcome::NoStream => Outcome::StreamNotFound,
            EndOutcome::Refused => Outcome::Failure,
        };
        Ok(Response::new(TxnStatus { status: status.into() }))
    }

    async fn streams(
        &self,
        scope: Option<ScopeInfo>,
        tag: Option<String>,
        token: Option<ContinuationToken>,
    ) -> Answer<StreamsInScopeResponse> {
        use streams_in_scope_response::Status as Outcome;
        let scope = scope.unwrap_or_default().scope;
        let token = token.unwrap_or_default().token;
        let page = self.controller.list_streams(&scope, tag.as_deref(), &token).await?;
        let status = if page.is_some() { Outcome::Success } else { Outcome::ScopeNotFound };
        let (names, token) = page.map(|page| (page.names, page.token)).unwrap_or_default();
        let streams = names.iter().map(|name| stream_info(&StreamPath::new(&scope, name)));
        Ok(Response::new(StreamsInScopeResponse {
            streams: streams.collect(),
            continuation_token: Some(ContinuationToken { token }),
            status: status.into(),
        }))
    }
}

fn path_of(info: Option<StreamInfo>) -> Result<StreamPath, Status> {
    let info = info.ok_or_else(|| Status::invalid_argument("the message names no stream"))?;
    Ok(StreamPath::new(&info.scope, &info.stream))
}

fn transaction_of(id: Option<TxnId>) -> Result<TransactionId, Status> {
    let id = id.ok_or_else(|| Status::invalid_argument("the message names no transaction"))?;
    Ok(TransactionId::from_halves(id.high_bits, id.low_bits))
}

fn cut_of(
    history: &History,
    cut: &std::collections::BTreeMap<i64, i64>,
) -> Result<StreamCut, Status> {
    let cut = cut::from_wire(cut)
        .ok_or_else(|| Status::invalid_argument("a stream cut with an impossible segment id"))?;
    cut::check(history, &cut).map_err(invalid)?;
    Ok(cut)
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl<S: SegmentStore> ControllerService for Service<S> {
    async fn get_controller_server_list(
        &self,
        _: Request<ServerRequest>,
    ) -> Answer<ServerResponse> {
        Ok(Response::new(ServerResponse { node_uri: vec![self.endpoint.clone()] }))
    }

    async fn create_scope(&self, request: Request<ScopeInfo>) -> Answer<CreateScopeStatus> {
        use create_scope_status::Status as Outcome;
        let scope = request.into_inner().scope;
        let status = if is_valid_name(&scope) {
            let created =
                self.detached(|controller| async move { controller.create_scope(&scope).await });
            match created.await? {
                ChangeOutcome::Done => Outcome::Success,
                _ => Outcome::ScopeExists,
            }
        } else {
            Outcome::InvalidScopeName
        };
        Ok(Response::new(CreateScopeStatus { status: status.into() }))
    }

    async fn delete_scope(&self, request: Request<ScopeInfo>) -> Answer<DeleteScopeStatus> {
        use delete_scope_status::Status as Outcome;
        let scope = request.into_inner().scope;
        let deleted =
            self.detached(|controller| async move { controller.delete_scope(&scope).await });
        let status = match deleted.await? {
            ChangeOutcome::Done => Outcome::Success,
            ChangeOutcome::NotEmpty => Outcome::ScopeNotEmpty,
            _ => Outcome::ScopeNotFound,
        };
        Ok(Response::new(DeleteScopeStatus { status: status.into() }))
    }

    async fn list_scopes(&self, request: Request<ScopesRequest>) -> Answer<ScopesResponse> {
        let token = request.into_inner().continuation_token.unwrap_or_default().token;
        let page = self.controller.list_scopes(&token).await?;
        Ok(Response::new(ScopesResponse {
            scopes: page.names,
            continuation_token: Some(ContinuationToken { token: page.token }),
        }))
    }

    async fn check_scope_exists(&self, request: Request<ScopeInfo>) -> Answer<ExistsResponse> {
        let exists = self.controller.scope_exists(&request.into_inner().scope).await?;
        Ok(Response::new(ExistsResponse { exists }))
    }

    async fn list_streams_in_scope(
        &self,
        request: Request<StreamsInScopeRequest>,
    ) -> Answer<StreamsInScopeResponse> {
        let request = request.into_inner();
        self.streams(request.scope, None, request.continuation_token).await
    }

    async fn list_streams_in_scope_for_tag(
        &self,
        request: Request<StreamsInScopeWithTagRequest>,
    ) -> Answer<StreamsInScopeResponse> {
        let request = request.into_inner();
        if request.tag.is_empty() {
            return Err(Status::invalid_argument("an empty tag"));
        }
        self.streams(request.scope, Some(request.tag), request.continuation_token).await
    }

    async fn create_stream(&self, request: Request<StreamConfig>) -> Answer<CreateStreamStatus> {
        use create_stream_status::Status as Outcome;
        let config = request.into_inner();
        let path = path_of(config.stream_info.clone())?;
        let answer = |status: Outcome| Response::new(CreateStreamStatus { status: status.into() });
        if !is_valid_name(path.stream()) {
            return Ok(answer(Outcome::InvalidStreamName));
        }
        let config = match stream::normalize(config) {
            Ok(config) => config,
            Err(ConfigError::NoSegments) => return Ok(answer(Outcome::Failure)),
            Err(error) => return Err(invalid(error)),
        };
        let created = self
            .detached(|controller| async move { controller.create_stream(&path, config).await });
        Ok(answer(match created.await? {
            ChangeOutcome::Done => Outcome::Success,
            ChangeOutcome::ScopeNotFound => Outcome::ScopeNotFound,
            _ => Outcome::StreamExists,
        }))
    }

    async fn update_stream(&self, request: Request<StreamConfig>) -> Answer<UpdateStreamStatus> {
        let config = request.into_inner();
        let path = path_of(config.stream_info.clone())?;
        let config = stream::normalize(config).map_err(invalid)?;
        let updated = self
            .detached(|controller| async move { controller.update_stream(&path, config).await });
        Ok(Response::new(answer::update_status(updated.await?)?))
    }

    async fn truncate_stream(
        &self,
        request: Request<crate::proto::StreamCut>,
    ) -> Answer<UpdateStreamStatus> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let Some(cut) = cut::from_wire(&request.cut) else {
            let record = self.controller.visible(&path).await?;
            let outcome = match record.as_deref() {
                None => ChangeOutcome::NotFound,
                Some(record) if record.is_sealed => ChangeOutcome::Refused(StreamRefusal::Sealed),
                Some(_) => ChangeOutcome::Refused(CutError::Inconsistent.into()),
            };
            return Ok(Response::new(answer::update_status(outcome)?));
        };
        let truncated =
            self.detached(|controller| async move { controller.truncate_stream(&path, cut).await });
        Ok(Response::new(answer::update_status(truncated.await?)?))
    }

    async fn seal_stream(&self, request: Request<StreamInfo>) -> Answer<UpdateStreamStatus> {
        let path = path_of(Some(request.into_inner()))?;
        let sealed = self.detached(|controller| async move { controller.seal_stream(&path).await });
        Ok(Response::new(answer::update_status(sealed.await?)?))
    }

    async fn delete_stream(&self, request: Request<StreamInfo>) -> Answer<DeleteStreamStatus> {
        use delete_stream_status::Status as Outcome;
        let path = path_of(Some(request.into_inner()))?;
        let deleted =
            self.detached(|controller| async move { controller.delete_stream(&path).await });
        let status = match deleted.await? {
            ChangeOutcome::Done => Outcome::Success,
            ChangeOutcome::NotFound => Outcome::StreamNotFound,
            ChangeOutcome::Refused(StreamRefusal::NotSealed) => Outcome::StreamNotSealed,
            _ => Outcome::Failure,
        };
        Ok(Response::new(DeleteStreamStatus { status: status.into() }))
    }

    async fn check_stream_exists(&self, request: Request<StreamInfo>) -> Answer<ExistsResponse> {
        let path = path_of(Some(request.into_inner()))?;
        let exists = self.controller.visible(&path).await?.is_some();
        Ok(Response::new(ExistsResponse { exists }))
    }

    async fn get_stream_configuration(&self, request: Request<StreamInfo>) -> Answer<StreamConfig> {
        let path = path_of(Some(request.into_inner()))?;
        let record = self.record(&path).await?;
        let mut config = record.config.clone();
        config.stream_info = Some(stream_info(&path));
        config.tags.get_or_insert_default();
        Ok(Response::new(config))
    }

    async fn get_current_segments(&self, request: Request<StreamInfo>) -> Answer<SegmentRanges> {
        let path = path_of(Some(request.into_inner()))?;
        let record = self.record(&path).await?;
        let active: &[_] = if record.is_sealed { &[] } else { &record.history.active().segments };
        Ok(Response::new(SegmentRanges {
            segment_ranges: ranges(&path, active),
            delegation_token: String::new(),
        }))
    }

    async fn get_epoch_segments(
        &self,
        request: Request<GetEpochSegmentsRequest>,
    ) -> Answer<SegmentRanges> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let record = self.record(&path).await?;
        let epoch = u32::try_from(request.epoch).ok().map(StreamEpoch);
        let found = epoch
            .and_then(|epoch| record.history.epoch(epoch))
            .ok_or_else(|| Status::not_found(format!("stream {path} has no such epoch")))?;
        Ok(Response::new(SegmentRanges {
            segment_ranges: ranges(&path, &found.segments),
            delegation_token: String::new(),
        }))
    }

    async fn get_segments(&self, request: Request<GetSegmentsRequest>) -> Answer<SegmentsAtTime> {
        let path = path_of(request.into_inner().stream_info)?;
        let record = self.record(&path).await?;
        let head = record.head();
        let segments = head.iter().map(|(id, offset)| segments_at_time::SegmentLocation {
            segment_id: Some(segment_id(&path, *id)),
            offset: *offset,
        });
        Ok(Response::new(SegmentsAtTime {
            segments: segments.collect(),
            delegation_token: String::new(),
        }))
    }

    async fn get_segments_immediatly_following(
        &self,
        request: Request<SegmentId>,
    ) -> Answer<SuccessorResponse> {
        self.successors(request).await
    }

    async fn get_segments_immediately_following(
        &self,
        request: Request<SegmentId>,
    ) -> Answer<SuccessorResponse> {
        self.successors(request).await
    }

    async fn get_segments_between(
        &self,
        request: Request<StreamCutRange>,
    ) -> Answer<StreamCutRangeResponse> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let record = self.record(&path).await?;
        if request.from.is_empty() && request.to.is_empty() {
            return Err(Status::invalid_argument("both stream cuts are empty"));
        }
        let history = &record.history;
        let from = match request.from.is_empty() {
            true => record.head(),
            false => cut_of(history, &request.from)?,
        };
        let to = match request.to.is_empty() {
            true => cut::tail(history),
            false => cut_of(history, &request.to)?,
        };
        let between = cut::between(history, &from, &to).map_err(invalid)?;
        Ok(Response::new(StreamCutRangeResponse {
            segments: between.into_iter().map(|id| segment_id(&path, id)).collect(),
            delegation_token: String::new(),
        }))
    }

    async fn get_uri(&self, request: Request<SegmentId>) -> Answer<NodeUri> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let id = StreamSegmentId::from_wire(request.segment_id)
            .ok_or_else(|| Status::invalid_argument("an impossible segment id"))?;
        let (endpoint, port) = self.locate.locate(&path.segment(id));
        Ok(Response::new(NodeUri { endpoint, port: port.into() }))
    }

    async fn is_segment_valid(
        &self,
        request: Request<SegmentId>,
    ) -> Answer<SegmentValidityResponse> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let record = self.record(&path).await?;
        let mut active = record.history.active().segments.iter();
        let is_active = active.any(|segment| segment.id.to_wire() == request.segment_id);
        Ok(Response::new(SegmentValidityResponse { response: is_active && !record.is_sealed }))
    }

    async fn is_stream_cut_valid(
        &self,
        request: Request<crate::proto::StreamCut>,
    ) -> Answer<StreamCutValidityResponse> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let record = self.record(&path).await?;
        let cut = cut::from_wire(&request.cut)
            .ok_or_else(|| Status::invalid_argument("an impossible segment id"))?;
        let response = match cut::check(&record.history, &cut) {
            Ok(()) => true,
            Err(CutError::Inconsistent | CutError::OutOfOrder) => false,
            Err(error @ (CutError::Empty | CutError::UnknownSegment(_))) => {
                return Err(invalid(error));
            }
        };
        Ok(Response::new(StreamCutValidityResponse { response }))
    }

    async fn create_transaction(
        &self,
        request: Request<CreateTxnRequest>,
    ) -> Answer<CreateTxnResponse> {
        let request = request.into_inner();
        let path = path_of(request.stream_info)?;
        let lease_ms = request.lease;
        if !is_valid_lease(lease_ms) {
            return Err(Status::invalid_argument(format!(
                "a lease of {lease_ms} ms is not between {} and {} ms",
                crate::transaction::LEASE_MS_MIN,
                crate::transaction::LEASE_MS_MAX
            )));
        }
        let name = path.clone();
        let made = self.detached(|controller| async move {
            controller.create_transaction(&name, lease_ms).await
        });
        let (id, segments) = made.await?.map_err(|refusal| match refusal {
            CreateRefusal::NoStream => Status::not_found(format!("stream {path} does not exist")),
            CreateRefusal::Sealed => {
                Status::permission_denied(format!("stream {path} takes no more transactions"))
            }
            CreateRefusal::TooMany => {
                Status::resource_exhausted(format!("stream {path} has too many transactions"))
            }
        })?;
        Ok(Response::new(CreateTxnResponse {
            txn_id: Some(answer::transaction_id(id)),
            active_segments: ranges(&path, &segments),
            delegation_token: String::new(),
        }))
    }

    async fn commit_transaction(&self, request: Request<TxnRequest>) -> Answer<TxnStatus> {
        let request = request.into_inner();
        let end = End::Commit { writer: request.writer_id, timestamp: request.timestamp };
        self.end(request.stream_info, request.txn_id, end).await
    }

    async fn abort_transaction(&self, request: Request<TxnRequest>) -> Answer<TxnStatus> {
        let request = request.into_inner();
        self.end(request.stream_info, request.txn_id, End::Abort).await
    }

    async fn ping_transaction(&self, request: Request<PingTxnRequest>) -> Answer<PingTxnStatus> {
        use ping_txn_status::Status as Outcome;
        let request = request.into_inner();
        let (path, id) = (path_of(request.stream_info)?, transaction_of(request.txn_id)?);
        let status = match self.controller.ping_transaction(&path, id, request.lease).await? {
            Some(Ping::Renewed) => Outcome::Ok,
            Some(Ping::LeaseTooLarge) => Outcome::LeaseTooLarge,
            Some(Ping::ExecutionTimeExceeded) => Outcome::MaxExecutionTimeExceeded,
            Some(Ping::Committed) => Outcome::Committed,
            Some(Ping::Aborted) => Outcome::Aborted,
            None => Outcome::Unknown,
        };
        Ok(Response::new(PingTxnStatus { status: status.into() }))
    }

    async fn check_transaction_state(&self, request: Request<TxnRequest>) -> Answer<TxnState> {
        let request = request.into_inner();
        let (path, id) = (path_of(request.stream_info)?, transaction_of(request.txn_id)?);
        let state = self.controller.transaction_state(&path, id).await?;
        Ok(Response::new(TxnState { state: answer::transaction_state(state).into() }))
    }

    async fn list_completed_transactions(
        &self,
        request: Request<ListCompletedTxnRequest>,
    ) -> Answer<ListCompletedTxnResponse> {
        use txn_response::Status as Outcome;
        let path = path_of(request.into_inner().stream_info)?;
        let completed = self.controller.completed_transactions(&path, RECENT_MAX).await?;
        let response = completed.into_iter().map(|(id, is_committed)| TxnResponse {
            txn_id: Some(answer::transaction_id(id)),
            status: if is_committed { Outcome::Committed } else { Outcome::Aborted }.into(),
        });
        Ok(Response::new(ListCompletedTxnResponse { response: response.collect() }))
    }

    async fn get_delegation_token(&self, _: Request<StreamInfo>) -> Answer<DelegationToken> {
        // Authorization is off; one client asks all the same and must be told the empty token.
        Ok(Response::new(DelegationToken::default()))
    }

    async fn scale(&self, _: Request<ScaleRequest>) -> Answer<ScaleResponse> {
        Err(not_there_yet("scaling"))
    }

    async fn check_scale(&self, _: Request<ScaleStatusRequest>) -> Answer<ScaleStatusResponse> {
        Err(not_there_yet("scaling"))
    }

    async fn delete_scope_recursive(&self, _: Request<ScopeInfo>) -> Answer<DeleteScopeStatus> {
        Err(not_there_yet("deleting a scope with all its streams"))
    }

    async fn remove_writer(&self, _: Request<RemoveWriterRequest>) -> Answer<RemoveWriterResponse> {
        Err(not_there_yet("keeping the times of writers"))
    }

    async fn note_timestamp_from_writer(
        &self,
        _: Request<TimestampFromWriter>,
    ) -> Answer<TimestampResponse> {
        Err(not_there_yet("keeping the times of writers"))
    }

    async fn create_key_value_table(
        &self,
        _: Request<KeyValueTableConfig>,
    ) -> Answer<CreateKeyValueTableStatus> {
        Err(not_there_yet("keeping key-value tables in the controller"))
    }

    async fn get_current_segments_key_value_table(
        &self,
        _: Request<KeyValueTableInfo>,
    ) -> Answer<SegmentRanges> {
        Err(not_there_yet("keeping key-value tables in the controller"))
    }

    async fn list_key_value_tables_in_scope(
        &self,
        _: Request<KvTablesInScopeRequest>,
    ) -> Answer<KvTablesInScopeResponse> {
        Err(not_there_yet("keeping key-value tables in the controller"))
    }

    async fn get_key_value_table_configuration(
        &self,
        _: Request<KeyValueTableInfo>,
    ) -> Answer<KeyValueTableConfigResponse> {
        Err(not_there_yet("keeping key-value tables in the controller"))
    }

    async fn delete_key_value_table(
        &self,
        _: Request<KeyValueTableInfo>,
    ) -> Answer<DeleteKvTableStatus> {
        Err(not_there_yet("keeping key-value tables in the controller"))
    }

    async fn list_subscribers(&self, _: Request<StreamInfo>) -> Answer<SubscribersResponse> {
        Err(not_there_yet("retention by consumption"))
    }

    async fn update_subscriber_stream_cut(
        &self,
        _: Request<SubscriberStreamCut>,
    ) -> Answer<UpdateSubscriberStatus> {
        Err(not_there_yet("retention by consumption"))
    }

    async fn create_reader_group(
        &self,
        _: Request<ReaderGroupConfiguration>,
    ) -> Answer<CreateReaderGroupResponse> {
        Err(not_there_yet("keeping reader groups in the controller"))
    }

    async fn get_reader_group_config(
        &self,
        _: Request<ReaderGroupInfo>,
    ) -> Answer<ReaderGroupConfigResponse> {
        Err(not_there_yet("keeping reader groups in the controller"))
    }

    async fn delete_reader_group(
        &self,
        _: Request<ReaderGroupInfo>,
    ) -> Answer<DeleteReaderGroupStatus> {
        Err(not_there_yet("keeping reader groups in the controller"))
    }

    async fn update_reader_group(
        &self,
        _: Request<ReaderGroupConfiguration>,
    ) -> Answer<UpdateReaderGroupResponse> {
        Err(not_there_yet("keeping reader groups in the controller"))
    }

    async fn get_controller_to_bucket_mapping(
        &self,
        _: Request<ControllerToBucketMappingRequest>,
    ) -> Answer<ControllerToBucketMappingResponse> {
        Err(not_there_yet("the mapping of buckets to controllers"))
    }
}
