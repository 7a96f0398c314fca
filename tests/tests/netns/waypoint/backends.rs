//! Applications that answer badly, late, or not at all: what the client sees, and who is blamed.

use std::io;
use std::net::SocketAddr;

use anyhow::ensure;
use harness::asking::{Answer, Ask};
use harness::backend::Guest;
use harness::eventually::eventually;
use http::HeaderValue;
use http_body_util::BodyExt as _;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::http2;
use super::lab::{HTTP, Lab};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::backends::answers_that_are_no_http_are_502", &[], garbage),
    ("waypoint::backends::answers_without_an_end_are_cut_and_never_completed", &[], cut_short),
    ("waypoint::backends::answers_that_could_be_read_twice_are_read_once", &[], ambiguous),
    ("waypoint::backends::requests_without_an_answer_are_delivered_once", &[], unanswered),
    ("waypoint::backends::a_client_that_gives_up_gives_up_for_the_backend", &[], given_up),
    ("waypoint::backends::a_service_without_endpoints_says_so", &[], nobody),
    ("waypoint::backends::connections_that_close_between_requests_are_hidden", &[], closing),
];

/// What a client gets when the application says `said` to its request and closes.
fn answered(lab: &Lab, said: &str) -> anyhow::Result<Answer> {
    let (port, said) = (lab.fresh(), said.to_owned());
    let _backend = lab.backend(port, move |guest| {
        guest.request()?;
        guest.say(&said)
    })?;
    Ok(Lab::get(port, "/").from(&lab.scene.client)?)
}

fn garbage() -> anyhow::Result<()> {
    let lab = Lab::new("backends-garbage")?;
    let long = "y".repeat(70_000);
    let many: String = (0..110).map(|number| format!("x-{number}: 1\r\n")).collect();
    for said in [
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"),
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
    ] {
        let shown: String = said.chars().take(80).collect();
        let answer = answered(&lab, said)?;
        ensure!(answer.status == 502, "{shown:?}: {answer:?}");
        let cause = answer.header("proxy-status").unwrap_or_default();
        ensure!(cause.contains("UPSTREAM_PROTOCOL"), "{shown:?}: {answer:?}");
    }
    lab.told("UPSTREAM_PROTOCOL").map(drop)
}

fn cut_short() -> anyhow::Result<()> {
    let lab = Lab::new("backends-cut")?;
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n0\r\n\r\n",
    ] {
        let answer = answered(&lab, said);
        ensure!(answer.is_err(), "{said:?}: {answer:?}");
        ensure!(stream_is_reset(&lab, said)?, "{said:?} is complete for HTTP/2");
    }
    let told = lab.told("UPSTREAM_CUT")?;
    ensure!(told["status"] == 200, "{told}");
    Ok(())
}

/// Whether a client of HTTP/2 sees that the body has no end.
fn stream_is_reset(lab: &Lab, said: &'static str) -> anyhow::Result<bool> {
    let port = lab.fresh();
    let _backend = lab.backend(port, move |guest| {
        guest.request()?;
        guest.say(said)
    })?;
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(port)).await?;
        let response = sender.send_request(http2::get("/")).await?;
        Ok(response.into_body().collect().await.is_err())
    })
}

/// Whatever follows an answer belongs to nobody.
fn ambiguous() -> anyhow::Result<()> {
    Lab::all(
        "backends-ambiguous",
        &[
            ("a second answer is dropped", twice),
            ("chunks count, a length beside them goes", both_framings),
            ("a body after HEAD is dropped", body_after_head),
            ("a body after 204 is dropped", body_after_204),
        ],
    )
}

