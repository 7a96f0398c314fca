//! Messages arrive whole, in order, and as the next hop must see them.

use anyhow::{Context as _, ensure};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::suite::Case;
use super::http2;
use super::lab::{APP, HTTP, HTTP_TOO, Lab, SNIFFED_APP};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::http::messages_arrive_whole_and_in_order", &[], messages),
    ("waypoint::http::large_bodies_arrive_in_both_framings", &[], bodies),
    ("waypoint::http::expectations_and_early_answers_are_relayed", &[], expectations),
    ("waypoint::http::headers_of_one_hop_end_with_it", &[], headers),
    ("waypoint::http::the_application_is_asked_for_what_the_client_meant", &[], targets),
];

fn messages() -> anyhow::Result<()> {
    Lab::all(
        "http-messages",
        &[
            ("a connection carries one request after the other", one_connection),
            ("pipelined requests are answered in order", pipelined),
            ("an answer to HEAD has its length and no body", head),
            ("OPTIONS * is forwarded as it is", options),
            ("statuses without a body end with their head", bodiless),
        ],
    )
}

fn one_connection(lab: &Lab) -> anyhow::Result<()> {
    let mut wire = lab.wire(APP)?;
    for path in ["/first", "/second"] {
        wire.say(format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n"))?;
        let answer = wire.answer("GET")?;
        ensure!(answer.seen()?.path == path, "{answer:?}");
    }
    Ok(())
}

fn pipelined(lab: &Lab) -> anyhow::Result<()> {
    let mut wire = lab.wire(APP)?;
    // The first is slower than the rest together.
    let paths = ["/delay/300", "/second", "/third", "/fourth"];
    let all: String =
        paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n")).collect();
    wire.say(all)?;
    for path in paths {
        let answer = wire.answer("GET")?;
        ensure!(answer.seen()?.path == path, "{answer:?}, not {path}");
    }
    Ok(())
}

fn head(lab: &Lab) -> anyhow::Result<()> {
    let mut wire = lab.wire(APP)?;
    wire.say("HEAD /bytes/1000 HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let answer = wire.answer("HEAD")?;
    ensure!(answer.header("content-length") == Some("1000"), "{answer:?}");
    // What comes next is an answer, not a body.
    wire.say("GET /next HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    ensure!(wire.answer("GET")?.seen()?.path == "/next");
    Ok(())
}

fn options(lab: &Lab) -> anyhow::Result<()> {
    let seen = Lab::get(APP, "*").method("OPTIONS").from(&lab.scene.client)?.seen()?;
    ensure!(seen.method == "OPTIONS" && seen.path == "*", "{seen:?}");
    Ok(())
}

fn bodiless(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP, |guest| {
        while let Some(heard) = guest.request()? {
            let status = heard.head.split(' ').nth(1).unwrap_or("/204")[1..].to_owned();
            guest.say(format!("HTTP/1.1 {status} Whatever\r\nx-end: 1\r\n\r\n"))?;
        }
        Ok(())
    })?;
    let mut wire = lab.wire(HTTP)?;
    for status in [204, 304, 204] {
        wire.say(format!("GET /{status} HTTP/1.1\r\nHost: lab\r\n\r\n"))?;
        let answer = wire.answer("GET")?;
        ensure!(answer.status == status && answer.header("x-end") == Some("1"), "{answer:?}");
    }
    Ok(())
}

fn bodies() -> anyhow::Result<()> {
    Lab::all(
        "http-bodies",
        &[
            ("5 MB with Content-Length arrive", sized),
            ("5 MB in chunks arrive", chunked),
            ("5 MB come back", down),
            ("trailers of HTTP/2 arrive", trailers),
            ("a body until the end of the connection ends well", until_close),
        ],
    )
}

const BODY: &[u8] = &[b'x'; 5 << 20];

fn sized(lab: &Lab) -> anyhow::Result<()> {
    let seen = Lab::get(APP, "/").method("POST").body(BODY).from(&lab.scene.client)?.seen()?;
    ensure!(seen.body_bytes == BODY.len(), "{seen:?}");
    Ok(())
}

fn chunked(lab: &Lab) -> anyhow::Result<()> {
    let mut wire = lab.wire(APP)?;
    wire.say("POST / HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for part in BODY.chunks(100_000) {
        wire.say(format!("{:x}\r\n", part.len()))?;
        wire.say(part)?;
        wire.say("\r\n")?;
    }
    wire.say("0\r\n\r\n")?;
    let seen = wire.answer("POST")?.seen()?;
    ensure!(seen.body_bytes == BODY.len(), "{seen:?}");
    Ok(())
}

fn down(lab: &Lab) -> anyhow::Result<()> {
    let answer = Lab::get(APP, &format!("/bytes/{}", BODY.len())).from(&lab.scene.client)?;
    ensure!(answer.body.len() == BODY.len(), "{} bytes", answer.body.len());
    Ok(())
}

/// On a port whose protocol is not known, the application is spoken to as the client speaks.
fn trailers(lab: &Lab) -> anyhow::Result<()> {
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(SNIFFED_APP)).await?;
        let name = HeaderName::from_static("x-checksum");
        let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("abc"))]);
        let response = sender.send_request(http2::post("/", b"body", trailers)).await?;
        let seen = http2::seen(response).await?;
        ensure!(seen.version == "HTTP/2.0" && seen.body_bytes == 4, "{seen:?}");
        ensure!(seen.trailers.get("x-checksum").is_some_and(|value| value == "abc"), "{seen:?}");
        Ok(())
    })
}

