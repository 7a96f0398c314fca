//! Clients that break the rules of HTTP/2, or flood: their stream or their connection ends, the
//! application hears nothing, and nobody else notices.

use anyhow::{Context as _, ensure};
use harness::backend::Backend;
use harness::wire::Wire;
use http::HeaderValue;

use super::super::suite::Case;
use super::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, get, request,
};
use super::http2;
use super::lab::{APP, HTTP, Lab};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::floods::requests_that_break_the_rules_are_reset_alone", &[], malformed_requests),
    ("waypoint::floods::connections_that_break_the_rules_end", &[], malformed_connections),
    ("waypoint::floods::floods_end_the_connection_that_sends_them", &[], floods),
    ("waypoint::floods::floods_that_cost_nothing_are_borne_in_little_memory", &[], borne),
    ("waypoint::floods::headers_beyond_the_limits_are_answered_with_431", &[], too_large),
];

/// RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
/// RFC 7541, appendix A: entry 12.
const STATUS_400: u8 = 0x80 | 12;

/// The application of these tests, which must not be reached.
fn backend(lab: &Lab) -> anyhow::Result<Backend> {
    lab.backend(HTTP, |guest| {
        while guest.request()?.is_some() {
            guest.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })
}

/// A connection that has said its preface and then `said`, of which the end may not be taken.
fn after(lab: &Lab, port: u16, said: &[u8]) -> anyhow::Result<Wire> {
    let mut wire = lab.wire(port)?;
    wire.say(frames::preface())?;
    // The other side may cut us off in the middle.
    let _ = wire.say(said);
    Ok(wire)
}

/// How the waypoint ends stream 1: with a reset, an answer, or the whole connection.
#[derive(Debug, PartialEq)]
enum Ended {
    Reset(u32),
    Answered(u8),
    GoneAway(u32),
}

fn ended(wire: &mut Wire) -> anyhow::Result<Ended> {
    let code = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes);
    loop {
        let frame = frames::next(wire).context("no answer to the stream")?;
        match (frame.kind, frame.stream) {
            (RST_STREAM, 1) => return Ok(Ended::Reset(code(&frame.payload[..4])?)),
            (HEADERS, 1) => return Ok(Ended::Answered(frame.payload[0])),
            (GOAWAY, _) => return Ok(Ended::GoneAway(code(&frame.payload[4..8])?)),
            _ => {}
        }
    }
}

/// Stream 1 with `GET /`, without the header `left_out` and with `more`.
fn changed(left_out: &str, more: &[(&'static str, &'static str)]) -> Vec<u8> {
    let kept = get("/").into_iter().filter(|(name, _)| *name != left_out);
    request(1, &kept.chain(more.iter().copied()).collect::<Vec<_>>())
}

/// Stream 1 with a body of five bytes and these headers.
fn posted(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    let headers = [&[(":method", "POST")][..], &get("/")[1..], more].concat();
    [frame(HEADERS, END_HEADERS, 1, &block(&headers)), frame(DATA, END_STREAM, 1, b"hello")]
        .concat()
}

fn malformed_requests() -> anyhow::Result<()> {
    let lab = Lab::new("floods-requests")?;
    let backend = backend(&lab)?;
    let late = [(":method", "GET"), ("x", "1"), (":scheme", "http"), (":path", "/")];
    let requests = [
        changed(":path", &[]),
        changed(":path", &[(":path", "")]),
        changed(":path", &[(":path", "no-slash")]),
        changed(":path", &[(":path", "/a b")]),
        changed(":path", &[(":path", "/a\r\nx: y")]),
        changed(":method", &[]),
        changed(":scheme", &[]),
        changed("", &[(":method", "GET")]),
        changed("", &[(":status", "200")]),
        request(1, &late),
        // RFC 9113 §8.2.2.
        changed("", &[("connection", "close")]),
        changed("", &[("transfer-encoding", "chunked")]),
        changed("", &[("upgrade", "websocket")]),
        changed("", &[("te", "gzip")]),
        // RFC 9113 §8.1.1.
        posted(&[("content-length", "3")]),
        posted(&[("content-length", "9")]),
        posted(&[("content-length", "5"), ("content-length", "6")]),
        posted(&[("content-length", "x")]),
    ];
    for said in requests {
        let shown = String::from_utf8_lossy(&said).into_owned();
        let mut wire = after(&lab, HTTP, &said)?;
        let ended = ended(&mut wire)?;
        ensure!(ended == Ended::Reset(PROTOCOL_ERROR), "{shown:?}: {ended:?}");
    }
    let refused = [
        changed(":authority", &[]),
        changed(":authority", &[("host", "lab"), ("host", "other")]),
        changed(":authority", &[(":authority", "user@lab")]),
        changed(":path", &[(":path", "*")]),
        changed(":path", &[(":path", "/../x")]),
    ];
    for said in refused {
        let shown = String::from_utf8_lossy(&said).into_owned();
        let mut wire = after(&lab, HTTP, &said)?;
        let ended = ended(&mut wire)?;
        ensure!(ended == Ended::Answered(STATUS_400), "{shown:?}: {ended:?}");
    }
    lab.told("HOST_INVALID")?;
    ensure!(backend.heard().is_empty(), "{:?}", backend.heard());
    lab.still_answers()
}

