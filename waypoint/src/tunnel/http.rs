//! HTTP connections of clients.
//!
//! Invariants: a drain lets requests finish and tells the client to go elsewhere (`Connection: close`,
//! GOAWAY); a connection that was upgraded is carried as bytes from then on.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::chain::Chain;
use shared::drain::Phase;
use shared::hbone::Stream;
use tokio::io::AsyncWriteExt;

use crate::metrics;
use crate::outcome::Outcome;
use crate::request::{self, reading};
use crate::tunnel::Client;
use crate::tunnel::pace::{Answer, Pace, Paced};
use crate::upstream::{LocalExecutor, Upgraded};

const SWITCHING_PROTOCOLS: StatusCode = StatusCode::SWITCHING_PROTOCOLS;

/// Where a request leaves the upstream of an upgrade for its connection.
pub(crate) type Switch = Rc<RefCell<Option<Upgraded>>>;

/// Serves requests until the client or a drain ends the connection.
pub(super) async fn serve_http1(client: Rc<Client>, stream: Stream) {
    let config = client.worker.config();
    let switch = Switch::default();
    let pace = Pace::new(config.head_timeout, config.client_idle);
    let served = (Rc::clone(&client), Rc::clone(&switch), Rc::clone(&pace));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (client, switch) = (Rc::clone(&served.0), Rc::clone(&served.1));
        let asked = served.2.asked();
        boxed(async move {
            let drain = client.drain.clone();
            let mut answered = request::serve(client, Some(switch), request).await;
            if drain.phase() != Phase::Running && answered.status() != SWITCHING_PROTOCOLS {
                answered.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answered.map(|body| Answer { body, _asked: asked }))
        })
    });
    let mut connection = reading::parser(config)
        .serve_connection(TokioIo::new(Paced { stream, pace: Rc::clone(&pace) }), service);
    // A client that rests does not know yet: what it sends next is answered, with the word to leave.
    let mut draining = pin!(async {
        client.drain.draining().await;
        tokio::time::sleep(config.drain_rest).await;
    });
    let mut drained = false;
    let ended = loop {
        tokio::select! {
            ended = pace.keep(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = &mut draining, if !drained => {
                drained = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner().stream;
    match (ended, switch.take()) {
        (Some(Ok(())), Some(upgraded)) => upgraded.carry(stream, read_buf).await,
        (None | Some(Ok(())), _) => {
            // The client may have left already, or was too slow.
            let _ = stream.shutdown().await;
        }
        (Some(Err(error)), _) => {
            tell(&client, &error);
            // What hyper answered to a bad request is still on its way; the rest is not waited for.
            let _ = stream.shutdown().await;
        }
    }
}

/// The same for HTTP/2.
pub(super) async fn serve_http2(client: Rc<Client>, stream: Stream) {
    let config = client.worker.config();
    let served = Rc::clone(&client);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let served = Rc::clone(&served);
        boxed(async move { Ok(request::serve(served, None, request).await) })
    });
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut draining = pin!(client.drain.draining());
    let mut drained = false;
    let ended = loop {
        tokio::select! {
            ended = &mut connection => break ended,
            () = &mut draining, if !drained => {
                drained = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tell(&client, &error);
    }
}

/// An end that the client owes to its own bytes is told where requests are told.
fn tell(client: &Client, error: &hyper::Error) {
    let broke_http2 = || {
        let source = std::error::Error::source(error);
        source.and_then(|source| source.downcast_ref()).is_some_and(|error: &h2::Error| {
            // Ours: what the client sent as its last word is no fault.
            error.is_library() && (error.is_go_away() || error.is_reset())
        })
    };
    if error.is_parse_too_large() {
        metrics::ended(client, Outcome::HEADERS_TOO_LARGE, &Chain(error));
    } else if error.is_parse() || broke_http2() {
        metrics::ended(client, Outcome::MESSAGE_MALFORMED, &Chain(error));
    } else {
        tracing::debug!(src = %client.address, error = %Chain(error), "http connection ended");
    }
}

/// hyper polls the futures of its connections in place, so they must not be pinned to a stack.
fn boxed<B: 'static>(
    response: impl Future<Output = Result<http::Response<B>, Infallible>> + 'static,
) -> Pin<Box<dyn Future<Output = Result<http::Response<B>, Infallible>>>> {
    Box::pin(response)
}
