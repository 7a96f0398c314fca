//! Against the `h2` crate as client and as server: Huffman and dynamic headers, its own idea of
//! windows, interleaving, trailers, resets and GOAWAY.

use h2::{Reason as H2Reason, client as h2_client, server as h2_server};
use http::{Method, Request as HttpRequest, Response as HttpResponse};

use super::*;

const WINDOWS: [u32; 6] = [1, 100, 16_384, 65_535, 1 << 20, 16 << 20];

/// An `h2` client whose windows are `window`, joined to our server.
async fn h2_to_us(
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

fn connect(authority: &str) -> HttpRequest<()> {
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
            assert_eq!(incoming.request().headers["baggage"], "k8s.namespace.name=team");
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

#[tokio::test]
async fn headers_that_need_continuation_pass_in_both_directions() {
    local(async {
        let (mut sender, mut server) = h2_to_us(65_535, Config::server()).await;
        let large: http::HeaderValue = "y".repeat(20_000).parse().unwrap();
        let ours = large.clone();
        spawn_local(async move {
            let incoming = server.accept().await.unwrap().unwrap();
            assert_eq!(incoming.request().headers["x-large"], ours);
            let mut headers = HeaderMap::new();
            headers.insert("x-large", ours.clone());
            incoming.accept(&headers).send_end();
            while server.accept().await.is_some() {}
        });
        let mut request = connect("a:1");
        request.headers_mut().insert("x-large", large.clone());
        let (response, _send) = sender.send_request(request, false).unwrap();
        assert_eq!(response.await.unwrap().headers()["x-large"], large);
    })
    .await;
}

/// An `h2` server that answers each tunnel by `answer`.
fn us_to_h2<F, Fut>(window: u32, ours: Config, answer: F) -> Client
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
