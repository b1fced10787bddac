//! The calls as clients make them: what is answered, and with which status.

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};

use super::fake::Fake;
use crate::controller::Controller;
use crate::counts::ControlCounts;
use crate::proto::controller_service_client::ControllerServiceClient;
use crate::proto::controller_service_server::ControllerService;
use crate::proto::*;
use crate::segments::Locate;
use crate::serve::{ControlConfig, ControlLimits, serve_on};
use crate::service::Service;

/// Tells the segment's name as the host, so that tests see what was asked.
struct Echo;

impl Locate for Echo {
    fn locate(&self, segment: &str) -> (String, u16) {
        (segment.to_owned(), 12345)
    }
}

/// A service over an empty store, open.
async fn service() -> Service<Fake> {
    let controller = Controller::new(Fake::new(Arc::default()));
    controller.open().await;
    let endpoint = NodeUri { endpoint: "localhost".into(), port: 9090 };
    Service::new(controller, Arc::new(Echo), endpoint)
}

async fn ok<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> T {
    call.await.expect("is answered").into_inner()
}

async fn code<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Code {
    call.await.err().map_or(Code::Ok, |status| status.code())
}

fn scope(name: &str) -> Request<ScopeInfo> {
    Request::new(ScopeInfo { scope: name.into() })
}

fn info(stream: &str) -> StreamInfo {
    StreamInfo { scope: "scope".into(), stream: stream.into(), access_operation: 0 }
}

fn stream(name: &str) -> Request<StreamInfo> {
    Request::new(info(name))
}

fn config(name: &str, count: i32) -> StreamConfig {
    StreamConfig {
        stream_info: Some(info(name)),
        scaling_policy: Some(ScalingPolicy { min_num_segments: count, ..Default::default() }),
        retention_policy: Some(RetentionPolicy { retention_max: i64::MAX, ..Default::default() }),
        ..Default::default()
    }
}

/// A service with a scope and a stream of so many segments in it.
async fn service_with_stream(count: i32) -> Service<Fake> {
    let service = service().await;
    let created = ok(service.create_scope(scope("scope"))).await;
    assert_eq!(created.status(), create_scope_status::Status::Success);
    let created = ok(service.create_stream(Request::new(config("stream", count)))).await;
    assert_eq!(created.status(), create_stream_status::Status::Success);
    service
}

fn at(number: i64) -> Request<SegmentId> {
    Request::new(SegmentId { stream_info: Some(info("stream")), segment_id: number })
}

/// Shows the statuses of scopes from creation to deletion.
#[tokio::test]
async fn scopes_are_answered_as_specified() {
    use create_scope_status::Status as Created;
    use delete_scope_status::Status as Deleted;
    let service = service().await;
    for (name, expected) in [
        ("scope", Created::Success),
        ("scope", Created::ScopeExists),
        ("_system", Created::ScopeExists),
        ("a_b", Created::InvalidScopeName),
        ("", Created::InvalidScopeName),
    ] {
        assert_eq!(ok(service.create_scope(scope(name))).await.status(), expected, "{name}");
    }
    assert!(ok(service.check_scope_exists(scope("scope"))).await.exists);
    ok(service.create_stream(Request::new(config("stream", 1)))).await;
    for (name, expected) in [
        ("scope", Deleted::ScopeNotEmpty),
        ("_system", Deleted::ScopeNotEmpty),
        ("other", Deleted::ScopeNotFound),
    ] {
        assert_eq!(ok(service.delete_scope(scope(name))).await.status(), expected, "{name}");
    }
    ok(service.seal_stream(stream("stream"))).await;
    ok(service.delete_stream(stream("stream"))).await;
    assert_eq!(ok(service.delete_scope(scope("scope"))).await.status(), Deleted::Success);
    assert!(!ok(service.check_scope_exists(scope("scope"))).await.exists);
}

