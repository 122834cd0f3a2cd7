//! A bucket whose server has no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::server::Bucket;
use crate::object_store_blob_store::guarded::Limits;
use crate::{StoreError, put_bytes};

/// Answers every request of a connection in one way.
async fn refuse(socket: TcpStream, (status, code): (u16, &'static str), asked: Arc<AtomicUsize>) {
    let mut socket = BufReader::new(socket);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().expect("is a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        asked.fetch_add(1, Ordering::SeqCst);
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.expect("is sent");
        let body = format!("<Error><Code>{code}</Code></Error>");
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\n\r\n{body}");
        socket.write_all(answer.as_bytes()).await.expect("is taken");
    }
}

/// What a write comes to, and how many requests it takes.
async fn written(answer: (u16, &'static str)) -> (StoreError, usize) {
    let bucket = Bucket::in_directory().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(refuse(socket, answer, Arc::clone(&counted)));
        }
    });
    let store = bucket.store_at(address, Limits::DEFAULT);
    let stored = put_bytes(&store, Bytes::from_static(b"more")).await;
    let error = stored.expect_err("is refused");
    (error, asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_bucket_without_room_says_so_and_is_not_asked_again_at_once() {
    for answer in [
        (400, "XMinioAdminBucketQuotaExceeded"),
        (403, "QuotaExceeded"),
        (507, "XMinioStorageFull"),
    ] {
        let (error, requests) = written(answer).await;
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(requests, 1, "{answer:?}");
    }
    let (error, _) = written((403, "AccessDenied")).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}
