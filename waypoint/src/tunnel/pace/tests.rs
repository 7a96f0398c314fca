//! Slow clients against a clock that stands still.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::advance;

use super::*;

const HEAD: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(3600);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A client, and the server that answers it; the server gives whether it was kept waiting.
fn pair() -> (DuplexStream, JoinHandle<bool>) {
    let (client, stream) = tokio::io::duplex(4096);
    let pace = Pace::new(HEAD, IDLE);
    let served = Rc::clone(&pace);
    let service = service_fn(move |_| {
        let asked = served.asked();
        let body = Full::new(Bytes::from_static(b"ok"));
        std::future::ready(Ok::<_, Infallible>(http::Response::new(Answer { body, _asked: asked })))
    });
    let stream = Paced { stream, pace: Rc::clone(&pace) };
    let server = tokio::task::spawn_local(async move {
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        pace.keep(|cx| Pin::new(&mut connection).poll(cx)).await.is_none()
    });
    (client, server)
}

async fn ask(client: &mut DuplexStream) {
    client.write_all(REQUEST).await.unwrap();
    let mut answer = [0; 1024];
    let read = client.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
}

/// Lets tasks run, and the time pass.
async fn pass(time: Duration) {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    advance(time).await;
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_ends_the_connection() {
    let test = async {
        let (mut client, server) = pair();
        ask(&mut client).await;
        pass(HEAD).await;
        client.write_all(b"GET / HT").await.unwrap();
        pass(HEAD / 2).await;
        client.write_all(b"TP").await.unwrap();
        assert!(!server.is_finished());
        pass(HEAD / 2).await;
        assert!(server.await.unwrap());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn rest_is_no_slowness_until_it_is_too_long() {
    let test = async {
        let (mut client, server) = pair();
        for _ in 0..3 {
            pass(IDLE - HEAD).await;
            ask(&mut client).await;
        }
        pass(IDLE - HEAD).await;
        assert!(!server.is_finished());
        pass(HEAD).await;
        assert!(server.await.unwrap());
    };
    LocalSet::new().run_until(test).await;
}