fn malformed_connections() -> anyhow::Result<()> {
    let lab = Lab::new("floods-connections")?;
    let backend = backend(&lab)?;
    let frames = [
        // What cannot be a header, on its way to HTTP/1.1 (RFC 9113 §8.2.1).
        changed("", &[("X-Upper", "1")]),
        changed("", &[("x", "a\r\ny: b")]),
        changed("", &[("x", "a\0b")]),
        changed("", &[("x y", "1")]),
        changed("", &[("", "1")]),
        changed("", &[(":unknown", "1")]),
        changed(":method", &[(":method", "G T")]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 6]),
        frame(DATA, 0, 5, b"on an idle stream"),
        request(2, &get("/")),
        frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        frame(DATA, 0, 1, &[0; 20_000]),
    ];
    for said in frames {
        let shown = String::from_utf8_lossy(&said[..said.len().min(80)]).into_owned();
        let mut wire = after(&lab, HTTP, &said)?;
        let ended = ended(&mut wire)?;
        ensure!(matches!(ended, Ended::GoneAway(code) if code != 0), "{shown:?}: {ended:?}");
        wire.rest().with_context(|| shown)?;
    }
    lab.told("MESSAGE_MALFORMED")?;
    ensure!(backend.heard().is_empty(), "{:?}", backend.heard());
    lab.still_answers()
}

/// CVE-2023-44487: requests that are taken back as soon as they are made.
fn rapid_resets() -> Vec<u8> {
    let streams = (0..2_000_u32).map(|number| number * 2 + 1);
    let cancelled =
        |id| [request(id, &get("/delay/1000")), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat();
    streams.flat_map(cancelled).collect()
}

/// A block of headers that does not end, `part` after `part`.
fn endless_headers(part: &[u8], parts: usize) -> Vec<u8> {
    let first = frame(HEADERS, END_STREAM, 1, &block(&get("/")));
    [first, frame(CONTINUATION, 0, 1, part).repeat(parts)].concat()
}

fn floods() -> anyhow::Result<()> {
    let lab = Lab::new("floods-floods")?;
    let part = block(&[("x", &"y".repeat(1000))]);
    let empty_data = frame(DATA, 0, 1, &[]).repeat(100_000);
    let opened = frame(HEADERS, END_HEADERS, 1, &block(&get("/")));
    for (what, said) in [
        ("rapid resets", rapid_resets()),
        ("headers without an end", endless_headers(&part, 10_000)),
        ("empty headers without an end", endless_headers(&[], 100_000)),
        ("empty data without an end", [opened, empty_data].concat()),
    ] {
        let mut wire = after(&lab, APP, &said)?;
        let ended = ended(&mut wire).context(what)?;
        ensure!(ended == Ended::GoneAway(ENHANCE_YOUR_CALM), "{what}: {ended:?}");
        lab.still_answers().context(what)?;
    }
    let told = lab.told("MESSAGE_MALFORMED")?;
    ensure!(told["error"].as_str().is_some_and(|text| text.contains("excessive")), "{told}");
    Ok(())
}

fn borne() -> anyhow::Result<()> {
    let lab = Lab::new("floods-borne")?;
    let before = lab.memory_bytes()?;
    let pings = [frame(PING, 0, 0, &[0; 8]).repeat(100_000), frame(PING, 0, 0, b"the last")];
    for (what, said) in [
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(200_000)),
        ("pings", pings.concat()),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(200_000)),
        ("streams", (0..5_000).flat_map(|at| request(at * 2 + 1, &get("/bytes/50000"))).collect()),
    ] {
        // Nothing of what comes back is read.
        let _wire = after(&lab, APP, &said)?;
        lab.still_answers().context(what)?;
        let grown = lab.memory_bytes()?.saturating_sub(before);
        ensure!(grown < 64 << 20, "{what}: {} MiB more", grown >> 20);
    }
    let mut wire = after(&lab, APP, &pings[1])?;
    while !matches!(frames::next(&mut wire)?, frame if frame.kind == PING && frame.flags == ACK) {}
    Ok(())
}

fn too_large() -> anyhow::Result<()> {
    let lab = Lab::new("floods-large")?;
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(APP)).await?;
        let mut many = http2::get("/");
        let mut large = http2::get("/");
        for number in 0..110 {
            let name = http::HeaderName::try_from(format!("x-{number}"))?;
            many.headers_mut().insert(name.clone(), HeaderValue::from_static("1"));
            large.headers_mut().insert(name, HeaderValue::try_from("y".repeat(700))?);
        }
        for request in [many, large] {
            let response = sender.send_request(request).await?;
            ensure!(response.status() == 431, "{response:?}");
        }
        ensure!(sender.send_request(http2::get("/")).await?.status() == 200);
        Ok(())
    })?;
    lab.told("HEADERS_TOO_LARGE").map(drop)
}
