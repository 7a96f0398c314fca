//! Connections to applications: whose they are, when they end, and what is sent again because of it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use harness::asking::{Answer, Ask};
use harness::backend::{Backend, Guest};
use harness::eventually::{becomes, eventually};
use http_body_util::BodyExt as _;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::frames::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame};
use super::http2;
use super::lab::{APP, Lab};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::endpoints::one_that_refuses_connections_is_passed_over", &[], refuses),
    ("waypoint::endpoints::clients_never_share_a_connection", &[], shared),
    ("waypoint::endpoints::http2_says_what_may_be_sent_again", &[], http2_ends),
    ("waypoint::endpoints::what_a_client_leaves_is_left_by_the_waypoint", &[], left),
];

fn refuses() -> anyhow::Result<()> {
    let lab = Lab::new("endpoints-refuse")?;
    let backend = Backend::start(&lab.scene.v2, 8001, |guest| {
        while guest.request()?.is_some() {
            guest.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let both = SocketAddr::from(([10, 96, 0, 22], 80));
    for number in 0..20 {
        let ask = Ask::get(both, &format!("/{number}")).method("POST").body(b"pay 10");
        let answer = ask.from(&lab.scene.client)?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    ensure!(backend.heard().len() == 20, "{} deliveries", backend.heard().len());
    Ok(())
}

/// The application is shown its client by the address of the connection.
fn shared() -> anyhow::Result<()> {
    let lab = Lab::new("endpoints-shared")?;
    for pod in [&lab.scene.client, &lab.scene.v2].repeat(5) {
        let seen = Lab::get(APP, "/").from(pod)?.seen()?;
        ensure!(seen.peer.contains(&pod.ip().to_string()), "{seen:?}, not {}", pod.ip());
    }
    Ok(())
}

/// RFC 7541, appendix A: entry 8, ":status: 200".
pub(crate) const STATUS_200: &[u8] = &[0x80 | 8];

fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200)
}

fn reset(stream: u32, code: u8) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, code])
}

fn going_away(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

/// What a server says to a request on this stream, the how many-th it is, and whether it closes then.
pub(crate) type Script = fn(u32, u32) -> (Vec<u8>, bool);

/// A server of HTTP/2 that follows `script`, and how many requests it gets.
pub(crate) fn scripted(
    lab: &Lab,
    port: u16,
    script: Script,
) -> anyhow::Result<(Backend, &'static AtomicU32)> {
    let requests: &AtomicU32 = Box::leak(Box::default());
    let backend = lab.backend(port, move |guest| {
        // RFC 9113 §3.4: the client's preface.
        guest.wire.take(24)?;
        guest.say(frame(SETTINGS, 0, 0, &[]))?;
        loop {
            let heard = frames::next(&mut guest.wire)?;
            if heard.kind == SETTINGS && heard.flags & frames::ACK == 0 {
                guest.say(frame(SETTINGS, frames::ACK, 0, &[]))?;
            }
            if heard.kind == HEADERS {
                let (said, close) = script(heard.stream, requests.fetch_add(1, Ordering::SeqCst));
                guest.say(said)?;
                if close {
                    return Ok(());
                }
            }
        }
    })?;
    Ok((backend, requests))
}

fn asked(lab: &Lab, port: u16, method: &str) -> anyhow::Result<Answer> {
    Ok(Lab::get(port, "/").method(method).from(&lab.scene.client)?)
}

fn http2_ends() -> anyhow::Result<()> {
    Lab::all(
        "endpoints-http2",
        &[
            ("a refused stream was not processed", refused_stream),
            ("neither was what GOAWAY does not count", not_counted),
            ("what it counts may have been", counted),
            ("a connection that ends with each answer is hidden", goes_away),
            ("the same without GOAWAY", closes),
            ("a reset before the answer is no answer, and not repeated", reset_before),
            ("a reset after the head cuts the answer", reset_after),
        ],
    )
}

/// RFC 9113 §8.7: safe to send again, whatever the method is.
fn refused_stream(lab: &Lab) -> anyhow::Result<()> {
    for (method, body) in [("GET", &b""[..]), ("POST", b""), ("POST", b"pay 10")] {
        let port = lab.fresh_http2();
        let script: Script = |id, number| match number {
            0 => (reset(id, 7), false),
            _ => (ok(id), false),
        };
        let (_backend, requests) = scripted(lab, port, script)?;
        let answer = Lab::get(port, "/").method(method).body(body).from(&lab.scene.client)?;
        ensure!(answer.status == 200, "{method}: {answer:?}");
        ensure!(requests.load(Ordering::SeqCst) == 2, "{method}: {requests:?}");
    }
    Ok(())
}

/// RFC 9113 §6.8: what is above the last stream that is named was not begun, whatever its method.
fn not_counted(lab: &Lab) -> anyhow::Result<()> {
    for (method, body) in [("GET", &b""[..]), ("POST", b""), ("POST", b"pay 10")] {
        let port = lab.fresh_http2();
        let script: Script = |id, number| match number {
            0 => (going_away(0), true),
            _ => (ok(id), false),
        };
        let (_backend, requests) = scripted(lab, port, script)?;
        let answer = Lab::get(port, "/").method(method).body(body).from(&lab.scene.client)?;
        ensure!(answer.status == 200, "{method}: {answer:?}");
        ensure!(requests.load(Ordering::SeqCst) == 2, "{method}: {requests:?}");
    }
    Ok(())
}

/// What the GOAWAY names may have been begun.
fn counted(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh_http2();
    let (_backend, requests) = scripted(lab, port, |id, _| (going_away(id), true))?;
    let answer = asked(lab, port, "POST")?;
    let cause = answer.header("proxy-status").unwrap_or_default();
    ensure!(answer.status == 503 && cause.contains("DELIVERY_UNKNOWN"), "{answer:?}");
    ensure!(requests.load(Ordering::SeqCst) == 1, "{requests:?}");
    Ok(())
}

fn goes_away(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh_http2();
    let script: Script = |id, _| ([ok(id), going_away(id)].concat(), true);
    all_answered(lab, port, script, &["GET", "POST"])
}

fn closes(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh_http2();
    all_answered(lab, port, |id, _| (ok(id), true), &["GET"])
}

fn all_answered(lab: &Lab, port: u16, script: Script, methods: &[&str]) -> anyhow::Result<()> {
    let (_backend, requests) = scripted(lab, port, script)?;
    let mut wire = lab.wire(port)?;
    for method in methods.repeat(50) {
        wire.say(format!("{method} / HTTP/1.1\r\nHost: lab\r\nContent-Length: 0\r\n\r\n"))?;
        let answer = wire.answer(method)?;
        ensure!(answer.status == 200, "{method}: {answer:?}");
    }
    let (requests, expected) = (requests.load(Ordering::SeqCst), methods.len() * 50);
    ensure!(usize::try_from(requests)? == expected, "{requests} of {expected} delivered");
    Ok(())
}

fn reset_before(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh_http2();
    // INTERNAL_ERROR
    let (_backend, requests) = scripted(lab, port, |id, _| (reset(id, 2), false))?;
    let answer = asked(lab, port, "POST")?;
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(requests.load(Ordering::SeqCst) == 1, "{requests:?}");
    Ok(())
}

fn reset_after(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh_http2();
    let script: Script = |id, _| {
        let head = frame(HEADERS, END_HEADERS, id, STATUS_200);
        ([head, frame(frames::DATA, 0, id, b"hello"), reset(id, 8)].concat(), false)
    };
    let (_backend, _) = scripted(lab, port, script)?;
    let answer = asked(lab, port, "GET");
    ensure!(answer.is_err(), "{answer:?}");
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
        // The reset may overtake the head.
        let Ok(response) = sender.send_request(http2::get("/")).await else { return Ok(()) };
        ensure!(response.into_body().collect().await.is_err(), "it is complete");
        Ok(())
    })
}

