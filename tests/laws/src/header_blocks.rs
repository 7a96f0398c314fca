//! Header blocks (RFC 7541) of any content in frames that are right: what a decoder makes of them.
//!
//! First byte: whether they go to a server or, as answers, to a client. Then blocks, each with its
//! length in a byte.
//! Laws: a head stays within the size that we allow and has nothing that HTTP/2 forbids; sent on,
//! it arrives the same.

use http::HeaderMap;
use shared::hbone::engine::{Engine, Event, StreamId};
use shared::hbone::{Config, Request, Response};
use tokio::time::Instant;

use crate::pieces::Pieces;
use crate::planted;
use crate::wire::{PREFACE, frame};

/// END_HEADERS.
const WHOLE: u8 = 4;
/// The size of a field is that of name and value and this (RFC 9113 §10.5.1).
const FIELD_OVERHEAD_BYTES: usize = 32;
const MAX_LIST_BYTES: u32 = 1024;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let mut pieces = Pieces::new(input);
    let now = Instant::now();
    let to_client = pieces.byte() & 1 == 1;
    let mut engine = if to_client { client(now) } else { server(now) };
    if !to_client {
        engine.receive(PREFACE.to_vec().into(), now).expect("the preface is right");
    }
    engine.receive(frame(4, 0, 0, &[]).into(), now).expect("empty settings are right");
    for number in (1..).step_by(2).take(90) {
        if pieces.is_empty() {
            return;
        }
        if to_client {
            engine.open(&request()).expect("the server allows more");
        }
        let block = pieces.bytes();
        let ended = engine.receive(frame(1, WHOLE, number, block).into(), now).is_err();
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Request { stream, request, .. } => {
                    match request {
                        Ok(request) => asked(&request, now),
                        Err(bad) => assert!(bad.status().is_client_error(), "{bad}"),
                    }
                    engine.reset(stream, shared::hbone::Reason::CANCEL);
                }
                Event::Response { stream, response, .. } => {
                    answered(stream, &response, now);
                    engine.reset(stream, shared::hbone::Reason::CANCEL);
                }
                _ => {}
            }
        }
        if ended {
            return assert!(engine.is_finished());
        }
    }
}

fn server(now: Instant) -> Engine {
    Engine::server(Config { max_header_list_bytes: MAX_LIST_BYTES, ..Config::server() }, now)
}

fn client(now: Instant) -> Engine {
    Engine::client(Config { max_header_list_bytes: MAX_LIST_BYTES, ..Config::client() }, now)
}

fn request() -> Request {
    Request { authority: "a:1".into(), headers: HeaderMap::new() }
}

/// A request that has come: it goes on to another server and must come the same.
fn asked(request: &Request, now: Instant) {
    assert!(request.authority.bytes().all(|byte| byte.is_ascii_graphic()));
    let pseudo = [(":method", "CONNECT"), (":authority", &request.authority)];
    fits(&request.headers, pseudo);
    planted(request.headers.contains_key("www-authenticate"));
    let (mut client, mut server) = (client(now), server(now));
    client.open(request).expect("a fresh connection has room");
    server.receive(client.output().split().freeze(), now).expect("our own bytes are right");
    let Some(Event::Request { request: Ok(again), .. }) = server.poll_event() else {
        panic!("{request:?} does not arrive")
    };
    assert_eq!(
        (again.authority, again.headers),
        (request.authority.clone(), request.headers.clone())
    );
}

/// An answer that has come: another server sends it, and it must come the same.
fn answered(stream: StreamId, response: &Response, now: Instant) {
    assert!(!response.status.is_informational(), "{stream:?} has another answer to come");
    fits(&response.headers, [(":status", response.status.as_str()), ("", "")]);
    planted(response.status.is_redirection());
    let (mut client, mut server) = (client(now), server(now));
    let id = client.open(&request()).expect("a fresh connection has room");
    server.receive(client.output().split().freeze(), now).expect("our own bytes are right");
    server.respond(id, response.status, &response.headers, false);
    client.receive(server.output().split().freeze(), now).expect("our own bytes are right");
    let Some(Event::Response { response: again, .. }) = client.poll_event() else {
        panic!("{response:?} does not arrive")
    };
    assert_eq!((again.status, again.headers), (response.status, response.headers.clone()));
}

fn fits(headers: &HeaderMap, pseudo: [(&str, &str); 2]) {
    let field = |name: &str, value: &[u8]| name.len() + value.len() + FIELD_OVERHEAD_BYTES;
    let pseudo = pseudo.iter().filter(|(name, _)| !name.is_empty());
    let pseudo: usize = pseudo.map(|(name, value)| field(name, value.as_bytes())).sum();
    let regular: usize =
        headers.iter().map(|(name, value)| field(name.as_str(), value.as_bytes())).sum();
    assert!(pseudo + regular <= MAX_LIST_BYTES as usize, "a list above the limit");
    for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name} is about a connection");
    }
}
