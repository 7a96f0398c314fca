//! Both skins over an in-memory pipe.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

use super::*;

mod heads;
mod peers;
mod pool;

fn request(authority: &str) -> Request {
    Request { authority: authority.into(), headers: HeaderMap::new() }
}

/// A client and a server joined by a pipe that holds `pipe_bytes`.
fn pair(pipe_bytes: usize, ours: Config, theirs: Config) -> (Client, Server<Plain<DuplexStream>>) {
    let (near, far) = duplex(pipe_bytes);
    let (client, driver) = client(Plain(near), ours);
    spawn_local(driver);
    (client, Server::new(Plain(far), theirs))
}

async fn send_all(stream: &mut Stream, mut payload: &[u8]) -> Result<(), StreamError> {
    while !payload.is_empty() {
        let count = poll_fn(|cx| stream.poll_send(cx, payload)).await?;
        payload = &payload[count..];
    }
    Ok(())
}

async fn receive(stream: &mut Stream) -> Result<Option<Bytes>, StreamError> {
    let payload = poll_fn(|cx| stream.poll_recv(cx)).await?;
    stream.consumed(payload.as_ref().map_or(0, Bytes::len));
    Ok(payload)
}

async fn receive_all(stream: &mut Stream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(payload) = receive(stream).await? {
        all.extend_from_slice(&payload);
    }
    Ok(all)
}