/// Shows the statuses of streams from creation to deletion, and that a stream of the same name
/// counts its segments on.
#[tokio::test]
async fn streams_are_answered_as_specified() {
    use create_stream_status::Status as Created;
    use delete_stream_status::Status as Deleted;
    use update_stream_status::Status as Updated;
    let service = service_with_stream(2).await;
    let mut elsewhere = config("stream", 1);
    elsewhere.stream_info = Some(StreamInfo { scope: "none".into(), ..info("stream") });
    for (config, expected) in [
        (config("stream", 2), Created::StreamExists),
        (config("stream", 7), Created::StreamExists),
        (config("a_b", 1), Created::InvalidStreamName),
        (config("zero", 0), Created::Failure),
        (elsewhere, Created::ScopeNotFound),
    ] {
        let created = ok(service.create_stream(Request::new(config.clone()))).await;
        assert_eq!(created.status(), expected, "{config:?}");
    }
    assert_eq!(
        ok(service.delete_stream(stream("stream"))).await.status(),
        Deleted::StreamNotSealed
    );
    for (name, expected) in [
        ("none", Updated::StreamNotFound),
        ("stream", Updated::Success),
        ("stream", Updated::Success),
    ] {
        assert_eq!(ok(service.seal_stream(stream(name))).await.status(), expected, "{name}");
    }
    assert!(ok(service.get_current_segments(stream("stream"))).await.segment_ranges.is_empty());
    let updated = ok(service.update_stream(Request::new(config("stream", 2)))).await;
    assert_eq!(updated.status(), Updated::StreamSealed);
    assert_eq!(ok(service.delete_stream(stream("stream"))).await.status(), Deleted::Success);
    assert_eq!(ok(service.delete_stream(stream("stream"))).await.status(), Deleted::StreamNotFound);
    assert_eq!(code(service.get_current_segments(stream("stream"))).await, Code::NotFound);
    ok(service.create_stream(Request::new(config("stream", 1)))).await;
    let ranges = ok(service.get_current_segments(stream("stream"))).await.segment_ranges;
    let ids: Vec<_> = ranges.iter().filter_map(|it| it.segment_id.as_ref()).collect();
    assert_eq!(ids.iter().map(|it| it.segment_id).collect::<Vec<_>>(), [2]);
}

/// Shows that a configuration comes back with everything that a client takes for granted, and what
/// an update may change.
#[tokio::test]
async fn configurations_come_back_whole() {
    let service = service_with_stream(2).await;
    let found = ok(service.get_stream_configuration(stream("stream"))).await;
    assert_eq!(found.stream_info, Some(info("stream")));
    assert_eq!(found.scaling_policy.map(|it| it.min_num_segments), Some(2));
    assert_eq!((found.retention_policy, found.tags), (None, Some(Tags::default())));
    let mut tagged = config("stream", 2);
    tagged.tags = Some(Tags { tag: vec!["b".into(), "a".into()] });
    let updated = ok(service.update_stream(Request::new(tagged))).await;
    assert_eq!(updated.status(), update_stream_status::Status::Success);
    let found = ok(service.get_stream_configuration(stream("stream"))).await;
    assert_eq!(found.tags, Some(Tags { tag: vec!["a".into(), "b".into()] }));
    for (count, expected) in [(3, Code::Unimplemented), (0, Code::InvalidArgument)] {
        let call = service.update_stream(Request::new(config("stream", count)));
        assert_eq!(code(call).await, expected, "{count}");
    }
    assert_eq!(code(service.get_stream_configuration(stream("none"))).await, Code::NotFound);
}

