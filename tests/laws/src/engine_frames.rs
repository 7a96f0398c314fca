//! Well-formed frames in any order against a server that answers: deeper than bytes get.
//!
//! Every five bytes make a frame (kind, flags, stream, length, fill) or a command to the server;
//! header blocks are valid requests, now and then with a mutation.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use shared::hbone::engine::{Engine, Event, StreamId};
use shared::hbone::{Config, Reason};
use tokio::time::Instant;

use crate::planted;
use crate::wire::{PREFACE, frame};

/// `:method CONNECT`, `:authority a:1`.
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x03a:1";
/// Windows small enough to be exceeded by a few frames.
const WINDOW_BYTES: u32 = 600;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let mut now = Instant::now();
    let config = Config { stream_window_bytes: WINDOW_BYTES, max_streams: 4, ..Config::server() };
    let mut engine = Engine::server(config, now);
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(4, 0, 0, &[]));
    hello.extend(frame(4, 1, 0, &[]));
    engine.receive(hello.into(), now).expect("an ordinary beginning");
    let mut streams: Vec<StreamId> = Vec::new();
    let mut unconsumed: HashMap<StreamId, usize> = HashMap::new();
    for step in input.chunks_exact(5) {
        let &[kind, flags, stream, length, fill] = step else { return };
        if kind >= 0xc0 {
            let stream = streams.get(usize::from(stream)).copied();
            command(&mut engine, &mut now, &mut unconsumed, stream, [kind, length]);
            continue;
        }
        let payload = payload(kind % 11, length, fill);
        let bytes = frame(kind % 11, flags, u32::from(stream % 16), &payload);
        let ended = engine.receive(Bytes::from(bytes), now).is_err();
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Request { stream, .. } => streams.push(stream),
                Event::Data { stream, payload } => {
                    *unconsumed.entry(stream).or_default() += payload.len();
                    assert!(unconsumed[&stream] <= WINDOW_BYTES as usize, "more than the window");
                }
                Event::Reset { reason, .. } => {
                    planted(reason == Reason::FLOW_CONTROL_ERROR);
                }
                _ => {}
            }
        }
        assert!(engine.active_streams() <= 4);
        if ended {
            assert!(engine.is_finished());
            return;
        }
    }
}

fn command(
    engine: &mut Engine,
    now: &mut Instant,
    unconsumed: &mut HashMap<StreamId, usize>,
    stream: Option<StreamId>,
    [what, length]: [u8; 2],
) {
    let Some(stream) = stream else {
        match what % 4 {
            0 => engine.go_away(),
            1 => engine.output().clear(),
            _ => *now += Duration::from_millis(u64::from(length)),
        }
        let _ = engine.on_deadline(*now);
        return;
    };
    match what % 6 {
        0 => engine.respond(stream, StatusCode::OK, &HeaderMap::new(), false),
        1 => engine.respond(stream, StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), true),
        2 => drop(engine.send_data(stream, &vec![0; usize::from(length) * 300])),
        3 => engine.send_end(stream),
        4 => engine.reset(stream, Reason::CANCEL),
        _ => {
            let bytes = unconsumed.remove(&stream).unwrap_or(0);
            engine.consume(stream, bytes);
        }
    }
}

/// A payload of the kind's usual shape; a high `fill` breaks it.
fn payload(kind: u8, length: u8, fill: u8) -> Vec<u8> {
    if fill >= 0xe0 {
        return vec![fill; usize::from(length)];
    }
    match kind {
        0 => vec![fill; usize::from(length) * 4],
        1 | 9 => {
            let mut block = CONNECT.to_vec();
            if fill >= 0x80 {
                let at = usize::from(length) % block.len();
                block[at] ^= fill;
            } else if fill >= 0x40 {
                block.truncate(usize::from(length) % block.len());
            }
            block
        }
        2 => vec![fill; 5],
        4 => vec![0, fill % 8, 0, 0, length, fill],
        6 => vec![fill; 8],
        7 => vec![0, 0, 0, length, 0, 0, 0, fill],
        3 | 8 => vec![fill & 0x7f, 0, fill, length],
        _ => vec![fill; usize::from(length)],
    }
}
