//! Opens many connections to an echo server, uses each once, and holds them until told to end.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::tls::{self, Stream};

/// How many, where to.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// Name or address, and port.
    #[arg(long)]
    target: String,
    /// How many connections.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// How many are opened at the same time.
    #[arg(long, default_value_t = 64)]
    opening: usize,
    #[command(flatten)]
    tls: tls::Args,
}

/// What became of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Connections that were opened and answered.
    pub opened: usize,
    /// Of those, the ones that still answered at the end.
    pub alive: usize,
    /// The first error.
    pub error: Option<String>,
}

/// Opens, says `holding`, waits for the end, looks again, prints the report.
#[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let tls = args.tls.client()?;
    let mut report = Report::default();
    let mut opening = JoinSet::new();
    let mut held = Vec::with_capacity(args.connections);
    let mut started = 0;
    while held.len() + usize::from(report.error.is_some()) < args.connections {
        while started < args.connections && opening.len() < args.opening {
            opening.spawn_local(open(args.target.clone(), tls.clone()));
            started += 1;
        }
        match opening.join_next().await {
            Some(Ok(Ok(stream))) => held.push(stream),
            Some(Ok(Err(error))) => report.error = report.error.or_else(|| Some(error.to_string())),
            Some(Err(error)) => report.error = Some(error.to_string()),
            None => break,
        }
    }
    report.opened = held.len();
    println!("holding {}", held.len());
    super::asked_to_end().await;
    for mut stream in held {
        match exchange(&mut stream).await {
            Ok(()) => report.alive += 1,
            Err(error) => report.error = report.error.or_else(|| Some(error.to_string())),
        }
    }
    super::answer(&report)
}

async fn open(target: String, tls: Option<Arc<ClientConfig>>) -> std::io::Result<Stream> {
    let mut stream = tls::connect(&target, tls.as_ref()).await?;
    exchange(&mut stream).await?;
    Ok(stream)
}

async fn exchange(stream: &mut Stream) -> std::io::Result<()> {
    let work = async {
        stream.write_all(b"hold").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0; 4]).await?;
        Ok(())
    };
    match tokio::time::timeout(Duration::from_secs(30), work).await {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::other("no answer within 30 s")),
    }
}