/// Asks twice on one connection; the application says `said` to the first request, and `ok` after.
fn asked_twice(lab: &Lab, method: &str, said: &'static str) -> anyhow::Result<[Answer; 2]> {
    let port = lab.fresh();
    let _backend = lab.backend(port, move |guest| {
        while let Some(heard) = guest.request()? {
            let first = heard.head.contains("/first");
            guest.say(if first {
                said
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            })?;
        }
        Ok(())
    })?;
    let mut wire = lab.wire(port)?;
    wire.say(format!("{method} /first HTTP/1.1\r\nHost: lab\r\n\r\n"))?;
    let first = wire.answer(method)?;
    wire.say("GET /second HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    Ok([first, wire.answer("GET")?])
}

fn twice(lab: &Lab) -> anyhow::Result<()> {
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none\
        HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let [first, second] = asked_twice(lab, "GET", said)?;
    ensure!(first.body == b"one" && second.body == b"ok", "{first:?}, {second:?}");
    Ok(())
}

fn both_framings(lab: &Lab) -> anyhow::Result<()> {
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\n0\r\n\r\n";
    let [first, second] = asked_twice(lab, "GET", said)?;
    ensure!(first.body == b"hello" && second.body == b"ok", "{first:?}, {second:?}");
    ensure!(first.header("content-length").is_none_or(|length| length == "5"), "{first:?}");
    Ok(())
}

fn body_after_head(lab: &Lab) -> anyhow::Result<()> {
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let [first, second] = asked_twice(lab, "HEAD", said)?;
    ensure!(first.header("content-length") == Some("4") && second.body == b"ok", "{second:?}");
    Ok(())
}

fn body_after_204(lab: &Lab) -> anyhow::Result<()> {
    let [first, second] = asked_twice(lab, "GET", "HTTP/1.1 204 No Content\r\n\r\nevil")?;
    ensure!(first.status == 204 && second.body == b"ok", "{first:?}, {second:?}");
    Ok(())
}

fn unanswered() -> anyhow::Result<()> {
    let lab = Lab::new("backends-unanswered")?;
    for method in ["GET", "POST"] {
        let port = lab.fresh();
        let backend = lab.backend(port, |guest| guest.request().map(drop))?;
        let ask = Lab::get(port, "/").method(method).body(b"pay 10");
        let answer = ask.from(&lab.scene.client)?;
        let cause = answer.header("proxy-status").unwrap_or_default();
        ensure!(answer.status == 503 && cause.contains("DELIVERY_UNKNOWN"), "{answer:?}");
        ensure!(backend.heard().len() == 1, "{method}: {:?}", backend.heard());
    }
    let told = lab.told("DELIVERY_UNKNOWN")?;
    ensure!(told["attempts"] == 1, "{told}");
    Ok(())
}

fn given_up() -> anyhow::Result<()> {
    let lab = Lab::new("backends-given-up")?;
    let backend = lab.backend(HTTP, |guest| {
        guest.request()?;
        guest.wire.rest().map(drop)
    })?;
    let mut wire = lab.wire(HTTP)?;
    wire.say("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    eventually(SOON, "the request arrives", || backend.heard().pop().ok_or("it does not"))?;
    drop(wire);
    eventually(SOON, "the application is left alone", || match backend.ended() {
        0 => Err("it is not"),
        _ => Ok(()),
    })?;
    lab.told("CLIENT_GONE").map(drop)
}

fn nobody() -> anyhow::Result<()> {
    let lab = Lab::new("backends-nobody")?;
    let empty = SocketAddr::from(([10, 96, 0, 21], 80));
    let answer = Ask::get(empty, "/").from(&lab.scene.client)?;
    let cause = answer.header("proxy-status").unwrap_or_default();
    ensure!(answer.status == 503 && cause.contains("NO_HEALTHY_UPSTREAM"), "{answer:?}");
    lab.told("NO_HEALTHY_UPSTREAM")?;
    http2::run(async {
        let mut sender = http2::open(&lab.scene.client, empty).await?;
        let mut request = http2::get("/shop.Cart/Add");
        let grpc = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert("content-type", grpc);
        let response = sender.send_request(request).await?;
        ensure!(response.status() == 200, "{response:?}");
        ensure!(
            response.headers().get("grpc-status").is_some_and(|status| status == "14"),
            "{response:?}"
        );
        Ok(())
    })
}

/// An application that closes after each answer without having said so.
fn closing_server(guest: &mut Guest) -> io::Result<()> {
    guest.request()?;
    guest.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

fn closing() -> anyhow::Result<()> {
    let lab = Lab::new("backends-closing")?;
    let backend = lab.backend(HTTP, closing_server)?;
    let mut wire = lab.wire(HTTP)?;
    for number in 0..100 {
        for request in [
            format!("GET /get-{number} HTTP/1.1\r\nHost: lab\r\n\r\n"),
            format!("POST /post-{number} HTTP/1.1\r\nHost: lab\r\nContent-Length: 4\r\n\r\nbody"),
        ] {
            wire.say(&request)?;
            let answer = wire.answer("GET")?;
            ensure!(answer.status == 200, "{request:?}: {answer:?}");
        }
    }
    let mut paths: Vec<String> = backend
        .heard()
        .iter()
        .filter_map(|heard| heard.head.split(' ').nth(1).map(String::from))
        .collect();
    ensure!(paths.len() == 200, "{} deliveries", paths.len());
    paths.sort_unstable();
    paths.dedup();
    ensure!(paths.len() == 200, "{} different deliveries", paths.len());
    Ok(())
}