fn left() -> anyhow::Result<()> {
    Lab::all(
        "endpoints-left",
        &[
            ("a stream that is cancelled", stream_cancelled),
            ("a body that is not sent to its end", upload_left),
            ("an answer that is not read to its end", download_left),
        ],
    )
}

/// Answers without an end.
fn endless(guest: &mut Guest) -> io::Result<()> {
    guest.wire.until(b"\r\n\r\n")?;
    guest.say("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")?;
    loop {
        guest.say([b'x'; 65536])?;
    }
}

fn is_left(backend: &Backend) -> anyhow::Result<()> {
    eventually(SOON, "the application is left alone", || match backend.ended() {
        0 => Err("it is not"),
        _ => Ok(()),
    })
}

fn stream_cancelled(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh();
    let backend = lab.backend(port, endless)?;
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
        let mut response = sender.send_request(http2::get("/")).await?;
        response.body_mut().frame().await.context("it ended")??;
        drop(response);
        // Its connection lives on.
        becomes(SOON, "the application is left alone", async || match backend.ended() {
            0 => Err("it is not"),
            _ => Ok(()),
        })
        .await?;
        sender.ready().await.context("the connection is gone")
    })?;
    lab.told("CLIENT_GONE").map(drop)
}

fn upload_left(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh();
    let backend = lab.backend(port, |guest| guest.request().map(drop))?;
    let mut wire = lab.wire(port)?;
    wire.say("POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: 1000000\r\n\r\nhello")?;
    eventually(SOON, "the request arrives", || match backend.accepted() {
        0 => Err("it does not"),
        _ => Ok(()),
    })?;
    drop(wire);
    is_left(&backend)?;
    ensure!(backend.heard().is_empty(), "{:?}", backend.heard());
    Ok(())
}

fn download_left(lab: &Lab) -> anyhow::Result<()> {
    let port = lab.fresh();
    let backend = lab.backend(port, endless)?;
    let mut wire = lab.wire(port)?;
    wire.say("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    wire.take(1_000_000)?;
    drop(wire);
    is_left(&backend)
}
