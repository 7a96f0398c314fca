//! Against the `h2` crate as client and as server: Huffman and dynamic headers, its own idea of
//! windows, interleaving, trailers, resets and GOAWAY.

use h2::{Reason as H2Reason, client as h2_client, server as h2_server};
use http::{Method, Request as HttpRequest, Response as HttpResponse};

use super::*;

const WINDOWS: [u32; 6] = [1, 100, 16_384, 65_535, 1 << 20, 16 << 20];

/// An `h2` client whose windows are `window`, joined to our server.
pub(super) async fn h2_to_us(
    window: u32,
    config: Config,
) -> (h2_client::SendRequest<Bytes>, Server<Plain<DuplexStream>>) {
    let (near, far) = duplex(50_000);
    let (sender, connection) = h2_client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(window.max(65_535))
        .handshake(near)
        .await
        .unwrap();
    spawn_local(connection);
    (sender, Server::new(Plain(far), config))
}

pub(super) fn connect(authority: &str) -> HttpRequest<()> {
    let mut request = HttpRequest::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().unwrap();
    request.headers_mut().insert("baggage", "k8s.namespace.name=team".parse().unwrap());
    request
}

async fn h2_send(stream: &mut h2::SendStream<Bytes>, payload: &[u8]) {
    let mut sent = 0;
    while sent < payload.len() {
        stream.reserve_capacity(payload.len() - sent);
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let end = sent + room.min(payload.len() - sent);
        stream.send_data(Bytes::copy_from_slice(&payload[sent..end]), false).unwrap();
        sent = end;
    }
}

async fn h2_receive(stream: &mut h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(payload) = stream.data().await {
        let payload = payload.unwrap();
        stream.flow_control().release_capacity(payload.len()).unwrap();
        all.extend_from_slice(&payload);
    }
    all
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 13 + seed) as u8).collect()
}