/// Shows that lists come in pages, end with an empty one, and know tags.
#[tokio::test]
async fn lists_end_with_an_empty_page() {
    let service = service_with_stream(1).await;
    for number in 0..7 {
        let mut config = config(&format!("tagged-{number}"), 1);
        config.tags = Some(Tags { tag: vec!["even".into()] }).filter(|_| number % 2 == 0);
        ok(service.create_stream(Request::new(config))).await;
    }
    let mut all = Vec::new();
    let mut token = None;
    loop {
        let request = StreamsInScopeRequest {
            scope: Some(ScopeInfo { scope: "scope".into() }),
            continuation_token: token,
        };
        let page = ok(service.list_streams_in_scope(Request::new(request))).await;
        assert!(page.continuation_token.is_some());
        if page.streams.is_empty() {
            break;
        }
        all.extend(page.streams.into_iter().map(|it| it.stream));
        token = page.continuation_token;
    }
    assert_eq!(all.len(), 8);
    let mut tagged = Vec::new();
    let mut token = None;
    loop {
        let request = StreamsInScopeWithTagRequest {
            scope: Some(ScopeInfo { scope: "scope".into() }),
            tag: "even".into(),
            continuation_token: token,
        };
        let page = ok(service.list_streams_in_scope_for_tag(Request::new(request))).await;
        if page.streams.is_empty() {
            break;
        }
        tagged.extend(page.streams.into_iter().map(|it| it.stream));
        token = page.continuation_token;
    }
    assert_eq!(tagged, ["tagged-0", "tagged-2", "tagged-4", "tagged-6"]);
    let first = ok(service.list_scopes(Request::new(ScopesRequest::default()))).await;
    assert_eq!(first.scopes, ["_system", "scope"]);
    let request = ScopesRequest { continuation_token: first.continuation_token };
    assert!(ok(service.list_scopes(Request::new(request))).await.scopes.is_empty());
    let absent = StreamsInScopeRequest::default();
    let absent = ok(service.list_streams_in_scope(Request::new(absent))).await;
    assert_eq!(absent.status(), streams_in_scope_response::Status::ScopeNotFound);
}

/// Shows the questions about segments: ranges that tile, ids with names, heads, successors, places.
#[tokio::test]
async fn segments_are_told_as_clients_need_them() {
    let service = service_with_stream(3).await;
    let ranges = ok(service.get_current_segments(stream("stream"))).await.segment_ranges;
    assert!(ranges.iter().all(|range| {
        range.segment_id.as_ref().is_some_and(|id| id.stream_info == Some(info("stream")))
    }));
    assert_eq!((ranges[0].min_key, ranges[2].max_key), (0.0, 1.0));
    assert_eq!(ranges[0].max_key, ranges[1].min_key);
    let epoch =
        |epoch| Request::new(GetEpochSegmentsRequest { stream_info: Some(info("stream")), epoch });
    assert_eq!(ok(service.get_epoch_segments(epoch(0))).await.segment_ranges, ranges);
    assert_eq!(code(service.get_epoch_segments(epoch(1))).await, Code::NotFound);
    assert_eq!(code(service.get_epoch_segments(epoch(-1))).await, Code::NotFound);
    assert!(ok(service.get_segments_immediately_following(at(0))).await.segments.is_empty());
    assert!(ok(service.get_segments_immediatly_following(at(99))).await.segments.is_empty());
    assert!(ok(service.is_segment_valid(at(2))).await.response);
    assert!(!ok(service.is_segment_valid(at(3))).await.response);
    // Also for segments that do not exist: a transaction's, a table's.
    let uri = ok(service.get_uri(at((3 << 32) | 1))).await;
    assert_eq!(uri, NodeUri { endpoint: "scope/stream/1.#epoch.3".into(), port: 12345 });
    let table = SegmentId { stream_info: Some(info("table_kvtable")), segment_id: 0 };
    let uri = ok(service.get_uri(Request::new(table))).await;
    assert_eq!(uri.endpoint, "scope/table_kvtable/0.#epoch.0");
    assert_eq!(code(service.get_uri(at(-1))).await, Code::InvalidArgument);
}

