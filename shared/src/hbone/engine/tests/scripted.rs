//! Frames written by hand: what an odd or hostile peer may do.

use super::*;

const END_HEADERS: u8 = flag::END_HEADERS;

/// `:method CONNECT`, `:authority a:1`, uncompressed.
fn connect_block() -> Vec<u8> {
    let mut block = vec![];
    let encoder = hpack::Encoder::default();
    encoder.field(&mut block, b":method", b"CONNECT");
    encoder.field(&mut block, b":authority", b"a:1");
    block
}

/// A server past preface and SETTINGS.
fn server() -> (Engine, Instant) {
    let now = Instant::now();
    let mut engine = Engine::server(Config::server(), now);
    engine.receive(Bytes::from_static(PREFACE), now).unwrap();
    engine.receive(raw(kind::SETTINGS, 0, 0, &[]).into(), now).unwrap();
    drain(&mut engine);
    (engine, now)
}

fn client() -> (Engine, Instant) {
    let now = Instant::now();
    let mut engine = Engine::client(Config::client(), now);
    engine.receive(raw(kind::SETTINGS, 0, 0, &[]).into(), now).unwrap();
    drain(&mut engine);
    (engine, now)
}

fn events(engine: &mut Engine) -> Vec<Event> {
    std::iter::from_fn(|| engine.poll_event()).collect()
}

/// The code with which a fresh server ends the connection after `frames`.
fn ends_with(frames: &[Vec<u8>]) -> Option<Reason> {
    let (mut engine, now) = server();
    match engine.receive(frames.concat().into(), now) {
        Err(ConnectionError::Violation { reason, .. }) => Some(reason),
        _ => None,
    }
}

fn open(stream: u32) -> Vec<u8> {
    raw(kind::HEADERS, END_HEADERS, stream, &connect_block())
}

#[test]
fn padded_prioritised_and_continued_headers_are_one_request() {
    let (mut engine, now) = server();
    let block = connect_block();
    let mut first = vec![3, 0, 0, 0, 0, 16]; // pad length, priority
    first.extend_from_slice(&block[..4]);
    first.extend_from_slice(&[0; 3]);
    let mut bytes = raw(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, &first);
    for piece in block[4..].chunks(1) {
        bytes.extend(raw(kind::CONTINUATION, 0, 1, piece));
    }
    bytes.extend(raw(kind::CONTINUATION, END_HEADERS, 1, &[]));
    engine.receive(bytes.into(), now).unwrap();
    let events = events(&mut engine);
    assert!(
        matches!(&events[..], [Event::Request { request: Ok(request), .. }] if &*request.authority == "a:1")
    );
}

#[test]
fn padding_is_not_payload_and_its_window_comes_back() {
    let (mut engine, now) = server();
    let padded = raw(kind::DATA, flag::PADDED | flag::END_STREAM, 1, &[2, b'h', b'i', 0, 0]);
    engine.receive([open(1), padded].concat().into(), now).unwrap();
    let events = events(&mut engine);
    assert!(matches!(&events[1], Event::Data { payload, .. } if &payload[..] == b"hi"));
    assert!(matches!(events[2], Event::End { .. }));
    let all_padding = raw(kind::DATA, flag::PADDED, 1, &[5, 0, 0]);
    assert_eq!(ends_with(&[open(1), all_padding]), Some(Reason::PROTOCOL_ERROR));
}