#[tokio::test]
async fn an_h2_client_gets_interleaved_echoes_through_windows_of_every_size() {
    local(async {
        for window in WINDOWS {
            let bytes = if window < 100 { 300 } else { 200_000 };
            let config = Config { stream_window_bytes: window, ..Config::server() };
            let (sender, server) = h2_to_us(window, config).await;
            spawn_local(echo(server));
            let tunnels = (0..5).map(|seed| {
                let sender = sender.clone();
                spawn_local(async move {
                    let mut sender = sender.ready().await.unwrap();
                    let (response, mut send) = sender.send_request(connect("a:1"), false).unwrap();
                    let response = response.await.unwrap();
                    assert_eq!(response.status(), 200);
                    let payload = pattern(bytes, seed);
                    let expected = payload.clone();
                    spawn_local(async move {
                        h2_send(&mut send, &payload).await;
                        send.send_data(Bytes::new(), true).unwrap();
                    });
                    assert_eq!(h2_receive(&mut response.into_body()).await, expected);
                })
            });
            for tunnel in tunnels.collect::<Vec<_>>() {
                tunnel.await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_h2_client_sees_refusals_resets_and_goaway() {
    local(async {
        let (mut sender, mut server) = h2_to_us(65_535, Config::server()).await;
        let drainer = server.drainer();
        let served = spawn_local(async move {
            let incoming = server.accept().await.unwrap().unwrap();
            assert_eq!(incoming.request().unwrap().headers["baggage"], "k8s.namespace.name=team");
            incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new());
            let mut stream = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            stream.reset(Reason::REFUSED_STREAM);
            let mut stream = server.accept().await.unwrap().unwrap().accept(&HeaderMap::new());
            let reset = spawn_local(async move { receive(&mut stream).await });
            assert!(server.accept().await.is_none());
            reset.await.unwrap()
        });
        let (response, _send) = sender.send_request(connect("a:1"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 503);
        let (response, _send) = sender.send_request(connect("a:1"), false).unwrap();
        let error = response.await.unwrap().into_body().data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(H2Reason::REFUSED_STREAM));
        let (response, mut send) = sender.send_request(connect("a:1"), false).unwrap();
        response.await.unwrap();
        drainer.drain();
        while poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        send.send_reset(H2Reason::CONNECT_ERROR);
        let reset = served.await.unwrap();
        assert!(matches!(reset, Err(StreamError::Reset(Reason::CONNECT_ERROR))), "{reset:?}");
    })
    .await;
}

#[tokio::test]
async fn trailers_of_an_h2_client_end_its_direction() {
    local(async {
        let (mut sender, server) = h2_to_us(65_535, Config::server()).await;
        spawn_local(echo(server));
        let (response, mut send) = sender.send_request(connect("a:1"), false).unwrap();
        let response = response.await.unwrap();
        h2_send(&mut send, b"last words").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "1".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        assert_eq!(h2_receive(&mut response.into_body()).await, b"last words");
    })
    .await;
}

/// An `h2` server that answers each tunnel by `answer`.
pub(super) fn us_to_h2<F, Fut>(window: u32, ours: Config, answer: F) -> Client
where
    F: Fn(HttpRequest<h2::RecvStream>, h2_server::SendResponse<Bytes>) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (near, far) = duplex(50_000);
    let (client, driver) = client(Plain(near), ours);
    spawn_local(driver);
    spawn_local(async move {
        let mut connection = h2_server::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window.max(65_535))
            .max_concurrent_streams(6)
            .handshake::<_, Bytes>(far)
            .await
            .unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            spawn_local(answer(request, respond));
        }
    });
    client
}

#[tokio::test]
async fn an_h2_server_echoes_through_windows_of_every_size() {
    local(async {
        for window in WINDOWS {
            let bytes = if window < 100 { 300 } else { 200_000 };
            let config = Config { stream_window_bytes: window, ..Config::client() };
            let client = us_to_h2(window, config, |request, mut respond| async move {
                assert_eq!(request.uri().authority().unwrap(), "10.0.0.1:80");
                let mut send = respond.send_response(HttpResponse::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(payload) = body.data().await {
                    let payload = payload.unwrap();
                    body.flow_control().release_capacity(payload.len()).unwrap();
                    h2_send(&mut send, &payload).await;
                }
                send.send_trailers(HeaderMap::new()).unwrap();
            });
            let tunnels = (0..5).map(|seed| {
                let client = client.clone();
                spawn_local(async move {
                    let (_, stream) = client.open(&request("10.0.0.1:80")).await.unwrap();
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let payload = pattern(bytes, seed);
                    let expected = payload.clone();
                    spawn_local(async move {
                        use tokio::io::AsyncWriteExt;
                        writer.write_all(&payload).await.unwrap();
                        writer.shutdown().await.unwrap();
                    });
                    let mut all = Vec::new();
                    use tokio::io::AsyncReadExt;
                    reader.read_to_end(&mut all).await.unwrap();
                    assert_eq!(all, expected);
                })
            });
            for tunnel in tunnels.collect::<Vec<_>>() {
                tunnel.await.unwrap();
            }
            assert_eq!(client.active_streams(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn an_h2_server_can_refuse_and_reset() {
    local(async {
        let client = us_to_h2(65_535, Config::client(), |request, mut respond| async move {
            match request.uri().host() {
                Some("refused") => respond.send_reset(H2Reason::REFUSED_STREAM),
                Some("denied") => {
                    let response = HttpResponse::builder().status(401).body(()).unwrap();
                    respond.send_response(response, true).unwrap();
                }
                _ => {
                    let mut send = respond.send_response(HttpResponse::new(()), false).unwrap();
                    // The crate drops queued frames on a reset: let the head leave first.
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    send.send_reset(H2Reason::CANCEL);
                }
            }
        });
        let refused = client.open(&request("refused:1")).await.map(|_| ());
        assert!(matches!(refused, Err(Error::Reset(Reason::REFUSED_STREAM))), "{refused:?}");
        let (response, _stream) = client.open(&request("denied:1")).await.unwrap();
        assert_eq!(response.status, StatusCode::UNAUTHORIZED);
        let (_, mut stream) = client.open(&request("cancelled:1")).await.unwrap();
        let cut = receive(&mut stream).await;
        assert!(matches!(cut, Err(StreamError::Reset(Reason::CANCEL))), "{cut:?}");
    })
    .await;
}

/// Older versions of Envoy say NO_ERROR whenever they reset; after END_STREAM the same is no fault.
#[tokio::test]
async fn only_the_end_of_a_stream_is_an_end_whatever_a_reset_says() {
    local(async {
        for reason in [H2Reason::NO_ERROR, H2Reason::CANCEL, H2Reason::INTERNAL_ERROR] {
            let client =
                us_to_h2(65_535, Config::client(), move |request, mut respond| async move {
                    let ends = request.uri().host() == Some("ends");
                    let mut send = respond.send_response(HttpResponse::new(()), false).unwrap();
                    send.send_data(Bytes::from_static(b"some"), ends).unwrap();
                    // The crate drops queued frames on a reset: let them leave first.
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    send.send_reset(reason);
                });
            let (_, mut stream) = client.open(&request("cut:1")).await.unwrap();
            assert_eq!(receive(&mut stream).await.unwrap().as_deref(), Some(&b"some"[..]));
            let cut = receive(&mut stream).await;
            assert!(matches!(cut, Err(StreamError::Reset(_))), "{reason:?}: {cut:?}");
            let (_, mut stream) = client.open(&request("ends:1")).await.unwrap();
            while poll_fn(|cx| stream.poll_send(cx, b"x")).await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert_eq!(receive_all(&mut stream).await.unwrap(), b"some", "{reason:?}");
        }
    })
    .await;
}

/// An `h2` server that echoes and is told from outside what to do with its connection.
fn us_to_h2_told<T: 'static>(
    mut told: tokio::sync::mpsc::UnboundedReceiver<T>,
    act: impl Fn(&mut h2_server::Connection<DuplexStream, Bytes>, T) + 'static,
) -> Client {
    let (near, far) = duplex(50_000);
    let (client, driver) = client(Plain(near), Config::client());
    spawn_local(driver);
    spawn_local(async move {
        let mut connection = h2_server::handshake(far).await.unwrap();
        loop {
            tokio::select! {
                Some(what) = told.recv() => act(&mut connection, what),
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    spawn_local(h2_echo(request, respond));
                }
            }
        }
    });
    client
}

async fn h2_echo(
    request: HttpRequest<h2::RecvStream>,
    mut respond: h2_server::SendResponse<Bytes>,
) {
    let mut send = respond.send_response(HttpResponse::new(()), false).unwrap();
    let mut body = request.into_body();
    while let Some(payload) = body.data().await {
        let payload = payload.unwrap();
        body.flow_control().release_capacity(payload.len()).unwrap();
        h2_send(&mut send, &payload).await;
    }
    send.send_data(Bytes::new(), true).unwrap();
}

#[tokio::test]
async fn an_h2_server_that_goes_away_finishes_what_is_open_and_gets_nothing_new() {
    local(async {
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let client = us_to_h2_told(told, |connection, ()| connection.graceful_shutdown());
        let (_, mut old) = client.open(&request("a:1")).await.unwrap();
        tell.send(()).unwrap();
        while !client.is_going_away() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(client.open(&request("a:1")).await, Err(Error::GoingAway)));
        send_all(&mut old, b"still here").await.unwrap();
        old.send_end();
        assert_eq!(receive_all(&mut old).await.unwrap(), b"still here");
        // The crate hangs up when its last stream has ended, and we with it.
        while client.closed().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_h2_server_that_gives_up_loses_every_stream() {
    local(async {
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let client = us_to_h2_told(told, |connection, ()| {
            connection.abrupt_shutdown(H2Reason::INTERNAL_ERROR);
        });
        let (_, mut one) = client.open(&request("a:1")).await.unwrap();
        let (_, mut other) = client.open(&request("a:1")).await.unwrap();
        tell.send(()).unwrap();
        for stream in [&mut one, &mut other] {
            assert!(receive(stream).await.is_err());
        }
        assert!(client.open(&request("a:1")).await.is_err());
    })
    .await;
}

/// RFC 9113 §6.9.2: a smaller initial window takes from streams that have already spent more.
#[tokio::test]
async fn windows_of_an_h2_server_that_change_under_open_streams_lose_nothing() {
    local(async {
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let client = us_to_h2_told(told, |connection, window| {
            connection.set_initial_window_size(window).unwrap();
        });
        let mut tunnels = Vec::new();
        for seed in 0..4 {
            let (_, stream) = client.open(&request("a:1")).await.unwrap();
            tunnels.push(spawn_local(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let (mut reader, mut writer) = tokio::io::split(stream);
                let payload = pattern(400_000, seed);
                let expected = payload.clone();
                spawn_local(async move {
                    writer.write_all(&payload).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
                let mut all = Vec::new();
                reader.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, expected);
            }));
        }
        let mut sizes = [100, 1 << 20, 1, 65_535].into_iter().cycle();
        while tunnels.iter().any(|tunnel| !tunnel.is_finished()) {
            // The crate takes a new size only after the last one was acknowledged.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            tell.send(sizes.next().unwrap()).unwrap();
        }
        for tunnel in tunnels {
            tunnel.await.unwrap();
        }
    })
    .await;
}
