//! Running the control plane: the gRPC server with its limits, and the tasks beside it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use crate::controller::Controller;
use crate::counts::ControlCounts;
use crate::incoming::incoming;
use crate::proto::NodeUri;
use crate::proto::controller_service_server::ControllerServiceServer;
use crate::segments::{Locate, RemoteSegments, SegmentStore};
use crate::service::Service;

/// Bounds of the controller's port.
#[derive(Clone, Copy, Debug)]
pub struct ControlLimits {
    /// Connections at a time; more wait in the listener's queue. Default 1,000.
    pub connections_max: usize,
    /// Calls under way at once on one connection. Default 100.
    pub streams_max: u32,
    /// Largest message in either direction. Default 4 MiB.
    pub message_bytes_max: usize,
    /// Largest list of headers of a call. Default 16 KiB.
    pub header_bytes_max: u32,
    /// Calls that were reset before they were looked at, and calls that had to be reset for errors,
    /// at which a connection is closed. Default 20.
    pub resets_max: usize,
}

impl Default for ControlLimits {
    fn default() -> Self {
        Self {
            connections_max: 1000,
            streams_max: 100,
            message_bytes_max: 4 << 20,
            header_bytes_max: 16 << 10,
            resets_max: 20,
        }
    }
}

/// When a silent connection is asked whether it is alive.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(120);

/// How long it may take to say so.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often outcomes of old transactions are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// What the server tells its control plane.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Host by which clients reach the controller; told to those that ask for the list of
    /// controllers. Bare: a name, an IPv4 address or a bracketed IPv6 address.
    pub host: String,
    /// Port by which clients reach the controller.
    pub port: u16,
    /// Bounds of that port.
    pub limits: ControlLimits,
    /// What was met there is counted here.
    pub counts: Arc<ControlCounts>,
}

/// Why the control plane ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("serve the controller")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves the controller on `listener` until `shutdown` is done; calls under way are finished then.
///
/// Before the first connection is accepted, the segment stores are waited for, for as long as it
/// takes, and what was under way when the process before this one ended is found; `on_open` is
/// called then. Needs a tokio runtime with time and I/O; one thread suffices.
///
/// # Errors
/// [`ServeError`] when the listener fails.
pub async fn serve(
    config: ControlConfig,
    locate: Arc<dyn Locate>,
    listener: TcpListener,
    on_open: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let store = Arc::new(RemoteSegments::new(locate.clone()));
    serve_on(store, config, locate, listener, on_open, shutdown).await
}

/// [`serve`] on any stores.
pub(crate) async fn serve_on<S: SegmentStore>(
    store: Arc<S>,
    config: ControlConfig,
    locate: Arc<dyn Locate>,
    listener: TcpListener,
    on_open: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::pin!(shutdown);
    let controller = Controller::new(store);
    tokio::select! {
        () = controller.open() => {}
        () = &mut shutdown => return Ok(()),
    }
    on_open();
    let beside = [
        tokio::spawn(controller.clone().watch_leases()),
        tokio::spawn(forget_now_and_then(controller.clone())),
    ];
    let (limits, counts) = (config.limits, config.counts);
    let answers = counts.clone();
    let endpoint = NodeUri { endpoint: config.host, port: config.port.into() };
    let service = ControllerServiceServer::new(Service::new(controller, locate, endpoint))
        .max_decoding_message_size(limits.message_bytes_max)
        .max_encoding_message_size(limits.message_bytes_max);
    let served = Server::builder()
        .max_concurrent_streams(limits.streams_max)
        .http2_max_header_list_size(limits.header_bytes_max)
        .http2_max_pending_accept_reset_streams(Some(limits.resets_max))
        .http2_max_local_error_reset_streams(Some(limits.resets_max))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(MapResponseLayer::new(move |response| {
            answers.answered(&response);
            response
        }))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming(listener, limits.connections_max, counts), shutdown)
        .await;
    for task in beside {
        task.abort();
    }
    Ok(served?)
}

async fn forget_now_and_then<S: SegmentStore>(controller: Arc<Controller<S>>) {
    loop {
        tokio::time::sleep(FORGET_INTERVAL).await;
        if let Err(error) = controller.forget_completed().await {
            tracing::warn!(%error, "forget completed transactions: trying again later");
        }
    }
}
