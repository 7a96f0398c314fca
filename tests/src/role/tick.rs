//! A long-lived connection to an echo server: one small exchange after another, until told to end
//! or until the connection breaks. Says when that was and what the longest wait was.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Whom to talk to, and how often.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Name or address, and port.
    #[arg(long)]
    target: String,
    /// Milliseconds between exchanges.
    #[arg(long, default_value_t = 10)]
    every_ms: u64,
}

/// The life of the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Exchanges that succeeded.
    pub ticks: u64,
    /// The longest time for one exchange.
    pub longest_ms: u64,
    /// Why it broke, if it did, and when by the machine's clock.
    pub broken: Option<(String, u64)>,
}

/// Runs the connection and prints the report.
#[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report { ticks: 0, longest_ms: 0, broken: None };
    let mut end = std::pin::pin!(super::asked_to_end());
    let mut stream = match TcpStream::connect(&args.target).await {
        Ok(stream) => stream,
        Err(error) => {
            report.broken = Some((format!("connect: {error}"), super::now_ms()));
            return super::answer(&report);
        }
    };
    stream.set_nodelay(true)?;
    let every = Duration::from_millis(args.every_ms);
    loop {
        let started = Instant::now();
        let exchange = tokio::select! {
            exchange = exchange(&mut stream, report.ticks) => exchange,
            () = &mut end => return super::answer(&report),
        };
        let took = started.elapsed();
        if let Err(error) = exchange {
            report.broken = Some((error.to_string(), super::now_ms()));
            return super::answer(&report);
        }
        if report.ticks == 0 {
            println!("connected");
        }
        report.ticks += 1;
        report.longest_ms = report.longest_ms.max(took.as_millis() as u64);
        // Between exchanges the connection is watched, so that its end is seen when it comes.
        let mut byte = [0];
        tokio::select! {
            () = tokio::time::sleep_until(started + every) => {}
            read = stream.peek(&mut byte) => {
                let why = match read {
                    Ok(0) => "closed by the peer".to_owned(),
                    Ok(_) => "bytes that nobody asked for".to_owned(),
                    Err(error) => error.to_string(),
                };
                report.broken = Some((why, super::now_ms()));
                return super::answer(&report);
            }
            () = &mut end => return super::answer(&report),
        }
    }
}

async fn exchange(stream: &mut TcpStream, number: u64) -> std::io::Result<()> {
    let sent = format!("tick {number:011}");
    stream.write_all(sent.as_bytes()).await?;
    let mut heard = vec![0; sent.len()];
    let limit = Duration::from_secs(10);
    match tokio::time::timeout(limit, stream.read_exact(&mut heard)).await {
        Ok(Ok(_)) if heard == sent.as_bytes() => Ok(()),
        Ok(Ok(_)) => Err(std::io::Error::other("a different answer")),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(std::io::Error::other("no answer within 10 s")),
    }
}
