//! Bytes, as many as possible: a server that takes or gives them, and a client that counts them.
//! The first byte of a connection says which way: `u` from the client, `d` from the server.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::load::{COUNTED, COUNTING};
use super::servers::{self, listen};
use super::tls;

/// Size of one read or write.
const CHUNK_BYTES: usize = 256 * 1024;

/// Server or client.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// Be the server, at this address and port.
    #[arg(long, conflicts_with = "target")]
    listen: Option<SocketAddr>,
    /// Be the client of this address and port.
    #[arg(long, required_unless_present = "listen")]
    target: Option<String>,
    /// Connections at the same time.
    #[arg(long, default_value_t = 1)]
    streams: u32,
    /// The server sends; else the client does.
    #[arg(long)]
    down: bool,
    /// With `down`: ask, and read nothing of what comes.
    #[arg(long, requires = "down")]
    unread: bool,
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds at the start that are not counted.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// Stay until the input is closed, for whoever wants to look at what this process spent.
    #[arg(long)]
    stay: bool,
    #[command(flatten)]
    tls: tls::Args,
}

/// What the client counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Bytes that were sent, or received.
    pub bytes: u64,
    /// Seconds that were counted.
    pub seconds: f64,
    /// Streams that broke, by kind.
    pub errors: BTreeMap<String, u64>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match (args.listen, &args.target) {
        (Some(address), _) => serve(&args, address).await,
        (None, target) => client(&args, target.as_deref().context("nobody to talk to")?).await,
    }
}

async fn serve(args: &Args, address: SocketAddr) -> anyhow::Result<()> {
    servers::accept(listen(address)?, args.tls.server()?, async |mut stream, _| {
        let mut way = [0];
        stream.read_exact(&mut way).await?;
        let mut buffer = vec![0; CHUNK_BYTES];
        if &way == b"d" {
            loop {
                stream.write_all(&buffer).await?;
            }
        }
        while stream.read(&mut buffer).await? > 0 {}
        Ok(())
    })
    .await
}

#[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
async fn client(args: &Args, target: &str) -> anyhow::Result<()> {
    let tls = args.tls.client()?;
    let moved = Rc::new(Cell::new(0_u64));
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..args.streams {
        streams.spawn_local(stream(
            target.to_owned(),
            tls.clone(),
            args.clone(),
            Rc::clone(&moved),
        ));
    }
    let start = Instant::now();
    let count_from = start + Duration::from_secs_f64(args.warm_up);
    let end = count_from + Duration::from_secs_f64(args.seconds);
    let mut report = Report::default();
    tokio::time::sleep_until(count_from).await;
    println!("{COUNTING}");
    let (began, before) = (Instant::now(), moved.get());
    tokio::time::sleep_until(end).await;
    println!("{COUNTED}");
    report.seconds = began.elapsed().as_secs_f64();
    report.bytes = moved.get() - before;
    // A stream never ends by itself.
    while let Some(ended) = streams.try_join_next() {
        let kind = match ended {
            Ok(Ok(())) => "ended".to_owned(),
            Ok(Err(error)) => format!("{:?}", error.kind()),
            Err(error) => error.to_string(),
        };
        *report.errors.entry(kind).or_default() += 1;
    }
    streams.shutdown().await;
    if args.stay {
        super::asked_to_end().await;
    }
    super::answer(&report)
}

async fn stream(
    target: String,
    tls: Option<Arc<ClientConfig>>,
    args: Args,
    moved: Rc<Cell<u64>>,
) -> std::io::Result<()> {
    let down = args.down;
    let mut stream = tls::connect(&target, tls.as_ref()).await?;
    stream.write_all(if down { b"d" } else { b"u" }).await?;
    stream.flush().await?;
    if args.unread {
        return std::future::pending().await;
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count =
            if down { stream.read(&mut buffer).await? } else { stream.write(&buffer).await? };
        if count == 0 {
            return Ok(());
        }
        moved.set(moved.get() + count as u64);
    }
}