fn until_close(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP, |guest| {
        guest.request()?;
        guest.say("HTTP/1.1 200 OK\r\n\r\nall of it")
    })?;
    let answer = Lab::get(HTTP, "/").from(&lab.scene.client)?;
    ensure!(answer.body == b"all of it", "{answer:?}");
    Ok(())
}

fn expectations() -> anyhow::Result<()> {
    Lab::all(
        "http-expect",
        &[
            ("a client that waits for 100 gets it", continued),
            ("a final answer passes a body that is still on its way", early),
            ("103 does not take the place of the answer", hints),
        ],
    )
}

fn continued(lab: &Lab) -> anyhow::Result<()> {
    let mut wire = lab.wire(APP)?;
    wire.say("POST / HTTP/1.1\r\nHost: lab\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")?;
    let interim = wire.answer("POST")?;
    ensure!(interim.status == 100, "{interim:?}");
    wire.say("body")?;
    let seen = wire.answer("POST")?.seen()?;
    ensure!(seen.body_bytes == 4, "{seen:?}");
    Ok(())
}

fn early(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP, |guest| {
        guest.wire.until(b"\r\n\r\n")?;
        guest.say("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")?;
        guest.wire.rest().map(drop)
    })?;
    let mut wire = lab.wire(HTTP)?;
    wire.say("POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: 10000000\r\n\r\n")?;
    wire.say([b'x'; 65536])?;
    let answer = wire.answer("POST")?;
    ensure!(answer.status == 413 && answer.body == b"no", "{answer:?}");
    Ok(())
}

fn hints(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP_TOO, |guest| {
        guest.request()?;
        guest.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
        guest.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })?;
    let answer = Lab::get(HTTP_TOO, "/").from(&lab.scene.client)?;
    ensure!(answer.status == 200 && answer.body == b"ok", "{answer:?}");
    Ok(())
}

fn headers() -> anyhow::Result<()> {
    Lab::all(
        "http-headers",
        &[
            ("what Connection names stays on its hop", request_hop),
            ("what a response's Connection names stays on its hop", response_hop),
            ("a claim to be someone's certificate is dropped", certificate),
            ("cookies in pieces become one", cookies),
            ("cookies that are set stay apart", set_cookies),
            ("headers that a proxy adds are there once", added),
        ],
    )
}

fn request_hop(lab: &Lab) -> anyhow::Result<()> {
    let ask = Lab::get(APP, "/")
        .header("Connection", "close, x-hop")
        .header("x-hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authorization", "secret")
        .header("Proxy-Connection", "close")
        .header("x-end", "1");
    let seen = ask.from(&lab.scene.client)?.seen()?;
    for gone in ["x-hop", "keep-alive", "proxy-authorization", "proxy-connection"] {
        ensure!(!seen.headers.contains_key(gone), "{gone}: {seen:?}");
    }
    ensure!(seen.headers.contains_key("x-end"), "{seen:?}");
    Ok(())
}

