//! WebSockets over HTTP/1.1 (RFC 6455) and over a stream of HTTP/2 (RFC 8441), carried by the waypoint.

use std::io;

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use harness::backend::Guest;
use harness::eventually::eventually;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::http2;
use super::lab::{APP, HTTP, HTTP_TOO, Lab, UNNAMED};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::upgrade::a_websocket_is_carried_over_http1", &[], over_http1),
    ("waypoint::upgrade::a_websocket_is_carried_over_http2", &[], over_http2),
];

fn over_http1() -> anyhow::Result<()> {
    Lab::all(
        "upgrade-http1",
        &[
            ("text and binary are echoed, and the close is answered", echoed),
            ("the same on a port whose protocol is not known", echoed_unnamed),
            ("a no to an upgrade is an answer like others", refused),
            ("what comes with the switch is not lost", early_bytes),
            ("an end without a close frame reaches the client", cut),
            ("h2c is not switched to", h2c),
        ],
    )
}

/// A WebSocket server that sends back what it reads.
fn echo(guest: &mut Guest) -> io::Result<()> {
    let mut socket = tungstenite::accept(guest.wire.stream()?).map_err(io::Error::other)?;
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket.send(message).map_err(io::Error::other)?;
            }
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
}

fn echoed(lab: &Lab) -> anyhow::Result<()> {
    echoed_at(lab, HTTP)
}

fn echoed_unnamed(lab: &Lab) -> anyhow::Result<()> {
    echoed_at(lab, UNNAMED)
}

fn echoed_at(lab: &Lab, port: u16) -> anyhow::Result<()> {
    let backend = lab.backend(port, echo)?;
    let stream = lab.wire(port)?.into_stream();
    let (mut socket, response) = tungstenite::client("ws://lab/chat?room=1", stream)?;
    ensure!(response.status() == 101, "{response:?}");
    for message in [Message::text("hello"), Message::binary(vec![7_u8; 100_000])] {
        socket.send(message.clone())?;
        let answer = socket.read()?;
        ensure!(answer == message, "{} bytes came back", answer.len());
    }
    socket.close(None)?;
    ensure!(socket.read()?.is_close(), "the close is not answered");
    let ended = socket.read();
    ensure!(matches!(ended, Err(tungstenite::Error::ConnectionClosed)), "{ended:?}");
    eventually(SOON, "the server's connection ends", || match backend.ended() {
        1 => Ok(()),
        ended => Err(format!("{ended} ended")),
    })
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn refused(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP_TOO, |guest| {
        while guest.request()?.is_some() {
            guest.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        }
        Ok(())
    })?;
    let mut wire = lab.wire(HTTP_TOO)?;
    for _ in 0..2 {
        wire.say(ASK)?;
        let answer = wire.answer("GET")?;
        ensure!(answer.status == 403 && answer.body == b"no", "{answer:?}");
    }
    Ok(())
}

fn early_bytes(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP_TOO, |guest| {
        let heard = guest.request()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if heard.header("upgrade") != Some("websocket") {
            return guest.say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
        guest.say(format!("{SWITCH}greeting "))?;
        let early = guest.wire.take(5)?;
        guest.say(early)
    })?;
    let mut wire = lab.wire(HTTP_TOO)?;
    wire.say(format!("{ASK}early"))?;
    let answer = wire.answer("GET")?;
    ensure!(answer.status == 101 && answer.header("upgrade") == Some("websocket"), "{answer:?}");
    let rest = String::from_utf8(wire.rest()?)?;
    ensure!(rest == "greeting early", "{rest:?}");
    Ok(())
}

fn cut(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP_TOO, |guest| {
        guest.request()?;
        guest.say(SWITCH)
    })?;
    let mut wire = lab.wire(HTTP_TOO)?;
    wire.say(ASK)?;
    ensure!(wire.answer("GET")?.status == 101);
    ensure!(wire.rest()?.is_empty());
    Ok(())
}

