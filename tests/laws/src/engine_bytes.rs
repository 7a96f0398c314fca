//! Raw bytes from a peer, in two pieces: the tunnel engine must survive them, as either side.
//!
//! First byte: which side, and where the rest is cut. The rest: what the peer sends after the
//! preface.

use bytes::Bytes;
use shared::hbone::Config;
use shared::hbone::engine::{ConnectionError, Engine, Event};
use tokio::time::Instant;

use crate::planted;
use crate::wire::PREFACE;

/// Checks the laws on one input.
pub fn check(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let now = Instant::now();
    let mut engine = if choice & 1 == 0 {
        let mut engine = Engine::server(Config::server(), now);
        engine.receive(Bytes::from_static(PREFACE), now).expect("the preface is right");
        engine
    } else {
        let mut engine = Engine::client(Config::client(), now);
        let request =
            shared::hbone::Request { authority: "a:1".into(), headers: Default::default() };
        engine.open(&request).expect("a fresh connection has room");
        engine
    };
    let (first, second) = rest.split_at(usize::from(choice >> 1).min(rest.len()));
    for piece in [first, second] {
        let result = engine.receive(Bytes::copy_from_slice(piece), now);
        let mut delivered = 0;
        while let Some(event) = engine.poll_event() {
            if let Event::Data { stream, payload } = event {
                assert!(!payload.is_empty());
                delivered += payload.len();
                engine.consume(stream, payload.len());
            }
        }
        assert!(delivered <= piece.len(), "more came out than went in");
        assert!(engine.active_streams() <= 200);
        assert!(engine.output().len() <= 1024 + 40 * input.len(), "a little in, a lot out");
        if let Err(ConnectionError::Violation { detail, .. }) = result {
            planted(detail == "padding too long");
            assert!(engine.is_finished());
            return;
        }
    }
}