#[test]
fn padding_of_a_server_is_no_part_of_its_answer() {
    let (mut engine, now) = client();
    engine.open(&request()).unwrap();
    let answer = raw(kind::HEADERS, END_HEADERS | flag::PADDED, 1, &[2, 0x88, 0, 0]);
    let payload = raw(kind::DATA, flag::PADDED, 1, &[3, b'h', b'i', 0, 0, 0]);
    let only_padding = raw(kind::DATA, flag::PADDED | flag::END_STREAM, 1, &[1, 0]);
    engine.receive([answer, payload, only_padding].concat().into(), now).unwrap();
    let events = events(&mut engine);
    let [
        Event::Response { response, end: false, .. },
        Event::Data { payload, .. },
        Event::End { .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((response.status, &payload[..]), (StatusCode::OK, &b"hi"[..]));
}

/// RFC 9113 §6.1: padding counts against the windows, and no application will ever consume it.
#[test]
fn a_peer_that_pads_all_it_can_never_runs_out_of_window() {
    let now = Instant::now();
    let window = 1_000;
    let config = Config { stream_window_bytes: window, ..Config::server() };
    let mut engine = Engine::server(config, now);
    engine.receive(Bytes::from_static(PREFACE), now).unwrap();
    let hello =
        [raw(kind::SETTINGS, 0, 0, &[]), raw(kind::SETTINGS, flag::ACK, 0, &[]), open(1)].concat();
    engine.receive(hello.into(), now).unwrap();
    let mut left = HashMap::from([(0, DEFAULT_WINDOW), (1, window)]);
    *left.get_mut(&0).unwrap() += updates(&drain(&mut engine)).map(|(_, more)| more).sum::<u32>();
    let mut frame = vec![255, b'x'];
    frame.resize(257, 0);
    // Far more than both windows hold together.
    for _ in 0..200_000 {
        for window in left.values_mut() {
            *window = window.checked_sub(257).expect("room for another frame");
        }
        engine.receive(raw(kind::DATA, flag::PADDED, 1, &frame).into(), now).unwrap();
        for event in events(&mut engine) {
            if let Event::Data { stream, payload } = event {
                engine.consume(stream, payload.len());
            }
        }
        for (stream, more) in updates(&drain(&mut engine)) {
            *left.get_mut(&stream).unwrap() += more;
        }
    }
}

/// WINDOW_UPDATE frames in what an engine wrote: stream and increment.
fn updates(mut output: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    std::iter::from_fn(move || {
        while !output.is_empty() {
            let length = number(&[0, output[0], output[1], output[2]]) as usize;
            let (header, rest) = output.split_at(HEADER_BYTES);
            let (payload, rest) = rest.split_at(length);
            output = rest;
            if header[3] == kind::WINDOW_UPDATE {
                return Some((number(&header[5..9]), number(payload)));
            }
        }
        None
    })
}

#[test]
fn trailers_end_the_stream_and_nothing_else_may() {
    let trailers = [0x00, 1, b'x', 1, b'y'];
    let (mut engine, now) = server();
    let end = raw(kind::HEADERS, END_HEADERS | flag::END_STREAM, 1, &trailers);
    engine.receive([open(1), end].concat().into(), now).unwrap();
    assert!(matches!(events(&mut engine)[1], Event::End { .. }));
    let (mut engine, now) = server();
    let endless = raw(kind::HEADERS, END_HEADERS, 1, &trailers);
    engine.receive([open(1), endless].concat().into(), now).unwrap();
    let reset = &events(&mut engine)[1];
    assert!(matches!(reset, Event::Reset { reason: Reason::PROTOCOL_ERROR, .. }));
}

#[test]
fn violations_end_the_connection_with_their_code() {
    let cases: &[(&str, Vec<Vec<u8>>, Reason)] = &[
        ("data on zero", vec![raw(0, 0, 0, b"x")], Reason::PROTOCOL_ERROR),
        ("data on idle", vec![raw(0, 0, 1, b"x")], Reason::PROTOCOL_ERROR),
        ("even stream", vec![open(2)], Reason::PROTOCOL_ERROR),
        ("push", vec![raw(kind::PUSH_PROMISE, 4, 1, &[0; 8])], Reason::PROTOCOL_ERROR),
        ("lone continuation", vec![raw(9, 4, 1, &[])], Reason::PROTOCOL_ERROR),
        (
            "frame inside a header block",
            vec![raw(1, 0, 1, &connect_block()), raw(kind::PING, 0, 0, &[0; 8])],
            Reason::PROTOCOL_ERROR,
        ),
        ("short ping", vec![raw(kind::PING, 0, 0, &[0; 7])], Reason::FRAME_SIZE_ERROR),
        ("ping on a stream", vec![raw(kind::PING, 0, 1, &[0; 8])], Reason::PROTOCOL_ERROR),
        ("odd settings", vec![raw(kind::SETTINGS, 0, 0, &[0; 5])], Reason::FRAME_SIZE_ERROR),
        ("full settings ack", vec![raw(kind::SETTINGS, 1, 0, &[0; 6])], Reason::FRAME_SIZE_ERROR),
        ("short goaway", vec![raw(kind::GOAWAY, 0, 0, &[0; 7])], Reason::FRAME_SIZE_ERROR),
        ("zero update", vec![raw(kind::WINDOW_UPDATE, 0, 0, &[0; 4])], Reason::PROTOCOL_ERROR),
        (
            "window overflow",
            vec![raw(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])],
            Reason::FLOW_CONTROL_ERROR,
        ),
        ("bad hpack", vec![raw(1, END_HEADERS, 1, &[0x80])], Reason::COMPRESSION_ERROR),
        ("huge frame", vec![vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1]], Reason::FRAME_SIZE_ERROR),
        (
            "huge window",
            vec![raw(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])],
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "small frames",
            vec![raw(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])],
            Reason::PROTOCOL_ERROR,
        ),
    ];
    for (name, frames, reason) in cases {
        assert_eq!(ends_with(frames), Some(*reason), "{name}");
    }
}

