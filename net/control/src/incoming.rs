//! Connections to the controller's port: a bounded number at a time, and no spin when the process
//! is out of descriptors.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::counts::ControlCounts;

/// How long accepting pauses when it fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection with its place among those that may be open.
pub(crate) struct Bounded {
    stream: TcpStream,
    counts: Arc<ControlCounts>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.counts.closed();
    }
}

/// The connections of a listener, at most `connections_max` of them at a time. Ends with the
/// receiver.
pub(crate) fn incoming(
    listener: TcpListener,
    connections_max: usize,
    counts: Arc<ControlCounts>,
) -> ReceiverStream<io::Result<Bounded>> {
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let (accepted, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let free = places.clone().try_acquire_owned();
            let place = match free {
                Ok(place) => place,
                Err(_) => {
                    counts.met_full();
                    places.clone().acquire_owned().await.expect("it is never closed")
                }
            };
            let taken = tokio::select! {
                taken = listener.accept() => taken,
                () = accepted.closed() => return,
            };
            let Ok((stream, _)) = taken else {
                counts.paused();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // A peer that is gone already makes this fail; the first transfer will tell.
            let _ = stream.set_nodelay(true);
            counts.opened();
            let bounded = Bounded { stream, counts: counts.clone(), _place: place };
            if accepted.send(Ok(bounded)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

impl Connected for Bounded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
