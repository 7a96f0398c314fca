//! Servers of raw TCP: one that answers what it hears, and one that speaks first.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tls::{self, Stream};

/// What a server listens on and calls itself.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// Address and port.
    #[arg(long)]
    pub(super) listen: SocketAddr,
    /// Told to whoever asks.
    #[arg(long, default_value = "server")]
    pub(super) name: String,
    #[command(flatten)]
    tls: tls::Args,
}

/// Binds, and says so to whoever waits for the line.
#[expect(clippy::print_stdout, reason = "standard output is how a role answers")]
pub(super) fn listen(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = if at.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    let listener = socket.listen(4096)?;
    println!("listening on {at}");
    Ok(listener)
}

/// Sends back what it reads; after the peer's end it ends too.
pub(super) async fn echo(args: Args) -> anyhow::Result<()> {
    serve(args, async |mut stream: Stream, _| {
        let mut buffer = vec![0; 65536];
        loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return stream.shutdown().await;
            }
            stream.write_all(&buffer[..read]).await?;
        }
    })
    .await
}

/// Greets before it hears anything, with its name and the address it sees; then echoes lines.
pub(super) async fn banner(args: Args) -> anyhow::Result<()> {
    let name = args.name.clone();
    serve(args, async move |mut stream: Stream, peer| {
        stream.write_all(format!("220 {name} sees {peer}\r\n").as_bytes()).await?;
        let mut buffer = vec![0; 65536];
        loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                // The last word is the server's: only a peer that half-closed can hear it.
                stream.write_all(b"221 bye\r\n").await?;
                return stream.shutdown().await;
            }
            stream.write_all(&buffer[..read]).await?;
        }
    })
    .await
}

/// Serves `each` with every connection in a task of its own, until told to end.
pub(super) async fn serve<F>(args: Args, each: F) -> anyhow::Result<()>
where
    F: AsyncFn(Stream, SocketAddr) -> std::io::Result<()> + Clone + 'static,
{
    let tls = args.tls.server()?;
    accept(listen(args.listen)?, tls, each).await
}

/// The same for a listener that is there.
pub(super) async fn accept<F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    each: F,
) -> anyhow::Result<()>
where
    F: AsyncFn(Stream, SocketAddr) -> std::io::Result<()> + Clone + 'static,
{
    let accept = async {
        loop {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (tls, each) = (tls.clone(), each.clone());
            tokio::task::spawn_local(async move {
                let stream: Stream = match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                    None => Box::new(stream),
                };
                let _ = each(stream, peer).await;
            });
        }
    };
    tokio::select! {
        result = accept => result,
        () = super::asked_to_end() => Ok(()),
    }
}
