//! What holds however the byte stream is cut and whatever the windows are.

use super::*;

/// What one side does at random.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Send { stream: usize, from_client: bool, bytes: usize },
    End { stream: usize, from_client: bool },
    Reset { stream: usize, from_client: bool },
    Move { from_client: bool, bytes: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = 0usize..8;
    let step = prop_oneof![
        2 => Just(Step::Open),
        6 => (stream.clone(), any::<bool>(), 1usize..3_000)
            .prop_map(|(stream, from_client, bytes)| Step::Send { stream, from_client, bytes }),
        1 => (stream.clone(), any::<bool>())
            .prop_map(|(stream, from_client)| Step::End { stream, from_client }),
        1 => (stream, any::<bool>())
            .prop_map(|(stream, from_client)| Step::Reset { stream, from_client }),
        8 => (any::<bool>(), 1usize..2_000)
            .prop_map(|(from_client, bytes)| Step::Move { from_client, bytes }),
    ];
    prop::collection::vec(step, 0..150)
}

/// One end with the wire that leads away from it.
struct End {
    engine: Engine,
    wire: BytesMut,
    streams: Vec<StreamId>,
    sent: HashMap<StreamId, Vec<u8>>,
    received: HashMap<StreamId, Vec<u8>>,
    ended: HashMap<StreamId, bool>,
    broken: Vec<StreamId>,
}

impl End {
    fn new(engine: Engine) -> Self {
        Self {
            engine,
            wire: BytesMut::new(),
            streams: Vec::new(),
            sent: HashMap::new(),
            received: HashMap::new(),
            ended: HashMap::new(),
            broken: Vec::new(),
        }
    }

    fn send(&mut self, id: StreamId, bytes: usize) {
        let sent = self.sent.entry(id).or_default();
        let start = sent.len();
        let payload: Vec<u8> = (start..start + bytes).map(|index| (index * 7) as u8).collect();
        let count = self.engine.send_data(id, &payload);
        sent.extend_from_slice(&payload[..count]);
    }

    /// Takes up to `bytes` from the other end's wire.
    fn take(&mut self, from: &mut Self, bytes: usize, now: Instant) {
        let output = from.engine.output().split();
        from.wire.extend_from_slice(&output);
        let piece = from.wire.split_to(bytes.min(from.wire.len())).freeze();
        self.engine.receive(piece, now).expect("two engines never break the protocol");
        while let Some(event) = self.engine.poll_event() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request { stream, .. } => {
                self.streams.push(stream);
                self.engine.respond(stream, StatusCode::OK, &HeaderMap::new(), false);
            }
            Event::Data { stream, payload } => {
                assert!(!self.ended.contains_key(&stream), "data after the end");
                self.received.entry(stream).or_default().extend_from_slice(&payload);
                self.engine.consume(stream, payload.len());
            }
            Event::End { stream } => {
                assert!(self.ended.insert(stream, true).is_none(), "two ends");
            }
            Event::Reset { stream, .. } => self.broken.push(stream),
            _ => {}
        }
    }
}

fn config(base: Config, stream_window_bytes: u32) -> Config {
    Config { stream_window_bytes, max_streams: 5, ..base }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_sent_arrives_in_order_through_any_splits_and_windows(
        steps in steps(),
        client_window in prop_oneof![Just(0u32), 1u32..100, 1_000u32..200_000],
        server_window in prop_oneof![Just(0u32), 1u32..100, 1_000u32..200_000],
    ) {
        let now = Instant::now();
        let mut client = End::new(Engine::client(config(Config::client(), client_window), now));
        let mut server = End::new(Engine::server(config(Config::server(), server_window), now));
        for step in steps {
            match step {
                Step::Open => {
                    if let Ok(id) = client.engine.open(&request()) {
                        client.streams.push(id);
                    }
                }
                Step::Send { stream, from_client, bytes } => {
                    let end = if from_client { &mut client } else { &mut server };
                    if let Some(&id) = end.streams.get(stream) {
                        end.send(id, bytes);
                    }
                }
                Step::End { stream, from_client } => {
                    let end = if from_client { &mut client } else { &mut server };
                    if let Some(&id) = end.streams.get(stream) {
                        end.engine.send_end(id);
                    }
                }
                Step::Reset { stream, from_client } => {
                    let end = if from_client { &mut client } else { &mut server };
                    if let Some(&id) = end.streams.get(stream) {
                        end.engine.reset(id, Reason::CANCEL);
                        end.broken.push(id);
                    }
                }
                Step::Move { from_client: true, bytes } => server.take(&mut client, bytes, now),
                Step::Move { from_client: false, bytes } => client.take(&mut server, bytes, now),
            }
        }
        for _ in 0..6 {
            server.take(&mut client, usize::MAX, now);
            client.take(&mut server, usize::MAX, now);
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            for (id, sent) in &from.sent {
                let received = to.received.get(id).cloned().unwrap_or_default();
                if client.broken.contains(id) || server.broken.contains(id) {
                    prop_assert!(sent.starts_with(&received));
                } else {
                    prop_assert_eq!(sent, &received);
                }
            }
        }
        prop_assert_eq!(client.engine.active_streams(), server.engine.active_streams());
    }

    #[test]
    fn any_bytes_end_in_an_error_or_not_but_never_in_a_panic(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
        as_server in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut engine = match as_server {
            true => Engine::server(Config::server(), now),
            false => Engine::client(Config::client(), now),
        };
        if as_server {
            engine.receive(Bytes::from_static(PREFACE), now).unwrap();
        }
        for piece in pieces {
            let _ = engine.receive(piece.into(), now);
            while engine.poll_event().is_some() {}
        }
    }
}