fn response_hop(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP, |guest| {
        guest.request()?;
        guest.say(
            "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n",
        )
    })?;
    let answer = Lab::get(HTTP, "/").from(&lab.scene.client)?;
    for gone in ["x-hop", "keep-alive", "proxy-authenticate"] {
        ensure!(answer.header(gone).is_none(), "{gone}: {answer:?}");
    }
    ensure!(answer.header("x-end") == Some("1"), "{answer:?}");
    Ok(())
}

fn certificate(lab: &Lab) -> anyhow::Result<()> {
    let ask = Lab::get(APP, "/").header("X-Forwarded-Client-Cert", "URI=spiffe://evil");
    let seen = ask.from(&lab.scene.client)?.seen()?;
    ensure!(!seen.headers.contains_key("x-forwarded-client-cert"), "{seen:?}");
    Ok(())
}

fn cookies(lab: &Lab) -> anyhow::Result<()> {
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(APP)).await?;
        let mut request = http2::get("/");
        for cookie in ["a=1", "b=2"] {
            request.headers_mut().append("cookie", HeaderValue::from_static(cookie));
        }
        let seen = http2::seen(sender.send_request(request).await?).await?;
        ensure!(seen.version == "HTTP/1.1", "{seen:?}");
        ensure!(seen.headers.get("cookie").is_some_and(|all| all == "a=1; b=2"), "{seen:?}");
        Ok(())
    })
}

fn set_cookies(lab: &Lab) -> anyhow::Result<()> {
    let _backend = lab.backend(HTTP_TOO, |guest| {
        guest.request()?;
        guest.say(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
        )
    })?;
    let answer = Lab::get(HTTP_TOO, "/").from(&lab.scene.client)?;
    let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    let set: Vec<&str> = set.map(|(_, value)| value.as_str()).collect();
    ensure!(set == ["a=1", "b=2"], "{set:?}");
    Ok(())
}

fn added(lab: &Lab) -> anyhow::Result<()> {
    let ask =
        Lab::get(APP, "/").header("X-Request-Id", "mine").header("X-Forwarded-For", "1.2.3.4");
    let answer = ask.from(&lab.scene.client)?;
    let seen = answer.seen()?;
    for (name, value) in [
        ("x-request-id", "mine"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "http"),
        ("x-envoy-attempt-count", "1"),
    ] {
        ensure!(seen.headers.get(name).is_some_and(|own| own == value), "{name}: {seen:?}");
    }
    ensure!(!seen.headers.contains_key("via"), "{seen:?}");
    let time = answer.header("x-envoy-upstream-service-time").context("no service time")?;
    time.parse::<u64>()?;
    Ok(())
}

fn targets() -> anyhow::Result<()> {
    Lab::all(
        "http-targets",
        &[
            ("path and query are kept, dots are resolved", query),
            ("the target's own authority wins", absolute),
            ("Host is kept", host),
            ("the application sees the client's address", address),
        ],
    )
}

fn query(lab: &Lab) -> anyhow::Result<()> {
    let seen = Lab::get(APP, "/a/../b%2fc?d=/../e%20&d=2").from(&lab.scene.client)?.seen()?;
    ensure!(seen.path == "/b%2Fc?d=/../e%20&d=2", "{seen:?}");
    Ok(())
}

fn absolute(lab: &Lab) -> anyhow::Result<()> {
    let ask = Lab::get(APP, "http://meant.example:8000/a?b=1").header("Host", "other.example");
    let seen = ask.from(&lab.scene.client)?.seen()?;
    ensure!(seen.host == "meant.example:8000" && seen.path == "/a?b=1", "{seen:?}");
    Ok(())
}

fn host(lab: &Lab) -> anyhow::Result<()> {
    for host in ["Lab.Shop:80", "lab.shop.", "10.0.0.1", "[fd00::1]:8080", "a_b"] {
        let seen = Lab::get(APP, "/").header("Host", host).from(&lab.scene.client)?.seen()?;
        ensure!(seen.host == host, "{seen:?}, not {host}");
    }
    Ok(())
}

fn address(lab: &Lab) -> anyhow::Result<()> {
    let client = lab.scene.client.ip();
    for port in [APP, SNIFFED_APP] {
        let seen = Lab::get(port, "/").from(&lab.scene.client)?.seen()?;
        ensure!(seen.peer.contains(&client.to_string()), "{seen:?}, not {client}");
    }
    Ok(())
}
