//! What happens on a line, whoever stands in its middle.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::{JoinSet, spawn_local};

use super::content::{Content, ended};
use super::line::{Line, over};

const MANY: usize = 1000;
const GIB: u64 = 1 << 30;

/// Who does a thing: not every peer lets each of them end its direction first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Application,
}

/// A thousand connections at the same time, each with bytes of its own in turn with all others.
pub(super) async fn a_thousand(line: &Line<'_>, first: Side) -> anyhow::Result<()> {
    let all_open = Rc::new(Barrier::new(MANY));
    let mut clients = JoinSet::new();
    let mut servers = JoinSet::new();
    for seed in 0..MANY as u64 {
        let client = line.open().await?;
        let all_open = Rc::clone(&all_open);
        clients.spawn_local(async move { talk(client, seed, &all_open, first).await });
        let server = line.accept().await?;
        servers.spawn_local(echo(server, first));
    }
    while let Some(talked) = clients.join_next().await {
        talked??;
    }
    while let Some(echoed) = servers.join_next().await {
        echoed??;
    }
    Ok(())
}

const SHORT: u64 = 100;
const LONG: u64 = 20_000;
const ROUNDS: u64 = 3;

async fn talk(
    mut client: TcpStream,
    seed: u64,
    all_open: &Barrier,
    first: Side,
) -> anyhow::Result<()> {
    call(&mut client, seed, SHORT).await?;
    all_open.wait().await;
    for round in 1..=ROUNDS {
        call(&mut client, seed + round * MANY as u64, LONG).await?;
    }
    if first == Side::Client {
        client.shutdown().await?;
    }
    ended(&mut client).await
}

/// Sends and hears the same back.
async fn call(client: &mut TcpStream, seed: u64, length: u64) -> anyhow::Result<()> {
    let (mut from, mut to) = client.split();
    let (sent, heard) = (Content::new(seed, length), Content::new(seed, length));
    tokio::try_join!(sent.send(&mut to), heard.receive(&mut from))
        .with_context(|| format!("seed {seed}"))?;
    Ok(())
}

async fn echo(mut server: TcpStream, first: Side) -> anyhow::Result<()> {
    let (from, mut to) = server.split();
    let mut from = from.take(SHORT + ROUNDS * LONG);
    tokio::io::copy(&mut from, &mut to).await?;
    if first == Side::Client {
        ended(from.get_mut()).await?;
    }
    to.shutdown().await?;
    Ok(())
}

/// A gigabyte each way at the same time, on one connection.
pub(super) async fn a_gigabyte(line: &Line<'_>, first: Side) -> anyhow::Result<()> {
    let (mut client, mut server) = line.pair().await?;
    let (mut client_reads, mut client_writes) = client.split();
    let up = async {
        Content::new(1, GIB).send(&mut client_writes).await?;
        if first == Side::Client {
            client_writes.shutdown().await?;
        }
        Ok(())
    };
    let comes_back = async {
        Content::new(2, GIB).receive(&mut client_reads).await?;
        ended(&mut client_reads).await
    };
    let application = async {
        let (mut reads, mut writes) = server.split();
        let arrives = async {
            Content::new(1, GIB).receive(&mut reads).await?;
            match first {
                Side::Client => ended(&mut reads).await,
                Side::Application => Ok(()),
            }
        };
        tokio::try_join!(arrives, Content::new(2, GIB).send(&mut writes))?;
        Ok(writes.shutdown().await?)
    };
    tokio::try_join!(up, application, comes_back)?;
    Ok(())
}

/// More than windows and buffers hold: somebody has to read for it to leave.
const BULK: u64 = 5 << 20;

/// Each side ends its direction first, once, and the other direction goes on.
pub(super) async fn half_closes(line: &Line<'_>) -> anyhow::Result<()> {
    client_ends_first(line).await?;
    let (client, server) = line.pair().await?;
    half_close(server, client).await.context("the application ends first")
}

