//! Two engines against each other, and one engine against scripted frames.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod laws;
mod scripted;

fn request() -> Request {
    Request { authority: "10.0.0.1:80".into(), headers: HeaderMap::new() }
}

/// Takes everything an engine wants to write.
fn drain(engine: &mut Engine) -> Bytes {
    engine.output().split().freeze()
}

/// Frames as a peer would write them.
fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut output = BytesMut::new();
    let length = payload.len() as u32;
    Header { length, kind, flags, stream: StreamId(stream) }.write(&mut output);
    output.extend_from_slice(payload);
    output.to_vec()
}
