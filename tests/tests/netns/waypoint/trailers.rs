//! Trailers pass between versions of HTTP wherever both sides can have them.

use anyhow::{Context as _, ensure};
use harness::role::app::Seen;
use harness::wire::Wire;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;

use super::super::suite::Case;
use super::http2;
use super::lab::{APP, GRPC_APP, Lab};

pub(crate) const CASES: &[Case] =
    &[("waypoint::trailers::trailers_pass_between_the_versions", &[], trailers)];

fn trailers() -> anyhow::Result<()> {
    Lab::all(
        "trailers",
        &[
            ("from HTTP/1.1 to HTTP/1.1, where announced", up_http1),
            ("from HTTP/1.1 to HTTP/2", up_http1_to_http2),
            ("from HTTP/2 to HTTP/1.1, where announced", up_http2_to_http1),
            ("back from HTTP/1.1 to HTTP/1.1, for who asks for them", down_http1),
            ("not back to who does not ask", down_unasked),
            ("back from HTTP/1.1 to HTTP/2", down_http1_to_http2),
        ],
    )
}

const POST: &str = "POST / HTTP/1.1\r\nHost: lab\r\nTrailer: x-sum\r\n\
    Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n";

fn arrived(seen: &Seen) -> anyhow::Result<()> {
    ensure!(seen.body_bytes == 4, "{seen:?}");
    ensure!(seen.trailers.get("x-sum").is_some_and(|sum| sum == "abc"), "{seen:?}");
    Ok(())
}

fn up_at(lab: &Lab, port: u16, version: &str) -> anyhow::Result<()> {
    let mut wire = lab.wire(port)?;
    wire.say(POST)?;
    let seen = wire.answer("POST")?.seen()?;
    ensure!(seen.version == version, "{seen:?}");
    arrived(&seen)
}

fn up_http1(lab: &Lab) -> anyhow::Result<()> {
    up_at(lab, APP, "HTTP/1.1")
}

fn up_http1_to_http2(lab: &Lab) -> anyhow::Result<()> {
    up_at(lab, GRPC_APP, "HTTP/2.0")
}

fn up_http2_to_http1(lab: &Lab) -> anyhow::Result<()> {
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(APP)).await?;
        let name = HeaderName::from_static("x-sum");
        let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("abc"))]);
        let mut request = http2::post("/", b"body", trailers);
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        arrived(&http2::seen(sender.send_request(request).await?).await?)
    })
}

/// A port behind which answers have trailers.
fn with_trailers(lab: &Lab) -> anyhow::Result<(u16, harness::backend::Backend)> {
    let port = lab.fresh();
    let backend = lab.backend(port, |guest| {
        guest.request()?;
        guest.say(
            "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n",
        )
    })?;
    Ok((port, backend))
}

/// Everything after the head of the answer to a request with these headers.
fn down(lab: &Lab, headers: &str) -> anyhow::Result<String> {
    let (port, _backend) = with_trailers(lab)?;
    let mut wire: Wire = lab.wire(port)?;
    wire.say(format!("GET / HTTP/1.1\r\nHost: lab\r\n{headers}\r\n\r\n"))?;
    wire.until(b"\r\n\r\n")?;
    Ok(String::from_utf8(wire.rest()?)?)
}

fn down_http1(lab: &Lab) -> anyhow::Result<()> {
    let rest = down(lab, "Connection: close, TE\r\nTE: trailers")?;
    ensure!(rest.to_lowercase() == "4\r\nbody\r\n0\r\nx-sum: abc\r\n\r\n", "{rest:?}");
    Ok(())
}

fn down_unasked(lab: &Lab) -> anyhow::Result<()> {
    let rest = down(lab, "Connection: close")?;
    ensure!(rest == "4\r\nbody\r\n0\r\n\r\n", "{rest:?}");
    Ok(())
}

fn down_http1_to_http2(lab: &Lab) -> anyhow::Result<()> {
    let (port, _backend) = with_trailers(lab)?;
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
        let response = sender.send_request(http2::get("/")).await?;
        let body = response.into_body().collect().await?;
        let sum = body.trailers().context("no trailers")?.get("x-sum");
        ensure!(sum.is_some_and(|sum| sum == "abc"), "{sum:?}");
        Ok(())
    })
}