pub(super) async fn client_ends_first(line: &Line<'_>) -> anyhow::Result<()> {
    let (client, server) = line.pair().await?;
    half_close(client, server).await.context("the client ends first")
}

async fn half_close(mut first: TcpStream, mut last: TcpStream) -> anyhow::Result<()> {
    Content::new(1, 1000).send(&mut first).await?;
    first.shutdown().await?;
    Content::new(1, 1000).receive(&mut last).await?;
    ended(&mut last).await?;
    let answer = spawn_local(async move {
        Content::new(2, BULK).send(&mut last).await?;
        last.shutdown().await?;
        anyhow::Ok(last)
    });
    Content::new(2, BULK).receive(&mut first).await.context("in the other direction")?;
    ended(&mut first).await?;
    answer.await??;
    Ok(())
}

/// The application ends first, and the proxy between says in one way or the other that it is over.
pub(super) async fn application_leaves(line: &Line<'_>) -> anyhow::Result<()> {
    let (mut client, mut server) = line.pair().await?;
    Content::new(3, 1000).send(&mut server).await?;
    Content::new(3, 1000).receive(&mut client).await?;
    server.shutdown().await?;
    over(&mut client).await
}

/// What one side cuts, the other sees cut and not ended; other connections do not notice.
pub(super) async fn resets(line: &Line<'_>) -> anyhow::Result<()> {
    beside(line, Side::Client, async {
        for who in [Side::Client, Side::Application, Side::Client, Side::Application] {
            let mut sees = cut_by(who, line).await?;
            cut(&mut sees).await.with_context(|| format!("cut by {who:?}"))?;
        }
        Ok(())
    })
    .await
}

/// Plays `scene` while another connection carries bytes to and fro, and ends that one in order.
pub(super) async fn beside(
    line: &Line<'_>,
    first: Side,
    scene: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut pair = line.pair().await?;
    let played = Rc::new(Cell::new(false));
    let seen = Rc::clone(&played);
    let other = spawn_local(async move {
        let mut rounds = 0;
        while !seen.get() || rounds < 100 {
            rounds += 1;
            exchange(&mut pair).await?;
        }
        part(pair, first).await
    });
    scene.await?;
    played.set(true);
    other.await?.context("another connection")
}

/// Some bytes to the application, and some back.
pub(super) async fn exchange((client, server): &mut (TcpStream, TcpStream)) -> anyhow::Result<()> {
    let (there, back) = (fastrand::u64(..), fastrand::u64(..));
    Content::new(there, 10_000).send(client).await?;
    Content::new(there, 10_000).receive(server).await?;
    Content::new(back, 10_000).send(server).await?;
    Content::new(back, 10_000).receive(client).await
}

/// One side ends and then the other.
pub(super) async fn part(
    (mut client, mut server): (TcpStream, TcpStream),
    first: Side,
) -> anyhow::Result<()> {
    if first == Side::Client {
        client.shutdown().await?;
        ended(&mut server).await?;
    }
    server.shutdown().await?;
    ended(&mut client).await
}

/// Both sides have spoken, and bytes are on their way to whoever cuts. Gives the other side's end.
pub(super) async fn cut_by(who: Side, line: &Line<'_>) -> anyhow::Result<TcpStream> {
    let (client, server) = line.pair().await?;
    let (mut cuts, mut sees) = match who {
        Side::Client => (client, server),
        Side::Application => (server, client),
    };
    Content::new(1, 1000).send(&mut cuts).await?;
    Content::new(1, 1000).receive(&mut sees).await?;
    Content::new(2, 100_000).send(&mut sees).await?;
    cuts.set_zero_linger()?;
    drop(cuts);
    Ok(sees)
}

/// The other side is gone without having ended.
pub(super) async fn cut(from: &mut TcpStream) -> anyhow::Result<()> {
    match from.read(&mut [0; 64]).await {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Ok(0) => anyhow::bail!("looks like an end"),
        other => anyhow::bail!("not cut but {other:?}"),
    }
}
