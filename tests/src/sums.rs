//! A gRPC service and its client, neither of them ours: sums of numbers in all four kinds of calls.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{self, Stream, StreamExt as _};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// A message of the service `lab.Sums`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Number {
    /// It.
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

/// The methods of `lab.Sums`, each a stream on both sides; a call with one message is one, too.
#[derive(Clone)]
struct Method(String);

impl Service<Request<Streaming<Number>>> for Method {
    type Response = Response<Numbers>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Numbers>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Number>>) -> Self::Future {
        let method = self.0.clone();
        let mut numbers = request.into_inner();
        Box::pin(async move {
            let answer: Numbers = match method.as_str() {
                "/lab.Sums/Count" => {
                    let most = numbers.message().await?.unwrap_or_default().value;
                    Box::pin(stream::iter(1..=most).map(|value| Ok(Number { value })))
                }
                "/lab.Sums/Total" => {
                    let mut value = 0;
                    while let Some(number) = numbers.message().await? {
                        value += number.value;
                    }
                    Box::pin(stream::iter([Ok(Number { value })]))
                }
                "/lab.Sums/Running" => running(numbers),
                _ => return Err(refusal()),
            };
            Ok(Response::new(answer))
        })
    }
}

/// The sum so far after each number; a zero is an error.
fn running(numbers: Streaming<Number>) -> Numbers {
    Box::pin(stream::unfold((numbers, 0), |(mut numbers, sum)| async move {
        match numbers.message().await {
            Ok(Some(Number { value: 0 })) => Some((Err(refusal()), (numbers, sum))),
            Ok(Some(Number { value })) => {
                let value = sum + value;
                Some((Ok(Number { value }), (numbers, value)))
            }
            Ok(None) => None,
            Err(status) => Some((Err(status), (numbers, sum))),
        }
    }))
}

fn refusal() -> Status {
    let mut status = Status::failed_precondition("no, 100% ünwanted");
    status.metadata_mut().insert("x-detail", MetadataValue::from_static("zero"));
    status
}

/// Serves `lab.Sums` until the listener is shut down.
///
/// # Errors
/// There is no event loop to be had.
pub fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
                let method = Method(request.uri().path().to_owned());
                let mut server = tonic::server::Grpc::new(ProstCodec::<Number, Number>::default());
                Ok::<_, Infallible>(server.streaming(method, request).await)
            });
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(served);
        }
        anyhow::Ok(())
    })
}

/// Gives a channel the connection that there is.
struct Ready(Option<TcpStream>);

impl Service<Uri> for Ready {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().ok_or_else(|| std::io::ErrorKind::NotConnected.into());
        std::future::ready(stream.map(TokioIo::new))
    }
}

/// Calls `lab.Sums`.
pub type Client = tonic::client::Grpc<Channel>;

/// A client over a connection that there is.
///
/// # Errors
/// The other side does not speak HTTP/2.
pub async fn client(stream: TcpStream) -> anyhow::Result<Client> {
    let endpoint = Endpoint::from_static("http://sums.lab");
    let channel = endpoint.connect_with_connector(Ready(Some(stream))).await?;
    Ok(Client::new(channel))
}

/// How its messages are written.
#[must_use]
pub fn codec() -> ProstCodec<Number, Number> {
    ProstCodec::default()
}

/// The path of a method.
///
/// # Panics
/// The name is none.
#[must_use]
pub fn method(name: &str) -> PathAndQuery {
    format!("/lab.Sums/{name}").parse().expect("a valid path")
}
