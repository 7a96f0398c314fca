//! gRPC through the waypoint: all four kinds of calls, with a client and a server that are not ours.

use anyhow::{Context as _, ensure};
use futures_util::stream::{self, StreamExt as _};
use harness::eventually::eventually;
use harness::sums::{self, Client, Number, codec, method};
use tonic::{Code, Request, Status};

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::http2::{connect, run};
use super::lab::{GRPC, Lab};

pub(crate) const CASES: &[Case] =
    &[("waypoint::grpc::calls_of_all_kinds_and_their_statuses_pass", &[], calls)];

fn calls() -> anyhow::Result<()> {
    let lab = Lab::new("grpc")?;
    let listener = harness::backend::listen(&lab.scene.v1, GRPC)?;
    let end = listener.try_clone()?;
    let server = std::thread::spawn(move || sums::serve(listener));
    let called = run(async {
        let mut client = sums::client(connect(&lab.scene.client, Lab::at(GRPC))?).await?;
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