/// Shows which cuts are valid, what lies between two, and which truncate.
#[tokio::test]
async fn cuts_are_judged() {
    use update_stream_status::Status as Updated;
    let service = service_with_stream(2).await;
    let cut = |offsets: &[(i64, i64)]| StreamCut {
        stream_info: Some(info("stream")),
        cut: offsets.iter().copied().collect(),
    };
    let valid = |offsets: &[(i64, i64)]| service.is_stream_cut_valid(Request::new(cut(offsets)));
    assert!(ok(valid(&[(0, 5), (1, 5)])).await.response);
    assert!(!ok(valid(&[(0, 5)])).await.response);
    assert_eq!(code(valid(&[])).await, Code::InvalidArgument);
    assert_eq!(code(valid(&[(0, 5), (9, 5)])).await, Code::InvalidArgument);
    for (offsets, expected) in [
        (&[(0, 0), (1, 0)][..], Updated::Success),
        (&[(0, 1), (1, 0)], Updated::Failure),
        (&[(0, -1), (1, 0)], Updated::Failure),
        (&[(0, 0)], Updated::Failure),
        (&[(-5, 0)], Updated::Failure),
        (&[], Updated::Failure),
    ] {
        let truncated = ok(service.truncate_stream(Request::new(cut(offsets)))).await;
        assert_eq!(truncated.status(), expected, "{offsets:?}");
    }
    let between = |from: &[(i64, i64)], to: &[(i64, i64)]| {
        service.get_segments_between(Request::new(StreamCutRange {
            stream_info: Some(info("stream")),
            from: from.iter().copied().collect(),
            to: to.iter().copied().collect(),
        }))
    };
    assert_eq!(ok(between(&[], &[(0, 1), (1, 1)])).await.segments.len(), 2);
    assert_eq!(ok(between(&[(0, 1), (1, 1)], &[])).await.segments.len(), 2);
    assert_eq!(code(between(&[], &[])).await, Code::InvalidArgument);
    let backwards = between(&[(0, 5), (1, 5)], &[(0, 4), (1, 5)]);
    assert_eq!(code(backwards).await, Code::InvalidArgument);
    let head = GetSegmentsRequest { stream_info: Some(info("stream")), timestamp: 99 };
    let head = ok(service.get_segments(Request::new(head))).await.segments;
    assert_eq!(head.iter().map(|it| it.offset).collect::<Vec<_>>(), [0, 0]);
}

/// Shows the answers about transactions: made, pinged, ended one way and not the other, unknown.
#[tokio::test]
async fn transactions_are_answered_as_specified() {
    use ping_txn_status::Status as Ping;
    use txn_state::State;
    use txn_status::Status as Ended;
    let service = service_with_stream(2).await;
    let create = |name: &str, lease| {
        service.create_transaction(Request::new(CreateTxnRequest {
            stream_info: Some(info(name)),
            lease,
            scale_grace_period: 0,
        }))
    };
    assert_eq!(code(create("stream", 9_999)).await, Code::InvalidArgument);
    assert_eq!(code(create("stream", 600_001)).await, Code::InvalidArgument);
    assert_eq!(code(create("none", 90_000)).await, Code::NotFound);
    let request = |id: Option<TxnId>| {
        Request::new(TxnRequest {
            stream_info: Some(info("stream")),
            txn_id: id,
            writer_id: "1".into(),
            timestamp: i64::MIN,
        })
    };
    let ping = |id: Option<TxnId>, lease| {
        let stream_info = Some(info("stream"));
        service.ping_transaction(Request::new(PingTxnRequest { stream_info, txn_id: id, lease }))
    };
    let made = ok(create("stream", 90_000)).await;
    assert_eq!(made.active_segments.len(), 2);
    let id = made.txn_id;
    assert!(id.is_some_and(|id| id.high_bits >= 0 && id.low_bits >= 0));
    assert_eq!(ok(ping(id, 90_000)).await.status(), Ping::Ok);
    assert_eq!(ok(ping(id, 600_001)).await.status(), Ping::LeaseTooLarge);
    assert_eq!(ok(service.check_transaction_state(request(id))).await.state(), State::Open);
    for _ in 0..2 {
        assert_eq!(ok(service.commit_transaction(request(id))).await.status(), Ended::Success);
    }
    assert_eq!(ok(service.abort_transaction(request(id))).await.status(), Ended::Failure);
    assert_eq!(ok(ping(id, 90_000)).await.status(), Ping::Committed);
    let open = ok(create("stream", 90_000)).await.txn_id;
    ok(service.seal_stream(stream("stream"))).await;
    let state = ok(service.check_transaction_state(request(id))).await.state();
    assert_eq!(state, State::Committed);
    let state = ok(service.check_transaction_state(request(open))).await.state();
    assert_eq!(state, State::Aborted);
    assert_eq!(ok(ping(open, 90_000)).await.status(), Ping::Aborted);
    let late = ok(service.commit_transaction(request(open))).await.status();
    assert_eq!(late, Ended::TransactionNotFound);
    assert_eq!(code(create("stream", 90_000)).await, Code::PermissionDenied);
    let unknown = Some(TxnId { high_bits: -1, low_bits: -1 });
    let status = ok(service.commit_transaction(request(unknown))).await.status();
    assert_eq!(status, Ended::TransactionNotFound);
    assert_eq!(ok(ping(unknown, 90_000)).await.status(), Ping::Unknown);
    assert_eq!(ok(service.check_transaction_state(request(unknown))).await.state(), State::Unknown);
    let list = ListCompletedTxnRequest { stream_info: Some(info("stream")) };
    let list = ok(service.list_completed_transactions(Request::new(list))).await.response;
    assert_eq!(list.len(), 2);
}

