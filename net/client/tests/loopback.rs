//! The client against a few scripted peers on the loopback that speak the real codec. What the real
//! store answers is tested with the server.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thalweg_client::{Address, ClientError, Pool, Refusal, Store, Timeouts};
use thalweg_wire::{
    AppendSetup, Command, DataAppended, Decoder, FRAME_BYTES_MAX, Hello, SegmentCreated,
    SegmentDeleted, SegmentIsSealed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The peer's side of one connection.
struct Peer {
    socket: TcpStream,
    decoder: Decoder,
    received: BytesMut,
}

impl Peer {
    /// Accepts a connection and answers its Hello.
    async fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = listener.accept().await.expect("accepts");
        let mut peer =
            Self { socket, decoder: Decoder::new(FRAME_BYTES_MAX), received: BytesMut::new() };
        assert!(matches!(peer.next().await, Some(Command::Hello(_))));
        peer.send(Hello::OURS).await;
        peer
    }

    async fn next(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = self.decoder.decode(&mut self.received).expect("decodes") {
                return Some(command);
            }
            if self.socket.read_buf(&mut self.received).await.expect("reads") == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, reply: impl Into<Command>) {
        let mut out = BytesMut::new();
        reply.into().encode(&mut out);
        self.socket.write_all(&out).await.expect("writes");
    }
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = Address::new("127.0.0.1", listener.local_addr().expect("is bound").port());
    (listener, address)
}

/// Shows that replies in reverse order reach the requests that caused them, over one connection.
#[tokio::test]
async fn replies_are_matched_by_request_id() {
    let (listener, address) = listen().await;
    let peer = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        let first = peer.next().await.expect("a request");
        let second = peer.next().await.expect("another");
        for request in [second, first] {
            let request_id = request.request_id().expect("has one");
            match request {
                Command::DeleteSegment(it) => {
                    peer.send(SegmentDeleted { request_id, segment: it.segment }).await;
                }
                Command::CreateSegment(it) => {
                    peer.send(SegmentCreated { request_id, segment: it.segment }).await;
                }
                other => panic!("{other:?}"),
            }
        }
        peer.next().await
    });
    let store = Store::connect(&address.host, address.port).await.expect("connects");
    let (deleted, created) =
        tokio::join!(store.delete_segment("a"), store.create_segment("b", 0, 0, 0));
    assert_eq!((deleted, created), (Ok(()), Ok(())));
    drop(store);
    assert_eq!(peer.await.expect("runs"), None);
}

/// Shows that error replies become refusals with their facts, and that sealing twice succeeds.
#[tokio::test]
async fn error_replies_are_refusals() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        while let Some(request) = peer.next().await {
            let request_id = request.request_id().expect("has one");
            peer.send(SegmentIsSealed {
                request_id,
                segment: "a".into(),
                server_stack_trace: "".into(),
                offset: -1,
            })
            .await;
        }
    });
    let store = Store::of(Pool::default(), address);
    let refusal = Refusal::SegmentSealed { segment: "a".to_owned() };
    assert_eq!(store.merge_batch("a", &[]).await, Err(ClientError::Refused(refusal)));
    assert_eq!(store.seal_segment("a").await, Ok(()));
}

/// Shows that a lost connection fails what is in flight and that the next request makes a new one.
#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.next().await.expect("a request");
        drop(peer);
        let mut peer = Peer::accept(&listener).await;
        let request_id = peer.next().await.and_then(|it| it.request_id()).expect("a request");
        peer.send(SegmentDeleted { request_id, segment: "a".into() }).await;
        peer.next().await
    });
    let store = Store::of(Pool::default(), address);
    assert!(matches!(store.delete_segment("a").await, Err(ClientError::Unavailable(_))));
    assert_eq!(store.delete_segment("a").await, Ok(()));
}

/// Shows that bytes that are no command end the connection as corrupt.
#[tokio::test]
async fn nonsense_is_corrupt() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.next().await.expect("a request");
        peer.socket.write_all(&[0x7f; 64]).await.expect("writes");
        peer.next().await
    });
    let store = Store::of(Pool::default(), address);
    assert!(matches!(store.delete_segment("a").await, Err(ClientError::Corrupt(_))));
}

/// Shows that a request without a reply ends at its time-out and leaves the connection usable: the
/// late reply to it is dropped.
#[tokio::test]
async fn a_late_reply_is_dropped() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        let mut ids = Vec::new();
        while let Some(request) = peer.next().await {
            ids.push(request.request_id().expect("has one"));
            if ids.len() == 2 {
                for request_id in ids.drain(..) {
                    peer.send(SegmentDeleted { request_id, segment: "a".into() }).await;
                }
            }
        }
    });
    let timeouts = Timeouts { request: Duration::from_millis(50), connect: Duration::from_secs(5) };
    let store = Store::of(Pool::new(timeouts), address.clone());
    assert!(matches!(store.delete_segment("a").await, Err(ClientError::Unavailable(_))));
    assert_eq!(store.delete_segment("a").await, Ok(()));
}

/// Shows that what is not a request is refused before it is sent, and that nobody listening is
/// unavailable.
#[tokio::test]
async fn misuse_and_absence_are_told_apart() {
    let (listener, address) = listen().await;
    let accepted = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.next().await
    });
    let pool = Pool::default();
    assert!(matches!(pool.request(&address, Hello::OURS).await, Err(ClientError::Invalid(_))));
    drop(pool);
    assert_eq!(accepted.await.expect("runs"), None);
    let absent = Store::connect(&address.host, address.port).await;
    assert!(matches!(absent.map(|_| ()), Err(ClientError::Unavailable(_))));
}

/// Shows that a session learns the durable number at its start and counts an acknowledgement that
/// covers several appends.
#[tokio::test]
async fn a_session_appends_and_is_acknowledged() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        let Some(Command::SetupAppend(setup)) = peer.next().await else { panic!("no setup") };
        let writer_id = setup.writer_id;
        peer.send(AppendSetup {
            request_id: setup.request_id,
            segment: setup.segment,
            writer_id,
            last_event_number: 4,
        })
        .await;
        let mut length = 0;
        for _ in 0..2 {
            let Some(Command::AppendBlockEnd(block)) = peer.next().await else {
                panic!("no block")
            };
            length += block.data.len() as i64;
        }
        peer.send(DataAppended {
            writer_id,
            event_number: 6,
            previous_event_number: 4,
            request_id: 2,
            current_segment_write_offset: length,
        })
        .await;
        peer.next().await
    });
    let store = Store::of(Pool::default(), address);
    let mut session = store.append_session("a", 9).await.expect("opens");
    assert_eq!(session.last_event_number(), 4);
    session.append(Bytes::from_static(b"one"), 5, 1);
    assert_eq!(session.append_durably(Bytes::from_static(b"three"), 6, 1).await, Ok(8));
}