#[test]
fn floods_end_the_connection() {
    let many = |frame: Vec<u8>, count: usize| vec![frame; count];
    let ping = raw(kind::PING, 0, 0, &[0; 8]);
    let empty = raw(kind::DATA, 0, 1, &[]);
    let rapid: Vec<_> = (0..500)
        .flat_map(|index| {
            let id = 2 * index + 1;
            [open(id), raw(kind::RST_STREAM, 0, id, &[0, 0, 0, 8])]
        })
        .collect();
    let made_to_reset: Vec<_> = (0..500)
        .flat_map(|index| {
            let id = 2 * index + 1;
            [open(id), raw(kind::WINDOW_UPDATE, 0, id, &[0; 4])]
        })
        .collect();
    let small_pieces: Vec<_> = std::iter::once(raw(kind::HEADERS, 0, 1, &[]))
        .chain(many(raw(kind::CONTINUATION, 0, 1, &[]), 200))
        .collect();
    let large_pieces: Vec<_> = std::iter::once(raw(kind::HEADERS, 0, 1, &[]))
        .chain(many(raw(kind::CONTINUATION, 0, 1, &[0x82; 16_000]), 20))
        .collect();
    let calm = Some(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(ends_with(&many(ping, 1_100)), calm, "pings");
    assert_eq!(ends_with(&many(raw(kind::SETTINGS, 0, 0, &[]), 1_100)), calm, "settings");
    assert_eq!(ends_with(&many(raw(0xbe, 0, 0, &[]), 1_100)), calm, "unknown frames");
    assert_eq!(ends_with(&many(raw(kind::PRIORITY, 0, 1, &[0; 5]), 1_100)), calm, "priority");
    let update = raw(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert_eq!(ends_with(&many(update, 2_100)), calm, "updates");
    let empties = [vec![open(1)], many(empty, 1_100)].concat();
    assert_eq!(ends_with(&empties), calm, "empty data");
    assert_eq!(ends_with(&rapid), calm, "rapid reset");
    assert_eq!(ends_with(&made_to_reset), calm, "made to reset");
    assert_eq!(ends_with(&small_pieces), calm, "small continuation");
    assert_eq!(ends_with(&large_pieces), calm, "large continuation");
}

#[test]
fn too_large_a_header_list_is_answered_and_the_connection_lives() {
    let (mut engine, now) = server();
    let mut block = connect_block();
    let encoder = hpack::Encoder::default();
    for _ in 0..5 {
        encoder.field(&mut block, b"x", &[b'y'; 14_000]);
    }
    let mut frames = vec![raw(kind::HEADERS, 0, 1, &[])];
    let last = block.len().div_ceil(16_384) - 1;
    for (index, piece) in block.chunks(16_384).enumerate() {
        let flags = if index == last { END_HEADERS } else { 0 };
        frames.push(raw(kind::CONTINUATION, flags, 1, piece));
    }
    frames.push(open(3));
    engine.receive(frames.concat().into(), now).unwrap();
    let events = events(&mut engine);
    let too_large = BadRequest::TooLarge { limit_bytes: 64 << 10 };
    assert!(matches!(
        &events[..],
        [
            Event::Request { stream: StreamId(1), request: Err(bad), .. },
            Event::Request { stream: StreamId(3), request: Ok(_), .. },
        ] if *bad == too_large
    ));
    engine.respond(StreamId(1), too_large.status(), &HeaderMap::new(), true);
    assert!(drain(&mut engine).windows(3).any(|bytes| bytes == b"431"));
}

#[test]
fn streams_above_the_limit_are_refused() {
    let (mut engine, now) = server();
    let frames: Vec<_> = (0..201).map(|index| open(2 * index + 1)).collect();
    engine.receive(frames.concat().into(), now).unwrap();
    assert_eq!(events(&mut engine).len(), 200);
    let refusal = raw(kind::RST_STREAM, 0, 401, &[0, 0, 0, 7]);
    assert!(drain(&mut engine).ends_with(&refusal));
}

#[test]
fn other_methods_are_told_and_malformed_requests_reset() {
    let (mut engine, now) = server();
    let get =
        raw(kind::HEADERS, END_HEADERS | flag::END_STREAM, 1, &[0x82, 0x84, 0x87, 0x41, 1, b'a']);
    let bad = raw(kind::HEADERS, END_HEADERS, 3, &[0x82]);
    engine.receive([get, bad].concat().into(), now).unwrap();
    let events = events(&mut engine);
    assert!(matches!(
        events[..],
        [Event::Request { stream: StreamId(1), request: Err(BadRequest::NotConnect), end: true }]
    ));
    assert!(drain(&mut engine).ends_with(&raw(kind::RST_STREAM, 0, 3, &[0, 0, 0, 1])));
    engine.respond(StreamId(1), BadRequest::NotConnect.status(), &HeaderMap::new(), true);
    assert!(drain(&mut engine).ends_with(&[0x8c]), "400, indexed");
    assert_eq!(engine.active_streams(), 0);
}

#[test]
fn data_beyond_the_window_breaks_stream_or_connection() {
    let now = Instant::now();
    let config = Config { stream_window_bytes: 10, ..Config::server() };
    let mut engine = Engine::server(config, now);
    engine.receive(Bytes::from_static(PREFACE), now).unwrap();
    let ack = raw(kind::SETTINGS, flag::ACK, 0, &[]);
    let hello = [raw(kind::SETTINGS, 0, 0, &[]), ack, open(1)].concat();
    engine.receive(hello.into(), now).unwrap();
    engine.receive(raw(kind::DATA, 0, 1, &[0; 11]).into(), now).unwrap();
    let reset = events(&mut engine).pop();
    assert!(matches!(reset, Some(Event::Reset { reason: Reason::FLOW_CONTROL_ERROR, .. })));
}

#[test]
fn interim_answers_are_skipped_and_the_final_one_counts() {
    let (mut engine, now) = client();
    let id = engine.open(&request()).unwrap();
    let interim = raw(kind::HEADERS, END_HEADERS, 1, &[0x08, 3, b'1', b'0', b'3']);
    let last = raw(kind::HEADERS, END_HEADERS, 1, &[0x88]);
    engine.receive([interim, last].concat().into(), now).unwrap();
    let events = events(&mut engine);
    assert!(matches!(&events[..], [Event::Response { stream, .. }] if *stream == id));
}

#[test]
fn data_before_the_answer_breaks_the_stream() {
    let (mut engine, now) = client();
    engine.open(&request()).unwrap();
    engine.receive(raw(kind::DATA, 0, 1, b"early").into(), now).unwrap();
    let events = events(&mut engine);
    assert!(matches!(&events[..], [Event::Reset { .. }]));
    assert_eq!(engine.active_streams(), 0);
}

#[test]
fn a_goaway_refuses_streams_above_its_number_and_lets_others_finish() {
    let (mut engine, now) = client();
    for _ in 0..3 {
        engine.open(&request()).unwrap();
    }
    let go_away = raw(kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    engine.receive(go_away.into(), now).unwrap();
    let events = events(&mut engine);
    let refused = |event: &Event| {
        matches!(event, Event::Reset { stream: StreamId(5), reason: Reason::REFUSED_STREAM })
    };
    assert!(events.iter().any(refused) && events.len() == 2);
    assert_eq!(engine.open(&request()), Err(OpenError::GoingAway));
    assert!(!engine.is_finished());
    engine.reset(StreamId(1), Reason::CANCEL);
    engine.reset(StreamId(3), Reason::CANCEL);
    assert!(engine.is_finished());
}

#[test]
fn a_graceful_end_names_its_last_stream_after_a_round_trip() {
    let (mut engine, now) = server();
    engine.receive(open(1).into(), now).unwrap();
    engine.go_away();
    engine.receive(open(3).into(), now).unwrap();
    assert_eq!(events(&mut engine).len(), 2, "a request on its way is still served");
    drain(&mut engine);
    let ack = raw(kind::PING, flag::ACK, 0, &keepalive::DRAIN_PING);
    engine.receive(ack.into(), now).unwrap();
    assert!(drain(&mut engine).ends_with(&raw(kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0])));
    engine.receive(open(5).into(), now).unwrap();
    assert!(events(&mut engine).is_empty(), "too late");
    engine.reset(StreamId(1), Reason::CANCEL);
    engine.reset(StreamId(3), Reason::CANCEL);
    assert!(engine.is_finished());
}

#[test]
fn a_peer_without_settings_or_pongs_is_given_up() {
    let now = Instant::now();
    let mut engine = Engine::server(Config::server(), now);
    let late = now + Duration::from_secs(10);
    assert_eq!(engine.on_deadline(late), Err(ConnectionError::PrefaceTimeout));
    let (mut engine, now) = server();
    engine.on_deadline(now + Duration::from_secs(10)).unwrap();
    assert_eq!(engine.next_deadline(), now + Duration::from_secs(30));
    let dead = engine.on_deadline(now + Duration::from_secs(30));
    assert_eq!(dead, Err(ConnectionError::KeepaliveTimeout));
    assert!(engine.is_finished());
}