/// Shows that what is not there yet says so at once, and that messages without names are refused.
#[tokio::test]
async fn missing_calls_and_names_are_final() {
    let service = service().await;
    let group = ReaderGroupConfiguration::default();
    assert_eq!(code(service.create_reader_group(Request::new(group))).await, Code::Unimplemented);
    assert_eq!(
        code(service.scale(Request::new(ScaleRequest::default()))).await,
        Code::Unimplemented
    );
    let nameless = service.create_stream(Request::new(StreamConfig::default()));
    assert_eq!(code(nameless).await, Code::InvalidArgument);
    assert_eq!(ok(service.get_delegation_token(stream("any"))).await.delegation_token, "");
}

/// Shows the server over a socket, with the paths that clients use, from start to shutdown; and
/// that connections, calls and the bounds they meet are counted.
#[tokio::test]
async fn the_service_is_reached_over_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("is bound").port();
    let (stop, stopped) = oneshot::channel::<()>();
    let limits = ControlLimits { message_bytes_max: 1 << 10, ..ControlLimits::default() };
    let counts = Arc::<ControlCounts>::default();
    let config = ControlConfig { host: "127.0.0.1".into(), port, limits, counts: counts.clone() };
    let store = Fake::new(Arc::default());
    let served = tokio::spawn(serve_on(store, config, Arc::new(Echo), listener, || (), async {
        let _ = stopped.await;
    }));
    let channel = tonic::transport::Endpoint::try_from(format!("http://127.0.0.1:{port}"))
        .expect("is an address")
        .connect()
        .await
        .expect("connects");
    let mut client = ControllerServiceClient::new(channel);
    let created = ok(client.create_scope(scope("scope"))).await;
    assert_eq!(created.status(), create_scope_status::Status::Success);
    let servers = ok(client.get_controller_server_list(Request::new(ServerRequest {}))).await;
    let expected = NodeUri { endpoint: "127.0.0.1".into(), port: port.into() };
    assert_eq!(servers.node_uri, [expected]);
    assert_eq!(code(client.get_current_segments(stream("none"))).await, Code::NotFound);
    let large = "s".repeat(2 << 10);
    assert_eq!(code(client.create_scope(scope(&large))).await, Code::OutOfRange);
    assert_eq!((counts.accepted(), counts.open(), counts.calls()), (1, 1, 4));
    assert_eq!(counts.failed_with(Code::NotFound), 1);
    assert_eq!(counts.failed_with(Code::OutOfRange), 1);
    assert_eq!(counts.failed().iter().map(|(_, count)| count).sum::<u64>(), 2);
    drop(client);
    stop.send(()).expect("still serves");
    assert!(served.await.expect("ends").is_ok());
    assert_eq!(counts.open(), 0);
}