/// Accepts every stream and sends back what comes.
async fn echo<T: Transport + Unpin>(mut server: Server<T>) -> Result<(), Error> {
    while let Some(incoming) = server.accept().await {
        let mut stream = incoming?.accept(&HeaderMap::new());
        spawn_local(async move {
            while let Ok(Some(payload)) = receive(&mut stream).await {
                if send_all(&mut stream, &payload).await.is_err() {
                    return;
                }
            }
            stream.send_end();
        });
    }
    Ok(())
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

#[tokio::test(start_paused = true)]
async fn a_stream_carries_bytes_both_ways_and_closes_each_way() {
    local(async {
        let (client, server) = pair(1000, Config::client(), Config::server());
        spawn_local(echo(server));
        let (response, mut stream) = client.open(&request("10.0.0.1:80")).await.unwrap();
        assert_eq!(response.status, StatusCode::OK);
        let payload: Vec<u8> = (0..100_000u32).map(|byte| byte as u8).collect();
        let (mut sent, mut all) = (0, Vec::new());
        while all.len() < payload.len() {
            poll_fn(|cx| {
                if sent < payload.len()
                    && let std::task::Poll::Ready(count) = stream.poll_send(cx, &payload[sent..])
                {
                    sent += count.unwrap();
                    cx.waker().wake_by_ref();
                }
                stream.poll_recv(cx).map(|piece| {
                    let piece = piece.unwrap().unwrap();
                    stream.consumed(piece.len());
                    all.extend_from_slice(&piece);
                })
            })
            .await;
        }
        stream.send_end();
        assert_eq!(receive(&mut stream).await.unwrap(), None);
        assert_eq!(all, payload);
        assert_eq!(client.active_streams(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_stream_does_not_block_others() {
    local(async {
        let (client, mut server) = pair(1 << 16, Config::client(), Config::server());
        let handles = spawn_local(async move {
            let unread = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            spawn_local(echo(server));
            unread
        });
        let (_, mut stuck) = client.open(&request("a:1")).await.unwrap();
        let _unread = handles.await.unwrap();
        let filler = spawn_local(async move { send_all(&mut stuck, &vec![0; 8 << 20]).await });
        let (_, mut stream) = client.open(&request("b:1")).await.unwrap();
        send_all(&mut stream, b"hello").await.unwrap();
        stream.send_end();
        assert_eq!(receive_all(&mut stream).await.unwrap(), b"hello");
        assert!(!filler.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_bulk_streams_share_and_a_small_one_gets_through() {
    local(async {
        let (client, server) = pair(4096, Config::client(), Config::server());
        spawn_local(echo(server));
        let done = Rc::new(std::cell::Cell::new(0));
        for _ in 0..8 {
            let (_, stream) = client.open(&request("bulk:1")).await.unwrap();
            let (mut near, mut far) = tokio::io::split(stream);
            let done = Rc::clone(&done);
            spawn_local(async move {
                use tokio::io::AsyncWriteExt;
                let sink = spawn_local(async move {
                    tokio::io::copy(&mut near, &mut tokio::io::sink()).await.unwrap()
                });
                far.write_all(&vec![1; 2 << 20]).await.unwrap();
                far.shutdown().await.unwrap();
                assert_eq!(sink.await.unwrap(), 2 << 20);
                done.set(done.get() + 1);
            });
        }
        tokio::task::yield_now().await;
        let (_, mut small) = client.open(&request("small:1")).await.unwrap();
        send_all(&mut small, b"ping").await.unwrap();
        small.send_end();
        assert_eq!(receive_all(&mut small).await.unwrap(), b"ping");
        assert_eq!(done.get(), 0, "a bulk stream was served before the small one");
        while done.get() < 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_given_up_and_the_peer_is_told() {
    local(async {
        let (client, mut server) = pair(1000, Config::client(), Config::server());
        let forgetful = spawn_local(async move {
            let incoming = server.accept().await.unwrap().unwrap();
            tokio::select! {
                () = incoming.cancelled() => {}
                _ = server.accept() => panic!("the connection lives"),
            }
            server
        });
        let begun = tokio::time::Instant::now();
        let error = client.open(&request("slow:1")).await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer(_)), "{error}");
        assert_eq!(begun.elapsed().as_secs(), 30);
        let _server = forgetful.await.unwrap();
        assert!(client.is_usable());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_a_status_and_ends_the_stream() {
    local(async {
        let (client, mut server) = pair(1000, Config::client(), Config::server());
        spawn_local(async move {
            let incoming = server.accept().await.unwrap().unwrap();
            assert_eq!(&*incoming.request().unwrap().authority, "nowhere:1");
            incoming.refuse(StatusCode::UNAUTHORIZED, &HeaderMap::new());
            assert!(server.accept().await.is_none());
        });
        let (response, mut stream) = client.open(&request("nowhere:1")).await.unwrap();
        assert_eq!(response.status, StatusCode::UNAUTHORIZED);
        assert_eq!(receive(&mut stream).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn resets_reach_the_other_side_with_their_reason() {
    local(async {
        let (client, mut server) = pair(1000, Config::client(), Config::server());
        let (tx, rx) = tokio::sync::oneshot::channel();
        spawn_local(async move {
            let mut stream = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            stream.reset(Reason::REFUSED_STREAM);
            let stream = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            drop(stream);
            let incoming = server.accept().await.unwrap().unwrap();
            drop(incoming);
            let mut stream = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            spawn_local(async move { tx.send(receive(&mut stream).await) });
            while server.accept().await.is_some() {}
        });
        let (_, mut stream) = client.open(&request("a:1")).await.unwrap();
        let refused = receive(&mut stream).await;
        assert!(matches!(refused, Err(StreamError::Reset(Reason::REFUSED_STREAM))));
        let (_, mut stream) = client.open(&request("a:1")).await.unwrap();
        let cut = receive(&mut stream).await;
        assert!(matches!(cut, Err(StreamError::Reset(Reason::CANCEL))));
        let sent = send_all(&mut stream, b"x").await;
        assert!(matches!(sent, Err(StreamError::BrokenPipe)));
        let refused = client.open(&request("a:1")).await.map(|_| ());
        assert!(matches!(refused, Err(Error::Reset(Reason::REFUSED_STREAM))));
        let (_, mut stream) = client.open(&request("a:1")).await.unwrap();
        stream.reset(Reason::CONNECT_ERROR);
        let reset = rx.await.unwrap();
        assert!(matches!(reset, Err(StreamError::Reset(Reason::CONNECT_ERROR))));
        assert_eq!(client.active_streams(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_finishes_its_streams_and_takes_no_new_ones() {
    local(async {
        let (client, server) = pair(1000, Config::client(), Config::server());
        let drainer = server.drainer();
        let served = spawn_local(echo(server));
        let (_, mut stream) = client.open(&request("a:1")).await.unwrap();
        drainer.drain();
        while !client.is_going_away() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(client.open(&request("a:1")).await, Err(Error::GoingAway)));
        send_all(&mut stream, b"still here").await.unwrap();
        stream.send_end();
        assert_eq!(receive_all(&mut stream).await.unwrap(), b"still here");
        served.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_handles_and_streams_closes() {
    local(async {
        let (client, server) = pair(1000, Config::client(), Config::server());
        let served = spawn_local(echo(server));
        let (_, stream) = client.open(&request("a:1")).await.unwrap();
        drop(client);
        drop(stream);
        served.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_an_error_for_all_its_streams() {
    local(async {
        let (client, mut server) = pair(1000, Config::client(), Config::server());
        let accepted = spawn_local(async move {
            let stream = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            // Polled once more so that the answer is written, then dropped with everything.
            poll_fn(|cx| {
                let _ = server.poll_accept(cx);
                std::task::Poll::Ready(())
            })
            .await;
            drop(server);
            stream
        });
        let (_, mut stream) = client.open(&request("a:1")).await.unwrap();
        let mut theirs = accepted.await.unwrap();
        let lost = receive(&mut stream).await;
        assert!(matches!(lost, Err(StreamError::Connection(Error::PeerClosed))), "{lost:?}");
        assert!(matches!(receive(&mut theirs).await, Err(StreamError::Connection(_))));
        assert!(client.closed().is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    local(async {
        let (near, far) = duplex(1000);
        let (client, driver) = client(Plain(near), Config::client());
        let ended = spawn_local(driver);
        let answer = client.open(&request("a:1")).await.map(|_| ());
        assert!(matches!(answer, Err(Error::Protocol(ConnectionError::PrefaceTimeout))));
        assert!(ended.await.unwrap().is_err());
        drop(far);
    })
    .await;
}