/// RFC 9113 has no upgrade from HTTP/1.1 any more; RFC 9110 §7.8: whoever does not want it goes on.
fn h2c(lab: &Lab) -> anyhow::Result<()> {
    let ask = Lab::get(APP, "/")
        .header("Connection", "close, Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAAP__");
    let answer = ask.from(&lab.scene.client)?;
    ensure!(answer.status == 200, "{answer:?}");
    let seen = answer.seen()?;
    for gone in ["upgrade", "http2-settings"] {
        ensure!(!seen.headers.contains_key(gone), "{gone}: {seen:?}");
    }
    Ok(())
}

fn over_http2() -> anyhow::Result<()> {
    Lab::all(
        "upgrade-http2",
        &[
            ("text and binary are echoed, and the close is answered", stream_echoed),
            ("a no to an upgrade is an answer like others", stream_refused),
            ("a server that did not read the key is not believed", unread_key),
            ("other protocols are refused", other_protocol),
        ],
    )
}

/// Asks for `protocol` on a stream of a connection that has carried a request already: by then the
/// server has announced extended CONNECT.
async fn extended(
    lab: &Lab,
    port: u16,
    protocol: &'static str,
) -> anyhow::Result<(http2::Sender, Response<Incoming>)> {
    let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
    let _ = sender.send_request(http2::get("/first")).await?.into_body().collect().await?;
    let mut request = Request::new(http2::empty());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "http://lab/chat".parse()?;
    request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
    request.extensions_mut().insert(Protocol::from_static(protocol));
    let response = sender.send_request(request).await?;
    Ok((sender, response))
}

/// Answers plain requests, and upgrades with `upgrade`.
fn mixed(
    upgrade: impl Fn(&mut Guest) -> io::Result<()> + Send + Sync + 'static,
) -> impl Fn(&mut Guest) -> io::Result<()> + Send + Sync + 'static {
    move |guest| {
        let mut first = [0; 10];
        guest.wire.stream()?.peek(&mut first)?;
        if first.starts_with(b"GET /first") {
            guest.request()?;
            return guest.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        upgrade(guest)
    }
}

fn stream_echoed(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP, mixed(echo))?;
    http2::run(async {
        let (_sender, response) = extended(lab, HTTP, "websocket").await?;
        ensure!(response.status() == 200, "{response:?}");
        let stream = TokioIo::new(hyper::upgrade::on(response).await?);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        for message in [Message::text("hello"), Message::binary(vec![7_u8; 100_000])] {
            socket.send(message.clone()).await?;
            let answer = socket.next().await.context("it ended")??;
            ensure!(answer == message, "{} bytes came back", answer.len());
        }
        socket.close(None).await?;
        let closed = socket.next().await.context("the close is not answered")??;
        ensure!(closed.is_close(), "{closed:?}");
        Ok(())
    })
}

fn stream_refused(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(
        HTTP,
        mixed(|guest| {
            guest.request()?;
            guest.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        }),
    )?;
    http2::run(async {
        let (_sender, response) = extended(lab, HTTP, "websocket").await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == 403 && body == "no", "{status}: {body:?}");
        Ok(())
    })
}

fn unread_key(lab: &Lab) -> anyhow::Result<()> {
    let answer = |guest: &mut Guest| {
        guest.request()?;
        guest.say(SWITCH)
    };
    let _backend = lab.backend(HTTP_TOO, mixed(answer))?;
    http2::run(async {
        let (_sender, response) = extended(lab, HTTP_TOO, "websocket").await?;
        ensure!(response.status() == 502, "{response:?}");
        Ok(())
    })?;
    lab.told("UPGRADE_REFUSED").map(drop)
}

fn other_protocol(lab: &Lab) -> anyhow::Result<()> {
    http2::run(async {
        let (_sender, response) = extended(lab, APP, "connect-udp").await?;
        ensure!(response.status() == 403, "{response:?}");
        Ok(())
    })?;
    lab.told("UPGRADE_UNSUPPORTED").map(drop)
}
