//! The administration port: `/metrics`, `/health` and `/ready` over HTTP, on a thread of its own,
//! so that it answers whatever the shards and the control plane do.
//!
//! `/health` says 200 when every container of every shard serves, else 503 with a line for each
//! reason. `/ready` also wants the control plane to take calls.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thalweg_uring::Admission;
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::metrics;

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;

/// Longest that a request may take to come and its reply to leave.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long accepting pauses after a failure, such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What requests are answered from.
pub(crate) struct Admin {
    pub(crate) board: Arc<Board>,
    pub(crate) admission: Arc<Admission>,
}

/// Serves `listener` until the process ends.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub(crate) fn start(listener: TcpListener, admin: Admin) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    std::thread::Builder::new()
        .name("thalweg-admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, Arc::new(admin))))?;
    Ok(())
}

async fn serve(listener: tokio::net::TcpListener, admin: Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = answer(&admin, &request);
                async move { Ok::<_, Infallible>(reply) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIME)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever the client does wrong is its own loss.
            let _ = tokio::time::timeout(REQUEST_TIME, serving).await;
            drop(place);
        });
    }
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let connections = admin.admission.connections();
            reply(StatusCode::OK, metrics::text(&admin.board, connections))
        }
        "/health" => verdict(admin.board.complaints()),
        "/ready" => {
            let mut complaints = admin.board.complaints();
            if !admin.board.is_control_serving() {
                complaints.push("control plane: starting".to_owned());
            }
            verdict(complaints)
        }
        _ => reply(StatusCode::NOT_FOUND, "/metrics, /health, /ready\n".to_owned()),
    }
}

fn verdict(complaints: Vec<String>) -> Response<Full<Bytes>> {
    if complaints.is_empty() {
        return reply(StatusCode::OK, "ok\n".to_owned());
    }
    reply(StatusCode::SERVICE_UNAVAILABLE, complaints.join("\n") + "\n")
}

fn reply(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, plain);
    response
}
