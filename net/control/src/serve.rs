//! Running the control plane: the gRPC server with its limits, and the tasks beside it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::controller::Controller;
use crate::proto::NodeUri;
use crate::proto::controller_service_server::ControllerServiceServer;
use crate::segments::{Locate, RemoteSegments, SegmentStore};
use crate::service::Service;

/// Largest message in either direction.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Largest list of headers of a call.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Calls under way at once on one connection; more wait for their turn there.
const CALLS_MAX_PER_CONNECTION: usize = 1024;

/// Streams of HTTP/2 open at once on one connection.
const STREAMS_MAX_PER_CONNECTION: u32 = 4096;

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
}

/// Why the control plane ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("serve the controller")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves the controller on `listener` until `shutdown` is done; calls under way are finished then.
///
/// Before the first connection is accepted, the segment stores are waited for, for as long as it
/// takes, and what was under way when the process before this one ended is found. Needs a tokio
/// runtime with time and I/O; one thread suffices.
///
/// # Errors
/// [`ServeError`] when the listener fails.
pub async fn serve(
    config: ControlConfig,
    locate: Arc<dyn Locate>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_on(Arc::new(RemoteSegments::new(locate.clone())), config, locate, listener, shutdown)
        .await
}

/// [`serve`] on any stores.
pub(crate) async fn serve_on<S: SegmentStore>(
    store: Arc<S>,
    config: ControlConfig,
    locate: Arc<dyn Locate>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::pin!(shutdown);
    let controller = Controller::new(store);
    tokio::select! {
        () = controller.open() => {}
        () = &mut shutdown => return Ok(()),
    }
    let beside = [
        tokio::spawn(controller.clone().watch_leases()),
        tokio::spawn(forget_now_and_then(controller.clone())),
    ];
    let endpoint = NodeUri { endpoint: config.host, port: config.port.into() };
    let service = ControllerServiceServer::new(Service::new(controller, locate, endpoint))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_MAX_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown,
        )
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
