//! Clients that break the rules of HTTP/1.1 are told so and cut off; the application hears nothing.

use anyhow::ensure;
use harness::asking::Answer;
use harness::backend::Guest;

use super::super::suite::Case;
use super::lab::{HTTP, Lab};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::hostile::requests_that_break_the_rules_reach_nobody", &[], refused),
    ("waypoint::hostile::bodies_that_break_their_framing_never_end_well", &[], broken_bodies),
    ("waypoint::hostile::what_is_read_leniently_is_written_strictly", &[], lenient),
];

fn answer(guest: &mut Guest) -> std::io::Result<()> {
    while guest.request()?.is_some() {
        guest.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// What is answered to `request`; the connection must end after it.
fn last_answer(lab: &Lab, request: &str) -> anyhow::Result<Answer> {
    let mut wire = lab.wire(HTTP)?;
    wire.say(request)?;
    let answer = wire.answer("GET")?;
    let rest = wire.rest()?;
    ensure!(rest.is_empty(), "then came {:?}", String::from_utf8_lossy(&rest));
    Ok(answer)
}

/// All of `requests` are answered with the status beside them, and what is not is told.
fn are_answered(lab: &Lab, requests: &[(u16, String)]) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for (status, request) in requests {
        let shown: String = request.chars().take(120).collect();
        match last_answer(lab, request) {
            Ok(answer) if answer.status == *status => {}
            Ok(answer) => wrong.push(format!("{shown:?}: {}", answer.status)),
            Err(error) => wrong.push(format!("{shown:?}: {error}")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn refused() -> anyhow::Result<()> {
    let lab = Lab::new("hostile-refused")?;
    let backend = lab.backend(HTTP, answer)?;
    let requests = [framings(), headers(), hosts(), targets(), versions(), sizes()].concat();
    are_answered(&lab, &requests)?;
    let heard = backend.heard();
    ensure!(heard.is_empty(), "{heard:?}");
    for cause in [
        "MESSAGE_MALFORMED",
        "HEADERS_TOO_LARGE",
        "CODING_UNSUPPORTED",
        "HOST_INVALID",
        "PATH_INVALID",
        "VERSION_UNSUPPORTED",
        "METHOD_UNSUPPORTED",
    ] {
        lab.told(cause)?;
    }
    lab.still_answers()
}

/// A POST with these headers and the body `hello`.
fn post(headers: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: lab\r\n{headers}\r\n\r\nhello")
}

/// A GET with these headers and no others.
fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n")
}

fn framings() -> Vec<(u16, String)> {
    let coded = |coding: &str| post(&format!("Transfer-Encoding: {coding}"));
    let sized = |length: &str| post(&format!("Content-Length: {length}"));
    vec![
        (501, coded("gzip, chunked\r\n\r\n0")),
        (400, coded("chunked, gzip")),
        (400, coded("xchunked")),
        (400, coded("\x0bchunked")),
        (400, coded("chunked\r\nTransfer-Encoding: identity")),
        (400, sized("5\r\nContent-Length: 6")),
        (400, sized("5, 5")),
        (400, sized("+5")),
        (400, sized("-5")),
        (400, sized("0x5")),
        (400, sized("99999999999999999999999")),
        (400, sized("")),
    ]
}

fn headers() -> Vec<(u16, String)> {
    let with = |line: &str| (400, get(&format!("Host: lab\r\n{line}")));
    vec![
        with("x(y: 1"),
        with("x : 1"),
        with("no colon"),
        with(": empty"),
        with("x: a\r\n folded"),
        with("x: a\0b"),
        with("x: a\rb"),
        (400, get(" Host: lab")),
    ]
}

fn hosts() -> Vec<(u16, String)> {
    let host = |host: &str| (400, get(&format!("Host: {host}")));
    vec![
        host("lab\r\nHost: lab"),
        host("user@lab"),
        host("lab/path"),
        host("a b"),
        host("lab:port"),
        host("lab:99999"),
        host("[::1"),
        (400, get("x: no host")),
        (400, "GET http://user@lab/ HTTP/1.1\r\nHost: lab\r\n\r\n".to_owned()),
        (400, "GET http://lab:99999/ HTTP/1.1\r\nHost: lab\r\n\r\n".to_owned()),
    ]
}

fn targets() -> Vec<(u16, String)> {
    let asked = |what: &str| format!("{what} HTTP/1.1\r\nHost: lab\r\n\r\n");
    vec![
        (400, asked("GET lab")),
        (400, asked("GET *")),
        (400, asked("GET /a b")),
        (400, asked("GET  /")),
        (400, asked("GET /%zz")),
        (400, asked("GET /%00")),
        (400, asked("GET /../x")),
        (400, asked("G\x01T /")),
        (404, asked("CONNECT lab:80")),
    ]
}

fn versions() -> Vec<(u16, String)> {
    vec![
        (426, "GET / HTTP/1.0\r\nHost: lab\r\n\r\n".to_owned()),
        (426, "GET / HTTP/1.0\r\n\r\n".to_owned()),
        (400, "GET /\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.2\r\nHost: lab\r\n\r\n".to_owned()),
        (400, "GET / HTTP/2.0\r\nHost: lab\r\n\r\n".to_owned()),
        (400, "\x16\x03\x01\x00\x05hello\r\n\r\n".to_owned()),
    ]
}

fn sizes() -> Vec<(u16, String)> {
    let long = "x".repeat(70_000);
    let many: String = (0..110).map(|number| format!("\r\nx-{number}: 1")).collect();
    vec![
        (431, format!("GET /{long} HTTP/1.1\r\nHost: lab\r\n\r\n")),
        (431, get(&format!("Host: lab\r\nx: {long}"))),
        (431, get(&format!("Host: lab{many}"))),
    ]
}

fn broken_bodies() -> anyhow::Result<()> {
    let lab = Lab::new("hostile-bodies")?;
    let backend = lab.backend(HTTP, answer)?;
    let long = "x".repeat(70_000);
    let chunked = |body: &str| {
        let head = "POST / HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked";
        (400, format!("{head}\r\n\r\n{body}"))
    };
    are_answered(
        &lab,
        &[
            chunked("zz\r\nhello\r\n0\r\n\r\n"),
            chunked("-1\r\nhello\r\n0\r\n\r\n"),
            chunked("\r\nhello\r\n0\r\n\r\n"),
            chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            chunked("3\r\nhello\r\n0\r\n\r\n"),
            chunked("5\nhello\r\n0\r\n\r\n"),
            chunked(&format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
            chunked(&format!("5\r\nhello\r\n0\r\nx: {long}\r\n\r\n")),
        ],
    )?;
    let heard = backend.heard();
    ensure!(heard.is_empty(), "{heard:?}");
    lab.told("FRAMING_INVALID")?;
    lab.still_answers()
}

/// Where we accept more than the rules demand, the application sees what one reader alone could mean.
fn lenient() -> anyhow::Result<()> {
    let lab = Lab::new("hostile-lenient")?;
    let backend = lab.backend(HTTP, answer)?;
    // RFC 9112 §6.1: the coding counts, the length goes, and so does the connection.
    let both = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ];
    for headers in both {
        let request = format!("POST / HTTP/1.1\r\nHost: lab\r\n{headers}\r\n\r\n0\r\n\r\nGET ");
        ensure!(last_answer(&lab, &request)?.status == 200);
    }
    let mut wire = lab.wire(HTTP)?;
    // RFC 9112 §2.2: a lone line feed may end a line; equal lengths may be one.
    wire.say("GET / HTTP/1.1\nHost: lab\n\n")?;
    ensure!(wire.answer("GET")?.status == 200);
    wire.say(post("Content-Length: 5\r\nContent-Length: 5"))?;
    ensure!(wire.answer("POST")?.status == 200);
    let heard = backend.heard();
    ensure!(heard.len() == 4, "{heard:?}");
    for heard in &heard {
        let lengths = heard.head.matches("content-length").count();
        let chunked = heard.head.matches("transfer-encoding: chunked").count();
        ensure!(lengths + chunked <= 1, "{heard:?}");
        ensure!(!heard.head.replace("\r\n", "").contains(['\r', '\n']), "{heard:?}");
    }
    Ok(())
}
