//! A client of HTTP/2 without TLS, as applications of a mesh use it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use harness::pod::Pod;
use harness::role::app::Seen;
use harness::wire::Wire;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

pub(crate) type Body = BoxBody<Bytes, Infallible>;
pub(crate) type Sender = http2::SendRequest<Body>;

/// Runs `act` to its end, which must come soon.
pub(crate) fn run<T>(act: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let soon = Duration::from_secs(40);
    runtime.block_on(async { tokio::time::timeout(soon, act).await.context("it hangs")? })
}

/// A socket from `pod`, for tasks.
pub(crate) fn connect(pod: &Pod, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = Wire::open(pod, to)?.into_stream();
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// A connection from `pod`.
pub(crate) async fn open(pod: &Pod, to: SocketAddr) -> anyhow::Result<Sender> {
    let stream = TokioIo::new(connect(pod, to)?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<Body> {
    let uri = format!("http://lab{path}");
    Request::get(uri).body(empty()).expect("a valid path")
}

/// A request with a body, whose length is not said, and trailers.
pub(crate) fn post(path: &str, body: &'static [u8], trailers: HeaderMap) -> Request<Body> {
    let frames = [Frame::data(Bytes::from_static(body)), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok)));
    Request::post(format!("http://lab{path}")).body(body.boxed()).expect("a valid path")
}

/// A gRPC call, as far as a proxy sees it.
pub(crate) fn call(path: &str) -> Request<Body> {
    let request = Request::post(format!("http://lab{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(empty()).expect("a valid path")
}

/// What the application saw.
pub(crate) async fn seen(response: Response<Incoming>) -> anyhow::Result<Seen> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).with_context(|| format!("{status}: {body:?}"))
}
