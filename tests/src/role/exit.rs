//! The end of a tunnel without TLS, for proxies that pass CONNECT on instead of ending it.
//!
//! ```text
//! client ─ ztunnel ═ mutual TLS ═ proxy ─CONNECT─ exit ─TCP─ application
//! ```

use std::net::SocketAddr;

use http::{HeaderMap, StatusCode};
use shared::hbone::{Config, Incoming, Plain, Server};
use tokio::net::TcpStream;
use ztunnel::copy::{Copy, Counters};

use super::servers::listen;

/// Streams in one connection.
const STREAMS: u32 = 2000;

/// Where an exit takes tunnels.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// Address and port.
    #[arg(long)]
    listen: SocketAddr,
}

/// Connects each stream to the address that it asks for.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let listener = listen(args.listen)?;
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(serve(stream));
        }
    };
    tokio::select! {
        result = accept => result,
        () = super::asked_to_end() => Ok(()),
    }
}

async fn serve(stream: TcpStream) {
    let config = Config { max_streams: STREAMS, ..Config::server() };
    let mut server = Server::new(Plain(stream), config);
    while let Some(Ok(incoming)) = server.accept().await {
        tokio::task::spawn_local(reach(incoming));
    }
}

async fn reach(incoming: Incoming) {
    let authority = match incoming.request() {
        Ok(request) => request.authority.clone(),
        Err(bad) => return incoming.refuse(bad.status(), &HeaderMap::new()),
    };
    let Ok(socket) = TcpStream::connect(&*authority).await else {
        return incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new());
    };
    let _ = socket.set_nodelay(true);
    let stream = incoming.accept(&HeaderMap::new());
    let _ = Copy::new(stream, socket, &Counters::default()).await;
}
