//! gRPC through the waypoint: all four kinds of calls, with a client and a server that are not ours.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, ensure};
use futures_util::stream::{self, Stream, StreamExt as _};
use harness::eventually::eventually;
use http::Uri;
use http::uri::PathAndQuery;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::http2::{connect, run};
use super::lab::{GRPC, Lab};

pub(crate) const CASES: &[Case] =
    &[("waypoint::grpc::calls_of_all_kinds_and_their_statuses_pass", &[], calls)];

/// A message of the service `lab.Sums`.
#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
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
fn serve(listener: TcpListener) -> anyhow::Result<()> {
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

type Client = tonic::client::Grpc<Channel>;

async fn client(lab: &Lab) -> anyhow::Result<Client> {
    let stream = connect(&lab.scene.client, Lab::at(GRPC))?;
    let endpoint = Endpoint::from_static("http://sums.lab");
    let channel = endpoint.connect_with_connector(Ready(Some(stream))).await?;
    Ok(Client::new(channel))
}

fn codec() -> ProstCodec<Number, Number> {
    ProstCodec::default()
}

fn method(name: &str) -> PathAndQuery {
    format!("/lab.Sums/{name}").parse().expect("a valid path")
}

fn calls() -> anyhow::Result<()> {
    let lab = Lab::new("grpc")?;
    let listener = harness::backend::listen(&lab.scene.v1, GRPC)?;
    let end = listener.try_clone()?;
    let server = std::thread::spawn(move || serve(listener));
    let called = run(async {
        let mut client = client(&lab).await?;
        unary(&mut client).await.context("unary")?;
        server_stream(&mut client).await.context("server stream")?;
        client_stream(&mut client).await.context("client stream")?;
        conversation(&mut client).await.context("bidirectional stream")?;
        refused(&mut client).await.context("refused")?;
        refused_late(&mut client).await.context("refused in the middle")
    });
    rustix::net::shutdown(&end, rustix::net::Shutdown::Both)?;
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    called?;
    eventually(SOON, "each call is told once", || {
        let told = |line: &serde_json::Value| line["path"].as_str().map(ToOwned::to_owned);
        let told: Vec<String> = lab.scene.waypoint.log().iter().filter_map(told).collect();
        if told.len() == 6 { Ok(()) } else { Err(format!("{told:?}")) }
    })
}

async fn unary(client: &mut Client) -> anyhow::Result<()> {
    client.ready().await?;
    let request = Request::new(Number { value: 21 });
    let answer = client.unary(request, method("Total"), codec()).await?.into_inner();
    ensure!(answer.value == 21, "{answer:?}");
    Ok(())
}

async fn server_stream(client: &mut Client) -> anyhow::Result<()> {
    client.ready().await?;
    let request = Request::new(Number { value: 1000 });
    let answer = client.server_streaming(request, method("Count"), codec()).await?.into_inner();
    let numbers: Vec<_> = answer.collect().await;
    ensure!(numbers.len() == 1000 && numbers.iter().all(Result::is_ok), "{numbers:?}");
    Ok(())
}

async fn client_stream(client: &mut Client) -> anyhow::Result<()> {
    client.ready().await?;
    let request = Request::new(stream::iter(1..=1000).map(|value| Number { value }));
    let answer = client.client_streaming(request, method("Total"), codec()).await?.into_inner();
    ensure!(answer.value == 500_500, "{answer:?}");
    Ok(())
}

/// A number is said only when the answer to the one before has come.
async fn conversation(client: &mut Client) -> anyhow::Result<()> {
    client.ready().await?;
    let (say, said) = tokio::sync::mpsc::channel::<Number>(1);
    let said = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
    let answer = client.streaming(Request::new(said), method("Running"), codec()).await?;
    let mut answer = answer.into_inner();
    for (value, expected) in [(1, 1), (2, 3), (3, 6), (4, 10)] {
        say.send(Number { value }).await?;
        let sum = answer.message().await?.context("it ended")?;
        ensure!(sum.value == expected, "{sum:?}, not {expected}");
    }
    drop(say);
    Ok(())
}

fn is_refusal(status: &Status) -> anyhow::Result<()> {
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    ensure!(status.message() == "no, 100% ünwanted", "{status:?}");
    ensure!(status.metadata().get("x-detail").is_some_and(|detail| detail == "zero"), "{status:?}");
    Ok(())
}

async fn refused(client: &mut Client) -> anyhow::Result<()> {
    client.ready().await?;
    let request = Request::new(Number { value: 1 });
    let answer = client.unary(request, method("Nothing"), codec()).await;
    is_refusal(&answer.err().context("it is answered")?)
}

/// The status of a call that has answered already comes in its trailers.
async fn refused_late(client: &mut Client) -> anyhow::Result<()> {
    client.ready().await?;
    let request = Request::new(stream::iter([7, 0]).map(|value| Number { value }));
    let mut answer = client.streaming(request, method("Running"), codec()).await?.into_inner();
    ensure!(answer.message().await?.is_some_and(|sum| sum.value == 7));
    is_refusal(&answer.message().await.err().context("no error")?)
}
