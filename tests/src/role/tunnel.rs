//! A peer of the mesh that asks for whatever it is told to: a certificate of its own, mutual TLS,
//! and one CONNECT after another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shared::hbone::{self, Request};
use shared::identity::{Authority as _, CaClient, SpiffeId, Token};
use shared::tls;
use tokio::net::TcpStream;

/// Who we are, whom we ask, and for what.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// The certificate authority.
    #[arg(long)]
    ca: String,
    /// File with the join token of the node whose pod we are.
    #[arg(long)]
    join_token: PathBuf,
    /// The identity of that pod.
    #[arg(long)]
    identity: String,
    /// Where the peer listens.
    #[arg(long)]
    to: SocketAddr,
    /// The peer's identity.
    #[arg(long)]
    expect: String,
    /// CONNECT targets.
    authorities: Vec<String>,
}

/// What was answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// By target: the status, or the error where there was none.
    pub answers: BTreeMap<String, String>,
}

/// Asks for each target over a tunnel connection of its own, so that no answer depends on another.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let own = args.identity.parse::<SpiffeId>()?;
    let ca = CaClient::new(&args.ca, Token::File(args.join_token), own.trust_domain().clone())?;
    let certificate = ca.issue(&own).await.context("getting a certificate")?;
    let config = certificate.client_config(&[args.expect.parse::<SpiffeId>()?]);
    let mut report = Report::default();
    for authority in args.authorities {
        let socket = TcpStream::connect(args.to).await?;
        let (stream, _) = tls::connect(socket, config.clone()).await.context("mutual TLS")?;
        let (client, driver) = hbone::client(stream, hbone::Config::client());
        let driver = tokio::task::spawn_local(driver);
        let request = Request { authority: authority.as_str().into(), headers: Default::default() };
        let opened = tokio::time::timeout(Duration::from_secs(20), client.open(&request)).await;
        let answer = match opened {
            Ok(Ok((response, _))) => response.status.as_str().to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 20 s".to_owned(),
        };
        report.answers.insert(authority, answer);
        drop(client);
        driver.abort();
    }
    super::answer(&report)
}
